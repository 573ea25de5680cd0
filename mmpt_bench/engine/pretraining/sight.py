"""The eyes before the words: what is in each cell of a scene, and the losses that teach to see and to name it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmpt_bench.embedded import world
from mmpt_bench.embedded.world import Scene, Thing
from mmpt_bench.engine.pretraining.model import IMAGE_TOKENS, PATCH
from mmpt_bench.engine.pretraining.packing import pixels_of
from mmpt_bench.engine.pretraining.strangers import with_strangers

CELLS = {
    "shape": len(world.SHAPES) + 1,
    "color": len(world.COLOR_NAMES),
    "size": len(world.SIZES),
    "texture": len(world.TEXTURES),
    "glyph": len(world.GLYPHS) + 1,
}
"""Classes of what is in a cell; the last shape and glyph are none."""
WHOLES = {"whole_shape": len(world.SHAPES), "whole_color": len(world.COLOR_NAMES), "digit": len(world.DIGITS)}
"""Classes of what fills an image."""
_PATCH_ROWS, _PATCH_COLUMNS = np.divmod(np.arange(IMAGE_TOKENS), world.SIDE // PATCH)
CELL_OF_TOKEN = 3 * (_PATCH_ROWS * PATCH // world.CELL) + _PATCH_COLUMNS * PATCH // world.CELL
"""The cell, 0..8, that each image token lies in: every token of a cell is to tell what is in all of it."""
PLACES = 3.0
"""Weight of where a cell is, which a tower that is only asked what is in it half forgets."""
PRICE = 5e-4
"""Of a projected patch's squared length: without it, what is easy grows until what is hard is lost beside it."""


def features(model: Any, pixels: Tensor) -> Tensor:
    """Returns what the projector is given, (images, 36, width): the last block's patch states."""
    return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]


class CellHeads(nn.ModuleDict):
    """What the first stage asks of the vision tower, by linear heads that are thrown away afterwards."""

    def __init__(self, width: int) -> None:
        super().__init__({name: nn.Linear(width, n) for name, n in (CELLS | WHOLES).items()})

    def loss(self, features: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Returns (summed cross-entropy, accuracies) of features (images, 36, width)."""
        total, right = features.new_zeros(()), {}
        pooled = features.mean(1)
        for name, head in self.items():
            target = targets[name]
            logits = head(pooled if name in WHOLES else features).flatten(0, -2)
            known = target.flatten() >= 0
            if known.any():
                total = total + cross_entropy(logits[known], target.flatten()[known])
                right[name] = (logits[known].argmax(-1) == target.flatten()[known]).float().mean().item()
        return total, right


def naming_loss(model: Any, vocabulary: dict[str, int], pixels: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """Returns how badly projected patches name what is in their cell: cross-entropy over the embeddings of words."""
    said = model.model.multi_modal_projector(features(model, pixels))
    table = model.get_input_embeddings().weight
    cells = torch.from_numpy(CELL_OF_TOKEN).expand(len(pixels), -1)
    shapes, glyphs = targets["shape"], targets["glyph"]
    # Where no shape is, a glyph or nothing is, and these are counted on from the shapes.
    what = torch.where(shapes == len(world.SHAPES), len(world.SHAPES) + glyphs, shapes)
    groups = (
        (1, said, (*world.SHAPES, *world.GLYPHS, "nothing"), what),
        (1, said, world.COLOR_NAMES, targets["color"]),
        (1, said, world.SIZES, targets["size"]),
        (1, said, world.TEXTURES, targets["texture"]),
        (PLACES, said, world.ROWS, cells // 3),
        (PLACES, said, world.COLUMNS, cells % 3),
        (1, said.mean(1), world.SHAPES, targets["whole_shape"]),
        (1, said.mean(1), world.COLOR_NAMES, targets["whole_color"]),
        (1, said.mean(1), world.DIGITS, targets["digit"]),
    )
    total = PRICE * said.square().sum(-1).mean()
    for weight, vectors, names, target in groups:
        logits = (vectors @ table[[vocabulary[name] for name in names]].T).flatten(0, -2)
        known = target.flatten() >= 0
        total = total + weight * cross_entropy(logits[known], target.flatten()[known])
    return total


def cell_batch(rng: np.random.Generator, n: int, noise: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns images (n, 3, 48, 48) and what the cell of each token, or the whole, is; -1 where nothing is asked.

    Args:
        noise: mean of the grain's standard deviation, which differs from batch to batch.
    """
    scenes = [_random_scene(rng, kind) for kind in rng.choice(4, n, p=(0.48, 0.16, 0.18, 0.18))]
    scenes = [with_strangers(scene, rng) for scene in scenes]
    cells, wholes = {name: np.full((n, 9), -1) for name in CELLS}, {name: np.full(n, -1) for name in WHOLES}
    for i, scene in enumerate(scenes):
        if scene.big is not None:
            wholes["whole_shape"][i], wholes["whole_color"][i] = _shape(scene.big), _color(scene.big)
        elif scene.digit_row is not None:
            wholes["digit"][i] = world.digit_label(scene.digit_row)
        else:
            cells["shape"][i], cells["glyph"][i] = len(world.SHAPES), len(world.GLYPHS)
        for thing in scene.things:
            cells["shape"][i, thing.cell] = _shape(thing)
            cells["color"][i, thing.cell] = _color(thing)
            cells["size"][i, thing.cell] = world.SIZES.index(thing.size)
            cells["texture"][i, thing.cell] = world.TEXTURES.index(thing.texture)
        for cell, glyph in scene.glyphs:
            cells["glyph"][i, cell] = world.GLYPHS.index(glyph)
    cells = {name: array[:, CELL_OF_TOKEN] for name, array in cells.items()}
    targets = {name: torch.from_numpy(array) for name, array in (cells | wholes).items()}
    return pixels_of(scenes, rng, noise * rng.uniform(0, 2)), targets


def _random_scene(rng: np.random.Generator, kind: int) -> Scene:
    """Returns a scene of objects, letters or a sum, one big object, or one digit."""
    if kind == 0:
        return world.random_scene(rng, (2, 3, 4))
    if kind == 1:
        return world.random_text(rng, bool(rng.random() < 0.4))
    return world.random_big(rng) if kind == 2 else world.random_digit(rng, "pretrain")


def _shape(thing: Thing) -> int:
    return -1 if thing.shape in world.BLOBS else world.SHAPES.index(thing.shape)


def _color(thing: Thing) -> int:
    return -1 if thing.tint else world.COLOR_NAMES.index(thing.color)
