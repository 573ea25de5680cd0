"""What the eyes are shown and the words never name: shapes in colours without a name, colours on forms without one.

A tower that sees each shape in its own few colours only learns them together: the third base named 99 % of the big
objects in combinations that it had seen and 52 % in those it had not (docs/decisions/0010). Shapes in any colour, and
colours on any form, make the two independent, and show no combination that is held out for evaluation.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mmpt_bench.embedded import world
from mmpt_bench.embedded.world import Scene, Thing

APART = 75.0
"""Least distance of an unnamed colour from every named one, in steps of 0..255 over red, green and blue."""
SHARE = 0.6
"""Of the scenes that hold strangers at all."""
TINTED, BLOBBED = 0.5, 0.2
"""Shares of the things of such a scene that are tinted, and that have a form without a name."""


def with_strangers(scene: Scene, rng: np.random.Generator) -> Scene:
    """Returns the scene with some of its things made strange, or as it is."""
    if rng.random() >= SHARE:
        return scene
    things = tuple(_strange(thing, rng) for thing in scene.things)
    return dataclasses.replace(scene, things=things, big=None if scene.big is None else _strange(scene.big, rng))


def unnamed_color(rng: np.random.Generator) -> tuple[int, int, int]:
    """Returns red, green and blue of a colour that is no named one."""
    named = np.asarray(list(world.COLORS.values()))
    while True:
        color = rng.integers(0, 256, 3)
        if np.sqrt(((named - color) ** 2).sum(1)).min() >= APART:
            return int(color[0]), int(color[1]), int(color[2])


def _strange(thing: Thing, rng: np.random.Generator) -> Thing:
    kind = rng.random()
    if kind < TINTED:
        return dataclasses.replace(thing, tint=unnamed_color(rng))
    if kind < TINTED + BLOBBED:
        form = str(rng.choice(world.BLOBS))
        return dataclasses.replace(thing, shape=form, color=str(rng.choice(world.COLOR_NAMES)))
    return thing
