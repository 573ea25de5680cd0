"""What is shown while runs go on: bars on a terminal, lines elsewhere; and the log of the results folder."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmpt_bench.cli.log_file import logged
from mmpt_bench.cli.options import command_on, words_again
from mmpt_bench.cli.streams import console as console_on
from mmpt_bench.common.errors import Interrupted
from mmpt_bench.common.escaping import plain_text
from mmpt_bench.common.words import counted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mmpt_bench.records.record import Record
    from mmpt_bench.runs.events import Reporter
    from mmpt_bench.runs.plan import Job, Plan


LONG = 2000
"""Characters of a message."""
QUIET, VERBOSE = -1, 1
SETTLED = 5.0
"""Seconds after which what is done says how long the rest may take."""
MANY = 64
"""Runs under way together where a cluster does them."""


def _label(job: Job) -> str:
    return f"{job.label} seed {job.recipe.seed}" if job.method.trains else job.label


class _All:
    """All runs of a command: which are under way, and how long the rest may take."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        """Runs that may be under way together."""
        self.parts: dict[tuple[str, str], float] = {}
        """(run, task; empty for the training) -> its weight: what it took when the package was measured."""
        self.places: dict[str, int] = {}
        self.shares: dict[tuple[str, str], tuple[float, float]] = {}
        """What share of a part was done when it was first seen, and is done now."""
        self.began = 0.0
        self.seen: list[str] = []
        """Runs, those told of last after the others."""

    def planned(self, plans: Sequence[Plan]) -> None:
        """Weighs every training and evaluation that is to be done."""
        from mmpt_bench.runs.estimate import own_paces

        jobs = [(plan, job) for plan in plans for job in plan.open]
        known = own_paces() if len(jobs) > 1 else None
        for number, (plan, job) in enumerate(jobs if known is not None else [], start=1):
            run = job.recipe.run_name
            self.places[run] = number
            assert known is not None
            if not job.trained:
                self.parts[run, ""] = known.training(job.recipe.method, job.recipe.budget)
            for name in job.todo:
                self.parts[run, name] = known.asking(name, len(plan.prepared.tasks[name].samples))

    def told(self, job: Job, task: str, share: float) -> str:
        """Returns "run 7 of 48, 2 h 5 min left for all"; nothing where there is one run.

        Args:
            job: the run under way.
            task: that is evaluated; empty in training.
            share: of the training, or of the questions, that is done.
        """
        from mmpt_bench.runs.estimate import duration

        run, now = job.recipe.run_name, time.perf_counter()
        if run not in self.places:
            return ""
        self.began = self.began or now
        if self.seen[-1:] != [run]:
            self.seen = [*(name for name in self.seen if name != run), run]
        first, _ = self.shares.get((run, task), (share, share))
        self.shares[run, task] = first, share
        done = sum((now_done - before) * self.parts.get(key, 0.0) for key, (before, now_done) in self.shares.items())
        # What failed is over too; a run that another process holds comes again.
        over = set(self.seen[: -self.at_once])
        left = sum(
            weight * (1 - self.shares.get(key, (0.0, 0.0))[1])
            for key, weight in self.parts.items()
            if key[0] not in over
        )
        told, spent = f"run {self.places[run]} of {len(self.places)}", now - self.began
        # What workers did while this process was loading is told all at once.
        return f"{told}, {duration(spent / done * left)} left for all" if done > 0 and spent > SETTLED else told


class _Lines:
    """A line per tenth of each training, or per step where asked for."""

    def __init__(self, whole: _All, every_step: bool, say: Callable[[str], None]) -> None:
        self.whole, self.every_step, self.say = whole, every_step, say
        self.began: dict[str, tuple[float, int]] = {}
        """By training: seconds of it, and steps, when its first step was told."""

    def train_step(self, job: Job, step: Any) -> None:
        steps, label = job.recipe.budget.steps, _label(job)
        began, first = self.began.setdefault(label, (step.seconds, step.step))
        all_runs = self.whole.told(job, "", step.step / steps)
        if self.every_step or step.step % max(1, steps // 10) == 0 or step.step == steps:
            from mmpt_bench.runs.estimate import duration

            pace = (step.seconds - began) / max(1, step.step - first)
            left = f", {duration(pace * (steps - step.step))} left" if first < step.step < steps else ""
            self.say(f"{label}: step {step.step}/{steps}, loss {step.loss:.4f}{left}" + (all_runs and f" ({all_runs})"))

    def evaluated(self, job: Job, task: str, done: int, total: int) -> None:
        self.whole.told(job, task, done / total if total else 1.0)


class _Bars:
    """A bar for each training or task under way, and one for all runs."""

    def __init__(self, bars: Progress, whole: _All) -> None:
        self.bars, self.whole = bars, whole
        self.shown: dict[str, tuple[TaskID, float, int]] = {}
        """By what it says: the bar, when it began and where."""
        self.of_all: TaskID | None = None

    def _show(self, job: Job, task: str, total: int, done: int, note: str) -> None:
        from mmpt_bench.runs.estimate import duration

        label = f"{_label(job)}, {task or 'training'}"
        told = self.whole.told(job, task, done / total if total else 1.0)
        if told and self.of_all is None:
            self.of_all = self.bars.add_task("all runs", total=len(self.whole.places), note="")
        if self.of_all is not None:
            n_over = max(0, len(self.whole.seen) - self.whole.at_once)
            self.bars.update(self.of_all, completed=n_over, note=told.partition(", ")[2])
        if label not in self.shown:
            if len(self.shown) >= self.whole.at_once:
                self.bars.remove_task(self.shown.pop(next(iter(self.shown)))[0])
            self.shown[label] = self.bars.add_task(label, total=total, note=""), time.perf_counter(), done
        # What was told of last is removed last.
        bar, began, first = self.shown[label] = self.shown.pop(label)
        if first < done < total:
            seconds = (time.perf_counter() - began) / (done - first) * (total - done)
            note += f"{note and ', '}{duration(seconds)} left"
        self.bars.update(bar, completed=done, note=note)

    def train_step(self, job: Job, step: Any) -> None:
        self._show(job, "", job.recipe.budget.steps, step.step, f"loss {step.loss:.4f}")

    def evaluated(self, job: Job, task: str, done: int, total: int) -> None:
        self._show(job, task, total, done, "")


@contextmanager
def reporting(out: Path, verbosity: int = 0, workers: str = "1") -> Iterator[Reporter]:
    """Yields the reporter that fits where stderr goes, and writes each event to the log in the results folder.

    Args:
        out: the results folder; nothing is made there before something is planned.
        verbosity: -1: scores and errors are not told on stderr; 1: every step is, and what the package logs.
        workers: as `--workers` names them.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from mmpt_bench.runs.events import Reporter

    screen, whole = console_on(stderr=True), _All(max(1, int(workers)) if workers.isdecimal() else MANY)
    with logged(out, verbosity) as log:

        def say(text: str, level: int = logging.INFO) -> None:
            log.tell(text, level)
            if verbosity > QUIET or level > logging.INFO:
                style = "red" if level > logging.INFO else ""
                screen.print(plain_text(text, LONG), style=style, markup=False, highlight=False, soft_wrap=True)

        def planned(plans: Sequence[Plan]) -> None:
            whole.planned(plans)
            log.begin(shlex.join(words_again(click.get_current_context())))
            for line in announcement(plans):
                say(line)

        def finished(record: Record) -> None:
            is_failed = record.status == "failed"
            text = f"{record.run} failed: {record.reason}" if is_failed else score_line(record)
            say(text, logging.ERROR if is_failed else logging.INFO)

        lines = _Lines(whole, verbosity >= VERBOSE, say)
        if verbosity == QUIET or not screen.is_terminal:
            yield Reporter(planned, lines.train_step, lines.evaluated, finished, say)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=screen, transient=True) as progress:
            bars = _Bars(progress, whole)
            lines.say = log.tell

            def train_step(job: Job, step: Any) -> None:
                lines.train_step(job, step)
                bars.train_step(job, step)

            yield Reporter(planned, train_step, bars.evaluated, finished, say)


