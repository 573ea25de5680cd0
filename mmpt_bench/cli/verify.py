"""`mmpt-bench verify`: whether a results folder is what its hashes say."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mmpt_bench.cli.merge import UNTRUSTED
from mmpt_bench.cli.options import JSON, print_json
from mmpt_bench.cli.streams import echo


@click.command()
@click.argument("results", required=False, type=click.Path(path_type=Path))
@click.option(
    "--rerun",
    type=click.Path(path_type=Path),
    help="Folder in which some of the trainings were made again: how far apart?",
)
@JSON
def verify(results: Path | None, rerun: Path | None, as_json: bool) -> None:
    """Check the hashes of adapters, answers, samples and records, and that each run is of one training.

    RESULTS is a results folder; by default $MMPT_RESULTS, or mmpt-results. Nothing is written. Exit code 5 where
    something cannot be trusted. Tables and figures are not looked at: `leaderboard` makes them from the records.

    With --rerun, nothing of that is done: the table shows how far apart the scores of one recipe and seed are that was
    trained in both folders, as with another number of threads or on another machine.

    \b
    mmpt-bench verify mmpt-results
    mmpt-bench verify mmpt-results --rerun other-results
    """
    from mmpt_bench import api
    from mmpt_bench.records.verify import checked, look

    if rerun is not None:
        made = api.reruns(rerun, results)
        if as_json:
            print_json(made.table.to_dict("records"))
        else:
            echo(made.markdown)
        return
    found = look(checked(api.load_results(results).folder))
    if as_json:
        print_json(list(found.faults))
    else:
        for text in found.faults or found.held:
            echo(text)
    sys.exit(UNTRUSTED if found.faults else 0)
