"""Differences between methods and between checkpoints, with what could have been detected.

Two scopes, never mixed. *Checkpoint*: are these two checkpoints different on other images? *Method*: would the
methods still differ with other seeds and other images? A method is called better at method scope only, after Holm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import sqrt
from statistics import NormalDist

import numpy as np

from mmpt_bench.common.hashing import derive
from mmpt_bench.stats.intervals import Interval
from mmpt_bench.stats.resampling import IN_CACHE, Resampled, Tally, Values, figure_of

MANY = 300
"""Methods from which on not all pairs are compared: those of a thousand are half a million."""
EXACT_FLIPS = 12
"""Up to this many units all 2**n sign flips are gone through; beyond, flips are drawn."""


@dataclass(frozen=True)
class Difference:
    """How far one method (or checkpoint) is above another."""

    estimate: float
    interval: Interval
    p: float
    """Two-sided. Checkpoint: swaps of the two answers image by image, or, with several wordings, that of the
    interval. Method: t test with the crossed error."""
    p_sign_flip: float | None = None
    """Method scope alone: two-sided sign flips of the seeds' differences, at least 2 / 2**seeds."""


def swapped_differences(
    a: Tally, b: Tally, values: Values, figure: str, n_resamples: int, seed: int, exhaustive: bool = True
) -> tuple[np.ndarray, bool]:
    """Returns the differences of two checkpoints with their answers to each image exchanged or not, at random.

    Under the null hypothesis the two answers to an image may be exchanged, so that the share of these differences
    which are as far from 0 as the observed one (`share_as_far`) is an exact p for any figure.

    Args:
        a, b: counts of the two on the same images.
        values: the metric's `values`.
        figure: a name in what `values` returns.
        n_resamples: number of draws.
        seed: of the draws.
        exhaustive: goes through all exchanges instead where they are few.

    Returns:
        The differences, and whether they are all there are.
    """
    total, change = np.stack([a.counts.sum(axis=0), b.counts.sum(axis=0)]), b.counts - a.counts
    change = change[np.any(change != 0, axis=1)]
    limit = EXACT_FLIPS if exhaustive else -1
    swapped, exact = _flips(len(change), n_resamples, derive(seed, "swaps"), limit)
    moved = swapped @ change
    first, second = (figure_of(values, total[i] + sign * moved, a.columns, figure) for i, sign in ((0, 1), (1, -1)))
    return first - second, exact


def method_difference(resampled: Resampled, first: str, second: str, level: float = 0.95) -> Difference:
    """Returns how far method `first` is above `second`, over seeds and images, as `method_differences` does."""
    return method_differences(resampled, [(first, second)], level)[0]


def method_differences(resampled: Resampled, pairs: Sequence[tuple[str, str]], level: float = 0.95) -> list[Difference]:
    """Returns how far the first method of each pair is above the second, over seeds and images.

    Interval and p are Student's, with the error and degrees of freedom of `crossed_errors`: the percentiles of the
    crossed bootstrap held a true difference in 90 % of cases at 3 seeds (simulated). The sign-flip p stands beside
    it: it assumes less and holds the images fixed, but with 8 seeds it could never pass a correction for 21 pairs.

    Raises:
        ValueError: fewer than two seeds.
    """
    from scipy.stats import t

    by_seed, error, freedom = _paired(resampled, pairs)
    estimates = by_seed.mean(axis=1)
    beside = np.divide(np.abs(estimates), error, out=np.zeros_like(error), where=error > 0)
    p = np.where(error > 0, 2 * t.sf(beside, freedom), estimates == 0)
    half = t.ppf((1 + level) / 2, freedom) * error
    return [
        Difference(float(mean), (float(mean - far), float(mean + far)), float(chance), sign_flip(own))
        for mean, far, chance, own in zip(estimates, half, p, by_seed, strict=True)
    ]


def detectable_by_seeds(
    resampled: Resampled, first: str, second: str, comparisons: int = 1, power: float = 0.8, level: float = 0.95
) -> float:
    """Returns the difference of two methods that these seeds and images would have found with `power`.

    (t_level + t_power) x error, with the error and degrees of freedom of `method_difference`, and the level of the
    smallest p among `comparisons` after Holm. It is an estimate from the runs themselves, made after the fact.
    """
    from scipy.stats import t

    _, (error,), (freedom,) = _paired(resampled, [(first, second)])
    return float(t.ppf(1 - (1 - level) / (2 * comparisons), freedom) + t.ppf(power, freedom)) * float(error)


