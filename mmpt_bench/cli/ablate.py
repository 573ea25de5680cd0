"""`mmpt-bench ablate`: settings of a method, varied; the points, and which of them differ."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmpt_bench.cli.options import (
    COLUMNS,
    JSON,
    OUT,
    budget_options,
    print_json,
    verbosity_options,
    words_again,
)
from mmpt_bench.cli.plan_text import print_plan
from mmpt_bench.cli.progress import QUIET, next_step, running, say_drawn
from mmpt_bench.cli.scale_options import ANSWERS, GPUS_PER_UNIT, KEEP_ADAPTERS, WORKERS
from mmpt_bench.common.words import counted

if TYPE_CHECKING:
    from mmpt_bench.study.ablations.tables import AblationResult


NO_SCORE = (
    "as_json",
    "only_plan",
    "out",
    "budget_hours",
    "offline",
    "verbosity",
    "eval_batch_size",
    "micro_batch",
    "gradient_checkpointing",
    "workers",
    "keep_adapters",
    "answers",
    "gpus_per_unit",
)
"""Options that change no score of an ablation."""


def _axis_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds an option for each thing that `axes.OPTIONS` names."""
    for name, metavar, text in reversed(
        (
            ("prompt-len", "N,N,...", "Prompts on every side that a method has."),
            ("visual-len", "N,N,...", "Prompts in each block of the vision tower."),
            ("text-len", "N,N,...", "Prompts, or prefix rows, in each layer of the language model."),
            ("parts", "PART,...", "Of visual, text, both-plain (without interaction), both."),
            ("depth", "DEPTH,...", "Of deep, shallow, visual-deep, text-deep."),
            ("placement", "NAME,...", "For methods that have a field `placement`."),
            ("init", "NAME,...", "For methods that have a field `init`."),
            ("data-fraction", "F,F,...", "Share of the training data that is used, above 0 and at most 1."),
            ("steps", "N,N,...", "Optimiser steps; one number for all runs, 400 by default."),
            ("lr", "RATE,...", "Learning rates."),
            ("backbone", "NAME,...", "Backbones; one for all runs, `embedded` by default."),
        )
    ):
        command = click.option(f"--{name}", f"axis_{name.replace('-', '_')}", metavar=metavar, help=text)(command)
    return command


@click.command()
@click.option("--method", default="mmpt", show_default=True, help="What is varied: names or files, comma-separated.")
@click.option("--tasks", default="mme,pope", show_default=True, help="Names or files, comma-separated, or `all`.")
@click.option("--seeds", default="0", show_default=True, help="As in 0,1,2 or 0-7; six or more before points differ.")
@_axis_options
@click.option(
    "--set",
    multiple=True,
    metavar="METHOD.FIELD=V,V,...",
    help="Any field: several values are varied, one is fixed in all runs; repeatable.",
)
@click.option(
    "--with", "beside", default="frozen", show_default=True, help="Methods run as they are, to compare with; or `none`."
)
@click.option("--one-at-a-time", is_flag=True, help="Each value with nothing else changed, instead of a grid.")
@click.option("--budget-hours", type=float, help="Refuse what would take longer, by what recorded runs took.")
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
@partial(budget_options, with_steps=False)
@verbosity_options
def ablate(only_plan: bool, as_json: bool, verbosity: int, **options: Any) -> None:
    """Vary something in a method, train and evaluate each variant, and tabulate what it changes.

    Several options make a grid. What is recorded already is not done again, whatever asked for it.

    \b
    mmpt-bench ablate --prompt-len 5,10,20 --tasks mme,pope
    mmpt-bench ablate --visual-len 5,10,20 --text-len 5,10 --seeds 0,1,2
    mmpt-bench ablate --parts visual,text,both-plain,both
    mmpt-bench ablate --method lora --set r=4,16,64 --lr 1e-4,1e-3 --one-at-a-time
    """
    from mmpt_bench import api
    from mmpt_bench.study.ablations.axes import OPTIONS

    axes = {name: text for name in OPTIONS if (text := options.pop(f"axis_{name.replace('-', '_')}")) is not None}
    if "," not in axes.get("steps", ","):
        context = click.get_current_context()
        (option,) = (each for each in context.command.params if each.name == "axis_steps")
        options["steps"] = click.INT.convert(axes.pop("steps"), option, context)
    if "," not in axes.get("backbone", ""):
        options["backbone"] = axes.pop("backbone", "embedded")
    else:
        options["backbone"] = axes["backbone"].split(",")[0].strip()
    command = shlex.join(words_again(click.get_current_context(), NO_SCORE))
    with running(options["out"], verbosity, options["workers"]) as (reporter, stop):
        result = api.ablate(
            **options, axes=axes, command=command, only_plan=only_plan, reporter=reporter, stopping=stop
        )
    if result.summary is not None:
        if not as_json:
            n = len(result.seeds)
            seeds = f"{n} seed{'s' if n > 1 else ''}"
            click.echo(f"{counted(len(result.points), 'point')} at {seeds}: {', '.join(result.points)}.", err=True)
        print_plan(result.summary, as_json, ablation=result.name, points=result.points)
        return
    _print(result, as_json, verbosity <= QUIET)
    if result.failed:
        click.echo(f"{len(result.failed)} of {counted(result.n_runs, 'run')} failed; the table lists them.", err=True)
        sys.exit(4)
    if not as_json and verbosity > QUIET:
        for line in next_step(click.get_current_context(), options["seeds"], options["out"], "points"):
            click.echo(line, err=True)


def _print(result: AblationResult, as_json: bool, quiet: bool) -> None:
    from mmpt_bench.cli.streams import console
    from mmpt_bench.study.ablations.tables import FOLDER, ablation_json, ablation_tables

    assert result.board is not None
    if as_json:
        print_json(ablation_json(result.board) | {"figures": [str(path) for path in result.figures]})
        return
    for part in ablation_tables(result.board):
        console().print(part)
    if quiet:
        return
    click.echo(f"Written: {result.name}.csv and .md in {result.folder}/{FOLDER}/, and scores.csv", err=True)
    say_drawn(result.figures)
    if not result.figures:
        click.echo("No figure was drawn: it takes two points or more.", err=True)
