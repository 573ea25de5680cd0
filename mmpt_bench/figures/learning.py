"""Learning curves: the training loss of each method, a thin line a seed and a thick one for their mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmpt_bench.board.assembly import Evidence
from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing
from mmpt_bench.records.learning_curves import LearningCurve

LINES = ("-", "--", ":", "-.")
TITLE = "Learning curves"
NOTHING = "No run is recorded: `mmpt-bench run --method all --tasks all` makes some."
NO_LOG = (
    "No training log of these runs is here: the folders in runs/ hold them, and `mmpt-bench leaderboard --publish` "
    "keeps them in learning_curves.jsonl."
)


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields a figure a board."""
    boards = [each.board for each in of.boards]
    for each in of.boards:
        name, title = style.name_of("learning-curves", each.board, boards), f"{TITLE}: {each.board.title}"
        curves = _curves(each, of)
        if curves:
            yield _drawn(each, curves, of, name, title)
        else:
            yield Missing("learning-curves", name, title, NO_LOG)


def _curves(of: Evidence, material: FigureData) -> dict[str, dict[int, LearningCurve]]:
    """Returns label -> seed -> curve, of the rows that train and have logs."""
    found: dict[str, dict[int, LearningCurve]] = {}
    for row in of.board.rows:
        for by_seed in of.scores[row.label].values() if row.trains else ():
            for seed, result in sorted(by_seed.items()):
                curve = material.curves.get(result.record.run)
                if curve is not None:
                    found.setdefault(row.label, {})[seed] = curve
    return found


def _drawn(
    of: Evidence, curves: dict[str, dict[int, LearningCurve]], material: FigureData, name: str, title: str
) -> Drawn:
    methods = {row.label: row.method for row in of.board.rows}
    styles = _styles({label: methods[label] for label in curves})
    has_seeds = any(len(by_seed) > 1 for by_seed in curves.values())
    entries = [
        (label, style.line_entry(style.color_of(methods[label], material.colors), styles[label], linewidth=1.5))
        for label in curves
    ]
    legend = style.Legend(
        entries + [("a seed", style.line_entry(style.GREY, linewidth=0.5, alpha=0.7))] * has_seeds, 5.0
    )
    figure, (axes,) = style.panels(1, size=(4.4, 2.5), left=0.65, below=0.5, legend=legend.height)
    lines: list[dict[str, Any]] = []
    ends = {}
    for label, by_seed in curves.items():
        color = style.color_of(methods[label], material.colors)
        for seed, curve in by_seed.items():
            if len(by_seed) > 1:
                axes.plot(curve.steps, curve.losses, color=color, linewidth=0.5, alpha=0.35, zorder=1)
            lines += [
                {"label": label, "method": methods[label], "seed": seed, "step": step, "loss": loss}
                for step, loss in zip(curve.steps, curve.losses, strict=True)
            ]
        alike = [c.losses for c in by_seed.values() if c.steps == next(iter(by_seed.values())).steps]
        mean = np.mean(alike, axis=0)
        ends[label] = float(mean[-1])
        axes.plot(next(iter(by_seed.values())).steps, mean, styles[label], color=color, linewidth=1.5, zorder=2)
    axes.set_xlabel("Optimiser step")
    axes.set_ylabel("Nats a token")
    axes.set_title("Training loss" + (", mean over seeds" if has_seeds else ""))
    axes.margins(x=0.02)
    legend.draw(figure)
    lowest = min(ends, key=lambda label: ends[label])
    return Drawn(
        "learning-curves", name, title,
        "Thick: mean over seeds; thin: seeds. Each point is the mean of the steps since the one before. The loss is of "
        f"training: it says how fast a method fits, not how well it generalises. {style.suite_note(of.board)}",
        f"Training loss of {len(curves)} methods by step. {lowest} ends lowest, at {ends[lowest]:.3f}.",
        figure, style.table(lines),
    )  # fmt: skip


def _styles(methods: dict[str, str]) -> dict[str, Any]:
    """Returns label -> line, which tells a method's variants apart: they share its colour."""
    seen: dict[str, int] = {}
    found = {}
    for label, method in methods.items():
        found[label] = LINES[seen.get(method, 0) % len(LINES)]
        seen[method] = seen.get(method, 0) + 1
    return found
