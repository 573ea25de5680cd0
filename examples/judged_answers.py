"""Judged answers: what color, where? Graded by a local model (an example, on generated scenes)

80 questions on 80 scenes of colored shapes, without options. A judge says whether a reply is right by the accepted
answers; exact match stands beside it, and `mmpt-bench judged` tells how often the two agree. The judge here is the
embedded model, so that the file runs offline. **It is a poor judge**: it knows 344 words and never learnt to judge.
Name a model of your own, as in `mb.Judge("Qwen/Qwen2.5-7B-Instruct", dtype="bfloat16")`. `--data DIR` reads your own
rows in the form of VQAv2 on the hub: image, question, answers (a list of texts).
`mmpt-bench check examples/judged_answers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import mmpt_bench as mb
from mmpt_bench.embedded import statements, suite, world


def rows() -> mb.Rows:
    """Returns a question about each of 80 scenes: the color or the place of a shape."""
    rng, made = np.random.default_rng(1), []
    while len(made) < 80:
        scene = world.random_scene(rng, (2, 3, 4), "evaluation")
        named = [(name, thing) for name, thing in statements.single_out(scene, rng) if " " not in name]
        if not named:
            continue
        name, thing = named[0]
        place = world.CELLS[thing.cell]
        question, answers = (
            (f"in a word : what color is the {name} ?", [thing.color]),
            (f"in a word : where is the {name} ?", [place, f"in the {place}"]),
        )[len(made) % 2]
        made.append({"image": suite.show(scene), "question": question, "answers": answers})
    return mb.Rows(made, (), fingerprint="judged answers, version 1", origin="80 generated scenes", suite="embedded")


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample; no choices make it an open question."""
    answers = mb.read_texts(row, "answers")
    return mb.Sample(
        id=str(number),
        image=mb.read_image(row["image"], f"judged_answers/{number}", str(number)),
        question=mb.read_text(row, "question"),
        choices=(),
        answer=answers[0],
        references=answers,
        cluster=str(number),
    )


TASK = mb.Task(
    name="judged_answers",
    title="Judged answers",
    data=mb.Dataset(
        hub="owner/name on the hub",
        revision="the 40 digits of a commit",
        columns=("image", "question", "answers"),
        make_rows=rows,
    ),
    headline="judged",
    sample=sample,
    metric=mb.FunctionMetric({"judged": mb.Judge("embedded"), "exact_match": mb.MeanOf(mb.exact_match)}),
    parse=mb.read_open,
    rule="plain",
    decode="generate",
    max_new_tokens=12,
    version=1,
    metric_names=("exact_match",),
)
