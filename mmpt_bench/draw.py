"""`mmpt-bench figures`: draws what can be drawn, and says what is missing for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import click

from mmpt_bench import registry
from mmpt_bench.errors import RequestError, unknown_name
from mmpt_bench.figures import KINDS, Drawn, Kind, Missing, figures, material, write
from mmpt_bench.store import Store


def draw(out: Path, only: str, as_json: bool) -> int:
    """Writes the figures of a results folder to its `figures/` and returns 0.

    Raises:
        RequestError: a kind that is none, or nothing can be drawn.
    """
    kinds = _kinds(only)
    store = Store(out)
    made = list(figures(material(store, registry.built_in_tasks(), registry.colors()), kinds))
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
