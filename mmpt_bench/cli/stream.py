"""`mmpt-bench stream`: one task after another, and what is lost on the way."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmpt_bench.cli.options import (
    COLUMNS,
    JSON,
    OUT,
    budget_options,
    monitor_options,
    print_json,
    verbosity_options,
    words_again,
)
from mmpt_bench.cli.plan_text import print_plan
from mmpt_bench.cli.progress import QUIET, running, say_drawn
from mmpt_bench.cli.scale_options import ANSWERS, GPUS_PER_UNIT, KEEP_ADAPTERS, WORKERS
from mmpt_bench.common.words import counted

if TYPE_CHECKING:
    from mmpt_bench.study.streams.tables import StreamResult

NO_SCORE = (
    "as_json", "only_plan", "out", "offline", "verbosity", "eval_batch_size", "micro_batch", "gradient_checkpointing",
    "workers", "gpus_per_unit", "keep_adapters", "answers",
)  # fmt: skip
"""Options that change no score of a stream."""


@click.command()
@click.option(
    "--order", default="mnist,vsr,snli_ve,cifar10", show_default=True, help="Tasks to learn one after another."
)
@click.option("--orders", default=1, show_default=True, help="So many orders: that one, and others drawn at random.")
@click.option("--method", default="mmpt", show_default=True, help="Names or files, comma-separated.")
@click.option(
    "--strategy",
    default="sequential",
    show_default=True,
    help="sequential, replay:SHARE, ewc:WEIGHT, lwf:WEIGHT, new-adapter, joint; comma-separated.",
)
@click.option("--tasks", default="all", show_default=True, help="Evaluated after each stage: names, or `all`.")
@click.option("--seeds", default="0", show_default=True, help="As in 0,1,2 or 0-7.")
@click.option("--set", multiple=True, metavar="METHOD.FIELD=VALUE", help="A hyperparameter; repeatable.")
@click.option("--backbone", default="embedded", show_default=True, help="`embedded`, a folder, or a name on the hub.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of real data in the hub's schema.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="The first so many questions of each task, and the others on their images: a trial.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Say what would run and how long; run nothing.")
@COLUMNS
@WORKERS
@GPUS_PER_UNIT
@KEEP_ADAPTERS
@ANSWERS
@OUT
@JSON
@budget_options
@monitor_options
@verbosity_options
def stream(only_plan: bool, as_json: bool, verbosity: int, **options: Any) -> None:
    """Learn tasks one after another; say what was kept, what was lost, and what it did to other tasks.

    A stage trains on a task's own training split, with `--steps` of its own, and goes on from the stage before. What is
    recorded already is not done again.

    \b
    mmpt-bench stream --order mnist,vsr --method lora --strategy sequential,replay:0.1
    mmpt-bench stream --method lora,mmpt --strategy sequential,ewc,lwf,joint --seeds 0-2
    """
    from mmpt_bench import api

    del options["train_data"]
    command = shlex.join(words_again(click.get_current_context(), NO_SCORE))
    with running(options["out"], verbosity, options["workers"]) as (reporter, stop):
        result = api.stream(**options, command=command, only_plan=only_plan, reporter=reporter, stopping=stop)
    if result.summary is not None:
        print_plan(result.summary, as_json, stream=result.stream.name, trainings=len(result.stream.trainings))
        return
    _print(result, as_json, verbosity <= QUIET)
    if result.failed:
        click.echo(f"{counted(len(result.failed), 'result')} failed, recorded as failed.", err=True)
        sys.exit(4)


def _print(result: StreamResult, as_json: bool, quiet: bool) -> None:
    from mmpt_bench.cli.streams import console
    from mmpt_bench.records.streams import FOLDER
    from mmpt_bench.study.streams.tables import stream_json, stream_tables

    assert result.board is not None
    if as_json:
        print_json(stream_json(result.board) | {"figures": [str(path) for path in result.figures]})
        return
    for part in stream_tables(result.board):
        console().print(part)
    if quiet:
        return
    click.echo(f"Written: {result.stream.name}.csv, -scores.csv and .md in {result.folder}/{FOLDER}/", err=True)
    say_drawn(result.figures)
