"""Answers made elsewhere: published scores to their last digit, three forms of files, and files that are damaged."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from mmpt_bench.cli.main import cli
from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.samples import Prediction
from mmpt_bench.interop.answers.card import scorecard_json
from mmpt_bench.interop.answers.forms import read_answers
from mmpt_bench.interop.answers.score import Scorecard, score_answers
from mmpt_bench.records import answer_files
from support.paths import CASES, PUBLISHED, ROOT, needs_data
from support.tasks import task

GOLDEN = (
    "mme_lavin_13b",
    "mme_llava_v1.5_7b_incomplete",
    "pope_llava_v1.5_7b_partial",
    "pope_llava_1.5_7b_hf",
    "pope_llava_v1.6_vicuna_7b_current",
    "cifar10_gpt4o",
)


@cache
def scored(name: str) -> Scorecard:
    return score_answers(task(name.split("_")[0]), read_answers([PUBLISHED / f"{name}.jsonl.gz"]))


def expected(name: str) -> dict[str, Any]:
    return json.loads((PUBLISHED / "expected.json").read_text(encoding="utf-8"), parse_float=Decimal)[name]


def assert_digits(ours: float, theirs: Decimal | int) -> None:
    """Asserts that a figure, rounded to as many digits as were printed, is the printed one."""
    digits = -int(Decimal(theirs).as_tuple().exponent)
    # More digits than a double holds are the noise of the order of a sum.
    digits = min(digits, 14 - len(str(int(theirs))) if theirs >= 1 else 15)
    assert round(ours, digits) == round(float(theirs), digits)


def figures_of(card: Scorecard, group: str, value: Any) -> dict[str, tuple[float, Any]]:
    """Returns our and their figure by name, for one entry of expected.json."""
    counts = card.counts
    if not isinstance(value, dict):
        ours = {"macro_recall": "balanced_accuracy"}.get(group, group)
        if group == "mean_f1":
            # Theirs is the mean of the three F1 as printed, to ten digits.
            return {
                group: (float(np.mean([round(v, 10) for n, v in card.values.items() if n.startswith("f1/")])), value)
            }
        if group == "correct":
            return {group: (sum(n for name, n in counts.items() if name.startswith("right/")), value)}
        return {group: (card.values[ours if ours in card.values else f"score/{ours}"], value)}
    found = {}
    for name, theirs in value.items():
        if name in ("TP", "FP", "TN", "FN"):
            found[name] = (counts[f"{name}/{group}"], theirs)
        elif name in ("n", "images"):
            found[name] = (counts[f"{'asked' if name == 'n' else 'pairs'}/{group}"], theirs)
        else:
            # Their acc and acc+ are percent.
            scale = 100 if name in ("acc", "acc_plus") else 1
            found[name] = (scale * card.values[f"{name}/{group}"], theirs)
    return found


@needs_data
@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("kind", ["published", "recomputed"])
def test_every_printed_figure_is_reproduced_to_its_last_digit(name: str, kind: str) -> None:
    card = scored(name)
    for group, value in (expected(name)[kind] or {}).items():
        if group in ("replies_outside_the_ten_names", "correct_without_synonyms"):
            continue
        for ours, theirs in figures_of(card, group, value).values():
            assert_digits(ours, theirs)


@needs_data
def test_incomplete_sets_are_named_and_not_comparable() -> None:
    assert scored("mme_lavin_13b").comparable
    assert scored("pope_llava_v1.6_vicuna_7b_current").comparable
    assert scored("mme_llava_v1.5_7b_incomplete").missing == (
        "scene: 378 of 400 questions",
        "landmark: 398 of 400 questions",
    )
    assert scored("pope_llava_v1.5_7b_partial").missing == (
        "popular: 0 of 3,000 questions",
        "random: 2,712 of 3,000 questions",
    )
    assert scored("pope_llava_1.5_7b_hf").missing == ("random: 2,910 of 3,000 questions",)
    assert scored("cifar10_gpt4o").missing == ("2,000 of 10,000 questions",)
    assert scored("cifar10_gpt4o").n_unparsed == 1


@needs_data
def test_every_figure_of_the_json_has_an_interval_that_holds_it() -> None:
    value = scorecard_json(scored("pope_llava_v1.6_vicuna_7b_current"))
    assert value["intervals"].keys() == value["values"].keys()
    for name, (low, high) in value["intervals"].items():
        assert low <= value["values"][name] <= high
    assert value["n_pictures"] == 500
    assert json.loads(json.dumps(value, allow_nan=False))["score"] == value["values"]["f1_mean"]


@needs_data
def test_the_authors_text_files_give_what_the_json_lines_give() -> None:
    card = score_answers(task("mme"), read_answers([PUBLISHED / "raw" / "mme_lavin_13b"]))
    assert card.form == "MME's text files"
    assert (card.values, card.n, card.comparable) == (scored("mme_lavin_13b").values, 2374, True)


# Two strategies on two images; "Yes." is no answer to lmms-eval, "I see none" is yes to the authors' rule.
REPLIES = ("Yes", "No", "Yes.", "no", "I see none", "No, it is not")


def pope_rows() -> list[dict[str, Any]]:
    return [
        {
            "category": ("random", "popular")[i // 4],
            "question_id": str(i % 4 + 1),
            "image_source": f"COCO_{i % 2}",
            "question": f"Is there a thing {i}?",
            "answer": ("yes", "no")[i % 2],
            "reply": reply,
        }
        for i, reply in enumerate(REPLIES)
    ]


def mme_rows() -> list[dict[str, Any]]:
    return [
        {
            "question_id": f"count/{i // 2}.png",
            "category": "count",
            "question": f"Is it {i}? Please answer yes or no.",
            "answer": ("Yes", "No")[i % 2],
            "reply": ("Yes", "No", "yes, it is", "It is not")[i],
        }
        for i in range(4)
    ]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def given(tmp_path: Path, content: str | bytes, name: str = "answers.jsonl") -> list[Path]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [path]


def values(name: str, paths: list[Path], rule: str = "official") -> dict[str, float]:
    return score_answers(task(name, rule), read_answers(paths)).values


def test_each_rule_reads_the_replies_as_its_harness_does(tmp_path: Path) -> None:
    paths = given(tmp_path, lines(pope_rows()))
    # Due: yes no yes no | yes no. Official reads: yes no yes no | yes no; lmms-eval: yes no - no | - -.
    assert values("pope", paths)["accuracy"] == 1
    assert values("pope", paths, "lmms-eval")["accuracy"] == pytest.approx(3 / 6)
    assert values("pope", paths, "vlmevalkit")["accuracy"] == pytest.approx(5 / 6)
    card = score_answers(task("pope", "lmms-eval"), read_answers(paths))
    assert (card.rule, card.n_unparsed, card.n_read_otherwise) == ("lmms-eval", 0, 3)


@needs_data
@pytest.mark.parametrize("rule", ["official", "plain", "lmms-eval", "vlmevalkit"])
@pytest.mark.parametrize(("name", "right"), [("pope", 1.0), ("mme", 200.0)])
def test_answers_after_reasoning_are_scored_and_the_reasoning_is_said(name: str, right: float, rule: str) -> None:
    card = score_answers(task(name, rule), read_answers([CASES / "05-reasoning-before-the-answer" / f"{name}.jsonl"]))
    assert (card.values[card.headline], card.n_unparsed, card.n_reasoning) == (right, 0, 40)
    assert any("40 replies hold reasoning" in note for note in card.notes)


def test_reasoning_that_does_not_end_gives_no_answer_under_any_rule(tmp_path: Path) -> None:
    rows = [row | {"reply": "<think>I see no dog. Yes or no?"} for row in pope_rows()]
    for rule in ("official", "plain", "lmms-eval", "vlmevalkit"):
        card = score_answers(task("pope", rule), read_answers(given(tmp_path, lines(rows))))
        assert (card.values["accuracy"], card.n_unparsed, card.n_unfinished) == (0, len(rows), len(rows))


@needs_data
def test_yes_and_no_answer_a_question_of_true_or_false() -> None:
    card = score_answers(task("vsr"), read_answers([CASES / "07-vsr-answered-with-yes-and-no" / "yes_no.jsonl"]))
    assert (card.values["accuracy"], card.n_unparsed) == (1, 0)
    assert "4 replies say yes or no: read as true and false" in card.notes


def test_a_task_without_the_rule_says_which_it_has() -> None:
    with pytest.raises(RequestError, match=r"no parse rule `lmms-eval`.*VSR has `plain`"):
        task("vsr", "lmms-eval")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "﻿" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: lines([dict(reversed(json.loads(line).items())) for line in text.splitlines()]),
        lambda text: lines([json.loads(line) | {"model": "x", "score": 3, "meta": {}} for line in text.splitlines()]),
        lambda text: json.dumps([json.loads(line) for line in text.splitlines()]),
        lambda text: text + text.splitlines()[0] + "\n",
        lambda text: "".join(sorted(text.splitlines(keepends=True), reverse=True)),
        lambda text: gzip.compress(text.encode()),
    ],
    ids=["mark", "CRLF", "no end", "blank", "order", "extra", "array", "repeated", "shuffled", "gzip"],
)
def test_how_a_file_is_written_does_not_change_its_score(tmp_path: Path, change: Any) -> None:
    want = values("pope", given(tmp_path, lines(pope_rows())))
    assert values("pope", given(tmp_path, change(lines(pope_rows())), "other.jsonl")) == pytest.approx(want)


def test_parquet_gives_the_score_of_the_same_rows_as_lines(tmp_path: Path) -> None:
    pd.DataFrame(pope_rows()).to_parquet(tmp_path / "answers.parquet")
    want = values("pope", given(tmp_path, lines(pope_rows())))
    assert values("pope", [tmp_path / "answers.parquet"]) == pytest.approx(want)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(RequestError, match=r"bad\.parquet` cannot be read as Parquet"):
        read_answers([tmp_path / "bad.parquet"])
    answer_files.write(tmp_path / "own.parquet", [Prediction("0", "yes", "yes", "yes", (-0.1, -2.0))])
    with pytest.raises(RequestError, match="holds the answers of a run of ours"):
        read_answers([tmp_path / "own.parquet"])


def test_a_reply_with_line_separators_of_unicode_stays_one_line(tmp_path: Path) -> None:
    rows = mme_rows()
    rows[0]["reply"] = "Yes\u2028\u0085\x0b indeed"
    assert values("mme", given(tmp_path, lines(rows)))["acc/count"] == 0.75


def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    read = read_answers(given(tmp_path, lines(pope_rows())[:-20]))
    assert len(read.answers) == 5
    assert read.notes == ("the last line of `answers.jsonl` (6) was not finished; it is left out",)
    with pytest.raises(RequestError, match=r"`count/1.png` has 1"):
        score_answers(task("mme"), read_answers(given(tmp_path, lines(mme_rows())[:-20])))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"reply": "yes"}\n{"reply": \n{"reply": "no"}\n', r"Line 2 of `answers.jsonl` is no JSON"),
        ("", "no answer in"),
        ("[1, 2]", r"no JSON object in entry 1"),
        ('{"question": "?"}\n', r"no reply in line 1: none of its fields is `reply`"),
        ('{"reply": null}\n', r"Field `reply` in line 1 holds `None`"),
        ('{"reply": ["a", "b"]}\n', r"holds a list of 2, not one reply"),
        (
            '{"reply": "no", "reply": "yes"}\n',
            r"Line 1 of `answers.jsonl` is no JSON: it holds the field `reply` twice",
        ),
        ('{"reply": NaN}\n', r"no JSON: it holds NaN"),
        ('{"reply": "yes"}\n', r"1 line does not say what it answers: line 1: column `category`.*--data DIR"),
        ('{"eval_key": "fb", "id": "random/1", "reply": "yes"}\n', r"holds the answers of a run of ours.*leaderboard"),
        (b"\xff\xfe{\x00", r"not UTF-8, first in line 1"),
        (gzip.compress(b"x" * 1000)[:-9], "cannot be read"),
    ],
    ids=["line", "empty", "array", "reply", "null", "several", "twice", "NaN", "what", "own", "UTF-16", "cut gzip"],
)
def test_a_file_that_cannot_be_scored_is_refused_by_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        values("pope", given(tmp_path, content))


def test_an_id_with_two_replies_is_refused_by_line(tmp_path: Path) -> None:
    rows = pope_rows()
    twice = [*rows, rows[1] | {"reply": "Yes"}]
    with pytest.raises(RequestError, match=r"with different content: `random/2` in line 2 and line 7"):
        values("pope", given(tmp_path, lines(twice)))


def test_a_part_that_the_benchmark_has_not_is_refused_by_name(tmp_path: Path) -> None:
    rows = [row | {"category": row["category"].title()} for row in pope_rows()]
    with pytest.raises(RequestError, match=r"no part of POPE `Random`. Did you mean `random`\?"):
        values("pope", given(tmp_path, lines(rows)))
    with pytest.raises(RequestError, match=r"no part of POPE `count`.*another benchmark\?"):
        values("pope", given(tmp_path, lines([row | {"image_source": "x"} for row in mme_rows()][::2])))


def test_labels_of_the_file_itself_are_called_so(tmp_path: Path) -> None:
    card = score_answers(task("pope"), read_answers(given(tmp_path, lines(pope_rows()))))
    assert card.notes[0] == "questions and labels are the file's own; `--data DIR` holds them to the official rows"


def test_all_that_is_missing_is_printed_to_its_end(tmp_path: Path) -> None:
    (path,) = given(tmp_path, lines(mme_rows()))
    done = CliRunner().invoke(cli, ["score", "mme", str(path)])
    said = " ".join(done.stdout.split())
    assert said.index("existence: 0 of 60 questions") < said.index("code_reasoning: 0 of 40 questions. Note")


def test_one_answer_for_everything_is_called_degenerate(tmp_path: Path) -> None:
    rows = [row | {"reply": "yes"} for row in pope_rows()]
    notes = score_answers(task("pope"), read_answers(given(tmp_path, lines(rows)))).notes
    assert notes[1:] == ("degenerate: 100.0% of the answers are the same",)


def lmms(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Returns lines as lmms-eval 0.7 writes them: no row, no image, the reply as `filtered_resps`."""
    named = {"mme": "mme_perception_score", "pope": "pope_accuracy"}[kind]
    made = []
    for i, row in enumerate(rows):
        known = {"question_id": row["question_id"], "score": 1.0}
        known |= {"category": row["category"]} if kind == "mme" else {"prediction": "x", "ground_truth": row["answer"]}
        made.append(
            {
                "doc_id": i,
                "target": row["answer"],
                "filtered_resps": row["reply"],
                "token_counts": [None],
                "doc_hash": "0",
                named: known,
                "input": f"{row['question']}\nAnswer the question using a single word or phrase.",
            }
        )
    return made


