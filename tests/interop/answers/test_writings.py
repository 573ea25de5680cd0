"""Any writing of one set of answers has one score or is refused; lines that say a thing twice never count twice."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt_bench.common.errors import RequestError
from mmpt_bench.interop.answers.forms import read_answers
from mmpt_bench.interop.answers.score import Scorecard, score_answers
from support.tasks import task

FIELDS = ("reply", "response", "text", "prediction")
YES_NO_REPLIES = ("Yes", "no.", "Yes, there is\na dog", "", "I see ünder nothing", "NO")


def pope(strategy: str) -> list[dict[str, Any]]:
    return [
        {"category": strategy, "question_id": f"{i + 1}", "image_source": f"COCO_{i // 3}",
         "question": f"Is there a {('dog', 'fork', 'ünit')[i % 3]} in the image?", "answer": ("yes", "no")[i % 2],
         "reply": YES_NO_REPLIES[i % 6]}
        for i in range(12)
    ]  # fmt: skip


LINES: dict[str, list[list[dict[str, Any]]]] = {
    "vsr": [[
        {"image_link": f"http://x/{i // 2}.jpg", "caption": f"The cat {i} is ünder it.", "relation": "under",
         "label": i % 2, "reply": ("false", "True.", "no", "I see\nnothing, so: true", "", "es ist false")[i % 6]}
        for i in range(24)
    ]],
    "mnist": [[{"index": i, "label": f"{i % 10}", "reply": str((i * 7) % 10)} for i in range(30)]],
    "cifar10": [[
        {"index": i, "label": ("cat", "dog", 0)[i % 3], "reply": ("a cat", "Hünd, dog", "")[i % 3]} for i in range(9)
    ]],
    "snli_ve": [[
        {"filename": f"{i // 3}.jpg", "hypothesis": f"A wöman {i} waits.", "label": i % 3,
         "reply": ("entailment", "Neutral.", "It contradicts it", "?")[i % 4]}
        for i in range(12)
    ]],
    "mme": [[
        {"question_id": f"{part}/{i // 2}.png", "category": part, "question": f"Is it {i}? Please answer yes or no.",
         "answer": ("Yes", "No")[i % 2], "reply": YES_NO_REPLIES[i % 6]}
        for part in ("count", "OCR") for i in range(8)
    ]],
    "pope": [pope("adversarial"), pope("popular"), pope("random")],
}  # fmt: skip
"""Task -> the lines of each of its files."""


def written(path: Path, rows: list[dict[str, Any]]) -> bytes:
    """Returns rows in the form that the name says."""
    kind = path.suffix
    if kind in (".csv", ".tsv"):
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if kind == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        return stream.getvalue().encode()
    if kind == ".json":
        return json.dumps(rows, indent=1, ensure_ascii=False).encode()
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def scored(name: str, paths: list[Path]) -> Scorecard:
    return score_answers(task(name), read_answers(paths))


def rewritten(folder: Path, number: int, rows: list[dict[str, Any]], data: st.DataObject) -> tuple[Path, bool]:
    """Returns a file with the same answers, and whether it can be read as UTF-8."""
    shuffle = data.draw(st.randoms(use_true_random=False))
    others = data.draw(st.dictionaries(st.sampled_from(["id", "model", "notes", "Ünits"]), st.text(max_size=5)))
    word = data.draw(st.sampled_from(FIELDS[:3]))
    made = []
    for row in shuffle.sample(rows, len(rows)):
        fields = [(word if key == "reply" else key, value) for key, value in (row | others).items()]
        shuffle.shuffle(fields)
        made.append(dict(fields))
    path = folder / f"{number}{data.draw(st.sampled_from(['.jsonl', '.json', '.csv', '.tsv']))}"
    raw = written(path, made)
    if data.draw(st.booleans()) and path.suffix != ".json":
        raw = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    raw = raw.decode().encode(
        data.draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"])), "replace"
    )
    if data.draw(st.booleans()):
        path = path.with_name(f"{path.name}.gz")
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path, raw.decode(errors="ignore") == raw.decode(errors="replace")


def check_writings(folder: Path, name: str, data: st.DataObject) -> None:
    plain = []
    for number, rows in enumerate(LINES[name]):
        plain.append(folder / f"plain{number}.jsonl")
        plain[-1].write_bytes(written(plain[-1], rows))
    whole = scored(name, plain)
    made = [rewritten(folder, number, rows, data) for number, rows in enumerate(LINES[name])]
    paths, are_readable = [path for path, _ in made], all(fine for _, fine in made)
    if not are_readable or len({path.name.split(".")[1] in ("csv", "tsv") for path in paths}) > 1:
        why = "The files are of different forms" if are_readable else r"is not UTF-8, first in line \d+"
        with pytest.raises(RequestError, match=why):
            scored(name, paths)
        return
    card = scored(name, paths)
    assert (card.values, card.n, card.n_unparsed) == (whole.values, whole.n, whole.n_unparsed)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", LINES)
def test_any_writing_of_the_same_answers_has_the_same_score_or_is_refused(
    tmp_path: Path, data: st.DataObject, name: str
) -> None:
    check_writings(tmp_path, name, data)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", LINES)
def test_many_writings_of_the_same_answers_have_the_same_score_or_are_refused(
    tmp_path: Path, data: st.DataObject, name: str
) -> None:
    check_writings(tmp_path, name, data)


def file_of(tmp_path: Path, rows: list[dict[str, Any]]) -> list[Path]:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(written(path, rows))
    return [path]


def test_a_statement_of_vsr_that_stands_twice_counts_once_and_is_said(tmp_path: Path) -> None:
    rows = LINES["vsr"][0]
    once = scored("vsr", file_of(tmp_path, rows))
    card = scored("vsr", file_of(tmp_path, [*rows, rows[0], rows[5]]))
    assert (card.n, card.values) == (24, once.values)
    assert "2 lines repeat another one to the letter, and count once" in card.notes


def test_a_statement_of_vsr_with_two_replies_is_refused_by_line(tmp_path: Path) -> None:
    rows = LINES["vsr"][0]
    with pytest.raises(RequestError, match=r"with different content: `1` in line 2 and line 25"):
        scored("vsr", file_of(tmp_path, [*rows, rows[1] | {"reply": "false"}]))


def test_snli_ve_repeats_itself_as_often_as_its_official_rows_do(tmp_path: Path) -> None:
    rows = [row | {"hypothesis": f"A man {i} waits."} for i, row in enumerate(LINES["snli_ve"][0] * 4)]
    card = scored("snli_ve", file_of(tmp_path, [*rows, *rows[:23]]))
    assert card.n == 48 + 23
    assert any("23 lines ask of an image what another line asks, as 23 rows of the official" in n for n in card.notes)
    with pytest.raises(RequestError, match=r"24 lines say of an image what another .* line 1 and line 49.*`index`"):
        scored("snli_ve", file_of(tmp_path, [*rows, *rows[:24]]))
    numbered = [row | {"index": i} for i, row in enumerate([*rows, *rows[:24]])]
    card = scored("snli_ve", file_of(tmp_path, numbered))
    assert card.n == 72
    assert "24 lines ask what another line asks, under a number of their own" in card.notes


def test_one_id_of_two_questions_is_refused(tmp_path: Path) -> None:
    rows = pope("random")
    with pytest.raises(RequestError, match=r"with different content: `random/1` in line 1 and line 13"):
        scored("pope", file_of(tmp_path, [*rows, rows[0] | {"question": "Is there a cat in the image?"}]))


def test_one_part_of_pope_is_scored_under_its_name(tmp_path: Path) -> None:
    card = scored("pope", file_of(tmp_path, pope("popular")))
    assert card.values["f1_mean"] == card.values["f1/popular"]
    assert "all answers are to one part of POPE, `popular`: `f1_mean` is of that part alone" in card.notes
    assert not card.comparable


@pytest.mark.parametrize("one", FIELDS)
@pytest.mark.parametrize("other", FIELDS)
def test_two_replies_in_one_line_are_refused_and_equal_ones_are_one(tmp_path: Path, one: str, other: str) -> None:
    if one == other:
        return
    rows = [{"index": i, "label": 3, one: "cat", other: "cat"} for i in range(3)]
    assert scored("cifar10", file_of(tmp_path, rows)).values["accuracy"] == 1
    rows[1][other] = "dog"
    with pytest.raises(RequestError, match=r"`\w+` and `\w+` in line 2 are two different replies"):
        scored("cifar10", file_of(tmp_path, rows))
    rows[1][other] = None
    assert scored("cifar10", file_of(tmp_path, rows)).values["accuracy"] == 1


@pytest.mark.parametrize("other", FIELDS[:3])
def test_two_replies_in_a_line_of_another_harness_are_refused(tmp_path: Path, other: str) -> None:
    lmms = {"doc_id": 0, "target": "yes", "filtered_resps": "yes", "input": "?", other: "no"}
    with pytest.raises(RequestError, match=rf"`filtered_resps` and `{other}` in line 1 are two different replies"):
        read_answers(file_of(tmp_path, [lmms]))
    if other != "reply":
        kit = {"index": 0, "question": "?", "answer": "yes", "category": "random", "prediction": "yes", other: "no"}
        with pytest.raises(RequestError, match=rf"`prediction` and `{other}` in line 1 are two different replies"):
            read_answers(file_of(tmp_path, [kit]))


def test_two_labels_in_a_line_of_snli_ve_are_refused(tmp_path: Path) -> None:
    raw = {"Flickr30K_ID": "1", "sentence2": "A man waits.", "gold_label": "neutral", "reply": "neutral"}
    assert scored("snli_ve", file_of(tmp_path, [raw | {"label": "neutral"}])).values["accuracy"] == 1
    with pytest.raises(RequestError, match=r"line 1: `label` and the line's other form .* differ"):
        scored("snli_ve", file_of(tmp_path, [raw | {"label": 0}]))


def test_numbers_for_classes_that_are_names_are_not_read_and_it_is_said(tmp_path: Path) -> None:
    rows = [{"index": i, "label": "cat", "reply": reply} for i, reply in enumerate(["3", 3, "(3)", "3.0", "cat"])]
    card = scored("cifar10", file_of(tmp_path, rows))
    assert (card.n_unparsed, card.values["accuracy"]) == (4, 0.2)
    assert any("4 replies are numbers, and the answers are names (`airplane`" in note for note in card.notes)


def test_numbers_for_classes_that_are_numbers_are_read(tmp_path: Path) -> None:
    replies = ["7", 7, 7.0, "seven", "(7)", "7.0", "The digit is 7."]
    rows = [{"index": i, "label": 7, "reply": reply} for i, reply in enumerate(replies)]
    card = scored("mnist", file_of(tmp_path, rows))
    assert (card.n_unparsed, card.values["accuracy"]) == (0, 1)
    assert not any("replies are numbers" in note for note in card.notes)
