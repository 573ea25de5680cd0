"""Places, groups, gains and retention of a board's methods, all from common resamples of images and seeds.

Which tasks and seeds count is decided by the methods that are there, the untuned base left out: a task, or a seed, that
at least half of them have. A method that lacks a task, or more than half of the seeds, is shown without a place, and
why; so one trial run with one seed does not take the seeds from all the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from mmpt_bench.board.board import Board, Cell, Column, Row
from mmpt_bench.board.seeds import comparable, compared_on, seeds_of
from mmpt_bench.evaluation.task import Task
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM, TOP, Comparison, Ranking, Ratio, ranking, retention
from mmpt_bench.stats.differences import MANY, method_difference
from mmpt_bench.stats.intervals import Interval, percentile
from mmpt_bench.stats.resampling import Resampled, Runs, average, resample

FULL, FROZEN = "full", "frozen"
"""Methods that retention is measured between."""
PROJECTOR = "projector"
"""The method that gains are over: every other one that trains may tune the projector too."""
SUBJECT = "mmpt"
"""The method under study: what others are compared with where a board has it."""
RATIOS = ("raw", "chance_corrected", "gain_recovered")
Part = tuple[Resampled, float, float]
"""A task's headline on resamples, its chance and its ceiling."""
Figure = Callable[[str, tuple[str, ...], tuple[int, ...]], Resampled | None]
"""(task, labels, seeds) -> the headline of these rows on common resamples."""
OVERALL = ""
"""Name of the mean of all tasks among them."""


@dataclass(frozen=True)
class Ranked:
    """A board with places, and what they are made from."""

    board: Board
    overall: Resampled | None
    """The chance-centred mean over tasks of the ranked rows; None where nothing is ranked."""
    headlines: dict[str, Resampled | None]
    """By task."""
    comparisons: dict[str, tuple[Comparison, ...]]
    """By task, and under `OVERALL`: all pairs of a column, each column one family of Holm."""
    compared: dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
    """By task: (labels that have a place there, the seeds that their places are made from)."""


def ranked(
    board: Board, scores: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Task], n_resamples: int
) -> Ranked:
    """Returns a board with places, groups, gains and retention, its rows in order.

    Args:
        board: its rows without places.
        scores: label -> task -> seed -> `Rescored`.
        tasks: the tasks by name.
        n_resamples: of every interval.
    """
    # The untuned base, which is asked whatever anything else was, does not make a task count.
    tuned = [row for row in board.rows if row.method != FROZEN] or list(board.rows)
    resampled = [column.task for column in board.columns if column.resampled]
    counted = [task for task in resampled if 2 * sum(task in row.cells for row in tuned) >= len(tuned)]
    reasons = {row.label: _lacking(row, counted) for row in board.rows}
    complete = [row for row in board.rows if not reasons[row.label]]
    chosen, seeds, without = comparable({row.label: seeds_of(row, counted) for row in complete})
    reasons |= without
    columns = tuple(replace(column, counts=column.task in counted) for column in board.columns)
    board = replace(board, columns=columns, seeds=seeds, exploratory=len(seeds) < SEEDS_TO_CLAIM)

    @cache
    def figure(task: str, labels: tuple[str, ...], of_seeds: tuple[int, ...]) -> Resampled | None:
        return resampled_headline(runs_of(labels, of_seeds, task, scores, board), tasks[task], n_resamples)

    parts, why_not = _overall_parts(board, chosen, figure)
    reasons |= {label: why_not for label in chosen}
    overall = average(list(parts.values())) if parts else None
    reference, projector, base = (_of_method(board, name, overall) for name in (FULL, PROJECTOR, FROZEN))
    board = replace(board, reference=reference, projector=projector, base=base)
    if overall is not None and len(overall.methods) > MANY:
        board = replace(board, notes=(*board.notes, _few_pairs(len(overall.methods), _reference(board, overall))))
    rows = {row.label: replace(row, unranked=reasons[row.label]) for row in board.rows}
    comparisons: dict[str, tuple[Comparison, ...]] = {}
    if overall is not None:
        made = ranking(overall, _reference(board, overall))
        comparisons[OVERALL] = made.comparisons
        for label in overall.methods:
            rows[label] = replace(_with_overall(rows[label], overall, made, board), **_forgetting(parts, label, base))
    headlines: dict[str, Resampled | None] = {}
    compared = {}
    for column in board.columns:
        having = [row for row in rows.values() if column.task in row.cells]
        labels, of_seeds, lost = compared_on(column, having, board)
        compared[column.task] = tuple(labels), of_seeds
        found = headlines[column.task] = figure(column.task, tuple(labels), of_seeds) if labels else None
        made_here = ranking(found, _reference(board, found)) if found is not None else None
        comparisons[column.task] = made_here.comparisons if made_here is not None else ()
        rows |= _with_places(column, board, having, found, made_here, lost)
    rows |= {row.label: _with_own_change(row, rows, board, figure) for row in rows.values() if row.overall is None}
    ordered = tuple(sorted(rows.values(), key=_row_order))
    board = replace(board, rows=ordered, comparisons=comparisons.get(OVERALL, ()))
    return Ranked(board, overall, headlines, comparisons, compared)


