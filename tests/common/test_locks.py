"""Whether locks keep other processes out where results are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpt_bench.cli.doctor import findings
from mmpt_bench.common import locks
from support.command import bench


def test_doctor_says_that_locks_keep_a_second_process_out_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    said = json.loads(bench("doctor", "--json", "--out", "results", cwd=tmp_path).stdout)
    (found,) = [each for each in said if each["what"] == "locks"]
    assert found["ok"]
    assert found["found"].startswith(f"keep a second process out in `{tmp_path / 'results'}`")
    assert list((tmp_path / "results").iterdir()) == []


def test_a_mount_where_two_processes_hold_one_lock_is_a_problem_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locks.excludes(tmp_path)
    # As on a mount of an object store: every process gets its lock.
    monkeypatch.setattr(locks, "TRY", "")
    assert not locks.excludes(tmp_path)
    (found,) = [each for each in findings(tmp_path) if each.what == "locks"]
    assert not found.ok
    assert "two processes hold the same one" in found.found
    assert "mmpt-bench merge" in found.helps


def test_a_lock_that_stays_after_its_holder_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "TRY", "import sys; sys.exit(7)")
    assert not locks.excludes(tmp_path)
