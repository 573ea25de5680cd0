"""What `--workers` names: who does the runs of a command."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.records.store import Store
from mmpt_bench.runs.execute import execute
from mmpt_bench.runs.kept_adapters import Do, keeping
from mmpt_bench.runs.plan import Plan

if TYPE_CHECKING:
    from mmpt_bench.runs.workers.message import Asked

MOST = 512
"""Processes on one machine."""
WAYS = ("ddp", "fsdp2")
"""How processes of torchrun share a training."""


def rank_and_count() -> tuple[int, int]:
    """Returns which of how many processes of torchrun this is: (0, 1) where torchrun has not started it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def check_parallel(way: str, workers: int | str = 1) -> None:
    """Raises RequestError for a `--parallel` that cannot be, and where processes of torchrun would do the same work.

    Args:
        way: "ddp", "fsdp2"; empty where it is not given.
    """
    n = rank_and_count()[1]
    started = "TORCHELASTIC_RUN_ID" in os.environ
    if not way and n > 1:
        raise RequestError(
            f"torchrun has started {n} processes, and each would do all of the work: share it by `run --parallel ddp`, "
            "or `fsdp2`, or start one process without torchrun."
        )
    if way and way not in WAYS:
        raise unknown_name("way to share a training", way[:40], WAYS)
    if way and not started:
        raise RequestError(
            f"`--parallel {way}` shares runs among processes of torchrun: `torchrun --nproc-per-node 2 -m mmpt_bench "
            f"run --parallel {way} …`."
        )
    if way and str(workers).strip() != "1":
        raise RequestError("`--parallel` and `--workers` do not go together: the processes are torchrun's.")


def engine_of(workers: int | str) -> str:
    """Returns the engine that `--workers` names; empty for a number of processes."""
    text = str(workers).strip()
    return text if text in ("ray", "slurm") or text.startswith("ray://") else ""


def count_of(workers: int | str) -> int:
    """Returns how many processes `--workers` names, 1 for an engine; RequestError for what it cannot be."""
    text = str(workers).strip()
    if engine_of(text):
        return 1
    if text.isdecimal() and 1 <= int(text) <= MOST:
        return int(text)
    raise RequestError(
        f"`--workers {text[:40]}`: a number of processes from 1 to {MOST}, `ray`, `ray://HOST` or `slurm`."
    )


def check_gpus(workers: int | str, gpus: float | None) -> None:
    """Raises RequestError for `--workers` or `--gpus-per-unit` that cannot be, or do not go together."""
    count_of(workers)
    if gpus is None:
        return
    if not (engine := engine_of(workers)):
        raise RequestError(
            "`--gpus-per-unit` is what Ray and Slurm are asked for: add `--workers ray` or `slurm`, or leave it out. "
            "With `--workers N` each process has one GPU, in turn."
        )
    if not 0 < gpus < math.inf or (gpus % 1 and (gpus > 1 or engine == "slurm")):
        fractions = ", or a fraction below 1 that runs share" if engine != "slurm" else ""
        raise RequestError(f"`--gpus-per-unit {gpus:g}`: a whole number of GPUs from 1{fractions}.")


def done_by(
    workers: int | str,
    replan: Callable[[Any, Store], Sequence[Plan]],
    request: Any,
    parallel: str = "",
    gpus: float | None = None,
) -> Do:
    """Returns what does the plans of a command: this process, or workers, which plan anew what they are asked.

    Args:
        workers: 1 for this process, a number of processes, "ray", "ray://HOST", "slurm".
        replan: (request, store) -> the plans; a function at the top of a module.
        request: plain values, as the command was given them.
        parallel: how processes of torchrun share each training: "ddp", "fsdp2", empty for processes without torchrun.
        gpus: that each run asks an engine for; None for one where the cluster has GPUs, or as Slurm's variables say.

    Raises:
        RequestError: neither a number of processes nor an engine; GPUs that no engine is asked for; or torchrun's
            processes would all do the same.
    """
    from mmpt_bench.runs.workers.message import Asked

    check_parallel(parallel, workers)
    check_gpus(workers, gpus)
    do = _done_by(workers, Asked(replan, request), parallel, gpus)
    return do if rank_and_count()[0] > 0 else keeping(do)


def _done_by(workers: int | str, asked: Asked, parallel: str, gpus: float | None) -> Do:
    if parallel:
        from mmpt_bench.runs.workers.ranks import run_on_ranks

        return functools.partial(run_on_ranks, parallel, asked)
    if engine := engine_of(workers):
        from mmpt_bench.runs.workers.engines import run_on_engine

        return functools.partial(run_on_engine, engine, gpus, asked)
    n = count_of(workers)
    if n == 1:
        return execute
    from mmpt_bench.runs.workers.processes import run_in_processes

    return functools.partial(run_in_processes, n, asked)
