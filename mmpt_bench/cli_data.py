"""Commands about data and answers: `score` reads files of others. Above the torch line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from mmpt_bench.errors import RequestError

RULES = ("official", "lmms-eval", "vlmevalkit")
PARSE = click.option(
    "--parse",
    "rule",
    type=click.Choice(RULES),
    default=RULES[0],
    show_default=True,
    help="How replies are read: as the benchmark's authors do, or as another harness does.",
)


@click.command()
@click.argument("task")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@PARSE
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of the task's official rows, to match the answers to."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, and nothing else.")
def score(task: str, files: tuple[Path, ...], rule: str, data: Path | None, as_json: bool) -> None:
    """Score answers made elsewhere: TASK is a task's name or file, FILES hold the replies.

    Read are JSON lines (`question_id` or `index`, `category`, `question`, `answer` or `label`, `reply`), lmms-eval's
    `samples_*.jsonl`, VLMEvalKit's prediction files (.xlsx, .tsv, .csv) and the folder of MME's own tool.
    """
    from mmpt_bench import registry
    from mmpt_bench.answers import read_answers
    from mmpt_bench.score import score_answers
    from mmpt_bench.scorecard import scorecard_json, scorecard_parts

    entries = registry.find("task", task)
    if len(entries) != 1:
        raise RequestError(f"`{task}` names {len(entries)} tasks: score one at a time.")
    found = registry.load_task(entries[0]).with_rule(rule)
    given = read_answers(files)
    card = score_answers(found, given)
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
