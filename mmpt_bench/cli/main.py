"""The command line. stdout carries data, stderr everything else; names are checked before torch is imported."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click

from mmpt_bench import __version__
from mmpt_bench.cli import data, options, score
from mmpt_bench.cli.ablate import ablate
from mmpt_bench.cli.compare import compare
from mmpt_bench.cli.figures import figures
from mmpt_bench.cli.options import BACKBONE, JSON, OUT, budget_options, request_of
from mmpt_bench.common.errors import BenchError, RequestError


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
@options.IMAGES
@options.DATASET
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="The first so many questions of each task, and the others on their pictures; not ranked with full runs.",
)
@options.PARSE
@click.option(
    "--plan", "only_plan", is_flag=True, help="Say what would run, how long, and what it could tell; run nothing."
)
@click.option(
    "--keep-features",
    "features",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to keep what a frozen vision tower makes of pictures in, for later runs.",
)
@click.option(
    "--keep-features-gb",
    "features_gb",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Most that this folder may hold.",
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
@OUT
@JSON
@budget_options
def run(
    method: str, tasks: str, overrides: tuple[str, ...], seeds: str, only_plan: bool, as_json: bool, **options: Any
) -> None:
    """Train methods, evaluate them on tasks, and write the leaderboard.

    What is recorded already is not done again: the same command goes on after an interruption, and a new task
    reuses the trained adapter.
    """
    from mmpt_bench.cli import run
    from mmpt_bench.interop.trackers import check_trackers

    recipe, log_to = options.pop("recipe"), check_trackers(options.pop("log_to"), options["offline"])
    adapter = options.pop("adapter")
    if adapter is not None:
        if recipe is not None:
            raise RequestError("`--adapter` and `--recipe` do not go together: the one trains nothing.")
        _refuse_beside("adapter", ("method", "seeds", "overrides"))
        from mmpt_bench.methods.trained_adapter import adapter_entry

        request = request_of("frozen", tasks, "0", (), options)
        entry = adapter_entry(adapter, request.offline)
        sys.exit(run.run(dataclasses.replace(request, methods=(entry,)), only_plan, as_json, log_to=log_to))
    if recipe is None:
        sys.exit(run.run(request_of(method, tasks, seeds, overrides, options), only_plan, as_json, log_to=log_to))
    _refuse_beside("recipe", ("method", "seeds", "overrides", "backbone", "steps", "batch_size", "dtype"))
    from mmpt_bench.records.recipe_file import read_recipe
    from mmpt_bench.runs.request import from_recipe

    wanted = read_recipe(recipe)
    request = from_recipe(wanted, request_of("frozen", tasks, "0", (), options))
    sys.exit(run.run(request, only_plan, as_json, wanted, log_to))


def _refuse_beside(what: str, names: tuple[str, ...]) -> None:
    """Raises RequestError where an option says what the recipe or the adapter says already."""
    context = click.get_current_context()
    hint = ": edit a copy of the recipe instead" if what == "recipe" else ""
    for name in names:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = {"overrides": "set"}.get(name, name).replace("_", "-")
            raise RequestError(f"`--{option}` and `--{what}` do not go together{hint}.")


@cli.command()
@click.option(
    "--method",
    "--methods",
    "method",
    default="all",
    show_default=True,
    help="Names or files, comma-separated; `all` for every one.",
)
@click.option(
    "--trials",
    default=5,
    show_default=True,
    type=click.IntRange(min=2),
    help="Rates drawn from each method's own range.",
)
@click.option(
    "--extend",
    default=3,
    show_default=True,
    type=click.IntRange(min=0),
    help="Rates tried after these, for each method: beyond the range where the best is at its edge, else closer to it.",
)
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="METHOD=LOW,HIGH",
    help="Another range than the method's documented one; repeatable.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="METHOD.FIELD=VALUE",
    help="A hyperparameter to search with: a variant of a method gets a search of its own; repeatable.",
)
@BACKBONE
@OUT
@budget_options
def tune(
    method: str, trials: int, extend: int, ranges: tuple[str, ...], overrides: tuple[str, ...], **options: Any
) -> None:
    """Search each method's learning rate on validation data, with as many tries for each.

    Every trial is kept in learning_rate_trials.jsonl in the results folder, and is not made again; the choices are in
    learning_rates.json, and `run` uses them and says so.
    """
    from mmpt_bench.cli import tune

    request = request_of(method, "mme", "0", overrides, options)
    sys.exit(tune.tune(request, trials, extend, tune.ranges_of(ranges, request.methods)))


@cli.command()
@click.argument("what", type=click.Choice(["tasks", "methods", "backbones", "runs"]), default="tasks")
@OUT
@JSON
def ls(what: str, out: Path, as_json: bool) -> None:
    """List tasks, methods, backbones, or recorded runs."""
    from mmpt_bench.cli import listings

    listings.show_list(what, out, as_json)


@cli.command()
@click.argument("name")
@BACKBONE
@OUT
@JSON
def show(name: str, backbone: str, out: Path, as_json: bool) -> None:
    """Show one task, method or run in full; for a method, its trainable parameters on the backbone."""
    from mmpt_bench.cli import listings

    listings.show_one(name, backbone, out, as_json)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@BACKBONE
@JSON
def check(file: Path, backbone: str, as_json: bool) -> None:
    """Run the conformance suite on a task's or method's file: the checks that the built-in ones pass too."""
    from mmpt_bench.cli import check

    sys.exit(check.check(file, backbone, as_json))


@cli.command()
@click.option(
    "--publish",
    is_flag=True,
    help="Also keep all records in one file, and the training losses in another: boards and figures can be rebuilt.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "latex", "csv", "markdown", "json"]),
    default="table",
    show_default=True,
    help="What is printed to stdout.",
)
@OUT
@JSON
def leaderboard(out: Path, publish: bool, form: str, as_json: bool) -> None:
    """Rebuild and print the leaderboard from what is recorded.

    LaTeX is a booktabs table a board, bold where no method is significantly better.
    """
    from mmpt_bench.cli import leaderboard

    sys.exit(leaderboard.leaderboard(out, publish, "json" if as_json else form))


@cli.command()
@click.argument("run")
@click.option(
    "--format",
    "form",
    type=click.Choice(["model-index", "eval-results"]),
    default="model-index",
    show_default=True,
    help="Of the Hugging Face hub: a model card's metadata, or a file of `.eval_results/`.",
)
@OUT
def export(run: str, form: str, out: Path) -> None:
    """Print one run's results as the Hugging Face hub takes them, as YAML.

    \b
    mmpt-bench export mmpt-58a7 > model-index.yaml     for the head of a model card
    mmpt-bench export mmpt-58a7 --format eval-results > .eval_results/mmpt-bench.yaml
    """
    from mmpt_bench.cli import export as library

    sys.exit(library.export(run, form, out))


@cli.command()
@OUT
@click.option("--file", type=click.Path(path_type=Path), help="File to write; by default report.html in that folder.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of real data, as `run --data` takes it, for questions and pictures; generated ones are drawn.",
)
@JSON
def report(out: Path, file: Path | None, images: Path | None, as_json: bool) -> None:
    """Write one HTML file with everything that is recorded: verdict, board, figures, costs, samples, data audit.

    It needs no network and nothing beside it. Where something is missing, it says so, and the command that gets it.
    """
    from mmpt_bench.cli import report

    sys.exit(report.report(out, file, images, as_json))


@cli.command()
@OUT
@JSON
def doctor(out: Path, as_json: bool) -> None:
    """Say whether this machine is ready, and what to do where it is not."""
    from mmpt_bench.cli import doctor as checks

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
    "--steps", type=click.IntRange(min=1), help="Of the language stage; by default as many as the shipped weights had."
)
@click.option("--processes", default=2, show_default=True, type=click.IntRange(min=1), help="Each on one core.")
@click.option("--probe", is_flag=True, help="Train nothing: print what a model sees on fresh clean scenes.")
@BACKBONE
@JSON
def pretrain(
    folder: Path, seed: int, steps: int | None, processes: int, probe: bool, backbone: str, as_json: bool
) -> None:
    """Rebuild the embedded model's weights from a seed, with checkpoints; or probe a model."""
    from mmpt_bench.cli import pretrain

    sys.exit(pretrain.pretrain(folder, seed, steps, processes, probe, backbone, as_json))


for command in (ablate, compare, figures):
    cli.add_command(command)
cli.add_command(score.score)
cli.add_command(data.data)


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
