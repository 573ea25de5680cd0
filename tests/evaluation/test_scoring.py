"""What of a record follows from its predictions, worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest

from mmpt_bench.data.samples import Prediction
from mmpt_bench.evaluation.scoring import scored
from support.synthetic import samples, task

TASK = task(decode="generate", parse=lambda reply, choices: reply if reply in choices else None)


@pytest.mark.parametrize(
    ("same", "is_degenerate"), [(1000, True), (995, True), (991, True), (990, False), (980, False), (500, False)]
)
def test_answers_of_which_more_than_99_percent_are_one_are_degenerate(same: int, is_degenerate: bool) -> None:
    asked = samples(1000)
    said = ["yes"] * same + ["no"] * (1000 - same)
    made = [Prediction(s.id, text, text, text, (0.0, -1.0)) for s, text in zip(asked, said, strict=True)]
    assert scored(TASK, asked, made)["degenerate"] is is_degenerate


def test_one_answer_is_not_degenerate_where_it_is_the_right_one_to_nearly_all() -> None:
    asked = [dataclasses.replace(s, answer="yes") for s in samples(1000)]
    made = [Prediction(s.id, "yes", "yes", "yes", (0.0, -1.0)) for s in asked]
    assert scored(TASK, asked, made)["degenerate"] is False
