"""Differences between rows of a board, at the scope that their seeds allow, with what could have been found.

Two families are corrected by Holm, each for itself: the pairs on the mean of all tasks, and the pairs on each task. A
board's families are others: all pairs of its rows, for each column; what it says of a pair stands beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from mmpt_bench.board.assembly import RESAMPLES, Evidence
from mmpt_bench.board.board import Row
from mmpt_bench.board.ranking import OVERALL, resampled_headline, runs_of
from mmpt_bench.board.seeds import seeds_of
from mmpt_bench.common.hashing import derive
from mmpt_bench.evaluation.task import Task
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM, SIGNIFICANT, Comparison, adjusted_p, better
from mmpt_bench.stats.differences import (
    Difference,
    detectable_by_seeds,
    holm,
    method_difference,
    share_as_far,
    swapped_differences,
)
from mmpt_bench.stats.intervals import percentile, percentile_p
from mmpt_bench.stats.resampling import Resampled, Tally, average

Scope = Literal["method", "checkpoint"]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Contrast:
    """How far one row is above another on one task, or on the mean of all."""

    first: str
    second: str
    task: str
    """`OVERALL` for the mean of `tasks`."""
    tasks: tuple[str, ...]
    scope: Scope
    """"method": other seeds and other images; "checkpoint": these two trained models on other images."""
    seeds: tuple[int, ...]
    """That both have; one at checkpoint scope, none where neither trains."""
    n_pictures: int
    difference: Difference
    """`first` minus `second`, in the unit of the task; of the mean, as a fraction."""
    p_holm: float
    detectable: float | None
    """What these seeds and images would have found 4 times of 5; None below six seeds at method scope, and where all
    answers are alike."""
    better: str | None
    """At method scope both tests must agree; at checkpoint scope it is said of these checkpoints alone."""
    on_board: Comparison | None = None
    """The same pair among all pairs of the board's column, over the seeds of its ranking; None where that has none."""

    @property
    def p_adjusted(self) -> float:
        """Returns what `better` follows: the larger of `p_holm` and the sign-flip p, as both must agree."""
        return adjusted_p(self.difference, self.p_holm)


def contrasts(
    evidence: Evidence,
    tasks: Mapping[str, Task],
    pairs: Sequence[Pair],
    scope: Scope | None = None,
    n_resamples: int = RESAMPLES,
) -> tuple[Contrast, ...]:
    """Returns the contrasts of some pairs of a board's rows: overall first where they share two tasks, then by task.

    Args:
        evidence: the board.
        tasks: the tasks by name.
        pairs: labels, (first, second).
        scope: by default "method" for pairs with two seeds in common, "checkpoint" at the lowest common one for others;
            a pair without a common seed, or with one where "method" is asked for, has no contrast.
        n_resamples: of every interval.
    """
    rows = {row.label: row for row in evidence.board.rows}
    columns = [c.task for c in evidence.board.columns]
    shared = [name for name in columns if all(name in rows[label].cells for pair in pairs for label in pair)]
    groups: dict[tuple[Scope, tuple[int, ...]], list[Pair]] = {}
    for pair in pairs:
        found = _scope([rows[label] for label in pair], shared, scope)
        if found is not None:
            groups.setdefault(found, []).append(pair)
    made: list[Contrast] = []
    for (of, seeds), members in groups.items():
        made += _group(evidence, tasks, members, of, seeds, shared, n_resamples)
    places = {pair: number for number, pair in enumerate(pairs)}
    order = [OVERALL, *shared]
    made.sort(key=lambda each: (order.index(each.task), places[each.first, each.second]))
    overall = [each for each in made if each.task == OVERALL]
    by_task = [each for each in made if each.task != OVERALL]
    return tuple(_beside_board(each, evidence) for each in (*_corrected(overall), *_corrected(by_task)))


def _scope(rows: Sequence[Row], shared: Sequence[str], wanted: Scope | None) -> tuple[Scope, tuple[int, ...]] | None:
    """Returns the scope and the seeds of a pair; None where it cannot be compared so."""
    if not shared:
        return None
    own = {row.label: seeds_of(row, shared) for row in rows}
    if all(seeds is None for seeds in own.values()):
        return None if wanted == "method" else ("checkpoint", ())
    common = sorted(set.intersection(*(seeds for seeds in own.values() if seeds is not None)))
    if len(common) >= 2 and wanted != "checkpoint":
        return "method", tuple(common)
    return ("checkpoint", tuple(common[:1])) if common and wanted != "method" else None


