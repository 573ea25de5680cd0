"""One style for all figures, and what they share: panels in a row, legends below, files without dates."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mmpt_bench.board.board import Board, Column
from mmpt_bench.common.escaping import csv_table, plain_text
from mmpt_bench.data.rows import is_generated
from mmpt_bench.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8.0, "axes.titlesize": 8.5, "axes.titlelocation": "left",
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "axes.labelsize": 7.5,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "legend.frameon": False, "legend.fontsize": 7.5,
    "lines.linewidth": 1.2, "svg.hashsalt": "mmpt-bench", "pdf.fonttype": 42, "path.simplify": False,
}  # fmt: skip
UNKNOWN_COLOR = "#777777"
"""Of a method without a colour of its own."""
INK, GREY, PALE = "#444444", "#666666", "#e9e9e9"
LABEL_WIDTH = 31
"""Characters of a row's label on one line."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h", "*")
"""A method is known by its mark where colours cannot be told apart: see `marks_of`."""
PANELS_A_LINE = 4
STAMP_INCHES = 0.28
"""At the bottom of every figure, for where its numbers are from."""
PANEL = (1.9, 1.75)
"""Inches of a panel's axes, width and height, where a figure does not choose its own."""


def rendered(figure: Figure, form: Literal["svg", "pdf", "png"], text: Literal["paths", "text"]) -> bytes:
    """Returns a figure's file, without date, version and random names."""
    import matplotlib.style

    metadata: dict[str, Any] = {
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
        "png": {"Software": None},
    }[form]
    own = STYLE | {"svg.fonttype": "path" if text == "paths" else "none"}
    stream = io.BytesIO()
    with matplotlib.style.context(["default", own]):
        figure.savefig(stream, format=form, dpi=200, metadata=metadata, facecolor="white")
    return stream.getvalue()


def panels(
    n: int, size: tuple[float, float] = PANEL, left: float = 0.6, below: float = 0.5, legend: float = 0.0,
    per_line: int = PANELS_A_LINE, gap: float | None = None, right: float = 0.15,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Returns a figure with panels of one size in lines, in inches, so that nothing shrinks to fit.

    Args:
        n: number of panels.
        size: of each panel's axes.
        left: room left of the first panel of a line.
        below: room under each line, for ticks and the axis label.
        legend: room at the bottom of the figure.
        per_line: panels side by side.
        gap: room between two panels; by default as much as `left`.
        right: room right of the last panel of a line.
    """
    from matplotlib.figure import Figure

    gap = left if gap is None else gap
    per_line = min(per_line, n)
    n_lines = -(-n // per_line)
    width = left + per_line * size[0] + (per_line - 1) * gap + right
    height = STAMP_INCHES + legend + n_lines * (size[1] + below + 0.3)
    figure = Figure(figsize=(width, height))
    made = []
    for number in range(n):
        line, place = divmod(number, per_line)
        x = left + place * (size[0] + gap)
        y = height - (line + 1) * (size[1] + 0.3) - line * below
        made.append(figure.add_axes((x / width, y / height, size[0] / width, size[1] / height)))
    return figure, made


class Legend:
    """Entries with their names, in as many columns as fit side by side."""

    def __init__(self, entries: Sequence[tuple[str, Any]], width: float = 0.0, columns: int = 0) -> None:
        """Takes (name, mark or line) of each entry, and the inches that there are, or the columns themselves."""
        self.names, self.handles = [safe(name) for name, _ in entries], [handle for _, handle in entries]
        longest = max(len(name) for name, _ in entries)
        self.columns = columns or max(1, min(len(entries), int(width / (0.075 * longest + 0.55))))

    @property
    def height(self) -> float:
        """Returns the room that it needs, in inches."""
        return 0.12 + 0.165 * -(-len(self.names) // self.columns)

    def draw(self, figure: Figure) -> None:
        """Puts it into the room at the bottom of a figure."""
        figure.legend(
            self.handles, self.names, loc="lower left", ncols=self.columns,
            bbox_to_anchor=(0.01, STAMP_INCHES / figure.get_size_inches()[1]),
            borderaxespad=0.3, handletextpad=0.5, columnspacing=1.4,
        )  # fmt: skip


def stamp(figure: Figure, source: str) -> None:
    """Writes where a figure's numbers are from into the room at its bottom."""
    width, height = figure.get_size_inches()
    text = "\n".join(textwrap.wrap(safe(source), int(18 * width), max_lines=2, placeholder=" …"))
    figure.text(0.08 / width, 0.05 / height, text, size=6.5, color=GREY, va="bottom")


def apart(places: Sequence[float], least: float) -> list[float]:
    """Returns places moved as little as can be (least squares) so that any two are `least` or more apart, in order."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[tuple[float, int]] = []
    for rank, i in enumerate(order):
        mean, count = places[i] - rank * least, 1
        while groups and groups[-1][0] > mean:
            before, n = groups.pop()
            mean, count = (before * n + mean * count) / (n + count), n + count
        groups.append((mean, count))
    moved = [mean for mean, count in groups for _ in range(count)]
    return [value for _, value in sorted((i, moved[rank] + rank * least) for rank, i in enumerate(order))]


def line_entry(color: str, linestyle: Any = "-", **look: Any) -> Line2D:
    """Returns a line as it stands in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, linestyle=linestyle, **look)


