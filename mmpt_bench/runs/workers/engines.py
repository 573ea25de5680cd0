"""`--workers ray` and `slurm`: each run or trial is a task of an engine, which finds it a machine and tries it again.

The results folder must be one that all machines see. Nothing here hands out machines or GPUs: the engine does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Protocol

from mmpt_bench.common.errors import Interrupted, MachineError
from mmpt_bench.common.files import make_folder, read_jsonl
from mmpt_bench.common.words import counted
from mmpt_bench.records.record import Record
from mmpt_bench.records.run_folder import LOG
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.execute import execute
from mmpt_bench.runs.plan import Job, Plan
from mmpt_bench.runs.session import Loaded
from mmpt_bench.runs.workers.message import Asked, Message, planned_anew

LOOK_SECONDS, STOP_SECONDS = 1.0, 120.0
"""Between two looks at what tasks do; and how long they are given to write checkpoints when the command is stopped."""
FOLDER = "workers"
"""In the results folder: what Slurm's jobs print, and the file that tells tasks to stop."""
CLUSTER = "slurm"
"""As submitit names it; "local" runs jobs as processes, in tests."""


class Task(Protocol):
    """A run or a trial that an engine does, as submitit's jobs and futures are."""

    def done(self) -> bool:
        """Returns whether it has ended."""

    def result(self) -> Any:
        """Returns what it returned, or raises what it raised."""


Submit = Callable[[Sequence[Any]], Sequence[Task]]


def run_on_engine(
    engine: str,
    gpus: float | None,
    asked: Asked,
    plans: Sequence[Plan],
    store: Store,
    report: Reporter,
    stopping: Callable[[], bool],
) -> Iterator[Record]:
    """Does what is still to be done as tasks of "ray", "ray://HOST" or "slurm"; yields and raises as `execute` does.

    A stage of a stream becomes a task when the stage before it is done.
    """
    whole = dataclasses.replace(Message.of(asked, plans, store), folder=Path.cwd())
    jobs = {job.recipe.run_name: job for plan in plans for job in plan.open}
    order = TopologicalSorter({n: {*job.recipe.stage.get("after", ())} & {*jobs} for n, job in jobs.items()})
    order.prepare()
    faults: list[Exception] = []
    open_: dict[str, Task] = {}
    told: dict[str, int] = {}
    with submitting((engine, gpus), store, do, open_) as (submit, stop):
        whole = dataclasses.replace(whole, stop=stop)
        while order.is_active():
            ready = order.get_ready()
            open_ |= dict(zip(ready, submit([whole.narrowed([name]) for name in ready]), strict=True))
            if stopping():
                raise Interrupted(f"{counted(len(open_), 'run is', 'runs are')} under way")
            for name in [name for name, task in open_.items() if task.done()]:
                yield from _ended(open_.pop(name), report, faults)
                order.done(name)
            for name in open_:
                _tell_steps(store, jobs[name], told, report)
            time.sleep(LOOK_SECONDS)
    if faults:
        raise faults[0]


@contextlib.contextmanager
def submitting(
    engine: tuple[str, float | None], store: Store, work: Callable[[Any], Any], open_: Mapping[Any, Task]
) -> Iterator[tuple[Submit, Path]]:
    """Yields what submits messages to "ray", "ray://HOST" or "slurm", and the file that tells their tasks to stop.

    Args:
        engine: its name, and the GPUs that each task asks for; None as `done_by` has it.
        store: the results folder, which all machines see.
        work: message -> what its task returns; a function at the top of a module.
        open_: the tasks that are not done. Those that are left at the end are told to stop, and waited for.
    """
    stop = store.path(FOLDER, f"stop-{uuid.uuid4().hex}").absolute()
    make_folder(stop.parent)
    with _engine(*engine, store, work) as submit:
        try:
            yield submit, stop
        finally:
            if open_:
                stop.touch()
                _wait(open_.values())
                stop.unlink()


def lost(error: Exception, what: str) -> MachineError:
    """Returns what is said of a task that the engine could not do."""
    return MachineError(f"The engine lost {what}: {str(error)[-300:]}. The same command goes on.")


def _ended(task: Task, report: Reporter, faults: list[Exception]) -> Iterator[Record]:
    """Tells of what a task did; what the engine could not do is a fault, like what the run raised."""
    try:
        records, said, fault = task.result()
    except Exception as error:
        records, said = [], [f"A task was lost: {str(error)[-300:]}"]
        fault = lost(error, "a run")
    for text in said:
        report.said(text)
    for record in records:
        report.finished(record)
        yield record
    if fault is not None:
        faults.append(fault)


