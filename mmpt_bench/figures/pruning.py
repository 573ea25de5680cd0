"""Score and prefill time against the share of image tokens that stays: a panel a task, a line a method and kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.files import write_atomic
from mmpt_bench.evaluation.pruning import ATTENTION, CLS, RANDOM
from mmpt_bench.figures import style
from mmpt_bench.study.pruning.board import WHOLE, PruneRow, by_method
from mmpt_bench.study.pruning.tables import FOLDER, PruneResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS: dict[str, dict[str, Any]] = {
    RANDOM: {"linestyle": ":", "marker": "o"},
    CLS: {"linestyle": "--", "marker": "s"},
    ATTENTION: {"linestyle": "-", "marker": "^"},
}


def write_pruning_figure(result: PruneResult, colors: Mapping[str, str]) -> Path | None:
    """Writes `pruning/<name>.png` and returns its path; None where nothing was answered."""
    if not result.rows:
        return None
    import matplotlib.style

    with matplotlib.style.context(["default", style.STYLE]):
        figure = _drawn(result, colors)
    path = result.folder / FOLDER / f"{result.name}.png"
    write_atomic(path, style.rendered(figure, "png", "paths"))
    return path


def _drawn(result: PruneResult, colors: Mapping[str, str]) -> Any:
    tasks = [task for task in result.tasks.values() if any(row.task == task.name for row in result.rows)]
    methods = list(dict.fromkeys(row.method for row in result.rows))
    kinds = [kind for kind in LOOKS if any(row.kind == kind for row in result.rows)]
    shade = {label: style.color_of(label.split(" (")[0], colors) for label in methods}
    entries = [(label, style.line_entry(shade[label], linewidth=2)) for label in methods]
    entries += [(kind, style.line_entry(style.INK, markersize=4, **LOOKS[kind])) for kind in kinds]
    entries.append(("the whole image", style.mark_entry(style.INK, "*", markersize=7)))
    n = len(tasks) + 1
    legend = style.Legend(entries, 0.6 + 2.4 * min(n, 3))
    figure, axes = style.panels(n, left=0.62, below=0.5, legend=legend.height, per_line=3)
    for panel, task in zip(axes, tasks, strict=False):
        rows = [row for row in result.rows if row.task == task.name]
        scale = 1.0 if task.declared.unit == "points" else 100.0
        for row in rows:
            _bar(panel, row, scale, shade[row.method])
        _lines(panel, rows, {id(row): scale * row.score for row in rows}, shade)
        panel.set_title(style.safe(task.title))
        panel.set_ylabel("Points" if task.declared.unit == "points" else "%", labelpad=2)
    rows = [row for row in result.rows if row.task == tasks[0].name]
    _lines(axes[-1], rows, {id(row): 1000 * row.prefill_seconds for row in rows}, shade)
    axes[-1].set_title(f"Prefill, {style.safe(tasks[0].title)}")
    axes[-1].set_ylabel("ms a question", labelpad=2)
    axes[-1].set_ylim(bottom=0)
    for panel in axes:
        panel.set_xlabel("Image tokens kept (%)")
        panel.set_xlim(0, 105)
    legend.draw(figure)
    few = any(0 < len(row.seeds) < 6 for row in result.rows)
    style.stamp(
        figure, f"{result.source}. Bars: 95 % intervals." + (" Exploratory: fewer than 6 seeds." if few else "")
    )
    return figure


def _lines(panel: Axes, rows: list[PruneRow], values: Mapping[int, float], shade: Mapping[str, str]) -> None:
    """Draws the lines of every method and kind, each from the whole image on."""
    whole = {row.method: row for row in rows if row.kind == WHOLE}
    for (method, kind), of_kind in by_method(rows).items():
        line = [*([whole[method]] if method in whole else []), *of_kind]
        at, heights = [_at(row) for row in line], [values[id(row)] for row in line]
        panel.plot(at, heights, color=shade[method], markersize=3.5, markevery=slice(len(line) - len(of_kind), None),
                   **LOOKS[kind])  # fmt: skip
    for method, row in whole.items():
        panel.plot(100, values[id(row)], "*", color=shade[method], markersize=6, zorder=4)


def _bar(panel: Axes, row: PruneRow, scale: float, color: str) -> None:
    """Draws the interval of a score, beside those of other kinds at the same share."""
    if row.interval is not None:
        panel.plot(
            [_at(row)] * 2, [scale * end for end in row.interval], color=color, linewidth=0.7, alpha=0.7, zorder=1
        )


def _at(row: PruneRow) -> float:
    """Returns where a row stands: its share in percent, a point beside those of other kinds."""
    return 100 * row.share + (0 if row.kind == WHOLE else list(LOOKS).index(row.kind) - 1)