def mark_entry(color: str, marker: str = "o", **look: Any) -> Line2D:
    """Returns a mark as it stands in a legend."""
    return line_entry(color, "", marker=marker, **look)


def score_entry(is_filled: bool) -> Line2D:
    """Returns the mark of a score in a legend, of any method."""
    return mark_entry(INK, markersize=4.5, **({} if is_filled else {"markerfacecolor": "white"}))


def draw_score(
    axes: Axes, place: float, score: float, interval: Interval | None, color: str, is_filled: bool = True,
    size: float = 5, width: float = 1.6,
) -> None:  # fmt: skip
    """Draws a score as a dot in a row, over the bar of its interval."""
    if interval is not None:
        axes.plot(interval, [place, place], color=color, linewidth=width, solid_capstyle="butt", zorder=2)
    fill = color if is_filled else "white"
    axes.plot(score, place, "o", color=color, markersize=size, markerfacecolor=fill, zorder=3)


def label_rows(axes: Axes, labels: Sequence[str], is_first: bool, lines: int = 3) -> None:
    """Makes a row of an axis for each label, and writes the labels beside the first panel of a line."""
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), [wrapped(label, LABEL_WIDTH, lines) for label in labels] if is_first else [])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def few_ticks(axes: Axes, margin: float) -> None:
    """Sets at most five round ticks on the horizontal axis, with some room at its ends."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], min_n_ticks=3))
    axes.margins(x=margin)


def safe(text: str) -> str:
    """Returns text that is drawn as it stands: on one line, and a dollar sign begins no formula."""
    return plain_text(text).replace("$", r"\$")


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """Returns text in lines of limited length."""
    return "\n".join(textwrap.wrap(safe(text), width, max_lines=lines, placeholder=" …"))


def label_room(labels: Sequence[str], lines: int = 3) -> float:
    """Returns the inches that labels need beside a panel, wrapped to so many lines."""
    return 0.2 + 0.067 * max(len(line) for label in labels for line in wrapped(label, LABEL_WIDTH, lines).split("\n"))


def row_inches(labels: Sequence[str], least: float) -> float:
    """Returns the height of a row that fits the label of most lines."""
    return max(least, 0.08 + 0.135 * max(len(wrapped(label, LABEL_WIDTH).split("\n")) for label in labels))


def color_of(method: str, colors: Mapping[str, str]) -> str:
    """Returns a method's colour."""
    return colors.get(method, UNKNOWN_COLOR)


def marks_of(rows: Sequence[tuple[str, str]], colors: Mapping[str, str]) -> list[str]:
    """Returns a mark a row, the same in every figure for a method as it is; variants of it take those left over.

    Args:
        rows: (label, method) of each.
        colors: hex colour by method, whose order is that of the marks.
    """
    own = {method: MARKERS[number % len(MARKERS)] for number, method in enumerate(colors)}
    taken = {own[method] for label, method in rows if label == method and method in own}
    left = [mark for mark in MARKERS if mark not in taken] or list(MARKERS)
    others = (left[number % len(left)] for number in range(len(rows)))
    return [own[method] if label == method and method in own else next(others) for label, method in rows]


def title_and_unit(column: Column | None) -> tuple[str, float, str]:
    """Returns (title, what a score is multiplied by, the unit): of a task, or of the mean over tasks."""
    if column is None:
        return "Overall", 100.0, "%"
    return (safe(column.title), *((1.0, "points") if column.unit == "points" else (100.0, "%")))


def scaled(interval: Interval | None, scale: float) -> Interval | None:
    """Returns an interval in another unit."""
    return None if interval is None else (scale * interval[0], scale * interval[1])


def name_of(kind: str, board: Board, boards: Sequence[Board]) -> str:
    """Returns the name of a board's figure: of its suite, and of its id where others have the name."""
    usual = [other for other in boards if other.suite == board.suite and other.id == other.track]
    alone = board.id == board.track and len(usual) == 1
    return f"{kind}-{board.suite}" + ("" if alone else f"-{board.id}")


def log_axis(axis: Any, low: float, high: float) -> None:
    """Makes an axis logarithmic with at most six labels: of powers of ten, or also of 2 and 5 of them."""
    from math import log10

    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.set_xscale("log")
    decades = log10(high / low)
    step = max(1, round(decades / 4))
    wide = decades >= 1.8
    axis.set_major_locator(LogLocator(10.0**step, (1.0,)) if wide else LogLocator(10.0, (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """Returns a number in few characters: "5e-4", "0.001", "50", "200k", "1.5M"."""
    if 0 < value < 1e-3:
        digits, _, power = f"{value:e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def file_name(text: str) -> str:
    """Returns text as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns rows as CSV, with a column for every name that a row has."""
    return csv_table(list(dict.fromkeys(name for row in rows for name in row)), rows)


def spanned(interval: Interval | None) -> dict[str, float | None]:
    """Returns an interval as two cells."""
    return {"interval_low": interval[0] if interval else None, "interval_high": interval[1] if interval else None}


def suite_note(board: Board) -> str:
    """Returns the sentence without which scores of the embedded suite would be misread."""
    return "Generated miniature tasks, not the public benchmarks. " if is_generated(board.suite) else ""


def notes(board: Board) -> str:
    """Returns what a caption says of too few seeds, and of the suite."""
    few = "Exploratory: fewer than 6 seeds, so that no difference is significant. " if board.exploratory else ""
    return few + suite_note(board)
