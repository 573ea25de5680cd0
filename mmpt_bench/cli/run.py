"""`mmpt-bench run`: train, evaluate, and print the leaderboard."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    command_on,
    given_beside_experiment,
    monitor_options,
    named_protocol,
    not_empty,
    refuse_beside,
    teacher_options,
    verbosity_options,
    words_again,
)
from mmpt_bench.cli.plan_text import print_plan
from mmpt_bench.cli.progress import QUIET, next_step, running, stopping
from mmpt_bench.cli.pruning import OPTIONS, check_pruning, run_pruned
from mmpt_bench.cli.scale_options import ANSWERS, GPUS_PER_UNIT, KEEP_ADAPTERS, PARALLEL, WORKERS
from mmpt_bench.cli.streams import echo
from mmpt_bench.common.errors import Interrupted, RequestError
from mmpt_bench.common.words import counted
from mmpt_bench.records.budget import SMOKE_LIMIT, SMOKE_STEPS

if TYPE_CHECKING:
    from mmpt_bench.report.results import Results


@click.command()
@click.argument("experiment", required=False, type=click.Path(path_type=Path))
@click.option(
    "--method", default="mmpt", show_default=True, help="Names or files, comma-separated; `all` for every one."
)
@click.option(
    "--tasks", default="mme,pope", show_default=True, help="Names or files, comma-separated; `all` for all six."
)
@click.option(
    "--seeds",
    default="0",
    show_default=True,
    help="As in 0,1,2 or 0-7; six or more before a method is called better.",
)
@click.option(
    "--base/--no-base",
    default=True,
    show_default=True,
    help="Also evaluate the untuned base, `frozen`, on these tasks.",
)
@click.option(
    "--smoke",
    is_flag=True,
    help=f"Try everything in seconds: {SMOKE_STEPS} steps, {SMOKE_LIMIT} questions a task, on a board of its own. "
    "Not a result.",
)
@click.option("--adapter", metavar="DIR_OR_HUB_ID", help="Evaluate a trained adapter in PEFT's form; train nothing.")
@click.option(
    "--init-from",
    default="",
    callback=not_empty,
    metavar="RUN",
    help="Begin training with the adapter of a recorded run; its steps count.",
)
@click.option(
    "--meta",
    default="",
    callback=not_empty,
    metavar="reptile[:TASKS]",
    help="Learn an initial value for `--init-from` over the training splits of tasks, in place of `--train-data`.",
)
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
    help="The first so many questions of each task, and the others on their images; not ranked with full runs.",
)
@PARSE
@click.option("--protocol", hidden=True, expose_value=False, callback=named_protocol)
@OPTIONS[0]
@OPTIONS[1]
@click.option(
    "--plan", "only_plan", is_flag=True, help="Say what would run, how long, and what it could tell; run nothing."
)
@click.option(
    "--gpus",
    type=int,
    metavar="N",
    help="With --plan: hours on N GPUs too, and on 1, 8, 64 and 512, by recorded runs or by FLOPs.",
)
@click.option(
    "--tflops",
    type=float,
    metavar="X",
    help="With --plan: hours by FLOPs, at X TFLOP/s sustained on each GPU; without it 250 where nothing is recorded.",
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
@WORKERS
@GPUS_PER_UNIT
@PARALLEL
@KEEP_ADAPTERS
@ANSWERS
@OUT
@JSON
@budget_options
@click.option(
    "--few-shot",
    type=click.IntRange(1, 100),
    metavar="K",
    callback=lambda _context, _option, k: k or 0,
    help="K solved examples of the task's training split before each question; results stand apart.",
)
@click.option(
    "--system",
    default="",
    callback=not_empty,
    metavar="TEXT",
    help="A turn of the system before each question; results stand apart.",
)
@monitor_options
@teacher_options
@verbosity_options
@click.pass_context
def run(
    context: click.Context,
    only_plan: bool,
    as_json: bool,
    measure_costs: bool,
    smoke: bool,
    keep_tokens: str,
    prune: str,
    verbosity: int,
    gpus: int | None,
    tflops: float | None,
    **options: Any,
) -> None:
    """Train methods, evaluate them and the untuned base on tasks, and say whether tuning helped.

    What is recorded already is not done again: the same command goes on after an interruption, and a new task
    reuses the trained adapter. EXPERIMENT is a YAML file that says all this, as `mmpt-bench new experiment` writes it;
    options take the place of what it says.

    \b
    mmpt-bench run --method mmpt --tasks mme,pope
    mmpt-bench run --method all --tasks all --seeds 0-7 --plan
    mmpt-bench run --smoke
    """
    from mmpt_bench import api
    from mmpt_bench.runs.workers.backends import rank_and_count

    check_pruning(keep_tokens, prune)
    _check_counted(only_plan and not keep_tokens, gpus, tflops)
    options = _checked(context, options, smoke, measure_costs, only_plan)
    if keep_tokens:
        run_pruned(options, keep_tokens, prune, as_json, verbosity)
        return
    if rank_and_count()[0] > 0:
        if only_plan:
            return
        with stopping(told=False) as stop, contextlib.suppress(Interrupted):
            api.run(**options, stopping=stop)
        return
    if only_plan:
        del options["log_to"], options["workers"], options["parallel"]
        print_plan(api.plan(**options, gpus=gpus, tflops=tflops), as_json)
        return
    if measure_costs and (code := one_process_a_run(context, options)):
        if code == FAILED:
            print_leaderboard(api.load_results(options["out"]).write_leaderboard(), "json" if as_json else "table")
        sys.exit(code)
    with running(options["out"], verbosity, options["workers"]) as (reporter, stop):
        results = api.run(**options, reporter=reporter, stopping=stop)
    _print(results, as_json, verbosity <= QUIET)
    if results.failed:
        n_failed = len({record.run for record in results.failed})
        lost = f"{n_failed} of {counted(len(results.runs), 'run')} failed, whole or in a task"
        click.echo(f"{lost}; the board lists them, unranked.", err=True)
        sys.exit(FAILED)
    if not as_json and verbosity > QUIET:
        for line in _next(context, options):
            click.echo(line, err=True)


def _check_counted(only_plan: bool, gpus: int | None, tflops: float | None) -> None:
    """Refuses numbers for the plan where there is none (RequestError)."""
    if (gpus, tflops) != (None, None) and not only_plan:
        raise RequestError("`--gpus` and `--tflops` are for `--plan`, which counts hours; `--workers` runs on several.")


def _checked(
    context: click.Context, options: dict[str, Any], smoke: bool, measure_costs: bool, only_plan: bool
) -> dict[str, Any]:
    """Returns the options with those of an experiment's file; RequestError for what does not go together."""
    from mmpt_bench import api
    from mmpt_bench.interop.trackers import check_trackers
    from mmpt_bench.runs.workers.backends import check_gpus, check_parallel
    from mmpt_bench.sources.weights import HOW

    if (file := options.pop("experiment")) is not None:
        options |= api.read_experiment(file, **given_beside_experiment(context))
    check_trackers(options["log_to"], options["offline"])
    if options["adapter"] is not None and options["recipe"] is None:
        refuse_beside("adapter", "method", "seeds", "set", "teacher", "objective")
    if options["recipe"] is not None and options["adapter"] is None:
        refuse_beside("recipe", "method", "seeds", "set", "backbone", "steps", "batch_size", "dtype", *HOW)
        refuse_beside("recipe", "init_from", "meta", "stop_on_alarm", "teacher", "objective")
    if smoke:
        refuse_beside("smoke", "steps", "limit", "recipe")
        options |= {"steps": SMOKE_STEPS, "limit": SMOKE_LIMIT}
    if measure_costs:
        refuse_beside("measure-costs", "recipe", "adapter", "workers", "parallel")
    check_gpus(options["workers"], options["gpus_per_unit"])
    if not only_plan:
        check_parallel(options["parallel"], options["workers"])
    return options


