"""A task whose score does not follow from sums over images stands on the board without interval, place and share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mmpt_bench.board.from_records import boards
from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.samples import Prediction
from mmpt_bench.evaluation.functions import FunctionMetric, MeanOf, WholeOf
from mmpt_bench.evaluation.metrics import Declared
from mmpt_bench.evaluation.scoring import scored
from mmpt_bench.study.comparisons.compare import answer_to
from support.synthetic import keep, recipe, record, samples, store_in, task


def test_a_number_of_the_whole_set_is_shown_and_not_ranked(tmp_path: Path) -> None:
    whole = WholeOf(
        lambda asked, said: float(sum(a == s.answer for s, a in zip(asked, said, strict=True))),
        Declared("points", high=40.0, resampled=False),
    )
    metric = FunctionMetric({"hits": whole, "hit": MeanOf(lambda sample, said: float(said == sample.answer))})
    colours, shapes, odd = (
        task(),
        task("shapes", "Shapes"),
        task("odd", "Odd", metric=metric, headline="hits", parse=lambda reply, choices: reply or None),
    )
    store, asked = store_in(tmp_path), samples(40)
    for method, right in (("lora", "1110"), ("mmpt", "10")):
        for seed in (0, 1):
            for each in (colours, shapes):
                keep(store, record(store, each, asked, right, recipe(method, seed)))
            marks = [s.answer if right[i % len(right)] == "1" else None for i, s in enumerate(asked)]
            said = [
                Prediction(s.id, m or "", m, m or s.choices[0], (0.0, 0.0)) for s, m in zip(asked, marks, strict=True)
            ]
            fields = scored(odd, asked, said) | {"decode": "generate"}
            like = record(store, colours, asked, right, recipe(method, seed))
            keep(store, dataclasses.replace(like, **fields, task="odd", eval_key=f"{method}{seed}"))
    tasks = {"colours": colours, "shapes": shapes, "odd": odd}
    (board,) = boards(store, tasks, 200)
    column = next(each for each in board.columns if each.task == "odd")
    assert (column.counts, column.unit, column.resampled) == (False, "points", False)
    assert any(
        note.startswith("Odd has no interval, no place and no part in the overall score") for note in board.notes
    )
    by_label = {row.label: row for row in board.rows}
    cells = {label: row.cells["odd"] for label, row in by_label.items()}
    assert {label: cell.score for label, cell in cells.items()} == {"lora": 30.0, "mmpt": 20.0}
    assert [(cell.interval, cell.place) for cell in cells.values()] == [(None, None), (None, None)]
    # Two answers are as good as a coin: (.75 - .5) / .5 of the two tasks that count.
    assert by_label["lora"].overall == 0.5
    # A comparison has the same mean: it is not lost, and not of one task alone.
    told = answer_to(store, ["lora", "mmpt"], tasks, n_resamples=200)
    assert [each.tasks for each in told.contrasts] == [("colours", "shapes"), ("colours",), ("shapes",)]
    assert told.contrasts[0].difference.estimate == 0.5
    assert "on the mean of 2 tasks" in told.sentence
    with pytest.raises(RequestError, match="`hits` of Odd has no interval"):
        answer_to(store, ["lora", "mmpt"], tasks, only=["odd"], n_resamples=200)
