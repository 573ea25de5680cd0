"""`mmpt-bench leaderboard`: the board rebuilt from the records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from mmpt_bench.common import entries
from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.files import write_atomic
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.recipe import Record
from mmpt_bench.records.store import Store


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
        from mmpt_bench.records.learning_curves import publish_curves

        store.publish()
        publish_curves(store)
    _show_board(store, records, form, (), publish)
    return 0


def _show_board(
    store: Store, records: Sequence[Record], form: str, own: Sequence[entries.Entry], every_figure: bool = False
) -> None:
    """Builds the boards, writes leaderboard.csv, .md and figures, and prints them."""
    from mmpt_bench.board.from_records import evidence
    from mmpt_bench.board.published import read_published
    from mmpt_bench.board.writers.csv_file import leaderboard_csv
    from mmpt_bench.board.writers.latex import leaderboard_latex
    from mmpt_bench.board.writers.markdown import leaderboard_json, leaderboard_md
    from mmpt_bench.figures import draw, figure_data
    from mmpt_bench.study.ablation_tables import write_ablations

    tasks = task_catalog.built_in_tasks() | {entry.name: task_catalog.load_task(entry) for entry in own if entry.own}
    found = evidence(store, tasks, records=records)
    made = [each.board for each in found]
    published = read_published(entries.folder("results") / "published.csv")
    ablations = write_ablations(store, tasks, records)
    write_atomic(store.path("leaderboard.csv"), leaderboard_csv(made))
    write_atomic(store.path("leaderboard.md"), leaderboard_md(made, published))
    # A trial on a few questions has a table; its figures are drawn where they are asked for.
    drawn = found if every_figure else tuple(each for each in found if each.board.limit is None)
    of = figure_data.material(store, tasks, method_catalog.colors(), drawn, tuple(ablations))
    for each in draw.figures(of, figure_data.KINDS if every_figure else ("leaderboard",)):
        if isinstance(each, figure_data.Drawn):
            draw.write(each, store.path("figures"))
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

    from mmpt_bench.board.writers.terminal import leaderboard_tables

    console = Console()
    for table in leaderboard_tables(made):
        console.print(table)
    click.echo(f"Written: leaderboard.csv, leaderboard.md and figures/ in {store.root}/", err=True)
