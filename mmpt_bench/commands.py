"""What the commands of the command line do, once their options are understood."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from mmpt_bench import registry
from mmpt_bench.corpus import load_corpus
from mmpt_bench.errors import RequestError
from mmpt_bench.files import write_atomic
from mmpt_bench.interrupt import Interrupted
from mmpt_bench.plan import Job, Request, TaskData, adapter_of, check_same, load_data, plan
from mmpt_bench.planned import announce, print_plan, say_notes
from mmpt_bench.progress import reporting
from mmpt_bench.recipe import Recipe, Record
from mmpt_bench.run import execute
from mmpt_bench.store import Store
from mmpt_bench.trackers import tracking


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


def leaderboard(out: Path, publish: bool, form: str) -> int:
    """Rebuilds the leaderboard's files from the records and prints it.

    With `publish` it first gathers what the runs' folders hold into files that stand for them, and then draws every
    figure: done again from those files alone, it makes the same bytes. `form` is "table", "latex", "csv", "markdown"
    or "json".
    """
    store = Store(out)
    records = store.records()
    if not records:
        raise RequestError(
            f"There are no records in `{out}`: `mmpt-bench run --method mmpt --tasks mme,pope --out {out}` makes some."
        )
    if publish:
        from mmpt_bench.curves import publish_curves

        store.publish()
        publish_curves(store)
    _show_board(store, records, form, (), publish)
    return 0


def export(run: str, form: str, out: Path) -> int:
    """Prints one run's results as YAML for the Hugging Face hub: "model-index" or "eval-results"."""
    from mmpt_bench.model_card import eval_results, model_index, results_of

    tasks = registry.built_in_tasks()
    records = results_of(Store(out), run, tasks)
    click.echo((model_index if form == "model-index" else eval_results)(records, tasks), nl=False)
    return 0


def _show_board(
    store: Store, records: Sequence[Record], form: str, own: Sequence[registry.Entry], every_figure: bool = False
) -> None:
    """Builds the boards, writes leaderboard.csv, .md and figures, and prints them."""
    from mmpt_bench import figures
    from mmpt_bench.ablation_files import write_ablations
    from mmpt_bench.leaderboard import evidence
    from mmpt_bench.leaderboard_csv import leaderboard_csv
    from mmpt_bench.leaderboard_latex import leaderboard_latex
    from mmpt_bench.published import read_published
    from mmpt_bench.render import leaderboard_json, leaderboard_md

    tasks = registry.built_in_tasks() | {entry.name: registry.load_task(entry) for entry in own if entry.own}
    found = evidence(store, tasks, records=records)
    made = [each.board for each in found]
    published = read_published(registry.folder("results") / "published.csv")
    ablations = write_ablations(store, tasks, records)
    write_atomic(store.path("leaderboard.csv"), leaderboard_csv(made))
    write_atomic(store.path("leaderboard.md"), leaderboard_md(made, published))
    # A trial on a few questions has a table; its figures are drawn where they are asked for.
    drawn = found if every_figure else tuple(each for each in found if each.board.limit is None)
    of = figures.material(store, tasks, registry.colors(), drawn, tuple(ablations))
    for each in figures.figures(of, figures.KINDS if every_figure else ("leaderboard",)):
        if isinstance(each, figures.Drawn):
            figures.write(each, store.path("figures"))
    if form == "json":
        click.echo(json.dumps(leaderboard_json(made, published), indent=1))
        return
    if form != "table":
        writers = {
            "latex": lambda: leaderboard_latex(made),
            "csv": lambda: leaderboard_csv(made),
            "markdown": lambda: leaderboard_md(made, published),
        }
        click.echo(writers[form]().decode(), nl=False)
        return
    from rich.console import Console

    from mmpt_bench.terminal import leaderboard_tables

    console = Console()
    for table in leaderboard_tables(made):
        console.print(table)
    click.echo(f"Written: leaderboard.csv, leaderboard.md and figures/ in {store.root}/", err=True)


def check(file: Path, backbone: str, as_json: bool) -> int:
    """Runs the conformance suite on a file and prints a line a check; returns 0 where all pass, else 4."""
    from mmpt_bench.checks import check_method, check_task
    from mmpt_bench.listings import is_method
    from mmpt_bench.plan import embedded_rows

    if not file.is_file():
        raise RequestError(f"There is no file `{file}` to check.")
    if is_method(file):
        from mmpt_bench.backbone import load_backbone

        results = check_method(registry.load_method(registry.find("method", str(file))[0]), load_backbone(backbone))
    else:
        task = registry.load_task(registry.find("task", str(file))[0])
        rows = embedded_rows(task)
        results = check_task(task, rows.rows, rows.label_names)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
    else:
        for result in results:
            click.echo(
                f"{'pass' if result.ok else 'FAIL'} {result.name}{': ' + result.detail if result.detail else ''}"
            )
    return 0 if all(result.ok for result in results) else 4


def pretrain(
    folder: Path, seed: int, steps: int | None, processes: int, probe: bool, backbone: str, as_json: bool
) -> int:
    """Rebuilds the embedded weights, or prints what a model sees on fresh clean scenes."""
    if probe:
        from mmpt_bench.backbone import load_backbone
        from mmpt_bench.embedded.probe import probe as look

        loaded = load_backbone(backbone)
        found = look(loaded.model, loaded.processor.tokenizer)
        if as_json:
            click.echo(json.dumps(found, indent=1))
        else:
            for skill, accuracy in found.items():
                click.echo(f"{skill:<12} {accuracy:.1%}")
        return 0
    from mmpt_bench.embedded.pretrain import Plan
    from mmpt_bench.embedded.pretrain import pretrain as build_weights

    chosen = dataclasses.replace(Plan(), seed=seed, processes=processes)
    weights = build_weights(dataclasses.replace(chosen, steps=steps) if steps is not None else chosen, folder)
    click.echo(f"Written: {weights}. Use it: `mmpt-bench run --backbone {weights}`.")
    return 0
