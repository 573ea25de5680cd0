"""Answer files as LLaVA, VLMEvalKit and old versions of lmms-eval write them; and any writing of one set of answers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.samples import Sample
from mmpt_bench.interop.answers.forms import read_answers
from mmpt_bench.interop.answers.llava import FIRST_RELEASE
from mmpt_bench.interop.answers.score import Scorecard, score_answers
from mmpt_bench.sources.task_rows import folder_rows, samples
from support.paths import CASES, DATA, PUBLISHED, needs_data
from support.tasks import task

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not beside this checkout")
SHORT = "Answer the question using a single word or phrase."
BLOCKS = {"adversarial": 0, "random": 10_000_000, "popular": 20_000_000}


@cache
def official(name: str) -> list[Sample]:
    return samples(task(name), folder_rows(task(name), DATA, need_images=False))


@cache
def vsr_rows() -> list[dict[str, Any]]:
    return [
        {key: row[key] for key in ("image_link", "caption", "relation", "label")}
        for row in folder_rows(task("vsr"), DATA, need_images=False).rows
    ]


def scored(name: str, path: Path, with_rows: bool = True) -> Scorecard:
    return score_answers(task(name), read_answers([path]), official(name) if with_rows else None)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes rows in the form that the name says."""
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind in ("csv", "tsv"):
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        text = stream.getvalue()
    elif kind == "json":
        text = json.dumps(rows, indent=1)
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def workbook(path: Path, rows: list[dict[str, Any]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    book = openpyxl.Workbook()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(row.values()))
    book.save(path)
    return path


def published(name: str) -> list[dict[str, Any]]:
    with gzip.open(PUBLISHED / f"{name}.jsonl.gz", "rt") as stream:
        return [json.loads(line) for line in stream]


def as_llava(row: dict[str, Any], question_id: Any) -> dict[str, Any]:
    asked = row["question"].replace("Please answer yes or no.", "").strip()
    return {"question_id": question_id, "prompt": f"{asked}\n{SHORT}", "text": row["reply"], "answer_id": "a"}


@needs_cases
@needs_data
def test_llavas_answers_to_mme_are_found_by_subtask_picture_and_words() -> None:
    path = CASES / "06-llava-answer-file" / "mme.jsonl"
    card = scored("mme", path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    answers = {(s.cluster, s.question.split("?")[0]): s.answer for s in official("mme")}
    right = sum(answers[line["question_id"], line["prompt"].split("?")[0]] == line["text"] for line in lines)
    assert (card.form, card.n, card.n_pictures) == ("LLaVA", 40, 20)
    assert card.values["acc/code_reasoning"] == right / 40


@needs_cases
@needs_data
def test_llavas_answers_to_pope_are_found_by_its_numbers() -> None:
    card = scored("pope", CASES / "06-llava-answer-file" / "pope.jsonl")
    # All 36 say yes; the questions of a strategy are answered with yes and no in turns.
    assert (card.n, card.values["accuracy"], card.values["yes_ratio"], card.n_pictures) == (36, 0.5, 1.0, 2)


@needs_cases
@pytest.mark.parametrize("name", ["mme", "pope"])
def test_llavas_answers_without_the_official_rows_are_told_what_is_missing(name: str) -> None:
    with pytest.raises(RequestError, match=r"hold no labels: pass the official rows of .* `--data DIR`"):
        scored(name, CASES / "06-llava-answer-file" / f"{name}.jsonl", with_rows=False)


@needs_data
@pytest.mark.parametrize("name", ["pope_llava_1.5_7b_hf", "pope_llava_v1.5_7b_partial"])
def test_published_answers_in_llavas_numbering_keep_their_figures(tmp_path: Path, name: str) -> None:
    rows = published(name)
    # The files hold LLaVA's numbers for random questions and the authors' for the rest.
    ids = [BLOCKS[r["category"]] + int(r["question_id"]) % 10_000_000 for r in rows]
    made = [as_llava(row, number) for row, number in zip(rows, ids, strict=True)]
    card = scored("pope", written(tmp_path / "answers.jsonl", made))
    own = scored("pope", written(tmp_path / "own.jsonl", rows), with_rows=False)
    assert card.values == own.values
    assert len(FIRST_RELEASE) == len(set(FIRST_RELEASE)) == 2910


@needs_data
def test_todays_numbering_of_random_questions_is_read_too(tmp_path: Path) -> None:
    rows = published("pope_llava_v1.6_vicuna_7b_current")
    made = [as_llava(row, BLOCKS[row["category"]] + int(row["question_id"])) for row in rows]
    card = scored("pope", written(tmp_path / "answers.json", made))
    assert card.comparable
    assert card.values == scored("pope", PUBLISHED / "pope_llava_v1.6_vicuna_7b_current.jsonl.gz", False).values


@needs_data
def test_published_answers_to_mme_in_llavas_form_keep_their_figures(tmp_path: Path) -> None:
    rows = published("mme_lavin_13b")
    made = [as_llava(row, f"{row['category']}/{row['question_id'].split('/')[-1]}") for row in rows]
    card = scored("mme", written(tmp_path / "answers.jsonl", made))
    assert (card.comparable, card.values) == (True, scored("mme", PUBLISHED / "mme_lavin_13b.jsonl.gz", False).values)


@needs_data
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"question_id": 30_000_001}, "`30000001` is no number of LLaVA's POPE questions"),
        ({"question_id": "a/1"}, "`a/1` is no number"),
        ({"question_id": 3001}, "adversarial has no question 3001"),
        ({"prompt": "Is there a unicorn in the image?"}, "question 1 of adversarial is another one"),
    ],
)
def test_a_line_of_llavas_that_fits_no_question_is_named(tmp_path: Path, line: dict[str, Any], why: str) -> None:
    row = {"question_id": 1, "prompt": f"Is there a snowboard in the image?\n{SHORT}", "text": "Yes"} | line
    with pytest.raises(RequestError, match=why):
        scored("pope", written(tmp_path / "answers.jsonl", [row]))


