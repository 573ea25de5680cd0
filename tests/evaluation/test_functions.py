"""Metrics of functions and what they declare: worked out by hand, and by published packages where they are here."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmpt_bench as mb
from mmpt_bench.common.errors import RunFailed, UntrustedRecord
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.evaluation.check_task import check_task
from mmpt_bench.evaluation.counting import choices_from, choices_text
from mmpt_bench.evaluation.functions import FunctionMetric, MeanOf, WholeOf
from mmpt_bench.evaluation.metrics import Declared, MMEMetric
from mmpt_bench.evaluation.open_answers import anls, edit_distance, exact_match, normalized, read_open
from mmpt_bench.evaluation.scoring import centred_score, scored
from support.synthetic import task as made_task

PICTURE = LazyImage("p", lambda: Image.new("RGB", (2, 2)))
ASKED = [
    Sample("0", PICTURE, "?", (), "two", "how", "a", references=("two", "2")),
    Sample("1", PICTURE, "?", (), "red", "what", "a"),
    Sample("2", PICTURE, "?", (), "Palo Alto", "what", "b"),
]
SAID = ["2 .", "rde", "palo alto"]


def length(samples: Sequence[Sample], answers: Sequence[str | None]) -> float:
    return float(sum(len(answer or "") for answer in answers))


def open_task(**scores: MeanOf | WholeOf) -> mb.Task:
    metric = FunctionMetric(scores)
    headline = next(iter(scores))
    changes = {"metric": metric, "headline": headline, "unit": "", "parse": read_open, "decode": "generate"}
    return dataclasses.replace(made_task(), **changes)


def predictions(said: Sequence[str]) -> list[Prediction]:
    return [Prediction(s.id, text, read_open(text), None, ()) for s, text in zip(ASKED, said, strict=True)]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        # Worked through vqaEval.py: punctuation, then number words and articles.
        ("The two dogs.", "2 dogs"),
        ("1,000", "1000"),
        ("black-white", "black white"),
        ("black - white", "black white"),
        ("3.5 m.", "3.5 m"),
        ("don't", "dont"),
        ("NONE", "0"),
        ("a an the", ""),
        ("yes!", "yes"),
        ("what?no", "what no"),
    ],
)
def test_answers_are_normalized_as_vqa_does(answer: str, said: str) -> None:
    assert normalized(answer) == said


@pytest.mark.parametrize(
    ("said", "accepted", "score"),
    [
        ("kitten", ("sitting",), 1 - 3 / 7),  # the textbook's distance: 3
        ("Palo  alto", ("palo alto",), 1.0),
        ("abcd", ("abxy",), 0.0),  # a distance of one half is no longer below the threshold
        ("abcde", ("abcxy",), 1 - 2 / 5),
        ("red", ("blue", "rad"), 1 - 1 / 3),  # the nearest of several
        (None, ("red",), 0.0),
    ],
)
def test_anls_by_hand(said: str | None, accepted: tuple[str, ...], score: float) -> None:
    assert anls(Sample("0", PICTURE, "?", (), accepted[0], references=accepted), said) == pytest.approx(
        score, abs=1e-15
    )


def test_distances_and_similarities_are_those_of_published_packages() -> None:
    rapidfuzz = pytest.importorskip("rapidfuzz", reason="rapidfuzz is not installed")
    draw = random.Random(0)
    for _ in range(300):
        first, second = ("".join(draw.choices("abc d", k=draw.randint(0, 9))) for _ in range(2))
        theirs = rapidfuzz.distance.Levenshtein.distance(first, second)
        assert edit_distance(first, second) == theirs


def test_a_records_fields_of_open_answers_by_hand() -> None:
    task = open_task(exact_match=MeanOf(exact_match), anls=MeanOf(anls))
    found = scored(task, ASKED, predictions(SAID))
    assert (found["score"], found["strict"], found["constrained"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3), None)
    # "2 ." is one insertion of two beside "2" (2/3 off: 0); "rde" is two of three off; the third is right.
    assert found["values"]["anls"] == pytest.approx(1 / 3)
    assert (found["values"]["exact_match/how"], found["values"]["exact_match/what"]) == (1.0, 0.5)
    assert (found["chance"], found["ceiling"], found["n"], found["n_pictures"]) == (0.0, 1.0, 3, 2)
    assert (found["parsed_choices"], found["ranked_choices"]) == ('["2 .","rde","palo alto"]', "")
    assert choices_from(ASKED, found["parsed_choices"]) == SAID
    low, high = found["interval"]
    # Two images: both draws of the first give 1/2, of the second 1.
    assert (low, high) == (0.5, 1.0)
    assert centred_score(task, ASKED, predictions(SAID)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("text", ["", "[1,2,3]", '["a"]', "{}", '["a","b","c"'])
def test_open_answers_that_do_not_fit_their_samples_are_refused(text: str) -> None:
    with pytest.raises(UntrustedRecord):
        choices_from(ASKED, text)
    assert choices_from(ASKED, choices_text(ASKED, ["a", None, "ü"])) == ["a", None, "ü"]


def test_a_number_of_the_whole_set_has_a_value_and_no_interval() -> None:
    task = open_task(length=WholeOf(length, Declared("points", high=100.0, resampled=False)))
    found = scored(task, ASKED, predictions(SAID))
    assert (found["score"], found["interval"], found["ceiling"]) == (15.0, None, 100.0)
    tally = task.metric.tally(ASKED, SAID)
    assert np.isnan(tally.counts[:, tally.columns.index("length")]).all()
    with pytest.raises(ValueError, match="resampled=False"):
        WholeOf(length, Declared())


@pytest.mark.parametrize(("value", "told"), [(1.5, "1.5"), (-0.1, "-0.1"), (nan, "nan")])
def test_a_value_outside_the_declared_range_fails_with_the_metrics_name(value: float, told: str) -> None:
    for task in (
        open_task(odd=MeanOf(lambda sample, answer: value)),
        open_task(odd=WholeOf(lambda samples, answers: value)),
    ):
        with pytest.raises(RunFailed, match=r"`odd` .*declared range 0 to 1"):
            scored(task, ASKED, predictions(SAID))
    assert told


def test_mme_declares_points_of_its_parts_and_shares() -> None:
    declared = MMEMetric().declared
    most = {name: declared(name).high for name in ("total", "perception", "cognition", "score/OCR")}
    assert most == {"total": 2800, "perception": 2000, "cognition": 800, "score/OCR": 200}
    assert declared("total").unit == "points"
    assert declared("acc_plus/OCR") == Declared("fraction", 0, 1)


def test_a_task_whose_unit_is_not_the_metrics_is_refused() -> None:
    with pytest.raises(ValueError, match="declares `accuracy` in fraction, and the task says `points`"):
        dataclasses.replace(made_task(), unit="points")


def test_an_open_task_that_ranks_or_mixes_does_not_pass() -> None:
    task = open_task(exact_match=MeanOf(exact_match))
    rows = [{"number": number} for number in range(3)]
    task = dataclasses.replace(task, sample=lambda row, number, names: ASKED[number])
    failed = {result.name for result in check_task(dataclasses.replace(task, decode="rank"), rows) if not result.ok}
    assert "answers are among the choices" in failed
    odd = dataclasses.replace(task, metric=FunctionMetric({"exact_match": MeanOf(lambda s, a: 2 * exact_match(s, a))}))
    failed = {result.name: result.detail for result in check_task(odd, rows) if not result.ok}
    assert "declared range 0 to 1" in failed["all right scores the ceiling"]


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({}, "one score or more"),
        ({"asked": MeanOf(exact_match)}, "cannot name a score"),
        ({"a|b": MeanOf(exact_match)}, "cannot name a score"),
        ({"c/d": MeanOf(exact_match)}, "cannot name a score"),
        ({"words": length}, r"is function: write `mb.MeanOf\(...\)`"),
    ],
)
def test_scores_that_can_be_none_are_refused(scores: dict[str, MeanOf], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        FunctionMetric(scores)


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (("percent", 0.0, 100.0), "the unit of a score"),
        (("points", 0.0, float("inf")), "both finite"),
        (("points", 1.0, 1.0), "both finite"),
        (("points", nan, 1.0), "both finite"),
    ],
)
def test_a_range_or_a_unit_that_can_be_none_is_refused(declared: tuple[Any, float, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Declared(*declared)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"title": ""}, "a title of 1 to 80 characters"),
        ({"title": "x" * 81}, "a title of 1 to 80 characters"),
        ({"version": "1"}, "`version` is a whole number"),
        ({"max_new_tokens": 0}, "`max_new_tokens` is a whole number"),
        ({"decode": "guess"}, "`decode` is"),
        ({"headline": "exact_mach"}, "no score `exact_mach`, only `exact`"),
    ],
)
def test_a_task_that_no_result_could_hold_is_refused(change: dict[str, Any], told: str) -> None:
    task = open_task(exact=MeanOf(exact_match))
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(task, **change)


def test_a_whole_number_of_the_set_is_held_to_its_range() -> None:
    task = open_task(length=WholeOf(lambda samples, answers: nan, Declared("points", high=9.0, resampled=False)))
    with pytest.raises(RunFailed, match="`length` is nan, outside its declared range 0 to 9"):
        scored(task, ASKED, predictions(SAID))


def test_a_sample_is_of_its_image_and_has_several_texts() -> None:
    assert Sample("0", PICTURE, "?", (), "two").cluster == PICTURE.key
    with pytest.raises(ValueError, match="`references` is one text"):
        Sample("0", PICTURE, "?", (), "two", references="two")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`choices` is one text"):
        Sample("0", PICTURE, "?", "AB", "A")  # type: ignore[arg-type]
