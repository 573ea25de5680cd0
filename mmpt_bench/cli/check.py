"""`mmpt-bench check`: the conformance suite on a file."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from mmpt_bench.cli.options import BACKBONE, COLUMNS, JSON, print_json, with_family


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@BACKBONE
@click.option("--data", type=click.Path(path_type=Path), help="Folder of a task's rows, in the hub's schema.")
@COLUMNS
@JSON
@with_family
def check(file: Path, backbone: str, data: Path | None, columns: tuple[str, ...], as_json: bool) -> None:
    """Run the conformance suite on a file of a task, a method or a family, or on a backbone's folder."""
    from mmpt_bench import api

    results = api.check(file, backbone, data, columns)
    if as_json:
        print_json([dataclasses.asdict(result) for result in results])
    else:
        for result in results:
            told = f": {result.detail}" if result.detail else ""
            click.echo(f"{'pass' if result.ok else 'FAIL'} {result.name}{told}")
    sys.exit(0 if all(result.ok for result in results) else 4)
