"""`mmpt-bench compare`: which of some methods is better."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from mmpt_bench.board.contrasts import Scope
from mmpt_bench.cli.options import JSON, OUT
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.records.store import Store
from mmpt_bench.study.compare import answer_to
from mmpt_bench.study.comparison_text import as_plain, tables


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--tasks", default="", help="Tasks that count, comma-separated; by default all that were run.")
@click.option(
    "--scope",
    type=click.Choice(["method", "checkpoint"]),
    help="`method`: other seeds and pictures; `checkpoint`: the models of the first common seed. By default what the "
    "seeds allow.",
)
@click.option("--track", default="", help="Of the board, where several hold the names.")
@OUT
@JSON
def compare(names: tuple[str, ...], tasks: str, scope: str | None, track: str, out: Path, as_json: bool) -> None:
    """Say which of some methods is better, or that they are not separated, and what could have been found.

    NAMES are methods, rows of the leaderboard or of an ablation, or runs, whose beginnings do.

    \b
    mmpt-bench compare lora mmpt
    mmpt-bench compare lora mmpt full --tasks pope
    """
    sys.exit(_compare(out, names, scope, tasks, track, as_json))  # type: ignore[arg-type]


def _compare(out: Path, names: Sequence[str], scope: Scope | None, tasks: str, track: str, as_json: bool) -> int:
    """Prints the answer to which of some methods, variants or runs is better; returns 0.

    Raises:
        RequestError: nothing, or several boards, hold all the names; or they cannot be compared at the scope.
    """
    known = task_catalog.built_in_tasks()
    wanted = {entry.name: task_catalog.load_task(entry) for entry in task_catalog.find_tasks(tasks)} if tasks else {}
    answer = answer_to(Store(out), names, known | wanted, scope, track, list(wanted))
    if as_json:
        click.echo(json.dumps(as_plain(answer), indent=1))
        return 0
    from rich.console import Console

    click.echo(answer.sentence)
    console = Console()
    for part in tables(answer):
        console.print(part)
    return 0
