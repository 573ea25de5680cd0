"""Learning curves: the training loss of each method, its mean over seeds with a band, and two seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt_bench.board.assembly import Evidence
from mmpt_bench.common.words import counted
from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing, source_of
from mmpt_bench.records.learning_curves import LearningCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = ("-", "--", ":", "-.")
LABEL_INCHES = 0.15
"""From one method's name to the next."""
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
    height = max(2.6, LABEL_INCHES * len(curves) + 0.4)
    figure, (axes,) = style.panels(
        1, size=(4.4, height), left=0.65, below=0.5, right=0.15 + style.label_room(list(curves), lines=1)
    )
    lines: list[dict[str, Any]] = []
    ends: dict[str, tuple[int, float]] = {}
    for label, by_seed in curves.items():
        color = style.color_of(methods[label], material.colors)
        ends[label] = _curve(axes, list(by_seed.values()), color, styles[label])
        lines += [
            {"label": label, "method": methods[label], "seed": seed, "step": step, "loss": loss}
            | {f"term {name}": values[i] for name, values in curve.terms.items()}
            for seed, curve in by_seed.items()
            for i, (step, loss) in enumerate(zip(curve.steps, curve.losses, strict=True))
        ]
        _terms(axes, list(by_seed.values()), color)
    axes.set_xlabel("Optimiser step")
    axes.set_ylabel("Nats a token")
    has_terms = any(curve.terms for by_seed in curves.values() for curve in by_seed.values())
    has_seeds = any(len(by_seed) > 1 for by_seed in curves.values())
    axes.set_title("Training loss" + (", mean ± SD over seeds" if has_seeds else ""))
    axes.margins(x=0.01)
    _label(axes, ends, {label: style.color_of(methods[label], material.colors) for label in ends}, height)
    lowest = min(ends, key=lambda label: ends[label][1])
    return Drawn(
        "learning-curves", name, title,
        "Line: mean over seeds. Band: one standard deviation over seeds to each side. Thin lines: the seeds that end "
        "lowest and highest. Each point is the mean of the steps since the one before. The loss is of training: it "
        "says how fast a method fits, not how well it generalises. "
        + "Dotted and named: terms that are added to it. " * has_terms
        + style.suite_note(of.board),
        f"Training loss of {counted(len(curves), 'method')} by step. {lowest} ends lowest, at {ends[lowest][1]:.3f}.",
        figure, source_of(of), style.table(lines),
    )  # fmt: skip


def _curve(axes: Axes, curves: Sequence[LearningCurve], color: str, line: Any) -> tuple[int, float]:
    """Draws the mean, the band and two seeds of a method's curves; returns the last step and the mean loss there."""
    steps = curves[0].steps
    losses = np.array([curve.losses for curve in curves if curve.steps == steps])
    mean = losses.mean(axis=0)
    if len(losses) > 1:
        spread = losses.std(axis=0, ddof=1)
        axes.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.14, linewidth=0, zorder=1)
        for losses_of_seed in (losses[losses[:, -1].argmin()], losses[losses[:, -1].argmax()]):
            axes.plot(steps, losses_of_seed, color=color, linewidth=0.5, alpha=0.35, zorder=2)
    axes.plot(steps, mean, linestyle=line, color=color, linewidth=1.6, zorder=3)
    return steps[-1], float(mean[-1])


def _terms(axes: Axes, curves: Sequence[LearningCurve], color: str) -> None:
    """Draws what was added to the loss: dotted, the mean over seeds of each term."""
    steps = curves[0].steps
    for name in curves[0].terms:
        mean = np.mean([c.terms[name] for c in curves if c.steps == steps and name in c.terms], axis=0)
        axes.plot(steps, mean, linestyle=":", color=color, linewidth=1.0, zorder=2)
        axes.annotate(name, (steps[0], mean[0]), size=6.5, color=color)


def _label(axes: Axes, ends: dict[str, tuple[int, float]], colors: dict[str, str], height: float) -> None:
    """Writes each method's name beside the end of its line, with a stroke to it."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    last = max(step for step, _ in ends.values())
    axes.set_xlim(axes.get_xlim()[0], last)
    places = style.apart([end for _, end in ends.values()], LABEL_INCHES * (high - low) / height)
    # Names of many methods with low losses would else run into the steps below.
    below = max(0.0, low - min(places))
    for (label, (_, end)), place in zip(ends.items(), places, strict=True):
        beside = axes.get_yaxis_transform()
        axes.plot(
            [1.005, 1.035], [end, place + below], color=colors[label], linewidth=0.8, transform=beside, clip_on=False
        )
        text = style.wrapped(label, style.LABEL_WIDTH, 1)
        axes.text(1.045, place + below, text, va="center", size=7.5, transform=beside)


def _styles(methods: dict[str, str]) -> dict[str, Any]:
    """Returns label -> line, which tells a method's variants apart: they share its colour."""
    seen: dict[str, int] = {}
    found = {}
    for label, method in methods.items():
        found[label] = LINES[seen.get(method, 0) % len(LINES)]
        seen[method] = seen.get(method, 0) + 1
    return found