def _print(results: Results, as_json: bool, quiet: bool) -> None:
    """Prints the boards that the command touched, one sentence on each, and what else is there."""
    from mmpt_bench.board.writers.terminal import answer

    whole, keys = results.write_leaderboard(), results.asked_keys
    shown = whole.of(keys, results.runs)
    new = {record.eval_key for record in results.made}
    printed = dataclasses.replace(shown, folder=None) if quiet else shown
    print_leaderboard(printed, "json" if as_json else "table", new, by_task=True)
    if as_json:
        return
    if (others := len(whole.boards) - len(shown.boards)) and not quiet:
        told = command_on(results.folder, "leaderboard")
        click.echo(f"{others} more in {whole.folder}/: `{told}` prints all of them.", err=True)
    for sentence in (answer(board, keys) for board in shown.boards):
        if sentence:
            echo(sentence)


def _next(context: click.Context, options: dict[str, Any]) -> list[str]:
    """Returns what to do next, and the command for it, which repeats the options of this one."""
    from mmpt_bench.methods.method_catalog import method_entries

    if context.params["smoke"]:
        return ["Next: everything works; the same without `--smoke` makes a result:",
                f"  {shlex.join(words_again(context, ('smoke',)))}"]  # fmt: skip
    if options["adapter"] is not None or options["recipe"] is not None:
        return ["Next: one page with everything that is recorded:", f"  {command_on(options['out'], 'report')}"]
    asked = [name.strip() for name in options["method"].split(",") if name.strip()]
    tuned = [name for name in asked if name != "frozen"]
    if "all" not in asked and len(tuned) < 2:
        sets = [text if "." in text.partition("=")[0] else f"{tuned[0]}.{text}" for text in options["set"] if tuned]
        own = [name for name in tuned if name not in method_entries()]
        words = words_again(context, ("set",), method=",".join(["all", *own]))
        told = shlex.join([*words, *(word for text in sets for word in ("--set", text))])
        return ["Next: compare it with the other methods:", f"  {told}"]
    return next_step(context, options["seeds"], options["out"], "methods")
