"""Captions: what is in the image? Scored by CIDEr (an example, on generated scenes)

60 scenes of colored shapes with two reference captions each. CIDEr is that of pycocoevalcap (`pip install
'mmpt-bench[captions]'`): its weights depend on all references, so that it has no interval and no place. `--data DIR`
reads your own rows in the form of COCO captions on the hub: image, captions (a list of texts).
`mmpt-bench check examples/captions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import mmpt_bench as mb
from mmpt_bench.embedded import statements, suite, world

QUESTION = "describe the image ."


def rows() -> mb.Rows:
    """Returns 60 scenes, each with its objects named row by row and in the opposite order."""
    rng, made = np.random.default_rng(0), []
    for _ in range(60):
        scene = world.random_scene(rng, (2, 3, 4), "evaluation")
        named = [
            f"{statements.article(statements.phrase(thing, ('size', 'texture', 'color')))} "
            f"in the {world.CELLS[thing.cell]}"
            for thing in scene.things
        ]
        captions = [" , ".join(named), " , ".join(reversed(named))]
        made.append({"image": suite.show(scene), "captions": captions})
    return mb.Rows(made, (), fingerprint="captions, version 1", origin="60 generated scenes", suite="embedded")


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample; no choices make it an open question."""
    captions = mb.read_texts(row, "captions")
    return mb.Sample(
        id=str(number),
        image=mb.read_image(row["image"], f"captions/{number}", str(number)),
        question=QUESTION,
        choices=(),
        answer=captions[0],
        references=captions,
        cluster=str(number),
    )


TASK = mb.Task(
    name="captions",
    title="Captions",
    data=mb.Dataset(
        hub="owner/name on the hub",
        revision="the 40 digits of a commit",
        columns=("image", "captions"),
        make_rows=rows,
    ),
    headline="cider",
    sample=sample,
    metric=mb.FunctionMetric({"cider": mb.cider(), "anls": mb.MeanOf(mb.anls)}),
    parse=mb.read_open,
    rule="plain",
    decode="generate",
    max_new_tokens=60,
    version=1,
    metric_names=("anls",),
)
