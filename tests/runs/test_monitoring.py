"""Looks at a probe in training: exact p-values, at most one false alarm in twenty trainings, nothing else changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

import mmpt_bench as mb
from mmpt_bench.common.errors import Interrupted, RequestError
from mmpt_bench.runs import monitoring
from mmpt_bench.runs.monitoring import LEVEL, is_alarm
from mmpt_bench.stats.differences import drop_p


@pytest.fixture(autouse=True)
def few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "MOST", 8)


QUICK: dict[str, Any] = {"steps": 4, "batch_size": 4, "limit": 6, "set": ["lora.r=2", "lora.learning_rate=1e-3"]}


def test_a_drop_has_the_p_of_scipys_binomial_test() -> None:
    before = [True] * 12 + [False] * 8
    now = [False] * 7 + [True] * 5 + [True] * 2 + [False] * 6
    theirs = scipy.stats.binomtest(7, 9, 0.5, alternative="greater").pvalue
    assert drop_p(before, now) == pytest.approx(theirs, abs=1e-12)
    assert drop_p(before, before) == 1
    assert drop_p(now, before) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("stays", [0.0, 0.8, 0.98])
def test_false_alarms_in_a_whole_training_are_rarer_than_the_level(stays: float) -> None:
    """Items change without a drop; from look to look they keep their state more or less."""
    rng, looks, tasks, alarms, repeats = np.random.default_rng(0), 8, 2, 0, 1500
    for _ in range(repeats):
        raised = False
        for _ in range(tasks):
            ability = rng.beta(2, 1, 100)
            before = rng.random(100) < ability
            now = before.copy()
            for _ in range(looks):
                anew = rng.random(100) >= stays
                now = np.where(anew, rng.random(100) < ability, now)
                raised |= is_alarm(drop_p(list(before), list(now)), looks * tasks)
        alarms += raised
    assert alarms / repeats <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / repeats)


def test_a_large_drop_raises_an_alarm_at_the_first_look() -> None:
    assert is_alarm(drop_p([True] * 80 + [False] * 20, [True] * 55 + [False] * 45), 16)


@pytest.mark.slow
def test_looking_changes_no_bit_of_the_adapter_and_is_kept(tmp_path: Path) -> None:
    plain = mb.run("lora", "mnist", out=tmp_path / "plain", **QUICK)
    watched = mb.run("lora", "mnist", out=tmp_path / "watched", monitor="mnist,vsr", every=2, **QUICK)
    (run,) = {record.run for record in plain.records}
    assert {record.run for record in watched.records} == {run}
    names = [tmp_path / which / "runs" / run for which in ("plain", "watched")]
    one, other = ((name / "adapter" / "adapter_model.safetensors").read_bytes() for name in names)
    assert one == other
    rows = [json.loads(line) for line in (names[1] / monitoring.FILE).read_text().splitlines()]
    assert [(row["step"], row["task"], row["n"]) for row in rows] == [
        (step, task, 8) for step in (0, 2, 4) for task in ("mnist", "vsr")
    ]
    assert not (names[0] / monitoring.FILE).exists()
    # Time and memory of looks are not the training's.
    assert not any(record.is_timed or record.is_memory_own for record in watched.records)


def test_an_alarm_is_said_and_stands_beside_the_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "is_alarm", lambda p, looks: True)
    said: list[str] = []
    made = mb.run(
        "lora", "mnist", out=tmp_path, monitor="mnist", every=4, reporter=mb.Reporter(said=said.append), **QUICK
    )
    assert [text for text in said if text.startswith("ALARM: on the probe of mnist the score fell from ")]
    (record,) = made.records
    rows = [json.loads(line) for line in (tmp_path / "runs" / record.run / monitoring.FILE).read_text().splitlines()]
    first, last = (f"{row['score']:.0%}" for row in rows)
    (summary,) = (text for text in said if text.startswith("Probe of mnist, 2 looks: "))
    assert f"{first} first, {last} at step 4, lowest " in summary
    assert summary.endswith(f"; 1 alarm ({record.run}).")
    assert "on the probe of mnist the score fell from" in record.notes
    assert "by step 4" in record.notes


@pytest.mark.slow
def test_looks_of_an_interrupted_training_are_those_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls >= 3

    for out, stopping in ((tmp_path / "whole", None), (tmp_path / "cut", stop)):
        arguments: Any = {"out": out, "monitor": "mnist", "every": 1, **QUICK}
        if stopping is not None:
            with pytest.raises(Interrupted):
                mb.run("lora", "mnist", stopping=stopping, **arguments)
        mb.run("lora", "mnist", **arguments)
    whole, cut = (next((tmp_path / name).glob(f"runs/*/{monitoring.FILE}")).read_text() for name in ("whole", "cut"))
    assert whole == cut


def test_a_training_that_was_not_looked_at_from_its_beginning_says_where_looking_began(tmp_path: Path) -> None:
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls >= 3

    with pytest.raises(Interrupted):
        mb.run("lora", "mnist", out=tmp_path, stopping=stop, **QUICK)
    mb.run("lora", "mnist", out=tmp_path, monitor="mnist", every=1, **QUICK)
    (path,) = tmp_path.glob(f"runs/*/{monitoring.FILE}")
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps[0] > 0
    assert steps == list(range(steps[0], 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor": "mnsit"}, "There is no task `mnsit`"),
        ({"monitor": "mnist", "every": 0}, "`--every 0`: a number from 1 to the 4 steps"),
        ({"monitor": "mnist", "every": 5}, "`--every 5`: a number from 1 to the 4 steps"),
    ],
)
def test_looks_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        mb.run("lora", "mnist", out=tmp_path, **(QUICK | options))
