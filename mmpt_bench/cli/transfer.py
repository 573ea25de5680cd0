"""`mmpt-bench transfer`: a task learnt from other tasks' values, against a method's own, in as many steps."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from mmpt_bench.cli.options import JSON, OUT, budget_options, print_json, verbosity_options, words_again
from mmpt_bench.cli.plan_text import print_plan
from mmpt_bench.cli.progress import running, say_drawn
from mmpt_bench.cli.stream import NO_SCORE
from mmpt_bench.common.words import counted

LOOKS = 20
"""Steps between two looks, by default."""


@click.command()
@click.argument("task")
@click.option(
    "--from", "before", default="reptile", show_default=True, help="Tasks to learn first, each; or `reptile`."
)
@click.option("--method", default="mmpt", show_default=True, help="Names or files, comma-separated.")
@click.option("--before", "before_steps", default=100, show_default=True, help="Steps on those, out of `--steps`.")
@click.option("--every", default=LOOKS, show_default=True, help="Steps between two looks at the task's dev part.")
@click.option("--seeds", default="0", show_default=True, help="As in 0,1,2 or 0-7.")
@click.option("--set", multiple=True, metavar="METHOD.FIELD=VALUE", help="A hyperparameter; repeatable.")
@click.option("--backbone", default="embedded", show_default=True, help="`embedded`, a folder, or a name on the hub.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of real data in the hub's schema.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="The first so many test questions, and the others on their images: a trial.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Say what would run and how long; run nothing.")
@OUT
@JSON
@budget_options
@verbosity_options
def transfer(only_plan: bool, as_json: bool, verbosity: int, **options: Any) -> None:
    """Learn TASK from other tasks' values and from a method's own, in as many steps; say how many each needs.

    A method is trained on another task for `--before` steps, then on TASK for the rest of `--steps`; beside it, on TASK
    alone for all of them. What is recorded already is not done again.

    \b
    mmpt-bench transfer vsr --from mnist,reptile --method lora --steps 400 --before 100
    """
    from mmpt_bench import api
    from mmpt_bench.study.streams.transfer_tables import FOLDER, NOTE, table_lines, terminal_table

    del options["train_data"]
    command = shlex.join(words_again(click.get_current_context(), NO_SCORE))
    with running(options["out"], verbosity) as (reporter, stop):
        result = api.transfer(**options, command=command, only_plan=only_plan, reporter=reporter, stopping=stop)
    if result.summary is not None:
        print_plan(result.summary, as_json, transfer=result.name)
        return
    if result.failed:
        click.echo(f"{counted(len(result.failed), 'result')} failed, recorded as failed. No table is made.", err=True)
        sys.exit(4)
    if as_json:
        print_json({"transfer": result.name, "rows": table_lines(result.rows)})
        return
    from mmpt_bench.cli.streams import console, echo

    console().print(terminal_table(result.rows))
    echo(NOTE.replace("**", ""))
    click.echo(f"Written: {result.name}.csv and .md in {result.folder}/{FOLDER}/", err=True)
    say_drawn(result.figures)
