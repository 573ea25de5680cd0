"""`mmpt-bench tune`: one search of learning rates for every method, each trial kept, and what was found."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmpt_bench.cli.log_file import logged
from mmpt_bench.cli.options import BACKBONE, COLUMNS, IMAGES, OUT, budget_options, words_again
from mmpt_bench.cli.progress import stopping
from mmpt_bench.cli.scale_options import GPUS_PER_UNIT, WORKERS
from mmpt_bench.common.errors import Interrupted, RequestError
from mmpt_bench.common.escaping import plain_text
from mmpt_bench.common.words import counted, plural

if TYPE_CHECKING:
    from mmpt_bench.records.learning_rates import Choice
    from mmpt_bench.records.rate_trials import Trial
    from mmpt_bench.study.searches.search import SearchPlan


@click.command()
@click.option(
    "--method",
    "--methods",
    "method",
    default="all",
    show_default=True,
    help="Names or files, comma-separated; `all` for every one.",
)
@click.option(
    "--rounds",
    default="1,3,5",
    show_default=True,
    help="Seeds of each rate by round; the better half of the rates goes on to the next round.",
)
@click.option(
    "--grid",
    default="3e-5,3e-2",
    show_default=True,
    metavar="LOW,HIGH",
    help="Lowest and highest rate of the half decades that every method starts from.",
)
@click.option(
    "--structures",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Search so many lengths or ranks of each method that declares some.",
)
@click.option(
    "--dev-tasks",
    default="",
    metavar="TASKS",
    help="Score on the validation splits of these tasks; without it, real data are searched by the validation loss.",
)
@click.option("--also-test", is_flag=True, help="Score every model on test data too; no choice looks at it.")
@click.option(
    "--set",
    multiple=True,
    metavar="METHOD.FIELD=VALUE",
    help="A hyperparameter to search with: a variant of a method gets a search of its own; repeatable.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Say how many trainings there are and how long; run nothing.")
@click.option(
    "--accept", is_flag=True, help="Write search.md from recorded trials: does dev predict test? Run nothing."
)
@BACKBONE
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Score on the first so many questions of each task, and the others on their images: a trial.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of real data in the hub's schema.")
@IMAGES
@COLUMNS
@WORKERS
@GPUS_PER_UNIT
@OUT
@budget_options
def tune(only_plan: bool, accept: bool, rounds: str, grid: str, **options: Any) -> None:
    """Search each method's learning rate by its score on dev data, the same search for each.

    Every trial is kept in learning_rate_trials.jsonl in the results folder, and is not made again; the choices are in
    learning_rates.json, and `run` uses them and says so. Two of these commands on one folder share the work.
    """
    from mmpt_bench import api
    from mmpt_bench.runs.workers.backends import check_gpus

    if accept and only_plan:
        raise RequestError("`--plan` says what a search would do, and `--accept` reads one that was made: choose one.")
    if accept:
        click.echo(api.accept_search(options["out"]).text, nl=False)
        return
    asked = options | {"rounds": _numbers("rounds", rounds, int), "grid": _pair(grid)}
    if only_plan:
        check_gpus(asked.pop("workers"), asked["gpus_per_unit"])
        _print_plan(api.plan_tune(**asked))
        return
    with logged(options["out"]) as log, stopping() as stop:
        command = shlex.join(words_again(click.get_current_context()))

        def told(label: str, trial: Trial) -> None:
            click.echo(text := _told(label, trial), err=True)
            log.tell(text, command=command)

        def chosen(choice: Choice) -> None:
            click.echo(text := plain_text(said(choice)))
            log.tell(text, command=command)

        try:
            choices = api.tune(**asked, told=told, chosen=chosen, stopping=stop)
        except Interrupted:
            click.echo("Stopped. Every finished trial is kept; the same command goes on from there.", err=True)
            sys.exit(130)
    for line in best_structures(choices):
        click.echo(plain_text(line))


def _numbers(name: str, text: str, kind: type) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        example = "1,3,5" if kind is int else "3e-5,3e-2"
        raise RequestError(f"`--{name} {text}`: numbers, comma-separated, as in `{example}`.") from error


def _pair(text: str) -> tuple[float, float]:
    numbers = _numbers("grid", text, float)
    if len(numbers) != 2:
        raise RequestError(f"`--grid {text}`: the lowest and the highest rate, as in `3e-5,3e-2`.")
    return numbers[0], numbers[1]


def _print_plan(plan: SearchPlan) -> None:
    from mmpt_bench.records.store import Store
    from mmpt_bench.runs.estimate import duration

    cost = plan.cost(Store(plan.request.out))
    grid, rounds = plan.protocol.grid, plan.protocol.rounds
    click.echo(f"Searched: {plain_text(', '.join(of.label for of in plan.sought), 2000)}")
    seeds = f"{', '.join(map(str, rounds))} seeds" if rounds != (1,) else "1 seed"
    beside = "then the quarter decades beside the best; " if len(rounds) > 1 else "no other; "
    click.echo(f"Rates: {', '.join(f'{rate:g}' for rate in grid)}, {beside}{seeds} by round")
    tasks = ", ".join(f"{name} ({len(item.samples):,})" for name, item in plan.judge.dev.items())
    click.echo(
        f"Criterion: {plan.judge.criterion}" + (f" on {tasks} questions" if tasks else " on held-out training data")
    )
    n = f"{cost.fewest:,}" if cost.fewest == cost.most else f"{cost.fewest:,} to {cost.most:,}"
    click.echo(f"Trainings to do: {n}, and {rounds[-1]} for each search whose best rate is at the edge")
    how_long = "not known before the first trial or run with this backbone in this results folder"
    if cost.seconds is not None:
        how_long = f"at most about {duration(cost.seconds)} on one process, by what recorded ones took"
    click.echo(f"How long: {how_long}.")


def _told(label: str, trial: Trial) -> str:
    found = f"failed: {trial.reason}" if trial.score is None else _scored(trial.score, bool(trial.by_task))
    return plain_text(f"{label}: learning rate {trial.rate:g}, seed {trial.seed}: {found}", 2000)


def _scored(score: float, is_dev: bool) -> str:
    return ("dev score " if is_dev else "validation loss ") + _number(score, is_dev)


def _number(score: float, is_dev: bool) -> str:
    return f"{score:.1%}" if is_dev else f"{-score:.4f}"


def said(choice: Choice) -> str:
    """Returns a choice as a line."""
    search, chosen, is_dev = choice.search, choice.curve.chosen, bool(choice.tasks)
    name = f"{search.method} ({', '.join(f'{name}={value}' for name, value in search.params.items())})"
    if chosen is None or chosen.mean is None or chosen.worst is None:
        failed = plural(choice.n_trainings, "its training", f"all {choice.n_trainings:,} trainings")
        return f"{name}: {failed} failed; `run` uses the documented default."
    n_failed = sum(point.failed for point in choice.curve.points)
    rates = f"{counted(len(choice.curve.points), 'rate')}, {counted(choice.n_trainings, 'training')}"
    words = [
        f"{name}: {chosen.rate:g} of {rates}",
        f"mean {_scored(chosen.mean, is_dev)}",
        f"worst of {counted(len(chosen.scores), 'seed')} {_number(chosen.worst, is_dev)}",
        *choice.flags,
        *([f"{counted(n_failed, 'rate')} failed"] if n_failed else []),
    ]
    if choice.collapsed:
        words.append(f"a seed over 3 points below its mean at {', '.join(f'{rate:g}' for rate in choice.collapsed)}")
    return ", ".join(words)


def best_structures(choices: list[Choice]) -> list[str]:
    """Returns, for each method that was searched with several structures, which one to run."""
    lines = []
    for method in dict.fromkeys(choice.search.method for choice in choices):
        means = [
            (chosen.mean, choice.search.params)
            for choice in choices
            if choice.search.method == method
            and (chosen := choice.curve.chosen) is not None
            and chosen.mean is not None
        ]
        if len(means) < 2:
            continue
        best = max(means, key=lambda pair: pair[0])[1]
        apart = {n: v for n, v in best.items() if any(params.get(n) != v for _, params in means)}
        sets = " ".join(f"--set {method}.{name}={value}" for name, value in apart.items())
        lines.append(f"{method}: of {len(means)} structures the best on dev is `{sets}`.")
    return lines
