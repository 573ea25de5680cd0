"""The rounds of searches: trials that this process makes, or an engine is given, and the choice when none is left."""

from __future__ import annotations

import datetime
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_bench.common.errors import MachineError
from mmpt_bench.common.escaping import plain_text
from mmpt_bench.common.files import append_jsonl, write_atomic
from mmpt_bench.common.locks import LONGEST_WAIT, held, in_turn
from mmpt_bench.records import learning_rates
from mmpt_bench.records.environment import environment
from mmpt_bench.records.learning_rates import Choice
from mmpt_bench.records.rate_trials import TESTS, TRIALS, Trial, TrialFile
from mmpt_bench.records.store import Store
from mmpt_bench.runs.bad_items import check_examples
from mmpt_bench.runs.request import Request
from mmpt_bench.study.searches.search import Known, SearchPlan, Sought
from mmpt_bench.study.searches.trials import Trainer

if TYPE_CHECKING:
    from mmpt_bench.engine.models.backbone import Backbone

log = logging.getLogger(__name__)

FOLDER = "tuning"
"""Holds, for each trial, its lock, and its checkpoints while it is trained; of an engine's, what it scored."""
FILES = {"dev": TRIALS, "test": TESTS}
Item = tuple[Sought, float, int]
"""A trial: its search, rate and seed."""
Told = Callable[[str, Trial], None]
Faults = list[tuple[Sought, Exception]]
"""What went wrong, and with which search."""
DoRound = Callable[[Sequence[Item], Known], Faults]
"""Makes the trials of a round, of all searches that are not done, and keeps them."""


def silent(label: str, trial: Trial) -> None:
    """Tells nobody."""


def tune(
    plan: SearchPlan,
    told: Told = silent,
    stopping: Callable[[], bool] = lambda: False,
    do: DoRound | None = None,
) -> Iterator[Choice]:
    """Yields the choice of each search, keeping every trial in the results folder; trials made before count.

    Trials that another process makes are left for the end of their round. What goes wrong with one search is raised
    when the others are done.

    Args:
        plan: from `plan_search`.
        told: of each new trial, with what its method is called.
        stopping: asked after every step and batch; `Interrupted` is raised when it says so.
        do: makes the trials of a round; by default this process does.

    Raises:
        RequestError: examples of the training data cannot be used.
        Held: another process makes a trial, and does not end.
    """
    store = Store(plan.request.out)
    store.check_writable()
    check_examples(plan.prepared.corpus)
    known, going, faults = Known(store), list(plan.sought), []
    do = do or Making(plan, store, told, stopping).round
    while going:
        known.now()
        todo = [(of, rate, seed) for of in going for rate, seed in plan.todo(of, known)]
        waiting = {of.search.key for of, _, _ in todo}
        for of in [of for of in going if of.search.key not in waiting]:
            going.remove(of)
            yield _choice(plan, store, of, known)
        found = do(todo, known) if todo else []
        faults += [error for _, error in found]
        lost = {of.search.key for of, _ in found}
        going = [of for of in going if of.search.key not in lost]
    if faults:
        raise faults[0]


def trial_path(store: Store, item: Item, *names: str) -> Path:
    """Returns the path of something that is kept while a trial is made."""
    of, rate, seed = item
    return store.path(FOLDER, of.search.key, f"rate-{rate:g}-seed-{seed}", *names)


def trial_held(store: Store, item: Item, wait_seconds: float = 0.0) -> AbstractContextManager[None]:
    """Holds a trial, which one process makes."""
    of, rate, seed = item
    return held(trial_path(store, item, "lock"), f"the trial of {of.label} at {rate:g}, seed {seed}", wait_seconds)


def keep_trial(store: Store, part: str, trial: Trial) -> None:
    """Appends a trial to the file that all searches of a results folder write."""
    with _files_held(store):
        append_jsonl(store.path(FILES[part]), trial.row)


