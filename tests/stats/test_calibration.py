"""The headline figures on the layouts of the benchmarks: intervals hold as often as they say, tests err as often."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mmpt_bench.evaluation import task_catalog
from mmpt_bench.stats.intervals import cluster_bootstrap
from mmpt_bench.stats.resampling import Tally
from support.simulated import checkpoint_p, method_scope_error

REPEATS = 1000
SD_SHARED, SD_OWN = 1.3, 0.75
"""Of an image's difficulty on the logit scale: what two checkpoints share of it, and what is each one's own."""
STRATEGIES = ("random", "popular", "adversarial")


def share(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def mme(rng: np.random.Generator, shared: np.ndarray) -> Tally:
    """Returns a checkpoint's counts on MME: 14 subtasks as large as the official ones, two questions an image."""
    (entry,) = task_catalog.find_tasks("mme")
    groups = [(name, n // 2) for name, n in task_catalog.load_task(entry).data.official.groups]
    strata = tuple(name for name, n in groups for _ in range(n))
    right = rng.binomial(2, share(0.8 + shared[: len(strata)] + rng.normal(0, SD_OWN, len(strata))))
    counts = np.zeros((len(strata), 4 * len(groups)), dtype=np.int16)
    place = np.repeat(np.arange(len(groups)), [n for _, n in groups])
    for offset, column in enumerate((np.full(len(strata), 2), right, np.ones(len(strata)), right == 2)):
        counts[np.arange(len(strata)), 4 * place + offset] = column
    columns = tuple(f"{what}/{name}" for name, _ in groups for what in ("asked", "right", "pairs", "both"))
    return Tally(tuple(map(str, range(len(strata)))), strata, columns, counts)


def pope(rng: np.random.Generator, shared: np.ndarray) -> Tally:
    """Returns a checkpoint's counts on POPE: 500 images, in each strategy three objects that are there and three not.

    The objects that are there, and so the answers about them, are the same in all strategies.
    """
    difficulty = shared[:500] + rng.normal(0, SD_OWN, 500)
    seen, columns = rng.binomial(3, share(1.2 + difficulty)), []
    for harder in (0.0, 0.4, 0.8):
        invented = rng.binomial(3, share(harder - 1.5 - difficulty))
        columns += [np.full(500, 6), seen + 3 - invented, seen, invented, np.full(500, 3)]
    names = tuple(f"{what}/{s}" for s in STRATEGIES for what in ("asked", "right", "tp", "fp", "positive"))
    return Tally(tuple(map(str, range(500))), ("",) * 500, names, np.stack(columns, axis=1).astype(np.int16))


@pytest.mark.slow
@pytest.mark.parametrize(("task", "made"), [("mme", mme), ("pope", pope)])
def test_points_and_f1_are_held_and_told_apart_as_often_as_they_say(
    task: str, made: Callable[[np.random.Generator, np.ndarray], Tally]
) -> None:
    rng = np.random.default_rng(21)
    (entry,) = task_catalog.find_tasks(task)
    of = task_catalog.load_task(entry)
    many = [made(rng, rng.normal(0, SD_SHARED, 1200)).counts.sum(axis=0) for _ in range(2000)]
    columns = made(rng, np.zeros(1200)).columns
    truth = float(of.metric.values(np.sum(many, axis=0), columns)[of.headline])
    held = called = 0
    for repeat in range(REPEATS):
        shared = rng.normal(0, SD_SHARED, 1200)
        a, b = made(rng, shared), made(rng, shared)
        low, high = cluster_bootstrap(a, of.metric.values, 300, repeat)[of.headline]
        held += low <= truth <= high
        called += checkpoint_p(a, b, of.metric.values, of.headline, 199, repeat) <= 0.05
    print(f"{task} {of.headline}: coverage {held / REPEATS:.3f}, type-I error {called / REPEATS:.3f}")
    assert 0.93 <= held / REPEATS <= 0.985
    assert 0.035 <= called / REPEATS <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize("layout", [(1187, 2), (500, 18), (1222, 1), (1000, 18)], ids=["MME", "POPE", "VSR", "SNLI-VE"])
def test_methods_over_six_seeds_are_told_apart_as_often_as_it_says(layout: tuple[int, int]) -> None:
    held, called = method_scope_error(6, 1000, 12, layout)
    print(f"{layout}: coverage {held:.3f}, type-I error {called:.3f}")
    assert 0.93 <= held <= 0.985
    assert 0.035 <= called <= 0.065
