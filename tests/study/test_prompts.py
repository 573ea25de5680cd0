"""Prompt forms compared: identical ones, hand-worked counts, what is kept, free text first, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import mmpt_bench as mb
from mmpt_bench.common.errors import Interrupted, RequestError, UntrustedRecord
from mmpt_bench.evaluation.forms import PromptForm
from mmpt_bench.runs.events import Reporter
from mmpt_bench.stats.differences import holm
from mmpt_bench.study.prompts.board import Said, prompt_rows
from mmpt_bench.study.prompts.tables import FOLDER, PromptResult, prompts_md
from support.command import bench
from support.synthetic import samples, task

OWN = '''"""Plain images: which color?"""
import runpy
from dataclasses import replace
from mmpt_bench import PromptForm
SOURCE = {source!r}
TASK = replace(
    runpy.run_path(SOURCE)["TASK"], name="plain",
    forms={{
        "a": PromptForm("{{question}} {{options}}?"),
        "the same": PromptForm("{{question}} {{options}}?"),
        "steps": PromptForm("answer {{options}} .", first="{{question}}"),
    }},
)
'''
"""A stranger's task with forms of its own, two of which are the same."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support.paths import ROOT

    path = tmp_path_factory.mktemp("own") / "plain.py"
    path.write_text(OWN.format(source=str(ROOT / "tasks" / "_template.py")))
    return path


