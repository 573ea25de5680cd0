"""The search of learning rates: as many tries for each method, on the validation set, with the budget of the runs."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import MachineError, RequestError, RunFailed, UntrustedRecord
from mmpt_bench.common.files import append_jsonl, read_jsonl, write_atomic
from mmpt_bench.common.hashing import content_key, derive
from mmpt_bench.common.locks import LONGEST_WAIT, held, in_turn
from mmpt_bench.records import learning_rates
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.keys import RATE, without_rate
from mmpt_bench.records.learning_rates import Choice
from mmpt_bench.records.store import Store
from mmpt_bench.runs.bad_items import check_examples
from mmpt_bench.runs.request import Request

if TYPE_CHECKING:
    from mmpt_bench.data.examples import Corpus
    from mmpt_bench.engine.models.backbone import Backbone

Range = tuple[float, float]
FOLDER = "tuning"
"""Holds, for each search, its lock and the checkpoints of its unfinished trials."""


@dataclass(frozen=True)
class Trial:
    """One learning rate that was tried."""

    method: str
    rate: float
    loss: float | None
    """Validation loss; None where training failed."""
    reason: str
    """Why it failed."""
    seconds: float


def tune(
    request: Request,
    n_trials: int,
    n_extended: int,
    ranges: Mapping[str, Range],
    told: Callable[[Trial], None] = lambda trial: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Choice]:
    """Yields the choice for each method, keeping every trial in the results folder; trials made before count.

    What goes wrong with one method is raised when the others are done.

    Args:
        request: its methods, with the hyperparameters to search with, training data and budget.
        n_trials: rates that are drawn.
        n_extended: rates that `learning_rates.next_rate` adds.
        ranges: method -> lowest and highest rate, where they are not the method's own.
        told: of each new trial.
        stopping: asked after every step; `Interrupted` is raised when it says so.

    Raises:
        RequestError: a rate is given, none of the methods has one, or examples cannot be used.
        Held: another process is doing one of the searches, and does not end.
    """
    from mmpt_bench.engine.models.backbone import load_backbone

    for name, texts in request.overrides.items():
        if RATE in texts:
            raise RequestError(f"`--set {name}.learning_rate`: the rate is what is searched; `--range` says where.")
    store = Store(request.out)
    methods = [method for entry in request.methods if (method := request.method_of(entry)).trains]
    if not methods:
        raise RequestError("None of these methods has a learning rate to search.")
    store.check_writable()
    check_examples(corpus := request.checked_corpus())
    backbone = load_backbone(request.backbone, request.dtype, request.device, request.offline)

    def search_of(method: Any) -> Search:
        limits = ranges.get(method.name, method.lr_range)
        return Search(store, backbone, corpus, method, request.budget, limits, (n_trials, n_extended), told, stopping)

    def lock(search: Search, wait_seconds: float) -> AbstractContextManager[None]:
        return held(search.path("lock"), f"the search for {search.method.name}", wait_seconds, stopping)

    faults: list[Exception] = []
    for search, lock_held in in_turn(map(search_of, methods), lock, LONGEST_WAIT):
        with lock_held:
            try:
                choice = search.choice()
            except MachineError:
                raise
            except Exception as error:
                faults.append(error)
                # Whatever went wrong may have left the model changed.
                backbone = load_backbone(request.backbone, request.dtype, request.device, request.offline)
                continue
            yield choice
    if faults:
        raise faults[0]


@dataclass(frozen=True)
class Search:
    """The search for one method."""

    store: Store
    backbone: Backbone
    corpus: Corpus
    method: Any
    budget: Budget
    limits: Range
    counts: tuple[int, int]
    """(rates that are drawn, rates that follow)."""
    told: Callable[[Trial], None]
    stopping: Callable[[], bool]

    @functools.cached_property
    def asked(self) -> dict[str, Any]:
        """Returns what is searched, as the fields that trials and choices share."""
        return {
            "method": self.method.name,
            "params": without_rate(dataclasses.asdict(self.method)),
            "backbone_fingerprint": self.backbone.fingerprint,
            "corpus_fingerprint": self.corpus.fingerprint,
            "budget": dataclasses.asdict(self.budget),
        }

    def path(self, *names: str) -> Path:
        """Returns the path of something that is kept while the search goes on."""
        return self.store.path(FOLDER, content_key(self.asked), *names)

    def choice(self) -> Choice:
        """Makes the trials that are not made yet, and returns and keeps the choice."""
        made, (n_trials, n_extended) = _known(self.store, self.asked), self.counts

        def loss_at(rate: float) -> float | None:
            if rate not in made:
                made[rate] = self._trial(rate)
            return made[rate]

        trials = [(rate, loss_at(rate)) for rate in learning_rates.candidates(*self.limits, n_trials)]
        for _ in range(n_extended):
            rate = learning_rates.next_rate(trials)
            trials.append((rate, loss_at(rate)))
        choice = Choice(**self.asked, trials=tuple(trials), extended=n_extended)
        with _files_held(self.store):
            _keep(self.store, choice)
        for checkpoint in self.path().glob("rate-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)
        return choice

    def _trial(self, rate: float) -> float | None:
        """Trains with a rate, keeps the trial, and returns its validation loss; None where training failed."""
        began = time.perf_counter()
        loss, why = self._loss(rate)
        trial = Trial(self.method.name, rate, loss, why, time.perf_counter() - began)
        with _files_held(self.store):
            _keep_trial(self.store, self.asked, trial)
        self.told(trial)
        return loss

    def _loss(self, rate: float) -> tuple[float | None, str]:
        """Returns (validation loss, why there is none)."""
        from mmpt_bench.engine.training.train import TrainingConfig, train, validation_loss

        config, checkpoint = TrainingConfig(self.budget, rate, learning_rates.SEED), self.path(f"rate-{rate:g}")
        method = dataclasses.replace(self.method, learning_rate=rate)
        handle = method.attach(self.backbone, derive(learning_rates.SEED, "init"))
        try:
            train(self.backbone, handle, self.corpus, config, checkpoint, stopping=self.stopping)
            loss = validation_loss(self.backbone, self.corpus, 64, self.budget.max_length)
        except RunFailed as error:
            return None, str(error)
        finally:
            handle.remove()
        return (loss, "") if math.isfinite(loss) else (None, f"the validation loss is {loss}")


def _files_held(store: Store) -> AbstractContextManager[None]:
    """Holds the files that all searches of a results folder write."""
    return held(store.path(FOLDER, "lock"), "the list of searched learning rates", LONGEST_WAIT)


def _known(store: Store, search: Mapping[str, Any]) -> dict[float, float | None]:
    """Returns rate -> loss of the trials of a search that were made already."""
    found = {}
    for number, row in enumerate(read_jsonl(store.path(learning_rates.TRIALS)), start=1):
        try:
            if all(row[name] == value for name, value in search.items()):
                found[float(row["rate"])] = None if row["loss"] is None else float(row["loss"])
        except (KeyError, TypeError, ValueError) as error:
            raise UntrustedRecord(
                f"Line {number} of `{learning_rates.TRIALS}` is no trial. Remove that line."
            ) from error
    return found


def _keep_trial(store: Store, search: Mapping[str, Any], trial: Trial) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result = {"rate": trial.rate, "loss": trial.loss, "reason": trial.reason, "seconds": round(trial.seconds, 1)}
    append_jsonl(store.path(learning_rates.TRIALS), {**search, **result, "time": now})


def _keep(store: Store, choice: Choice) -> None:
    """Writes a choice in the place of an earlier one of the same search."""
    path = store.path(learning_rates.FILE)
    same = dataclasses.replace(choice, trials=(), extended=0)
    others = [each for each in learning_rates.read(path) if dataclasses.replace(each, trials=(), extended=0) != same]
    write_atomic(path, learning_rates.dump([*others, choice]).encode())
