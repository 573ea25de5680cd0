"""`mmpt-bench leaderboard`: the board rebuilt from the records, and printed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmpt_bench.cli.options import JSON, OUT, print_json
from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.words import counted

if TYPE_CHECKING:
    from mmpt_bench.report.leaderboard import Leaderboard


@click.command()
@click.option(
    "--publish",
    is_flag=True,
    help="Also keep all records in one file, and the training losses in another: boards and figures can be rebuilt.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "latex", "csv", "markdown", "json"]),
    default="table",
    show_default=True,
    help="What is printed to stdout.",
)
@click.option("--published", is_flag=True, help="The project's published leaderboard; nothing is written.")
@OUT
@JSON
def leaderboard(out: Path, publish: bool, form: str, as_json: bool, published: bool) -> None:
    """Rebuild and print the leaderboard from what is recorded.

    LaTeX is a booktabs table a board, bold where no method is significantly better.
    """
    from mmpt_bench import api

    if publish and published:
        raise RequestError("`--published` shows the project's results, and `--publish` gathers your own: choose one.")
    made = api.published_leaderboard() if published else api.leaderboard(out, publish)
    print_leaderboard(made, "json" if as_json else form)


def print_leaderboard(made: Leaderboard, form: str, new: Collection[str] = (), by_task: bool = False) -> None:
    """Prints a leaderboard: "table", "latex", "csv", "markdown" or "json"; tables mark rows with `new` results.

    Args:
        by_task: tables show the change from the untuned base for each task too.
    """
    if form == "json":
        print_json(made.as_plain())
        return
    if form != "table":
        click.echo(made.text(form), nl=False)
        return
    from mmpt_bench.board.writers.terminal import leaderboard_tables
    from mmpt_bench.cli.streams import console

    screen = console()
    for part in leaderboard_tables(made.boards, new, screen.width, by_task):
        screen.print(part)
    if made.folder is not None:
        files = "scores.csv, leaderboard.csv, leaderboard.md"
        drawn = " and figures/" if made.figures else ""
        click.echo(f"Written: {files}{drawn} in {made.folder}/", err=True)
        if told := _of_streams(made.folder):
            click.echo(told, err=True)


def _of_streams(folder: Path) -> str:
    """Returns where the runs stand that no leaderboard shows: those of streams; empty without any."""
    from mmpt_bench.board.from_records import in_streams
    from mmpt_bench.records.store import Store

    of = in_streams(Store(folder))
    names = sorted(set(of.values()))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"{counted(len(of), 'run stands', 'runs stand')} in the tables of streams: streams/{names[0]}.md{more}."
        if of
        else ""
    )
