"""The search of learning rates: one protocol for every method, its trials shared out among processes."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import MachineError, RequestError
from mmpt_bench.common.escaping import plain_text
from mmpt_bench.common.files import append_jsonl, jsonl, loads, write_atomic
from mmpt_bench.common.locks import LONGEST_WAIT, held, in_turn
from mmpt_bench.common.values import from_plain
from mmpt_bench.data.rows import is_generated
from mmpt_bench.records import keys, learning_rates
from mmpt_bench.records.environment import environment
from mmpt_bench.records.keys import RATE, without_rate
from mmpt_bench.records.learning_rates import Choice
from mmpt_bench.records.rate_curve import Progress, Protocol, grid_between, progress
from mmpt_bench.records.rate_trials import TESTS, TRIALS, Search, Trial, TrialFile
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.bad_items import check_examples
from mmpt_bench.runs.estimate import paces
from mmpt_bench.runs.option_texts import Names, comma_text
from mmpt_bench.runs.options import Options, SearchOptions, make_request
from mmpt_bench.runs.request import Request
from mmpt_bench.sources.prepared import Prepared
from mmpt_bench.study.searches.trials import Judge, Trainer, prepare

if TYPE_CHECKING:
    from mmpt_bench.engine.models.backbone import Backbone

log = logging.getLogger(__name__)

FOLDER = "tuning"
"""Holds, for each trial, its lock, and its checkpoints while it is trained."""


@dataclass(frozen=True)
class Sought:
    """A method, as it is searched."""

    method: Any
    search: Search
    label: str
    """Its name, and what of its hyperparameters is not the default: "lora (r=8)"."""


class Known:
    """The trials that a results folder holds."""

    def __init__(self, store: Store) -> None:
        """Reads them; UntrustedRecord for a line that is none."""
        self.trials, self.tests = TrialFile(store.path(TRIALS)), TrialFile(store.path(TESTS))
        self.now()

    def now(self) -> Known:
        """Reads what was added meanwhile, and returns itself."""
        self.trials.read()
        self.tests.read()
        return self

    def progress(self, search: Search, protocol: Protocol) -> Progress:
        """Returns how far a search is."""
        return progress(protocol, self.trials.scores(search))

    def parts(self, search: Search, rate: float, seed: int, also_test: bool) -> tuple[str, ...]:
        """Returns what a model is still to be scored on: of "dev" and "test"; nothing of one that failed."""
        dev = self.trials.scores(search)
        if (rate, seed) not in dev:
            return ("dev", "test") if also_test else ("dev",)
        tested = (rate, seed) in self.tests.scores(search)
        return ("test",) if also_test and not tested and dev[rate, seed] is not None else ()


@dataclass(frozen=True)
class Cost:
    """What is to be done before all rates are chosen."""

    fewest: int
    """Trainings, where none fails and no best rate is at an edge."""
    most: int
    seconds: float | None
    """Of the most, on one process; None where no trial and no run says how long one takes."""


@dataclass(frozen=True)
class SearchPlan:
    """The searches of a command, and what they run on."""

    request: Request
    protocol: Protocol
    prepared: Prepared
    judge: Judge
    sought: tuple[Sought, ...]

    @property
    def also_test(self) -> bool:
        """Returns whether every model is scored on test data too."""
        return bool(self.judge.test)

    def todo(self, of: Sought, known: Known) -> list[tuple[float, int]]:
        """Returns the trainings of a search that can be made now: of its round, and those that lack a test score."""
        now = known.progress(of.search, self.protocol)
        made = [(point.rate, seed) for point in now.curve.points for seed, _ in point.scores]
        return [*now.todo, *(each for each in made if known.parts(of.search, *each, self.also_test))]

    def cost(self, store: Store) -> Cost:
        """Returns what is still to be done."""
        known, (fewest, most), records = Known(store), self.protocol.trainings, store.records()
        low = high = 0
        seconds: float | None = 0.0
        for of in self.sought:
            now, n_todo = known.progress(of.search, self.protocol), len(self.todo(of, known))
            made = sum(len(point.scores) for point in now.curve.points)
            # In the last round it is known which rates are left.
            is_open = bool(now.todo) and made + len(now.todo) < fewest
            n_low, n_high = ((n - made + n_todo - len(now.todo)) if is_open else n_todo for n in (fewest, most))
            low, high, pace = low + n_low, high + n_high, self._seconds(of, known, records)
            seconds = None if seconds is None or pace is None else seconds + n_high * pace
        return Cost(low, high, seconds)

    def _seconds(self, of: Sought, known: Known, records: Sequence[Record]) -> float | None:
        """Returns what a trial takes, by trials, or else by runs, with this backbone, budget and precision."""

        def like(search: Search) -> bool:
            return dataclasses.replace(search, method="", params={}) == dataclasses.replace(
                of.search, method="", params={}
            )

        near = [trial for trial in known.trials.trials if like(trial.search)]
        own = [trial.seconds for trial in near if trial.search.method == of.search.method]
        took = own or [trial.seconds for trial in near]
        if took:
            return sum(took) / len(took)
        search = of.search
        pace = paces(records, {search.backbone_fingerprint}, {search.dtype}, [search.budget])
        if pace is None or not pace.an_example:
            return None
        asked = [(name, len(item.samples)) for name, item in (*self.judge.dev.items(), *self.judge.test.items())]
        training = pace.training(search.method, self.request.budget)
        return training + sum(pace.asking(name, n) for name, n in asked)


def plan_search(method: Names, options: SearchOptions) -> SearchPlan:
    """Returns the searches of methods; nothing is trained or written.

    Raises:
        RequestError: a rate is given, none of the methods has one, a method with fewer structures, `--dev-tasks` for
            the embedded suite, a task without a dev part, or one whose images cannot be used.
    """
    own = set(SearchOptions.__annotations__) - set(Options.__annotations__)
    named, n = comma_text(options.get("dev_tasks", "")), options.get("structures", 1)
    rest: Any = {name: value for name, value in options.items() if name not in own}
    request = make_request(method, named or "all", rest).plainly("tune")
    if request.objective:
        raise RequestError("`--teacher` is for runs: a search trains on the answers alone.")
    if request.monitor:
        raise RequestError("`--monitor` is for runs: a search looks at dev data when a training is done.")
    low, high = options.get("grid", (Protocol.grid[0], Protocol.grid[-1]))
    protocol = Protocol(grid_between(low, high), tuple(options.get("rounds", Protocol.rounds)))
    if is_generated(request.suite) and named:
        raise RequestError("`--dev-tasks` is for real data: the embedded suite has a dev part of all its tasks.")
    for name, texts in request.overrides.items():
        if RATE in texts:
            raise RequestError(f"`--set {name}.learning_rate`: the rate is what is searched; `--grid` says where.")
    methods = [made for entry in request.methods if (made := request.method_of(entry)).trains]
    if request.stage:
        raise RequestError("Learning rates are searched for whole trainings from a method's own initial values.")
    if not methods:
        raise RequestError("None of these methods has a learning rate to search.")
    variants = [
        dataclasses.replace(made, **changed)
        for made in methods
        for changed in _structures(made, n, request.overrides.get(made.name, {}))
    ]
    has_dev = is_generated(request.suite) or bool(named)
    prepared, judge = prepare(request, has_dev, options.get("also_test", False))
    sought = tuple(_sought(variant, request, prepared, judge) for variant in variants)
    return SearchPlan(request, protocol, prepared, judge, sought)


def _structures(method: Any, n: int, given: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
    """Returns the structures of a method that are searched: what is changed in each; the method as it is for one."""
    if n == 1 or not method.structures:
        return ({},)
    if len(method.structures) < n:
        raise RequestError(f"`--structures {n}`: `{method.name}` declares {len(method.structures)}.")
    fields = {name for changed in method.structures[:n] for name in changed}
    if clash := sorted(fields & set(given)):
        raise RequestError(f"`--structures {n}` and `--set {method.name}.{clash[0]}` set one field: give one of them.")
    return tuple(method.structures[:n])


def _sought(method: Any, request: Request, prepared: Prepared, judge: Judge) -> Sought:
    search = Search(
        method=method.name,
        params=without_rate(dataclasses.asdict(method)),
        backbone_fingerprint=prepared.backbone_fingerprint,
        corpus_fingerprint=prepared.corpus.fingerprint,
        budget=dataclasses.asdict(request.budget),
        dtype=keys.precision(request.dtype),
        criterion=judge.criterion,
        dev_fingerprint=judge.fingerprint,
    )
    # As a line of the trials has it, so that what is read is what was looked for.
    search = from_plain(Search, loads(jsonl(dataclasses.asdict(search))))
    plain = type(method).defaults()
    told = ", ".join(f"{name}={value}" for name, value in search.params.items() if value != plain.get(name))
    return Sought(method, search, f"{method.name} ({told})" if told else method.name)


def tune(
    plan: SearchPlan,
    told: Callable[[str, Trial], None] = lambda label, trial: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Choice]:
    """Yields the choice of each search, keeping every trial in the results folder; trials made before count.

    Trials that another process makes are left for the end of their round. What goes wrong with one search is raised
    when the others are done.

    Args:
        plan: from `plan_search`.
        told: of each new trial, with what its method is called.
        stopping: asked after every step and batch; `Interrupted` is raised when it says so.

    Raises:
        RequestError: examples of the training data cannot be used.
        Held: another process makes a trial, and does not end.
    """
    store = Store(plan.request.out)
    store.check_writable()
    check_examples(plan.prepared.corpus)
    known = Known(store)
    session = _Session(plan, store, known, _backbone(plan.request), told, stopping)
    going, faults = list(plan.sought), []
    while going:
        known.now()
        todo = [(of, rate, seed) for of in going for rate, seed in plan.todo(of, known)]
        waiting = {of.search.key for of, _, _ in todo}
        for of in [of for of in going if of.search.key not in waiting]:
            going.remove(of)
            yield session.choice(of, known)
        lost: set[str] = set()
        for (of, rate, seed), lock in in_turn(todo, session.lock, LONGEST_WAIT, stopping=stopping):
            with lock:
                try:
                    if of.search.key not in lost:
                        session.make(of, rate, seed)
                except MachineError:
                    raise
                except Exception as error:
                    # The first is raised at the end; each is told when it comes.
                    log.warning("%s: %s: %s", of.label, type(error).__name__, plain_text(str(error))[:500])
                    faults.append(error)
                    lost.add(of.search.key)
                    # Whatever went wrong may have left the model changed.
                    session.backbone = _backbone(plan.request)
        going = [of for of in going if of.search.key not in lost]
    if faults:
        raise faults[0]


def _backbone(request: Request) -> Backbone:
    from mmpt_bench.engine.models.backbone import load_backbone

    return load_backbone(request.backbone, request.dtype, request.device, request.offline)


@dataclass
class _Session:
    """What the trials of a command share."""

    plan: SearchPlan
    store: Store
    known: Known
    backbone: Backbone
    told: Callable[[str, Trial], None]
    stopping: Callable[[], bool]

    def path(self, of: Sought, rate: float, seed: int, *names: str) -> Path:
        """Returns the path of something that is kept while a trial is made."""
        return self.store.path(FOLDER, of.search.key, f"rate-{rate:g}-seed-{seed}", *names)

    def lock(self, item: tuple[Sought, float, int]) -> AbstractContextManager[None]:
        """Holds a trial, which one process makes."""
        of, rate, seed = item
        what = f"the trial of {of.label} at {rate:g}, seed {seed}"
        return held(self.path(of, rate, seed, "lock"), what)

    def make(self, of: Sought, rate: float, seed: int) -> None:
        """Makes and keeps a trial, or what of it no other process has made in the meantime."""
        plan = self.plan
        known = self.known.now()
        # Another process may have made it, or seen its rate fail.
        if (rate, seed) not in plan.todo(of, known):
            return
        parts = known.parts(of.search, rate, seed, plan.also_test)
        checkpoint, request = self.path(of, rate, seed, "checkpoint"), plan.request
        sizes = (request.eval_batch, request.micro_batch, request.gradient_checkpointing)
        shared = (plan.prepared.corpus, request.budget, plan.judge, *sizes, self.stopping)
        trainer = Trainer(self.backbone, *shared)
        results, seconds = trainer.trial(of.method, rate, seed, checkpoint, parts)
        for part, result in results.items():
            if part == "test" and "dev" in results and results["dev"].score is None:
                continue
            trial = Trial(
                of.search, rate, seed, result.score, result.by_task, result.reason, round(seconds, 1),
                _threads(), environment()["commit"], _now(),
            )  # fmt: skip
            with self._files_held():
                append_jsonl(self.store.path(TRIALS if part == "dev" else TESTS), trial.row)
            if part == "dev":
                self.told(of.label, trial)
        shutil.rmtree(checkpoint, ignore_errors=True)

    def choice(self, of: Sought, known: Known) -> Choice:
        """Returns the choice of a finished search, and keeps it in the place of an earlier one."""
        now = known.progress(of.search, self.plan.protocol)
        choice = Choice(of.search, now.curve, now.extended, tuple(self.plan.judge.dev))
        path = self.store.path(learning_rates.FILE)
        with self._files_held():
            others = [each for each in learning_rates.read(path) if each.search != of.search]
            write_atomic(path, learning_rates.dump([*others, choice]).encode())
        # Of trials whose process was killed when they were on the disk already.
        for checkpoint in self.store.path(FOLDER, of.search.key).glob("*/checkpoint"):
            shutil.rmtree(checkpoint, ignore_errors=True)
        return choice

    def _files_held(self) -> AbstractContextManager[None]:
        """Holds the files that all searches of a results folder write."""
        return held(self.store.path(FOLDER, "lock"), "the list of searched learning rates", LONGEST_WAIT)


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
