"""`mmpt-bench data check`: what is found of each task, before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mmpt_bench.cli.options import COLUMNS, DATASET, JSON
from mmpt_bench.common.errors import RequestError

ANEW = "open all anew"
"""What `--images` without a value stands for."""


@click.group()
def data() -> None:
    """Look at the data of the tasks before anything runs."""


@data.command("check")
@click.option("--tasks", default="all", show_default=True, help="Names or files, comma-separated.")
@click.option(
    "--data",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder in the hub's schema, or a file of rows; else the hub.",
)
@click.option(
    "--images",
    multiple=True,
    is_flag=False,
    flag_value=ANEW,
    metavar="[COLLECTION=DIR]",
    help="Where images are that data sets only name: coco=DIR,flickr30k=DIR,mme=DIR; repeatable. Alone: open every "
    "image again, though an earlier check has opened it.",
)
@DATASET
@COLUMNS
@click.option("--offline", is_flag=True, help="Open no socket: the hub's cache must have everything.")
@JSON
def check(
    tasks: str,
    folder: Path | None,
    images: tuple[str, ...],
    dataset: tuple[str, ...],
    columns: tuple[str, ...],
    offline: bool,
    as_json: bool,
) -> None:
    """Say of each task what was found: rows, labels, duplicates, overlap, missing images, fingerprint.

    Every image is opened. Ends with code 3 where some task cannot be evaluated.
    """
    import dataclasses
    import json

    from mmpt_bench.data.image_folders import image_folders
    from mmpt_bench.evaluation import task_catalog
    from mmpt_bench.runs.option_texts import column_names, dataset_names
    from mmpt_bench.sources.check_data import check_data, report_lines
    from mmpt_bench.sources.task_rows import Where

    entries = task_catalog.find_tasks(tasks)
    names = dataset_names(dataset, [entry.name for entry in entries])
    called = column_names(columns, [entry.name for entry in entries])
    folders = image_folders([text for text in images if text != ANEW])
    if folder is not None and not folder.exists():
        raise RequestError(f"There is no folder or file `{folder}` to read data from.")
    reports = []
    for entry in entries:
        task = task_catalog.load_task(entry)
        task = task.on(task.data.named(names[entry.name])) if entry.name in names else task
        reports.append(check_data(task, Where(folder, folders, offline=offline, columns=called), ANEW in images))
        if not as_json:
            click.echo("\n".join(report_lines(reports[-1])))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(report) for report in reports], indent=1))
    sys.exit(3 if any(report.fault for report in reports) else 0)
