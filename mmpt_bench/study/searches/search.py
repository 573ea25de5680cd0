"""The search of learning rates: one protocol for every method, and what of it is still to be done."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.files import jsonl, loads
from mmpt_bench.common.values import from_plain
from mmpt_bench.data.rows import is_generated
from mmpt_bench.records import keys
from mmpt_bench.records.keys import RATE, without_rate
from mmpt_bench.records.rate_curve import Progress, Protocol, grid_between, progress
from mmpt_bench.records.rate_trials import TESTS, TRIALS, Search, TrialFile
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.estimate import paces
from mmpt_bench.runs.option_texts import Names, comma_text
from mmpt_bench.runs.options import Options, SearchOptions, make_request
from mmpt_bench.runs.request import Request
from mmpt_bench.sources.prepared import Prepared
from mmpt_bench.study.searches.trials import Judge, prepare


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
