"""Two images a question: do both show the same shape? (an example, on generated scenes)

72 questions about pairs of scenes with one big object each, half of them with the same shape; both images stand before
the question, in order. Intervals resample clusters: here the pair, as no image stands in two pairs. Pairs that share an
image must share a cluster. `mmpt-bench check examples/several_images.py`; `--method mmpt` needs
`--set mmpt.interaction=false`, which joins one image with the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import mmpt_bench as mb
from mmpt_bench.embedded import suite, world

CHOICES = ("yes", "no")
QUESTION = "do both images show the same shape ?"


def rows() -> mb.Rows:
    """Returns pairs of scenes: the same shape and another one in turn."""
    rng, made = np.random.default_rng(0), []
    scenes = [world.random_big(rng, "evaluation") for _ in range(400)]
    while len(made) < 72:
        first = scenes.pop()
        wanted = len(made) % 2 == 0
        second = next(each for each in scenes if (_shape(each) == _shape(first)) is wanted)
        scenes.remove(second)
        images = [suite.show(first), suite.show(second)]
        made.append({"image": images[0], "second": images[1], "answer": CHOICES[not wanted]})
    return mb.Rows(made, (), fingerprint="several images, version 1", origin="72 pairs of scenes", suite="embedded")


def _shape(scene: world.Scene) -> str:
    assert scene.big is not None
    return scene.big.shape


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample: the first image, and those after it."""
    first, second = (
        mb.read_image(row.get(column), f"several_images/{number}/{column}", str(number), column)
        for column in ("image", "second")
    )
    return mb.Sample(
        id=str(number),
        image=first,
        more_images=(second,),
        question=QUESTION,
        choices=CHOICES,
        answer=mb.read_choice(row, "answer", CHOICES),
        cluster=str(number),
    )


TASK = mb.Task(
    name="several_images",
    title="Several images",
    data=mb.Dataset(
        hub="owner/name on the hub",
        revision="the 40 digits of a commit",
        columns=("image", "second", "answer"),
        make_rows=rows,
    ),
    headline="accuracy",
    sample=sample,
    metric=mb.Accuracy(),
    parse=mb.read_reply,
    rule="plain",
    decode="rank",
    max_new_tokens=8,
    version=1,
)
