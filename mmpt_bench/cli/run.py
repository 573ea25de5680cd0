"""`mmpt-bench run`: train, evaluate, and print the leaderboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mmpt_bench.cli.leaderboard import print_leaderboard
from mmpt_bench.cli.measuring import FAILED, one_process_a_run
from mmpt_bench.cli.options import (
    BACKBONE,
    COLUMNS,
    DATASET,
    IMAGES,
    JSON,
    OUT,
    PARSE,
    WORLD,
    budget_options,
    given_beside_experiment,
    refuse_beside,
)
from mmpt_bench.cli.plan_text import print_plan
from mmpt_bench.cli.progress import reporting, stopping
from mmpt_bench.common.errors import Interrupted


@click.command()
@click.argument("experiment", required=False, type=click.Path(path_type=Path))
@click.option(
    "--method", default="mmpt", show_default=True, help="Names or files, comma-separated; `all` for every one."
)
@click.option(
    "--tasks", default="mme,pope", show_default=True, help="Names or files, comma-separated; `all` for all six."
)
@click.option(
    "--seeds", default="0", show_default=True, help="Comma-separated; six or more before a method is called better."
)
@click.option("--adapter", metavar="DIR_OR_HUB_ID", help="Evaluate a trained adapter in PEFT's form; train nothing.")
@click.option("--other-base", is_flag=True, help="The adapter may be of another base model; the board says so.")
@click.option("--recipe", type=click.Path(path_type=Path), help="Repeat a run from its recipe.yaml.")
@click.option("--set", multiple=True, metavar="METHOD.FIELD=VALUE", help="A hyperparameter; repeatable.")
@BACKBONE
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of real data in the hub's schema, or a file of rows."
)
@IMAGES
@DATASET
@WORLD
@COLUMNS
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="The first so many questions of each task, and the others on their pictures; not ranked with full runs.",
)
@PARSE
@click.option(
    "--plan", "only_plan", is_flag=True, help="Say what would run, how long, and what it could tell; run nothing."
)
@click.option(
    "--guard/--no-guard",
    default=True,
    help="In half precision, ask again where two words are as good as equal; without it, results stand apart.",
)
@click.option(
    "--log-to",
    default="",
    metavar="TRACKERS",
    help="Also log to wandb, trackio, tensorboard, comma-separated; each needs its extra, none is on by default.",
)
@click.option(
    "--measure-costs",
    is_flag=True,
    help="Each run in a process of its own, one after the other, so that its memory and time are its own; on an idle "
    "machine.",
)
@OUT
@JSON
@budget_options
@click.pass_context
def run(context: click.Context, only_plan: bool, as_json: bool, measure_costs: bool, **options: Any) -> None:
    """Train methods, evaluate them on tasks, and write the leaderboard.

    What is recorded already is not done again: the same command goes on after an interruption, and a new task
    reuses the trained adapter. EXPERIMENT is a YAML file that says all this, as `mmpt-bench new experiment` writes it;
    options take the place of what it says.
    """
    from mmpt_bench import api
    from mmpt_bench.interop.trackers import check_trackers

    if (file := options.pop("experiment")) is not None:
        options |= api.read_experiment(file, **given_beside_experiment(context))
    check_trackers(options["log_to"], options["offline"])
    if options["adapter"] is not None and options["recipe"] is None:
        refuse_beside("adapter", "method", "seeds", "set")
    if options["recipe"] is not None and options["adapter"] is None:
        refuse_beside("recipe", "method", "seeds", "set", "backbone", "steps", "batch_size", "dtype")
    if only_plan:
        del options["log_to"]
        print_plan(api.plan(**options), as_json)
        return
    if measure_costs and (code := one_process_a_run(context, options)):
        if code == FAILED:
            print_leaderboard(api.load_results(options["out"]).write_leaderboard(), "json" if as_json else "table")
        sys.exit(code)
    with reporting() as reporter, stopping() as stop:
        try:
            results = api.run(**options, reporter=reporter, stopping=stop)
        except Interrupted as reason:
            click.echo(f"Stopped: {reason}. What is done is recorded; the same command goes on from there.", err=True)
            sys.exit(130)
    whole = results.write_leaderboard()
    shown = whole.of(results.asked_keys, results.runs)
    new = {record.eval_key for record in results.made}
    print_leaderboard(shown, "json" if as_json else "table", new)
    if (others := len(whole.boards) - len(shown.boards)) and not as_json:
        click.echo(f"{others} more in {whole.folder}/: `mmpt-bench leaderboard` prints all of them.", err=True)
    if results.failed:
        n_failed = len({record.run for record in results.failed})
        lost = f"{n_failed} of {len(results.runs)} runs failed, whole or in a task; the board lists them, unranked."
        click.echo(lost, err=True)
        sys.exit(FAILED)
    if not as_json:
        _next_step(options)


def _next_step(options: dict[str, Any]) -> None:
    names = [name for name in options["method"].split(",") if name.strip()]
    if "frozen" not in names and names != ["all"]:
        tasks = options["tasks"]
        click.echo(f"Next: did it help? `mmpt-bench run --method frozen --tasks {tasks}` adds the base.", err=True)
    elif len(names) == 1 and names != ["all"]:
        click.echo("Next: compare it, `mmpt-bench run --method all --tasks all`.", err=True)
    elif len([seed for seed in options["seeds"].split(",") if seed.strip()]) < 6:
        click.echo(
            "Next: six seeds or more tell methods apart, `--seeds 0,1,2,3,4,5`; what is recorded is not redone.",
            err=True,
        )
