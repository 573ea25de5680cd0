"""Paired differences of every method to one of them, overall and by task: a forest plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.board.assembly import Evidence
from mmpt_bench.board.board import Board
from mmpt_bench.board.contrasts import Contrast, contrasts
from mmpt_bench.board.ranking import OVERALL, SUBJECT
from mmpt_bench.common.words import counted
from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing, source_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Paired differences"
NOTHING = "No run is recorded: `mmpt-bench run --method all --tasks all`."
LINE_INCHES = 0.3


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields a figure a board."""
    boards = [each.board for each in of.boards]
    for each in of.boards:
        name, base = style.name_of("differences", each.board, boards), subject(each.board)
        pairs = [(row.label, base) for row in each.board.rows if row.label != base]
        found = contrasts(each, of.tasks, pairs) if pairs else ()
        title = f"{TITLE} to {base}: {each.board.title}" if base else TITLE
        if found:
            yield _drawn(each, found, base, of, name, title)
        else:
            reason = "Two methods with the same tasks are needed: `mmpt-bench run --method all --tasks all`."
            yield Missing("differences", name, title, reason)


def subject(board: Board) -> str:
    """Returns the label that the others are compared with: MMPT, or full fine-tuning, or the first row."""
    own = [row.label for row in board.rows if row.method == SUBJECT]
    return [*own, *([board.reference] if board.reference else []), *(row.label for row in board.rows), ""][0]


def _drawn(of: Evidence, found: Sequence[Contrast], base: str, material: FigureData, name: str, title: str) -> Drawn:
    from matplotlib.patches import Patch

    board = of.board
    columns = {c.task: c for c in board.columns}
    shown_tasks = list(dict.fromkeys(each.task for each in found))
    labels = [row.label for row in board.rows if any(each.first == row.label for each in found)]
    methods = {row.label: row.method for row in board.rows}
    height = style.row_inches(labels, LINE_INCHES) * len(labels) + 0.1
    figure, axes = style.panels(
        len(shown_tasks), size=(1.75, height), left=style.label_room(labels), gap=0.25, below=0.62, legend=0.32
    )
    for number, (axis, task) in enumerate(zip(axes, shown_tasks, strict=True)):
        heading, scale, unit = style.title_and_unit(columns.get(task))
        own = {each.first: each for each in found if each.task == task}
        _panel(axis, [own.get(label) for label in labels], scale,
               [style.color_of(methods[label], material.colors) for label in labels])  # fmt: skip
        style.label_rows(axis, labels, number % 4 == 0)
        style.few_ticks(axis, 0.08)
        axis.set_title(heading)
        axis.set_xlabel(f"A − B, {'percentage points' if unit == '%' else unit}\nabove 0: A better")
    entries: list[tuple[str, Any]] = [
        ("significantly different", style.score_entry(True)), ("not significantly different", style.score_entry(False)),
        (f"A: the row; B: {base}", style.line_entry("#888888", linewidth=0.8)),
    ]  # fmt: skip
    is_known = any(each.detectable is not None for each in found)
    if is_known:
        entries.append(("below the minimum detectable difference", Patch(color=style.PALE)))
    style.Legend(entries, columns=4).draw(figure)
    better = [each for each in found if _is_significant(each) and each.task == shown_tasks[0]]
    scope = "over seeds and images" if all(each.scope == "method" for each in found) else "see the table for scopes"
    return Drawn(
        "differences", name, title,
        f"A − B: the score of a row's method minus that of {base}, on the same images at the same seeds, with 95 % "
        f"intervals, {scope}; above 0 the row's method is better. Filled: significantly different on the leaderboard, "
        "after Holm over all pairs of the column. "
        f"{'Grey: below the minimum detectable difference (80 % power). ' if is_known else ''}"
        f"{style.notes(board)}",
        f"Differences of {counted(len(labels), 'method')} to {base}: {len(better)} significant on "
        f"{'the mean of all tasks' if shown_tasks[0] == OVERALL else columns[shown_tasks[0]].title}.",
        figure, source_of(of), style.table([contrast_row(each) for each in found]),
    )  # fmt: skip


def _panel(axes: Axes, found: Sequence[Contrast | None], scale: float, colors: Sequence[str]) -> None:
    axes.axvline(0, color="#999999", linewidth=0.8, zorder=1)
    for place, (each, color) in enumerate(zip(found, colors, strict=True)):
        if each is None:
            continue
        if each.detectable is not None:
            far = scale * each.detectable
            axes.fill_betweenx([place - 0.38, place + 0.38], -far, far, color=style.PALE, linewidth=0, zorder=0)
        score, interval = scale * each.difference.estimate, style.scaled(each.difference.interval, scale)
        style.draw_score(axes, place, score, interval, color, is_filled=_is_significant(each))


def _is_significant(each: Contrast) -> bool:
    """Returns what the board says of the pair, or where it says nothing, the comparison of these rows alone."""
    return (each.better if each.on_board is None else each.on_board.better) is not None


def contrast_row(each: Contrast) -> dict[str, Any]:
    """Returns a contrast as a row of CSV."""
    return {
        "first": each.first, "second": each.second, "task": each.task or "overall", "scope": each.scope,
        "seeds": " ".join(map(str, each.seeds)), "n_pictures": each.n_pictures, "difference": each.difference.estimate,
        "interval_low": each.difference.interval[0], "interval_high": each.difference.interval[1],
        "p": each.difference.p, "p_holm": each.p_holm, "p_sign_flip": each.difference.p_sign_flip,
        "p_board": None if each.on_board is None else each.on_board.p_adjusted,
        "detectable": each.detectable, "better": each.better,
    }  # fmt: skip