def test_lmms_evals_sample_file_of_mme_has_the_score_of_the_rows(tmp_path: Path) -> None:
    paths = given(tmp_path, lines(lmms(mme_rows(), "mme")), "20260101_samples_mme.jsonl")
    assert read_answers(paths).form == "lmms-eval"
    assert values("mme", paths) == values("mme", given(tmp_path, lines(mme_rows())))


def test_lmms_evals_files_of_popes_parts_say_the_strategy_by_their_names(tmp_path: Path) -> None:
    rows = pope_rows()
    paths = given(tmp_path, lines(lmms(rows[:4], "pope")), "x_samples_pope_random.jsonl")
    paths += given(tmp_path, lines(lmms(rows[4:], "pope")), "x_samples_pope_pop.jsonl")
    card = score_answers(task("pope"), read_answers(paths))
    assert card.values == values("pope", given(tmp_path, lines(rows)))
    assert (card.n_pictures, card.intervals) == (None, {})
    assert "which questions share an image" in card.notes[1]
    with pytest.raises(RequestError, match=r"column `category`.*--data DIR"):
        values("pope", given(tmp_path, lines(lmms(rows, "pope")), "x_samples_pope.jsonl"))


def vlmevalkit(rows: list[dict[str, Any]], suffix: str = ".jpg") -> list[dict[str, Any]]:
    return [
        {
            "index": i,
            "question": row["question"],
            "answer": row["answer"].capitalize(),
            "category": row["category"],
            "image_path": row.get("image_source", row["question_id"]) + suffix,
            "prediction": row["reply"],
        }
        for i, row in enumerate(rows)
    ]


