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


def test_the_fields_of_a_record_by_hand() -> None:
    asked = samples(8, per_picture=2)
    said = ["yes", "no", "yes", "yes", "maybe", "no", "yes", "no"]
    best = ["yes"] * 8
    rows = zip(asked, said, best, strict=True)
    made = [Prediction(s.id, text, text if text in s.choices else None, top, (0.0, -1.0)) for s, text, top in rows]
    found = scored(TASK, asked, made)
    assert (found["n"], found["n_pictures"], found["decode"], found["headline"]) == (8, 4, "generate", "accuracy")
    # The right answers are yes and no in turn: the fourth and the fifth reply are wrong.
    assert (found["score"], found["strict"], found["constrained"]) == (6 / 8, 6 / 8, 4 / 8)
    assert (found["chance"], found["ceiling"], found["degenerate"]) == (0.5, 1.0, False)
    assert found["values"]["accuracy"] == 6 / 8
    assert (found["parsed_choices"], found["ranked_choices"]) == ("0100-101", "00000000")
    assert (found["n_unparsed"], found["n_reasoning"], found["n_unfinished"]) == (1, 0, 0)
    low, high = found["interval"]
    assert 0.25 <= low < 0.75 < high <= 1
    with pytest.raises(ValueError, match="not of the same questions"):
        scored(TASK, asked, made[::-1])
