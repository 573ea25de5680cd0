"""Proof that a task is one: rows become sound samples, and scores reach from the lowest to the ceiling."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.checking import CheckFailed, CheckResult, outcome, require

if TYPE_CHECKING:
    from mmpt_bench.data.samples import Sample
    from mmpt_bench.evaluation.task import Task

MIXTURES = 5
"""Random sets of answers that "all wrong" must not beat."""


def check_task(task: Task, rows: Sequence[Mapping[str, Any]], label_names: Sequence[str] = ()) -> list[CheckResult]:
    """Returns what a task passes on some of its rows; the ones of MME must hold both questions of each picture."""
    samples: list[Sample] = []

    def build() -> str:
        require(bool(rows), "there is no row to check it on")
        samples.extend(task.sample(row, number, label_names) for number, row in enumerate(rows))
        return f"{len(samples)} samples"

    results = [outcome("rows become samples", build)]
    if not results[0].ok:
        return results
    checks: dict[str, Callable[[], str]] = {
        "ids are unique": lambda: _unique(samples),
        "answers are among the choices": lambda: _legal(samples),
        "choices parse to themselves": lambda: _parse(task, samples),
        "prompts are not empty": lambda: _prompts(samples),
        "all right scores the ceiling": lambda: _ceiling(task, samples),
        "all wrong scores the lowest": lambda: _lowest(task, samples),
        "the metric has its figures": lambda: _figures(task, samples),
        "a bad value names its column": lambda: _bad_values(task, rows[0], label_names),
    }
    return results + [outcome(name, check) for name, check in checks.items()]


def _unique(samples: list[Sample]) -> str:
    seen: set[str] = set()
    twice = [sample.id for sample in samples if sample.id in seen or seen.add(sample.id)]  # type: ignore[func-returns-value]
    require(not twice, f"{len(twice)} ids occur twice, first `{twice[0] if twice else ''}`")
    return f"{len(samples)} ids"


def _legal(samples: list[Sample]) -> str:
    for sample in samples:
        require(len(set(sample.choices)) == len(sample.choices) > 1, f"`{sample.id}` has choices {sample.choices}")
        require(sample.answer in sample.choices, f"`{sample.id}`: `{sample.answer}` is not among {sample.choices}")
    return "all of them"


def _parse(task: Task, samples: list[Sample]) -> str:
    pairs = {(choice, sample.choices) for sample in samples for choice in sample.choices}
    for choice, choices in sorted(pairs):
        found = task.parse(choice, choices)
        require(found == choice, f"the reply `{choice}` is read as `{found}`")
    return f"{len(pairs)} replies"


def _prompts(samples: list[Sample]) -> str:
    empty = [sample.id for sample in samples if not sample.question.strip()]
    require(not empty, f"{len(empty)} questions are empty, first of `{empty[0] if empty else ''}`")
    return "none is"


def _headline(task: Task, samples: list[Sample], choices: Sequence[str | None]) -> float:
    tally = task.metric.coded(samples).tally(choices)
    figures = task.metric.values(tally.counts.sum(axis=0), tally.columns)
    require(task.headline in figures, f"there is no figure `{task.headline}`, only {', '.join(sorted(figures))}")
    return float(figures[task.headline])


def _wrong(sample: Sample) -> str:
    return next(choice for choice in sample.choices if choice != sample.answer)


def _ceiling(task: Task, samples: list[Sample]) -> str:
    score, ceiling = _headline(task, samples, [s.answer for s in samples]), task.metric.ceiling(samples)
    require(
        abs(score - ceiling) <= 1e-9 * max(1.0, abs(ceiling)), f"all right scores {score}, the ceiling is {ceiling}"
    )
    return f"{task.headline} {ceiling:g}"


def _lowest(task: Task, samples: list[Sample]) -> str:
    lowest, draw = _headline(task, samples, [_wrong(s) for s in samples]), random.Random(0)
    others: list[list[str | None]] = [[draw.choice(s.choices) for s in samples] for _ in range(MIXTURES)]
    others += [[None] * len(samples), [s.answer for s in samples]]
    below = [score for score in (_headline(task, samples, choices) for choices in others) if score < lowest]
    require(not below, f"all wrong scores {lowest}, and other answers {below[0] if below else ''}")
    require(lowest < task.metric.ceiling(samples), f"all wrong scores {lowest}, which is the ceiling")
    return f"{task.headline} {lowest:g}"


def _figures(task: Task, samples: list[Sample]) -> str:
    tally = task.metric.coded(samples).tally([s.answer for s in samples])
    figures = task.metric.values(tally.counts.sum(axis=0), tally.columns)
    lacking = [name for name in task.metric_names if name not in figures and "/" not in name]
    require(not lacking, f"`metric_names` has `{lacking[0] if lacking else ''}`, the metric has not")
    require(task.headline in figures, f"there is no figure `{task.headline}`, only {', '.join(sorted(figures))}")
    chance, ceiling = task.metric.chance(samples), task.metric.ceiling(samples)
    require(0 <= chance < ceiling, f"chance is {chance} and the ceiling {ceiling}")
    return f"{len(figures)} figures, chance {chance:.4g}"


def _bad_values(task: Task, row: Mapping[str, Any], label_names: Sequence[str]) -> str:
    """A missing value must stop with the column's name: a default in its place would be scored."""
    require(set(task.data.columns) <= row.keys(), f"the row lacks {sorted(set(task.data.columns) - row.keys())}")
    for column in task.data.columns:
        for bad, kinds in (
            ({**row, column: None}, (ValueError,)),
            ({k: v for k, v in row.items() if k != column}, (ValueError, KeyError)),
        ):
            try:
                task.sample(bad, 0, label_names)
            except kinds as error:
                require(column in str(error), f"the error on a bad `{column}` does not name it: {error}")
            else:
                raise CheckFailed(f"a row without a value in `{column}` becomes a sample")
    return f"{len(task.data.columns)} columns"
