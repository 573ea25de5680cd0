"""The gallery of an explanation: questions as rows, maps as columns, drawn over the image with the true region."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt_bench.common.files import write_atomic
from mmpt_bench.figures import style
from mmpt_bench.stats.saliency import disagreement
from mmpt_bench.study.explanations.result import FOLDER, ExplainResult, Item, region_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 6
"""Questions of a gallery."""
INCH = 0.95
"""Of a map's side."""
REGION, TOP = "#00e5ff", "#ffffff"


def write_gallery(result: ExplainResult) -> Path | None:
    """Writes `explain/NAME.png` and returns its path; None where image tokens are no grid of the image."""
    places = shown(result)
    if not places:
        return None
    path = result.folder / FOLDER / f"{result.name}.png"
    write_atomic(path, style.rendered(_drawn(result, places), "png", "paths"))
    return path


def shown(result: ExplainResult, most: int = SHOWN) -> list[int]:
    """Returns up to `most` questions to draw: evenly from those on which the base's maps disagree most to least."""
    base = result.rows[0].explained
    found = {i: disagreement(compared(one)) for i, one in enumerate(base) if one.grid is not None}
    order = sorted(found, key=lambda i: (-found[i], i))
    places = np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int)
    return [order[place] for place in places]


def compared(one: Any) -> list[np.ndarray]:
    """Returns the maps whose disagreement counts: all but noise."""
    return [values for name, values in one.maps.items() if name != "random"]


def _drawn(result: ExplainResult, places: list[int]) -> Any:
    from matplotlib.figure import Figure

    rows = [(i, row.label, row.explained[i]) for i in places for row in result.rows]
    text, gap, head, foot = 2.1, 0.07, 0.35, 0.3
    lines = len(result.rows)
    width = text + (1 + len(result.maps)) * (INCH + gap)
    height = head + len(rows) * (INCH + gap) + len(places) * 0.2 + foot
    figure = Figure(figsize=(width, height))
    for number, (i, label, one) in enumerate(rows):
        top = height - head - number * (INCH + gap) - (number // lines) * 0.2
        middle = (top - INCH / 2) / height
        figure.text(
            0.08 / width, middle, _words(result.items[i], label, one, number % lines == 0), size=6.5, va="center"
        )
        for column, name in enumerate(("", *result.maps)):
            left = text + column * (INCH + gap)
            axes = figure.add_axes((left / width, (top - INCH) / height, INCH / width, INCH / height))
            _draw(axes, one, name, region_of(result.items[i], one))
            if number == 0:
                axes.set_title(name or "image, region", size=7.5)
    style.stamp(figure, f"{result.source}. {len(places)} of them are shown.")
    return figure


def _words(item: Item, label: str, one: Any, with_question: bool) -> str:
    asked = textwrap.wrap(style.safe(item.sample.question), 36, max_lines=3, placeholder=" …") if with_question else []
    mark = "right" if one.is_right else f"wrong: {item.sample.answer}"
    said = f"{style.safe(label)}: {style.safe(one.answer)} {100 * one.probability:.0f} % ({style.safe(mark)})"
    return "\n".join([*asked, *textwrap.wrap(said, 36)])


def _draw(axes: Axes, one: Any, name: str, region: np.ndarray | None) -> None:
    """Draws an image, with a map's positive part over it, its highest token and what the question names."""
    assert one.grid is not None
    side, (down, across) = (0, 1, 1, 0), one.grid
    if not name:
        axes.imshow(one.image, extent=side, aspect="auto", interpolation="nearest")
    else:
        gray = one.image.mean(axis=2)
        axes.imshow(gray, cmap="gray", vmin=0, vmax=255, extent=side, aspect="auto", interpolation="nearest")
        positive = np.clip(one.maps[name], 0, None).reshape(one.grid)
        heat = positive / positive.max() if positive.any() else positive
        axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.25 + 0.6 * heat, extent=side, aspect="auto")
        row, column = divmod(int(one.maps[name].argmax()), across)
        axes.plot((column + 0.5) / across, (row + 0.5) / down, "x", color=TOP, markersize=4, markeredgewidth=1.2)
    if region is not None:
        _outline(axes, region.reshape(one.grid))
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(1, 0))


def _outline(axes: Axes, region: np.ndarray) -> None:
    """Draws the edges between tokens inside and outside a region."""
    down, across = region.shape
    padded = np.pad(region, 1)
    for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        axes.plot([column / across, (column + 1) / across], [row / down] * 2, color=REGION, linewidth=1.1)
    for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        axes.plot([column / across] * 2, [row / down, (row + 1) / down], color=REGION, linewidth=1.1)
