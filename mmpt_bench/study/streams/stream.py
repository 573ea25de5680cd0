"""Streams of tasks: a method learns one task after another; each stage is a run that goes on from the one before it."""

from __future__ import annotations

import dataclasses
import itertools
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.hashing import content_key, derive
from mmpt_bench.common.words import counted
from mmpt_bench.data.examples import Corpus, joined
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.recipe import stops_at
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.records.streams import Stream, Training, write
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.execute import execute
from mmpt_bench.runs.option_texts import comma_text
from mmpt_bench.runs.options import FROZEN, make_request
from mmpt_bench.runs.plan import Plan, plan
from mmpt_bench.runs.request import Request
from mmpt_bench.runs.session import loaded_backbone
from mmpt_bench.runs.stages import JOINT, NEW, REPLAY, Strategy
from mmpt_bench.runs.workers.backends import Do
from mmpt_bench.sources.corpora import load_corpus
from mmpt_bench.sources.prepared import Prepared
from mmpt_bench.study.streams.routes import make_routes


@dataclass(frozen=True)
class StreamRequest:
    """What a user asked to learn one after another."""

    request: Request
    """Methods, evaluated tasks, seeds; the budget is that of each stage."""
    orders: tuple[tuple[str, ...], ...]
    strategies: tuple[Strategy, ...]
    command: str

    @classmethod
    def of(
        cls, request: Request, order: Sequence[str], n_orders: int, strategies: Sequence[str], command: str = ""
    ) -> StreamRequest:
        """Returns the request that options stand for; see `api.stream`.

        Raises:
            RequestError: fewer than two tasks, one twice, more orders than there are, or a method that trains nothing.
        """
        names = [entry.name for text in order for entry in task_catalog.find_tasks(text)]
        if len(names) < 2:
            raise RequestError(f"`--order {','.join(order)}` is one task: a stream has two or more.")
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise RequestError(f"`--order` names `{twice}` twice.")
        evaluated = [entry.name for entry in request.tasks]
        if lacking := [name for name in names if name not in evaluated]:
            raise RequestError(f"`--tasks` leaves out `{lacking[0]}`, which the stream learns: name it, or `all`.")
        for entry in request.methods:
            if not request.method_of(entry).trains:
                raise RequestError(f"`{entry.name}` trains nothing: it has nothing to carry from task to task.")
        if not 1 <= n_orders <= math.factorial(len(names)):
            raise RequestError(f"`--orders {n_orders}`: {len(names)} tasks have 1 to {math.factorial(len(names))}.")
        found = tuple(dict.fromkeys(Strategy.of(text) for text in strategies))
        n = request.budget.steps * request.budget.batch_size
        if none := next((each for each in found if each.kind == REPLAY and not round(n * (each.number or 0))), None):
            raise RequestError(
                f"`{none}` replays none of a stage's {counted(n, 'example')}: take a larger share, or more steps."
            )
        return cls(request, tuple(_orders(tuple(names), n_orders)), found, command)


def _orders(first: tuple[str, ...], n: int) -> Iterator[tuple[str, ...]]:
    """Yields an order, and others that are drawn from a fixed seed, none twice."""
    others = [each for each in itertools.permutations(sorted(first)) if each != first]
    drawn = np.random.default_rng(derive(0, "orders")).permutation(len(others))
    yield first
    yield from (others[int(number)] for number in drawn[: n - 1])


@dataclass(frozen=True)
class StreamPlan:
    """The trainings of a stream, and the runs that they need."""

    stream: Stream
    plans: tuple[Plan, ...]
    """The untuned model first, then stage by stage."""
    corpora: dict[str, Corpus]
    """Training data by task."""


def stream_asked(given: Any, command: str = "") -> StreamRequest:
    """Returns the request that `api.stream` was given: (order, method, strategy, tasks, orders, options)."""
    order, method, strategy, tasks, n_orders, options = given
    request = make_request(method, tasks, options).unjudged("stream")
    names = [text.strip() for text in comma_text(order).split(",") if text.strip()]
    strategies = [text.strip() for text in comma_text(strategy).split(",") if text.strip()]
    words = ["mmpt-bench", "stream", "--order", ",".join(names), "--method", comma_text(method)]
    words += ["--strategy", ",".join(strategies), "--tasks", comma_text(tasks), "--orders", str(n_orders)]
    told = command or f"{shlex.join(words)} (from Python, with options of its own)"
    return StreamRequest.of(request, names, n_orders, strategies, told)


def plans_given(given: Any, store: Store) -> Sequence[Plan]:
    """Returns the plans of what `stream_asked` takes."""
    return plan_stream(stream_asked(given), store).plans


