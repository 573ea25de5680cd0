"""Two numbers varied at once, as visual and textual prompt length: a heat map with the scores in its cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.board.board import Row
from mmpt_bench.figures import points, style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing, source_of
from mmpt_bench.records.ablations import Point
from mmpt_bench.study.ablations.board import AblationBoard

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Score over two varied numbers"
NOTHING = "No ablation over two numbers is recorded: `mmpt-bench ablate --visual-len 5,10,20 --text-len 5,10,20`."
FRAME = "#D55E00"
CELL = (0.5, 0.36)
"""Inches of a cell."""
Cells = dict[tuple[float, float], points.Mark]


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields a figure for each method of each ablation over two axes of numbers."""
    for each in of.ablations:
        axes = each.ablation.axes
        grid = [p for p in each.ablation.points if len(p.values) == 2 and list(p.values) == list(axes)]
        if len(axes) != 2 or not all(points.numeric(values) for values in axes.values()) or not grid:
            continue
        for method in dict.fromkeys(point.method for point in grid):
            is_alone = len({point.method for point in each.ablation.points}) == 1
            name = f"heat-map-{style.file_name(each.ablation.name)}{'' if is_alone else f'-{method}'}"
            title = f"Score by {' and '.join(axes)}: {method}"
            rows = [(point, row) for point, row in each.rows if point in grid and point.method == method]
            if each.evidence is None or len(rows) < 2:
                reason = f"{len(rows)} of its points has a result: `{each.command}`."
                yield Missing("heat-map", name, title, reason)
            else:
                yield _drawn(each, rows, name, title)


def _drawn(board: AblationBoard, rows: Sequence[tuple[Point, Row]], name: str, title: str) -> Drawn:
    from matplotlib.patches import Patch

    assert board.evidence is not None
    across, down = board.ablation.axes
    columns = {column.task: column for column in board.evidence.board.columns}
    tasks = points.shown_tasks(board)
    xs, ys = (sorted({float(point.values[axis]) for point, _ in rows}) for axis in (across, down))
    size = (max(1.4, CELL[0] * len(xs)), max(1.0, CELL[1] * len(ys)))
    figure, axes = style.panels(len(tasks), size=size, left=0.55, below=0.52, gap=0.45, legend=0.3)
    lines: list[dict[str, Any]] = []
    for number, (panel, task) in enumerate(zip(axes, tasks, strict=True)):
        heading, scale, unit = style.title_and_unit(columns.get(task))
        cells: Cells = {}
        for point, row in rows:
            found = points.mark(row, task, 0.0, scale)
            place = (float(point.values[across]), float(point.values[down]))
            if found is not None:
                cells[place] = found
                lines.append(
                    {across: place[0], down: place[1], "label": row.label, "task": task or "overall", "unit": unit,
                     "score": found.score, **style.spanned(found.interval), "n_seeds": len(row.seeds)}
                )  # fmt: skip
        _panel(panel, cells, xs, ys)
        panel.set_title(f"{heading} ({unit})")
        panel.set_xlabel(style.safe(points.AXIS_TITLES.get(across, across)))
        if number % 4 == 0:
            panel.set_ylabel(style.safe(points.AXIS_TITLES.get(down, down)))
    entries = [("the highest", Patch(fill=False, edgecolor=FRAME, linewidth=1.6)),
               ("its interval holds the highest", style.mark_entry("black", markersize=2))]  # fmt: skip
    style.Legend(entries, columns=2).draw(figure)
    best = max((line for line in lines if line["task"] == (tasks[0] or "overall")), key=lambda line: line["score"])
    return Drawn(
        "heat-map", name, title,
        "Mean over seeds; the highest of each panel is framed, and cells whose interval holds it are marked with a "
        f"dot. {points.notes(board)}",
        f"Scores over {across} and {down}: the highest is at {across} {best[across]:g} and {down} {best[down]:g}.",
        figure, source_of(board.evidence), style.table(lines),
        board.ablation.name,
    )  # fmt: skip


def _panel(axes: Axes, cells: Cells, xs: Sequence[float], ys: Sequence[float]) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    scores = [m.score for m in cells.values()]
    low, high = min(scores), max(scores)
    top = max(cells, key=lambda place: cells[place].score)
    for (x, y), found in cells.items():
        share = (found.score - low) / (high - low) if high > low else 0.5
        corner = (xs.index(x) - 0.5, ys.index(y) - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, color=colormaps["cividis"](share), linewidth=0))
        # Not quite white and black, which a page in the dark replaces: these stand on the colours of cells.
        ink = "#fdfdfd" if share < 0.55 else "#111111"
        axes.text(xs.index(x), ys.index(y), f"{found.score:.1f}", ha="center", va="center", color=ink, size=7)
        holds = found.interval is not None and found.interval[0] <= high <= found.interval[1]
        if holds and (x, y) != top:
            axes.plot(xs.index(x) + 0.4, ys.index(y) + 0.32, "o", color=ink, markersize=2)
    axes.add_patch(Rectangle((xs.index(top[0]) - 0.46, ys.index(top[1]) - 0.46), 0.92, 0.92, fill=False,
                             edgecolor=FRAME, linewidth=1.6))  # fmt: skip
    axes.set_xlim(-0.5, len(xs) - 0.5)
    axes.set_ylim(-0.5, len(ys) - 0.5)
    axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
    axes.set_yticks(range(len(ys)), [f"{y:g}" for y in ys])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
