"""The training of one run: from its beginning, or its checkpoint, to the adapter in its folder, and what looks on."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import Interrupted
from mmpt_bench.common.hashing import file_sha256
from mmpt_bench.records.run_folder import CONFIG, TENSORS, RunFolder
from mmpt_bench.runs.monitoring import Monitor
from mmpt_bench.runs.objectives import config_and_terms
from mmpt_bench.runs.plan import Job
from mmpt_bench.runs.session import Session
from mmpt_bench.runs.shared import trained_together
from mmpt_bench.runs.stages import Reptile, load_trained

if TYPE_CHECKING:
    from mmpt_bench.engine.adapters.attachment import Handle
    from mmpt_bench.engine.training.train import Step, Trained

STEPS_A_WRITE = 25
"""Optimiser steps that are logged together."""


def train_run(session: Session, job: Job, folder: RunFolder, handle: Handle) -> dict[str, Any]:
    """Returns what training cost, after training or after loading what was trained before; raises as `train` does."""
    from mmpt_bench.engine.training.train import train

    recipe, report, prepared, ranks = job.recipe, session.report, session.plan.prepared, session.loaded.ranks
    if not handle.trainable:
        return {"seconds": 0.0, "peak_bytes": 0, "final_loss": None, "adapter_bytes": 0}
    known = folder.training()
    if known is not None:
        folder.drop_checkpoint()
        load_trained(folder, handle, known)
        return known
    own, steps = (job.method, prepared.before, handle), recipe.budget.steps
    work: Callable[..., Trained] = partial(trained_together, session, job, handle)
    if ranks is None:
        config, terms = config_and_terms(session.store, session.backbone, session.plan.request, recipe, own)
        work, steps = (
            partial(train, session.backbone, handle, prepared.corpus, config, terms=terms),
            config.budget.steps,
        )
    watch = _Watch(session, job, folder, handle, steps)
    # Where a task of Reptile began is in no checkpoint.
    checkpoint = None if watch.reptile else folder.checkpoint
    if ranks is not None:
        ranks.tell(("train", recipe.run_name))
    try:
        result = work(checkpoint, watch.on_step, session.stopping, watch.on_start, report.said)
    except Interrupted as stopped:
        raise Interrupted(f"{job.label}, seed {recipe.seed}, {stopped}") from stopped
    finally:
        watch.write_log()
    if result.left_out:
        report.said(
            f"{job.label}, seed {recipe.seed}: {result.left_out:,} times an exchange of a conversation stood after "
            f"{recipe.budget.max_length:,} tokens and was left out; raise `--max-length` to train on it."
        )
    more = watch.finish()
    part = folder.new_adapter()
    handle.save(part)
    handle.let_go()
    tensors = part / TENSORS
    more |= {"adapter_bytes": tensors.stat().st_size, "sha256": file_sha256(tensors), "train_key": recipe.train_key}
    more["config_sha256"] = file_sha256(part / CONFIG)
    more["attempt"] = uuid.uuid4().hex
    folder.finish_training(part, known := dataclasses.asdict(result) | more)
    return known


class _Watch:
    """What is told of each step of a training: the progress, the log, the monitor, Reptile."""

    def __init__(self, session: Session, job: Job, folder: RunFolder, handle: Handle, steps: int) -> None:
        stage = job.recipe.stage
        self._job, self._folder, self._report, self._done = job, folder, session.report, 0
        self._log: list[dict[str, Any]] = []
        self.reptile = Reptile(handle, steps) if "meta" in stage else None
        self._monitor: Monitor | None = None
        if probe := session.plan.prepared.probe:
            every, stops = session.plan.request.every, handle if "stop" in stage else None
            self._monitor = Monitor(session.backbone, probe, folder, every, steps, session.report.said, stops)

    def on_start(self, steps: Sequence[Step]) -> None:
        self._folder.start_log([step.row for step in steps])
        if self._monitor:
            self._monitor.begin(len(steps))

    def on_step(self, step: Step) -> bool:
        """Returns whether the training ends there."""
        if self.reptile:
            self.reptile.after(step.step)
        self._done = step.step
        self._report.train_step(self._job, step)
        self._log.append(step.row)
        if len(self._log) >= STEPS_A_WRITE:
            self.write_log()
        if self._monitor:
            self._monitor.after(step.step)
        return self._monitor is not None and self._monitor.is_over

    def write_log(self) -> None:
        self._folder.log_steps(self._log)
        self._log.clear()

    def finish(self) -> dict[str, Any]:
        """Returns what is kept beside the training's costs."""
        if self._monitor is None:
            return {}
        self._monitor.finish(self._done)
        # Looks cost time and memory that are not the training's.
        return {"process": None, "alarms": self._monitor.alarms}
