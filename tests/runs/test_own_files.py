"""What goes wrong in a user's own file is a failed row with its line, and keeps no other run from its result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import mmpt_bench as mb
from mmpt_bench.common.files import read_jsonl
from mmpt_bench.embedded import suite
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter

SMALL: dict[str, Any] = {"steps": 2, "batch_size": 2, "limit": 4, "base": False}
HOOK = """
        layer = backbone.model.get_submodule(backbone.anatomy.decoder_layers[0])
        layer.register_forward_pre_hook(lambda module, args: (3 * args[0], *args[1:]) if args else None)
        attachment = Attachment(backbone)
"""
VALUES = """
        with torch.no_grad():
            next(backbone.model.parameters()).mul_(1.5)
        attachment = Attachment(backbone)
"""


def method(folder: Path, name: str, *changes: tuple[str, str]) -> str:
    """Returns the path of a method of the template with an objective, in which texts are replaced."""
    path = mb.new("method", name, folder, "objective")
    text = path.read_text().replace(
        "from __future__ import annotations\n", "from __future__ import annotations\n\nimport torch\n"
    )
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    path.write_text(text)
    return str(path)


def body(text: str) -> tuple[str, str]:
    """Returns the change by which the objective begins with a statement."""
    return "        log_p = outputs", f"        {text}\n        log_p = outputs"


def run(methods: str, out: Path, tasks: str = "vsr", **more: Any) -> list[Any]:
    return list(mb.run(methods, tasks, out=out, **SMALL | more).made)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (body("return None"), "returns NoneType: return a dictionary"),
        (body("return outputs.logits.sum()"), "returns Tensor: return a dictionary"),
        (body("return {'own': outputs.logits.detach().sum()}"), "`own` depends on no trained parameter"),
        (body("return {'own': outputs.logits.sum() * float('nan')}"), "the term `own` of the loss is nan"),
        (body("return {'kd': outputs.logits.sum()}"), "`kd` is a term of this package"),
        (body("return {}['own']"), r"`broken.py`, line \d+: KeyError: 'own'"),
        (("rate=self.projector_rate),)", "rate=self.projector_rate))"), "no tuple of `mb.Group`"),
        (("rate=self.projector_rate", "rate=-1.0"), "a factor of the learning rate above 0"),
        (("Group(anatomy.projector", 'Group("nowhere"'), "the method's group `nowhere` holds no parameter"),
        (("        attachment = Attachment(backbone)", "        return None"), "returns NoneType, no `mb.Handle`"),
        (("attach(self, backbone: Backbone, seed: int)", "attach(self, backbone: Backbone)"), "TypeError"),
    ],
)  # fmt: skip
def test_a_method_that_fails_is_a_failed_row_that_says_why(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    (record,) = run(method(tmp_path, "broken", change), tmp_path / "out")
    assert record.status == "failed"
    assert re.search(said, record.reason), record.reason


@pytest.mark.parametrize("left", [HOOK, VALUES], ids=["a hook", "other values"])
def test_what_a_method_leaves_behind_reaches_no_other_run(tmp_path: Path, left: str) -> None:
    leaky = method(tmp_path, "leaky", ("        attachment = Attachment(backbone)\n", left))
    assert [record.status for record in run(f"{leaky},projector", tmp_path / "out")] == ["ok", "ok"]
    (alone,) = run("projector", tmp_path / "alone")
    logs = [read_jsonl(Store(tmp_path / name).run(alone.run).path("train.jsonl")) for name in ("out", "alone")]
    first, second = ([{key: step[key] for key in ("loss", "grad_norm")} for step in log] for log in logs)
    assert first == second


@pytest.mark.parametrize("leaves", [True, False])
def test_it_is_said_of_a_method_that_leaves_something_behind_and_of_no_other(tmp_path: Path, leaves: bool) -> None:
    changes = [("        attachment = Attachment(backbone)\n", HOOK)] if leaves else []
    told: list[str] = []
    made = run(method(tmp_path, "mine", *changes), tmp_path / "out", seeds="0,1", reporter=Reporter(said=told.append))
    assert len(made) == 2
    assert sum("leaves the backbone changed" in text for text in told) == 2 * leaves


def test_a_task_that_fails_is_a_failed_row_and_the_others_have_their_results(tmp_path: Path) -> None:
    path = mb.new("task", "words", tmp_path, "open")
    text = path.read_text()
    assert "mb.MeanOf(mb.exact_match)" in text
    path.write_text(text.replace("mb.MeanOf(mb.exact_match)", "mb.MeanOf(lambda sample, answer: {}[answer])", 1))
    failed, fine = run("frozen", tmp_path / "out", f"{path},vsr", base=True)
    assert (failed.status, failed.task, fine.status, fine.task) == ("failed", "words", "ok", "vsr")
    assert re.search(r"`words.py`, line \d+: KeyError", failed.reason), failed.reason


def test_a_row_that_becomes_no_sample_is_named(tmp_path: Path) -> None:
    path = mb.new("task", "words", tmp_path, "open")
    old, text = "    return mb.Sample(", path.read_text()
    assert old in text
    path.write_text(text.replace(old, "    row['nowhere']\n" + old, 1))
    with pytest.raises(mb.RequestError, match=r"row 0: KeyError\('nowhere'\)"):
        mb.plan("frozen", str(path), out=tmp_path)


@pytest.mark.parametrize("left", [HOOK, VALUES], ids=["a hook", "other values"])
def test_a_search_ends_where_a_method_leaves_something_behind(
    tmp_path: Path, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in suite.N_IMAGES:
        monkeypatch.setitem(suite.N_IMAGES, task, 10 if task == "cifar10" else 2)
    leaky = method(tmp_path, "leaky", ("        attachment = Attachment(backbone)\n", left))
    with pytest.raises(mb.RequestError, match="`leaky`: `remove` leaves the backbone changed"):
        mb.tune(leaky, out=tmp_path / "out", steps=2, batch_size=2)
