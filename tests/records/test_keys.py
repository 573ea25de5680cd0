"""A key is another one as soon as anything that decides a number is: each part, one at a time."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from mmpt_bench.records import keys
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.sources.prepared import PreparedTask
from mmpt_bench.sources.task_rows import Where, rows_of
from support.tasks import task

ASKED: dict[str, tuple[Any, Any]] = {
    "task": (("mme", 1), ("pope", 1)),
    "version": (("mme", 1), ("mme", 2)),
    "fingerprint": ("rows", "other rows"),
    "split": ("test", "validation"),
    "decode": ("generate", "rank"),
    "new_tokens": (8, 9),
    "limit": (None, 100),
}
RECIPE = Recipe("b", "b-files", "c", "c-rows", "lora", {"r": 8}, Budget(), 0)
OTHER: dict[str, Any] = {
    "backbone_fingerprint": "other files", "corpus": "d", "corpus_fingerprint": "other rows", "method": "vpt",
    "params": {"r": 16}, "seed": 1, "dtype": "bfloat16-mixed", "method_fingerprint": "a file",
    "stage": {"strategy": "sequential", "order": ["a", "b"], "after": ["run"]},
    "objective": {"kd": 0.5, "teacher": "full-run"},
}  # fmt: skip
BUDGETS = [("steps", 401), ("batch_size", 8), ("warmup", 0.1), ("schedule", "constant"), ("weight_decay", 0.1),
           ("max_grad_norm", 2.0), ("max_length", 512)]  # fmt: skip


def asked(changed: str = "") -> list[Any]:
    values = {name: pair[name == changed] for name, pair in ASKED.items() if name != "version"}
    return keys.asked(**values | ({"task": ASKED["version"][1]} if changed == "version" else {}))


@pytest.mark.parametrize("part", ASKED)
def test_a_result_is_another_one_where_anything_of_its_question_is(part: str) -> None:
    assert keys.replies_key("training", asked(part)) != keys.replies_key("training", asked())
    assert keys.eval_key("training", asked(part), "official") != keys.eval_key("training", asked(), "official")


def test_a_result_is_another_one_under_another_training_rule_or_task_file() -> None:
    found = keys.eval_key("training", asked(), "official")
    assert found != keys.eval_key("another", asked(), "official")
    assert found != keys.eval_key("training", asked(), "lmms-eval")
    assert found != keys.eval_key("training", [*asked(), "a file"], "official")
    assert keys.replies_key("training", asked()) != keys.replies_key("another", asked())
    assert keys.failure_key("training") not in (keys.failure_key("another"), keys.failure_key("training", "mme"))
    assert keys.failure_key("training", "mme") != keys.failure_key("training", "pope")


def test_a_prepared_task_puts_its_rows_version_split_and_limit_into_its_keys() -> None:
    of = task("mme")
    rows = rows_of(of, Where(embedded=True))
    made = PreparedTask(of, rows, [], None)
    others = [
        PreparedTask(of, dataclasses.replace(rows, fingerprint="0" * 16), [], None),
        PreparedTask(dataclasses.replace(of, version=of.version + 1), rows, [], None),
        PreparedTask(dataclasses.replace(of, data=dataclasses.replace(of.data, split="other")), rows, [], None),
        PreparedTask(dataclasses.replace(of, decode="rank"), rows, [], None),
        PreparedTask(dataclasses.replace(of, max_new_tokens=of.max_new_tokens + 1), rows, [], None),
        PreparedTask(of, rows, [], 100),
        PreparedTask(of, rows, [], None, own="a file"),
        PreparedTask(of, rows, [], None, guard=False),
    ]
    assert len({each.eval_key("t") for each in [made, *others]}) == len(others) + 1
    assert len({each.replies_key("t") for each in [made, *others]}) == len(others) + 1


def test_a_training_is_another_one_where_anything_of_its_recipe_is() -> None:
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert {*OTHER, "budget", "backbone", "world_size"} == fields, "a new field needs a line in this test"
    assert {name for name, _ in BUDGETS} == {field.name for field in dataclasses.fields(Budget)}
    others = [dataclasses.replace(RECIPE, **{name: value}) for name, value in OTHER.items()]
    others += [dataclasses.replace(RECIPE, budget=Budget(**{name: value})) for name, value in BUDGETS]  # type: ignore[arg-type]
    assert len({each.train_key for each in [RECIPE, *others]}) == len(others) + 1
    for same in ({"backbone": "/elsewhere/b"}, {"world_size": 8}):
        assert dataclasses.replace(RECIPE, **same).train_key == RECIPE.train_key  # type: ignore[arg-type]


def test_seeds_are_of_one_variant_and_nothing_else_is() -> None:
    unlike = [dataclasses.replace(RECIPE, **{n: v}) for n, v in OTHER.items() if n not in ("seed", "corpus")]
    unlike += [dataclasses.replace(RECIPE, budget=Budget(**{name: value})) for name, value in BUDGETS]  # type: ignore[arg-type]
    assert len({each.variant_key for each in [RECIPE, *unlike]}) == len(unlike) + 1
    for same in ({"seed": 9}, {"world_size": 8}):
        assert dataclasses.replace(RECIPE, **same).variant_key == RECIPE.variant_key  # type: ignore[arg-type]


def test_a_setting_is_one_backbone_corpus_budget_precision_suite_and_way_to_ask() -> None:
    parts: list[Any] = ["b-files", "c-rows", {"steps": 1}, "float32", "real", {}]
    other: list[Any] = ["other files", "other rows", {"steps": 2}, "bfloat16-mixed", "embedded", {"few_shot": 2}]
    assert len(inspect.signature(keys.setting_key).parameters) == len(parts)
    changed = [[*parts[:i], other[i], *parts[i + 1 :]] for i in range(len(parts))]
    assert len({keys.setting_key(*each) for each in [parts, *changed]}) == 7
    assert RECIPE.setting_key("real") != dataclasses.replace(RECIPE, dtype="float16-mixed").setting_key("real")
