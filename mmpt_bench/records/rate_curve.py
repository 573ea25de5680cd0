"""The protocol of a search: the grid, which rates go on to more seeds, and which rate of the curve is chosen.

The same for every method (docs/decisions/0032). Rates lie on quarter decades; of two processes that know the same
scores, both ask for the same trainings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mmpt_bench.common.errors import RequestError

FIRST_SEED = 1000
"""Of a search; the following are 1001, 1002, ...: none that a board shows."""
POINT = 0.01
"""Of a chance-centred score."""
COLLAPSE = 3 * POINT
"""A seed so far below its rate's mean is told."""
Scores = Mapping[tuple[float, int], float | None]
"""(rate, seed) -> score, higher is better; None where the training failed."""


def rate_at(quarter: int) -> float:
    """Returns the rate 10^(quarter / 4): half decades as 3e-5, 1e-4, those between with three digits, 5.62e-5."""
    return float(f"{10 ** (quarter / 4):.{3 if quarter % 2 else 1}g}")


def quarter_of(rate: float) -> int:
    """Returns the quarter decade that a rate is nearest to."""
    return round(4 * math.log10(rate))


def grid_between(lowest: float, highest: float) -> tuple[float, ...]:
    """Returns the half decades from one to another; RequestError for two that are no such range."""
    ends = [quarter_of(rate) if 0 < rate < math.inf else 1 for rate in (lowest, highest)]
    if any(end % 2 or rate_at(end) != rate for end, rate in zip(ends, (lowest, highest), strict=True)):
        raise RequestError(f"`--grid {lowest:g},{highest:g}`: two half decades, as in `3e-5,3e-2` or `1e-4,1e-2`.")
    if ends[0] >= ends[1]:
        raise RequestError(f"`--grid {lowest:g},{highest:g}`: the lowest rate is below the highest.")
    return tuple(rate_at(quarter) for quarter in range(ends[0], ends[1] + 1, 2))


