"""A sound task passes every check; each way of being wrong fails the check that is named after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmpt_bench.data.dataset import Dataset
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.check_task import check_task
from mmpt_bench.evaluation.counting import CodedSamples, code_samples
from mmpt_bench.evaluation.metrics import Declared, Metric
from mmpt_bench.evaluation.task import Task


class Accuracy(Metric):
    """Share of right answers."""

    def coded(self, samples: Sequence[Sample]) -> CodedSamples:
        return code_samples(
            samples, ("asked", "right"), lambda s, c: ("asked", "right") if c == s.answer else ("asked",)
        )

    def values(self, sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        return {"accuracy": sums[..., 1] / sums[..., 0]}

    def ceiling(self, samples: Sequence[Sample]) -> float:
        return 1.0

    def chance(self, samples: Sequence[Sample]) -> float:
        return 0.5


class LowCeiling(Accuracy):
    """Claims that nothing above one half can be reached."""

    def ceiling(self, samples: Sequence[Sample]) -> float:
        return 0.6


class RewardsErrors(Accuracy):
    """Counts the wrong answers."""

    def values(self, sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        return {"accuracy": 1 - sums[..., 1] / sums[..., 0]}


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> Sample:
    for column in ("name", "question", "answer"):
        if row.get(column) is None:
            raise ValueError(f"`{column}` is missing")
    picture = LazyImage(row["name"], lambda: Image.new("RGB", (2, 2)))
    return Sample(row["name"], picture, row["question"], ("yes", "no"), row["answer"], cluster=row["name"])


def parse(reply: str, choices: Sequence[str]) -> str | None:
    return reply if reply in choices else None


ROWS = [
    {"name": "1", "question": "is it red ?", "answer": "yes"},
    {"name": "2", "question": "is it blue ?", "answer": "no"},
    {"name": "3", "question": "is it there ?", "answer": "yes"},
]
TASK = Task(
    name="colours",
    title="Colours",
    data=Dataset(
        hub="nobody/colours",
        revision="main",
        columns=("name", "question", "answer"),
    ),
    headline="accuracy",
    unit="fraction",
    sample=sample,
    metric=Accuracy(),
    parse=parse,
    decode="generate",
    max_new_tokens=4,
    version=1,
)


def failures(rows: list[dict[str, Any]] | None = None, **changes: Any) -> set[str]:
    """Returns the names of the failed checks of a changed task."""
    results = check_task(dataclasses.replace(TASK, **changes), ROWS if rows is None else rows)
    return {result.name for result in results if not result.ok}


def test_sound_task_passes_everything() -> None:
    results = check_task(TASK, ROWS)
    assert len(results) == 10
    assert not [result for result in results if not result.ok]


def test_repeated_id_fails() -> None:
    assert failures([*ROWS, ROWS[0]]) == {"ids are unique"}


def test_illegal_answer_fails() -> None:
    assert "answers are among the choices" in failures([*ROWS, {"name": "4", "question": "?", "answer": "maybe"}])


def test_choice_that_does_not_parse_fails() -> None:
    assert failures(parse=lambda reply, choices: "yes") == {"choices parse to themselves"}


def test_empty_prompt_fails() -> None:
    assert failures([*ROWS, {"name": "4", "question": " ", "answer": "no"}]) == {"prompts are not empty"}


def test_wrong_ceiling_fails() -> None:
    assert failures(metric=LowCeiling()) == {"all right scores the ceiling"}


def test_metric_that_rewards_errors_fails() -> None:
    assert failures(metric=RewardsErrors()) == {"all right scores the ceiling", "all wrong scores the lowest"}


def test_absent_headline_fails() -> None:
    assert "the metric has its figures" in failures(headline="f1")


def test_default_in_place_of_a_value_fails() -> None:
    def forgiving(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> Sample:
        return sample({"question": "is it red ?", **row, "answer": row.get("answer") or "no"}, number, label_names)

    results = {r.name: r for r in check_task(dataclasses.replace(TASK, sample=forgiving), ROWS)}
    assert "question" in results["a bad value names its column"].detail
    assert not results["a bad value names its column"].ok


def test_error_without_the_column_fails() -> None:
    def silent(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> Sample:
        try:
            return sample(row, number, label_names)
        except ValueError:
            raise ValueError("bad row") from None

    assert failures(sample=silent) == {"a bad value names its column"}


def test_no_rows_is_a_failure_not_a_pass() -> None:
    assert failures([]) == {"rows become samples"}


def test_a_question_with_one_choice_fails_by_name_and_ends_no_check() -> None:
    def alone(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> Sample:
        made = sample(row, number, label_names)
        return dataclasses.replace(made, choices=(made.answer,)) if made.id == "2" else made

    found = {result.name: result for result in check_task(dataclasses.replace(TASK, sample=alone), ROWS)}
    assert len(found) == len(check_task(TASK, ROWS))
    assert not found["answers are among the choices"].ok
    assert "`2` has choices ('no',)" in found["answers are among the choices"].detail
    assert not found["all wrong scores the lowest"].ok
    assert found["all wrong scores the lowest"].detail.startswith("`2` has no wrong answer among its choices")


class Points(Accuracy):
    """Up to 2800 points, added up with the rounding of floating-point numbers."""

    error = 0.0

    def declared(self, figure: str) -> Declared:
        return Declared("points", high=2800.0)

    def values(self, sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        return {"accuracy": sums[..., 1] / sums[..., 0] * 2800 * (1 + self.error)}

    def ceiling(self, samples: Sequence[Sample]) -> float:
        return 2800.0


def test_a_ceiling_is_reached_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, is_reached in ((0.0, True), (5e-10, True), (-5e-10, True), (5e-9, False)):
        monkeypatch.setattr(Points, "error", error)
        found = {r.name: r.ok for r in check_task(dataclasses.replace(TASK, metric=Points(), unit=""), ROWS)}
        assert found["all right scores the ceiling"] is is_reached
