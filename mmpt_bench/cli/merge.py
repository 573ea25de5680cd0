"""`mmpt-bench merge`: results folders as one."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from mmpt_bench.cli.options import JSON, OUT, command_on, print_json
from mmpt_bench.cli.streams import echo
from mmpt_bench.common.words import counted

UNTRUSTED = 5
"""Exit code where something contradicts itself."""


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@OUT
@JSON
def merge(folders: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Copy what results folders hold into one, each run whole or not at all.

    Where two folders have the same run with other results, or of another training, nothing of it is taken: it is
    listed, and the exit code is 5. The folders stay as they are.

    \b
    mmpt-bench merge from-a from-b --out mmpt-results
    """
    from mmpt_bench import api

    done = api.merge(folders, out)
    if as_json:
        print_json(dataclasses.asdict(done))
    else:
        n = len(done.taken)
        open_ones = f" ({len(done.unfinished)} without a result yet)" if done.unfinished else ""
        echo(f"{counted(n, 'run')} taken{open_ones}, {done.same} there already, in {out}.")
        for text in done.conflicts:
            echo(f"Left out: {text}", err=True)
        echo(f"Next: {command_on(out, 'leaderboard')}", err=True)
    sys.exit(UNTRUSTED if done.conflicts else 0)