def _row_order(row: Row) -> tuple[bool, float, str]:
    return row.overall is None, -(row.overall or 0.0), row.label


def _lacking(row: Row, counted: Sequence[str]) -> str:
    lacking = [name for name in counted if name not in row.cells]
    if not counted:
        return "no task is shared by half of the methods"
    return f"lacks {', '.join(lacking)}" if lacking else ""


def _overall_parts(board: Board, chosen: Sequence[str], figure: Figure) -> tuple[dict[str, Part], str]:
    """Returns (the resampled tasks that are averaged, by name; why there are none)."""
    parts: dict[str, Part] = {}
    for column in board.columns if chosen else ():
        if column.counts:
            resampled = figure(column.task, tuple(chosen), board.seeds)
            if resampled is None:
                return {}, f"{column.title} has too few images to resample"
            parts[column.task] = (resampled, column.chance, column.ceiling)
    return parts, ""


def _forgetting(parts: Mapping[str, Part], label: str, base: str) -> dict[str, Any]:
    """Returns how far a row fell below the baseline, as fields of it.

    The interval is that of the mean of the tasks that are below it by their scores, which are not chosen anew in each
    resample: the mean of what noise alone pushes below 0 would be above 0, and so would its interval.
    """
    changes = {}
    for task, (resampled, chance, ceiling) in parts.items():
        if base not in resampled.methods or label == base:
            return {}
        score, before = (float(resampled.estimates[resampled.column(name)]) for name in (label, base))
        changes[task] = (score - before) / (ceiling - chance)
    below = [task for task, change in changes.items() if change < 0]
    if not below:
        return {"forgetting": 0.0}
    change, interval = _above(average([_narrowed(parts[task], label, base) for task in below]), label, base)
    assert change is not None
    assert interval is not None
    share = len(below) / len(parts)
    between = (-share * interval[1], -share * interval[0])
    return {
        "forgetting": -share * change,
        "forgetting_interval": between,
        "forgot_most": min(changes, key=lambda t: changes[t]),
    }


def _narrowed(part: Part, *labels: str) -> Part:
    """Returns a task's headline for some rows alone where there are many: each is averaged for itself."""
    resampled, *scale = part
    if len(resampled.methods) <= MANY:
        return part
    columns = [resampled.column(label) for label in labels]
    by_seed, drawn = resampled.by_seed[columns], resampled.pictures_drawn[:, columns]
    return Resampled(labels, resampled.seeds, by_seed, drawn, resampled.draws[:, columns]), scale[0], scale[1]


def runs_of(
    labels: Sequence[str], seeds: Sequence[int], task: str, scores: Mapping[str, Mapping[str, Any]], board: Board
) -> dict[str, Runs]:
    """Returns the counts that the headline of some rows is resampled from, at some seeds."""
    trains = {row.label: row.trains for row in board.rows}
    found: dict[str, Runs] = {}
    for label in labels:
        by_seed = scores[label][task]
        own = {seed: by_seed[seed].headline_tally for seed in (seeds if trains[label] else [0])}
        found[label] = own if trains[label] else own[0]
    return found


def resampled_headline(runs: Mapping[str, Runs], task: Task, n_resamples: int) -> Resampled | None:
    """Returns the headline figure on common resamples; None where it is undefined on some, or is not resampled."""
    if not task.declared.resampled:
        return None
    try:
        return resample(runs, task.metric.values, task.headline, n_resamples, task=task.name)
    except ValueError:
        return None


def _with_overall(row: Row, overall: Resampled, made: Ranking, board: Board) -> Row:
    number = overall.column(row.label)
    by_seed = dict(zip(overall.seeds, map(float, overall.by_seed[number]), strict=False)) if row.trains else {}
    return replace(
        row,
        overall=float(overall.estimates[number]),
        overall_interval=percentile(overall.draws[:, number]),
        overall_by_seed=by_seed,
        **_standing(row.label, overall, made, board),
        retention=_kept(overall, row.label, board, 0.0, is_centred=True),
    )


