"""What would run, as `--plan` prints it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mmpt_bench.cli.options import print_json
from mmpt_bench.cli.streams import echo
from mmpt_bench.common.words import counted

if TYPE_CHECKING:
    from mmpt_bench.runs.estimate import PlanSummary

MOST_RUNS = 12
"""So many have a line each."""


def print_plan(summary: PlanSummary, as_json: bool, **more: Any) -> None:
    """Prints runs, costs and what could be told apart; `more` stands beside it in the JSON."""
    from mmpt_bench.runs.estimate import how_long
    from mmpt_bench.runs.gpus import table_of

    for note in summary.notes:
        echo(note, err=True)
    if as_json:
        print_json(more | summary.as_plain())
        return
    for corpus in summary.corpora:
        held_out = f"{corpus['held_out']:,} held out for selection"
        echo(f"Trained on {corpus['name']}: {counted(corpus['examples'], 'example')}, {held_out}")
    for line in _short(summary) if len(summary.runs) > MOST_RUNS else map(_line, summary.runs):
        echo(line)
    for task in summary.tasks:
        echo(
            f"{task['task']} ({task['suite']}): {counted(task['questions'], 'question')} on "
            f"{counted(task['pictures'], 'image')}; "
            f"minimum detectable difference of two models (80 % power): about {task['detectable_difference']:.1%}"
        )
    echo(how_long(summary.cost))
    if summary.scale is not None:
        for line in table_of(summary.scale):
            echo(line)
        echo(summary.scale.source)


def _line(row: dict[str, Any]) -> str:
    """Returns what is to be done for one run."""
    seed = f" seed {row['seed']}" if row["learning_rate"] else ""
    return f"{row['label']}{seed}: {_todo(row)} ({_rate(row)})"


def _todo(row: dict[str, Any]) -> str:
    todo = ("train, " if row["train"] else "") + (
        f"evaluate {', '.join(row['evaluate'])}" if row["evaluate"] else "nothing to do"
    )
    return todo + (f"; recorded: {', '.join(row['recorded'])}" if row["recorded"] else "")


def _rate(row: dict[str, Any]) -> str:
    rate = f"learning rate {row['learning_rate']:g}, " if row["learning_rate"] else ""
    return rate + str(row["learning_rate_source"])


def _short(summary: PlanSummary) -> list[str]:
    """Returns what is to be done for many runs: one line for those of a method of which the same is to be done."""
    name = "label" if len({row["label"] for row in summary.runs}) <= MOST_RUNS else "method"
    groups = Counter((row[name], _todo(row), _rate(row)) for row in summary.runs)
    lines = [f"{of}, {n} run{'s' * (n > 1)}: {todo} ({rate})" for (of, todo, rate), n in groups.items()]
    return [*lines, f"{counted(len(summary.runs), 'run')}; `--plan --json` lists each."]
