"""`mmpt-bench score`: answers made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from mmpt_bench.cli.options import COLUMNS, DATASET, JSON, PARSE, print_json


@click.command()
@click.argument("task")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@PARSE
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of the task's official rows, to match the answers to."
)
@DATASET
@COLUMNS
@JSON
def score(
    task: str,
    files: tuple[Path, ...],
    parse: str,
    data: Path | None,
    dataset: tuple[str, ...],
    columns: tuple[str, ...],
    as_json: bool,
) -> None:
    """Score answers made elsewhere: TASK is a task's name or file, FILES hold the replies.

    Read are JSON lines or Parquet (`question_id` or `index`, `category`, `question`, `answer` or `label`,
    `reply`), lmms-eval's `samples_*.jsonl`, VLMEvalKit's prediction files (.xlsx, .tsv, .csv), LLaVA's answers to MME
    and POPE (with `--data`), and the folder of MME's own tool.
    """
    from mmpt_bench import api
    from mmpt_bench.interop.answers.card import scorecard_json, scorecard_parts

    card = api.score(task, files, parse=parse, data=data, dataset=dataset, columns=columns)
    if as_json:
        print_json(scorecard_json(card))
    else:
        from mmpt_bench.cli.streams import console

        for part in scorecard_parts(card):
            console().print(part)
    if as_json and not card.comparable:
        click.echo(f"{card.title}: incomplete, not comparable: {'; '.join(card.missing)}.", err=True)
