"""Numbers as people read them: points out of their ceiling, fractions as percent, and "n/a" with its reason."""

from __future__ import annotations

import dataclasses

from mmpt_bench.board.board import Board, Cell, Column, Row
from mmpt_bench.common.words import counted
from mmpt_bench.records.budget import Budget
from mmpt_bench.stats.claims import BORDERLINE, SEEDS_TO_CLAIM, SIGNIFICANT, Ratio
from mmpt_bench.stats.intervals import Interval

NOTHING = "–"
UNUSUAL = {"warmup": "warm-up", "weight_decay": "weight decay", "max_grad_norm": "gradient norm at most",
           "max_length": "tokens at most"}  # fmt: skip
"""Fields of a budget that are named where they are not the default."""
BORDERLINE_SIGN = "†"


def score(value: float | None, column: Column, out_of: bool = True) -> str:
    """Returns a score of a task: "612.5 / 1200", or "73.8 %"."""
    if value is None:
        return NOTHING
    if column.unit == "points":
        return f"{value:z.1f} / {column.ceiling:.0f}" if out_of else f"{value:z.1f}"
    return percent(value)


def interval(value: Interval | None, column: Column) -> str:
    """Returns an interval in the unit of the task: "580.1–640.2", or "71.2–76.0"."""
    if value is None:
        return NOTHING
    scale = 1 if column.unit == "points" else 100
    return _between(scale * value[0], scale * value[1])


def spread(cell: Cell, column: Column) -> str:
    """Returns the standard deviation over seeds, in the unit of the task."""
    return NOTHING if cell.sd is None else f"{cell.sd * (1 if column.unit == 'points' else 100):z.1f}"


def figure(name: str, value: float | None, column: Column) -> str:
    """Returns any score of a task in its own unit: points without a sign, or percent."""
    if value is None:
        return NOTHING
    return f"{value:z.1f}" if column.metric.declared(name).unit == "points" else percent(value)


def percent(value: float | None, decimals: int = 1) -> str:
    """Returns a fraction as percent."""
    # A minus in front of zero would read as a difference.
    return NOTHING if value is None else f"{round(100 * value, decimals):z.{decimals}f} %"


def percents(value: Interval | None) -> str:
    """Returns an interval of fractions in percent, without its sign."""
    return NOTHING if value is None else _between(100 * value[0], 100 * value[1])


def ratio(value: Ratio | None) -> str:
    """Returns "95.5 % (93.0–97.9)", or "n/a (why)"."""
    if value is None or value.value is None:
        return f"n/a ({value.reason})" if value is not None else NOTHING
    return f"{percent(value.value)} ({percents(value.interval)})"


def place(of: Row | Cell, board: Board) -> str:
    """Returns a place with its interval, its groups and whether they are borderline: "2 (1–4) ab†".

    The place alone where seeds are too few to tell any methods apart: an interval would be of these trainings.
    """
    if of.place is None or of.place_interval is None:
        return NOTHING
    if board.exploratory:
        return str(of.place)
    low, high = of.place_interval
    return f"{of.place} ({low}–{high}) {groups(of)}"


def groups(of: Row | Cell) -> str:
    """Returns the letters of the groups, with a sign where they are borderline: "ab†"."""
    return of.groups + (BORDERLINE_SIGN if of.borderline else "")


def gain(value: float | None, between: Interval | None, column: Column | None = None) -> str:
    """Returns a gain in points of the task, or in percentage points: "+1.2 (−0.3 to 2.7)"."""
    if value is None or between is None:
        return NOTHING
    scale = 1 if column is not None and column.unit == "points" else 100
    return f"{scale * value:+z.1f} ({scale * between[0]:z.1f} to {scale * between[1]:z.1f})"


def forgetting(row: Row, board: Board) -> str:
    """Returns how far a row fell below the baseline, and where most: "1.2 (0.3 to 2.1), most on CIFAR-10"."""
    if row.forgetting is None:
        return NOTHING
    if row.forgetting_interval is None:
        return "0.0"
    low, high = row.forgetting_interval
    title = next(column.title for column in board.columns if column.task == row.forgot_most)
    return f"{100 * row.forgetting:z.1f} ({100 * low:z.1f} to {100 * high:z.1f}), most on {title}"


