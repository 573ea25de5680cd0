"""Streams of tasks: scores after each stage as a map and as curves, and forgetting by its two kinds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt_bench.board.board import asked_of
from mmpt_bench.common.words import counted
from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing
from mmpt_bench.study.streams.board import ESSENTIAL, SUPERFICIAL, StreamBoard, StreamRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Streams of tasks"
NOTHING = "No stream is recorded: `mmpt-bench stream --order mnist,vsr,snli_ve,cifar10 --strategy sequential,joint`."
CELL = (0.52, 0.36)
"""Inches of a cell."""
STRATEGY_LINES = ("-", "--", "-.", ":")
STRATEGY_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of strategies, where there is one method alone."""


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields the figures of each stream: those of single stages where it was run in one order."""
    for each in of.streams:
        if each.rows:
            yield from _of(each, of)


def _of(board: StreamBoard, of: FigureData) -> Iterator[Drawn]:
    staged = [row for row in board.rows if len(row.trainings[0].runs) > 1]
    orders = {one.order for row in board.rows for one in row.trainings}
    if staged and len(orders) == 1:
        yield _maps(board, staged)
        yield _curves(board, staged, of)
    forgot = [row for row in board.rows if ESSENTIAL in row.measures]
    if forgot:
        yield _forgetting(board, forgot)


def _maps(board: StreamBoard, rows: Sequence[StreamRow]) -> Drawn:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    order, tasks = rows[0].trainings[0].order, rows[0].tasks
    size = (CELL[0] * len(tasks), CELL[1] * len(order))
    figure, axes = style.panels(len(rows), size, left=0.95, below=0.62, gap=0.95, per_line=2)
    lines: list[dict[str, Any]] = []
    for panel, row in zip(axes, rows, strict=True):
        for (stage, at), score in np.ndenumerate(row.matrix):
            low, high = row.between[stage, at]
            share = min(max(float(score), 0.0), 1.0)
            panel.add_patch(Rectangle((at - 0.5, stage - 0.5), 1, 1, color=colormaps["cividis"](share), linewidth=0))
            ink = "#fdfdfd" if share < 0.55 else "#111111"
            panel.text(at, stage, f"{100 * score:.0f}", ha="center", va="center", color=ink, size=7)
            lines.append({"method": row.label, "strategy": row.strategy, "stage": stage + 1, "learnt": order[stage],
                          "task": tasks[at], "score": float(score), "interval_low": float(low),
                          "interval_high": float(high), "trainings": row.n})  # fmt: skip
        for stage in range(len(order)):
            panel.add_patch(Rectangle((stage - 0.46, stage - 0.44), 0.92, 0.88, fill=False, edgecolor="#D55E00"))
        panel.axvline(len(order) - 0.5, color="white", linewidth=2)
        panel.set_xlim(-0.5, len(tasks) - 0.5)
        panel.set_ylim(len(order) - 0.5, -0.5)
        panel.set_xticks(range(len(tasks)), [style.safe(name) for name in tasks], rotation=40, ha="right")
        panel.set_yticks(range(len(order)), [style.safe(f"{k}: {name}") for k, name in enumerate(order, start=1)])
        panel.tick_params(length=0)
        panel.set_title(style.safe(f"{row.method} {row.strategy}"))
        for side in panel.spines.values():
            side.set_visible(False)
    return Drawn(
        "stream", f"stream-{style.file_name(board.stream.name)}-scores", "Scores after each stage",
        "Chance-corrected scores in percent, mean over trainings; their intervals are in the table. Rows are stages, "
        "columns tasks: first those of the stream, then others. Framed: the task that the stage learnt.",
        f"Scores of {counted(len(tasks), 'task')} after each of {counted(len(order), 'stage')}, for "
            f"{', '.join(row.name for row in rows)}.",
        figure, _source(board), style.table(lines),
    )  # fmt: skip


def _curves(board: StreamBoard, rows: Sequence[StreamRow], of: FigureData) -> Drawn:
    order = rows[0].trainings[0].order
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    marks = style.marks_of([(row.method, row.name) for row in rows], of.colors)
    looks: list[dict[str, Any]] = [
        {"color": _color(row, rows, strategies, of), "marker": mark,
         "linestyle": STRATEGY_LINES[strategies.index(row.strategy) % len(STRATEGY_LINES)]}
        for row, mark in zip(rows, marks, strict=True)
    ]  # fmt: skip
    entries = [
        (row.name, style.line_entry(look["color"], look["linestyle"], marker=look["marker"], markersize=4))
        for row, look in zip(rows, looks, strict=True)
    ]
    legend = style.Legend(entries, 6.4)
    figure, axes = style.panels(len(order), (1.3, 1.5), left=0.55, below=0.55, gap=0.4, legend=legend.height)
    lines: list[dict[str, Any]] = []
    for number, (panel, task) in enumerate(zip(axes, order, strict=True)):
        for row, look in zip(rows, looks, strict=True):
            scores = [100 * float(value) for value in row.matrix[:, number]]
            panel.plot(range(1, len(order) + 1), scores, markersize=3, **look)
            lines += [{"method": row.label, "strategy": row.strategy, "task": task, "stage": stage, "score": score}
                      for stage, score in enumerate(scores, start=1)]  # fmt: skip
        panel.axvline(number + 1, color=style.GREY, linewidth=0.6)
        panel.set_title(style.safe(task))
        panel.set_xlabel("Stage")
        panel.set_xticks(range(1, len(order) + 1))
        _percent(panel, number == 0)
    legend.draw(figure)
    return Drawn(
        "stream", f"stream-{style.file_name(board.stream.name)}-curves", "Scores over the stages",
        "Chance-corrected scores in percent, mean over trainings. The upright line is the stage that learnt the task.",
        f"Scores of {', '.join(order)} over the stages.", figure, _source(board), style.table(lines),
    )  # fmt: skip


def _color(row: StreamRow, rows: Sequence[StreamRow], strategies: Sequence[str], of: FigureData) -> str:
    """Returns the method's colour, or the strategy's where all rows are of one method."""
    if len({each.label for each in rows}) > 1:
        return style.color_of(row.method, of.colors)
    return STRATEGY_COLORS[strategies.index(row.strategy) % len(STRATEGY_COLORS)]


def _percent(panel: Axes, is_first: bool) -> None:
    if is_first:
        panel.set_ylabel("Chance-corrected (%)")


def _forgetting(board: StreamBoard, rows: Sequence[StreamRow]) -> Drawn:
    from matplotlib.patches import Patch

    labels = [row.name for row in rows]
    kinds = ((ESSENTIAL, "essential: the most probable answers", "#0072B2"),
             (SUPERFICIAL, "superficial: the answers' form", "#E69F00"))  # fmt: skip
    legend = style.Legend([(name, Patch(color=color)) for _, name, color in kinds], 5.0)
    size = (3.2, 0.34 * len(rows) + 0.1)
    figure, (axes,) = style.panels(1, size, left=style.label_room(labels), below=0.45, legend=legend.height)
    lines: list[dict[str, Any]] = []
    for place, row in enumerate(rows):
        for offset, (name, _, color) in zip((-0.18, 0.18), kinds, strict=True):
            found = row.measures[name]
            low, high = (100 * value for value in found.interval)
            axes.barh(place + offset, 100 * found.estimate, height=0.3, color=color)
            axes.plot([low, high], [place + offset] * 2, color="black", linewidth=0.8)
            lines.append({"method": row.label, "strategy": row.strategy, "kind": name, "forgetting": found.estimate,
                          **style.spanned(found.interval), "trainings": row.n})  # fmt: skip
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    style.label_rows(axes, labels, True)
    axes.set_xlabel("Forgetting (percentage points)")
    legend.draw(figure)
    said = "; ".join(
        f"{row.name} {', '.join(f'{100 * row.measures[name].estimate:.1f}' for name, _, _ in kinds)}" for row in rows
    )
    return Drawn(
        "stream", f"stream-{style.file_name(board.stream.name)}-forgetting", "Forgetting by its kind",
        "How far tasks are below their best after the last stage, with 95 % intervals. Essential: of the most "
        "probable legal answers. Superficial: what replies as they are read lose beyond that.",
        f"Forgetting in percentage points, essential and superficial: {said}.",
        figure, _source(board), style.table(lines),
    )  # fmt: skip


def _source(board: StreamBoard) -> str:
    return f"{asked_of(f'{board.suite} suite', board.stream.limit)}, {board.dated}"
