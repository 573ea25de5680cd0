"""What `--workers` names: who does the runs of a command."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.execute import execute
from mmpt_bench.runs.plan import Plan

Do = Callable[[Sequence[Plan], Store, Reporter, Callable[[], bool]], Iterator[Record]]
"""As `execute`."""
MOST = 512
"""Processes on one machine."""
ENGINES = ", `ray`, `ray://HOST` or `slurm`"


def count_of(workers: int | str, more: str = "") -> int:
    """Returns how many processes `--workers` names; RequestError for what it cannot be, with what `more` there is."""
    text = str(workers).strip()
    if text.isdecimal() and 1 <= int(text) <= MOST:
        return int(text)
    raise RequestError(f"`--workers {text[:40]}`: a number of processes from 1 to {MOST}{more}.")


def check_workers(workers: int | str) -> None:
    """Raises RequestError for what `--workers` cannot be, neither a number of processes nor an engine."""
    text = str(workers).strip()
    if text not in ("ray", "slurm") and not text.startswith("ray://"):
        count_of(workers, ENGINES)


def done_by(workers: int | str, replan: Callable[[Any, Store], Sequence[Plan]], request: Any) -> Do:
    """Returns what does the plans of a command: this process, or workers, which plan anew what they are asked.

    Args:
        workers: 1 for this process, a number of processes, "ray", "ray://HOST", "slurm".
        replan: (request, store) -> the plans; a function at the top of a module.
        request: plain values, as the command was given them.

    Raises:
        RequestError: neither a number of processes nor an engine.
    """
    from mmpt_bench.runs.workers.message import Asked

    asked, text = Asked(replan, request), str(workers).strip()
    if text in ("ray", "slurm") or text.startswith("ray://"):
        from mmpt_bench.runs.workers.engines import run_on_engine

        return functools.partial(run_on_engine, text, asked)
    n = count_of(workers, ENGINES)
    if n == 1:
        return execute
    from mmpt_bench.runs.workers.processes import run_in_processes

    return functools.partial(run_in_processes, n, asked)