def table(rows: list[dict[str, Any]], delimiter: str) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def test_vlmevalkits_table_has_the_score_of_the_rows(tmp_path: Path) -> None:
    rows = mme_rows()
    rows[3]["reply"] = 'It is\tnot "so",\nno'
    want = values("mme", given(tmp_path, lines(rows)), "vlmevalkit")
    for delimiter, name in (("\t", "m_MME.tsv"), (",", "m_MME.csv")):
        paths = given(tmp_path, table(vlmevalkit(rows, ""), delimiter), name)
        assert read_answers(paths).form == "VLMEvalKit"
        assert values("mme", paths, "vlmevalkit") == want


def test_vlmevalkits_question_of_two_strategies_counts_in_both(tmp_path: Path) -> None:
    rows = pope_rows()
    shared = rows[0] | {"category": "popular", "question_id": "9"}
    want = values("pope", given(tmp_path, lines([*rows, shared])), "vlmevalkit")
    made = vlmevalkit(rows)
    made[0]["category"] = "random,popular"
    assert values("pope", given(tmp_path, table(made, "\t"), "m_POPE.tsv"), "vlmevalkit") == pytest.approx(want)


def test_a_workbook_reads_like_the_table(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    made = vlmevalkit(pope_rows())
    made[4]["prediction"] = None
    book = openpyxl.Workbook()
    book.active.append(list(made[0]))
    for row in made:
        book.active.append(list(row.values()))
    book.save(tmp_path / "m_POPE.xlsx")
    made[4]["prediction"] = ""
    want = values("pope", given(tmp_path, table(made, "\t"), "m_POPE.tsv"))
    assert values("pope", [tmp_path / "m_POPE.xlsx"]) == want


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("index\tanswer\n1\tYes\n", "a.tsv", "no column `prediction`. It has `index`, `answer`"),
        ("index\tprediction\n1\n", "a.tsv", "Row 2 of `a.tsv` has not as many columns"),
        ("a\tb\tYes\n", "count.txt", "3 columns in line 1"),
    ],
)
def test_a_table_without_its_columns_is_refused(tmp_path: Path, content: str, name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_answers(given(tmp_path, content, name))


def test_classes_are_read_by_name_and_by_number(tmp_path: Path) -> None:
    rows = [{"index": i, "label": label, "reply": "cat"} for i, label in enumerate(["cat", 3, "3", "dog"])]
    assert values("cifar10", given(tmp_path, lines(rows)))["accuracy"] == 0.75


def test_the_command_prints_a_table_or_json_and_refuses_with_code_2(tmp_path: Path) -> None:
    (path,) = given(tmp_path, lines(pope_rows()))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mmpt_bench", "score", "pope", str(path)]
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "POPE (incomplete)" in shown.stdout
    assert "NOT comparable" in shown.stdout
    made = subprocess.run([*command, "--json"], env=env, capture_output=True, text=True, check=True)
    assert json.loads(made.stdout)["comparable"] is False
    assert "not comparable: adversarial: 0 of 3,000" in made.stderr
    path.write_text("{")
    refused = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (refused.returncode, "is no JSON" in refused.stderr) == (2, True)
