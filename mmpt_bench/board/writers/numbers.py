"""Numbers as people read them: points out of their ceiling, fractions as percent, and "n/a" with its reason."""

from __future__ import annotations

from mmpt_bench.board.board import Board, Cell, Column, Row
from mmpt_bench.stats.claims import Ratio
from mmpt_bench.stats.intervals import Interval

NOTHING = "–"


def score(value: float | None, column: Column, out_of: bool = True) -> str:
    """Returns a figure of a task: "612.5 / 1200", or "73.8 %"."""
    if value is None:
        return NOTHING
    if column.unit == "points":
        return f"{value:.1f} / {column.ceiling:.0f}" if out_of else f"{value:.1f}"
    return percent(value)


def interval(value: Interval | None, column: Column) -> str:
    """Returns an interval in the unit of the task: "580.1–640.2", or "71.2–76.0"."""
    if value is None:
        return NOTHING
    scale = 1 if column.unit == "points" else 100
    return _between(scale * value[0], scale * value[1])


def spread(cell: Cell, column: Column) -> str:
    """Returns the standard deviation over seeds, in the unit of the task."""
    return NOTHING if cell.sd is None else f"{cell.sd * (1 if column.unit == 'points' else 100):.1f}"


def percent(value: float | None, decimals: int = 1) -> str:
    """Returns a fraction as percent."""
    # A minus in front of zero would read as a difference.
    return NOTHING if value is None else f"{round(100 * value, decimals) + 0.0:.{decimals}f} %"


def percents(value: Interval | None) -> str:
    """Returns an interval of fractions in percent, without its sign."""
    return NOTHING if value is None else _between(100 * value[0], 100 * value[1])


def ratio(value: Ratio | None) -> str:
    """Returns "95.5 % (93.0–97.9)", or "n/a (why)"."""
    if value is None or value.value is None:
        return f"n/a ({value.reason})" if value is not None else NOTHING
    return f"{percent(value.value)} ({percents(value.interval)})"


def rank(number: int | None, between: tuple[int, int] | None = None) -> str:
    """Returns a rank, with its interval where it is given: "2 (1–4)"."""
    if number is None:
        return NOTHING
    return f"{number}" if between is None else f"{number} ({between[0]}–{between[1]})"


def share(row: Row) -> str:
    """Returns the share of parameters that is trained; two significant digits where it is small."""
    value = 100 * row.share
    return "0 %" if not value else f"{value:#.2g} %" if value < 1 else f"{value:.1f} %"


def seeds(row: Row) -> str:
    """Returns the number of seeds; a method that does not train has none."""
    return str(len(row.seeds)) if row.trains else NOTHING


def seconds(value: float) -> str:
    """Returns a duration."""
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def size(n_bytes: int) -> str:
    """Returns a number of bytes in binary units."""
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def rate(row: Row) -> str:
    """Returns the learning rate."""
    return NOTHING if row.learning_rate is None else f"{row.learning_rate:.3g}"


def budget(board: Board) -> str:
    """Returns what every method was given: "400 steps of 24 examples, cosine, float32"."""
    b = board.budget
    if not b:
        return f"budget unknown, {board.dtype}"
    return f"{b['steps']:,} steps of {b['batch_size']:,} examples, {b['schedule']} schedule, {board.dtype}"


def _between(low: float, high: float) -> str:
    """Returns "71.2–76.0", or "-1.4 to 36.6" where a dash beside a minus could not be read."""
    return f"{low:.1f} to {high:.1f}" if low < 0 else f"{low:.1f}–{high:.1f}"
