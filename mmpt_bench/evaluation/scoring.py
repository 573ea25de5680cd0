"""From predictions to the figures of a record: under the task's own decoding, and under both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np

from mmpt_bench.common.errors import RunFailed
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.evaluation.counting import choices_text, is_open
from mmpt_bench.evaluation.declared import OWN, declaration, declared_task, values_of, values_text, without_room
from mmpt_bench.evaluation.functions import FunctionMetric
from mmpt_bench.evaluation.replies import without_reasoning
from mmpt_bench.evaluation.task import Task
from mmpt_bench.stats.intervals import Interval, chance_centred, cluster_bootstrap
from mmpt_bench.stats.resampling import Tally

DEGENERATE = 0.99
"""Share of one and the same answer above which a model does not look at its images any more."""


ROUNDING = 1e-9
"""Relative to the most that a score is declared to be: what sums of floats may be beyond it."""


def figures(task: Task, sums: np.ndarray, columns: Sequence[str]) -> dict[str, float]:
    """Returns every figure of counts, added up over images, that is defined.

    Raises:
        RunFailed: a figure is not a number, or outside the range that the metric declares.
    """
    found = {name: float(value) for name, value in task.metric.values(sums, columns).items()}
    for name, value in found.items():
        declared = task.metric.declared(name)
        slack = ROUNDING * max(abs(declared.low), abs(declared.high))
        if not declared.low - slack <= value <= declared.high + slack:
            what = "not a number" if isnan(value) else f"{value:g}"
            raise RunFailed(
                f"`{name}` of {task.title} is {what}, outside its declared range {declared.low:g} to "
                f"{declared.high:g}: correct the metric, or what it declares."
            )
    return found


def scored(
    task: Task,
    samples: Sequence[Sample],
    predictions: Sequence[Prediction],
    own: str = "",
    verdicts: Sequence[float | None] = (),
) -> dict[str, Any]:
    """Returns the fields of a record that follow from a task's predictions, which are in the order of the samples.

    Args:
        own: SHA-256 of the task's file, where it is a user's own.
        verdicts: of the judge, where one scores the task: a grade a sample, None where it could not be read.

    Raises:
        ValueError: a prediction is of another sample, or the task's metric refuses the samples.
        RunFailed: a score is not a number, outside its declared range, or undefined.
    """
    if [p.id for p in predictions] != [s.id for s in samples]:
        raise ValueError("predictions and samples are not of the same questions in the same order")
    texts = {"generate": choices_text(samples, [p.parsed for p in predictions]), "rank": ""}
    if not is_open(samples):
        texts["rank"] = choices_text(samples, [p.ranked for p in predictions])
    answers = [p.parsed if task.decode == "generate" else p.ranked for p in predictions]
    declared, counted = {}, {decode: text for decode, text in texts.items() if text}
    if own or verdicts:
        declared = _declared(task, own, samples, answers, verdicts)
    if verdicts:
        # A verdict is of this run's answers; without it, nothing can be counted anew.
        task = declared_task(task.name, task.version, task.decode, declared["declared"])
        counted = {task.decode: declared["question_values"]}
    sheet = task.metric.coded(samples)
    codes = {decode: sheet.codes(text) for decode, text in counted.items()}
    values = {decode: figures(task, sheet.sums(each), sheet.columns) for decode, each in codes.items()}
    if task.headline not in values.get(task.decode, {}):
        raise RunFailed(f"`{task.headline}` of {task.title} is undefined for its answers{_unread(verdicts)}.")
    tally = sheet.counted(codes[task.decode])
    said, due = most_common_share(answers), most_common_share([s.answer for s in samples])
    return {
        "decode": task.decode,
        "headline": task.headline,
        "score": values[task.decode][task.headline],
        "strict": values.get("generate", {}).get(task.headline),
        "constrained": values.get("rank", {}).get(task.headline),
        "interval": interval_of(task, tally),
        "ceiling": task.metric.ceiling(samples),
        "chance": task.metric.chance(samples),
        "values": values[task.decode],
        "n": len(samples),
        "n_pictures": len(set(tally.clusters)),
        **counts_of_replies(task, samples, [p.reply for p in predictions]),
        "degenerate": said > DEGENERATE >= due,
        "parsed_choices": texts["generate"],
        "ranked_choices": texts["rank"],
        **declared,
    }


def _declared(
    task: Task,
    own: str,
    samples: Sequence[Sample],
    answers: Sequence[str | None],
    verdicts: Sequence[float | None],
) -> dict[str, Any]:
    """Returns what a record says of a task whose file no board runs: its scores' declaration, and what they are of."""
    said = declaration(task, own, samples)
    if told := without_room(said["chance"], said["ceiling"]):
        raise RunFailed(f"In {task.title} {told} Correct the metric; `mmpt-bench check` tries it.")
    found: dict[str, Any] = {"declared": said}
    if isinstance(task.metric, FunctionMetric):
        found["question_values"] = values_text(values_of(task.metric, samples, answers, verdicts))
    elif said["metric"] == OWN:
        sheet = task.metric.coded(samples)
        made = figures(task, sheet.sums(sheet.codes(choices_text(samples, answers))), sheet.columns)
        found["question_values"] = values_text({name: made[name] for name in said["scores"] if name in made})
    return found | ({"n_unjudged": unjudged(answers, verdicts)} if verdicts else {})


