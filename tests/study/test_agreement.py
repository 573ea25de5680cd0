"""Agreement of judges: beside scikit-learn's kappa, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

import mmpt_bench as mb
from mmpt_bench.common.errors import RequestError
from mmpt_bench.study.agreement import _compared
from support.command import bench
from support.paths import ROOT

EXAMPLE = str(ROOT / "examples" / "judged_answers.py")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    mb.run("frozen", EXAMPLE, limit=24, out=folder, offline=True)
    return folder


def test_a_judge_beside_exact_match_and_people(out: Path, tmp_path: Path) -> None:
    record = mb.load_results(out).records[0]
    values = json.loads(record.question_values)
    both = [(a, b) for a, b in zip(values["judged"], values["exact_match"], strict=True) if a is not None]
    (row,) = mb.judged(out).rows
    assert (row.beside, row.n, row.unread) == ("exact_match", len(both), record.n_unjudged)
    assert row.agree == pytest.approx(np.mean([a == b for a, b in both]))
    assert row.kappa == pytest.approx(cohen_kappa_score(*zip(*both, strict=True)))
    (kept,) = (out / "judged").glob("*.jsonl")
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    people = tmp_path / "people.jsonl"
    # A copy of the file, with a grade in its first ten lines: those of who calls right what the judge calls right.
    graded = [line | {"grade": int(line["said"].startswith("yes"))} for line in lines[:10]] + lines[10:]
    people.write_text("".join(json.dumps(line) + "\n" for line in graded))
    _, human = mb.judged(out, people).rows
    assert (human.beside, human.n, human.agree) == ("human", 10, 1.0)
    assert len(mb.judged(out, people).table) == 2


def test_kappa_is_undefined_where_both_always_say_one_thing(out: Path) -> None:
    record = mb.load_results(out).records[0]
    row = _compared(record, "human", [True, True, None], [True, True, False])
    assert (row.n, row.agree, row.kappa) == (2, 1.0, None)
    row = _compared(record, "human", [None], [True])
    assert (row.n, row.agree, row.kappa) == (0, None, None)


def test_what_cannot_be_compared_is_refused(out: Path, tmp_path: Path) -> None:
    mb.run("frozen", "mnist", limit=2, out=tmp_path / "other", offline=True)
    with pytest.raises(RequestError, match="was scored by a judge"):
        mb.judged(tmp_path / "other")
    file = tmp_path / "people.jsonl"
    with pytest.raises(RequestError, match="no file"):
        mb.judged(out, file)
    for text, message in (
        ('{"key": "a", "grade": "good"}', "Line 1 of `people.jsonl` is no verdict"),
        ('{"key": "a", "grade": true}', "is no verdict"),
        ('{"key": "a", "grade": 1}\n{"key": "a", "grade": 0}', "contradicts an earlier verdict"),
        ('{"key": "a", "grade": 1}', "grades none of the answers"),
        ('{"key": "a"}', "grades none of the answers"),
    ):
        file.write_text(text)
        with pytest.raises(RequestError, match=message):
            mb.judged(out, file)


@pytest.mark.slow
def test_the_command_prints_a_table_of_80_columns(out: Path) -> None:
    text = bench("judged", "--out", str(out), cwd=out).stdout
    assert "exact_match" in text
    assert max(map(len, text.splitlines()[:6])) <= 80
