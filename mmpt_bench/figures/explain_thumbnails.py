"""The gallery of an explanation as small images for the report: each question and model, each map by itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mmpt_bench.figures.explain_gallery import REGION, TOP, compared, shown
from mmpt_bench.records.store import Store
from mmpt_bench.stats.saliency import disagreement
from mmpt_bench.study.explanations.gallery import SUFFIX, Gallery, ShownModel, ShownQuestion, write_gallery_file
from mmpt_bench.study.explanations.result import FOLDER, ExplainResult, region_of
from mmpt_bench.study.explanations.scores import Key

QUESTIONS = 12
"""Of a gallery at most."""
SIDE = 108
"""Pixels of an image's side."""


def write_thumbnails(result: ExplainResult) -> Path | None:
    """Writes `explain/NAME-gallery.json` and returns its path; None where image tokens are no grid of the image."""
    places = shown(result, QUESTIONS)
    if not places:
        return None
    questions = tuple(_question(result, place) for place in places)
    tasks = ", ".join(dict.fromkeys(item.task for item in result.items))
    title = f"{', '.join(row.label for row in result.rows)} on {tasks}"
    gallery = Gallery(
        result.name, result.maps, len(result.items), questions, result.command, title, result.setting or result.source
    )
    write_gallery_file(Store(result.folder), gallery)
    return result.folder / FOLDER / f"{result.name}{SUFFIX}"


def _question(result: ExplainResult, place: int) -> ShownQuestion:
    item = result.items[place]
    models = []
    for row in result.rows:
        one = row.explained[place]
        region = region_of(item, one)
        images = tuple(_drawn(one, name, region) for name in ("", *result.maps))
        apart = disagreement(compared(one))
        scores = tuple(_told(row.each[place], name) for name in result.maps) if row.each else ()
        models.append(ShownModel(row.label, one.answer, one.probability, one.is_right, apart, images, scores))
    return ShownQuestion(item.task, item.sample.question, item.sample.answer, tuple(models))


def _told(scores: Mapping[Key, float], name: str) -> str:
    """Returns what a map scores on one question: "hit, 62 % inside, +8"; without a region the last alone."""
    told = []
    if (name, "pointing") in scores:
        told += ["hit" if scores[name, "pointing"] == 1 else "miss" if scores[name, "pointing"] == 0 else "tie"]
        told += [f"{100 * scores[name, 'energy']:.0f} % inside"]
    if (name, "beyond_random") in scores:
        points = round(100 * scores[name, "beyond_random"])
        told += [f"{points:+d}" if points else "0"]
    return ", ".join(told)


def _drawn(one: Any, name: str, region: np.ndarray | None) -> str:
    """Returns an image, or a map over it in gray with its highest token, with the region's outline, as base64."""
    assert one.grid is not None
    picture = Image.fromarray(one.image).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    if name:
        picture = _heated(picture, one.maps[name].reshape(one.grid))
    down, across = one.grid
    pen = ImageDraw.Draw(picture)
    if region is not None:
        _outline(pen, region.reshape(one.grid))
    if name:
        row, column = divmod(int(one.maps[name].argmax()), across)
        x, y = (column + 0.5) * SIDE / across, (row + 0.5) * SIDE / down
        for color, width in (("#000000", 3), (TOP, 1)):
            for dy in (3, -3):
                pen.line((x - 3, y - dy, x + 3, y + dy), fill=color, width=width)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=70, method=4)
    return base64.b64encode(stream.getvalue()).decode()


def _heated(picture: Image.Image, values: np.ndarray) -> Image.Image:
    """Returns an image in gray under a map's positive part, more opaque where that is higher."""
    from matplotlib import colormaps

    positive = np.clip(values, 0, None)
    heat = positive / positive.max() if positive.any() else positive
    # float64 would be an image mode that Pillow does not resize.
    large = np.asarray(Image.fromarray(heat.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    gray = np.asarray(picture.convert("L"), dtype=float)[..., None]
    opacity = (0.25 + 0.6 * large)[..., None]
    mixed = (1 - opacity) * gray + opacity * 255 * colormaps["inferno"](large)[..., :3]
    return Image.fromarray(mixed.round().astype(np.uint8))


def _outline(pen: ImageDraw.ImageDraw, region: np.ndarray) -> None:
    """Draws the edges between tokens inside and outside a region."""
    down, across = region.shape
    padded, high, wide = np.pad(region, 1), (SIDE - 1) / down, (SIDE - 1) / across
    for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        pen.line((column * wide, row * high, (column + 1) * wide, row * high), fill=REGION)
    for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        pen.line((column * wide, row * high, column * wide, (row + 1) * high), fill=REGION)
