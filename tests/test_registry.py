"""The registry: names, files of one's own, and what is said of those that do not fit."""

from pathlib import Path

import pytest

from mmpt_bench import registry
from mmpt_bench.errors import RequestError

TEMPLATES = {"task": "tasks/_template.py", "method": "baselines/_template.py"}
ROOT = Path(__file__).parents[1]


def test_every_task_of_the_card_is_there() -> None:
    assert set(registry.task_entries()) == {"mme", "pope", "vsr", "snli_ve", "cifar10", "mnist"}


def test_every_method_of_the_card_is_there_and_frozen_comes_first() -> None:
    assert list(registry.method_entries()) == ["frozen", "projector", "mmpt", "vpt", "prefix", "lora", "full"]


@pytest.mark.parametrize("kind", ["task", "method"])
def test_every_file_exports_what_its_name_says(kind: str) -> None:
    for entry in registry.find(kind, "all"):
        loaded = registry.load_task(entry) if kind == "task" else registry.load_method(entry)
        assert loaded.name == entry.name
        assert len(entry.summary) > 20


def test_names_keep_their_order_and_stand_once() -> None:
    assert [entry.name for entry in registry.find("task", "pope,mme,pope")] == ["pope", "mme"]


@pytest.mark.parametrize(
    ("kind", "name", "nearest"), [("task", "mee", "mme"), ("task", "POPE", "pope"), ("method", "loar", "lora")]
)
def test_an_unknown_name_is_told_its_nearest(kind: str, name: str, nearest: str) -> None:
    with pytest.raises(RequestError, match=f"Did you mean `{nearest}`"):
        registry.find(kind, name)


def test_a_field_is_checked_without_importing_the_method() -> None:
    with pytest.raises(RequestError, match="There is no field `rr`"):
        registry.check_fields(registry.method_entries()["lora"], ["rr"])


def test_values_take_the_type_of_their_field() -> None:
    lora = registry.load_method(registry.method_entries()["lora"])
    values = registry.coerce(lora, {"r": "4", "train_projector": "false", "learning_rate": "1e-3"})
    assert values == {"r": 4, "train_projector": False, "learning_rate": 0.001}


@pytest.mark.parametrize(("field", "text"), [("r", "four"), ("r", "4.5"), ("train_projector", "maybe")])
def test_a_value_of_another_type_is_refused(field: str, text: str) -> None:
    lora = registry.load_method(registry.method_entries()["lora"])
    with pytest.raises(RequestError, match=text):
        registry.coerce(lora, {field: text})


@pytest.mark.parametrize("kind", ["task", "method"])
def test_a_file_of_ones_own_is_found_by_its_path(kind: str, tmp_path: Path) -> None:
    text = (ROOT / TEMPLATES[kind]).read_text()
    name = {"task": "mine", "method": "norms"}[kind]
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    (entry,) = registry.find(kind, str(path))
    assert entry.own
    assert registry.own_fingerprint(entry)
    loaded = registry.load_task(entry) if kind == "task" else registry.load_method(entry)
    assert loaded.name == name


def test_a_file_that_would_hide_a_built_in_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mme.py"
    path.write_text("TASK = None\n")
    with pytest.raises(RequestError, match="would hide the built-in task `mme`"):
        registry.find("task", str(path))


@pytest.mark.parametrize(("text", "said"), [("x = 1\n", "exports no task"), ("def (:\n", "line 1")])
def test_a_file_without_a_task_is_refused_with_the_reason(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(RequestError, match=said):
        registry.load_task(registry.find("task", str(path))[0])
