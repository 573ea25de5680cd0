"""`mmpt-bench figures`: draws what can be drawn, and says what is missing for the rest."""

from __future__ import annotations

from pathlib import Path

import click

from mmpt_bench.cli.options import JSON, OUT, print_json
from mmpt_bench.common.words import counted


@click.command()
@click.option("--only", default="", help="Kinds of figures, comma-separated; by default all that can be drawn.")
@OUT
@JSON
def figures(only: str, out: Path, as_json: bool) -> None:
    """Draw every figure that the records allow as SVG, PDF and PNG, each with its CSV; say what the others need."""
    from mmpt_bench import api

    drawn, missing = api.write_figures(out, only)
    if as_json:
        rows = [{"kind": e.kind, "name": e.name, "title": e.title, "caption": e.caption, "alt": e.alt} for e in drawn]
        lost = [{"kind": e.kind, "name": e.name, "title": e.title, "reason": e.reason} for e in missing]
        print_json({"drawn": rows, "missing": lost})
        return
    for each in drawn:
        click.echo(f"{each.name}: {each.title}")
    for lack in missing:
        click.echo(f"Not drawn: {lack.title}: {lack.reason}", err=True)
    click.echo(f"Written: {counted(len(drawn), 'figure')} as SVG, PDF, PNG and CSV in {out}/figures/", err=True)