@contextmanager
def running(out: Path, verbosity: int = 0, workers: str = "1") -> Iterator[tuple[Reporter, Callable[[], bool]]]:
    """Yields a reporter and what says whether to stop; what is interrupted inside ends the process with 130."""
    with reporting(out, verbosity, workers) as reporter, stopping() as stop:
        try:
            yield reporter, stop
        except Interrupted as reason:
            click.echo(f"Stopped: {reason}. What is done is recorded; the same command goes on from there.", err=True)
            sys.exit(130)


def say_drawn(figures: Sequence[Path]) -> None:
    """Names the figures that a command drew."""
    for path in figures:
        if path.suffix == ".png":
            click.echo(f"Drawn: {path} (and as .svg, .pdf and .csv)", err=True)


def next_step(context: click.Context, seeds: str, out: Path, what: str) -> list[str]:
    """Returns what to do after results at these seeds: more seeds, to tell `what` apart, or a report; and how."""
    from mmpt_bench.runs.option_texts import numbered_seeds, seeds_text
    from mmpt_bench.stats.claims import SEEDS_TO_CLAIM

    done = numbered_seeds(seeds)
    if len(done) >= SEEDS_TO_CLAIM:
        return ["Next: one page with everything that is recorded:", f"  {command_on(out, 'report')}"]
    more = [seed for seed in range(SEEDS_TO_CLAIM + len(done)) if seed not in done][: SEEDS_TO_CLAIM - len(done)]
    return [
        f"Next: {SEEDS_TO_CLAIM} seeds or more tell {what} apart; what is recorded is not redone:",
        f"  {shlex.join(words_again(context, seeds=seeds_text([*done, *more])))}",
    ]


