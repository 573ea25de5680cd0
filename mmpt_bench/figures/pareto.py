"""Score against what it costs: trainable parameters, and memory and time where measured; how sure the front is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt_bench.board.assembly import Evidence
from mmpt_bench.board.board import Row
from mmpt_bench.board.writers import numbers
from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing, source_of
from mmpt_bench.figures.names import Named, write_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class _Cost:
    """A cost, and the panel that it has."""

    field: str
    """Of a row; None there where it was not measured."""
    name: str
    """As the legend and the caption call it."""
    axis: str
    factor: float = 1.0
    """From the field's unit to the axis'."""
    is_log: bool = False


COSTS = (
    _Cost("trainable", "parameters", "Trainable parameters, counted", is_log=True),
    _Cost("own_bytes", "memory", "Memory of its own (MiB), measured", 2.0**-20),
    _Cost("train_seconds", "time", "Training time (s), measured"),
    _Cost("cpu_seconds", "CPU time", "Processor's time (s), measured"),
)
MEASURE = "`mmpt-bench run --measure-costs`"
TITLE = "Score against cost"
NOTHING = "No run is recorded: `mmpt-bench run --method all --tasks all` makes some."


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields a figure a board."""
    boards = [each.board for each in of.boards]
    for each in of.boards:
        name, title = style.name_of("pareto", each.board, boards), f"{TITLE}: {each.board.title}"
        rows = [row for row in each.board.ranked if row.trains]
        if each.overall is None or len(rows) < 2:
            count = f"{len(rows) or 'No'} trained method is ranked; a front needs two"
            yield Missing("pareto", name, title, f"{count}: `mmpt-bench run --method all --tasks all`.")
        else:
            yield _drawn(each, rows, of, name, title)


def front_shares(scores: np.ndarray, costs: Sequence[float]) -> np.ndarray:
    """Returns how often each method is on the front: no other one scores more at no more cost, or as much for less.

    Args:
        scores: (bootstrap samples, methods).
        costs: (methods,).

    Returns:
        Shares of the bootstrap samples, (methods,).
    """
    cost = np.asarray(costs)
    higher = scores[:, None, :] > scores[:, :, None]
    equal = scores[:, None, :] == scores[:, :, None]
    beaten = (higher & (cost[None, :] <= cost[:, None])) | (equal & (cost[None, :] < cost[:, None]))
    return np.asarray(1 - beaten.any(axis=2).mean(axis=0))


