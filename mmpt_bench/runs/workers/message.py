"""What a worker is told: a request and the names of runs. It plans anew, and refuses what it would do otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import MachineError
from mmpt_bench.engine.models.families import register_file
from mmpt_bench.records.environment import environment
from mmpt_bench.records.store import Store
from mmpt_bench.runs.plan import Plan
from mmpt_bench.sources.weights import OWN_FAMILIES


@dataclass(frozen=True)
class Asked:
    """How a worker gets the plans of a command."""

    replan: Callable[[Any, Store], Sequence[Plan]]
    """A function at the top of a module, so that its name can be sent."""
    request: Any
    """What it is given: plain values and dataclasses."""


@dataclass(frozen=True)
class Message:
    """What is sent to a worker: no plan, no data, no weights."""

    asked: Asked
    out: Path
    runs: tuple[str, ...]
    """Names of runs, which their keys end: `lora-5c1f…`."""
    backbones: tuple[tuple[str, str], ...]
    """Each backbone and its fingerprint, as the command sees them."""
    versions: Mapping[str, str]
    """Of the packages that the command runs on."""
    folder: Path = Path()
    """Where the command was typed, for paths in the request."""
    stop: Path = Path()
    """A file that tells workers elsewhere to stop, when it is there."""
    families: tuple[Path, ...] = ()
    """The user's files that say where the parts of models are."""

    @classmethod
    def of(cls, asked: Asked, plans: Sequence[Plan], store: Store) -> Message:
        """Returns the message that tells of everything that is open."""
        runs = tuple(dict.fromkeys(job.recipe.run_name for plan in plans for job in plan.open))
        backbones = {(plan.request.backbone, plan.prepared.backbone_fingerprint) for plan in plans}
        versions = environment()["versions"]
        return cls(asked, store.root.absolute(), runs, tuple(sorted(backbones)), versions, families=own_families())

    def narrowed(self, runs: Collection[str]) -> Message:
        """Returns the message that tells of some of its runs alone."""
        return dataclasses.replace(self, runs=tuple(runs))


def own_families() -> tuple[Path, ...]:
    """Returns the user's files that this process knows families of models by (`--family`)."""
    return tuple(sorted({path for _, path in OWN_FAMILIES.values()}))


def know_families(files: Sequence[Path]) -> None:
    """Makes this process know what `own_families` of another one does; raises as `register_file` does."""
    for file in files:
        register_file(file)


def planned_anew(message: Message, whole: bool = False) -> list[Plan]:
    """Returns the plans of a message as this process makes them, with the jobs that it names alone, or `whole`.

    Raises:
        MachineError: packages, a backbone's files or a run's key are others here than where the command runs.
        RequestError, UntrustedRecord: as planning does.
    """
    check_versions(message.versions)
    know_families(message.families)
    plans = message.asked.replan(message.asked.request, Store(message.out))
    here = {plan.request.backbone: plan.prepared.backbone_fingerprint for plan in plans}
    for name, fingerprint in message.backbones:
        if here.get(name) != fingerprint:
            raise MachineError(
                f"The files of backbone `{name}` are others for this worker ({str(here.get(name))[:12]}) than for the "
                f"command ({fingerprint[:12]}). Give both the same folder or revision."
            )
    known = {job.recipe.run_name for plan in plans for job in plan.jobs}
    if lacking := [name for name in message.runs if name not in known]:
        raise MachineError(
            f"This worker does not plan `{lacking[0]}`: data, methods or learning rates are others than for the "
            "command. Give both the same checkout, data and results folder."
        )
    if whole:
        return list(plans)
    return [
        dataclasses.replace(plan, jobs=tuple(job for job in plan.jobs if job.recipe.run_name in message.runs))
        for plan in plans
    ]


def check_versions(wanted: Mapping[str, str]) -> None:
    """Raises MachineError where a package is another here: other versions make other numbers."""
    here = environment()["versions"]
    other = [f"{name} {here.get(name)} and not {version}" for name, version in wanted.items() if here[name] != version]
    if other:
        raise MachineError(f"This worker has {', '.join(other)}. Install the same packages as for the command.")
