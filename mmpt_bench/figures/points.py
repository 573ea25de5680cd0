"""Marks, axes and reference rows that figures of ablations share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt_bench.board.board import Column, Row
from mmpt_bench.board.ranking import FROZEN, FULL, OVERALL
from mmpt_bench.figures.figure_data import FigureData
from mmpt_bench.figures.style import color_of, line_entry, scaled, suite_note
from mmpt_bench.stats.intervals import Interval, chance_centred
from mmpt_bench.study.ablations.board import AblationBoard

AXIS_TITLES = {
    "prompt-len": "Prompts a layer, each side", "visual-len": "Visual prompts a layer",
    "text-len": "Textual prompts a layer", "lr": "Learning rate", "data-fraction": "Share of the training data",
    "steps": "Optimiser steps of the training",
}  # fmt: skip

REFERENCES: dict[str, Any] = {FROZEN: ":", FULL: "--", "projector": "-."}
"""Methods that are drawn as lines where they were run beside the points, and how."""


@dataclass(frozen=True)
class Mark:
    """One point of a curve, in the unit of its panel."""

    at: float
    score: float
    interval: Interval | None
    by_seed: dict[int, float]


def numeric(values: Sequence[str]) -> bool:
    """Returns whether values are two numbers or more."""
    try:
        return len({float(value) for value in values}) > 1
    except ValueError:
        return False


def shown_tasks(board: AblationBoard) -> list[str]:
    """Returns what has a panel: the mean over tasks where there are several, and each task."""
    assert board.evidence is not None
    columns = [column.task for column in board.evidence.board.columns]
    overall = len(columns) > 1 and any(row.overall is not None for _, row in board.rows)
    return [*([OVERALL] if overall else []), *columns]


def mark(row: Row, task: str, at: float, scale: float) -> Mark | None:
    """Returns a row's score on a task or overall; None where it has none."""
    if task == OVERALL:
        if row.overall is None:
            return None
        return Mark(at, scale * row.overall, scaled(row.overall_interval, scale), {})
    cell = row.cells.get(task)
    if cell is None:
        return None
    by_seed = {seed: scale * score for seed, score in cell.by_seed.items()}
    return Mark(at, scale * cell.score, scaled(cell.interval, scale), by_seed)


def reference_rows(board: AblationBoard, of: FigureData) -> list[Row]:
    """Returns the rows drawn as lines: those run beside the points, and those of the same setting's board.

    A method that is varied has its own marks.
    """
    assert board.evidence is not None
    own = board.evidence.board
    found = {row.method: row for point, row in board.rows if point in board.ablation.references}
    for each in of.boards:
        if each.board.id == own.id:
            for row in each.board.rows:
                if row.label == row.method:
                    found.setdefault(row.method, row)
    varied = {point.method for point in board.ablation.points}
    return [found[method] for method in REFERENCES if method in found and method not in varied]


def reference_score(row: Row, task: str, columns: Mapping[str, Column]) -> float | None:
    """Returns a reference's score on a task, or its mean over the tasks of the points; None where it lacks one."""
    if task != OVERALL:
        return row.cells[task].score if task in row.cells else None
    counted = [column for column in columns.values() if column.counts]
    if not counted or any(column.task not in row.cells for column in counted):
        return None
    return sum(chance_centred(row.cells[c.task].score, c.chance, c.ceiling) for c in counted) / len(counted)


def draw_references(
    line: Callable[..., object], rows: Sequence[Row], task: str, columns: Mapping[str, Column], scale: float,
    colors: Mapping[str, str],
) -> None:  # fmt: skip
    """Draws the references' scores on a task with `axhline` or `axvline` of a panel."""
    for row in rows:
        level = reference_score(row, task, columns)
        if level is not None:
            line(scale * level, color=color_of(row.method, colors), linestyle=REFERENCES[row.method], linewidth=1,
                 zorder=1)  # fmt: skip


def reference_entries(rows: Sequence[Row], colors: Mapping[str, str], **look: Any) -> list[tuple[str, Any]]:
    """Returns the references as they stand in a legend."""
    return [
        (f"{row.label}, for reference", line_entry(color_of(row.method, colors), REFERENCES[row.method], **look))
        for row in rows
    ]


def notes(board: AblationBoard) -> str:
    """Returns what a caption says of points with too few seeds, and of the suite."""
    assert board.evidence is not None
    few = f"Exploratory: {board.exploratory} " if board.exploratory else ""
    return few + suite_note(board.evidence.board)


def seeds_text(of: Mark) -> str:
    """Returns the score of each seed as a cell of CSV."""
    return " ".join(f"{seed}:{score!r}" for seed, score in of.by_seed.items())
