"""What the commands of the command line do, once their options are understood."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from mmpt_bench.cli.announce import announce, print_plan, say_notes
from mmpt_bench.cli.leaderboard import _show_board
from mmpt_bench.cli.progress import reporting
from mmpt_bench.common.errors import Interrupted
from mmpt_bench.interop.trackers import tracking
from mmpt_bench.records.recipe import Recipe, Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.execute import execute
from mmpt_bench.runs.plan import Job, plan
from mmpt_bench.runs.request import Request, TaskData, adapter_of, check_same, load_data
from mmpt_bench.sources.corpora import load_corpus


def run(
    request: Request,
    only_plan: bool,
    as_json: bool,
    wanted: Recipe | None = None,
    log_to: Sequence[str] = (),
) -> int:
    """Does what is asked and not yet recorded, writes the leaderboard; returns the exit code.

    `wanted` is the recipe that the request was made from, if it was: it is repeated exactly, or refused. `log_to`
    names the trackers that are told too.
    """
    store = Store(request.out)
    for entry in request.methods:
        adapter_of(entry, request.overrides.get(entry.name, {}))
    if not only_plan:
        store.check_writable()
    data = load_data(request)
    jobs = plan(request, store, data)
    if wanted is not None:
        check_same(wanted, jobs[0].recipe)
    say_notes(data, load_corpus(request.corpus))
    if only_plan:
        print_plan(request, jobs, data, store, as_json)
        return 0
    announce(jobs, data)
    made: list[Record] = []
    if not run_jobs(request, jobs, data, store, made, log_to):
        return 130
    _show_board(store, store.records(), "json" if as_json else "table", request.tasks)
    failed = [record for record in made if record.status == "failed"]
    if failed:
        click.echo(f"{len(failed)} of {len(jobs)} runs failed; the board lists them, unranked.", err=True)
        return 4
    if not as_json:
        _next_step(request)
    return 0


def run_jobs(
    request: Request,
    jobs: Sequence[Job],
    data: dict[str, TaskData],
    store: Store,
    made: list[Record],
    log_to: Sequence[str] = (),
) -> bool:
    """Does the jobs, showing how far they are, and adds their records to `made`; returns False where it was stopped.

    Args:
        log_to: names of trackers that are told too.
    """
    with (
        stopping() as stop,
        reporting() as shown,
        tracking(shown, log_to, request.out, request.offline) as report,
    ):
        try:
            for record in execute(request, jobs, data, store, report, stop):
                made.append(record)
        except Interrupted as reason:
            click.echo(f"Stopped: {reason}. What is done is recorded; the same command goes on from there.", err=True)
            return False
    return True


def _next_step(request: Request) -> None:
    names = [entry.name for entry in request.methods]
    if len(names) == 1:
        click.echo("Next: compare it, `mmpt-bench run --method all --tasks all`.", err=True)
    elif len(request.seeds) < 6:
        click.echo(
            "Next: six seeds or more tell methods apart, `--seeds 0,1,2,3,4,5`; what is recorded is not redone.",
            err=True,
        )


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether to stop: after Ctrl-C or SIGTERM once; a second Ctrl-C ends at once."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        click.echo("\nStopping after this step; once more to stop at once.", err=True)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