@needs_data
def test_llavas_numbers_are_not_guessed_for_other_tasks(tmp_path: Path) -> None:
    row = {"question_id": 1, "prompt": "Which digit is it?", "text": "7"}
    with pytest.raises(RequestError, match=r"read for MME and POPE.*For MNIST, give each line the row's number"):
        scored("mnist", written(tmp_path / "answers.jsonl", [row]))


def vlmevalkit_vsr(first: int) -> list[dict[str, Any]]:
    """Returns VLMEvalKit's VSR-zeroshot file, whose indices count from 0 or 1; each fourth answer is wrong."""
    return [
        {
            "index": i + first,
            "question": f"{row['caption']} Is this true? Please answer yes or no.",
            "answer": ("No", "Yes")[row["label"]],
            "prediction": ("No", "Yes")[row["label"] if i % 4 else 1 - row["label"]],
        }
        for i, row in enumerate(vsr_rows())
    ]


@needs_data
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.json", "a.tsv.gz", "a.xlsx"])
def test_vlmevalkits_vsr_is_matched_by_index(tmp_path: Path, name: str, first: int) -> None:
    rows = random.Random(0).sample(vlmevalkit_vsr(first), 1222)
    card = scored("vsr", (workbook if name.endswith("xlsx") else written)(tmp_path / name, rows))
    wrong = len(range(0, 1222, 4))
    assert (card.form, card.comparable, card.values["accuracy"]) == ("VLMEvalKit", True, (1222 - wrong) / 1222)
    assert "1,222 replies say yes or no: read as true and false" in card.notes


@needs_data
def test_vlmevalkits_vsr_in_words_of_its_own_is_matched_where_the_labels_tell(tmp_path: Path) -> None:
    rows = [row | {"question": "Is it so?"} for row in vlmevalkit_vsr(1)]
    assert scored("vsr", written(tmp_path / "a.tsv", rows)).comparable
    with pytest.raises(RequestError, match="lines belong to no row"):
        scored("vsr", written(tmp_path / "b.tsv", [row | {"answer": "Yes"} for row in rows]))


@needs_data
def test_an_index_of_another_data_set_is_refused(tmp_path: Path) -> None:
    rows = vlmevalkit_vsr(0)[:40]
    mixed = [row | {"index": other["index"]} for row, other in zip(rows, rows[::-1], strict=True)]
    with pytest.raises(RequestError, match="lines belong to no row"):
        scored("vsr", written(tmp_path / "a.tsv", mixed))


@needs_cases
def test_yes_and_no_are_read_as_true_and_false() -> None:
    card = scored("vsr", CASES / "07-vsr-answered-with-yes-and-no" / "yes_no.jsonl", with_rows=False)
    assert (card.values["accuracy"], card.n_unparsed) == (1.0, 0)
    assert "4 replies say yes or no: read as true and false" in card.notes


def mme_log(keep: tuple[str, ...]) -> list[dict[str, Any]]:
    made = []
    for i, sample in enumerate(official("mme")):
        doc = {"question_id": sample.cluster, "category": sample.group, "question": sample.question}
        row = {"doc_id": i, "doc": doc | {"answer": sample.answer}, "target": sample.answer, "arguments": []}
        made.append({key: row[key] for key in keep} | {"resps": [["Yes"]], "filtered_resps": ["Yes"]})
    return made


@needs_data
def test_logs_of_old_versions_of_lmms_eval_are_named(tmp_path: Path) -> None:
    whole = {"args": {}, "model_configs": {}, "logs": mme_log(("doc_id", "doc", "target", "arguments"))}
    path = tmp_path / "mme.json"
    path.write_text(json.dumps(whole, indent=4))
    card = scored("mme", path, with_rows=False)
    assert (card.n, card.form, card.values["acc/count"]) == (2374, "lmms-eval", 0.5)
    assert "log of lmms-eval before 0.3" in card.notes[0]
    bare = written(tmp_path / "x_samples_mme.jsonl", mme_log(("doc_id",)))
    assert "older lmms-eval has neither `doc` nor `target`" in scored("mme", bare).notes[0]
    with pytest.raises(RequestError, match=r"lmms-eval.*do not say what they answer.*--data DIR"):
        scored("mme", bare, with_rows=False)
    silent = written(tmp_path / "silent.jsonl", [{"doc_id": 0, "target": "Yes", "acc": 1.0}])
    with pytest.raises(RequestError, match=r"log of lmms-eval without replies.*--log_samples"):
        read_answers([silent])
