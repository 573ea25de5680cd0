"""`mmpt-bench compare`: which of some methods is better."""

from __future__ import annotations

from pathlib import Path

import click

from mmpt_bench.cli.options import JSON, OUT, print_json


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option(
    "--tasks", default="", help="Tasks that count, comma-separated, your own by name; by default all that were run."
)
@click.option(
    "--scope",
    type=click.Choice(["method", "checkpoint"]),
    help="`method`: other seeds and images; `checkpoint`: the models of the first common seed. By default what the "
    "seeds allow.",
)
@click.option(
    "--setting",
    default="",
    help="Id of the board, where several hold the names; the message then lists them, as leaderboard.md does.",
)
@OUT
@JSON
def compare(names: tuple[str, ...], tasks: str, scope: str | None, setting: str, out: Path, as_json: bool) -> None:
    """Say which of some methods is better, or that they do not differ significantly, and what could be found.

    NAMES are methods, rows of the leaderboard or of an ablation, or runs, whose beginnings do. `published:NAME` is a
    row of the published board, `published` all of them: results of the same setting, beside your own. Rows of a stream
    are called by method and strategy.

    \b
    mmpt-bench compare lora mmpt
    mmpt-bench compare lora mmpt full --tasks pope
    mmpt-bench compare mmpt published:prefix published:frozen
    mmpt-bench compare "lora sequential" "lora replay:0.1"
    """
    from mmpt_bench import api
    from mmpt_bench.cli.streams import console, echo
    from mmpt_bench.study.comparisons.text import as_plain, tables
    from mmpt_bench.study.streams.compare import StreamComparison, comparison_table

    answer = api.compare(*names, tasks=tasks, scope=scope, setting=setting, out=out)  # type: ignore[arg-type]
    screen, plain = console(), {}
    if isinstance(answer, StreamComparison):
        plain, parts = {"sentence": answer.sentence, "contrasts": answer.lines}, [comparison_table(answer)]
    else:
        plain, parts = as_plain(answer), tables(answer, screen.width)
    if as_json:
        print_json(plain)
        return
    echo(answer.sentence)
    for part in parts:
        screen.print(part)