def legend(board: Board) -> str:
    """Returns what places and groups on a board mean, and its borderline pairs."""
    low, high = (f"{p:g}".removeprefix("0") for p in BORDERLINE)
    told = (
        "Place: by the mean, with the 95 % interval of that place over images and seeds. Methods that share a letter "
        f"are not significantly different (p ≥ {SIGNIFICANT:g} after Holm over all pairs, or by sign flips of seeds)"
    ).replace("0.05", ".05")
    if board.exploratory:
        return f"Place: by the mean. With fewer than {SEEDS_TO_CLAIM} seeds no difference is significant."
    pairs = [c for c in board.comparisons if BORDERLINE[0] <= c.p_adjusted <= BORDERLINE[1]]
    if not pairs:
        return f"{told}."
    named = "; ".join(f"{c.first} and {c.second} {p_value(c.p_adjusted)}" for c in pairs)
    return f"{told}. {BORDERLINE_SIGN} borderline: p between {low} and {high} ({named})."


def p_value(p: float) -> str:
    """Returns a p-value: ".021", "< .001", "1"; with more digits where three would put it on the other side of .05."""
    if p < 0.001 or p > 0.9995:
        return "< .001" if p < 0.001 else "1"
    is_across = (round(p, 3) < SIGNIFICANT) != (p < SIGNIFICANT)
    return f"{p:.{5 if is_across else 3}f}".removeprefix("0")


def share(row: Row) -> str:
    """Returns the share of parameters that is trained; two significant digits where it is small."""
    value = 100 * row.share
    return "0 %" if not value else f"{value:#.2g} %" if value < 1 else f"{value:z.1f} %"


def seeds(row: Row) -> str:
    """Returns the number of seeds that scores are over, "6 of 8" where more are recorded; none without training."""
    if not row.trains:
        return NOTHING
    return str(len(row.seeds)) if row.scored == row.seeds else f"{len(row.scored)} of {len(row.seeds)}"


def cost(row: Row) -> str:
    """Returns the seconds of a training, or the parameters that are trained where it was not measured."""
    if not row.trains or row.train_seconds is not None:
        return seconds(row.train_seconds)
    value, unit = float(row.trainable), ""
    for larger in ("k", "M", "G"):
        if value >= 1000:
            value, unit = value / 1000, f" {larger}"
    return f"{value:.0f}{unit} params" if not unit or value >= 100 else f"{value:z.1f}{unit} params"


def seconds(value: float | None) -> str:
    """Returns a duration; nothing where it was not measured."""
    if value is None:
        return NOTHING
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:z.1f} min" if value < 7200 else f"{value / 3600:z.1f} h"


def milliseconds(value: float | None) -> str:
    """Returns a number of seconds in milliseconds; nothing where it was not measured."""
    return NOTHING if value is None else f"{1000 * value:.1f} ms"


def size(n_bytes: int | None) -> str:
    """Returns a number of bytes in binary units; nothing where it was not measured."""
    if n_bytes is None:
        return NOTHING
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:z.1f} {unit}"
        value /= 1024
    return f"{value:z.1f} TiB"


def rate(row: Row) -> str:
    """Returns the learning rate."""
    return NOTHING if row.learning_rate is None else f"{row.learning_rate:.3g}"


def budget(board: Board, has_steps: bool = True) -> str:
    """Returns what every method was given: "400 steps of 16 examples, cosine schedule, float32"; or all but steps.

    What else a budget says is named where it is not the default.
    """
    b = board.budget
    if not b:
        return f"budget unknown, {board.dtype}"
    examples = counted(b["batch_size"], "example")
    given = f"{counted(b['steps'], 'step')} of {examples}" if has_steps else f"{examples} a step"
    usual = dataclasses.asdict(Budget())
    others = [f"{words} {b[name]:g}" for name, words in UNUSUAL.items() if b.get(name, usual[name]) != usual[name]]
    return ", ".join((given, f"{b['schedule']} schedule", *others, board.dtype))


def signed(value: float | None, column: Column | None = None) -> str:
    """Returns a difference in points of the task, or in percentage points: "+1.2", "-0.3"."""
    if value is None:
        return NOTHING
    return f"{round((1 if column is not None and column.unit == 'points' else 100) * value, 1):+z.1f}"


def between(value: Interval | None, column: Column | None = None) -> str:
    """Returns the interval of a difference in the same unit: "-0.3 to 2.7"."""
    if value is None:
        return NOTHING
    low, high = (signed(each, column).removeprefix("+") for each in value)
    return f"{low} to {high}"


def _between(low: float, high: float) -> str:
    """Returns "71.2–76.0", or "-1.4 to 36.6" where a dash beside a minus could not be read."""
    return f"{low:z.1f} to {high:z.1f}" if low < 0 else f"{low:z.1f}–{high:z.1f}"