def unjudged(answers: Sequence[str | None], verdicts: Sequence[float | None]) -> int:
    """Returns how many answers have a verdict that could not be read."""
    return sum(verdict is None and answer is not None for answer, verdict in zip(answers, verdicts, strict=True))


def _unread(verdicts: Sequence[float | None]) -> str:
    return "" if not verdicts else f": of {len(verdicts):,} verdicts of the judge, none could be read"


def interval_of(task: Task, tally: Tally, n_resamples: int = 2000) -> Interval | None:
    """Returns the interval of the headline of one checkpoint; None where it is not resampled, or is undefined."""
    if not task.declared.resampled:
        return None
    return cluster_bootstrap(tally, task.metric.values, n_resamples, task=task.name).get(task.headline)


def centred_score(task: Task, samples: Sequence[Sample], predictions: Sequence[Prediction]) -> float | None:
    """Returns the chance-centred headline of the most probable legal answers, 1 at most; None where it is undefined.

    Open questions have no legal answers: there the replies count.

    Averaged over tasks it is a board's overall score under constrained decoding. Predictions are in the order of the
    samples (else ValueError).
    """
    if [p.id for p in predictions] != [s.id for s in samples]:
        raise ValueError("predictions and samples are not of the same questions in the same order")
    sheet, of_replies = task.metric.coded(samples), is_open(samples)
    text = choices_text(samples, [p.parsed if of_replies else p.ranked for p in predictions])
    score = figures(task, sheet.sums(sheet.codes(text)), sheet.columns).get(task.headline)
    if score is None:
        return None
    return chance_centred(score, task.metric.chance(samples), task.metric.ceiling(samples))


def counts_of_replies(task: Task, samples: Sequence[Sample], replies: Sequence[str]) -> dict[str, int]:
    """Returns in how many replies a person reads no answer, or another one than the rule, and how many reason first."""
    plain = [task.read_plainly(reply, s.choices) for reply, s in zip(replies, samples, strict=True)]
    by_rule = plain
    if task.plain is not None:
        by_rule = [task.read(reply, s.choices) for reply, s in zip(replies, samples, strict=True)]
    return {
        "n_unparsed": plain.count(None),
        "n_read_otherwise": sum(rule != person for rule, person in zip(by_rule, plain, strict=True)),
        "n_reasoning": sum(without_reasoning(reply) != reply for reply in replies),
        "n_unfinished": sum(without_reasoning(reply) is None for reply in replies),
    }


def most_common_share(answers: Sequence[str | None]) -> float:
    """Returns the share of the answer that is given most often."""
    return Counter(answers).most_common(1)[0][1] / len(answers)
