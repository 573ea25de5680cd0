"""Steps to a score: a task learnt from a method's own initial values, and from those that other tasks taught it.

All trainings have the same number of steps in total, those on other tasks counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.hashing import content_key, derive
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.execute import execute
from mmpt_bench.runs.monitoring import read_looks
from mmpt_bench.runs.plan import Plan, plan
from mmpt_bench.runs.request import Request
from mmpt_bench.runs.stages import REPTILE, begins_with
from mmpt_bench.sources.corpora import load_corpus
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM
from mmpt_bench.stats.differences import holm
from mmpt_bench.stats.intervals import Interval, percentile, percentile_p

OWN = "own"
"""The method's own initial values."""
RESAMPLES = 1000


@dataclass(frozen=True)
class TransferRequest:
    """What a user asked: a task to learn, and what was learnt before."""

    request: Request
    target: Entry
    sources: tuple[str, ...]
    """Tasks, or "reptile" over all of the other tasks that are named, or all there are."""
    before: int
    """Steps on a source."""

    @classmethod
    def of(cls, request: Request, sources: Sequence[str], before: int) -> TransferRequest:
        """Returns the request that options stand for; the request's one task is the target.

        Raises:
            RequestError: several targets, a source that is the target or named twice, steps that are no multiples of
                those between two looks, or a method that trains nothing.
        """
        if len(request.tasks) != 1:
            raise RequestError("A transfer is to one task: name one to learn.")
        (target,) = request.tasks
        names = [text if text == REPTILE else task_catalog.find_tasks(text)[0].name for text in sources]
        if not names or target.name in names or len(set(names)) < len(names):
            raise RequestError(f"`--from {','.join(sources)[:80]}`: other tasks than `{target.name}`, each once.")
        every, steps = request.every, request.budget.steps
        if not 0 < before < steps or every < 1 or before % every or steps % every:
            raise RequestError(
                f"`--before {before} --steps {steps} --every {every}`: fewer steps before than in total, and both "
                "multiples of the steps between two looks."
            )
        for entry in request.methods:
            if not request.method_of(entry).trains:
                raise RequestError(f"`{entry.name}` trains nothing.")
        if request.stage:
            raise RequestError("A transfer begins and ends as it says: leave out what else begins or ends a training.")
        return cls(dataclasses.replace(request, monitor=(target,)), target, tuple(names), before)


class Line(NamedTuple):
    """One method from one beginning: its run on the target at each seed."""

    method: str
    init: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class TransferPlan:
    """The runs of a transfer, those on sources first."""

    name: str
    plans: tuple[Plan, ...]
    lines: tuple[Line, ...]


def plan_transfer(asked: TransferRequest, store: Store) -> TransferPlan:
    """Returns what a transfer needs; nothing is run or written.

    Raises:
        RequestError: a task without a training split, or data that cannot be used.
    """
    request = asked.request
    request = dataclasses.replace(request, rates_of=load_corpus(request.train).fingerprint)
    usual = request.prepare()
    steps = request.budget.steps
    plans: dict[str, Plan] = {}

    def planned(entry: Entry, seed: int, on: str | list[str], n: int, stage: dict[str, Any]) -> Recipe:
        """Plans a training of `n` steps on a task, or by Reptile over several, and returns its recipe."""
        if isinstance(on, list):
            stage = {"meta": on}
        own = dataclasses.replace(
            request, methods=(entry,), seeds=(seed,), stage=stage, budget=dataclasses.replace(request.budget, steps=n)
        )
        corpus = own.checked_corpus() if isinstance(on, list) else request.task_corpus(on)
        looked_at = usual.probe if on == asked.target.name else {}
        made = plan(own, store, dataclasses.replace(usual, corpus=corpus, probe=looked_at))
        (job,) = made.jobs
        learnt = "Reptile" if isinstance(on, list) else f"{on} afterwards" if stage.get("from") else on
        label = f"{entry.name}, {learnt}"
        plans.setdefault(job.recipe.run_name, dataclasses.replace(made, jobs=(dataclasses.replace(job, label=label),)))
        return job.recipe

    lines = []
    for entry in request.methods:
        for init in (OWN, *asked.sources):
            runs = []
            for seed in request.seeds:
                if init == OWN:
                    runs.append(planned(entry, seed, asked.target.name, steps, {}).run_name)
                    continue
                source = planned(entry, seed, _tasks_of(asked, init), asked.before, {})
                stage = begins_with(source, asked.before)
                runs.append(planned(entry, seed, asked.target.name, steps - asked.before, stage).run_name)
            lines.append(Line(entry.name, init, tuple(runs)))
    key = content_key([[line.runs for line in lines], request.every], 6)
    return TransferPlan(f"{asked.target.name}-{key}", tuple(plans.values()), tuple(lines))


def _tasks_of(asked: TransferRequest, init: str) -> str | list[str]:
    """Returns the task that a source is, or the tasks that Reptile learns over: never the target."""
    if init != REPTILE:
        return init
    named = [name for name in asked.sources if name != REPTILE]
    every = named if len(named) > 1 else [name for name in task_catalog.task_entries() if name != asked.target.name]
    return sorted(every)


