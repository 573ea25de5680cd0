"""`mmpt-bench new`: a file to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from mmpt_bench.cli.options import FOLDER


@click.command()
@click.argument("kind", type=click.Choice(["experiment", "task", "method"]))
@click.argument("name", default="")
@click.option("--into", type=FOLDER, default=Path("."), help="Folder of the file; by default the working directory.")
@click.option(
    "--kind",
    "of",
    default="",
    help="Of a task: choice, open, caption, multi-image or judged; of a method: prompts, adapter or objective.",
)
def new(kind: str, name: str, into: Path, of: str) -> None:
    """Write a commented, working experiment, task or method to begin with.

    Nothing is overwritten.

    \b
    mmpt-bench new experiment          experiment.yaml
    mmpt-bench new task colours        colours.py
    mmpt-bench new task docs --kind open
    mmpt-bench new method norms
    mmpt-bench new method mine --kind prompts
    """
    from mmpt_bench import api

    path = api.new(kind, name, into, of)
    click.echo(path)
    verb = "run" if kind == "experiment" else "check"
    shown = path if path.is_absolute() else f"./{path}"
    click.echo(f"Next: `mmpt-bench {verb} {shown}{' --plan' if verb == 'run' else ''}`", err=True)
