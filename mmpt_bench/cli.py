"""The command line. stdout carries data, stderr everything else; names are checked before torch is imported."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmpt_bench import __version__
from mmpt_bench.errors import BenchError, RequestError

if TYPE_CHECKING:
    from mmpt_bench.plan import Request

OUT = click.option(
    "--out", default="results", show_default=True, type=click.Path(path_type=Path), help="Folder of the results."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, and nothing else.")
BACKBONE = click.option(
    "--backbone",
    default="embedded",
    show_default=True,
    help="`embedded`, a folder in Hugging Face form, or a name on the hub.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mmpt-bench")
def cli() -> None:
    """Tells how to adapt a multimodal LLM: methods trained alike, scored alike, with their uncertainty.

    \b
    mmpt-bench run --method mmpt --tasks mme,pope     train, evaluate, write the leaderboard
    mmpt-bench run --method all --tasks all --seeds 0,1,2
    mmpt-bench ls methods                             what there is to run
    mmpt-bench doctor                                 whether this machine is ready
    """


def _budget_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what every method is given alike."""
    from mmpt_bench.recipe import Budget

    plain = Budget()
    for option in (
        click.option("--steps", default=plain.steps, show_default=True, help="Optimiser steps of a training."),
        click.option("--batch-size", default=plain.batch_size, show_default=True, help="Examples a step."),
        click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16."),
        click.option("--device", default=None, help="As torch names it; by default the accelerator if there is one."),
        click.option("--offline", is_flag=True, help="Open no socket: everything must be on this machine."),
    ):
        command = option(command)
    return command


@cli.command()
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
@click.option("--recipe", type=click.Path(path_type=Path), help="Repeat a run from its recipe.yaml.")
@click.option("--set", "overrides", multiple=True, metavar="METHOD.FIELD=VALUE", help="A hyperparameter; repeatable.")
@BACKBONE
@click.option("--data", type=click.Path(path_type=Path), help="Folder of real data in the hub's schema.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="The first so many questions of each task, and the others on their pictures; not ranked with full runs.",
)
@click.option(
    "--plan", "only_plan", is_flag=True, help="Say what would run, how long, and what it could tell; run nothing."
)
@OUT
@JSON
@_budget_options
def run(
    method: str, tasks: str, overrides: tuple[str, ...], seeds: str, only_plan: bool, as_json: bool, **options: Any
) -> None:
    """Train methods, evaluate them on tasks, and write the leaderboard.

    What is recorded already is not done again: the same command goes on after an interruption, and a new task
    reuses the trained adapter.
    """
    from mmpt_bench import commands

    recipe, adapter = options.pop("recipe"), options.pop("adapter")
    if adapter is not None:
        if recipe is not None:
            raise RequestError("`--adapter` and `--recipe` do not go together: the one trains nothing.")
        _refuse_beside("adapter", ("method", "seeds", "overrides"))
        from mmpt_bench.loaded import adapter_entry

        request = _request("frozen", tasks, "0", (), options)
        entry = adapter_entry(adapter, request.offline)
        sys.exit(commands.run(dataclasses.replace(request, methods=(entry,)), only_plan, as_json))
    if recipe is None:
        sys.exit(commands.run(_request(method, tasks, seeds, overrides, options), only_plan, as_json))
    _refuse_beside("recipe", ("method", "seeds", "overrides", "backbone", "steps", "batch_size", "dtype"))
    from mmpt_bench.plan import from_recipe
    from mmpt_bench.recipe_file import read_recipe

    wanted = read_recipe(recipe)
    request = from_recipe(wanted, _request("frozen", tasks, "0", (), options))
    sys.exit(commands.run(request, only_plan, as_json, wanted))


def _refuse_beside(what: str, names: tuple[str, ...]) -> None:
    """Raises RequestError where an option says what the recipe or the adapter says already."""
    context = click.get_current_context()
    hint = ": edit a copy of the recipe instead" if what == "recipe" else ""
    for name in names:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = {"overrides": "set"}.get(name, name).replace("_", "-")
            raise RequestError(f"`--{option}` and `--{what}` do not go together{hint}.")