@dataclass(frozen=True)
class Protocol:
    """What every search of a command does alike."""

    grid: tuple[float, ...] = grid_between(3e-5, 3e-2)
    """Rates of the first round, half a decade apart."""
    rounds: tuple[int, ...] = (1, 3, 5)
    """Seeds of each rate in each round; the better half of a round's rates goes on to the next one."""

    def __post_init__(self) -> None:
        """Raises RequestError for rounds that do not grow."""
        if not self.rounds or self.rounds[0] < 1 or any(a >= b for a, b in pairwise(self.rounds)):
            told = ",".join(map(str, self.rounds))
            raise RequestError(f"`--rounds {told}`: seeds of each rate by round, each more than before, as in `1,3,5`.")

    @property
    def trainings(self) -> tuple[int, int]:
        """Returns the fewest and the most trainings of a search in which none fails, without a rate beyond the grid."""
        most = sum(self.most_by_round)
        if len(self.rounds) == 1:
            return most, most
        # Rates next to each other share the quarter decades between them.
        return most - (self._last_rates - 1) * self.rounds[-1], most

    @property
    def most_by_round(self) -> tuple[int, ...]:
        """Returns the trainings of each round of such a search; after several rounds the most of its last step.

        That step is the quarter decades beside the rates that are left.
        """
        found, n, before = [], len(self.grid), 0
        for seeds in self.rounds:
            found.append(n * (seeds - before))
            n, before = -(-n // 2), seeds
        return tuple(found) if len(found) == 1 else (*found, 2 * self._last_rates * self.rounds[-1])

    @property
    def _last_rates(self) -> int:
        return -(-len(self.grid) // 2 ** (len(self.rounds) - 1))


@dataclass(frozen=True)
class Point:
    """A rate, and what it scored."""

    rate: float
    scores: tuple[tuple[int, float | None], ...]
    """(seed, score), higher is better; None where the training failed."""

    @property
    def values(self) -> list[float]:
        """Returns the scores of the seeds that did not fail."""
        return [score for _, score in self.scores if score is not None]

    @property
    def failed(self) -> bool:
        """Returns whether a training failed, which makes the rate the worst."""
        return len(self.values) < len(self.scores)

    @property
    def mean(self) -> float | None:
        """Returns the mean over seeds; None for a rate that failed."""
        return None if self.failed else math.fsum(self.values) / len(self.values)

    @property
    def worst(self) -> float | None:
        """Returns the score of the worst seed; None for a rate that failed."""
        return None if self.failed else min(self.values)

    @property
    def error(self) -> float:
        """Returns the standard error of the mean over seeds, s / sqrt(n); 0 where there is one seed."""
        return standard_error(self.values)

    @property
    def is_collapsed(self) -> bool:
        """Returns whether the worst seed is more than 3 points below the mean."""
        return self.mean is not None and self.worst is not None and self.mean - self.worst > COLLAPSE


def standard_error(values: Sequence[float]) -> float:
    """Returns the standard deviation, n - 1 below, over the square root of n; 0 for fewer than two values."""
    n = len(values)
    if n < 2:
        return 0.0
    mean = math.fsum(values) / n
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


@dataclass(frozen=True)
class Curve:
    """What a search found: points by rising rate."""

    points: tuple[Point, ...]

    @property
    def finalists(self) -> list[Point]:
        """Returns the rates that may be chosen: those with the most seeds, none of which failed."""
        finished = [point for point in self.points if not point.failed]
        most = max((len(point.scores) for point in finished), default=0)
        return [point for point in finished if len(point.scores) == most]

    @property
    def best(self) -> Point | None:
        """Returns the finalist with the highest mean, of equal ones the lowest rate; None where all rates failed."""
        return max(self.finalists, key=lambda p: (_mean(p), -p.rate), default=None)

    @property
    def chosen(self) -> Point | None:
        """Returns the lowest finalist within one standard error of the best; None where all rates failed."""
        best = self.best
        if best is None:
            return None
        return min((p for p in self.finalists if _mean(p) >= _mean(best) - best.error), key=lambda p: p.rate)

    @property
    def at_edge(self) -> bool:
        """Returns whether the best or the chosen rate is the lowest or highest tried: a better one may lie beyond."""
        ends = {point.rate for point in (self.points[0], self.points[-1])} if self.points else set()
        return any(point is not None and point.rate in ends for point in (self.best, self.chosen))

    @property
    def collapsed(self) -> tuple[float, ...]:
        """Returns the rates whose worst seed is more than 3 points below their mean."""
        return tuple(point.rate for point in self.points if point.is_collapsed)

    @property
    def near_best(self) -> tuple[float, float] | None:
        """Returns the rates between which the curve is within 1 point of the best, as their log10; None without a best.

        Between two rates the curve is a straight line over log10 of the rate.
        """
        best = self.best
        if best is None:
            return None
        place, least = self.points.index(best), _mean(best) - POINT
        return _reach(self.points[place::-1], least), _reach(self.points[place:], least)

    @property
    def width(self) -> float | None:
        """Returns the decades around the best rate within 1 point of it."""
        near = self.near_best
        return None if near is None else near[1] - near[0]


def _mean(point: Point) -> float:
    assert point.mean is not None
    return point.mean


def _reach(points: Sequence[Point], least: float) -> float:
    """Returns log10 of the rate up to which the means stay at `least` or above, from the first point on."""
    for near, far in pairwise(points):
        if far.failed:
            return math.log10(near.rate)
        if _mean(far) < least:
            share = (_mean(near) - least) / (_mean(near) - _mean(far))
            return math.log10(near.rate) + share * (math.log10(far.rate) - math.log10(near.rate))
    return math.log10(points[-1].rate)


@dataclass(frozen=True)
class Progress:
    """How far a search is."""

    curve: Curve
    todo: tuple[tuple[float, int], ...]
    """(rate, seed) of the round's trainings that are not made; empty where the search is over."""
    extended: int
    """How many rates lie half a decade beyond the grid."""


def progress(protocol: Protocol, scores: Scores) -> Progress:
    """Returns how far a search is by the scores that are known; others than the protocol asks for change nothing."""
    asked: dict[float, int] = {}
    rates = list(protocol.grid)
    for number, n_seeds in enumerate(protocol.rounds):
        if number:
            rates = _better_half(rates, protocol.rounds[number - 1], scores)
        if number and number == len(protocol.rounds) - 1:
            quarters = {quarter_of(rate) + step for rate in rates for step in (-1, 0, 1)}
            rates = [rate_at(quarter) for quarter in sorted(quarters)]
        asked |= dict.fromkeys(rates, n_seeds)
        if todo := _todo(rates, n_seeds, scores):
            return Progress(_curve(asked, scores), todo, 0)
    beyond = _beyond(protocol, _curve(asked, scores))
    asked |= dict.fromkeys(beyond, protocol.rounds[-1])
    return Progress(_curve(asked, scores), _todo(beyond, protocol.rounds[-1], scores), len(beyond))


def _point(rate: float, n_seeds: int, scores: Scores) -> Point:
    seeds = range(FIRST_SEED, FIRST_SEED + n_seeds)
    return Point(rate, tuple((seed, scores[rate, seed]) for seed in seeds if (rate, seed) in scores))


def _better_half(rates: Sequence[float], n_seeds: int, scores: Scores) -> list[float]:
    """Returns the better half of a finished round, rounded up; rates that failed never go on."""
    points = [point for rate in rates if not (point := _point(rate, n_seeds, scores)).failed]
    points.sort(key=lambda point: (-_mean(point), point.rate))
    return sorted(point.rate for point in points[: -(-len(rates) // 2)])


def _todo(rates: Sequence[float], n_seeds: int, scores: Scores) -> tuple[tuple[float, int], ...]:
    """Returns the trainings of a round that are not made, seed by seed; a rate that failed is not trained again."""
    going = [rate for rate in rates if not _point(rate, n_seeds, scores).failed]
    seeds = range(FIRST_SEED, FIRST_SEED + n_seeds)
    return tuple((rate, seed) for seed in seeds for rate in going if (rate, seed) not in scores)


def _curve(asked: Mapping[float, int], scores: Scores) -> Curve:
    points = (_point(rate, asked[rate], scores) for rate in sorted(asked))
    return Curve(tuple(point for point in points if point.scores))


def _beyond(protocol: Protocol, curve: Curve) -> list[float]:
    """Returns the rate half a decade beyond the grid where the best is the lowest or the highest that was tried."""
    best = curve.best
    if best is None:
        return []
    steps = [(curve.points[0].rate, protocol.grid[0], -2), (curve.points[-1].rate, protocol.grid[-1], 2)]
    return [rate_at(quarter_of(edge) + step) for tried, edge, step in steps if best.rate == tried]
