"""From predictions to the figures of a record: under the task's own decoding, and under both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np

from mmpt_bench.data.samples import Prediction, Sample, chosen
from mmpt_bench.evaluation.counting import choices_text
from mmpt_bench.evaluation.task import Task
from mmpt_bench.stats.intervals import cluster_bootstrap

DEGENERATE = 0.99
"""Share of one and the same answer above which a model does not look at its pictures any more."""


def figures(task: Task, sums: np.ndarray, columns: Sequence[str]) -> dict[str, float]:
    """Returns every figure of counts, added up over pictures, that is defined."""
    values = task.metric.values(sums, columns)
    return {name: value for name in values if not isnan(value := float(values[name]))}


def scored(task: Task, samples: Sequence[Sample], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Returns the fields of a record that follow from a task's predictions, which are in the order of the samples.

    Raises:
        ValueError: a prediction is of another sample, or the task's metric refuses the samples.
    """
    if [p.id for p in predictions] != [s.id for s in samples]:
        raise ValueError("predictions and samples are not of the same questions in the same order")
    by_way: dict[str, list[str | None]] = {
        "strict": [p.parsed for p in predictions],
        "constrained": [p.ranked for p in predictions],
    }
    own = [chosen(p, task.decode) for p in predictions]
    sheet = task.metric.coded(samples)
    tally = sheet.tally(own)
    values = figures(task, tally.counts.sum(axis=0), tally.columns)
    intervals = cluster_bootstrap(tally, task.metric.values)
    said = Counter(own).most_common(1)[0][1] / len(own)
    due = Counter(s.answer for s in samples).most_common(1)[0][1] / len(samples)
    return {
        "decode": task.decode,
        "headline": task.headline,
        "score": values[task.headline],
        **{
            way: figures(task, sheet.tally(answers).counts.sum(axis=0), sheet.columns).get(task.headline)
            for way, answers in by_way.items()
        },
        "interval": intervals.get(task.headline),
        "ceiling": task.metric.ceiling(samples),
        "chance": task.metric.chance(samples),
        "values": values,
        "n": len(samples),
        "n_pictures": len(set(tally.clusters)),
        "n_unparsed": sum(not task.reads(p.reply, s.choices) for p, s in zip(predictions, samples, strict=True)),
        "degenerate": said > DEGENERATE >= due,
        "parsed_choices": choices_text(samples, by_way["strict"]),
        "ranked_choices": choices_text(samples, by_way["constrained"]),
    }
