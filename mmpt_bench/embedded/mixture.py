"""The mixture that methods are tuned on: scenes of the shifted world, each with one of the questions that it allows."""

from __future__ import annotations

import functools

import numpy as np

from mmpt_bench.common.hashing import derive
from mmpt_bench.data.examples import Corpus, Example
from mmpt_bench.data.images import LazyImage
from mmpt_bench.embedded import language, statements, suite, world
from mmpt_bench.embedded.language import Asked
from mmpt_bench.embedded.world import Scene

ASKED_OF_THINGS = (
    *statements.SKILLS, *statements.SKILLS, "relation", "neutral",
    "?count", "?color", "?location", "?at", *["?caption"] * 8,
)  # fmt: skip
"""What the tuning mixture asks about a scene of objects, each as often as it stands here."""
CORPUS_SIZE, VALIDATION_SIZE = 20_000, 384
MIX = {"things": 0.52, "text": 0.13, "sum": 0.13, "big": 0.10, "digit": 0.12}
"""Shares of the kinds of scene in the tuning mixture, which rehearses every skill in the shifted world."""


def tuning_corpus() -> Corpus:
    """Returns the mixture: chat form, short answers, wordings and combinations that evaluation does not use."""
    return Corpus(
        name="embedded",
        fingerprint=suite.fingerprint("tuning"),
        size=CORPUS_SIZE,
        example=functools.partial(_example, "train"),
        validation_size=VALIDATION_SIZE,
        validation=functools.partial(_example, "validation"),
    )


def _example(part: str, index: int) -> Example:
    """Returns one example of "train" or "validation": a scene, and one of the questions that it allows."""
    scene, asked = tuning_question(part, index)
    return Example(LazyImage(f"embedded/{part}/{index}", lambda: suite.show(scene)), asked.question, asked.answer)


def tuning_question(part: str, index: int) -> tuple[Scene, Asked]:
    """Returns the scene and the question of a tuning or validation example."""
    rng = np.random.default_rng([derive(suite.VERSION, f"tuning/{part}"), index])
    own = "tune" if part == "train" else part
    while True:
        kind = str(rng.choice(tuple(MIX), p=tuple(MIX.values())))
        if kind == "things":
            scene = world.random_scene(rng, (1, 2, 3, 4), own)
            found = language.ask_things(scene, rng, own, [str(rng.choice(ASKED_OF_THINGS))])
        else:
            scene = _other_scene(rng, kind, own)
            found = language.ASK["text" if kind == "sum" else kind](scene, rng, own)
        if found:
            return scene, found[int(rng.integers(len(found)))]


def _other_scene(rng: np.random.Generator, kind: str, part: str) -> Scene:
    if kind == "big":
        return world.random_big(rng, part)
    if kind == "digit":
        return world.random_digit(rng, part, suite.HASTE)
    return world.random_text(rng, sums=kind == "sum", part=part)