def score_line(record: Record) -> str:
    """Returns one result as a line: "mmpt seed 0: mme 634.2 / 1200 (95 % CI 580.1 to 690.4)"."""
    changed = ", ".join(f"{name}={value}" for name, value in (record.changed or {}).items())
    label = record.method + (f" ({changed})" if changed else "") + (f" seed {record.seed}" if record.trainable else "")
    in_points = record.ceiling is not None and record.ceiling > 1
    scale = 1 if in_points else 100
    score = f"{scale * (record.score or 0):.1f}" + (f" / {record.ceiling:g}" if in_points else " %")
    between = (
        "" if record.interval is None else " (95 % CI {:.1f} to {:.1f})".format(*(scale * x for x in record.interval))
    )
    return f"{label}: {record.task} {score}{between}"


def announcement(plans: Sequence[Plan]) -> list[str]:
    """Returns what a reader of the scores must know of the data, how much is to be done, and each rate's origin."""
    first, jobs = plans[0], [job for plan in plans for job in plan.jobs]
    todo, recorded = [job for job in jobs if job.todo], sum(len(job.done) for job in jobs)
    if not todo:
        return [*first.prepared.notes, f"Everything asked for is recorded already ({counted(recorded, 'result')})."]
    lost, todo = [job for job in todo if job.fault], [job for job in todo if not job.fault]
    told = [f"{counted(len(lost), 'run')} will not be done. {_of(lost[0])}: {lost[0].fault}"] if lost else []
    training, evaluations = sum(not job.trained for job in todo), sum(len(job.todo) for job in todo)
    rates = [
        f"{job.label}: learning rate {job.method.learning_rate:g}, {job.rate_source}" for job in todo if not job.trained
    ]
    n_evaluations = f"{evaluations} evaluation{'' if evaluations == 1 else 's'}"
    counts = f"{training} to train, {n_evaluations} to do, {recorded} recorded already."
    return [*first.prepared.notes, counts, *told, *dict.fromkeys(rates)]


def _of(job: Job) -> str:
    return f"{job.label}, seed {job.recipe.seed}" if job.method.trains else job.label


@contextmanager
def stopping(told: bool = True) -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether to stop: after Ctrl-C, SIGTERM or SIGHUP; a second Ctrl-C ends at once.

    The user is `told` of the first one.
    """
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
        if told and not asked:
            click.echo("\nStopping after this step; Ctrl-C once more to stop at once.", err=True)
        asked.append(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
