"""The registry: names, files of one's own, and what is said of those that do not fit."""

from pathlib import Path

import pytest

from mmpt_bench import api
from mmpt_bench.common import entries
from mmpt_bench.common.errors import RequestError
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog
from support.paths import ROOT

TEMPLATES = {"task": "tasks/_template.py", "method": "baselines/_template.py"}


def test_every_task_of_the_card_is_there() -> None:
    assert set(task_catalog.task_entries()) == {"mme", "pope", "vsr", "snli_ve", "cifar10", "mnist"}


def test_every_method_of_the_card_is_there_and_frozen_comes_first() -> None:
    assert list(method_catalog.method_entries()) == [
        "frozen",
        "projector",
        "mmpt",
        "vpt",
        "prefix",
        "dynamic",
        "lora",
        "moe_lora",
        "adapter",
        "full",
    ]


FIND = {"task": task_catalog.find_tasks, "method": method_catalog.find_methods}


@pytest.mark.parametrize("kind", ["task", "method"])
def test_every_file_exports_what_its_name_says(kind: str) -> None:
    for entry in FIND[kind]("all"):
        loaded = task_catalog.load_task(entry) if kind == "task" else method_catalog.load_method(entry)
        assert loaded.name == entry.name
        assert len(entry.summary) > 20


def test_names_keep_their_order_and_stand_once() -> None:
    assert [entry.name for entry in task_catalog.find_tasks("pope,mme,pope")] == ["pope", "mme"]


@pytest.mark.parametrize(
    ("kind", "name", "nearest"), [("task", "mee", "mme"), ("task", "POPE", "pope"), ("method", "loar", "lora")]
)
def test_an_unknown_name_is_told_its_nearest(kind: str, name: str, nearest: str) -> None:
    with pytest.raises(RequestError, match=f"Did you mean `{nearest}`"):
        FIND[kind](name)


def test_a_field_is_checked_without_importing_the_method() -> None:
    with pytest.raises(RequestError, match="There is no field `rr`"):
        method_catalog.check_fields(method_catalog.method_entries()["lora"], ["rr"])


def test_values_take_the_type_of_their_field() -> None:
    lora = method_catalog.load_method(method_catalog.method_entries()["lora"])
    values = method_catalog.coerce(lora, {"r": "4", "train_projector": "false", "learning_rate": "1e-3"})
    assert values == {"r": 4, "train_projector": False, "learning_rate": 0.001}


@pytest.mark.parametrize(("field", "text"), [("r", "four"), ("r", "4.5"), ("train_projector", "maybe")])
def test_a_value_of_another_type_is_refused(field: str, text: str) -> None:
    lora = method_catalog.load_method(method_catalog.method_entries()["lora"])
    with pytest.raises(RequestError, match=text):
        method_catalog.coerce(lora, {field: text})


@pytest.mark.parametrize("kind", ["task", "method"])
def test_a_file_of_ones_own_is_found_by_its_path(kind: str, tmp_path: Path) -> None:
    text = (ROOT / TEMPLATES[kind]).read_text()
    name = {"task": "mine", "method": "norms"}[kind]
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    (entry,) = FIND[kind](str(path))
    assert entry.own
    assert entries.own_fingerprint(entry)
    loaded = task_catalog.load_task(entry) if kind == "task" else method_catalog.load_method(entry)
    assert loaded.name == name


def test_a_file_that_would_hide_a_built_in_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mme.py"
    path.write_text("TASK = None\n")
    with pytest.raises(RequestError, match="would hide the built-in task `mme`"):
        task_catalog.find_tasks(str(path))


@pytest.mark.parametrize(("text", "said"), [("x = 1\n", "exports no task"), ("def (:\n", "line 1")])
def test_a_file_without_a_task_is_refused_with_the_reason(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(RequestError, match=said):
        task_catalog.load_task(task_catalog.find_tasks(str(path))[0])


@pytest.mark.parametrize("kind", ["tasks", "baselines"])
def test_a_copied_template_is_called_like_its_file(kind: str, tmp_path: Path) -> None:
    copy = tmp_path / "mine.py"
    copy.write_bytes((ROOT / kind / "_template.py").read_bytes())
    if kind == "tasks":
        (entry,) = task_catalog.find_tasks(str(copy))
        assert task_catalog.load_task(entry).name == "mine"
        assert all(result.ok for result in api.check(copy))
    else:
        (entry,) = method_catalog.find_methods(str(copy))
        assert method_catalog.method_of(entry, {}).name == "mine"
