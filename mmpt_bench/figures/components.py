"""What is left when parts are taken out, or chosen otherwise: points as rows, a panel for each score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.board.board import Row
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing
from mmpt_bench.figures.points import REFERENCES, mark, numeric, reference_rows, reference_score, shown_tasks
from mmpt_bench.figures.style import (
    PALE,
    color_of,
    columns_for,
    exploratory_note,
    file_name,
    label_room,
    legend_below,
    legend_height,
    panels,
    percent_or_points,
    row_inches,
    safe,
    spanned,
    suite_note,
    table,
    wrapped,
)
from mmpt_bench.records.ablations import Point
from mmpt_bench.study.ablation_board import AblationBoard

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Component ablation"
PART_TITLES = {
    "visual": "visual prompts alone", "text": "textual prompts alone", "both-plain": "both, without interaction",
    "both": "both, with interaction",
}  # fmt: skip
LINE_INCHES = 0.32


def draw(of: FigureData) -> list[Drawn | Missing]:
    """Returns a figure for each ablation over names: parts, depths, switches."""
    made: list[Drawn | Missing] = []
    for each in of.ablations:
        if all(numeric(values) for values in each.ablation.axes.values()):
            continue
        name = f"components-{file_name(each.ablation.name)}"
        methods = dict.fromkeys(point.method for point in each.ablation.points)
        title = f"{TITLE}: {', '.join(each.ablation.axes)} of {', '.join(methods)}"
        rows = [(point, row) for point, row in each.rows if point in each.ablation.points]
        if each.evidence is None or len(rows) < 2:
            reason = f"{len(rows)} of its points has a result: `{each.ablation.command}`."
            made.append(Missing("components", name, title, reason))
        else:
            made.append(_drawn(each, rows, of, name, title))
    if not made:
        reason = "No component ablation is recorded: `mmpt-bench ablate --parts visual,text,both-plain,both`."
        made.append(Missing("components", "components", TITLE, reason))
    return made


def _drawn(board: AblationBoard, rows: Sequence[tuple[Point, Row]], of: FigureData, name: str, title: str) -> Drawn:
    from matplotlib.lines import Line2D

    assert board.evidence is not None
    columns = {column.task: column for column in board.evidence.board.columns}
    tasks, references = shown_tasks(board), reference_rows(board, of)
    several = len({point.method for point, _ in rows}) > 1
    labels = [_label(point, several) for point, _ in rows]
    names = ["base, or separated from it", "not separated from the base"]
    has_seeds = any(len(row.seeds) > 1 for _, row in rows)
    names += ["a seed"] * has_seeds + [f"{row.label}, for reference" for row in references]
    room = label_room(labels)
    n_columns = columns_for(names, room + 2.0 * min(len(tasks), 4))
    size = (1.75, row_inches(labels, LINE_INCHES) * len(rows) + 0.1)
    figure, axes = panels(len(tasks), size=size, left=room, gap=0.25, below=0.35,
                          legend=legend_height(len(names), n_columns))  # fmt: skip
    lines: list[dict[str, Any]] = []
    for number, (panel, task) in enumerate(zip(axes, tasks, strict=True)):
        column = columns.get(task)
        scale, unit = percent_or_points(column)
        for row in references:
            level = reference_score(row, task, columns)
            if level is not None:
                panel.axvline(scale * level, color=color_of(row.method, of.colors), linestyle=REFERENCES[row.method],
                              linewidth=1, zorder=1)  # fmt: skip
        for place, (point, row) in enumerate(rows):
            found = mark(row, task, float(place), scale)
            if found is None:
                continue
            contrast = next((c for c in board.contrasts if (c.first, c.task) == (point.label, task)), None)
            color = color_of(point.method, of.colors)
            separated = contrast is None or contrast.better is not None
            if found.interval is not None:
                panel.plot(found.interval, [place, place], color=color, linewidth=1.6, solid_capstyle="butt", zorder=2)
            panel.plot(found.score, place, "o", color=color, markersize=5,
                       markerfacecolor=color if separated else "white", zorder=3)  # fmt: skip
            values = list(found.by_seed.values())
            panel.plot(values, [place + 0.27] * len(values), "|", color=color, markersize=3.5, alpha=0.6, zorder=2)
            lines.append(
                {"label": row.label, **point.values, "task": task or "overall", "unit": unit, "score": found.score,
                 **spanned(found.interval), "by_seed": " ".join(f"{s}:{v!r}" for s, v in found.by_seed.items()),
                 "p_holm": contrast.p_holm if contrast else None, "separated": contrast is not None and separated}
            )  # fmt: skip
        _frame(panel, len(rows), labels if number % 4 == 0 else None)
        panel.set_title(safe(f"{column.title if column else 'Overall'} ({unit})"))
    handles: list[Any] = [
        Line2D([], [], color="#444444", marker="o", linestyle="", markersize=4.5),
        Line2D([], [], color="#444444", marker="o", markerfacecolor="white", linestyle="", markersize=4.5),
    ]
    handles += [Line2D([], [], color="#444444", marker="|", linestyle="", markersize=3.5, alpha=0.6)] * has_seeds
    handles += [Line2D([], [], color=color_of(r.method, of.colors), linestyle=REFERENCES[r.method]) for r in references]
    legend_below(figure, handles, names, n_columns)
    return Drawn(
        "components", name, title,
        "Points: mean over seeds. Bars: 95 % interval over seeds and pictures, over pictures alone where there is one "
        f"seed. Strokes below: seeds. {exploratory_note(board.exploratory)}{suite_note(board.evidence.board)}",
        _words(rows, labels, tasks[0]), figure, table(lines), board.ablation.name,
    )  # fmt: skip


def _label(point: Point, several: bool) -> str:
    """Returns what a point is called beside its row."""
    values = [PART_TITLES.get(v, v) if axis == "parts" else f"{axis} {v}" for axis, v in point.values.items()]
    told = ", ".join(values) or "as it is"
    return f"{point.method}: {told}" if several else told


def _frame(axes: Axes, n: int, labels: Sequence[str] | None) -> None:
    from matplotlib.ticker import MaxNLocator

    for place in range(n):
        axes.axhline(place, color=PALE, linewidth=0.6, zorder=0)
    axes.set_ylim(n - 0.4, -0.6)
    axes.set_yticks(range(n), [wrapped(label, 27) for label in labels] if labels else [])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], min_n_ticks=3))
    axes.margins(x=0.1)


def _words(rows: Sequence[tuple[Point, Row]], labels: Sequence[str], task: str) -> str:
    scores = [(m.score, label) for (_, row), label in zip(rows, labels, strict=True) if (m := mark(row, task, 0, 1.0))]
    if not scores:
        return "Scores of the components."
    best, worst = max(scores)[1], min(scores)[1]
    return f"Of {len(scores)} variants, {best} scores most and {worst} least, on the first panel's figure."
