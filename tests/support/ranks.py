"""Trainings by the ranks of torchrun: `torchrun … ranks.py OUT WAY JOBS`, with jobs as JSON; faults happen in the last.

A job is {"name", "method"} and, where wanted, "batch", "steps", "dtype", "recomputed", "uneven", and steps in which
something happens: "short" (memory runs out, once), "stop" (SIGTERM after it), "hang", "kill" (in the first attempt
alone), "torn" (killed before the checkpoint after it is true, in the first attempt alone), "full disk" (after
it files may have 2,000 bytes); "checkpoint" keeps one after each step, "overheads" are tokens that a micro-batch costs,
by rank.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt_bench.cli.progress import stopping
from mmpt_bench.common.errors import Interrupted
from mmpt_bench.engine.models.backbone import load_backbone
from mmpt_bench.engine.training import checkpoint
from mmpt_bench.engine.training.checkpoint import Checkpoints
from mmpt_bench.engine.training.loss import Losses
from mmpt_bench.engine.training.parallel import ALONE, Ranks, Together
from mmpt_bench.engine.training.sharded import Sharded
from mmpt_bench.engine.training.train import Step, TrainingConfig, train
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.budget import Budget
from mmpt_bench.sources.corpora import load_corpus

SEED, RATE = 1, 3e-3


def trained(
    backbone_folder: Path, job: Mapping[str, Any], ranks: Ranks = ALONE, out: Path | None = None
) -> dict[str, Any]:
    """Returns the adapter, its initial values, losses and the micro-batch of a job."""
    backbone = load_backbone(str(backbone_folder), job.get("dtype", "float32"), "cpu", offline=True)
    handle = method_catalog.load_method(method_catalog.method_entries()[job["method"]])().attach(backbone, SEED)
    before, steps, n = handle.state(), list[Step](), job.get("steps", 6)
    again = job.get("recomputed", False)
    calls: list[int] = []
    first = backbone.model.get_submodule(backbone.anatomy.decoder_layers[0])
    first.self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    if job.get("uneven"):
        first.mlp.register_forward_hook(lambda module, args, made: made * (1.0 + 0.5 * (len(calls) % 2)))
    config = TrainingConfig(Budget(n, job.get("batch", 8), warmup=0.0), RATE, SEED, gradient_checkpointing=again)
    is_last, said = ranks.rank == ranks.count - 1, list[str]()
    with pytest.MonkeyPatch.context() as patch, stopping() as stop:
        patch.setattr(Checkpoints, "is_due", True)
        if "overheads" in job:
            patch.setattr("mmpt_bench.engine.training.loss.overhead_tokens", lambda *_: job["overheads"][ranks.rank])
        if is_last and out is not None:
            _harm(patch, job, steps)

        def on_step(step: Step) -> None:
            steps.append(step)
            if is_last and out is not None and job.get("stop") == step.step:
                os.kill(os.getpid(), signal.SIGTERM)

            if is_last and out is not None and job.get("full disk") == step.step:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

        folder = out / f"{job['name']}.checkpoint" if out and job.get("checkpoint") else None
        loads = load_corpus("embedded")
        made = train(backbone, handle, loads, config, folder, on_step, stop, lambda _: None, said.append, (), ranks)
    found = {"before": before, "after": handle.state(), "losses": [step.loss for step in steps], "said": said}
    return found | {"micro": made.micro_batch, "first": steps[0].step, "world": made.world_size, "calls": len(calls)}


def _harm(patch: pytest.MonkeyPatch, job: Mapping[str, Any], steps: list[Step]) -> None:
    answers, sync, done = Losses.answers, checkpoint.sync, set[str]()

    def harmed(self: Losses, *given: Any) -> Any:
        now = steps[-1].step + 1 if steps else 1
        if job.get("short") == now and "short" not in done:
            done.add("short")
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if job.get("hang") == now:
            time.sleep(600)
        if job.get("kill") == now and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return answers(self, *given)

    def torn(path: Path) -> None:
        if steps and job.get("torn") == steps[-1].step and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        sync(path)

    patch.setattr(Losses, "answers", harmed)
    patch.setattr(checkpoint, "sync", torn)


def _main(out: Path, way: str, jobs: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    ranks = Sharded() if way == "fsdp2" else Together()
    for job in jobs:
        with contextlib.suppress(Interrupted):
            made = trained(out / "tiny", job, ranks, out)
            if ranks.is_first:
                torch.save(made, out / f"{job['name']}.pt")
    ranks.leave()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
