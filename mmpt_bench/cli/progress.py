"""What is shown while runs go on: bars with loss and time left on a terminal, a line per tenth elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mmpt_bench.cli.streams import console as console_on
from mmpt_bench.common.escaping import plain_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mmpt_bench.records.record import Record
    from mmpt_bench.runs.events import Reporter
    from mmpt_bench.runs.plan import Job, Plan


LONG = 2000
"""Characters of a message."""


def _label(job: Job) -> str:
    return f"{job.label} seed {job.recipe.seed}"


class _Lines:
    """A line per tenth of each training, and one for each evaluation."""

    def __init__(self) -> None:
        self.began: dict[str, tuple[float, int]] = {}

    def train_step(self, job: Job, step: Any) -> None:
        steps, label = job.recipe.budget.steps, _label(job)
        began, first = self.began.setdefault(label, (time.perf_counter(), step.step))
        if step.step % max(1, steps // 10) == 0 or step.step == steps:
            from mmpt_bench.runs.estimate import duration

            pace = (time.perf_counter() - began) / max(1, step.step - first)
            left = f", {duration(pace * (steps - step.step))} left" if step.step < steps else ""
            print(f"{label}: step {step.step}/{steps}, loss {step.loss:.4f}{left}", file=sys.stderr, flush=True)

    def evaluated(self, job: Job, task: str, done: int, total: int) -> None:
        if done == total:
            print(f"{_label(job)}: {task}, {total:,} answers", file=sys.stderr, flush=True)


class _Bars:
    """One bar for the training under way, or the task under way."""

    def __init__(self, bars: Progress) -> None:
        self.bars, self.current = bars, ""
        self.id: TaskID | None = None

    def _show(self, label: str, total: int, done: int, note: str) -> None:
        if label != self.current:
            if self.id is not None:
                self.bars.remove_task(self.id)
            self.current, self.id = label, self.bars.add_task(label, total=total, note="")
        assert self.id is not None
        self.bars.update(self.id, completed=done, note=note)

    def train_step(self, job: Job, step: Any) -> None:
        self._show(f"{_label(job)}, training", job.recipe.budget.steps, step.step, f"loss {step.loss:.4f}")

    def evaluated(self, job: Job, task: str, done: int, total: int) -> None:
        self._show(f"{_label(job)}, {task}", total, done, "")


@contextmanager
def reporting() -> Iterator[Reporter]:
    """Yields the reporter that fits where stderr goes."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mmpt_bench.runs.events import Reporter

    console = console_on(stderr=True)

    def planned(plans: Sequence[Plan]) -> None:
        for line in announcement(plans):
            click.echo(plain_text(line, LONG), err=True)

    def finished(record: Record) -> None:
        if record.status == "failed":
            console.print(f"[red]{record.run} failed:[/] ", end="", highlight=False)
            console.print(plain_text(record.reason, LONG), markup=False, highlight=False)

    def said(text: str) -> None:
        console.print(plain_text(text, LONG), markup=False, highlight=False)

    if not console.is_terminal:
        lines = _Lines()
        yield Reporter(planned, lines.train_step, lines.evaluated, finished, said)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        bars = _Bars(progress)
        yield Reporter(planned, bars.train_step, bars.evaluated, finished, said)


def announcement(plans: Sequence[Plan]) -> list[str]:
    """Returns what a reader of the scores must know of the data, how much is to be done, and each rate's origin."""
    first, jobs = plans[0], [job for plan in plans for job in plan.jobs]
    todo, recorded = [job for job in jobs if job.todo], sum(len(job.done) for job in jobs)
    if not todo:
        return [*first.prepared.notes, f"Everything asked for is recorded already ({recorded} results)."]
    training, evaluations = sum(not job.trained for job in todo), sum(len(job.todo) for job in todo)
    rates = [
        f"{job.label}: learning rate {job.method.learning_rate:g}, {job.rate_source}" for job in todo if not job.trained
    ]
    counts = f"{training} to train, {evaluations} evaluations to do, {recorded} recorded already."
    return [*first.prepared.notes, counts, *dict.fromkeys(rates)]


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether to stop: after Ctrl-C, SIGTERM or SIGHUP; a second Ctrl-C ends at once."""
    import os
    import signal

    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        # Under nohup a run outlives its terminal.
        del before[signal.SIGHUP]
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def note(number: int, _frame: Any) -> None:
        if number == signal.SIGHUP:
            # The terminal is gone: what is written to it would fail before the checkpoint is on the disk.
            for descriptor in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not asked:
            click.echo("\nStopping after this step; Ctrl-C once more to stop at once.", err=True)
        asked.append(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
