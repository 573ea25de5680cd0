"""Tasks of a user's own file on boards and pages, by what their records declare: no file is run, or there."""

from __future__ import annotations

import shutil
from pathlib import Path

import mmpt_bench as mb
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
    page = mb.write_report(out).path.read_text()
    assert "Open answers" in page
    assert "made by a user" in page
