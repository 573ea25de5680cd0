"""From predictions to the figures of a record: under the task's own decoding, and under both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np

from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.evaluation.counting import choices_text
from mmpt_bench.evaluation.replies import without_reasoning
from mmpt_bench.evaluation.task import Task
from mmpt_bench.stats.intervals import chance_centred, cluster_bootstrap

DEGENERATE = 0.99
"""Share of one and the same answer above which a model does not look at its images any more."""


def figures(task: Task, sums: np.ndarray, columns: Sequence[str]) -> dict[str, float]:
    """Returns every figure of counts, added up over images, that is defined."""
    values = task.metric.values(sums, columns)
    return {name: value for name in values if not isnan(value := float(values[name]))}


def scored(task: Task, samples: Sequence[Sample], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Returns the fields of a record that follow from a task's predictions, which are in the order of the samples.

    Raises:
        ValueError: a prediction is of another sample, or the task's metric refuses the samples.
    """
    if [p.id for p in predictions] != [s.id for s in samples]:
        raise ValueError("predictions and samples are not of the same questions in the same order")
    answers: dict[str, list[str | None]] = {
        "generate": [p.parsed for p in predictions],
        "rank": [p.ranked for p in predictions],
    }
    sheet = task.metric.coded(samples)
    tallies = {decode: sheet.tally(each) for decode, each in answers.items()}
    values = {decode: figures(task, each.counts.sum(axis=0), each.columns) for decode, each in tallies.items()}
    tally = tallies[task.decode]
    said, due = most_common_share(answers[task.decode]), most_common_share([s.answer for s in samples])
    return {
        "decode": task.decode,
        "headline": task.headline,
        "score": values[task.decode][task.headline],
        "strict": values["generate"].get(task.headline),
        "constrained": values["rank"].get(task.headline),
        "interval": cluster_bootstrap(tally, task.metric.values, task=task.name).get(task.headline),
        "ceiling": task.metric.ceiling(samples),
        "chance": task.metric.chance(samples),
        "values": values[task.decode],
        "n": len(samples),
        "n_pictures": len(set(tally.clusters)),
        **counts_of_replies(task, samples, [p.reply for p in predictions]),
        "degenerate": said > DEGENERATE >= due,
        "parsed_choices": choices_text(samples, answers["generate"]),
        "ranked_choices": choices_text(samples, answers["rank"]),
    }


def centred_score(task: Task, samples: Sequence[Sample], predictions: Sequence[Prediction]) -> float | None:
    """Returns the chance-centred headline of the most probable legal answers, 1 at most; None where it is undefined.

    Averaged over tasks it is a board's overall score under constrained decoding. Predictions are in the order of the
    samples (else ValueError).
    """
    if [p.id for p in predictions] != [s.id for s in samples]:
        raise ValueError("predictions and samples are not of the same questions in the same order")
    tally = task.metric.coded(samples).tally([p.ranked for p in predictions])
    score = figures(task, tally.counts.sum(axis=0), tally.columns).get(task.headline)
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