def _paired(resampled: Resampled, pairs: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (difference at each seed, (pairs, seeds); standard error of their mean; degrees of freedom)."""
    n = len(resampled.seeds)
    if n < 2:
        raise ValueError(f"a difference of methods needs two seeds or more, not {n}; compare checkpoints instead")
    places = {method: number for number, method in enumerate(resampled.methods)}
    first, second = (np.array([places[pair[side]] for pair in pairs]) for side in (0, 1))
    by_seed = resampled.by_seed[first] - resampled.by_seed[second]
    if len(resampled.methods) > MANY:
        pictures, interaction = _variances_of_pairs(resampled.pictures_drawn, first, second)
    else:
        # Variances of differences follow from the covariances of methods: no pair passes over the resamples itself.
        pictures, interaction = (_variances(each, first, second) for each in resampled.covariances)
    return by_seed, *crossed_errors(by_seed, pictures, interaction / (n - 1))


def _variances_of_pairs(drawn: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `_variances` does of `Resampled.covariances`, pair by pair: of many methods few are asked for."""
    found = np.empty((2, len(first)))
    step = max(1, 16 * IN_CACHE // drawn[:, 0].size)
    for start in range(0, len(first), step):
        some = slice(start, start + step)
        apart = drawn[:, first[some]] - drawn[:, second[some]]
        apart -= apart.mean(axis=0)
        means = apart.mean(axis=2)
        found[0, some] = (means**2).sum(axis=0)
        apart -= means[:, :, None]
        found[1, some] = (apart**2).sum(axis=0).sum(axis=1)
    pictures, interaction = found / (len(drawn) - 1)
    return pictures, interaction


def _variances(covariances: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the variances of differences, (pairs,), from the covariances of what is subtracted."""
    apart = covariances[first, first] + covariances[second, second]
    found = apart - 2 * covariances[first, second]
    # What rounding leaves of two that are the same.
    return np.where(found > 1e-14 * apart, found, 0.0)


def crossed_errors(
    by_seed: np.ndarray, between_pictures: np.ndarray, interaction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the standard errors of means over seeds, on other seeds and other images, and degrees of freedom.

    Three variances: of seeds S, of images P, and of their interaction I (a seed's own luck with an image). Between
    n seeds one sees (S + I) / n, between resamples of images P + I / n, and between resamples of the seeds'
    deviations from their mean I alone; the error is that of S / n + P + I / n, never less than either of the first
    two. Degrees of freedom after Satterthwaite, with those of the images taken as many.

    Args:
        by_seed: figures at each seed, (figures, seeds), two seeds or more.
        between_pictures: variance over resamples of the images of the mean over seeds, (figures,).
        interaction: variance over them of a seed's deviation from that mean, summed over seeds, / (seeds - 1).
    """
    n = by_seed.shape[1]
    between_seeds = by_seed.var(axis=1, ddof=1) / n
    whole = between_seeds + between_pictures - interaction / n
    total = np.maximum(np.maximum(whole, between_seeds), between_pictures)
    unlike = between_seeds > 0
    many = np.full(len(total), np.inf)
    ratio = np.divide(total, between_seeds, out=many.copy(), where=unlike)
    return np.sqrt(total), np.where(unlike, (n - 1) * ratio**2, many)


def sign_flip(differences: Sequence[float] | np.ndarray, n_resamples: int = 10_000, seed: int = 0) -> float:
    """Returns the two-sided p of paired differences: how often their mean is as far from 0 with signs at random."""
    values = np.asarray(differences, dtype=np.float64)
    flipped, exact = _flips(len(values), n_resamples, seed)
    return share_as_far((1 - 2 * flipped) @ values / len(values), float(values.mean()), exact)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number, in their order (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return [float(p) for p in adjusted]


def detectable_difference(
    n_pictures: int,
    per_picture: float = 1.0,
    disagreement: float = 0.2,
    within_picture: float = 0.1,
    power: float = 0.8,
    level: float = 0.95,
) -> float:
    """Returns the difference in accuracy of two checkpoints that a test on the same images finds with `power`.

    (z_level + z_power) sqrt(disagreement (1 + (m - 1) rho) / questions), after Miller 2024 (arXiv:2411.00640, section
    5), with the design effect of m questions an image. Seeds are not in it: it is the least that images allow.

    Args:
        n_pictures: images.
        per_picture: questions an image, m.
        disagreement: share of questions that only one of the two answers rightly.
        within_picture: correlation of these differences within an image, rho.
        power: chance to find it.
        level: 1 minus the two-sided error.
    """
    normal = NormalDist()
    questions, design = n_pictures * per_picture, 1 + (per_picture - 1) * within_picture
    z = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)
    return z * sqrt(disagreement * design / questions)


def _flips(n: int, n_resamples: int, seed: int, limit: int = EXACT_FLIPS) -> tuple[np.ndarray, bool]:
    """Returns zeros and ones, (resamples, n), all 2**n of them where n is small, and whether these are all."""
    if n <= limit:
        return _all_flips(n), True
    return np.random.default_rng(seed).integers(0, 2, (n_resamples, n)).astype(np.float64), False


@cache
def _all_flips(n: int) -> np.ndarray:
    return np.array(list(product((0.0, 1.0), repeat=n))).reshape(2**n, n)


def share_as_far(draws: np.ndarray, estimate: float, exact: bool) -> float:
    """Returns the share of draws as far from 0 as the estimate, which is itself a draw where not all were made."""
    as_far = int(np.sum(np.abs(draws) >= abs(estimate) * (1 - 1e-12)))
    return as_far / len(draws) if exact else (1 + as_far) / (1 + len(draws))


def drop_p(before: Sequence[bool], now: Sequence[bool]) -> float:
    """Returns the p-value of a drop on the same items: an exact one-sided sign test (McNemar's) on those that changed.

    Args:
        before: whether each item was right.
        now: the same later.
    """
    from scipy.stats import binom

    lost = sum(a and not b for a, b in zip(before, now, strict=True))
    won = sum(b and not a for a, b in zip(before, now, strict=True))
    return float(binom.sf(lost - 1, lost + won, 0.5)) if lost + won else 1.0
