"""Tasks of a user's own file on boards and pages, by what their records declare: no file is run, or there."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import mmpt_bench as mb
from mmpt_bench.board.rescoring import known_tasks
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.records.run_folder import summed
from mmpt_bench.records.store import Store
from support.paths import ROOT


def test_an_own_task_stands_on_board_and_page_without_its_file(tmp_path: Path) -> None:
    file, out = tmp_path / "mine.py", tmp_path / "out"
    shutil.copy(ROOT / "examples" / "open_answers.py", file)
    made = mb.run("frozen", str(file), limit=20, out=out, offline=True)
    file.unlink()
    (board,) = mb.leaderboard(out).boards
    assert (board.own_tasks, board.left_out) == (("mine",), ())
    assert board.title.startswith("own tasks, backbone embedded")
    cell, record = board.rows[0].cells["mine"], made.made[0]
    assert (cell.score, cell.interval) == (record.score, record.interval)
    assert "Embedded suite" not in (out / "leaderboard.md").read_text()
    with pytest.raises(RequestError, match="`lora` has no finished run"):  # the task is known
        mb.compare("frozen", "lora", tasks="mine", out=out)
    page = mb.write_report(out).path.read_text()
    assert "Open answers" in page
    assert "made by a user" in page
    assert known_tasks({}, [record]).keys() == {"mine"}
    assert known_tasks({}, [dataclasses.replace(record, task="mme")]) == {}  # that name is a built-in task's
    _edits_are_noticed(Store(out), out / "runs" / record.run / "records.jsonl")


EDITS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"chance": 0.5}, "the chance of `mine` is 0.0; its other fields say 0.5"),
    ({"chance": 0.5}, {"chance": 0.5, "ceiling": 0.5}, "scores have no room between"),
    ({}, {"metric": "accuracy"}, "not such as its metric counts"),
    ({}, {"metric": "mme"}, "not such as its metric counts"),
    ({"n_unjudged": 3}, {}, "number of unreadable verdicts of `mine` is 3; its other fields say 0"),
    ({"strict": 0.99}, {}, "its strict on `mine` is 0.99"),
]


def _edits_are_noticed(store: Store, file: Path) -> None:
    """Edits a record by hand, its hash corrected to fit: boards refuse it with the reason."""
    row = json.loads(file.read_text())
    for change, declared, told in EDITS:
        edited = row | change | {"declared": row["declared"] | declared}
        file.write_text(json.dumps(summed(edited)) + "\n")
        with pytest.raises(UntrustedRecord, match=told):
            mb.leaderboard(store.root)
