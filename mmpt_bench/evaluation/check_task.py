"""Proof that a task is one: rows become sound samples, and scores reach from the lowest to the ceiling."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.checking import CheckFailed, CheckResult, outcome, require
from mmpt_bench.common.errors import RunFailed
from mmpt_bench.common.words import counted
from mmpt_bench.data.images import key_clashes
from mmpt_bench.evaluation.counting import choices_text, is_open
from mmpt_bench.evaluation.functions import FunctionMetric
from mmpt_bench.evaluation.scoring import figures

if TYPE_CHECKING:
    from mmpt_bench.data.samples import Sample
    from mmpt_bench.evaluation.task import Task

NONSENSE = "qqqq xxxx"
"""A wrong answer to every open question."""
MIXTURES = 5
"""Random sets of answers that "all wrong" must not beat."""


def check_task(task: Task, rows: Sequence[Mapping[str, Any]], label_names: Sequence[str] = ()) -> list[CheckResult]:
    """Returns what a task passes on some of its rows; the ones of MME must hold both questions of each image."""
    samples: list[Sample] = []

    def build() -> str:
        require(bool(rows), "there is no row to check it on")
        samples.extend(task.sample(row, number, label_names) for number, row in enumerate(rows))
        return counted(len(samples), "sample")

    if isinstance(task.metric, FunctionMetric):
        task = replace(task, metric=task.metric.held_to_references())
    results = [outcome("rows become samples", build)]
    if not results[0].ok:
        return results
    checks: dict[str, Callable[[], str]] = {
        "ids are unique": lambda: _ids_are_unique(samples),
        "an image key is one image": lambda: _keys_are_images(samples),
        "answers are among the choices": lambda: _answers_are_choices(task, samples),
        "choices parse to themselves": lambda: _choices_are_read(task, samples),
        "prompts are not empty": lambda: _prompts_hold_words(samples),
        "all right scores the ceiling": lambda: _right_is_highest(task, samples),
        "all wrong scores the lowest": lambda: _wrong_is_lowest(task, samples),
        "the metric has its figures": lambda: _figures_are_there(task, samples),
        "a bad value names its column": lambda: _bad_values_are_named(task, rows[0], label_names),
    }
    # Forms name the classes of the task's own data; generated rows have others.
    if task.forms and {*(task.data.classes or label_names)} == {*label_names}:
        checks["its forms of prompts can be written"] = lambda: _forms_are_written(task, rows, label_names)
    return results + [outcome(name, check) for name, check in checks.items()]


def _ids_are_unique(samples: list[Sample]) -> str:
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise CheckFailed(f"{len(samples) - len({s.id for s in samples})} ids occur twice, first `{sample.id}`")
        seen.add(sample.id)
    return f"{len(samples)} ids"


def _keys_are_images(samples: list[Sample]) -> str:
    clashes = key_clashes((f"sample `{sample.id}`", image) for sample in samples for image in sample.images)
    if clashes:
        raise CheckFailed(f"{counted(len(clashes), 'key stands', 'keys stand')} for several images: {clashes[0]}")
    return f"{len({image.key for sample in samples for image in sample.images})} images"


def _answers_are_choices(task: Task, samples: list[Sample]) -> str:
    for sample in samples:
        if not sample.choices:
            require(all(map(str.strip, sample.accepted)), f"`{sample.id}` accepts an empty answer")
            require(sample.answer in sample.accepted, f"`{sample.id}`: `{sample.answer}` is none of its references")
            continue
        require(len(set(sample.choices)) == len(sample.choices) > 1, f"`{sample.id}` has choices {sample.choices}")
        require(sample.answer in sample.choices, f"`{sample.id}`: `{sample.answer}` is not among {sample.choices}")
    if is_open(samples):
        require(not any(sample.choices for sample in samples), "some questions are open, and some have choices")
        require(task.decode == "generate", "open questions have nothing to rank: `decode` is `generate`")
        return "open questions"
    return "all of them"


def _choices_are_read(task: Task, samples: list[Sample]) -> str:
    pairs = {(choice, sample.choices) for sample in samples for choice in sample.choices or (sample.answer,)}
    for choice, choices in sorted(pairs):
        found = task.parse(choice, choices)
        require(found == choice, f"the reply `{choice}` is read as `{found}`")
    return counted(len(pairs), "reply", "replies")


def _prompts_hold_words(samples: list[Sample]) -> str:
    empty = [sample.id for sample in samples if not sample.question.strip()]
    if empty:
        raise CheckFailed(f"{counted(len(empty), 'question is', 'questions are')} empty, first of `{empty[0]}`")
    return "none is"


def _forms_are_written(task: Task, rows: Sequence[Mapping[str, Any]], label_names: Sequence[str]) -> str:
    for name, form in task.forms.items():
        for first in (False, True)[: 2 if form.first else 1]:
            asked = task.asking(form, first=first)
            try:
                empty = [row for number, row in enumerate(rows) if not asked.sample(row, number, label_names).question]
            except ValueError as error:
                raise CheckFailed(f"`{name}`: {error}") from error
            require(not empty, f"`{name}` asks nothing of {counted(len(empty), 'row')}")
    return counted(len(task.forms), "form")


def _figures(task: Task, samples: list[Sample], choices: Sequence[str | None]) -> dict[str, float]:
    sheet = task.metric.coded(samples)
    try:
        return figures(task, sheet.sums(sheet.codes(choices_text(samples, choices))), sheet.columns)
    except RunFailed as error:
        raise CheckFailed(str(error)) from error


def _headline(task: Task, figures: dict[str, float]) -> float:
    require(task.headline in figures, f"there is no figure `{task.headline}`, only {', '.join(sorted(figures))}")
    return float(figures[task.headline])


def _right_is_highest(task: Task, samples: list[Sample]) -> str:
    score = _headline(task, _figures(task, samples, [s.answer for s in samples]))
    ceiling = task.metric.ceiling(samples)
    # One caption of several may be below what all of them together would reach.
    is_reached = abs(score - ceiling) <= 1e-9 * max(1.0, abs(ceiling)) or not task.declared.resampled
    require(is_reached, f"all right scores {score}, the ceiling is {ceiling}")
    return f"{task.headline} {score:g}"


def _wrong_is_lowest(task: Task, samples: list[Sample]) -> str:
    wrong = {s.id: [choice for choice in s.choices or (NONSENSE,) if choice != s.answer] for s in samples}
    for sample in samples:
        require(bool(wrong[sample.id]), f"`{sample.id}` has no wrong answer among its choices {sample.choices}")
    all_wrong = [wrong[s.id][0] for s in samples]
    lowest, draw = _headline(task, _figures(task, samples, all_wrong)), random.Random(0)
    others: list[list[str | None]] = [
        [draw.choice(s.choices or (*s.accepted, None)) for s in samples] for _ in range(MIXTURES)
    ]
    others += [[None] * len(samples), [s.answer for s in samples]]
    for choices in others:
        score = _headline(task, _figures(task, samples, choices))
        require(not score < lowest, f"all wrong scores {lowest}, and other answers {score}")
    highest = _headline(task, _figures(task, samples, [s.answer for s in samples]))
    require(lowest < highest, f"all wrong scores {lowest}, which is what all right scores")
    return f"{task.headline} {lowest:g}"


def _figures_are_there(task: Task, samples: list[Sample]) -> str:
    figures = _figures(task, samples, [s.answer for s in samples])
    lacking = [name for name in task.metric_names if name not in figures and "/" not in name]
    if lacking:
        raise CheckFailed(f"`metric_names` has `{lacking[0]}`, the metric has not")
    _headline(task, figures)
    chance, ceiling = task.metric.chance(samples), task.metric.ceiling(samples)
    require(
        task.declared.low <= chance < ceiling <= task.declared.high, f"chance is {chance} and the ceiling {ceiling}"
    )
    return f"{counted(len(figures), 'score')}, chance {chance:.4g}"


def _bad_values_are_named(task: Task, row: Mapping[str, Any], label_names: Sequence[str]) -> str:
    """A missing value must stop with the column's name: a default in its place would be scored."""
    columns = task.data.columns
    require(set(columns) <= row.keys(), f"the row lacks {sorted(set(columns) - row.keys())}")
    for column in columns:
        without = {name: value for name, value in row.items() if name != column}
        for bad, kinds in ((without | {column: None}, ValueError), (without, (ValueError, KeyError))):
            try:
                task.sample(bad, 0, label_names)
            except kinds as error:
                require(column in str(error), f"the error on a bad `{column}` does not name it: {error}")
            else:
                raise CheckFailed(f"a row without a value in `{column}` becomes a sample")
    return counted(len(columns), "column")