@dataclass(frozen=True)
class TransferRow:
    """One method from one beginning."""

    method: str
    init: str
    steps: tuple[int, ...]
    """In total, at each look."""
    curve: np.ndarray
    """Share of the target's dev questions that are right at each look, mean over seeds."""
    band: np.ndarray
    """(looks, 2), 95 % interval over seeds and questions."""
    reached: float
    """Steps in total until the score that the method's own beginning ends with; infinite where it is not reached."""
    reached_interval: Interval
    last_difference: float | None
    """Of the last look from that of the method's own beginning; None for that itself."""
    last_interval: Interval | None
    p: float | None
    """Of that difference, corrected by Holm over all beginnings of all methods; None with fewer than 6 seeds."""


def run_transfer(
    planned: TransferPlan, store: Store, report: Reporter, stopping: Callable[[], bool]
) -> tuple[Record, ...]:
    """Does what is not yet recorded and returns the new records."""
    store.check_writable()
    report.planned(planned.plans)
    return tuple(execute(planned.plans, store, report, stopping))


def transfer_rows(asked: TransferRequest, planned: TransferPlan, store: Store) -> list[TransferRow]:
    """Returns the curves of each method and beginning, and how many steps each needs.

    Seeds and questions are drawn with replacement, the same for all beginnings of a method; the score to be reached is
    that of each draw.

    Raises:
        RequestError: a run was trained without the looks, before a transfer asked for them.
    """
    every, total, rows = asked.request.every, asked.request.budget.steps, []
    claims = len(asked.request.seeds) >= SEEDS_TO_CLAIM
    for method in dict.fromkeys(line.method for line in planned.lines):
        lines = [line for line in planned.lines if line.method == method]
        right = [_looks(store, line, asked, 0 if line.init == OWN else asked.before) for line in lines]
        begin = [0 if line.init == OWN else asked.before for line in lines]
        steps = [np.arange(first, total + 1, every) for first in begin]
        drawn = list(_draws(right, method))
        level = right[0].mean(axis=(0, 2))[-1]
        for number, line in enumerate(lines):
            curves = np.array([each[number] for each in drawn])
            reached = [_reached(each[number], steps[number], each[0][-1]) for each in drawn]
            apart = np.array([each[number][-1] - each[0][-1] for each in drawn])
            band = np.quantile(curves, [0.025, 0.975], axis=0).T
            own = right[number].mean(axis=(0, 2))
            other = number > 0
            rows.append(
                TransferRow(
                    method, line.init, tuple(map(int, steps[number])), own, band,
                    _reached(own, steps[number], level), _ordered(reached), float(own[-1] - level) if other else None,
                    percentile(apart) if other else None, percentile_p(apart) if other and claims else None,
                )
            )  # fmt: skip
    compared = [row for row in rows if row.p is not None]
    corrected = iter(holm([row.p for row in compared if row.p is not None]))
    return [row if row.p is None else dataclasses.replace(row, p=next(corrected)) for row in rows]


def _looks(store: Store, line: Line, asked: TransferRequest, before: int) -> np.ndarray:
    """Returns right answers, (seeds, looks, questions), as 0 and 1."""
    wanted = list(range(0, asked.request.budget.steps - before + 1, asked.request.every))
    found = []
    for run in line.runs:
        rows = {row["step"]: row for row in read_looks(store.run(run)) if row["task"] == asked.target.name}
        if not set(wanted) <= set(rows):
            raise RequestError(
                f"`{run}` was trained without looks at `{asked.target.name}` every {asked.request.every} steps, so its "
                "curve is not known: delete its folder, or name another one with `--out`."
            )
        found.append([[letter == "1" for letter in rows[step]["right"]] for step in wanted])
    if len({len(look) for looks in found for look in looks}) > 1:
        raise UntrustedRecord(
            f"Looks of {', '.join(f'`{run}`' for run in line.runs)[:120]} are of other questions: delete those folders."
        )
    return np.array(found, dtype=float)


def _draws(right: Sequence[np.ndarray], method: str) -> Iterator[list[np.ndarray]]:
    """Yields the mean curve of each beginning in each bootstrap sample."""
    rng = np.random.default_rng(derive(0, f"transfer {method}"))
    n_seeds, _, n = right[0].shape
    for _ in range(RESAMPLES):
        seeds, questions = rng.integers(n_seeds, size=n_seeds), rng.integers(n, size=n)
        yield [each[seeds][:, :, questions].mean(axis=(0, 2)) for each in right]


def _reached(curve: np.ndarray, steps: np.ndarray, level: float) -> float:
    """Returns the steps of the first look at a score; infinite where there is none."""
    at = np.flatnonzero(curve >= level - 1e-12)
    return float(steps[at[0]]) if len(at) else float("inf")


def _ordered(values: Sequence[float]) -> Interval:
    """Returns the middle 95 % of values of which some are infinite: two of the values themselves."""
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)
