"""`--workers N`: processes of one machine, each with the whole plan; the runs' locks say who does what.

No process hands out work, so that one that dies is missed by nobody: its locks are free, and another does its run.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, MutableSet, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from mmpt_bench.common.errors import Interrupted, MachineError
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.execute import execute
from mmpt_bench.runs.plan import Plan
from mmpt_bench.runs.workers.child import NOT_BEGUN, Sent, begin
from mmpt_bench.runs.workers.message import Asked, Message, planned_anew

START = "spawn"
"""A fresh interpreter: one that is forked has none of its parent's threads, and no GPU."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOOK_SECONDS = 0.2
Event = tuple[Any, ...]
"""Its name, and what is told."""
Tell = Callable[..., None]
Work = Callable[[Any, Tell, Callable[[], bool], MutableSet[str]], None]
"""(what it is given, tell, stopping, names of what was tried by any of the workers)"""


class Tried(MutableSet[str]):
    """Names of what was tried, in memory that the processes of a command share."""

    def __init__(self, names: Sequence[str], flags: Any) -> None:
        """Takes all the names there may be, and a flag for each in shared memory."""
        self._places, self._flags = {name: place for place, name in enumerate(names)}, flags

    def __contains__(self, name: object) -> bool:
        """Returns whether some worker has tried it."""
        return bool(self._flags[self._places[name]]) if name in self._places else False  # type: ignore[index]

    def __iter__(self) -> Iterator[str]:
        """Yields what was tried."""
        return (name for name in self._places if name in self)

    def __len__(self) -> int:
        """Returns how many were tried."""
        return sum(map(bool, self._flags[:]))

    def add(self, value: str) -> None:
        """Notes that this was tried."""
        self._flags[self._places[value]] = 1

    def discard(self, value: str) -> None:
        """Notes that this was not tried."""
        self._flags[self._places[value]] = 0


def run_in_processes(
    n: int, asked: Asked, plans: Sequence[Plan], store: Store, report: Reporter, stopping: Callable[[], bool]
) -> Iterator[Record]:
    """Does what is still to be done in processes and yields each record, as `execute` does and with its errors."""
    message = Message.of(asked, plans, store)
    jobs = {job.recipe.run_name: job for plan in plans for job in plan.jobs}
    for name, *parts in told_by_workers(min(n, len(message.runs)), work_on_runs, message, message.runs, stopping):
        if name in ("train_step", "evaluated"):
            getattr(report, name)(jobs[parts[0]], *parts[1:])
        elif name == "finished":
            report.finished(parts[0])
            yield parts[0]
        else:
            report.said(*parts)


def work_on_runs(message: Message, tell: Tell, stopping: Callable[[], bool], tried: MutableSet[str]) -> None:
    """Does the runs of a message that no other worker does, and tells of every event."""
    report = Reporter(
        train_step=lambda job, step: tell("train_step", job.recipe.run_name, step),
        evaluated=lambda job, *of: tell("evaluated", job.recipe.run_name, *of),
        finished=lambda record: tell("finished", record),
        said=lambda text: tell("said", text),
    )
    for _ in execute(planned_anew(message), Store(message.out), report, stopping, tried):
        pass


def told_by_workers(
    n: int, work: Work, given: Any, names: Sequence[str], stopping: Callable[[], bool]
) -> Iterator[Event]:
    """Yields what `n` processes tell that all do the same work, until they are done.

    Args:
        n: processes.
        work: a function at the top of a module.
        given: its first argument.
        names: of everything that may be tried.
        stopping: asked all the time; the processes are told, and end as soon as what they do is on the disk.

    Raises:
        Interrupted: `stopping` said so.
        MachineError: the last process was killed.
        Exception: the first that a process raised, when all have ended.
    """
    context: Any = multiprocessing.get_context(START)
    flags, sent = context.Array("b", max(1, len(names)), lock=False), Sent((work, given, partial(Tried, tuple(names))))
    open_, children = {}, []
    try:
        for number in range(n):
            if stopping():
                raise Interrupted(NOT_BEGUN)
            mine, theirs = context.Pipe()
            child = context.Process(target=begin, args=(theirs, sent, flags), daemon=True)
            with _environment(number):
                child.start()
            theirs.close()
            open_[mine] = child
            children.append(child)
        yield from _until_ended(open_, stopping)
    finally:
        for child in children:
            child.terminate()
            child.join()


def _until_ended(open_: dict[Connection, Any], stopping: Callable[[], bool]) -> Iterator[Event]:
    """Yields what processes tell, and raises what they raised when all have ended."""
    faults: list[BaseException] = []
    done: set[Connection] = set()
    is_told = False
    while open_:
        for connection in wait(list(open_), LOOK_SECONDS):
            assert isinstance(connection, Connection)
            try:
                event = connection.recv()
            except (EOFError, ConnectionResetError):
                child = open_.pop(connection)
                child.join()
                if connection not in done:
                    why = f"A worker was ended by signal {-child.exitcode}" if child.exitcode < 0 else "A worker ended"
                    yield "said", f"{why}; the others do its run." if open_ else f"{why}."
                    if not open_ and not faults:
                        faults.append(MachineError(f"{why}. What is recorded is kept; the same command goes on."))
                continue
            if event[0] == "ended":
                done.add(connection)
                faults += event[1:]
            else:
                yield event
        if not is_told and stopping():
            is_told = True
            for connection in open_:
                with contextlib.suppress(OSError):
                    connection.send("stop")
    if faults:
        raise next((each for each in faults if isinstance(each, Interrupted)), faults[0])


@contextlib.contextmanager
def _environment(number: int) -> Iterator[None]:
    """Inside, a process that is started has one thread, and where there are GPUs one of them, in turn."""
    own = dict.fromkeys(THREADS, "1") if not any(name in os.environ for name in THREADS) else {}
    if devices := _devices():
        own["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _devices() -> list[str]:
    """Returns the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    n = torch.cuda.device_count()
    return named.split(",")[:n] if named else [str(number) for number in range(n)]
