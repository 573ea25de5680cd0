"""`tune --workers N`: processes that make the trials of one command; the trials' locks say who makes which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSet
from typing import Any

from mmpt_bench.common.errors import MachineError
from mmpt_bench.records.learning_rates import Choice
from mmpt_bench.records.rate_trials import Trial
from mmpt_bench.runs.workers.message import check_versions, know_families, own_families
from mmpt_bench.runs.workers.processes import Tell, told_by_workers
from mmpt_bench.study.searches.search import SearchPlan, plan_search, tune


def tune_in_processes(
    n: int, given: Any, plan: SearchPlan, told: Callable[[str, Trial], None], stopping: Callable[[], bool]
) -> Iterator[Choice]:
    """Yields the choice of each search as `tune` does, and raises as it does; `given`: what the plan was made from."""
    from mmpt_bench.records.environment import environment

    chosen: set[str] = set()
    keys = tuple(of.search.key for of in plan.sought)
    message = (given, keys, environment()["versions"], own_families())
    for name, *parts in told_by_workers(n, work_on_trials, message, (), stopping):
        if name == "trial":
            told(*parts)
        elif name == "choice" and parts[0].search.key not in chosen:
            # Every worker comes to the end of every search.
            chosen.add(parts[0].search.key)
            yield parts[0]


def work_on_trials(message: Any, tell: Tell, stopping: Callable[[], bool], _tried: MutableSet[str]) -> None:
    """Makes the trials that no other worker makes, and tells of each, and of the choices."""
    (method, options), keys, versions, families = message
    check_versions(versions)
    know_families(families)
    plan = plan_search(method, options)
    if tuple(of.search.key for of in plan.sought) != keys:
        raise MachineError(
            "This worker plans other searches: data or methods are others than for the command. Give both the same "
            "checkout, data and results folder."
        )
    for choice in tune(plan, lambda label, trial: tell("trial", label, trial), stopping):
        tell("choice", choice)
