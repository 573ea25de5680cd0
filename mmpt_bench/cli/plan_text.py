"""What would run, as `--plan` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmpt_bench.cli.options import print_json
from mmpt_bench.cli.streams import echo

if TYPE_CHECKING:
    from mmpt_bench.runs.estimate import PlanSummary


def print_plan(summary: PlanSummary, as_json: bool, **more: Any) -> None:
    """Prints runs, costs and what could be told apart; `more` stands beside it in the JSON."""
    from mmpt_bench.runs.estimate import how_long

    for note in summary.notes:
        echo(note, err=True)
    if as_json:
        print_json(more | summary.as_plain())
        return
    corpus = summary.corpus
    held_out = f"{corpus['held_out']:,} held out for selection"
    echo(f"Trained on {corpus['name']}: {corpus['examples']:,} examples, {held_out}")
    for row in summary.runs:
        todo = ("train, " if row["train"] else "") + (
            f"evaluate {', '.join(row['evaluate'])}" if row["evaluate"] else "nothing to do"
        )
        known = f"; recorded: {', '.join(row['recorded'])}" if row["recorded"] else ""
        rate = f"learning rate {row['learning_rate']:g}, " if row["learning_rate"] else ""
        rate += row["learning_rate_source"]
        seed = f" seed {row['seed']}" if row["learning_rate"] else ""
        echo(f"{row['label']}{seed}: {todo}{known} ({rate})")
    for task in summary.tasks:
        echo(
            f"{task['task']} ({task['suite']}): {task['questions']:,} questions on {task['pictures']:,} images; "
            f"minimum detectable difference of two models (80 % power): about {task['detectable_difference']:.1%}"
        )
    echo(how_long(summary.cost))