def plan_stream(asked: StreamRequest, store: Store) -> StreamPlan:
    """Returns what a stream needs; nothing is run or written.

    Raises:
        RequestError: a task of the stream without a training split, or data that cannot be used.
    """
    request = dataclasses.replace(asked.request, rates_of=asked.request.rates_of or _searched(asked.request))
    corpora = {name: request.task_corpus(name) for name in asked.orders[0]}
    prepared = request.prepare_tasks()
    usual = request.prepare(prepared)
    plans: dict[str, Plan] = {}

    def named(made: Plan) -> str:
        name = made.jobs[0].recipe.run_name
        plans.setdefault(name, made)
        return name

    base = named(_one(request, method_catalog.named_method(FROZEN), 0, usual, store))
    trainings = []
    for seed, order in itertools.product(request.seeds, asked.orders):
        for entry, strategy in itertools.product(request.methods, asked.strategies):
            # Joint training has no order.
            if strategy.kind != JOINT or order == asked.orders[0]:
                stages = _stages(request, entry, seed, order, strategy, corpora, usual, store)
                made = list(stages)
                runs = tuple(named(each) for each in made)
                trainings.append(Training(_label(made[0]), str(strategy), order, seed, runs))
    train_key = plans[base].jobs[0].recipe.train_key
    results = {name: item.eval_key(train_key) for name, item in usual.tasks.items()}
    learnt = [[name, corpora[name].fingerprint] for name in sorted(corpora)]
    key = content_key([dataclasses.asdict(request.budget), request.dtype, request.suite, learnt, results], 6)
    stream = Stream(
        f"{'-'.join(sorted(corpora))}-{key}", asked.orders[0], tuple(results), base, results, request.limit,
        tuple(trainings), asked.command,
    )  # fmt: skip
    return StreamPlan(stream, tuple(plans.values()), corpora)


def _stages(
    request: Request,
    entry: Entry,
    seed: int,
    order: tuple[str, ...],
    strategy: Strategy,
    corpora: dict[str, Corpus],
    usual: Prepared,
    store: Store,
) -> Iterator[Plan]:
    """Yields the plan of each stage of a training: one run."""
    if strategy.kind == JOINT:
        budget = dataclasses.replace(request.budget, steps=len(order) * request.budget.steps)
        whole = joined([corpora[name] for name in sorted(order)])
        on = dataclasses.replace(usual, corpus=whole)
        yield _one(dataclasses.replace(request, budget=budget), entry, seed, on, store)
        return
    after: list[str] = []
    for number, name in enumerate(order):
        earlier = [corpora[before] for before in order[:number]]
        corpus, own = corpora[name], request
        if strategy.kind == REPLAY:
            corpus = corpus.with_replay(earlier, strategy.number or 0.0)
        if number and strategy.kind != NEW:
            # The first stage is an ordinary run, whatever comes after it.
            stage = {"strategy": str(strategy), "order": list(order[: number + 1]), "after": list(after)}
            stops = {name: value for name, value in request.stage.items() if name in ("stop", "every")}
            own = dataclasses.replace(request, stage=stage | stops)
        made = _one(own, entry, seed, dataclasses.replace(usual, corpus=corpus, before=tuple(earlier)), store)
        after.append(made.jobs[0].recipe.run_name)
        yield made


def _one(request: Request, entry: Entry, seed: int, prepared: Prepared, store: Store) -> Plan:
    """Returns the plan of one run, called by its method and what it learns."""
    made = plan(dataclasses.replace(request, methods=(entry,), seeds=(seed,)), store, prepared)
    learnt = " after ".join(reversed(request.stage.get("order", [prepared.corpus.name])[-2:]))
    how = f" {request.stage['strategy']}" if "order" in request.stage else ""
    label = entry.name if entry.name == FROZEN else f"{entry.name}{how}, {learnt}"
    return dataclasses.replace(made, jobs=(dataclasses.replace(made.jobs[0], label=label),))


def _label(made: Plan) -> str:
    """Returns the method with all that tells its variants apart, which are rows of their own: the hyperparameters that
    are not its defaults, a user's own file, and where an alarm ends the training."""
    (job,) = made.jobs
    file = {"file": job.recipe.method_fingerprint[:8]} if job.recipe.method_fingerprint else {}
    found = dict(sorted(job.changed.items())) | file | stops_at(job.recipe.stage)
    told = ", ".join(f"{name}={value}" for name, value in found.items())
    return f"{job.recipe.method} ({told})" if told else job.recipe.method


def _searched(request: Request) -> str:
    """Returns the fingerprint of the usual training data, whose searched learning rates a stream takes."""
    return load_corpus(request.train).fingerprint


def run_stream(
    planned: StreamPlan,
    store: Store,
    report: Reporter,
    stopping: Callable[[], bool] = lambda: False,
    do: Do = execute,
) -> tuple[Stream, list[Record]]:
    """Does what is not yet recorded, keeps the stream's definition, and returns it with the new records."""
    store.check_writable()
    report.planned(planned.plans)
    stream = write(store, planned.stream)
    made = list(do(planned.plans, store, report, stopping))
    if any(Strategy.of(one.strategy).kind == NEW for one in stream.trainings):
        first = planned.plans[0]
        make_routes(store, stream.name, lambda: loaded_backbone(first), planned.corpora, first.prepared, stopping)
    return stream, made
