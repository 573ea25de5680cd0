"""What the leaderboard says of methods: who is better, shared ranks, and how much of full fine-tuning is kept."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mmpt_bench.stats.differences import Difference, holm, method_differences
from mmpt_bench.stats.intervals import Interval, percentile
from mmpt_bench.stats.resampling import Resampled

SEEDS_TO_CLAIM = 6
"""Fewer seeds cannot reach p < .05 in a two-sided sign-flip test: 2 / 2**5 = .0625. The table says "exploratory"."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Ratio:
    """A retention figure, or why there is none."""

    value: float | None
    interval: Interval | None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """A pair of methods at method scope."""

    first: str
    second: str
    difference: Difference
    """`first` minus `second`."""
    p_holm: float
    better: str | None
    """The better one where both tests agree on it (see `ranks`); None: not separated."""


@dataclass(frozen=True)
class Ranking:
    """Shared ranks with intervals."""

    ranks: dict[str, int]
    """1 + number of methods that are significantly better."""
    intervals: dict[str, tuple[int, int]]
    """Of the rank that the figure alone would give, over resamples."""
    comparisons: tuple[Comparison, ...]
    exploratory: bool
    """Fewer than six seeds: nothing could have been separated."""


def ranks(resampled: Resampled, level: float = 0.95) -> Ranking:
    """Returns shared ranks: a method's is one more than the number of methods that are significantly better.

    Better means, at method scope: the t test's p, adjusted by Holm over all pairs, is at most .05, and so is the
    sign-flip p of the pair, which needs six seeds. With fewer, all share rank 1 and the ranking is exploratory.
    """
    names, comparisons = resampled.methods, _compared(resampled, level)
    lost = {name: 0 for name in names}
    for each in comparisons:
        if each.better is not None:
            lost[each.second if each.better == each.first else each.first] += 1
    above = (resampled.draws[:, None, :] > resampled.draws[:, :, None]).sum(axis=2) + 1
    low = np.quantile(above, (1 - level) / 2, axis=0, method="lower")
    high = np.quantile(above, (1 + level) / 2, axis=0, method="higher")
    intervals = {name: (int(low[i]), int(high[i])) for i, name in enumerate(names)}
    exploratory = len(resampled.seeds) < SEEDS_TO_CLAIM
    return Ranking({name: 1 + lost[name] for name in names}, intervals, comparisons, exploratory)


def retention(
    resampled: Resampled, method: str, full: str, frozen: str | None, chance: float, level: float = 0.95
) -> dict[str, Ratio]:
    """Returns how much of full fine-tuning's figure a method keeps, three ways, each with a paired interval.

    "raw": score / full. "chance_corrected": (score - chance) / (full - chance). "gain_recovered":
    (score - frozen) / (full - frozen). One whose denominator's interval holds 0 is refused: it is no number.

    Args:
        resampled: the figure of all these methods on common resamples.
        method: the method.
        full: name of full fine-tuning.
        frozen: name of the untrained model; None where it was not run.
        chance: what guessing gives.
        level: share of intervals that hold the truth.
    """
    score, top = resampled.column(method), resampled.column(full)
    figures = np.vstack([resampled.estimates, resampled.draws])
    references: dict[str, np.ndarray | float | None] = {"raw": 0.0, "chance_corrected": chance, "gain_recovered": None}
    if frozen is not None:
        references["gain_recovered"] = figures[:, resampled.column(frozen)]
    return {
        name: Ratio(None, None, "the frozen model was not run")
        if reference is None
        else _ratio(figures[:, score] - reference, figures[:, top] - reference, level)
        for name, reference in references.items()
    }


def _ratio(numerator: np.ndarray, denominator: np.ndarray, level: float) -> Ratio:
    """Returns a ratio whose first element is the estimate and whose others are draws."""
    low, high = percentile(denominator[1:], level)
    if low <= 0 <= high:
        reason = f"what it is divided by, {denominator[0]:.4g}, has an interval that holds 0: {low:.4g} to {high:.4g}"
        return Ratio(None, None, reason)
    defined = denominator[1:] != 0
    interval = percentile(numerator[1:][defined] / denominator[1:][defined], level)
    return Ratio(float(numerator[0] / denominator[0]), interval)


def _compared(resampled: Resampled, level: float) -> tuple[Comparison, ...]:
    if len(resampled.seeds) < 2 or len(resampled.methods) < 2:
        return ()
    pairs = list(combinations(resampled.methods, 2))
    differences = method_differences(resampled, pairs, level)
    adjusted = holm([difference.p for difference in differences])
    return tuple(
        Comparison(first, second, difference, p, _better(first, second, difference, p))
        for (first, second), difference, p in zip(pairs, differences, adjusted, strict=True)
    )


def _better(first: str, second: str, difference: Difference, p_holm: float) -> str | None:
    flips = difference.p_sign_flip
    if p_holm > SIGNIFICANT or flips is None or flips > SIGNIFICANT:
        return None
    return first if difference.estimate > 0 else second
