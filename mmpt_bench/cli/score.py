"""`mmpt-bench score`: answers made elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mmpt_bench.cli.options import DATASET, PARSE, dataset_names
from mmpt_bench.common.errors import RequestError


@click.command()
@click.argument("task")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@PARSE
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of the task's official rows, to match the answers to."
)
@DATASET
@click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, and nothing else.")
def score(
    task: str, files: tuple[Path, ...], rule: str, data: Path | None, datasets: tuple[str, ...], as_json: bool
) -> None:
    """Score answers made elsewhere: TASK is a task's name or file, FILES hold the replies.

    Read are JSON lines (`question_id` or `index`, `category`, `question`, `answer` or `label`, `reply`), lmms-eval's
    `samples_*.jsonl`, VLMEvalKit's prediction files (.xlsx, .tsv, .csv) and the folder of MME's own tool.
    """
    import json

    from mmpt_bench.evaluation import task_catalog
    from mmpt_bench.interop.answers.card import scorecard_json, scorecard_parts
    from mmpt_bench.interop.answers.forms import read_answers
    from mmpt_bench.interop.answers.score import score_answers
    from mmpt_bench.sources.task_rows import folder_rows, samples

    entries = task_catalog.find_tasks(task)
    if len(entries) != 1:
        raise RequestError(f"`{task}` names {len(entries)} tasks: score one at a time.")
    found = task_catalog.load_task(entries[0]).with_rule(rule)
    for name in dataset_names(datasets, [found.name]).values():
        found = found.with_dataset(name)
    given = read_answers(files)
    official = None if data is None else samples(found, folder_rows(found, data, need_pictures=False))
    card = score_answers(found, given, official)
    if as_json:
        click.echo(json.dumps(scorecard_json(card), indent=1))
    else:
        from rich.console import Console

        console = Console()
        for part in scorecard_parts(card):
            console.print(part)
    if as_json and not card.comparable:
        click.echo(f"{card.title}: incomplete, not comparable: {'; '.join(card.missing)}.", err=True)
    sys.exit(0)