def _group(
    evidence: Evidence,
    tasks: Mapping[str, Task],
    pairs: Sequence[Pair],
    scope: Scope,
    seeds: tuple[int, ...],
    shared: Sequence[str],
    n_resamples: int,
) -> list[Contrast]:
    """Returns the contrasts of pairs with the same scope and seeds, from resamples that are common to all of them."""
    labels = sorted({label for pair in pairs for label in pair})
    columns = {c.task: c for c in evidence.board.columns}
    figures: dict[str, Resampled] = {}
    for name in shared:
        runs = runs_of(labels, seeds, name, evidence.scores, evidence.board)
        found = resampled_headline(runs, tasks[name], n_resamples)
        if found is not None:
            figures[name] = found
    # A number of the whole set is no part of the mean, as on the board.
    counted = tuple(name for name in shared if columns[name].resampled)
    if len(figures) == len(counted) > 1:
        parts = [(part, columns[name].chance, columns[name].ceiling) for name, part in figures.items()]
        figures = {OVERALL: average(parts), **figures}
    made = []
    for name, resampled in figures.items():
        of = counted if name == OVERALL else (name,)
        for first, second in pairs:
            if scope == "method":
                difference = method_difference(resampled, first, second)
            else:
                pairs_of = {each: _pair(evidence, each, (first, second), seeds) for each in of}
                difference = _checkpoints(evidence, tasks, resampled, (first, second), pairs_of, n_resamples)
            n_pictures = sum(columns[each].n_pictures for each in of)
            contrast = Contrast(first, second, name, of, scope, seeds, n_pictures, difference, 1.0, None, None)
            n_compared = len(pairs) * (1 if name == OVERALL else len(counted))
            made.append(replace(contrast, detectable=_detectable(contrast, resampled, n_compared)))
    return made


def _pair(evidence: Evidence, task: str, pair: Pair, seeds: tuple[int, ...]) -> tuple[Tally, Tally]:
    runs = runs_of(pair, seeds, task, evidence.scores, evidence.board)
    a, b = (run if isinstance(run, Tally) else run[seeds[0]] for run in (runs[label] for label in pair))
    return a, b


def _checkpoints(
    evidence: Evidence,
    tasks: Mapping[str, Task],
    resampled: Resampled,
    pair: Pair,
    tallies: Mapping[str, tuple[Tally, Tally]],
    n_resamples: int,
    level: float = 0.95,
) -> Difference:
    """Returns the difference of two checkpoints: interval from common resamples of images, p from exchanges.

    Exchanges keep the images' wordings as they are. Where a task has several, the interval speaks of other wordings,
    too, and p is that of the interval: both say the same.
    """
    first, second = (resampled.draws[:, resampled.column(label)] for label in pair)
    by_label = dict(zip(resampled.methods, resampled.estimates, strict=True))
    estimate = float(by_label[pair[0]] - by_label[pair[1]])
    interval = percentile(first - second, level)
    if any(len(set(a.wordings)) > 1 for a, _ in tallies.values()):
        return Difference(estimate, interval, percentile_p(first - second))
    drawn, exact = [], True
    for name, (a, b) in tallies.items():
        # Each task exchanges for itself, whatever others there are.
        seed, of, alone = derive(0, name), tasks[name], len(tallies) == 1
        swaps, all_made = swapped_differences(a, b, of.metric.values, of.headline, n_resamples, seed, exhaustive=alone)
        column = next(c for c in evidence.board.columns if c.task == name)
        drawn.append(swaps if alone else swaps / (column.ceiling - column.chance) / len(tallies))
        exact = exact and all_made
    return Difference(estimate, interval, share_as_far(np.sum(drawn, axis=0), estimate, exact))


def _detectable(contrast: Contrast, resampled: Resampled, n_compared: int) -> float | None:
    if contrast.scope == "method":
        if len(contrast.seeds) < SEEDS_TO_CLAIM:
            return None
        return detectable_by_seeds(resampled, contrast.first, contrast.second, n_compared) or None
    drawn = resampled.draws[:, resampled.column(contrast.first)] - resampled.draws[:, resampled.column(contrast.second)]
    z = NormalDist().inv_cdf(1 - SIGNIFICANT / (2 * n_compared)) + NormalDist().inv_cdf(0.8)
    return z * float(drawn.std(ddof=1)) or None


def _corrected(made: Sequence[Contrast]) -> list[Contrast]:
    """Returns one family with its p-values after Holm, and who is better by them."""
    adjusted = holm([each.difference.p for each in made])
    return [
        replace(each, p_holm=p, better=better(each.first, each.second, each.difference, p))
        for each, p in zip(made, adjusted, strict=True)
    ]


def _beside_board(contrast: Contrast, evidence: Evidence) -> Contrast:
    """Returns a contrast with what the board says of its pair: nothing where its mean is of other tasks."""
    counted = tuple(column.task for column in evidence.board.columns if column.counts)
    if contrast.scope != "method" or (contrast.task == OVERALL and contrast.tasks != counted):
        return contrast
    for each in evidence.comparisons.get(contrast.task, ()):
        if {each.first, each.second} == {contrast.first, contrast.second}:
            return replace(contrast, on_board=each)
    return contrast
