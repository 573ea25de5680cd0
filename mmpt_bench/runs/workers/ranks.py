"""`--parallel ddp|fsdp2`: every training and evaluation shared out among the processes that torchrun started.

The first rank does what `execute` does; the others do what it tells them: train with it, or answer a share of the
questions. It alone holds locks and writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmpt_bench.common.errors import Interrupted, MachineError, RequestError, RunFailed
from mmpt_bench.common.hashing import derive
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.execute import execute
from mmpt_bench.runs.objectives import terms_of_method
from mmpt_bench.runs.plan import Job, Plan
from mmpt_bench.runs.session import Loaded, Session
from mmpt_bench.runs.shared import answered_together, trained_together
from mmpt_bench.runs.stages import load_trained
from mmpt_bench.runs.workers.message import Asked, Message, check_versions
from mmpt_bench.sources.weights import loading_of


def run_on_ranks(
    way: str, asked: Asked, plans: Sequence[Plan], store: Store, report: Reporter, stopping: Callable[[], bool]
) -> Iterator[Record]:
    """Does what is still to be done with all ranks and yields each record, as `execute` does and with its errors.

    On all ranks but the first it yields nothing.

    Raises:
        RequestError: a training is one that ranks cannot share.
        MachineError: a rank plans something else, or has ended.
    """
    check_shared(way, plans)
    from mmpt_bench.engine.training.parallel import Together
    from mmpt_bench.engine.training.sharded import Sharded

    device = plans[0].request.device
    ranks = Sharded(device) if way == "fsdp2" else Together(device)
    loaded = Loaded(report, ranks)
    if ranks.is_first:
        ranks.tell(Message.of(asked, plans, store))
        ranks.together(lambda: None)
        try:
            yield from execute(plans, store, report, stopping, loaded=loaded)
        except (MachineError, KeyboardInterrupt, GeneratorExit):
            # Others may be in the middle of something: this process ends, and torchrun ends them.
            raise
        except BaseException:
            ranks.tell(None)
            ranks.leave()
            raise
        ranks.tell(None)
    else:
        jobs = {job.recipe.run_name: (Session(plan, store, loaded, report, stopping), job)
                for plan in plans for job in plan.open}  # fmt: skip
        message: Message = ranks.told()
        ranks.together(lambda: _check_same(message, plans, list(jobs)))
        _Follower(jobs).follow(ranks.told)
    ranks.leave()


def check_shared(way: str, plans: Sequence[Plan]) -> None:
    """Raises RequestError for a training that ranks cannot share, before anything is loaded."""
    for plan in plans:
        request = plan.request
        if ":" in (request.device or ""):
            raise RequestError(f"`--device {request.device}` is one for all ranks: leave it out, and each has its own.")
        if "device_map" in loading_of(request.backbone)[1]:
            raise RequestError(
                "`--device-map` gives one process all accelerators, `--parallel` each process its own: take one."
            )
        trains = any(not job.trained for job in plan.open)
        for name, is_given in (("--monitor", request.monitor), ("--meta", "meta" in request.stage),
                               ("--teacher", request.objective)):  # fmt: skip
            if is_given and trains:
                raise RequestError(f"`--parallel` and `{name}` do not go together: train in one process.")
        own = [job.recipe.method for job in plan.open if not job.trained and terms_of_method(job.method)]
        if way == "fsdp2" and own:
            raise RequestError(
                f"`{own[0]}` adds to the loss by its `objective`, which sees whole parameters: take `--parallel ddp`."
            )


def _check_same(message: Message, plans: Sequence[Plan], runs: Sequence[str]) -> None:
    """Raises MachineError where this rank plans other than the first one."""
    check_versions(message.versions)
    backbones = {(plan.request.backbone, plan.prepared.backbone_fingerprint) for plan in plans}
    if tuple(sorted(backbones)) != message.backbones:
        raise MachineError("This rank finds other files of the backbone than the first one: give all the same.")
    if lacking := sorted({*message.runs} - {*runs}):
        raise MachineError(
            f"This rank does not plan `{lacking[0]}`: data, methods, learning rates or results are others than for the "
            "first one. Give all ranks the same checkout, data and results folder."
        )


class _Follower:
    """A rank that does what the first one tells it."""

    def __init__(self, jobs: dict[str, tuple[Session, Job]]) -> None:
        self._jobs = jobs
        self._name, self._remove = "", lambda: None

    def follow(self, told: Callable[[], Any]) -> None:
        """Does what it is told until there is no more."""
        while (what := told()) is not None:
            kind, name, *rest = what
            session, job = self._jobs[name]
            if kind == "train":
                self._attach("", session, job)
                self._train(session, job)
            else:
                self._attach(name, session, job)
                self._answer(session, *rest)
        self._remove()

    def _train(self, session: Session, job: Job) -> None:
        folder = session.store.run(job.recipe.run_name)
        silent: tuple[Any, ...] = (lambda step: None, session.stopping)
        try:
            trained_together(session, job, None, folder.checkpoint, *silent)
        except (RunFailed, RequestError, Interrupted):
            # The first rank raises the same, and decides what follows.
            session.loaded.drop()

    def _answer(self, session: Session, task: str, shares: Sequence[Sequence[str]]) -> None:
        ranks, item = session.loaded.ranks, session.plan.prepared.tasks[task]
        assert ranks is not None
        by_id = {sample.id: sample for sample in item.samples}
        with contextlib.suppress(RunFailed, Interrupted):  # The first rank raises the same.
            answered_together(session, item, [by_id[name] for name in shares[ranks.rank]])

    def _attach(self, name: str, session: Session, job: Job) -> None:
        """Puts a run's trained adapter into the backbone; "" takes off what is there."""
        if name == self._name:
            return
        self._remove()
        self._name, self._remove = name, lambda: None
        if not name:
            return
        handle = job.method.attach(session.backbone, derive(job.recipe.seed, "init"))
        self._remove = handle.remove
        if handle.trainable:
            load_trained(session.store.run(name), handle)
