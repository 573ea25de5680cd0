"""What the leaderboard says of methods: places, groups without a significant difference, share of full tuning kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_letters

import numpy as np

from mmpt_bench.stats.differences import MANY, Difference, holm, method_differences
from mmpt_bench.stats.intervals import Interval, percentile
from mmpt_bench.stats.resampling import Resampled

SEEDS_TO_CLAIM = 6
"""Fewer seeds cannot reach p < .05 in a two-sided sign-flip test: 2 / 2**5 = .0625. The table says "exploratory"."""
SIGNIFICANT = 0.05
BORDERLINE = (0.025, 0.1)
"""Between these, other seeds may well put p on the other side of .05."""
TOP = 30
"""Best methods that are compared with each other where there are more than `MANY`."""
SAME = 1e-12
"""Scores closer than this, relative to 1 or to themselves, are equal: sums of the same counts in another order."""


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
    """Of the t test, adjusted by Holm over all pairs of the same column."""
    p_adjusted: float
    """What groups follow: the larger of `p_holm` and the sign-flip p, as both must agree."""
    better: str | None
    """The one that is ahead where `p_adjusted` is below .05; None: not significantly different."""


@dataclass(frozen=True)
class Standing:
    """Where a method stands in a column of the board."""

    place: int
    """By the mean; equal means share a place."""
    interval: tuple[int, int]
    """95 % of the places over resamples of images and seeds."""
    groups: str
    """Letters: two methods share one exactly where they are not significantly different."""
    borderline: bool
    """Some pair of it has an adjusted p within `BORDERLINE`."""


@dataclass(frozen=True)
class Ranking:
    """Where the methods of one column stand, and the pairs that say so: one family of Holm."""

    standings: dict[str, Standing]
    comparisons: tuple[Comparison, ...]
    exploratory: bool
    """Fewer than six seeds: no difference can be significant."""


def ranking(resampled: Resampled, reference: str = "", level: float = 0.95) -> Ranking:
    """Returns the places of methods by their means, and the groups of those that are not significantly different.

    Of more than `MANY` methods, all are compared with the reference and the best, and the `TOP` best with each other:
    these make the family of Holm, and the others have no letters.

    Significantly different means, at method scope: the t test's p, adjusted by Holm over all pairs, is below .05,
    and so is the sign-flip p of the pair, which needs six seeds. With fewer, all share one letter and the ranking is
    exploratory.
    """
    names, scores = resampled.methods, resampled.estimates
    order = sorted(range(len(names)), key=lambda i: (-scores[i], names[i]))
    lettered = [names[i] for i in order] if len(names) <= MANY else [names[i] for i in order[:TOP]]
    comparisons = compared(resampled, level, _pairs(names, lettered, reference))
    exploratory = len(resampled.seeds) < SEEDS_TO_CLAIM
    apart = [(c.first, c.second) for c in comparisons if c.better is not None and {c.first, c.second} <= {*lettered}]
    letters = dict.fromkeys(names, "") | compact_letters(lettered, apart)
    low_p, high_p = BORDERLINE
    unsure = {n for c in comparisons if low_p <= c.p_adjusted <= high_p for n in (c.first, c.second)}
    above = _places(resampled.draws)
    low = np.quantile(above, (1 - level) / 2, axis=0, method="lower")
    high = np.quantile(above, (1 + level) / 2, axis=0, method="higher")
    standings = {
        name: Standing(
            _place(scores, i), (int(low[i]), int(high[i])), letters[name], not exploratory and name in unsure
        )
        for i, name in enumerate(names)
    }
    return Ranking(standings, comparisons, exploratory)


def _pairs(names: Sequence[str], best: Sequence[str], reference: str) -> list[tuple[str, str]]:
    """Returns the pairs that are compared, in the order of the names."""
    if len(best) == len(names):
        return list(combinations(names, 2))
    beside = {best[0], reference} & {*names}
    wanted = {frozenset((one, name)) for one in beside for name in names if name != one}
    wanted |= {frozenset(pair) for pair in combinations(best, 2)}
    places = {name: number for number, name in enumerate(names)}
    return sorted(
        (tuple(sorted(pair, key=places.__getitem__)) for pair in wanted),  # type: ignore[misc]
        key=lambda pair: (places[pair[0]], places[pair[1]]),
    )


def _places(draws: np.ndarray) -> np.ndarray:
    """Returns the place of each method on each resample, (resamples, methods): 1 and how many are above it."""
    ordered = np.sort(draws, axis=1)
    below = [np.searchsorted(row, own, side="right") for row, own in zip(ordered, draws, strict=True)]
    return draws.shape[1] - np.array(below).reshape(draws.shape) + 1


def _place(scores: np.ndarray, number: int) -> int:
    return 1 + int((scores > scores[number] + SAME * max(1.0, abs(scores[number]))).sum())


def compact_letters(order: Sequence[str], apart: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns letters of methods, of which two methods share one exactly where they are not significantly different.

    The compact letter display by insertion and absorption (Piepho 2004, doi:10.1198/1061860043515): a column that holds
    a significantly different pair is replaced by two that lack one of them each, and what lies within another column is
    dropped.

    Args:
        order: the methods, best first; the first has the first letter.
        apart: pairs that are significantly different.
    """
    bit = {name: 1 << number for number, name in enumerate(order)}
    columns = [(1 << len(order)) - 1] if order else []
    for first, second in apart:
        both = bit[first] | bit[second]
        kept = [column for column in columns if column & both != both]
        for column in (c & ~bit[name] for c in columns if c & both == both for name in (first, second)):
            if not any(column & other == column for other in kept):
                kept = [*(other for other in kept if other & column != other), column]
        columns = kept
    members = sorted([i for i in range(len(order)) if column >> i & 1] for column in columns)
    return {
        name: "".join(_letter(number) for number, column in enumerate(members) if i in column)
        for i, name in enumerate(order)
    }


