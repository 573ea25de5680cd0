"""The first hour: the commands of the README and of the Quickstart, in their order, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT
from support.shown_commands import Line, lines

PAGES = (ROOT / "README.md", ROOT / "docs" / "quickstart.md")
IN_ORDER = [line for page in PAGES for line in lines(page) if line.is_executed]


def _state() -> str:
    return subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_every_command_of_readme_and_quickstart_runs_in_order_and_leaves_the_checkout_as_it_was(
    tmp_path: Path,
) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    before = _state()
    assert IN_ORDER
    for line in IN_ORDER:
        _execute(line, tmp_path)
    assert _state() == before


def _execute(line: Line, folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "80"}
    for words in line.commands:
        if words[0] == "mmpt-bench":
            words = [sys.executable, "-m", "mmpt_bench", *words[1:]]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=3600)
        where = f"{line.page}:{line.number}: {line.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert done.returncode == 0, where
        assert "Traceback" not in done.stderr, where