def _request(method: str, tasks: str, seeds: str, overrides: tuple[str, ...], options: dict[str, Any]) -> Request:
    """Returns the request that options stand for; raises RequestError before anything costly is imported."""
    from mmpt_bench import registry
    from mmpt_bench.plan import Request, parse_overrides
    from mmpt_bench.recipe import Budget
    from mmpt_bench.weights import DTYPES, check_backbone

    methods = registry.find("method", method)
    found = registry.find("task", tasks)
    check_backbone(options["backbone"])
    if options["dtype"] not in DTYPES:
        from mmpt_bench.errors import unknown_name

        raise unknown_name("dtype", options["dtype"], DTYPES)
    for name in ("steps", "batch_size"):
        if options[name] < 1:
            raise RequestError(f"`--{name.replace('_', '-')} {options[name]}`: at least 1.")
    data = options.get("data")
    if data is not None and not data.is_dir():
        raise RequestError(f"There is no folder `{data}` to read data from.")
    return Request(
        methods=tuple(methods),
        overrides=parse_overrides(overrides, methods),
        tasks=tuple(found),
        seeds=_seeds(seeds),
        backbone=options["backbone"],
        corpus="embedded",
        budget=Budget(steps=options["steps"], batch_size=options["batch_size"]),
        dtype=options["dtype"],
        out=options["out"],
        data=data,
        limit=options.get("limit"),
        offline=options["offline"],
        device=options["device"],
    )


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise RequestError(f"`--seeds {text}`: whole numbers, comma-separated.") from error
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise RequestError(f"`--seeds {text}`: one or more different numbers, none below 0.")
    return seeds


@cli.command()
@click.option(
    "--method", default="all", show_default=True, help="Names or files, comma-separated; `all` for every one."
)
@click.option(
    "--trials", default=5, show_default=True, type=click.IntRange(min=2), help="Learning rates for each method."
)
@BACKBONE
@OUT
@_budget_options
def tune(method: str, trials: int, **options: Any) -> None:
    """Search each method's learning rate on validation data, with as many tries for each.

    All trials are kept in learning_rates.json in the results folder; `run` uses the best one and says so.
    """
    from mmpt_bench import commands

    request = _request(method, "mme", "0", (), options)
    sys.exit(commands.tune(request, trials))


@cli.command()
@click.argument("what", type=click.Choice(["tasks", "methods", "backbones", "runs"]), default="tasks")
@OUT
@JSON
def ls(what: str, out: Path, as_json: bool) -> None:
    """List tasks, methods, backbones, or recorded runs."""
    from mmpt_bench import listings

    listings.show_list(what, out, as_json)


@cli.command()
@click.argument("name")
@BACKBONE
@OUT
@JSON
def show(name: str, backbone: str, out: Path, as_json: bool) -> None:
    """Show one task, method or run in full; for a method, its trainable parameters on the backbone."""
    from mmpt_bench import listings

    listings.show_one(name, backbone, out, as_json)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@BACKBONE
@JSON
def check(file: Path, backbone: str, as_json: bool) -> None:
    """Run the conformance suite on a task's or method's file: the checks that the built-in ones pass too."""
    from mmpt_bench import commands

    sys.exit(commands.check(file, backbone, as_json))


@cli.command()
@click.option(
    "--publish", is_flag=True, help="Also keep all records in records.jsonl, from which the board can be rebuilt."
)
@OUT
@JSON
def leaderboard(out: Path, publish: bool, as_json: bool) -> None:
    """Rebuild and print the leaderboard from what is recorded."""
    from mmpt_bench import commands

    sys.exit(commands.leaderboard(out, publish, as_json))


@cli.command()
@OUT
@JSON
def doctor(out: Path, as_json: bool) -> None:
    """Say whether this machine is ready, and what to do where it is not."""
    from mmpt_bench import doctor as checks

    sys.exit(checks.report(out, as_json))


@cli.command()
@click.option(
    "--folder",
    default="pretraining",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Checkpoints and result.",
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Of the language stage; by default as the shipped weights were made."
)
@click.option("--processes", default=2, show_default=True, type=click.IntRange(min=1), help="Each on one core.")
@click.option("--probe", is_flag=True, help="Train nothing: print what a model sees on fresh clean scenes.")
@BACKBONE
@JSON
def pretrain(
    folder: Path, seed: int, steps: int | None, processes: int, probe: bool, backbone: str, as_json: bool
) -> None:
    """Rebuild the embedded model's weights from a seed, with checkpoints; or probe a model."""
    from mmpt_bench import commands

    sys.exit(commands.pretrain(folder, seed, steps, processes, probe, backbone, as_json))


def main() -> None:
    """Runs the command line and exits with the code that errors.py lists."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except BenchError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