def _drawn(of: Evidence, rows: Sequence[Row], material: FigureData, name: str, title: str) -> Drawn:
    board, ranked = of.board, list(of.board.ranked)
    shown = [cost for cost in COSTS if len(_measured(rows, cost)) > 1]
    shares = {cost.field: _shares(of, ranked, cost) for cost in shown}
    named = [(row.label, row.method) for row in rows]
    marks = dict(zip((row.label for row in rows), style.marks_of(named, material.colors), strict=True))
    lines = [row for row in ranked if not row.trains]
    # One panel alone is wider, so that names have room.
    wide = 2.9 if len(shown) > 1 else 4.4
    legend = style.Legend(_entries(lines, material), columns=1 if len(shown) == 1 else 3)
    figure, axes = style.panels(
        len(shown), size=(wide, 2.7), left=0.55, below=0.5, gap=0.3, legend=legend.height, per_line=2
    )
    low, high = _limits([*rows, *lines])
    for number, (axis, cost) in enumerate(zip(axes, shown, strict=True)):
        axis.set_ylim(low, high)
        _panel(axis, _measured(rows, cost), marks, lines, cost, material)
        axis.set_xlabel(cost.axis)
        write_names(axis, [
            Named(f"{row.label} {shares[cost.field][row.label]:.0%}".replace("%", "\u00a0%"),
                  cost.factor * float(getattr(row, cost.field)), 100 * (row.overall or 0.0),
                  style.scaled(row.overall_interval, 100))
            for row in _measured(rows, cost)
        ], [100 * (row.overall or 0.0) for row in lines])  # fmt: skip
        if number % 2 == 0:
            axis.set_ylabel("Overall (%)")
        else:
            axis.tick_params(labelleft=False)
    legend.draw(figure)
    best = max(rows, key=lambda r: r.overall or 0.0)
    return Drawn(
        "pareto", name, title,
        f"Overall is the mean over tasks of (score − chance) / (ceiling − chance), with its 95 % interval. Beside a "
        f"method: the share of bootstrap samples in which it is on the front. Filled marks are on the front by the "
        f"scores themselves: no other method scores more at no more cost. {_missing(rows)}{style.notes(board)}",
        f"Scores of {len(rows)} trained methods against cost. {best.label} has the highest overall score, "
        f"{numbers.percent(best.overall)}, with {best.trainable:,} trainable parameters.",
        figure, source_of(of), style.table(_table(ranked, shares)),
    )  # fmt: skip


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Returns the ends of the vertical axis that all panels share, in percent."""
    ends = [100 * end for row in rows for end in (row.overall_interval or (row.overall or 0.0,) * 2)]
    room = 0.08 * (max(ends) - min(ends) or 1.0)
    return min(ends) - room, max(ends) + room


def _measured(rows: Sequence[Row], cost: _Cost) -> list[Row]:
    return [row for row in rows if getattr(row, cost.field) is not None]


def _missing(rows: Sequence[Row]) -> str:
    """Returns which costs are not drawn, of which rows, and what measures them."""
    told = []
    for cost in COSTS:
        lost = [row.label for row in rows if getattr(row, cost.field) is None]
        if lost:
            told.append(cost.name if len(lost) == len(rows) else f"{cost.name} of {', '.join(lost)}")
    if not told:
        return ""
    return f"Not measured, so not drawn: {'; '.join(told)}; {MEASURE} measures them. "


def _shares(of: Evidence, ranked: Sequence[Row], cost: _Cost) -> dict[str, float]:
    """Returns how often each row whose cost is known is on the front; what does not train costs nothing."""
    assert of.overall is not None
    known = [row for row in ranked if not row.trains or getattr(row, cost.field) is not None]
    costs = [float(getattr(row, cost.field)) if row.trains else 0.0 for row in known]
    places = [of.overall.column(row.label) for row in known]
    found = front_shares(of.overall.draws[:, places], costs)
    return {row.label: float(share) for row, share in zip(known, found, strict=True)}


def _entries(lines: Sequence[Row], material: FigureData) -> list[tuple[str, Any]]:
    """Returns what marks and lines mean; methods are named beside their marks."""
    entries: list[tuple[str, Any]] = [
        (what, style.mark_entry(style.GREY, markerfacecolor=fill, markersize=5))
        for what, fill in (("on the front by the scores", style.GREY), ("another scores more at no more cost", "white"))
    ]
    return entries + [
        (f"{row.label}: not trained", style.line_entry(style.color_of(row.method, material.colors), ":"))
        for row in lines
    ]


def _panel(
    axes: Axes, rows: Sequence[Row], marks: Mapping[str, str], lines: Sequence[Row], cost: _Cost, material: FigureData
) -> None:
    from matplotlib.ticker import MaxNLocator

    for row in lines:
        axes.axhline(
            100 * (row.overall or 0.0), color=style.color_of(row.method, material.colors), linestyle=":", zorder=1
        )
    costs = [cost.factor * float(getattr(row, cost.field)) for row in rows]
    scores = [100 * (row.overall or 0.0) for row in rows]
    least = max((100 * (row.overall or 0.0) for row in lines), default=-np.inf)
    on_front = [
        s > least
        and not any((c2 <= c and s2 > s) or (c2 < c and s2 == s) for c2, s2 in zip(costs, scores, strict=True))
        for c, s in zip(costs, scores, strict=True)
    ]
    front = sorted((c, s) for c, s, on in zip(costs, scores, on_front, strict=True) if on)
    axes.step([c for c, _ in front], [s for _, s in front], where="post", color="#bbbbbb", linewidth=0.9, zorder=0)
    for number, row in enumerate(rows):
        color = style.color_of(row.method, material.colors)
        if row.overall_interval is not None:
            low, high = row.overall_interval
            axes.plot([costs[number]] * 2, [100 * low, 100 * high], color=color, linewidth=1, alpha=0.75, zorder=2)
        axes.plot(costs[number], scores[number], marks[row.label], color=color, markersize=5.5,
                  markerfacecolor=color if on_front[number] else "white", zorder=3)  # fmt: skip
    if cost.is_log:
        style.log_axis(axes.xaxis, min(costs), max(costs))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    axes.margins(x=0.12)
    axes.set_title(style.safe(f"By {cost.name}"))


def _table(rows: Sequence[Row], shares: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    return [
        {
            "label": row.label, "method": row.method, "overall": row.overall, **style.spanned(row.overall_interval),
            "trainable": row.trainable, "own_bytes": row.own_bytes, "peak_bytes": row.peak_bytes,
            "train_seconds": row.train_seconds, "cpu_seconds": row.cpu_seconds,
            **{f"on_front_by_{cost.field}": shares.get(cost.field, {}).get(row.label) for cost in COSTS},
        }
        for row in rows
    ]  # fmt: skip