def do(message: Message) -> tuple[list[Record], list[str], Exception | None]:
    """Does the runs of a message in this process; returns the records, what was said, and what went wrong.

    The plans and the backbone of the message before stay, where the engine gives one process several tasks.
    """
    os.chdir(message.folder)
    made: list[Record] = []
    said: list[str] = []
    try:
        plans, loaded = _kept(pickle.dumps(dataclasses.replace(message, runs=(), stop=Path())), message)
        report = Reporter(said=said.append)
        mine = [
            dataclasses.replace(plan, jobs=tuple(job for job in plan.jobs if job.recipe.run_name in message.runs))
            for plan in plans
        ]
        made += execute(mine, Store(message.out), report, told_to_stop(message.stop), loaded=loaded)
    except Interrupted:
        return made, said, None
    except Exception as error:
        return made, said, error
    return made, said, None


def told_to_stop(stop: Path) -> Callable[[], bool]:
    """Returns what says whether the file that tells tasks to stop is there."""
    looked = [0.0, 0.0]

    def stopping() -> bool:
        # The folder may be on another machine: it is not asked at each step.
        if time.monotonic() - looked[0] > LOOK_SECONDS:
            looked[:] = time.monotonic(), float(stop.exists())
        return bool(looked[1])

    return stopping


_KEPT: dict[bytes, tuple[list[Plan], Loaded]] = {}


def _kept(key: bytes, message: Message) -> tuple[list[Plan], Loaded]:
    """Returns the plans of a command, and what holds its backbone; those of another command are let go."""
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = planned_anew(message, whole=True), Loaded(Reporter())
    return _KEPT[key]


def _tell_steps(store: Store, job: Job, told: dict[str, int], report: Reporter) -> None:
    """Tells of the last step that a run has logged in its folder, where it is a new one."""
    from mmpt_bench.engine.training.train import Step

    rows = read_jsonl(store.run(job.recipe.run_name).path(LOG))
    if rows and rows[-1]["step"] != told.get(job.recipe.run_name):
        told[job.recipe.run_name] = rows[-1]["step"]
        report.train_step(job, Step(**rows[-1]))


def _wait(tasks: Sequence[Task] | Any) -> None:
    """Waits until tasks have seen that they are to stop."""
    until = time.monotonic() + STOP_SECONDS
    while time.monotonic() < until and not all(task.done() for task in tasks):
        time.sleep(LOOK_SECONDS)


@contextlib.contextmanager
def _engine(name: str, gpus: float | None, store: Store, work: Callable[[Any], Any]) -> Iterator[Submit]:
    with _slurm(gpus, store, work) if name == "slurm" else _ray(name, gpus, work) as submit:
        yield submit


@contextlib.contextmanager
def _ray(name: str, gpus: float | None, work: Callable[[Any], Any]) -> Iterator[Submit]:
    """Yields what submits to a Ray cluster: the one that this machine is part of, or one of its own."""
    try:
        import ray
    except ImportError as error:
        raise MachineError("`--workers ray` needs Ray. `pip install 'mmpt-bench[ray]'`") from error

    own = {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
    address = None if name == "ray" else name
    ray.init(address=address, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"} | own}, log_to_driver=False)
    try:
        there = ray.cluster_resources().get("GPU", 0)
        if gpus is not None and gpus > there:
            raise MachineError(f"`--gpus-per-unit {gpus:g}`: the Ray cluster has {there:g}.")
        n_gpus = gpus if gpus is not None else min(there, 1)
        # A task whose machine is lost is done on another one; a process keeps its backbone from task to task.
        remote = ray.remote(num_cpus=1, num_gpus=n_gpus, max_retries=3, max_calls=0)(work)
        yield lambda messages: [remote.remote(message).future() for message in messages]
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _slurm(gpus: float | None, store: Store, work: Callable[[Any], Any]) -> Iterator[Submit]:
    """Yields what submits to Slurm: an array of jobs. Partition, account and time are Slurm's own SBATCH_ variables."""
    try:
        import submitit
    except ImportError as error:
        raise MachineError("`--workers slurm` needs submitit. `pip install 'mmpt-bench[slurm]'`") from error

    if CLUSTER == "slurm" and shutil.which("sbatch") is None:
        raise MachineError("`--workers slurm`: there is no `sbatch` here. Run the command where jobs are submitted.")
    executor = submitit.AutoExecutor(folder=store.path(FOLDER) / "%j", cluster=CLUSTER)
    executor.update_parameters(name="mmpt-bench", timeout_min=24 * 60)
    if gpus is not None:
        executor.update_parameters(gpus_per_node=int(gpus))
    jobs: list[Any] = []

    def submit(messages: Sequence[Any]) -> Sequence[Task]:
        made = executor.map_array(work, messages) if messages else []
        jobs.extend(made)
        return made

    try:
        yield submit
    finally:
        for job in (each for each in jobs if not each.done()):
            job.cancel(check=False)
