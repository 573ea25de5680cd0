"""Open answers: what color, how many, where? Scored by exact match and ANLS (an example, on generated scenes)

120 questions on 60 scenes of colored shapes, without options: the reply is held to reference answers. Exact match
normalizes both as VQA's evaluation does (Antol et al. 2015, arXiv:1505.00468); ANLS forgives a misspelt word (Biten et
al. 2019, arXiv:1905.13648). `--data DIR` reads your own rows in the form of DocVQA and VQAv2 on the hub: image,
question, answers (a list of texts). `mmpt-bench check examples/open_answers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import mmpt_bench as mb
from mmpt_bench.embedded import statements, suite, world

NUMBERS = {word: str(number) for number, word in enumerate(statements.NUMBERS)}


def rows() -> mb.Rows:
    """Returns two questions about each of 60 scenes: the color, the number or the place of a shape."""
    rng, made = np.random.default_rng(0), []
    while len(made) < 120:
        scene = world.random_scene(rng, (2, 3, 4), "evaluation")
        named = [(name, thing) for name, thing in statements.single_out(scene, rng) if " " not in name]
        if not named:
            continue
        name, thing = named[0]
        shape = str(rng.choice([each.shape for each in scene.things]))
        number = statements.NUMBERS[len(statements.matches(scene, shape))]
        place = world.CELLS[thing.cell]
        asked = (
            (f"in a word : what color is the {name} ?", [thing.color]),
            (f"in a word : how many {statements.plural(shape)} are there ?", [number, NUMBERS[number]]),
            (f"in a word : where is the {name} ?", [place, f"in the {place}", f"the {place}"]),
        )
        for turn in (len(made), len(made) + 2):
            question, answers = asked[turn // 2 % 3]
            row = {"image": suite.show(scene), "question": question, "answers": answers}
            made.append(row | {"scene": len(made) // 2, "kind": ("color", "number", "place")[turn // 2 % 3]})
    return mb.Rows(made, (), fingerprint="open answers, version 1", origin="60 generated scenes", suite="embedded")


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample; no choices make it an open question."""
    answers = mb.read_texts(row, "answers")
    # Of rows from files, every image stands for itself: nothing says which of them are the same.
    image = f"scene {row['scene']}" if "scene" in row else f"row {number}"
    return mb.Sample(
        id=str(number),
        image=mb.read_image(row["image"], f"open_answers/{image}", str(number)),
        question=mb.read_text(row, "question"),
        choices=(),
        answer=answers[0],
        references=answers,
        group=row.get("kind", ""),
        cluster=image,
    )


TASK = mb.Task(
    name="open_answers",
    title="Open answers",
    data=mb.Dataset(
        hub="owner/name on the hub",
        revision="the 40 digits of a commit",
        columns=("image", "question", "answers"),
        make_rows=rows,
    ),
    headline="exact_match",
    sample=sample,
    metric=mb.FunctionMetric({"exact_match": mb.MeanOf(mb.exact_match), "anls": mb.MeanOf(mb.anls)}),
    parse=mb.read_open,
    rule="plain",
    decode="generate",
    max_new_tokens=12,
    version=1,
    metric_names=("anls",),
)
