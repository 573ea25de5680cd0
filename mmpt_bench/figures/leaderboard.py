"""A board as a figure: methods as rows, a panel for the overall score and for each task, with intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from mmpt_bench.board.board import Board, Column, Row
from mmpt_bench.board.ranking import FROZEN
from mmpt_bench.board.writers import numbers
from mmpt_bench.common.escaping import plain_text
from mmpt_bench.data.rows import is_generated
from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing, source_of
from mmpt_bench.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EMBEDDED_CAPTION = "Embedded suite: generated miniature tasks, not the public benchmarks."
ROWS_SHOWN = 40
"""Of a board with more of them, the first ones are drawn, and those that lines are drawn for."""
LABEL_WIDTH = 30
"""Characters of a row's label on one line."""
TITLE_WIDTH = 22
"""Characters of a panel's title."""
PANEL_INCHES, LABEL_INCHES, LINE_INCHES, FRAME_INCHES, HEAD_INCHES, FOOT_INCHES = (
    1.75,
    2.0,
    0.14,
    0.6,
    0.12,
    0.42 + style.STAMP_INCHES,
)
TITLE = "Leaderboard"
NOTHING = "No run is recorded: `mmpt-bench run --method all --tasks all`."


@dataclass(frozen=True)
class _Panel:
    """One score of every method, on one axis."""

    title: str
    points: Mapping[str, tuple[float, Interval | None]]
    """By label: the score and its interval, in the unit of the axis."""


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields a figure for each board that has a row."""
    boards = [each.board for each in of.boards]
    for each in of.boards:
        board = each.board
        if any(row.cells for row in board.rows):
            yield Drawn(
                "leaderboard", style.name_of("leaderboard", board, boards), f"{TITLE}: {board.title}",
                "Overall score and score on each task by method, with 95 % intervals.",
                _words(board), board_figure(board, of.colors), source_of(each), style.table(_marks(board)),
            )  # fmt: skip


def _words(board: Board) -> str:
    scores = [f"{row.label} {numbers.percent(row.overall)} ({numbers.percents(row.overall_interval)})"
              for row in board.rows if row.overall is not None]  # fmt: skip
    return f"Overall scores: {'; '.join(scores) or 'none'}. The table of the leaderboard holds every score."


def _marks(board: Board) -> list[dict[str, Any]]:
    methods = {row.label: row.method for row in board.rows}
    return [
        {"label": label, "method": methods[label], "panel": panel.title, "score": score, **style.spanned(interval)}
        for panel in _panels(_cut(board))
        for label, (score, interval) in panel.points.items()
    ]


def board_figure(board: Board, colors: Mapping[str, str]) -> Figure:
    """Returns the figure of a board that has a row, in the style that is set."""
    from matplotlib.figure import Figure

    caption_words, board = _caption(board), _cut(board)
    panels = _panels(board)
    per_line = min(style.PANELS_A_LINE, len(panels))
    n_lines = -(-len(panels) // per_line)
    body = LINE_INCHES * sum(_lines(row) for row in board.rows)
    width = LABEL_INCHES + PANEL_INCHES * per_line
    title = textwrap.wrap(plain_text(f"Leaderboard: {board.title}"), int(width * 11))
    caption = textwrap.wrap(caption_words, int(width * 18))
    head, foot = HEAD_INCHES + 0.19 * len(title), FOOT_INCHES + 0.12 * len(caption)
    height = head + foot + (body + FRAME_INCHES) * n_lines
    figure = Figure(figsize=(width, height))
    for number, panel in enumerate(panels):
        line, place = divmod(number, per_line)
        bottom = foot + (body + FRAME_INCHES) * (n_lines - 1 - line) + 0.28
        left = LABEL_INCHES + PANEL_INCHES * place + 0.12
        axes = figure.add_axes((left / width, bottom / height, (PANEL_INCHES - 0.3) / width, body / height))
        _draw(axes, board, panel, colors)
        if place == 0:
            _write_labels(axes, board)
    figure.text(0.1 / width, 1 - 0.1 / height, "\n".join(map(style.safe, title)), size=10, weight="bold", va="top")
    _legend(figure, board, colors, (0.05 / width, (foot - 0.25) / height))
    figure.text(
        0.1 / width, (foot - 0.3) / height, "\n".join(map(style.safe, caption)), size=6.5, color=style.INK, va="top"
    )
    return figure


def _cut(board: Board) -> Board:
    """Returns a board with as many rows as can be read in a figure."""
    kept = (*board.rows[:ROWS_SHOWN], *(row for row in board.rows[ROWS_SHOWN:] if _is_reference(row, board)))
    return replace(board, rows=kept)


def _is_reference(row: Row, board: Board) -> bool:
    return row.label == board.reference or row.method == FROZEN


def _panels(board: Board) -> list[_Panel]:
    overall = {
        row.label: (100 * row.overall, style.scaled(row.overall_interval, 100))
        for row in board.rows
        if row.overall is not None
    }
    panels = [_Panel("Overall (%)", overall)] if overall else []
    for column in board.columns:
        scale = 1.0 if column.unit == "points" else 100.0
        cells = {row.label: row.cells[column.task] for row in board.rows if column.task in row.cells}
        points = {label: (scale * cell.score, style.scaled(cell.interval, scale)) for label, cell in cells.items()}
        panels.append(_Panel(_panel_title(column), points))
    return panels


def _panel_title(column: Column) -> str:
    unit = f" (of {column.ceiling:.0f})" if column.unit == "points" else " (%)"
    return textwrap.shorten(plain_text(column.title), TITLE_WIDTH - len(unit), placeholder="…") + unit


def _draw(axes: Axes, board: Board, panel: _Panel, colors: Mapping[str, str]) -> None:
    heights = _heights(board.rows)
    for label, _, dashes, color in _references(board, colors):
        if label in panel.points:
            axes.axvline(panel.points[label][0], color=color, linestyle=dashes, linewidth=0.8, alpha=0.7, zorder=1)
    for row in board.rows:
        axes.axhline(heights[row.label], color="#eeeeee", linewidth=0.6, zorder=0)
        if row.label not in panel.points:
            continue
        score, interval = panel.points[row.label]
        color = style.color_of(row.method, colors)
        style.draw_score(axes, heights[row.label], score, interval, color, row.place is not None, size=4.5)
    axes.set_ylim(sum(_lines(row) for row in board.rows), 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", labelsize=7, length=2)
    style.few_ticks(axes, 0.12)
    axes.set_title(style.safe(panel.title), loc="left", pad=4)


def _write_labels(axes: Axes, board: Board) -> None:
    """Writes, left of a panel, each row's label, and smaller below it its place and the share that is trained."""
    rows = board.rows
    for row in rows:
        name = [(line, 8.0, "black") for line in _wrapped(row)]
        trained = f"{numbers.share(row)} trained" if row.trains else "not trained"
        if row.place is not None:
            trained = f"{numbers.place(row, board)}, {trained}"
        top = _heights(rows)[row.label] - (len(name) + 1) / 2
        for number, (text, size, color) in enumerate([*name, (trained, 6.5, "#666666")]):
            axes.text(
                -0.06, top + 1.1 * number, style.safe(text), size=size, color=color, ha="right", va="top",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip


def _heights(rows: Sequence[Row]) -> dict[str, float]:
    """Returns where each row stands, in lines of text from the top."""
    heights, above = {}, 0.0
    for row in rows:
        heights[row.label] = above + _lines(row) / 2
        above += _lines(row)
    return heights


def _references(board: Board, colors: Mapping[str, str]) -> list[tuple[str, str, Literal[":", "--"], str]]:
    """Returns (label, name in the legend, line style, colour) of the frozen model and of full fine-tuning."""
    frozen = sorted(row.label for row in board.rows if row.method == FROZEN)[:1]
    found: list[tuple[str, str, Literal[":", "--"], str]]
    found = [(label, "baseline (not trained)", ":", style.color_of(FROZEN, colors)) for label in frozen]
    if board.reference:
        method = next(row.method for row in board.rows if row.label == board.reference)
        found.append((board.reference, "full fine-tuning", "--", style.color_of(method, colors)))
    return found


def _legend(figure: Figure, board: Board, colors: Mapping[str, str], place: tuple[float, float]) -> None:
    references = _references(board, colors)
    lines = [style.line_entry(color, dashes, linewidth=1) for _, _, dashes, color in references]
    names = [f"{name}, for reference" for _, name, _, _ in references]
    if any(row.place is None for row in board.rows):
        lines.append(style.score_entry(False))
        names.append("not ranked")
    if lines:
        figure.legend(lines, names, loc="lower left", bbox_to_anchor=place, ncols=3, frameon=False, fontsize=7,
                      borderaxespad=0)  # fmt: skip


def _caption(board: Board) -> str:
    budget = numbers.budget(board)
    seeds = f"{len(board.seeds)} seeds" if len(board.seeds) > 1 else "one seed"
    return (
        "Points: mean over seeds. Bars: 95 % interval over seeds and images, over images alone where there is one "
        "seed; not over the choice of learning rates, nor other backbones. Overall: mean over tasks of "
        "(score − chance) / (ceiling − chance). Below a name: place by that mean with its 95 % interval; methods that "
        f"share a letter are not significantly different{_borderline(board)}. "
        f"{budget[0].upper()}{budget[1:]}; {seeds}"
        f"{', exploratory: fewer than 6 seeds, so that no difference is significant' if board.exploratory else ''}. "
        f"{EMBEDDED_CAPTION if is_generated(board.suite) else ''}"
        f"{f'The first {ROWS_SHOWN} of {len(board.rows)} rows.' if len(board.rows) > ROWS_SHOWN else ''}"
    )


def _borderline(board: Board) -> str:
    """Returns what the sign beside a letter means, where a row has it."""
    return f", {numbers.BORDERLINE_SIGN}: borderline" if any(row.borderline for row in board.rows) else ""


def _wrapped(row: Row) -> list[str]:
    return textwrap.wrap(plain_text(row.label), LABEL_WIDTH, max_lines=3, placeholder=" …")


def _lines(row: Row) -> float:
    """Returns the height of a row in lines of text, with room to its neighbours."""
    return 1.1 * len(_wrapped(row)) + 1.5
