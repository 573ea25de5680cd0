"""One style for all figures, and what they share: panels in a row, legends below, files without dates."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mmpt_bench.board.board import Board, Column
from mmpt_bench.common.escaping import csv_table, plain_text
from mmpt_bench.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8.0, "axes.titlesize": 8.5, "axes.titlelocation": "left",
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "axes.labelsize": 7.5,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "legend.frameon": False, "legend.fontsize": 7.5,
    "lines.linewidth": 1.2, "svg.hashsalt": "mmpt-bench", "pdf.fonttype": 42, "path.simplify": False,
}  # fmt: skip
UNKNOWN_COLOR = "#777777"
"""Of a method without a colour of its own."""
GREY, PALE = "#666666", "#e9e9e9"
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h", "*")
"""A method is known by its mark where colours cannot be told apart: see `marks_of`."""
PANELS_A_LINE = 4
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
    per_line: int = PANELS_A_LINE, gap: float | None = None,
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
    """
    from matplotlib.figure import Figure

    gap = left if gap is None else gap
    per_line = min(per_line, n)
    n_lines = -(-n // per_line)
    width = left + per_line * size[0] + (per_line - 1) * gap + 0.15
    height = legend + n_lines * (size[1] + below + 0.3)
    figure = Figure(figsize=(width, height))
    made = []
    for number in range(n):
        line, place = divmod(number, per_line)
        x = left + place * (size[0] + gap)
        y = height - (line + 1) * (size[1] + 0.3) - line * below
        made.append(figure.add_axes((x / width, y / height, size[0] / width, size[1] / height)))
    return figure, made


def legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str], columns: int) -> None:
    """Puts a legend into the room at the bottom of a figure."""
    figure.legend(
        handles, [safe(name) for name in names], loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=columns,
        borderaxespad=0.3, handletextpad=0.5, columnspacing=1.4,
    )  # fmt: skip


def legend_height(n: int, columns: int) -> float:
    """Returns the room in inches that a legend of n entries needs."""
    return 0.12 + 0.165 * -(-n // columns)


def columns_for(names: Sequence[str], width: float) -> int:
    """Returns how many columns of a legend fit side by side into some inches."""
    longest = max(len(name) for name in names)
    return max(1, min(len(names), int(width / (0.075 * longest + 0.55))))


def safe(text: str) -> str:
    """Returns text that is drawn as it stands: on one line, and a dollar sign begins no formula."""
    return plain_text(text).replace("$", r"\$")


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """Returns text in lines of limited length."""
    return "\n".join(textwrap.wrap(safe(text), width, max_lines=lines, placeholder=" …"))


def label_room(labels: Sequence[str], width: int = 27) -> float:
    """Returns the inches that labels of rows need left of a panel, wrapped to some characters."""
    return 0.2 + 0.067 * max(len(line) for label in labels for line in wrapped(label, width).split("\n"))


def row_inches(labels: Sequence[str], least: float, width: int = 27) -> float:
    """Returns the height of a row that fits the label of most lines."""
    return max(least, 0.08 + 0.135 * max(len(wrapped(label, width).split("\n")) for label in labels))


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


def percent_or_points(column: Column | None) -> tuple[float, str]:
    """Returns (what a score is multiplied by, the unit): of a task, or of the mean over tasks."""
    return (1.0, "points") if column is not None and column.unit == "points" else (100.0, "%")


def scaled(interval: Interval | None, scale: float) -> Interval | None:
    """Returns an interval in another unit."""
    return None if interval is None else (scale * interval[0], scale * interval[1])


def name_of(kind: str, board: Board, boards: Sequence[Board]) -> str:
    """Returns the name of a board's figure: of its suite, and of its track and limit where others have the name."""
    whole = [other for other in boards if other.suite == board.suite and other.limit is None]
    if board.limit is None:
        return f"{kind}-{board.suite}" + ("" if len(whole) == 1 else f"-{board.track}")
    return f"{kind}-{board.suite}-{board.track}-first-{board.limit}"


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
    """Returns the sentence without which figures of the embedded suite would be misread."""
    return "Generated miniature tasks, not the public benchmarks. " if board.suite == "embedded" else ""


def exploratory_note(is_exploratory: bool) -> str:
    """Returns the sentence for too few seeds."""
    return "Exploratory: fewer than six seeds, nothing can be separated. " if is_exploratory else ""
