"""Trainings that were made again: the differences are those of hand-worked pairs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mmpt_bench.cli.main import cli
from mmpt_bench.common.errors import RequestError
from mmpt_bench.records.record import Record
from mmpt_bench.records.reruns import reruns
from mmpt_bench.records.store import Store
from support.synthetic import keep, record, samples, store_in, task


@pytest.fixture
def trained(tmp_path: Path) -> Record:
    made = record(store_in(tmp_path), task(), samples(4), "1010")
    return dataclasses.replace(made, trainable=10, chance=0.5, ceiling=1.0, attempt="one", threads="1")


def made(base: Record, task: str, score: float, choices: str, **changes: Any) -> Record:
    return dataclasses.replace(
        base, task=task, eval_key=f"{base.run} {task}", score=score, parsed_choices=choices, **changes
    )


def test_differences_are_those_of_the_chance_corrected_scores(trained: Record) -> None:
    # Centred at a chance of .5: .8 and .6 here, mean .7; .6 and .6 again, mean .6.
    here = [made(trained, "a", 0.9, "1010"), made(trained, "b", 0.8, "1111")]
    again = [
        made(trained, "a", 0.8, "1110", attempt="two", threads="2"),
        made(trained, "b", 0.8, "1111", attempt="two"),
    ]
    (row,) = reruns(here, again).rows
    assert (row.score_here, row.score_there) == pytest.approx((0.7, 0.6))
    assert (row.difference, row.largest, row.answers_differ) == pytest.approx((-0.1, 0.2, 1 / 8))
    assert (row.tasks, row.here.split(",")[0], row.there.split(",")[0]) == (2, "1 thread", "2 threads")


def test_the_spread_is_that_of_one_training_and_not_of_a_difference(trained: Record) -> None:
    # Differences of .2 and 0 in the overall score: √((.2² + 0²) / (2 · 2)) = .1.
    others = dataclasses.replace(trained, run="other", seed=1)
    here = [made(trained, "a", 0.8, "1"), made(others, "a", 0.7, "1")]
    again = [made(trained, "a", 0.9, "0", attempt="two"), made(others, "a", 0.7, "1", attempt="two")]
    found = reruns(here, again)
    assert found.sd == pytest.approx(0.1)
    assert found.markdown.splitlines()[-1] == (
        "2 trainings made twice, 1 with equal answers. Overall, they differ by 20.0 points at most; the "
        "standard deviation of a rerun is 10.0 points."
    )


def test_results_in_another_world_are_a_row_of_their_own(trained: Record) -> None:
    world = dataclasses.replace(trained, suite="embedded-clean", track="other")
    here = [made(trained, "a", 0.8, "1"), dataclasses.replace(made(world, "a", 0.9, "1"), eval_key="clean a")]
    again = [dataclasses.replace(one, attempt="two") for one in here]
    assert [(row.suite, row.tasks) for row in reruns(here, again).rows] == [(trained.suite, 1), ("embedded-clean", 1)]


def test_a_task_counts_once_whatever_parse_rules_read_it(trained: Record) -> None:
    read_anew = dataclasses.replace(trained, parse_rule="plain", replies_key="k")
    own, other = made(trained, "a", 0.8, "1"), dataclasses.replace(made(read_anew, "a", 0.6, "1"), eval_key="plain a")
    for here in ([own, other], [other, own]):
        (row,) = reruns(here, [dataclasses.replace(one, attempt="two") for one in here]).rows
        assert (row.tasks, row.score_here) == (1, pytest.approx(0.6))  # (.8 - .5) / (1 - .5)


def test_copies_and_what_does_not_train_are_no_rerun(trained: Record) -> None:
    here = [made(trained, "a", 0.8, "1")]
    with pytest.raises(RequestError, match="1 result is a copy"):
        reruns(here, here)
    earlier = [dataclasses.replace(one, attempt="", time="2026") for one in here]
    with pytest.raises(RequestError, match="1 result is a copy"):
        reruns(earlier, earlier)
    untrained = [dataclasses.replace(one, trainable=0) for one in here]
    with pytest.raises(RequestError, match="no training in common"):
        reruns(untrained, [dataclasses.replace(one, attempt="two") for one in untrained])


def test_verify_prints_the_table(trained: Record, tmp_path: Path) -> None:
    for folder, attempt, score in (("here", "one", 0.8), ("again", "two", 0.9)):
        keep(Store(tmp_path / folder), made(trained, "a", score, "1010", attempt=attempt))
    done = CliRunner().invoke(cli, ["verify", str(tmp_path / "here"), "--rerun", str(tmp_path / "again")])
    assert done.exit_code == 0
    assert "| +20.0 | 20.0 | 0.0% |" in done.output
    missing = CliRunner().invoke(cli, ["verify", str(tmp_path / "here"), "--rerun", str(tmp_path / "nosuch")])
    assert "no results folder" in str(missing.exception)