@dataclass
class Making:
    """The trials of a command, made in this process."""

    plan: SearchPlan
    store: Store
    told: Told
    stopping: Callable[[], bool]
    own_files: bool = False
    """Keep each trial in a file of its own, for whoever gathers them."""
    _backbone: Backbone | None = None

    def round(self, todo: Sequence[Item], known: Known) -> Faults:
        """Makes the trials that no other process makes, and returns what went wrong."""
        faults: Faults = []
        for item, lock in in_turn(
            todo, lambda each: trial_held(self.store, each), LONGEST_WAIT, stopping=self.stopping
        ):
            with lock:
                of = item[0]
                self.load()
                try:
                    if of.search.key not in {each.search.key for each, _ in faults}:
                        self.make(item, known)
                except MachineError:
                    raise
                except Exception as error:
                    # The first is raised at the end; each is told when it comes.
                    log.warning("%s: %s: %s", of.label, type(error).__name__, plain_text(str(error))[:500])
                    faults.append((of, error))
                    # Whatever went wrong may have left the model changed.
                    self._backbone = None
        return faults

    def load(self) -> None:
        """Loads the backbone, where it is not loaded; `make` needs it."""
        self._backbone = self._backbone or _loaded(self.plan.request)

    def make(self, item: Item, known: Known) -> None:
        """Makes and keeps a trial, or what of it no other process has made in the meantime."""
        of, rate, seed = item
        plan, known = self.plan, known.now()
        # Another process may have made it, or seen its rate fail.
        if (rate, seed) not in plan.todo(of, known):
            return
        parts = [
            part
            for part in known.parts(of.search, rate, seed, plan.also_test)
            if not (self.own_files and trial_path(self.store, item, FILES[part]).is_file())
        ]
        if not parts:
            return
        checkpoint, request = trial_path(self.store, item, "checkpoint"), plan.request
        assert self._backbone is not None
        sizes = (request.eval_batch, request.micro_batch, request.gradient_checkpointing)
        shared = (plan.prepared.corpus, request.budget, plan.judge, *sizes, self.stopping)
        trainer = Trainer(self._backbone, *shared)
        results, seconds = trainer.trial(of.method, rate, seed, checkpoint, parts)
        for part, result in results.items():
            if part == "test" and "dev" in results and results["dev"].score is None:
                continue
            trial = Trial(
                of.search, rate, seed, result.score, result.by_task, result.reason, round(seconds, 1),
                _threads(), environment()["commit"], _now(),
            )  # fmt: skip
            if self.own_files:
                append_jsonl(trial_path(self.store, item, FILES[part]), trial.row)
            else:
                keep_trial(self.store, part, trial)
            if part == "dev":
                self.told(of.label, trial)
        shutil.rmtree(checkpoint, ignore_errors=True)


def gathered(plan: SearchPlan, store: Store, todo: Sequence[Item], known: Known) -> list[Item]:
    """Takes over the trials that are in files of their own, in their order, and returns those still to be made.

    A process that is killed in here loses none and keeps none twice: what is recorded is not taken again.
    """
    left = []
    for item in todo:
        of, rate, seed = item
        if (rate, seed) in plan.todo(of, known.now()):
            for part in known.parts(of.search, rate, seed, plan.also_test):
                for trial in TrialFile(trial_path(store, item, FILES[part])).read().trials:
                    keep_trial(store, part, trial)
            if (rate, seed) in plan.todo(of, known.now()):
                left.append(item)
                continue
        for name in FILES.values():
            trial_path(store, item, name).unlink(missing_ok=True)
    return left


def _choice(plan: SearchPlan, store: Store, of: Sought, known: Known) -> Choice:
    """Returns the choice of a finished search, and keeps it in the place of an earlier one."""
    now = known.progress(of.search, plan.protocol)
    choice = Choice(of.search, now.curve, now.extended, tuple(plan.judge.dev))
    path = store.path(learning_rates.FILE)
    with _files_held(store):
        others = [each for each in learning_rates.read(path) if each.search != of.search]
        write_atomic(path, learning_rates.dump([*others, choice]).encode())
    # Of trials whose process was killed when they were on the disk already.
    for checkpoint in store.path(FOLDER, of.search.key).glob("*/checkpoint"):
        shutil.rmtree(checkpoint, ignore_errors=True)
    return choice


def _files_held(store: Store) -> AbstractContextManager[None]:
    """Holds the files that all searches of a results folder write."""
    return held(store.path(FOLDER, "lock"), "the list of searched learning rates", LONGEST_WAIT)


def _loaded(request: Request) -> Backbone:
    from mmpt_bench.engine.models.backbone import load_backbone

    return load_backbone(request.backbone, request.dtype, request.device, request.offline)


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
