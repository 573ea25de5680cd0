"""Score over one number that an ablation varies (prompt length, learning rate, share of the data); seeds as dots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt_bench.board.board import Row
from mmpt_bench.figures import points, style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing, source_of
from mmpt_bench.records.ablations import Point
from mmpt_bench.study.ablations.board import AblationBoard
from mmpt_bench.study.ablations.tables import title as title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Score over a varied number"
MANY = 3
"""Methods whose bands can lie over each other; of more they are paler."""
NOTHING = "No ablation over numbers is recorded: `mmpt-bench ablate --prompt-len 5,10,20` makes one."


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields a figure for each axis of numbers that an ablation goes along with all else equal."""
    for each in of.ablations:
        for axis, values in each.ablation.axes.items():
            if points.numeric(values) and any(list(point.values) == [axis] for point in each.ablation.points):
                yield _axis_figure(each, axis, of)


def _axis_figure(board: AblationBoard, axis: str, of: FigureData) -> Drawn | Missing:
    ablation = board.ablation
    name = f"ablation-curves-{style.file_name(ablation.name)}" + (
        f"-{style.file_name(axis)}" if len(ablation.axes) > 1 else ""
    )
    varied = points.AXIS_TITLES.get(axis, axis)
    title = f"Score by {varied[0].lower()}{varied[1:]}: {', '.join(dict.fromkeys(p.method for p in ablation.points))}"
    rows = [(point, row) for point, row in board.rows if list(point.values) == [axis]]
    if board.evidence is None or len({point.values[axis] for point, _ in rows}) < 2:
        reason = f"{len(rows)} of its points has a result, a curve needs two: `{board.command}`."
        return Missing("ablation-curves", name, title, reason)
    return _drawn(board, axis, rows, of, name, title)


def _drawn(
    board: AblationBoard, axis: str, rows: Sequence[tuple[Point, Row]], of: FigureData, name: str, title: str
) -> Drawn:
    assert board.evidence is not None
    columns = {column.task: column for column in board.evidence.board.columns}
    references, tasks = points.reference_rows(board, of), points.shown_tasks(board)
    methods = list(dict.fromkeys(point.method for point, _ in rows))
    has_seeds = any(len(row.seeds) > 1 for _, row in rows)
    entries = [
        (method, style.line_entry(style.color_of(method, of.colors), marker="o", markersize=4)) for method in methods
    ]
    entries += [("a seed", style.mark_entry(style.GREY, markersize=2, markeredgewidth=0))] * has_seeds
    entries += points.reference_entries(references, of.colors, linewidth=1)
    legend = style.Legend(entries, 0.5 + 2.4 * min(len(tasks), 4))
    figure, axes = style.panels(len(tasks), size=(1.85, 1.7), left=0.55, below=0.5, legend=legend.height)
    lines: list[dict[str, Any]] = []
    for panel, task in zip(axes, tasks, strict=True):
        heading, scale, unit = style.title_and_unit(columns.get(task))
        points.draw_references(panel.axhline, references, task, columns, scale, of.colors)
        for method in methods:
            marks = [
                m for p, row in rows if p.method == method
                if (m := points.mark(row, task, float(p.values[axis]), scale)) is not None
            ]  # fmt: skip
            _curve(panel, sorted(marks, key=lambda m: m.at), style.color_of(method, of.colors), len(methods) > MANY)
            lines += [
                {"method": method, axis: m.at, "task": task or "overall", "unit": unit, "score": m.score,
                 **style.spanned(m.interval), "by_seed": points.seeds_text(m)}
                for m in marks
            ]  # fmt: skip
        _ticks(panel, sorted({float(point.values[axis]) for point, _ in rows}))
        panel.set_title(heading)
        panel.set_xlabel(style.safe(points.AXIS_TITLES.get(axis, axis)))
        panel.set_ylabel("Points" if unit == "points" else "%", labelpad=2)
    legend.draw(figure)
    return Drawn(
        "ablation-curves", name, title,
        "Line: mean over seeds; band: 95 % interval over seeds and images, over images alone where there is one "
        f"seed; dots: seeds. {points.notes(board)}",
        _words(rows, axis, tasks[0], title_of(board)), figure, source_of(board.evidence), style.table(lines),
        board.ablation.name,
    )  # fmt: skip


def _curve(axes: Axes, marks: Sequence[points.Mark], color: str, is_crowded: bool) -> None:
    at = [m.at for m in marks]
    if all(m.interval is not None for m in marks):
        low, high = ([m.interval[end] for m in marks if m.interval is not None] for end in (0, 1))
        axes.fill_between(at, low, high, color=color, alpha=0.05 if is_crowded else 0.16, linewidth=0, zorder=2)
    axes.plot(at, [m.score for m in marks], color=color, marker="o", markersize=4, zorder=4)
    for m in marks:
        values = list(m.by_seed.values())
        axes.plot([m.at] * len(values), values, "o", color=color, markersize=2, alpha=0.55, markeredgewidth=0, zorder=3)


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    """Sets ticks at the values themselves, on a logarithmic axis where they spread over a factor of six."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

    if values[-1] / values[0] >= 6:
        axes.set_xscale("log", base=2)
    places = np.log(values) if values[-1] / values[0] >= 6 else np.asarray(values)
    room = (places - places[0]) / (places[-1] - places[0])
    kept, last = [], -1.0
    for value, place in zip(values, room, strict=True):
        if place - last >= 0.16:
            kept.append(value)
            last = float(place)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticklabels([f"{value:g}" for value in kept])
    axes.yaxis.set_major_locator(MaxNLocator(5, min_n_ticks=3))
    axes.margins(x=0.08, y=0.1)


def _words(rows: Sequence[tuple[Point, Row]], axis: str, task: str, title: str) -> str:
    scores = [(m.score, p) for p, row in rows if (m := points.mark(row, task, 0.0, 1.0)) is not None]
    if not scores:
        return f"Scores along {title}."
    best = max(scores, key=lambda each: each[0])[1]
    return f"Scores along {title}: the highest is at {axis} {best.values[axis]} ({best.method})."
