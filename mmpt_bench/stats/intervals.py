"""What a number may claim: intervals from resampling pictures, and differences at two scopes.

Two scopes, never mixed. *Checkpoint*: are these two checkpoints different on other pictures? *Method*: would the
methods still differ with other seeds and other pictures? A method is called better at method scope only, after Holm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np

from mmpt_bench.stats.resampling import Tally, Values, picture_draws

Interval = tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """How much seeds matter."""

    n: int
    mean: float
    sd: float | None
    """With n - 1; None for one seed."""
    low: float
    high: float
    interval: Interval | None
    """Of the mean over seeds, by Student's t; pictures are held fixed. None for one seed."""


def cluster_bootstrap(
    tally: Tally,
    values: Values,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    method: Literal["percentile", "bca"] = "percentile",
    task: str = "",
) -> dict[str, Interval]:
    """Returns an interval of every figure of one checkpoint, from resampling pictures within strata.

    A figure that is undefined in some resample has none; nor has, by BCa, one that all resamples lie to one side of.

    Args:
        tally: counts per picture.
        values: the metric's `values`.
        n_resamples: number of resamples.
        seed: the same seed draws the same pictures.
        level: share of intervals that hold the truth.
        method: "percentile", or bias-corrected and accelerated (Efron 1987).
        task: name of the task, which draws its pictures for itself.
    """
    draws = picture_draws(tally, values, n_resamples, seed, task)
    estimates = values(tally.counts.sum(axis=0), tally.columns)
    whole = {name: each for name, each in draws.items() if name in estimates and not np.isnan(each).any()}
    if method == "percentile":
        return {name: percentile(each, level) for name, each in whole.items()}
    left_out = values(tally.counts.sum(axis=0) - tally.counts, tally.columns)
    found = {n: bca(each, float(estimates[n]), left_out[n], tally.strata, level) for n, each in whole.items()}
    return {name: interval for name, interval in found.items() if interval is not None}


def percentile(draws: np.ndarray, level: float = 0.95) -> Interval:
    """Returns the middle `level` of a bootstrap distribution."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bca(
    draws: np.ndarray, estimate: float, left_out: np.ndarray, strata: Sequence[str], level: float = 0.95
) -> Interval | None:
    """Returns the bias-corrected and accelerated interval (Efron and Tibshirani 1993, 14.3; strata as samples).

    Args:
        draws: bootstrap distribution, (resamples,).
        estimate: the figure itself.
        left_out: the figure without one picture each, (pictures,).
        strata: stratum of each picture.
        level: share of intervals that hold the truth.

    Returns:
        The interval; None where the correction is undefined (all draws to one side, or a stratum of one picture).
    """
    normal = NormalDist()
    below = float((draws < estimate).mean() + (draws <= estimate).mean()) / 2
    names, stratum = np.unique(np.asarray(strata), return_inverse=True)
    groups = [left_out[stratum == number] for number in range(len(names))]
    influence = [(len(group) - 1) * (group.mean() - group) / len(group) for group in groups]
    spread = sum(float((each**2).sum()) for each in influence)
    if not 0 < below < 1 or not spread > 0:
        return None
    bias, skew = normal.inv_cdf(below), sum(float((each**3).sum()) for each in influence) / (6 * spread**1.5)
    tails = [bias + normal.inv_cdf((1 + side * level) / 2) for side in (-1, 1)]
    low, high = np.quantile(draws, [normal.cdf(bias + tail / (1 - skew * tail)) for tail in tails])
    return float(low), float(high)


def chance_centred(score: float, chance: float, ceiling: float) -> float:
    """Returns where a score stands between chance (0) and the ceiling (1); it is negative below chance."""
    return (score - chance) / (ceiling - chance)


def seed_spread(scores: Sequence[float], level: float = 0.95) -> Spread:
    """Returns how a figure spreads over seeds (ValueError for no score)."""
    if not len(scores):
        raise ValueError("there is no score to take a spread of")
    values = np.asarray(scores, dtype=np.float64)
    mean, low, high = float(values.mean()), float(values.min()), float(values.max())
    if len(values) == 1:
        return Spread(1, mean, None, low, high, None)
    sd = float(values.std(ddof=1))
    half = _student((1 + level) / 2, len(values) - 1) * sd / sqrt(len(values))
    return Spread(len(values), mean, sd, low, high, (mean - half, mean + half))


@cache
def _student(share: float, freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(share, freedom))
