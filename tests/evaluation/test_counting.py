"""Answers counted as arrays: the same counts as one by one, in as little memory as a large board allows."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmpt_bench.board.from_records import boards
from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.counting import CodedSamples, choices_from, choices_text
from mmpt_bench.evaluation.metrics import MME_PERCEPTION, Accuracy, Metric, MMEMetric, POPEMetric
from mmpt_bench.records.store import Store
from mmpt_bench.stats.intervals import cluster_bootstrap
from mmpt_bench.stats.resampling import Tally, picture_draws, resample
from support.synthetic import answers, keep, recipe, record, samples, store_in, task

YES_NO = [dataclasses.replace(s, group="ab"[i // 4 % 2]) for i, s in enumerate(samples(48, "", 4))]
DIGITS = [
    dataclasses.replace(s, choices=tuple("0123456789"), answer=str(i % 10), group="") for i, s in enumerate(samples(40))
]
MME = [s for group in MME_PERCEPTION[:3] for s in samples(8, group, 2)]


@pytest.mark.parametrize(
    ("metric", "asked"), [(MMEMetric(), MME), (POPEMetric(), YES_NO), (Accuracy(), DIGITS)], ids=["mme", "pope", "acc"]
)
def test_a_text_of_answers_counts_as_its_choices_do(metric: Metric, asked: list[Sample]) -> None:
    sheet = metric.coded(asked)
    said = answers(asked, "1101-0")
    codes = sheet.codes(choices_text(asked, said))
    tally = sheet.counted(codes)
    assert tally.counts.tolist() == sheet.tally(said).counts.tolist() == metric.tally(asked, said).counts.tolist()
    assert sheet.sums(codes).tolist() == tally.counts.sum(axis=0).tolist()


def test_choices_are_one_character_a_sample() -> None:
    asked = samples(4)
    said = answers(asked, "10-1")
    assert choices_text(asked, said) == "00-1"
    assert choices_from(asked, "00-1") == said


@pytest.mark.parametrize("text", ["000", "0002", "000?", "000A"])
def test_a_text_that_does_not_fit_is_not_read_as_choices(text: str) -> None:
    with pytest.raises(UntrustedRecord):
        choices_from(samples(4), text)


def test_a_thousand_choices_are_stored_and_counted() -> None:
    choices = tuple(f"class {number}" for number in range(1000))
    asked = [dataclasses.replace(s, group="", choices=choices, answer=choices[i]) for i, s in enumerate(samples(1000))]
    said: list[str | None] = [None, *choices[1:999], choices[0]]
    text = choices_text(asked, said)
    assert len(text) == len(text.encode("utf-16-le")) / 2 == 1000
    assert choices_from(asked, text) == said
    few = asked[:50] + asked[-1:]
    tally = Accuracy().tally(few, said[:50] + said[-1:])
    found = Accuracy().values(tally.counts.sum(axis=0), tally.columns)
    assert found["accuracy"] == pytest.approx(49 / 51)
    assert found["recall/class 49"] == 1


def test_counts_by_hand() -> None:
    # Two images of two questions: both right; one wrong and one unreadable.
    asked = [dataclasses.replace(s, group="") for s in samples(4, "", 2)]
    tally = Accuracy().tally(asked, [asked[0].answer, asked[1].answer, "no", None])
    found = dict(zip(tally.columns, tally.counts.T.tolist(), strict=True))
    assert found == {
        "asked/": [2, 2], "right/": [2, 0], "class_due/yes": [1, 1], "class_given/yes": [1, 0],
        "class_right/yes": [1, 0], "class_due/no": [1, 1], "class_given/no": [1, 1], "class_right/no": [1, 0],
    }  # fmt: skip


def test_a_sheet_of_some_columns_counts_these_alone() -> None:
    sheet = Accuracy().coded(DIGITS)
    needed = Accuracy().needs("accuracy", sheet.columns)
    assert needed == ("asked/", "right/")
    codes = sheet.codes(choices_text(DIGITS, answers(DIGITS, "110")))
    narrow = sheet.narrowed(needed).counted(codes)
    assert narrow.counts.tolist() == sheet.counted(codes).counts[:, :2].tolist()
    values = Accuracy().values(narrow.counts.sum(axis=0), narrow.columns)
    assert values.keys() == {"accuracy"}
    assert values["accuracy"] == pytest.approx(27 / 40)


@pytest.mark.parametrize(
    ("text", "said"),
    [("000", "3 answers to 40 samples"), ("a" * 40, "`0` with `a`"), ("0" * 39 + "é", "`39` with `é`")],
)
def test_a_text_that_does_not_fit_the_samples_is_refused(text: str, said: str) -> None:
    with pytest.raises(UntrustedRecord, match=said):
        Accuracy().coded(DIGITS).codes(text)


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        Accuracy().tally(DIGITS, ["x"] * 40)


def many(n: int = 500) -> tuple[CodedSamples, list[Tally]]:
    """Returns a sheet of images with three questions each, and two tallies on it."""
    asked = [dataclasses.replace(s, group="") for s in samples(3 * n, "", 3)]
    sheet = Accuracy().coded(asked)
    return sheet, [sheet.tally(answers(asked, right)) for right in ("1101001", "11101")]


def test_pictures_are_drawn_alike_for_every_method_and_figure() -> None:
    sheet, (first, second) = many()
    values = Accuracy().values
    alone = resample({"a": first}, values, "accuracy", 50)
    both = resample({"b": second, "a": first}, values, "accuracy", 50)
    assert alone.draws[:, 0].tolist() == both.draws[:, 1].tolist()
    narrow = Tally(first.clusters, first.strata, sheet.columns[:2], first.counts[:, :2])
    assert picture_draws(narrow, values, 50, 0)["accuracy"].tolist() == alone.draws[:, 0].tolist()


def test_drawing_pictures_is_drawing_with_replacement() -> None:
    # Each image counts itself: sums are how often it was drawn.
    n = 401
    tally = Tally(tuple(map(str, range(n))), ("",) * n, tuple(map(str, range(n))), np.eye(n, dtype=np.int16))
    times = picture_draws(tally, lambda sums, columns: {c: sums[:, i] for i, c in enumerate(columns)}, 400, 3)
    drawn = np.array(list(times.values()))
    assert (drawn.sum(axis=0) == n).all()
    # Multinomial: mean 1 and variance 1 - 1 / n of each; e^-1 of all are not drawn.
    assert drawn.var() == pytest.approx(1, abs=0.02)
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.005)


def test_pictures_are_drawn_within_their_stratum() -> None:
    right = np.repeat([1, 0], [300, 200])
    tally = Tally(
        tuple(map(str, range(500))), ("a",) * 300 + ("b",) * 200, ("asked/", "right/"),
        np.stack([np.ones(500, dtype=int), right], axis=1),
    )  # fmt: skip
    assert cluster_bootstrap(tally, Accuracy().values)["accuracy"] == (0.6, 0.6)


def test_fractions_and_large_numbers_are_added_up_in_double_precision() -> None:
    counts = np.full((401, 1), 2.0**30 + 1)
    tally = Tally(tuple(map(str, range(len(counts)))), ("",) * len(counts), ("x",), counts)
    drawn = picture_draws(tally, lambda sums, columns: {"x": sums[:, 0]}, 5, 0)["x"]
    assert set(drawn.tolist()) == {(2.0**30 + 1) * len(counts)}


def test_an_added_run_takes_a_boards_memory_for_its_answers_and_not_for_counts_of_them(tmp_path: Path) -> None:
    asked = [dataclasses.replace(s, choices=tuple("0123456789"), answer=str(i % 10)) for i, s in
             enumerate(samples(3000))]  # fmt: skip
    of = task("digits", "Digits")
    peaks = [peak_of(store_of(tmp_path / str(n), of, asked, n), of) for n in (8, 24)]
    added = (peaks[1] - peaks[0]) / 16
    # Two texts of 3,000 characters, and while the task is resampled 3,000 x 2 counts of two bytes and sums of them;
    # in double precision and all columns, counts alone would be 3,000 x 32 x 8 = 768,000 bytes.
    assert added < 120_000, added


def store_of(folder: Path, of: object, asked: list[Sample], n_runs: int) -> Store:
    store = store_in(folder)
    for number in range(n_runs):
        keep(store, record(store, of, asked, "1" * (number % 5 + 1) + "0", recipe("lora", number)))  # type: ignore[arg-type]
    return store


def peak_of(store: Store, of: object) -> int:
    tracemalloc.start()
    (board,) = boards(store, {"digits": of}, 200)  # type: ignore[dict-item]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert Counter(row.label for row in board.rows) == {"lora": 1}
    return peak
