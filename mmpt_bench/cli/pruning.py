"""`run --keep-tokens`: the same runs, asked again with a share of their image tokens."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from mmpt_bench.cli.options import command_on, print_json, refuse_beside, words_again
from mmpt_bench.cli.progress import running
from mmpt_bench.cli.streams import console, echo
from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.words import counted

NO_SCORE = ("as_json", "out", "offline", "verbosity", "eval_batch_size")
"""Options that change no score."""
OPTIONS = (
    click.option(
        "--keep-tokens",
        default="",
        metavar="SHARES",
        help="Also ask with these shares of the image tokens, as in 1.0,0.5,0.25; tables and a figure of their own.",
    ),
    click.option(
        "--prune",
        default="",
        metavar="KINDS",
        help="Which tokens `--keep-tokens` keeps: random, cls, attention; by default all that the model allows. "
        "`random` is always among them.",
    ),
)


def check_pruning(keep_tokens: str, prune: str) -> None:
    """Raises RequestError for pruning options that are none, or do not go with others that were typed."""
    from mmpt_bench.evaluation.pruning import kinds_of, shares_of

    context, typed = click.get_current_context(), click.core.ParameterSource.COMMANDLINE
    if context.get_parameter_source("keep_tokens") is not typed:
        if context.get_parameter_source("prune") is typed:
            raise RequestError("`--prune` chooses what `--keep-tokens` keeps: write it too, as in 1.0,0.5,0.25.")
        return
    shares_of(keep_tokens)
    kinds_of(prune, {})
    refuse_beside("keep-tokens", "workers", "parallel", "log_to", "measure_costs")
    if context.params["only_plan"]:
        raise RequestError("`--plan` says nothing of `--keep-tokens`: leave one of them out.")


def run_pruned(options: dict[str, Any], keep_tokens: str, prune: str, as_json: bool, verbosity: int) -> None:
    """Runs what `run` does, asks again with fewer tokens, and prints that."""
    from mmpt_bench import api
    from mmpt_bench.study.pruning.tables import lines, pruning_tables

    command = shlex.join(words_again(click.get_current_context(), NO_SCORE))
    asked = {name: value for name, value in options.items() if name not in ("workers", "parallel", "log_to")}
    with running(options["out"], verbosity) as (reporter, stop):
        result = api.prune(
            **asked, keep_tokens=keep_tokens, kinds=prune, command=command, reporter=reporter, stopping=stop
        )
    if as_json:
        print_json({"name": result.name, "rows": lines(result), "notes": list(result.notes)})
    else:
        for table in pruning_tables(result):
            console().print(table)
        for note in result.notes:
            echo(f"{note}.")
        click.echo(f"Written: {', '.join(str(path) for path in result.files)}", err=True)
        told = command_on(options["out"], "leaderboard")
        click.echo(f"The whole-image results are on the leaderboard: `{told}`.", err=True)
    if result.failed:
        click.echo(f"{counted(len(result.failed), 'result')} failed, recorded as failed.", err=True)
        sys.exit(4)
