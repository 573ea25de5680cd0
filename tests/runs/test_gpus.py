"""Hours on many GPUs: schedules worked out by hand, operations counted, and what the published board took."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mmpt_bench as mb
from mmpt_bench.common.errors import RequestError
from mmpt_bench.records.rate_curve import Protocol
from mmpt_bench.records.store import Store, published_folder
from mmpt_bench.runs import gpus
from mmpt_bench.runs.estimate import own_paces, paces, with_teacher
from mmpt_bench.runs.gpus import Unit, done_after, on_gpus, scale_of, table_of
from support.paths import ROOT
from support.synthetic import recipe, record, samples, store_in, task

FIVE = [Unit(name, 60.0 * train, 60.0 * ask, 16) for name, train, ask in
        (("a", 3, 1), ("b", 1, 1), ("c", 2, 1), ("d", 5, 1), ("e", 0, 2))]  # fmt: skip
"""Of 4, 2, 3, 6 and 2 minutes."""


def test_five_units_on_two_gpus() -> None:
    # One GPU does a (0-4), d (4-10); the other b (0-2), c (2-5), e (5-7): 17 minutes of work in twice 10.
    found = on_gpus([FIVE], 2)
    assert found.seconds == 600
    assert found.busy == pytest.approx(17 / 20)
    assert (found.limit, found.idle) == ("GPUs", 0)
    # torchrun with both GPUs for each unit: 17 minutes' work in 8.5.
    assert (found.ranks, found.shared_seconds) == (2, 510)


def test_with_more_gpus_than_units_the_longest_unit_is_what_takes_time() -> None:
    found = on_gpus([FIVE], 64)
    assert found.seconds == 360
    assert (found.limit, found.idle) == ("longest training", 59)
    # Groups of 8: 8 of them, more than units, 6 / 8 minutes; of 16: 4 groups, and the second unit waits: (4 + 2) / 16.
    assert (found.ranks, found.shared_seconds) == (16, 60 * 6 / 16)


def test_an_evaluation_longer_than_its_training_is_said_to_be_the_limit() -> None:
    assert on_gpus([[Unit("a", 10, 50), Unit("b", 10, 5)]], 2).limit == "longest evaluation"


def test_ranks_are_no_more_than_a_batch_has_examples() -> None:
    found = on_gpus([[Unit("a", 100, 0, 4)]], 64)
    assert (found.ranks, found.shared_seconds) == (4, 25)


def test_a_stage_waits_for_the_one_before_it() -> None:
    two = [[Unit("a", 4, 0), Unit("b", 1, 0)], [Unit("c", 2, 0), Unit("d", 2, 0)]]
    assert on_gpus(two, 2).seconds == 4 + 2
    assert done_after([4, 1, 2, 2], 2) == 5


def test_a_table_says_hours_and_how_many_runs_can_be_done_at_once() -> None:
    lines = table_of(scale_of([FIVE], "", 2))
    assert [line.split()[0] for line in lines[1:6]] == ["1", "2", "8", "64", "512"]
    assert lines[1].split()[1:4] == ["0.283", "100%", "GPUs"]
    assert lines[-2] == "Runs: 5. Longest: d: training 0.0833 h, evaluation 0.0167 h."
    assert lines[-1].startswith("At most 5 runs can be done at once")


@pytest.mark.parametrize("n", [0, -1, 10**6])
def test_a_number_of_gpus_that_cannot_be_is_refused(n: int) -> None:
    with pytest.raises(RequestError, match=f"--gpus {n}"):
        scale_of([FIVE], "", n)


def test_rounds_of_a_search_add_up_to_its_trainings() -> None:
    # 7 rates with 1 seed; the better 4 with 2 more; the better 2 with 2 more; 4 quarter decades beside them with 5.
    assert Protocol().most_by_round == (7, 8, 4, 20)
    assert Protocol().trainings == (7 + 8 + 4 + 15, 39)
    assert Protocol(rounds=(2,)).most_by_round == (14,)


def test_recorded_costs_of_the_published_board_are_what_its_plan_says() -> None:
    records = [r for r in Store(published_folder()).records() if r.suite == "embedded" and not r.stage]
    # The setting of the published board, which has most of them.
    (setting, _) = Counter(r.track for r in records).most_common(1)[0]
    records = [r for r in records if r.track == setting]
    assert len({r.run for r in records}) > 50
    known, took, planned = own_paces(), {}, {}
    for r in records:
        took[r.run] = took.get(r.run, r.train_seconds) + r.eval_seconds
        steps = r.own_budget["steps"] * r.budget["batch_size"] if r.train_seconds else 0
        train = known.an_example.get(r.method, known.an_example[""]) * steps
        planned[r.run] = planned.get(r.run, train) + known.asking(r.task, r.n)
    assert sum(planned.values()) == pytest.approx(sum(took.values()), rel=0.25)
    runs = sorted(took)
    for n in (8, 64):
        one, other = (done_after([of[run] for run in runs], n) for of in (took, planned))
        assert 0.4 < other / one < 2.5


def test_a_teachers_time_is_planned_and_is_no_pace_of_a_method_alone(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    alone = record(store, task(), samples(20), "10", recipe("lora"))
    taught = dataclasses.replace(alone, run="lora-taught", objective={"compute": "equal"}, train_seconds=999.0)
    found = [
        paces(records, {alone.backbone_fingerprint}, {alone.dtype}, [])
        for records in ([alone], [alone, taught], [taught])
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[2] is not None
    assert found[0].an_example == found[1].an_example != found[2].an_example
    for objective, factor in (({}, 1.0), ({"compute": "steps"}, 1.5), ({"compute": "equal"}, 1.0)):
        job: Any = SimpleNamespace(recipe=recipe(objective=objective))
        assert with_teacher(job) == factor


def test_plan_of_known_paces_on_gpus_adds_up_to_its_seconds(tmp_path: Path) -> None:
    made = mb.plan("frozen,lora", "mnist,vsr", seeds=[0, 1], gpus=3, out=tmp_path)
    assert made.scale is not None
    assert made.cost.seconds is not None
    assert made.scale.units == made.scale.at_once == 3
    rows = {row.gpus: row for row in made.scale.rows}
    assert rows[1].seconds == pytest.approx(made.cost.seconds)
    assert rows[3].seconds == pytest.approx(made.scale.longest.seconds)
    assert "package's own measurements" in made.scale.source
    assert made.as_plain()["gpus"]["rows"][1]["gpus"] == 3
    assert mb.plan("frozen", "mnist", out=tmp_path).scale is None


def test_operations_of_an_architecture_at_a_speed(tmp_path: Path) -> None:
    from mmpt_bench.engine.models.loading import anatomy_of

    anatomy, _, patches = anatomy_of("embedded")
    made = mb.plan("projector", "mnist", steps=10, batch_size=4, gpus=8, tflops=0.5, out=tmp_path)
    assert made.scale is not None
    unit, weights = made.scale.longest, anatomy.language_parameters
    trained, tokens = projector_weights(), patches + gpus.TEXT_TOKENS
    assert unit.train == pytest.approx(40 * tokens * (4 * weights + 2 * trained) / 0.5e12)
    assert unit.evaluate == pytest.approx(400 * tokens * 2 * weights / 0.5e12)
    assert "An assumption, not a measurement: 0.5 TFLOP/s" in made.scale.source


def projector_weights() -> int:
    from mmpt_bench.engine.models.loading import empty_model
    from mmpt_bench.sources.weights import backbone_folder

    model = empty_model(backbone_folder("embedded", weights=False))
    return sum(p.numel() for name, p in model.named_parameters() if "projector" in name)


@pytest.mark.slow
def test_the_page_shows_what_the_command_prints() -> None:
    import subprocess
    import sys

    command = [sys.executable, str(ROOT / "examples" / "paper.py"), "--plan"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    wanted = [line.split() for line in printed if re.match(r" +\d+ ", line)]
    assert len(wanted) == 4
    shown = [re.findall(r"[^|\s]+", line) for line in page.splitlines()]
    assert all(any(row[:3] == words[:3] for row in shown) for words in wanted)
