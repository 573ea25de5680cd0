"""Scores against the share of image tokens that stay: beside the whole image, and beside as many tokens at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmpt_bench.board.ranking import resampled_headline
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.evaluation.pruning import RANDOM, Pruning
from mmpt_bench.evaluation.scoring import counts_of_replies, figures
from mmpt_bench.evaluation.task import Task
from mmpt_bench.stats.differences import method_difference
from mmpt_bench.stats.intervals import Interval, percentile
from mmpt_bench.stats.resampling import Resampled, Runs, Tally

RESAMPLES = 2000
WHOLE = "none"
"""What the kind of a row without pruning is called."""


@dataclass(frozen=True)
class Said:
    """What one model said to a task under one pruning."""

    task: str
    method: str
    seed: int | None
    """None for a method that does not train."""
    pruning: Pruning | None
    """None: the whole image."""
    tokens: int
    """Image tokens that it was shown."""
    predictions: tuple[Prediction, ...]
    """In the order of the items."""
    choose_seconds: float
    """To choose the tokens of a question, in the median."""
    prefill_seconds: float
    """In which the language model reads a question, in the median."""


@dataclass(frozen=True)
class Change:
    """How far a score is above another one on the same questions."""

    estimate: float
    interval: Interval
    """95 %: of the method with two seeds or more, else of this checkpoint."""


@dataclass(frozen=True)
class PruneRow:
    """A method under one pruning, on one task."""

    task: str
    method: str
    kind: str
    share: float
    tokens: int
    seeds: tuple[int, ...]
    """Empty for a method that does not train."""
    n: int
    """Questions."""
    score: float
    """Mean over seeds, by the task's own metric and decoding."""
    interval: Interval | None
    """95 %, over images, and over seeds where there are several."""
    unreadable: float
    """Share of replies in which a person reads no answer."""
    choose_seconds: float
    prefill_seconds: float
    """Of both, the mean over seeds."""
    from_whole: Change | None = None
    """From the same method shown the whole image; None for that row itself."""
    from_random: Change | None = None
    """From as many tokens at random; None for rows without."""


def prune_rows(task: Task, items: Sequence[Sample], said: Sequence[Said]) -> list[PruneRow]:
    """Returns a row for each method and pruning of one task, in the order in which they come."""
    methods = dict.fromkeys(each.method for each in said)
    return [row for method in methods for row in _of_method(task, items, [s for s in said if s.method == method])]


def _of_method(task: Task, items: Sequence[Sample], said: Sequence[Said]) -> list[PruneRow]:
    coded = task.metric.coded(items)
    groups: dict[str, list[Said]] = {}
    for each in said:
        groups.setdefault(_name(each.pruning), []).append(each)
    runs: dict[str, Runs] = {}
    for name, of_seeds in groups.items():
        tallies = {each.seed: coded.tally(_answers(task, each.predictions)) for each in of_seeds}
        runs[name] = tallies[None] if None in tallies else {s: t for s, t in tallies.items() if s is not None}
    resampled = resampled_headline(runs, task, RESAMPLES)
    return [_row(task, items, runs[name], of_seeds, resampled) for name, of_seeds in groups.items()]


def _name(pruning: Pruning | None) -> str:
    return WHOLE if pruning is None else pruning.name


def _answers(task: Task, predictions: Sequence[Prediction]) -> list[str | None]:
    """Returns the answers that the task's headline is of."""
    return [each.ranked if task.decode == "rank" else each.parsed for each in predictions]


def _row(task: Task, items: Sequence[Sample], run: Runs, said: Sequence[Said], resampled: Resampled | None) -> PruneRow:
    first = said[0]
    tallies = [run] if isinstance(run, Tally) else list(run.values())
    scores = [figures(task, t.counts.sum(axis=0), t.columns).get(task.headline, float("nan")) for t in tallies]
    unread = [counts_of_replies(task, items, [p.reply for p in each.predictions])["n_unparsed"] for each in said]
    kind, share = (WHOLE, 1.0) if first.pruning is None else (first.pruning.kind, first.pruning.share)
    return PruneRow(
        first.task,
        first.method,
        kind,
        share,
        first.tokens,
        tuple(each.seed for each in said if each.seed is not None),
        len(items),
        float(np.mean(scores)),
        None if resampled is None else percentile(resampled.draws[:, resampled.column(_name(first.pruning))]),
        float(np.mean(unread)) / len(items),
        float(np.mean([each.choose_seconds for each in said])),
        float(np.mean([each.prefill_seconds for each in said])),
        None if first.pruning is None else _change(resampled, first.pruning.name, WHOLE),
        None if kind in (WHOLE, RANDOM) else _change(resampled, _name(first.pruning), Pruning(RANDOM, share).name),
    )


def _change(resampled: Resampled | None, name: str, other: str) -> Change | None:
    """Returns how far one column is above another; None where a score is undefined on some resamples."""
    if resampled is None:
        return None
    if len(resampled.seeds) > 1:
        found = method_difference(resampled, name, other)
        return Change(found.estimate, found.interval)
    own, beside = resampled.column(name), resampled.column(other)
    drawn = resampled.draws[:, own] - resampled.draws[:, beside]
    return Change(float(resampled.estimates[own] - resampled.estimates[beside]), percentile(drawn))


def by_method(rows: Sequence[PruneRow]) -> Mapping[tuple[str, str], list[PruneRow]]:
    """Returns the pruned rows of each (method, kind), in the order in which they come, largest share first."""
    found: dict[tuple[str, str], list[PruneRow]] = {}
    for row in rows:
        if row.kind != WHOLE:
            found.setdefault((row.method, row.kind), []).append(row)
    return {key: sorted(each, key=lambda row: -row.share) for key, each in found.items()}
