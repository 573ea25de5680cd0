"""What is left when parts are taken out, or chosen otherwise: points as rows, a panel for each score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmpt_bench.board.board import Row
from mmpt_bench.figures import points, style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing, source_of
from mmpt_bench.records.ablations import Point
from mmpt_bench.study.ablations.board import AblationBoard

TITLE = "Component ablation"
NOTHING = "No component ablation is recorded: `mmpt-bench ablate --parts visual,text,both-plain,both`."
PART_TITLES = {
    "visual": "visual prompts alone", "text": "textual prompts alone", "both-plain": "both, without interaction",
    "both": "both, with interaction",
}  # fmt: skip
LINE_INCHES = 0.32


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields a figure for each ablation over names: parts, depths, switches."""
    for each in of.ablations:
        if all(points.numeric(values) for values in each.ablation.axes.values()):
            continue
        name = f"components-{style.file_name(each.ablation.name)}"
        methods = dict.fromkeys(point.method for point in each.ablation.points)
        title = f"{TITLE}: {', '.join(each.ablation.axes)} of {', '.join(methods)}"
        rows = [(point, row) for point, row in each.rows if point in each.ablation.points]
        if each.evidence is None or len(rows) < 2:
            reason = f"{len(rows)} of its points has a result: `{each.command}`."
            yield Missing("components", name, title, reason)
        else:
            yield _drawn(each, rows, of, name, title)


def _drawn(board: AblationBoard, rows: Sequence[tuple[Point, Row]], of: FigureData, name: str, title: str) -> Drawn:
    assert board.evidence is not None
    columns = {column.task: column for column in board.evidence.board.columns}
    tasks, references = points.shown_tasks(board), points.reference_rows(board, of)
    several = len({point.method for point, _ in rows}) > 1
    labels = [_label(point, several) for point, _ in rows]
    has_seeds = any(len(row.seeds) > 1 for _, row in rows)
    entries = [
        ("base, or significantly different from it", style.score_entry(True)),
        ("not significantly different", style.score_entry(False)),
    ]
    entries += [("a seed", style.mark_entry(style.INK, "|", markersize=3.5, alpha=0.6))] * has_seeds
    room = style.label_room(labels)
    legend = style.Legend(entries + points.reference_entries(references, of.colors), room + 2.0 * min(len(tasks), 4))
    size = (1.75, style.row_inches(labels, LINE_INCHES) * len(rows) + 0.1)
    figure, axes = style.panels(len(tasks), size=size, left=room, gap=0.25, below=0.35, legend=legend.height)
    lines: list[dict[str, Any]] = []
    for number, (panel, task) in enumerate(zip(axes, tasks, strict=True)):
        heading, scale, unit = style.title_and_unit(columns.get(task))
        points.draw_references(panel.axvline, references, task, columns, scale, of.colors)
        for place, (point, row) in enumerate(rows):
            found = points.mark(row, task, float(place), scale)
            if found is None:
                continue
            contrast = next((c for c in board.contrasts if (c.first, c.task) == (point.label, task)), None)
            color = style.color_of(point.method, of.colors)
            is_significant = contrast is None or contrast.better is not None
            style.draw_score(panel, place, found.score, found.interval, color, is_significant)
            values = list(found.by_seed.values())
            panel.plot(values, [place + 0.27] * len(values), "|", color=color, markersize=3.5, alpha=0.6, zorder=2)
            lines.append(
                {"label": row.label, **point.values, "task": task or "overall", "unit": unit, "score": found.score,
                 **style.spanned(found.interval), "by_seed": points.seeds_text(found),
                 "p_holm": contrast.p_holm if contrast else None,
                 "significant": contrast is not None and is_significant}
            )  # fmt: skip
        for place in range(len(rows)):
            panel.axhline(place, color=style.PALE, linewidth=0.6, zorder=0)
        style.label_rows(panel, labels, number % 4 == 0)
        style.few_ticks(panel, 0.1)
        panel.set_title(f"{heading} ({unit})")
    legend.draw(figure)
    return Drawn(
        "components", name, title,
        "Points: mean over seeds. Bars: 95 % interval over seeds and images, over images alone where there is one "
        f"seed. Strokes below: seeds. {points.notes(board)}",
        _words(rows, labels, tasks[0]), figure, source_of(board.evidence), style.table(lines),
        board.ablation.name,
    )  # fmt: skip


def _label(point: Point, several: bool) -> str:
    """Returns what a point is called beside its row."""
    values = [PART_TITLES.get(v, v) if axis == "parts" else f"{axis} {v}" for axis, v in point.values.items()]
    told = ", ".join(values) or "as it is"
    return f"{point.method}: {told}" if several else told


def _words(rows: Sequence[tuple[Point, Row]], labels: Sequence[str], task: str) -> str:
    scores = [
        (m.score, label) for (_, row), label in zip(rows, labels, strict=True) if (m := points.mark(row, task, 0, 1.0))
    ]
    if not scores:
        return "Scores of the components."
    best, worst = max(scores)[1], min(scores)[1]
    return f"Of {len(scores)} variants, {best} scores most and {worst} least, in the first panel."
