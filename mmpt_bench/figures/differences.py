"""Paired differences of every method to one of them, overall and by task: a forest plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.board.assembly import Evidence
from mmpt_bench.board.board import Board
from mmpt_bench.board.contrasts import OVERALL, Contrast, contrasts
from mmpt_bench.board.ranking import SUBJECT
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing
from mmpt_bench.figures.style import (
    PALE,
    color_of,
    exploratory_note,
    label_room,
    legend_below,
    name_of,
    panels,
    percent_or_points,
    row_inches,
    safe,
    suite_note,
    table,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Paired differences"
LINE_INCHES = 0.3


def draw(of: FigureData) -> list[Drawn | Missing]:
    """Returns a figure a board."""
    made: list[Drawn | Missing] = []
    boards = [each.board for each in of.boards]
    for each in of.boards:
        name = name_of("differences", each.board, boards)
        base = subject(each.board)
        pairs = [(row.label, base) for row in each.board.rows if row.label != base]
        found = contrasts(each, of.tasks, pairs) if pairs else ()
        title = f"{TITLE} to {base}: {each.board.title}" if base else TITLE
        if not found:
            reason = "Two methods with the same tasks are needed: `mmpt-bench run --method all --tasks all`."
            made.append(Missing("differences", name, title, reason))
        else:
            made.append(_drawn(each, found, base, of, name, title))
    return made or [
        Missing("differences", "differences", TITLE, "No run is recorded: `mmpt-bench run --method all --tasks all`.")
    ]


def subject(board: Board) -> str:
    """Returns the label that the others are compared with: MMPT, or full fine-tuning, or the first row."""
    own = [row.label for row in board.rows if row.method == SUBJECT]
    return [*own, *([board.reference] if board.reference else []), *(row.label for row in board.rows), ""][0]


def _drawn(of: Evidence, found: Sequence[Contrast], base: str, material: FigureData, name: str, title: str) -> Drawn:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    board = of.board
    columns = {c.task: c for c in board.columns}
    shown_tasks = list(dict.fromkeys(each.task for each in found))
    labels = [row.label for row in board.rows if any(each.first == row.label for each in found)]
    methods = {row.label: row.method for row in board.rows}
    height = row_inches(labels, LINE_INCHES) * len(labels) + 0.1
    figure, axes = panels(
        len(shown_tasks), size=(1.75, height), left=label_room(labels), gap=0.25, below=0.5, legend=0.3
    )
    for number, (axis, task) in enumerate(zip(axes, shown_tasks, strict=True)):
        column = columns.get(task)
        scale, unit = percent_or_points(column)
        own = {each.first: each for each in found if each.task == task}
        _panel(axis, [own.get(label) for label in labels], scale,
               [color_of(methods[label], material.colors) for label in labels])  # fmt: skip
        axis.set_title(safe(column.title if column else "Overall"))
        axis.set_xlabel("percentage points" if unit == "%" else unit)
        axis.set_yticks(range(len(labels)), [wrapped(label, 27) for label in labels] if number % 4 == 0 else [])
    handles: list[Any] = [
        Line2D([], [], color="#444444", marker="o", linestyle="", markersize=4.5),
        Line2D([], [], color="#444444", marker="o", markerfacecolor="white", linestyle="", markersize=4.5),
        Line2D([], [], color="#888888", linewidth=0.8),
    ]
    texts = ["separated after Holm", "not separated", safe(f"the same as {base}")]
    is_known = any(each.detectable is not None for each in found)
    if is_known:
        handles.append(Patch(color=PALE))
        texts.append("smaller than what could be found")
    legend_below(figure, handles, texts, 4)
    better = [each for each in found if each.better is not None and each.task == shown_tasks[0]]
    scope = "over seeds and pictures" if all(each.scope == "method" for each in found) else "see the table for scopes"
    return Drawn(
        "differences", name, title,
        f"Each method minus {base} on the same pictures at the same seeds, with 95 % intervals, {scope}. Right of "
        "zero is better than it. "
        f"{'Grey: differences that these seeds and pictures would find less than 4 times of 5. ' if is_known else ''}"
        f"{exploratory_note(board.exploratory)}{suite_note(board)}",
        f"Differences of {len(labels)} methods to {base}: {len(better)} separated on "
        f"{'the mean of all tasks' if shown_tasks[0] == OVERALL else columns[shown_tasks[0]].title}.",
        figure, table([contrast_row(each) for each in found]),
    )  # fmt: skip


def _panel(axes: Axes, found: Sequence[Contrast | None], scale: float, colors: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.axvline(0, color="#999999", linewidth=0.8, zorder=1)
    for place, (each, color) in enumerate(zip(found, colors, strict=True)):
        if each is None:
            continue
        if each.detectable is not None:
            far = scale * each.detectable
            axes.fill_betweenx([place - 0.38, place + 0.38], -far, far, color=PALE, linewidth=0, zorder=0)
        low, high = each.difference.interval
        axes.plot([scale * low, scale * high], [place, place], color=color, linewidth=1.6, solid_capstyle="butt",
                  zorder=2)  # fmt: skip
        axes.plot(scale * each.difference.estimate, place, "o", color=color, markersize=5,
                  markerfacecolor=color if each.better is not None else "white", zorder=3)  # fmt: skip
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], min_n_ticks=3))
    axes.margins(x=0.08)


def contrast_row(each: Contrast) -> dict[str, Any]:
    """Returns a contrast as a row of CSV."""
    return {
        "first": each.first, "second": each.second, "task": each.task or "overall", "scope": each.scope,
        "seeds": " ".join(map(str, each.seeds)), "n_pictures": each.n_pictures, "difference": each.difference.estimate,
        "interval_low": each.difference.interval[0], "interval_high": each.difference.interval[1],
        "p": each.difference.p, "p_holm": each.p_holm, "p_sign_flip": each.difference.p_sign_flip,
        "detectable": each.detectable, "better": each.better,
    }  # fmt: skip
