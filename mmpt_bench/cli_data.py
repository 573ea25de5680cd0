"""Commands about data and answers: `score` reads files of others, `data check` looks at what is here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from mmpt_bench.errors import RequestError, unknown_name

RULES = ("official", "lmms-eval", "vlmevalkit")
PARSE = click.option(
    "--parse",
    "rule",
    type=click.Choice(RULES),
    default=RULES[0],
    show_default=True,
    help="How replies are read: as the benchmark's authors do, or as another harness does.",
)


IMAGES = click.option(
    "--images",
    multiple=True,
    metavar="COLLECTION=DIR",
    help="Where pictures are that data sets only name: coco=DIR,flickr30k=DIR,mme=DIR; repeatable.",
)
DATASET = click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="TASK=NAME",
    help="Another data set of a task's form: vsr=random, or mme=OWNER/NAME[@REVISION] of the hub; repeatable.",
)


def dataset_names(texts: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """Returns task -> data set of `--dataset vsr=random`; RequestError names what is wrong."""
    found: dict[str, str] = {}
    for text in texts:
        task, equals, name = text.partition("=")
        if not equals or not name:
            raise RequestError(f"`--dataset {text}`: write TASK=NAME, as in `vsr=random`.")
        if task not in tasks:
            raise unknown_name("task", task, tasks, f"`--dataset {text}` is for one that `--tasks` does not name.")
        found[task] = name
    return found


@click.group()
def data() -> None:
    """Look at the data of the tasks before anything runs."""


@data.command("check")
@click.option("--tasks", default="all", show_default=True, help="Names or files, comma-separated.")
@click.option("--data", "folder", type=click.Path(path_type=Path), help="Folder in the hub's schema; else the hub.")
@IMAGES
@DATASET
@click.option("--offline", is_flag=True, help="Open no socket: the hub's cache must have everything.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, and nothing else.")
def check(
    tasks: str, folder: Path | None, images: tuple[str, ...], datasets: tuple[str, ...], offline: bool, as_json: bool
) -> None:
    """Say of each task what was found: rows, labels, duplicates, overlap, missing pictures, fingerprint.

    Ends with code 3 where some task cannot be evaluated.
    """
    import dataclasses
    import json

    from mmpt_bench import registry
    from mmpt_bench.data_check import check_data, report_lines
    from mmpt_bench.joined import image_folders

    entries = registry.find("task", tasks)
    names = dataset_names(datasets, [entry.name for entry in entries])
    folders = image_folders(images)
    if folder is not None and not folder.is_dir():
        raise RequestError(f"There is no folder `{folder}` to read data from.")
    reports = []
    for entry in entries:
        task = registry.load_task(entry)
        task = task.with_dataset(names[entry.name]) if entry.name in names else task
        reports.append(check_data(task, folder, folders, offline))
        if not as_json:
            click.echo("\n".join(report_lines(reports[-1])))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(report) for report in reports], indent=1))
    sys.exit(3 if any(report.fault for report in reports) else 0)


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

    from mmpt_bench import registry
    from mmpt_bench.answers import read_answers
    from mmpt_bench.score import score_answers
    from mmpt_bench.scorecard import scorecard_json, scorecard_parts
    from mmpt_bench.source import folder_rows, samples

    entries = registry.find("task", task)
    if len(entries) != 1:
        raise RequestError(f"`{task}` names {len(entries)} tasks: score one at a time.")
    found = registry.load_task(entries[0]).with_rule(rule)
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
