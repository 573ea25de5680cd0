"""Intervals of a score from resampling images, its spread over seeds, and scores above chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmpt_bench.stats.resampling import Tally, Values, picture_draws

Interval = tuple[float, float]


class Spread(NamedTuple):
    """How much seeds matter."""

    mean: float
    sd: float | None
    """With n - 1; None for one seed."""


def cluster_bootstrap(
    tally: Tally, values: Values, n_resamples: int = 2000, seed: int = 0, level: float = 0.95, task: str = ""
) -> dict[str, Interval]:
    """Returns an interval of every figure of one checkpoint, from resampling images within strata.

    A figure that is undefined in some resample has none.

    Args:
        tally: counts per image.
        values: the metric's `values`.
        n_resamples: number of resamples.
        seed: the same seed draws the same images.
        level: share of intervals that hold the truth.
        task: name of the task, which draws its images for itself.
    """
    draws = picture_draws(tally, values, n_resamples, seed, task)
    estimates = values(tally.counts.sum(axis=0), tally.columns)
    return {
        name: percentile(each, level) for name, each in draws.items() if name in estimates and not np.isnan(each).any()
    }


def percentile(draws: np.ndarray, level: float = 0.95) -> Interval:
    """Returns the middle `level` of a bootstrap distribution."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def percentile_p(draws: np.ndarray) -> float:
    """Returns the two-sided p whose percentile intervals it inverts: below 1 - level where that one leaves out 0."""
    beyond = min(int(np.sum(draws <= 0)), int(np.sum(draws >= 0)))
    return min(1.0, 2 * (1 + beyond) / (1 + len(draws)))


def chance_centred(score: float, chance: float, ceiling: float) -> float:
    """Returns where a score stands between chance (0) and the ceiling (1); it is negative below chance."""
    return (score - chance) / (ceiling - chance)


def seed_spread(scores: Sequence[float]) -> Spread:
    """Returns how a figure spreads over seeds (ValueError for no score)."""
    if not len(scores):
        raise ValueError("there is no score to take a spread of")
    values = np.asarray(scores, dtype=np.float64)
    return Spread(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)
