"""`mmpt-bench figures`: draws what can be drawn, and says what is missing for the rest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

import click

from mmpt_bench.cli.options import JSON, OUT
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.figures.draw import figures as every_figure
from mmpt_bench.figures.draw import write
from mmpt_bench.figures.figure_data import KINDS, Drawn, Kind, Missing, material
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.store import Store


@click.command()
@click.option("--only", default="", help="Kinds of figures, comma-separated; by default all that can be drawn.")
@OUT
@JSON
def figures(only: str, out: Path, as_json: bool) -> None:
    """Draw every figure that the records allow as SVG, PDF and PNG, each with its CSV; say what the others need."""
    sys.exit(draw(out, only, as_json))


def draw(out: Path, only: str, as_json: bool) -> int:
    """Writes the figures of a results folder to its `figures/` and returns 0.

    Raises:
        RequestError: a kind that is none, or nothing can be drawn.
    """
    kinds = _kinds(only)
    store = Store(out)
    made = list(every_figure(material(store, task_catalog.built_in_tasks(), method_catalog.colors()), kinds))
    drawn = [each for each in made if isinstance(each, Drawn)]
    missing = [each for each in made if isinstance(each, Missing)]
    if not drawn:
        raise RequestError("Nothing can be drawn yet. " + " ".join(f"{each.title}: {each.reason}" for each in missing))
    for each in drawn:
        write(each, store.path("figures"))
    if as_json:
        rows = [{"kind": e.kind, "name": e.name, "title": e.title, "caption": e.caption, "alt": e.alt} for e in drawn]
        lost = [{"kind": e.kind, "name": e.name, "title": e.title, "reason": e.reason} for e in missing]
        click.echo(json.dumps({"drawn": rows, "missing": lost}, indent=1))
        return 0
    for each in drawn:
        click.echo(f"{each.name}: {each.title}")
    for lack in missing:
        click.echo(f"Not drawn: {lack.title}: {lack.reason}", err=True)
    click.echo(f"Written: {len(drawn)} figures as SVG, PDF, PNG and CSV in {store.root}/figures/", err=True)
    return 0


def _kinds(only: str) -> tuple[Kind, ...]:
    wanted = [kind.strip() for kind in only.split(",") if kind.strip()]
    for kind in wanted:
        if kind not in KINDS:
            raise unknown_name("kind of figure", kind, KINDS)
    return cast(tuple[Kind, ...], tuple(wanted)) or KINDS
