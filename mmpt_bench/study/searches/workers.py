"""`tune --workers N|ray|slurm`: who makes the trials of a command: processes, by the trials' locks, or an engine."""

from __future__ import annotations

import dataclasses
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, MutableSet, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import Interrupted, MachineError
from mmpt_bench.common.locks import LONGEST_WAIT
from mmpt_bench.common.words import counted
from mmpt_bench.records.environment import environment
from mmpt_bench.records.learning_rates import Choice
from mmpt_bench.records.rate_trials import TRIALS, TrialFile
from mmpt_bench.records.store import Store
from mmpt_bench.runs.workers import engines
from mmpt_bench.runs.workers.backends import count_of, engine_of
from mmpt_bench.runs.workers.message import check_versions, know_families, own_families
from mmpt_bench.runs.workers.processes import Tell, told_by_workers
from mmpt_bench.study.searches.rounds import Faults, Item, Making, Told, gathered, silent, trial_held, trial_path, tune
from mmpt_bench.study.searches.search import Known, SearchPlan, plan_search


@dataclass(frozen=True)
class TrialMessage:
    """What is sent to a worker: what was asked for, and, for an engine's task, one trial of it."""

    given: Any
    """What `plan_search` takes: the methods, and the options."""
    keys: tuple[str, ...]
    """Of the searches, as the command plans them."""
    versions: Mapping[str, str]
    families: tuple[Path, ...]
    folder: Path
    """Where the command was typed, for paths in the request."""
    stop: Path = Path()
    """A file that tells workers elsewhere to stop, when it is there."""
    trial: tuple[str, float, int] = ("", 0.0, 0)
    """Key of its search, rate, seed."""

    @classmethod
    def of(cls, given: Any, plan: SearchPlan) -> TrialMessage:
        """Returns the message that tells of all searches."""
        keys = tuple(of.search.key for of in plan.sought)
        return cls(given, keys, environment()["versions"], own_families(), Path.cwd())


def tune_by(
    workers: int | str, given: Any, plan: SearchPlan, told: Told, stopping: Callable[[], bool]
) -> Iterator[Choice]:
    """Yields the choice of each search as `tune` does, and raises as it does.

    Args:
        workers: 1 for this process, a number of processes, "ray", "ray://HOST", "slurm".
        given: what the plan was made from.
        plan: from `plan_search`.
        told: of each new trial.
        stopping: asked all the time.
    """
    if engine := engine_of(workers):
        yield from _on_engine((engine, given[1].get("gpus_per_unit")), given, plan, told, stopping)
    elif (n := count_of(workers)) > 1:
        yield from _in_processes(n, given, plan, told, stopping)
    else:
        yield from tune(plan, told, stopping)


def _in_processes(n: int, given: Any, plan: SearchPlan, told: Told, stopping: Callable[[], bool]) -> Iterator[Choice]:
    """Does so in processes of this machine."""
    chosen: set[str] = set()
    for name, *parts in told_by_workers(n, work_on_trials, TrialMessage.of(given, plan), (), stopping):
        if name == "trial":
            told(*parts)
        elif name == "choice" and parts[0].search.key not in chosen:
            # Every worker comes to the end of every search.
            chosen.add(parts[0].search.key)
            yield parts[0]


def work_on_trials(message: TrialMessage, tell: Tell, stopping: Callable[[], bool], _tried: MutableSet[str]) -> None:
    """Makes the trials that no other worker makes, and tells of each, and of the choices."""
    for choice in tune(_planned_anew(message), lambda label, trial: tell("trial", label, trial), stopping):
        tell("choice", choice)


def _planned_anew(message: TrialMessage) -> SearchPlan:
    """Returns the plan as this process makes it; MachineError where packages or searches are others here."""
    check_versions(message.versions)
    know_families(message.families)
    method, options = message.given
    plan = plan_search(method, options)
    if tuple(of.search.key for of in plan.sought) != message.keys:
        raise MachineError(
            "This worker plans other searches: data or methods are others than for the command. Give both the same "
            "checkout, data and results folder."
        )
    return plan


def _on_engine(
    engine: tuple[str, float | None], given: Any, plan: SearchPlan, told: Told, stopping: Callable[[], bool]
) -> Iterator[Choice]:
    """Does so on an engine: the trials of a round, of all searches, are its tasks, all submitted together.

    A task keeps its trial in a file of its own; this process takes them over in the order of the protocol, so that the
    results folder is that of one process. What a process left that was killed is taken over first.
    """
    store = Store(plan.request.out)
    store.check_writable()
    open_: dict[int, engines.Task] = {}
    with engines.submitting(engine, store, do_trial, open_) as (submit, stop):
        whole = dataclasses.replace(TrialMessage.of(given, plan), stop=stop)

        def do_round(todo: Sequence[Item], known: Known) -> Faults:
            todo, faults = gathered(plan, store, todo, known), []
            messages = [dataclasses.replace(whole, trial=(of.search.key, rate, seed)) for of, rate, seed in todo]
            open_.update(enumerate(submit(messages)))
            while open_:
                if stopping():
                    raise Interrupted(f"{counted(len(open_), 'trial is', 'trials are')} under way")
                for place in [place for place, task in open_.items() if task.done()]:
                    fault = _fault(open_.pop(place))
                    if fault is not None:
                        faults.append((todo[place][0], fault))
                    for trial in TrialFile(trial_path(store, todo[place], TRIALS)).read().trials:
                        told(todo[place][0].label, trial)
                time.sleep(engines.LOOK_SECONDS)
            gathered(plan, store, todo, known)
            return faults

        yield from tune(plan, told, stopping, do_round)


def _fault(task: engines.Task) -> Exception | None:
    """Returns what went wrong with a task's trial, or with the task."""
    try:
        fault: Exception | None = task.result()
    except Exception as error:
        return engines.lost(error, "a trial")
    return fault


_KEPT: dict[bytes, Making] = {}


def do_trial(message: TrialMessage) -> Exception | None:
    """Makes the trial of a message in this process, keeps it in its file, and returns what went wrong.

    The plan and the backbone of the message before stay, where the engine gives one process several tasks.
    """
    os.chdir(message.folder)
    key = pickle.dumps(dataclasses.replace(message, stop=Path(), trial=TrialMessage.trial))
    try:
        if key not in _KEPT:
            _KEPT.clear()
            plan = _planned_anew(message)
            _KEPT[key] = Making(plan, Store(plan.request.out), silent, bool, own_files=True)
            _KEPT[key].load()
        making = _KEPT[key]
        making.stopping = engines.told_to_stop(message.stop)
        name, rate, seed = message.trial
        (of,) = (each for each in making.plan.sought if each.search.key == name)
        with trial_held(making.store, (of, rate, seed), LONGEST_WAIT):
            making.make((of, rate, seed), Known(making.store))
    except Interrupted:
        return None
    except Exception as error:
        _KEPT.clear()
        return error
    return None
