"""Judges and declared scores: prompts, readings, means over what could be read, worked out by hand."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from PIL import Image

import mmpt_bench as mb
from mmpt_bench.common.errors import RequestError, RunFailed, UntrustedRecord
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.evaluation.declared import declared_task
from mmpt_bench.evaluation.judge import verdict_key
from mmpt_bench.evaluation.open_answers import exact_match, read_open
from mmpt_bench.evaluation.scoring import scored
from support.synthetic import task as made_task

PICTURE = LazyImage("p", lambda: Image.new("RGB", (2, 2)))
ASKED = [
    Sample("0", PICTURE, "how many ?", (), "two", "how", "a", references=("two", "2")),
    Sample("1", PICTURE, "what ?", (), "red", "what", "a"),
    Sample("2", PICTURE, "where ?", (), "left", "what", "b"),
    Sample("3", PICTURE, "who ?", (), "ann", "what", "b"),
]


def judged_task(judge: mb.Judge, **more: mb.MeanOf) -> mb.Task:
    metric = mb.FunctionMetric({"judged": judge, **more})
    changes = {"metric": metric, "headline": "judged", "unit": "", "parse": read_open, "decode": "generate"}
    return dataclasses.replace(made_task(), **changes)


def said(*texts: str) -> list[Prediction]:
    return [Prediction(s.id, text, read_open(text), None, ()) for s, text in zip(ASKED, texts, strict=True)]


def test_a_prompt_holds_question_accepted_answers_and_reply() -> None:
    assert mb.Judge("m").asked(ASKED[0], "2 {x}").splitlines() == [
        "Question: how many ?",
        "Accepted answers: two; 2",
        "Answer of a model: 2 {x}",
        "By the accepted answers, is the model's answer right? Answer yes or no.",
    ]
    assert "from 0 (wrong) to 5 (right)" in mb.Judge("m", most=5).asked(ASKED[0], "2")


@pytest.mark.parametrize(
    ("most", "text", "grade"),
    [
        (1, "Yes.", 1.0),
        (1, "no , the ring is red .", 0.0),
        (1, "diamond .", None),
        (1, "", None),
        (1, "<think>it is right, yes", None),
        (5, "4", 4.0),
        (5, "Grade: 0", 0.0),
        (5, "9", None),
        (10, "10", 10.0),
        (10, "maybe", None),
    ],
)
def test_a_verdict_is_read_or_is_none(most: int, text: str, grade: float | None) -> None:
    assert mb.Judge("m", most=most).read(text) == grade


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": ""}, "needs a model"),
        ({"most": 0}, "`most` from 1 to 10"),
        ({"most": 11}, "`most` from 1 to 10"),
        ({"prompt": "{question} {reply}"}, "must hold {question}, {references}, {reply}"),
        ({"prompt": "{question} {references} {reply} {reply}"}, "each once"),
        ({"prompt": "{question"}, "is no form"),
    ],
)
def test_a_judge_that_can_be_none_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mb.Judge(**({"model": "m"} | given))
    with pytest.raises(ValueError, match=r"one `mb\.Judge` at most"):
        mb.FunctionMetric({"a": mb.Judge("m"), "b": mb.Judge("n")})


def test_the_setting_holds_what_decides_a_verdict_and_no_folder() -> None:
    setting = mb.Judge("/home/somebody/models/qwen", most=5).setting("abc")
    assert (setting["model"], setting["fingerprint"], setting["most"]) == ("qwen", "abc", 5)
    assert "somebody" not in json.dumps(setting)
    assert mb.Judge("owner/qwen@main").setting("abc")["model"] == "qwen"


def test_verdicts_are_of_question_references_image_and_reply() -> None:
    keys = {verdict_key(s, said) for s in ASKED for said in ("two", "red")}
    assert len(keys) == 8
    assert verdict_key(dataclasses.replace(ASKED[0], id="9"), "two") == verdict_key(ASKED[0], "two")


def test_an_unreadable_verdict_is_in_no_mean_and_is_counted() -> None:
    task = judged_task(mb.Judge("m"), exact_match=mb.MeanOf(exact_match))
    found = scored(task, ASKED, said("2", "blue", "left", ""), "f" * 8, [1.0, 0.0, None, 0.0])
    # Read are three verdicts, of which one is yes; the third is nobody's.
    assert (found["score"], found["strict"], found["constrained"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3), None)
    assert (found["n"], found["n_unjudged"], found["n_unparsed"]) == (4, 1, 1)
    assert found["values"]["judged/how"] == 1.0
    assert found["values"]["judged/what"] == 0.0
    assert found["values"]["exact_match"] == 0.5
    # Image a has 1 of 2, image b 0 of 1: draws (a, a), (a, b), (b, b) give 1/2, 1/3, 0.
    assert found["interval"] == (0.0, 0.5)
    assert json.loads(found["question_values"]) == {"judged": [1, 0, None, 0], "exact_match": [1, 0, 1, 0]}
    assert (found["declared"]["metric"], found["declared"]["judged"]) == ("functions", "judged")


def test_grades_are_points_of_the_judges_scale() -> None:
    found = scored(judged_task(mb.Judge("m", most=5)), ASKED, said("a", "b", "c", "d"), "", [5.0, 0.0, 3.0, 2.0])
    assert (found["score"], found["ceiling"], found["chance"]) == (2.5, 5.0, 0.0)
    assert found["declared"]["scores"]["judged"] == {"unit": "points", "low": 0.0, "high": 5.0, "resampled": True}


def test_without_a_verdict_that_can_be_read_the_task_fails() -> None:
    with pytest.raises(RunFailed, match="of 4 verdicts of the judge, none could be read"):
        scored(judged_task(mb.Judge("m")), ASKED, said("a", "b", "c", "d"), "", [None] * 4)


def test_a_task_whose_guessing_reaches_the_most_fails_with_the_reason() -> None:
    with pytest.raises(RunFailed, match="guessing gives 1, and the most that can be reached is 1"):
        scored(judged_task(mb.Judge("m", chance=1.0)), ASKED, said("a", "b", "c", "d"), "", [1.0] * 4)


def test_nothing_else_scores_in_place_of_a_judge() -> None:
    task = judged_task(mb.Judge("m"))
    with pytest.raises(RequestError, match="nothing asks the judge here"):
        scored(task, ASKED, said("2", "red", "left", "ann"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"judged":[1,0,1]}',
        '{"judged":[1,0,1,2]}',
        '{"judged":[1,0,1,"1"]}',
        '{"judged":[1,0,1,true]}',
        '{"judged":[1,0,1,NaN]}',
        '{"judged":[1,0,1,0],"other":[1,1,1,1]}',
    ],
)
def test_values_that_do_not_fit_their_declaration_are_refused(text: str) -> None:
    said_of = scored(judged_task(mb.Judge("m")), ASKED, said("a", "b", "c", "d"), "", [1.0] * 4)["declared"]
    sheet = declared_task("t", 1, "generate", said_of).metric.coded(ASKED)
    with pytest.raises(UntrustedRecord, match="values of questions cannot be used"):
        sheet.codes(text)


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "exec"},
        {"headline": "accuracy"},
        {"title": ""},
        {"title": "x" * 81},
        {"ceiling": "1"},
        {"more": 1},
        {"chance": 1.0},
        {"ceiling": 0.0},
        {"scores": {"judged": {"unit": "percent", "low": 0.0, "high": 1.0, "resampled": True}}},
        {"scores": {"judged": {"unit": "points", "low": 1.0, "high": 0.0, "resampled": True}}},
    ],
)
def test_a_declaration_that_can_be_none_is_refused(change: dict[str, Any]) -> None:
    said_of = scored(judged_task(mb.Judge("m")), ASKED, said("a", "b", "c", "d"), "", [1.0] * 4)["declared"]
    assert declared_task("t", 1, "generate", said_of).headline == "judged"
    with pytest.raises(UntrustedRecord, match="declares cannot be used"):
        declared_task("t", 1, "generate", said_of | change)
