"""`mmpt-bench protocol`: trained models asked and read as a published paper does."""

from __future__ import annotations

import shlex
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
    budget_options,
    print_json,
    refuse_beside,
    verbosity_options,
    words_again,
)
from mmpt_bench.cli.progress import running

NO_SCORE = ("as_json", "out", "offline", "verbosity", "eval_batch_size")
"""Options that change no score."""


@click.command()
@click.argument("name", metavar="m2pt|mixlora|mrt")
@click.option(
    "--method", default="frozen,mmpt", show_default=True, help="Names or files; each trained already by `run`."
)
@click.option("--tasks", default="all", show_default=True, help="Files of items: text_vqa, pope_adv, mme, ...")
@click.option(
    "--items",
    type=click.Path(path_type=Path),
    help="Folder of the authors' JSON lines and images; without it, items are made of the tasks' rows.",
)
@click.option("--judge", metavar="FILE|MODEL", help="Verdicts in a file, or a local model, beside exact match.")
@click.option("--sample-seed", default=0, show_default=True, help="Of the sampled replies.")
@click.option("--seeds", default="0", show_default=True, help="Of the trainings, as in 0,1,2 or 0-7.")
@click.option("--set", multiple=True, metavar="METHOD.FIELD=VALUE", help="A hyperparameter; repeatable.")
@click.option("--adapter", metavar="DIR_OR_HUB_ID", help="A trained adapter in PEFT's form, in place of `--method`.")
@click.option("--other-base", is_flag=True, help="The adapter may be of another base model.")
@BACKBONE
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of real data in the hub's schema, for made items."
)
@IMAGES
@DATASET
@COLUMNS
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="The first so many items of each file, and the others on their images: a trial.",
)
@OUT
@JSON
@budget_options
@verbosity_options
def protocol(as_json: bool, verbosity: int, **options: Any) -> None:
    """Ask and read as a paper's authors do: their template, sampling, length, items, rule for MME, and MMAvg.

    Nothing is trained: `mmpt-bench run` does that, with the same options. Scores stand in tables of their own.

    \b
    mmpt-bench protocol m2pt --method frozen,mmpt --items DIR --backbone OWNER/MODEL
    mmpt-bench protocol m2pt --method frozen
    """
    from mmpt_bench import api
    from mmpt_bench.cli.streams import console
    from mmpt_bench.study.protocols.tables import FOLDER, items_told, lines, missing_told, protocol_table

    if options["adapter"] is not None:
        refuse_beside("adapter", "method", "seeds", "set")
    command = shlex.join(words_again(click.get_current_context(), NO_SCORE))
    with running(options["out"], verbosity) as (reporter, stop):
        result = api.protocol(**options, command=command, reporter=reporter, stopping=stop)
    if as_json:
        print_json({"name": result.name, "items": items_told(result), "rows": lines(result)})
        return
    console().print(protocol_table(result))
    for text in (items_told(result), missing_told(result)):
        if text:
            click.echo(text)
    click.echo(f"Written: {result.name}.csv, -replies.jsonl and .md in {result.folder}/{FOLDER}/", err=True)
