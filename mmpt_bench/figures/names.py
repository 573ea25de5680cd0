"""Names beside marks: each near its own, on no other name and no mark, with a stroke where it stands apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmpt_bench.figures import style
from mmpt_bench.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTHS = (36, 22, 14)
"""Characters of a line; names that do not fit so are broken further."""
SIZE = 6.5
STEP, NEAR, MARK = 3.0, 7.0, 5.0
"""Points: between the places that are tried, from a mark to its name, and from a mark's middle to its edge."""
ON_MARK, ON_BAR, BESIDE = 60.0, 25.0, 10.0
"""What it costs a name to cover a mark or an interval, or to touch that of another, in points of distance."""
Box = tuple[float, float, float, float]
"""Left, bottom, right, top; in points of the figure."""


@dataclass(frozen=True)
class Named:
    """A mark of a panel and its name."""

    name: str
    x: float
    y: float
    interval: Interval | None
    """Drawn through the mark, upright."""


def write_names(axes: Axes, marks: Sequence[Named], levels: Sequence[float] = ()) -> None:
    """Writes the name of each mark into a panel whose limits are set, those with the nearest neighbours first.

    A name for which there is no room is left out; its mark stays, and the figure's table names it.

    Args:
        axes: the panel.
        marks: what is drawn there.
        levels: where lines go across the panel.
    """
    axes.get_xlim(), axes.get_ylim()  # what was drawn since decides the limits only when they are asked for
    scale = 72.0 / axes.figure.dpi
    frame: Box = tuple(scale * v for v in axes.get_window_extent().extents)  # type: ignore[assignment]
    places = [scale * axes.transData.transform((each.x, each.y)) for each in marks]
    bars = [_bar(axes, each, scale) for each in marks]
    heights = [scale * axes.transData.transform((marks[0].x, y))[1] for y in levels]
    bars += [(frame[0], y - 1, frame[2], y + 1) for y in heights]
    dots = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in places]
    written: list[Box] = []
    for i in sorted(range(len(marks)), key=lambda i: _nearest(places, i)):
        for width in WIDTHS:
            text = style.wrapped(marks[i].name, width, 3)
            others = [box for k, box in enumerate(bars) if k != i]
            box = _place(frame, _size(text), places[i], written, dots, bars, others)
            if box is not None:
                break
        else:
            continue
        written.append(box)
        _write(axes, text, box, places[i], frame)


def _bar(axes: Axes, of: Named, scale: float) -> Box:
    low, high = of.interval or (of.y, of.y)
    (x, bottom), (_, top) = (scale * axes.transData.transform((of.x, y)) for y in (low, high))
    return x - 1, bottom, x + 1, top


def _nearest(places: Sequence[NDArray[np.float64]], i: int) -> float:
    return min((float(np.hypot(*(places[i] - other))) for k, other in enumerate(places) if k != i), default=0.0)


def _size(text: str) -> tuple[float, float]:
    """Returns width and height of a text in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans", size=SIZE)
    lines = text.split("\n")
    return max(TextPath((0, 0), line, prop=font).get_extents().width for line in lines) + 3, 1.3 * SIZE * len(lines) + 1


def _place(
    frame: Box, size: tuple[float, float], mark: NDArray[np.float64], written: Sequence[Box], dots: Sequence[Box],
    bars: Sequence[Box], others: Sequence[Box],
) -> Box | None:  # fmt: skip
    """Returns the cheapest free place of a name in a panel; None where there is none."""
    width, height = size
    xs, ys = np.arange(frame[0], frame[2] - width, STEP), np.arange(frame[1] + 2, frame[3] - height, STEP)
    if not xs.size or not ys.size:
        return None
    left, bottom = (each.ravel() for each in np.meshgrid(xs, ys))
    right, top = left + width, bottom + height

    def covers(box: Box) -> NDArray[np.bool_]:
        return (left < box[2]) & (right > box[0]) & (bottom < box[3]) & (top > box[1])

    across = np.maximum(0, np.maximum(left - mark[0], mark[0] - right))
    up = np.maximum(0, np.maximum(bottom - mark[1], mark[1] - top))
    cost = np.abs(np.hypot(across, up) - NEAR)
    for boxes, price in ((dots, ON_MARK), (bars, ON_BAR), (written, np.inf)):
        for box in boxes:
            cost[covers(box)] += price
    for box in others:
        gap = np.hypot(np.maximum(0, np.maximum(box[0] - right, left - box[2])),
                       np.maximum(0, np.maximum(box[1] - top, bottom - box[3])))  # fmt: skip
        cost += BESIDE * np.maximum(0, 1 - gap / BESIDE)
    best = int(cost.argmin())
    return None if np.isinf(cost[best]) else tuple(float(each[best]) for each in (left, bottom, right, top))  # type: ignore[return-value]


def _write(axes: Axes, text: str, box: Box, mark: NDArray[np.float64], frame: Box) -> None:
    width, height = frame[2] - frame[0], frame[3] - frame[1]

    def inside(x: float, y: float) -> tuple[float, float]:
        return (x - frame[0]) / width, (y - frame[1]) / height

    middle = (box[1] + box[3]) / 2
    axes.text(
        *inside((box[0] + box[2]) / 2, middle), text, size=SIZE, ha="center", va="center", transform=axes.transAxes,
        linespacing=1.05, zorder=5,
    )  # fmt: skip
    end = min(max(mark[0], box[0]), box[2]), min(max(mark[1], box[1]), box[3])
    if np.hypot(end[0] - mark[0], end[1] - mark[1]) > NEAR + STEP:
        (x1, y1), (x2, y2) = inside(*mark), inside(*end)
        axes.plot([x1, x2], [y1, y2], color=style.GREY, linewidth=0.5, transform=axes.transAxes, zorder=1)
