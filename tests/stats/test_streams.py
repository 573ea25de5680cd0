"""Measures of streams, from matrices worked out by hand, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from mmpt_bench.stats.resampling import Resampled, Tally, resample
from mmpt_bench.stats.streams import ZERO, centred, measure, measured, over_units, stream_measures
from support.simulated import tally_of, values

A = np.array([[0.8, 0.3, 0.2], [0.6, 0.9, 0.4], [0.5, 0.7, 0.8]])
BASE = np.array([0.2, 0.25, 0.3])


def test_measures_of_a_matrix_worked_out_by_hand() -> None:
    found = stream_measures(A, BASE, np.array([-0.1, -0.3]))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {
            "last": (0.5 + 0.7 + 0.8) / 3,
            "average": (0.8 + (0.6 + 0.9) / 2 + (0.5 + 0.7 + 0.8) / 3) / 3,
            "fine_tuned": (0.8 + 0.9 + 0.8) / 3,
            "backward_transfer": ((0.5 - 0.8) + (0.7 - 0.9)) / 2,
            "forgetting": ((0.8 - 0.5) + (0.9 - 0.7)) / 2,
            "forward_transfer": ((0.3 - 0.25) + (0.4 - 0.3)) / 2,
            "elsewhere": -0.2,
        }
    )


def test_forgetting_is_from_the_best_score_and_backward_transfer_from_the_own_stage() -> None:
    rising = np.array([[0.5, 0.0], [0.7, 0.9]])
    assert stream_measures(rising, BASE[:2], np.empty(0))["forgetting"] == pytest.approx(0.5 - 0.7)
    late = np.array([[0.5, 0.0, 0.0], [0.9, 0.8, 0.0], [0.6, 0.7, 0.9]])
    found = stream_measures(late, BASE, np.empty(0))
    assert found["forgetting"] == pytest.approx(((0.9 - 0.6) + (0.8 - 0.7)) / 2)
    assert found["backward_transfer"] == pytest.approx(((0.6 - 0.5) + (0.7 - 0.8)) / 2)


def test_joint_training_has_a_last_stage_alone_and_no_measure_of_others() -> None:
    assert list(stream_measures(A[-1:], BASE, np.array([-0.1]))) == ["last", "elsewhere"]
    assert list(stream_measures(A[-1:], BASE, np.empty(0))) == ["last"]


def tally(rng: np.random.Generator, share: float, n: int = 80) -> Tally:
    return tally_of(rng.random(n) < share)


def test_measures_of_trainings_in_other_orders_are_means_over_them() -> None:
    rng = np.random.default_rng(0)
    shares = {"a": (0.9, 0.6), "b": (0.4, 0.8), "c": (0.7, 0.5)}
    runs = {
        task: {str(stage): {k: tally(rng, share) for k in range(4)} for stage, share in enumerate(of)}
        for task, of in shares.items()
    }
    base = {task: {"frozen": tally(rng, 0.5)} for task in shares}
    stages = {task: centred(resample(of, values, "accuracy", 200, task=task), 0.5, 1) for task, of in runs.items()}
    before = {task: centred(resample(of, values, "accuracy", 200, task=task), 0.5, 1) for task, of in base.items()}
    orders = [["a", "b"], ["b", "a"]] * 2
    found = measured(stages, before, orders)
    one_by_one = [
        stream_measures(
            np.array([[stages[name].by_seed[i, k] for name in order] for i in range(2)]),
            np.array([before[name].by_seed[0, 0] for name in order]),
            np.array([stages["c"].by_seed[-1, k] - before["c"].by_seed[0, 0]]),
        )
        for k, order in enumerate(orders)
    ]
    for name in found.methods[:-1]:
        assert measure(found, name).estimate == pytest.approx(np.mean([each[name] for each in one_by_one]))
        low, high = measure(found, name).interval
        assert low < measure(found, name).estimate < high
    assert found.methods[-1] == ZERO
    assert measure(found, "last", "last").estimate == 0


def test_one_training_has_an_interval_over_images() -> None:
    rng = np.random.default_rng(1)
    stages = {
        task: resample({"0": {0: tally(rng, 0.9)}, "1": {0: tally(rng, 0.4)}}, values, "accuracy", 300, task=task)
        for task in ("a", "b")
    }
    before = {task: resample({"frozen": tally(rng, 0.5)}, values, "accuracy", 300, task=task) for task in stages}
    found = measure(measured(stages, before, [["a", "b"]]), "backward_transfer")
    assert found.interval[1] < 0
    assert found.p < 0.05


def test_the_same_runs_in_several_orders_are_one_replicate() -> None:
    rng = np.random.default_rng(0)
    by_seed = np.array([[0.4, 0.7], [0.0, 0.0]])
    drawn = by_seed + rng.normal(0, 0.001, (200, 2, 2))
    once = Resampled(("a", "0"), (0, 1), by_seed, drawn, drawn.mean(axis=2))
    thrice = [0, 1, 0, 1, 0, 1]
    again = Resampled(("a", "0"), tuple(range(6)), by_seed[:, thrice], drawn[:, :, thrice], drawn.mean(axis=2))
    units = over_units(again, thrice)
    assert units.seeds == (0, 1)
    np.testing.assert_allclose(units.by_seed, once.by_seed)
    assert measure(units, "a", "0").interval == pytest.approx(measure(once, "a", "0").interval)
    wide, narrow = (np.ptp(measure(each, "a", "0").interval) for each in (units, again))
    # Student's t with 1 degree of freedom over 2 replicates, and not with 5 over 6.
    assert wide > 4 * narrow
    assert over_units(once, [0, 1]) is once