def _with_own_change(row: Row, rows: Mapping[str, Row], board: Board, figure: Figure) -> Row:
    """Returns a row without a place with its change from the baseline, on the tasks of both at its scores' seeds."""
    base = rows.get(board.base)
    shared = [
        c for c in board.columns if base is not None and c.resampled and c.task in row.cells and c.task in base.cells
    ]
    own = (seeds_of(row, [column.task for column in shared]) or set()) if shared else set()
    seeds = board.seeds if board.seeds and own >= {*board.seeds} else tuple(sorted(own))
    if not shared or (row.trains and not seeds):
        return row
    found = [(figure(column.task, (board.base, row.label), seeds), column.chance, column.ceiling) for column in shared]
    parts = [(part, chance, ceiling) for part, chance, ceiling in found if part is not None]
    if len(parts) < len(found):
        return row
    change, interval = _above(average(parts), row.label, board.base)
    return replace(row, change=change, change_interval=interval)


def _with_places(
    column: Column,
    board: Board,
    having: Sequence[Row],
    resampled: Resampled | None,
    made: Ranking | None,
    without: Mapping[str, str],
) -> dict[str, Row]:
    """Returns the rows that have a task, with places, groups, gains and retention in their cells.

    Args:
        column: the task.
        board: the board.
        having: the rows that have the task.
        resampled: its headline for those of them that can be compared; None where it cannot be resampled.
        made: their ranking; None where there is none.
        without: why not, for each of the others.
    """
    found = {}
    for row in having:
        cell: Cell = row.cells[column.task]
        if resampled is None or made is None or row.label in without:
            undefined = "too few images to resample" if column.resampled else "it is a number of the whole set"
            why = without.get(row.label, undefined)
            cell = replace(cell, retention={name: Ratio(None, None, why) for name in RATIOS})
        else:
            cell = replace(
                cell,
                **_standing(row.label, resampled, made, board),
                retention=_kept(resampled, row.label, board, column.chance, is_centred=False),
            )
        found[row.label] = replace(row, cells=row.cells | {column.task: cell})
    return found


def _standing(label: str, resampled: Resampled, made: Ranking, board: Board) -> dict[str, Any]:
    """Returns what a row and a cell say of a place: it, its interval, the groups, and how far it is above others."""
    standing = made.standings[label]
    gain, interval = _above(resampled, label, board.projector)
    change, between = _above(resampled, label, board.base)
    return {
        "place": standing.place,
        "place_interval": standing.interval,
        "groups": standing.groups,
        "borderline": standing.borderline,
        "gain": gain,
        "gain_interval": interval,
        "change": change,
        "change_interval": between,
    }


def _above(resampled: Resampled, label: str, other: str) -> tuple[float | None, Interval | None]:
    """Returns how far a row is above another, with an interval over images, and seeds where there are two."""
    if other not in resampled.methods or label == other:
        return None, None
    if len(resampled.seeds) >= 2:
        found = method_difference(resampled, label, other)
        return found.estimate, found.interval
    column, of_other = resampled.column(label), resampled.column(other)
    apart = resampled.draws[:, column] - resampled.draws[:, of_other]
    return float(resampled.estimates[column] - resampled.estimates[of_other]), percentile(apart)


def _of_method(board: Board, method: str, overall: Resampled | None) -> str:
    """Returns the label of a method's best row overall, or of its only one; empty where it has none."""
    labels = [row.label for row in board.rows if row.method == method]
    known = [label for label in labels if overall is not None and label in overall.methods]
    if overall is not None and known:
        return max(known, key=lambda label: (overall.estimates[overall.column(label)], label))
    return labels[0] if labels else ""


def _few_pairs(n: int, reference: str) -> str:
    """Returns what a large board says of the pairs that it compares."""
    beside = f"`{reference}` and with the best" if reference else "the best"
    return f"Of {n:,} rows each is compared with {beside}, and the {TOP} best with each other: others have no letters."


def _reference(board: Board, resampled: Resampled) -> str:
    """Returns what every row of a large board is compared with: the baseline, or else the tuned projector."""
    return next((label for label in (board.base, board.projector) if label in resampled.methods), "")


def _kept(resampled: Resampled, label: str, board: Board, chance: float, is_centred: bool) -> dict[str, Ratio]:
    """Returns retention against the reference, or why there is none; chance is 0 on the chance-centred scale."""
    reference = board.reference
    if reference not in resampled.methods:
        why = "full fine-tuning was not run" if not reference else f"`{reference}` was not compared with it"
        return {name: Ratio(None, None, why) for name in RATIOS}
    if label == reference:
        return {name: Ratio(None, None, "it is the reference") for name in RATIOS}
    frozen = sorted(row.label for row in board.rows if row.method == FROZEN and row.label in resampled.methods)
    found = retention(resampled, label, reference, frozen[0] if frozen else None, chance)
    if is_centred:
        found["raw"] = Ratio(None, None, "scores of several tasks are averaged after chance is removed only")
    return found