@pytest.fixture(scope="module")
def made(own: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptResult:
    out = tmp_path_factory.mktemp("prompts")
    return mb.prompts(str(own), "frozen", orders=2, reasoning_tokens=4, out=out)


def test_two_identical_forms_differ_by_exactly_nothing(made: PromptResult) -> None:
    row = made.rows[1]
    assert row.form == "the same"
    assert row.difference is not None
    assert (row.difference.estimate, row.difference.interval, row.difference.p, row.p_holm) == (
        0.0,
        (0.0, 0.0),
        1.0,
        1.0,
    )
    assert made.rows[0].score == row.score


def test_free_text_comes_first_and_its_tokens_count(made: PromptResult) -> None:
    plain, _, steps = made.rows
    assert steps.form == "steps"
    assert steps.prompt_tokens > plain.prompt_tokens
    assert steps.reply_tokens > plain.reply_tokens
    assert made.folder.joinpath(FOLDER, f"{made.name}.csv").is_file()


def test_orders_that_labels_have_not_are_said(own: Path, tmp_path: Path) -> None:
    told: list[str] = []
    made = mb.prompts(str(own), "frozen", "a", orders=99, out=tmp_path, reporter=Reporter(said=told.append))
    assert [row.orders for row in made.rows] == [4]
    assert [text for text in told if "orders" in text] == [
        f"{made.task.title} is asked in 4 orders, not 99: its labels have no more"
    ]


def test_nothing_is_asked_twice_and_an_edited_answer_is_noticed(made: PromptResult, own: Path) -> None:
    (kept,) = made.folder.glob("runs/*/prompts-plain.jsonl")
    before = kept.read_bytes()
    # 24 images: two orders of one question each, the same ones for the identical form, the free text of 24, two more.
    assert len(before.splitlines()) == 24 * (2 + 1 + 2)
    again = mb.prompts(str(own), "frozen", orders=2, reasoning_tokens=4, out=made.folder)
    assert again.rows == made.rows
    assert kept.read_bytes() == before
    # Read by another rule, nothing is asked, and the tables are others.
    otherwise = mb.prompts(str(own), "frozen", orders=2, reasoning_tokens=4, out=made.folder, parse="plain")
    assert kept.read_bytes() == before
    assert otherwise.name != made.name == again.name
    kept.write_bytes(before.replace(b'"reply_tokens":', b'"reply_tokens":9', 1))
    try:
        with pytest.raises(UntrustedRecord, match=r"Line 1 of `prompts-plain\.jsonl`"):
            mb.prompts(str(own), "frozen", orders=2, reasoning_tokens=4, out=made.folder)
    finally:
        kept.write_bytes(before)


def test_an_interrupted_comparison_keeps_what_was_answered(own: Path, tmp_path: Path) -> None:
    asked: list[int] = []

    def stopping() -> bool:
        # Not while the task's own questions are asked, whose records come first.
        asked.append(1)
        return any(tmp_path.glob("runs/*/prompts-plain.jsonl"))

    options: dict[str, Any] = {"orders": 2, "out": tmp_path, "eval_batch_size": 8}
    with pytest.raises(Interrupted, match="8 prompts of Template are answered"):
        mb.prompts(str(own), "frozen", "a", stopping=stopping, **options)
    assert mb.prompts(str(own), "frozen", "a", **options).rows[0].n == 24


def said(form: str, replies: tuple[str, str], method: str = "frozen", seed: int | None = None) -> Said:
    """Returns what a model answers in two orders of the labels: `1` is right, `0` wrong."""
    items = samples(4)
    wrong = {"yes": "no", "no": "yes"}
    ranked = tuple([one.answer if mark == "1" else wrong[one.answer] for one, mark in zip(items, of, strict=True)]
                   for of in replies)  # fmt: skip
    return Said(method, seed, form, True, tuple(list(of) for of in ranked), ranked, 10.0, 1.0)


def readable() -> Any:
    return task(parse=lambda reply, choices: reply if reply in choices else None)


def test_scores_orders_and_sameness_are_those_worked_out_by_hand() -> None:
    rows = prompt_rows(readable(), samples(4), [said("plain", ("1111", "1100")), said("other", ("1000", "0000"))])
    plain, other = rows
    # 6 of 8 answers are right, 4 of 4 in the first order and 2 of 4 in the second; two items answer alike.
    assert (plain.score, plain.by_order, plain.same) == (0.75, (1.0, 0.5), 0.5)
    assert (other.score, other.by_order, other.same) == (0.125, (0.25, 0.0), 0.75)
    assert other.difference is not None
    assert other.difference.estimate == -0.625
    # All four images differ by 1, 2, 1 and 1 answers in one direction: 2 of 16 exchanges are as far.
    assert other.difference.p == 2 / 16


def test_unreadable_replies_and_seeds_are_counted() -> None:
    first = [said("plain", ("1111", "1111"), "lora", seed) for seed in range(3)]
    second = [
        said("other", (("1110", "1111"), ("1100", "1110"), ("1111", "1110"))[seed], "lora", seed) for seed in range(3)
    ]
    broken = Said("lora", 0, "other", True, (["?"] * 4, second[0].replies[1]), second[0].ranked, 10.0, 1.0)
    plain, other = prompt_rows(readable(), samples(4), [*first, broken, *second[1:]])
    assert plain.seeds == other.seeds == (0, 1, 2)
    assert other.unreadable == pytest.approx(4 / 24)
    assert other.score == pytest.approx((7 + 5 + 7) / 24)
    assert other.difference is not None
    assert other.difference.p_sign_flip == 0.25


def test_p_values_are_corrected_over_all_differences_of_the_table() -> None:
    forms = {"plain": ("1111", "1111"), "b": ("0000", "0000"), "c": ("1110", "1111")}
    rows = prompt_rows(
        readable(), samples(4), [said(name, of, m) for m in ("frozen", "mmpt") for name, of in forms.items()]
    )
    differences = [row for row in rows if row.difference is not None]
    assert len(differences) == 4
    assert [row.p_holm for row in differences] == holm([row.difference.p for row in differences if row.difference])


def test_tables_are_written_for_programs_and_people(made: PromptResult) -> None:
    with (made.folder / FOLDER / f"{made.name}.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["form"] for row in rows] == ["a", "the same", "steps"]
    assert [row["compared_with"] for row in rows] == ["", "a", "a"]
    assert len(made.table) == 3
    assert set(made.orders["order"]) == {1, 2}
    assert "| frozen | the same |" in prompts_md(made).decode()


@pytest.mark.slow
def test_trained_models_are_asked_with_their_own_adapters(tmp_path: Path) -> None:
    quick: dict[str, Any] = {"steps": 3, "batch_size": 4, "limit": 8, "set": ["lora.r=2", "lora.learning_rate=0.05"]}
    made = mb.prompts("vsr", "frozen,lora", "plain,if-then", orders=2, seeds=[0, 1], out=tmp_path, **quick)
    assert [(row.method, row.form, row.seeds) for row in made.rows] == [
        ("frozen", "plain", ()), ("frozen", "if-then", ()), ("lora", "plain", (0, 1)), ("lora", "if-then", (0, 1)),
    ]  # fmt: skip
    logprobs = []
    for kept in sorted(tmp_path.glob("runs/*/prompts-vsr.jsonl")):
        rows = {row["key"]: row["logprobs"] for row in map(json.loads, kept.open())}
        logprobs.append([rows[key] for key in sorted(rows)])
    # One model each: what they say to the same prompts is their own.
    assert len(logprobs) == 3
    assert logprobs[0] != logprobs[1] != logprobs[2]
    assert {len(each) for each in logprobs} == {8 * 2 * 2}


@pytest.mark.slow
def test_two_identical_forms_differ_by_exactly_nothing_on_mmpt_too(own: Path, tmp_path: Path) -> None:
    made = mb.prompts(
        str(own), "mmpt", "a,the same", orders=2, out=tmp_path, steps=3, batch_size=4, set=["mmpt.learning_rate=0.01"]
    )
    row = made.rows[1]
    assert (row.method, row.form) == ("mmpt", "the same")
    assert row.difference is not None
    assert (row.difference.estimate, row.difference.interval, row.difference.p) == (0.0, (0.0, 0.0), 1.0)
    assert row.score == made.rows[0].score


@pytest.mark.slow
def test_the_command_prints_a_table_for_people_and_json_for_programs(tmp_path: Path) -> None:
    words = ["prompts", "vsr", "--method", "frozen", "--forms", "plain,no-options", "--limit", "4", "--out", "o"]
    said = bench(*words, cwd=tmp_path)
    assert "Prompt forms on VSR" in said.stdout
    assert max(map(len, said.stdout.splitlines())) <= 80
    rows = json.loads(bench(*words, "--json", cwd=tmp_path).stdout)["rows"]
    assert [(row["form"], row["compared_with"]) for row in rows] == [("plain", None), ("no-options", "plain")]


@pytest.mark.parametrize(
    ("name", "forms", "options", "message"),
    [
        ("vsr", "plain,step", {}, "no form `step`.*no form of it writes free text"),
        ("vsr", "plain,plain", {}, "name each form once"),
        ("vsr,mme", "all", {}, "is several tasks"),
        ("vsr", "all", {"orders": 0}, "are 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, name: str, forms: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        mb.prompts(name, "frozen", forms, out=tmp_path, **options)
    assert not (tmp_path / "runs").exists()


def test_a_task_without_forms_is_named(tmp_path: Path) -> None:
    from support.paths import ROOT

    path = tmp_path / "template.py"
    path.write_bytes((ROOT / "tasks" / "_template.py").read_bytes())
    with pytest.raises(RequestError, match="`template` has no forms of prompts"):
        mb.prompts(str(path), "frozen", out=tmp_path / "out")
    assert PromptForm("{question}").names_labels is False
