"""`mmpt-bench prompts`: the same items asked in several forms."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from mmpt_bench.cli.options import (
    BACKBONE,
    COLUMNS,
    DATASET,
    IMAGES,
    JSON,
    OUT,
    PARSE,
    WORLD,
    budget_options,
    print_json,
    verbosity_options,
    words_again,
)
from mmpt_bench.cli.progress import running
from mmpt_bench.common.words import counted

NO_SCORE = ("as_json", "out", "offline", "verbosity", "eval_batch_size")
"""Options that change no score."""


@click.command()
@click.argument("task")
@click.option("--forms", default="all", show_default=True, help="Names; others are compared with the first.")
@click.option("--method", default="frozen,mmpt", show_default=True, help="Names or files, comma-separated.")
@click.option("--orders", default=3, show_default=True, help="Orders of the labels that each item is asked in.")
@click.option(
    "--reasoning-tokens", default=128, show_default=True, help="Longest free text, where a form asks for some."
)
@click.option("--seeds", default="0", show_default=True, help="As in 0,1,2 or 0-7.")
@click.option("--set", multiple=True, metavar="METHOD.FIELD=VALUE", help="A hyperparameter; repeatable.")
@BACKBONE
@click.option("--data", type=click.Path(path_type=Path), help="Folder of real data in the hub's schema, or a file.")
@IMAGES
@DATASET
@WORLD
@COLUMNS
@click.option("--limit", type=click.IntRange(min=1), help="The first so many questions, and others on their images.")
@PARSE
@OUT
@JSON
@budget_options
@verbosity_options
def prompts(as_json: bool, verbosity: int, **options: Any) -> None:
    """Ask a task's items in several forms of prompts; say which form is better.

    Each form asks the same items, in several orders of the labels. Differences are paired, from the first form of the
    same method, and corrected by Holm. What is answered already is not asked again.

    \b
    mmpt-bench prompts snli_ve
    mmpt-bench prompts snli_ve --forms plain,if-then --method frozen,mmpt --seeds 0-5
    """
    from mmpt_bench import api
    from mmpt_bench.cli.streams import console, echo
    from mmpt_bench.study.prompts.tables import FOLDER, lines, prompts_table

    command = shlex.join(words_again(click.get_current_context(), NO_SCORE))
    with running(options["out"], verbosity) as (reporter, stop):
        result = api.prompts(**options, command=command, reporter=reporter, stopping=stop)
    if as_json:
        print_json({"name": result.name, "rows": lines(result), "notes": list(result.notes)})
    else:
        console().print(prompts_table(result))
        for note in result.notes:
            echo(note)
        click.echo(f"Written: {result.name}.csv, -orders.csv and .md in {result.folder}/{FOLDER}/", err=True)
    if result.failed:
        click.echo(f"{counted(len(result.failed), 'result')} failed, recorded as failed.", err=True)
        sys.exit(4)
