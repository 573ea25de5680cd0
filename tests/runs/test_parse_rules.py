"""The parse rule of a run: replies are kept as they are, and read anew by another rule."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mmpt_bench.common.hashing import content_key
from mmpt_bench.records.store import Store
from mmpt_bench.sources.prepared import PreparedTask
from mmpt_bench.sources.task_rows import Where, rows_of
from support.command import bench, bench_without_torch
from support.tasks import task as built_in


@pytest.mark.parametrize("name", ["mme", "pope"])
def test_the_official_rule_keeps_the_keys_of_earlier_records_and_another_has_its_own(name: str) -> None:
    task = built_in(name)
    rows = rows_of(task, Where(embedded=True))
    plain = PreparedTask(task, rows, [], None)
    other = PreparedTask(task.with_rule("lmms-eval"), rows, [], None)
    assert plain.asked == other.asked
    assert plain.eval_key("t") == plain.replies_key("t") == other.replies_key("t") == content_key(["t", *plain.asked])
    assert other.eval_key("t") == content_key(["t", *plain.asked, "parse rule lmms-eval"])


def test_replies_without_the_guard_of_half_precision_have_keys_of_their_own() -> None:
    task = built_in("mme")
    guarded = PreparedTask(task, rows_of(task, Where(embedded=True)), [], None)
    assert dataclasses.replace(guarded, guard=False).asked == [*guarded.asked, "no guard"]


@pytest.mark.slow
def test_another_rule_reads_the_kept_replies_and_asks_nothing(tmp_path: Path) -> None:
    words = ("run", "--method", "frozen", "--tasks", "pope", "--limit", "8")
    bench(*words, cwd=tmp_path)
    (path,) = (tmp_path / "mmpt-results" / "runs").glob("*/pope.jsonl")
    before = path.read_bytes()
    assert "1 evaluation to do" in bench(*words, "--parse", "vlmevalkit", cwd=tmp_path).stderr
    assert path.read_bytes() == before
    records = {record.parse_rule: record for record in Store(tmp_path / "mmpt-results").records()}
    assert records.keys() == {"official", "vlmevalkit"}
    assert records["official"].samples == records["vlmevalkit"].samples
    store = Store(tmp_path / "mmpt-results")
    for record in records.values():
        assert store.run(record.run).predictions("pope", record.replies_key or record.eval_key)
    assert "parse rule" in (tmp_path / "mmpt-results" / "leaderboard.md").read_text()


def test_a_task_without_the_rule_is_refused_before_a_model_loads(tmp_path: Path) -> None:
    words = ("run", "--method", "frozen", "--tasks", "pope,vsr", "--parse", "lmms-eval")
    assert "VSR has `plain`" in bench_without_torch(*words, cwd=tmp_path).stderr
