"""How prompt forms differ: scores over all orders of the labels, paired differences, and what the order alone does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmpt_bench.board.ranking import resampled_headline
from mmpt_bench.common.hashing import derive
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.scoring import counts_of_replies, figures
from mmpt_bench.evaluation.task import Task
from mmpt_bench.stats.differences import Difference, holm, method_difference, share_as_far, swapped_differences
from mmpt_bench.stats.intervals import Interval, percentile
from mmpt_bench.stats.resampling import Resampled, Runs, Tally

RESAMPLES = 2000


@dataclass(frozen=True)
class Said:
    """What one model said to one form."""

    method: str
    seed: int | None
    """None for a method that does not train."""
    form: str
    names_labels: bool
    """The form names the labels, so that their order changes what is asked."""
    replies: tuple[list[str], ...]
    """By order of the labels, then by item."""
    ranked: tuple[list[str], ...]
    """The most probable label, likewise."""
    prompt_tokens: float
    """A question, on average, with what is asked first."""
    reply_tokens: float

    def answers(self, task: Task, items: Sequence[Sample]) -> list[list[str | None]]:
        """Returns the answers that the task's headline is of, by order."""
        if task.decode == "rank":
            return [list(of_order) for of_order in self.ranked]
        return [[task.read(r, s.choices) for r, s in zip(of, items, strict=True)] for of in self.replies]


@dataclass(frozen=True)
class PromptRow:
    """A method in a form."""

    method: str
    form: str
    seeds: tuple[int, ...]
    """Empty for a method that does not train."""
    n: int
    """Items."""
    orders: int
    """Orders of the labels, each item in all of them."""
    score: float
    """Mean over seeds; the answers of all orders count."""
    interval: Interval | None
    """95 %, over images, and over seeds where there are several."""
    strict: float
    """The same of the replies as they are read."""
    unreadable: float
    """Share of replies in which a person reads no label."""
    by_order: tuple[float, ...]
    """Score of each order; empty where the form does not name the labels."""
    same: float | None
    """Share of items with the same answer in all orders."""
    prompt_tokens: float
    reply_tokens: float
    difference: Difference | None = None
    """From the first form of the method; None for that one itself."""
    p_holm: float | None = None
    """After Holm, over all differences of the table."""


def prompt_rows(task: Task, items: Sequence[Sample], said: Sequence[Said]) -> tuple[PromptRow, ...]:
    """Returns a row for each method and form, with the difference from the method's first form."""
    methods = dict.fromkeys(each.method for each in said)
    made = [row for method in methods for row in _of_method(task, items, [s for s in said if s.method == method])]
    compared = [number for number, row in enumerate(made) if row.difference is not None]
    adjusted = holm([made[number].difference.p for number in compared])  # type: ignore[union-attr]
    for number, p in zip(compared, adjusted, strict=True):
        made[number] = replace(made[number], p_holm=p)
    return tuple(made)


def _of_method(task: Task, items: Sequence[Sample], said: Sequence[Said]) -> list[PromptRow]:
    coded = task.metric.coded(items)
    by_form: dict[str, list[Said]] = {}
    for each in said:
        by_form.setdefault(each.form, []).append(each)
    runs: dict[str, Runs] = {}
    for form, of_seeds in by_form.items():
        tallies = {each.seed: _pooled([coded.tally(one) for one in each.answers(task, items)]) for each in of_seeds}
        runs[form] = tallies[None] if None in tallies else {s: t for s, t in tallies.items() if s is not None}
    resampled = resampled_headline(runs, task, RESAMPLES)
    names = list(by_form)
    rows = []
    for number, (form, of_seeds) in enumerate(by_form.items()):
        row = _row(task, items, of_seeds, None if resampled is None else percentile(resampled.draws[:, number]))
        if number and resampled is not None:
            row = replace(row, difference=_difference(task, resampled, runs, form, names[0]))
        rows.append(row)
    return rows


def _pooled(tallies: Sequence[Tally]) -> Tally:
    """Returns the counts of all orders added up."""
    counts = np.stack([each.counts for each in tallies])
    return replace(tallies[0], counts=counts.sum(axis=0, dtype=np.result_type(counts, np.int64)))


def _difference(task: Task, resampled: Resampled, runs: Mapping[str, Runs], form: str, first: str) -> Difference:
    """Returns how far a form is above the first: of the method with two seeds or more, else of the checkpoint."""
    if len(resampled.seeds) > 1:
        return method_difference(resampled, form, first)
    a, b = (run if isinstance(run, Tally) else next(iter(run.values())) for run in (runs[form], runs[first]))
    drawn = resampled.draws[:, resampled.column(form)] - resampled.draws[:, resampled.column(first)]
    estimate = float(resampled.estimates[resampled.column(form)] - resampled.estimates[resampled.column(first)])
    seed = derive(0, f"forms/{task.name}")
    swaps, exact = swapped_differences(a, b, task.metric.values, task.headline, RESAMPLES, seed)
    return Difference(estimate, percentile(drawn), share_as_far(swaps, estimate, exact))


def _row(task: Task, items: Sequence[Sample], said: Sequence[Said], interval: Interval | None) -> PromptRow:
    coded, first = task.metric.coded(items), said[0]
    answers = [each.answers(task, items) for each in said]
    read = [[[task.read(r, s.choices) for r, s in zip(of, items, strict=True)] for of in each.replies] for each in said]
    unreadable = [counts_of_replies(task, items, of)["n_unparsed"] for each in said for of in each.replies]
    n_orders = len(first.replies)

    def figure(of_orders: Sequence[Sequence[str | None]]) -> float:
        pooled = _pooled([coded.tally(one) for one in of_orders])
        return figures(task, pooled.counts.sum(axis=0), pooled.columns).get(task.headline, float("nan"))

    by_order: tuple[float, ...] = ()
    same: float | None = None
    if first.names_labels and n_orders > 1:
        by_order = tuple(float(np.mean([figure([of[k]]) for of in answers])) for k in range(n_orders))
        same = float(np.mean([[len(set(one)) == 1 for one in zip(*of, strict=True)] for of in answers]))
    return PromptRow(
        first.method,
        first.form,
        tuple(each.seed for each in said if each.seed is not None),
        len(items),
        n_orders if first.names_labels else 1,
        float(np.mean([figure(of) for of in answers])),
        interval,
        float(np.mean([figure(of) for of in read])),
        float(np.mean(unreadable)) / len(items),
        by_order,
        same,
        float(np.mean([each.prompt_tokens for each in said])),
        float(np.mean([each.reply_tokens for each in said])),
    )
