"""Answers made elsewhere and the official rows: by number, by id, by words, with labels and without."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.samples import Sample
from mmpt_bench.interop.answers.forms import GivenAnswers, read_answers
from mmpt_bench.interop.answers.score import score_answers
from mmpt_bench.sources.task_rows import folder_rows, samples
from support.paths import DATA, needs_data
from support.tasks import task

pytestmark = needs_data
CLASSES = ("entailment", "neutral", "contradiction")


@cache
def rows(name: str) -> list[dict[str, Any]]:
    found = folder_rows(task(name), DATA, need_images=False)
    return [{key: value for key, value in row.items() if key != task(name).data.image_column} for row in found.rows]


@cache
def official(name: str) -> list[Sample]:
    return samples(task(name), folder_rows(task(name), DATA, need_images=False))


def answers(tmp_path: Path, made: list[dict[str, Any]]) -> GivenAnswers:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return read_answers([path])


def test_lines_without_labels_take_the_official_ones(tmp_path: Path) -> None:
    asked = [{key: row[key] for key in ("category", "question_id")} for row in rows("pope")]
    made = [row | {"image_source": own["image_source"], "question": own["question"], "reply": own["answer"]}
            for row, own in zip(asked, rows("pope"), strict=True)]  # fmt: skip
    with pytest.raises(RequestError, match=r"column `answer`.*With `--data DIR`"):
        score_answers(task("pope"), answers(tmp_path, made))
    card = score_answers(task("pope"), answers(tmp_path, made), official("pope"))
    assert (card.n, card.values["accuracy"], card.comparable, card.notes) == (9000, 1.0, True, ())


def test_mmes_lines_without_labels_take_the_official_ones(tmp_path: Path) -> None:
    keys = ("category", "question_id", "question")
    made = [{key: row[key] for key in keys} | {"reply": row["answer"]} for row in rows("mme")]
    card = score_answers(task("mme"), answers(tmp_path, made), official("mme"))
    assert (card.values["total"], card.comparable) == (2800, True)


@pytest.mark.parametrize("name", ["vsr", "snli_ve"])
def test_a_row_number_that_contradicts_the_lines_own_words_is_refused(tmp_path: Path, name: str) -> None:
    words = "caption" if name == "vsr" else "hypothesis"
    # Counted from 1, with the right words and no label.
    made = [{"index": i + 1, words: rows(name)[i][words], "reply": official(name)[i].answer} for i in range(3)]
    with pytest.raises(RequestError, match="asks something else"):
        score_answers(task(name), answers(tmp_path, made), official(name))
    right = [row | {"index": row["index"] - 1} for row in made]
    assert score_answers(task(name), answers(tmp_path, right), official(name)).values["accuracy"] == 1.0


@pytest.mark.parametrize("label", [4.0, [4], {"x": 1}])
def test_a_label_of_another_type_is_held_to_the_official_one(tmp_path: Path, label: Any) -> None:
    numbers = [row["label"] for row in rows("cifar10")]
    at = next(i for i, number in enumerate(numbers) if number != 4)
    made = [{"index": at, "label": label, "reply": official("cifar10")[at].answer}]
    with pytest.raises(RequestError, match="label is not the official one"):
        score_answers(task("cifar10"), answers(tmp_path, made), official("cifar10"))


def test_an_id_written_as_a_decimal_is_the_same_id(tmp_path: Path) -> None:
    made = [{"index": index, "label": 7, "reply": reply} for index, reply in (("0.0", "7"), (0, "3"))]
    with pytest.raises(RequestError, match="different"):
        score_answers(task("mnist"), answers(tmp_path, made))


@pytest.mark.parametrize("name", ["vsr", "mnist"])
def test_a_row_number_and_a_reply_are_enough(tmp_path: Path, name: str) -> None:
    made = [{"index": i, "reply": sample.answer} for i, sample in enumerate(official(name))]
    card = score_answers(task(name), answers(tmp_path, made[::-1]), official(name))
    assert (card.values["accuracy"], card.comparable) == (1.0, True)


def test_the_same_sentence_said_of_one_picture_twice_is_matched_row_by_row(tmp_path: Path) -> None:
    assert len({(s.cluster, s.question) for s in official("snli_ve")}) < len(official("snli_ve"))
    keys = ("filename", "hypothesis", "label")
    made = [{key: row[key] for key in keys} | {"reply": CLASSES[row["label"]]} for row in rows("snli_ve")]
    card = score_answers(task("snli_ve"), answers(tmp_path, made), official("snli_ve"))
    assert (card.n, card.values["accuracy"]) == (len(official("snli_ve")), 1.0)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"caption": "The cat is under the table."}, r"line 1 \(column `image_link` holds `None`, not text\)"),
        ({"index": 1222}, r"line 1 \(there is no row 1222\)"),
        ({"image_link": "x/1.jpg", "caption": "A", "relation": "on", "label": 0}, r"no row has this image"),
    ],
)
def test_a_line_without_a_row_is_named_with_the_reason(tmp_path: Path, line: dict[str, Any], why: str) -> None:
    with pytest.raises(RequestError, match=why):
        score_answers(task("vsr"), answers(tmp_path, [line | {"reply": "true"}]), official("vsr"))


def test_two_answers_to_one_question_are_refused_when_matched_by_words(tmp_path: Path) -> None:
    keys = ("filename", "hypothesis", "label")
    row = {key: rows("snli_ve")[0][key] for key in keys}
    with pytest.raises(RequestError, match="more than once with different content: `0` in line 1 and line 2"):
        score_answers(
            task("snli_ve"), answers(tmp_path, [row | {"reply": "neutral"}, row | {"reply": "x"}]), official("snli_ve")
        )


def test_a_sentence_with_two_labels_and_none_given_is_not_guessed(tmp_path: Path) -> None:
    one = official("snli_ve")[0]
    other = Sample("99999", one.image, one.question, one.choices, "entailment", "", one.cluster)
    assert one.answer != other.answer
    row = {key: rows("snli_ve")[0][key] for key in ("filename", "hypothesis")} | {"reply": "neutral"}
    with pytest.raises(RequestError, match=r"1 line belongs to no row.*several rows with different labels fit"):
        score_answers(task("snli_ve"), answers(tmp_path, [row]), [one, other])
    labelled = row | {"label": "entailment"}
    card = score_answers(task("snli_ve"), answers(tmp_path, [labelled]), [one, other])
    assert card.missing[-1] == "first 1 of 1: `0`"


def test_the_authors_own_lines_of_snli_ve_with_a_reply_are_scored(tmp_path: Path) -> None:
    raw = (DATA / "snli_ve" / "raw" / "snli_ve_test.genuine_rows.jsonl").read_text().splitlines()
    made = [json.loads(line) for line in raw]
    card = score_answers(task("snli_ve"), answers(tmp_path, [row | {"reply": row["gold_label"]} for row in made]))
    assert (card.n, card.n_pictures, card.values["accuracy"]) == (66, 18, 1.0)
    assert card.missing == ("66 of 17,901 questions",)
    with pytest.raises(RequestError, match="line 1: column `gold_label` holds `-`"):
        score_answers(task("snli_ve"), answers(tmp_path, [made[0] | {"gold_label": "-", "reply": "neutral"}]))
