"""`mmpt-bench explain`: where a run looks, whether that is right, and what tuning has changed of it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from mmpt_bench.cli.options import JSON, OUT, WORLD, print_json, verbosity_options, with_family, words_again
from mmpt_bench.cli.progress import stopping
from mmpt_bench.common.errors import Interrupted

NO_SCORE = ("as_json", "out", "offline", "verbosity", "device")
"""Options that change no score of an explanation."""


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--tasks", default="mme", show_default=True, help="Whose questions are explained: names or files.")
@click.option(
    "--maps",
    default="",
    help="rollout, relevancy, grad, grad-input, ig, loo, attention; comma-separated. By default all; random is always "
    "among them.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="So many questions of each task, and the others on their images.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of real data in the hub's schema.")
@click.option("--device", default=None, help="As torch names it; by default the accelerator if there is one.")
@click.option("--offline", is_flag=True, help="Open no socket: everything must be on this machine.")
@WORLD
@OUT
@JSON
@verbosity_options
@with_family
def explain(runs: tuple[str, ...], as_json: bool, verbosity: int, **options: Any) -> None:
    """Draw where runs look, score whether that is right and faithful, and say what tuning has changed.

    RUN is the name of a run, or how names begin: runs of one variant are seeds of one row. The untuned base is always
    beside them. On the embedded suite, maps are held to the cells of what each question names.

    \b
    mmpt-bench explain mmpt
    mmpt-bench explain lora-049c mmpt --tasks mme,vsr --limit 60
    mmpt-bench explain mmpt --maps rollout,grad,loo
    """
    from mmpt_bench import api
    from mmpt_bench.cli.streams import console, echo
    from mmpt_bench.study.explanations.result import lines
    from mmpt_bench.study.explanations.tables import explanation_tables, prompt_lines

    command = shlex.join(words_again(click.get_current_context(), NO_SCORE))

    def say(text: str) -> None:
        if verbosity >= 0:
            click.echo(text, err=True)

    with stopping() as stop:
        try:
            result = api.explain(runs, **options, command=command, say=say, stopping=stop)
        except Interrupted as reason:
            click.echo(f"Stopped: {reason}. Nothing is written; the same command starts again.", err=True)
            sys.exit(130)
    files = [str(path) for path in result.files]
    if as_json:
        print_json(
            {"name": result.name, "scores": lines(result), "prompts": prompt_lines(result), "files": files,
             "notes": list(result.notes)}
        )  # fmt: skip
        return
    for part in explanation_tables(result, console().width):
        console().print(part)
    for note in result.notes:
        echo(note)
    say(f"Written: {', '.join(files)}")