def _letter(number: int) -> str:
    """Returns a, b, ..., z, A, ..., Z, and from then on letters with a number: a1, b1, ..."""
    turn, place = divmod(number, len(ascii_letters))
    return ascii_letters[place] + (str(turn) if turn else "")


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
    estimates = resampled.estimates

    def figure(name: str) -> np.ndarray:
        column = resampled.column(name)
        return np.concatenate([estimates[column : column + 1], resampled.draws[:, column]])

    score, top = figure(method), figure(full)
    references: dict[str, np.ndarray | float | None] = {"raw": 0.0, "chance_corrected": chance, "gain_recovered": None}
    if frozen is not None:
        references["gain_recovered"] = figure(frozen)
    return {
        name: Ratio(None, None, "the frozen model was not run")
        if reference is None
        else _ratio(score - reference, top - reference, level)
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


def compared(
    resampled: Resampled, level: float = 0.95, pairs: Sequence[tuple[str, str]] | None = None
) -> tuple[Comparison, ...]:
    """Returns pairs of methods, all of them by default, as one family of Holm; none below two seeds or two methods."""
    if len(resampled.seeds) < 2 or len(resampled.methods) < 2:
        return ()
    pairs = list(combinations(resampled.methods, 2)) if pairs is None else pairs
    differences = method_differences(resampled, pairs, level)
    adjusted = holm([difference.p for difference in differences])
    return tuple(
        Comparison(first, second, difference, p, adjusted_p(difference, p), better(first, second, difference, p))
        for (first, second), difference, p in zip(pairs, differences, adjusted, strict=True)
    )


def adjusted_p(difference: Difference, p_holm: float) -> float:
    """Returns the p that decides: after Holm, and where seeds were flipped no smaller than theirs."""
    return max(p_holm, difference.p_sign_flip or 0.0)


def better(first: str, second: str, difference: Difference, p_holm: float) -> str | None:
    """Returns which of two is called better: the one ahead, where the adjusted p is below .05; None for neither."""
    if adjusted_p(difference, p_holm) >= SIGNIFICANT:
        return None
    return first if difference.estimate > 0 else second
