"""Score against what it costs: trainable parameters, peak memory, training time; and how sure the front is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt_bench.board.assembly import Evidence
from mmpt_bench.board.board import Row
from mmpt_bench.board.writers import numbers
from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = (
    ("trainable", "Trainable parameters", "counted", 1.0, True),
    ("peak_bytes", "Peak memory in training (MiB)", "measured", 2.0**-20, False),
    ("train_seconds", "Training time (s)", "measured", 1.0, False),
)
"""Field of a row, axis label, how it is known, factor, whether the axis is logarithmic."""
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
        scores: (resamples, methods).
        costs: (methods,).

    Returns:
        Shares of the resamples, (methods,).
    """
    cost = np.asarray(costs)
    higher = scores[:, None, :] > scores[:, :, None]
    equal = scores[:, None, :] == scores[:, :, None]
    beaten = (higher & (cost[None, :] <= cost[:, None])) | (equal & (cost[None, :] < cost[:, None]))
    return np.asarray(1 - beaten.any(axis=2).mean(axis=0))


def _drawn(of: Evidence, rows: Sequence[Row], material: FigureData, name: str, title: str) -> Drawn:
    board, overall = of.board, of.overall
    assert overall is not None
    ranked = list(board.ranked)
    places = [overall.column(row.label) for row in ranked]
    shares = {
        field: dict(
            zip((r.label for r in ranked), front_shares(overall.draws[:, places], _costs(ranked, field)), strict=True)
        )
        for field, *_ in COSTS
    }
    marks = style.marks_of([(row.label, row.method) for row in rows], material.colors)
    lines = [row for row in ranked if not row.trains]
    entries = [
        (f"{row.label}: {' / '.join(f'{shares[field][row.label]:.0%}' for field, *_ in COSTS)}",
         style.mark_entry(style.color_of(row.method, material.colors), mark, markersize=5))
        for row, mark in zip(rows, marks, strict=True)
    ]  # fmt: skip
    entries += [
        (f"{row.label}: not trained", style.line_entry(style.color_of(row.method, material.colors), ":"))
        for row in lines
    ]
    for told, fill in (("on the front by the scores themselves", style.GREY), ("beaten at no more cost", "white")):
        entries.append((told, style.mark_entry(style.GREY, markerfacecolor=fill, markersize=5)))
    legend = style.Legend(entries, 7.5)
    figure, axes = style.panels(len(COSTS), size=(2.0, 2.1), left=0.55, below=0.5, gap=0.4, legend=legend.height + 0.2)
    for axis, (field, label, how, factor, is_log) in zip(axes, COSTS, strict=True):
        _panel(axis, rows, marks, lines, field, factor, is_log, material)
        axis.set_xlabel(f"{label}, {how}")
    axes[0].set_ylabel("Overall (%)")
    for axis in axes[1:]:
        axis.set_ylim(axes[0].get_ylim())
        axis.set_yticklabels([])
    legend.draw(figure)
    height = figure.get_size_inches()[1]
    heading = "On the front in so many of the resamples, by parameters / memory / time:"
    figure.text(0.01, (legend.height + 0.02) / height, heading, size=7, color=style.GREY)
    best = max(rows, key=lambda r: r.overall or 0.0)
    return Drawn(
        "pareto", name, title,
        f"Overall is the mean over tasks of (score − chance) / (ceiling − chance), with its 95 % interval. Filled "
        f"marks are on the front by the scores themselves: no other method scores more at no more cost. Memory on a "
        f"processor is that of the whole process, with what else it holds. "
        f"{style.notes(board)}",
        f"Scores of {len(rows)} trained methods against cost. {best.label} has the highest overall score, "
        f"{numbers.percent(best.overall)}, with {best.trainable:,} trainable parameters.",
        figure, style.table(_table(ranked, shares)),
    )  # fmt: skip


def _costs(rows: Sequence[Row], field: str) -> list[float]:
    return [float(getattr(row, field)) if row.trains else 0.0 for row in rows]


def _panel(
    axes: Axes, rows: Sequence[Row], marks: Sequence[str], lines: Sequence[Row], field: str, factor: float,
    is_log: bool, material: FigureData,
) -> None:  # fmt: skip
    from matplotlib.ticker import MaxNLocator

    for row in lines:
        axes.axhline(
            100 * (row.overall or 0.0), color=style.color_of(row.method, material.colors), linestyle=":", zorder=1
        )
    costs = [factor * cost for cost in _costs(rows, field)]
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
        axes.plot(costs[number], scores[number], marks[number], color=color, markersize=5.5,
                  markerfacecolor=color if on_front[number] else "white", zorder=3)  # fmt: skip
    if is_log:
        style.log_axis(axes.xaxis, min(costs), max(costs))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    axes.margins(x=0.12, y=0.08)
    axes.set_title(style.safe({"trainable": "By parameters", "peak_bytes": "By memory"}.get(field, "By time")))


def _table(rows: Sequence[Row], shares: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    return [
        {
            "label": row.label, "method": row.method, "overall": row.overall, **style.spanned(row.overall_interval),
            "trainable": row.trainable, "peak_bytes": row.peak_bytes if row.trains else None,
            "train_seconds": row.train_seconds if row.trains else None,
            **{f"on_front_by_{field}": float(of[row.label]) for field, of in shares.items()},
        }
        for row in rows
    ]  # fmt: skip
