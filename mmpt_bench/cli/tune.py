"""`mmpt-bench tune`: as many learning rates for every method, each try kept, and what was found."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mmpt_bench.cli.options import BACKBONE, OUT, budget_options
from mmpt_bench.cli.progress import stopping
from mmpt_bench.common.errors import Interrupted, RequestError, unknown_name

if TYPE_CHECKING:
    from mmpt_bench.records.learning_rates import Choice
    from mmpt_bench.study.search import Range, Trial


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
    multiple=True,
    metavar="METHOD.FIELD=VALUE",
    help="A hyperparameter to search with: a variant of a method gets a search of its own; repeatable.",
)
@BACKBONE
@OUT
@budget_options
def tune(method: str, trials: int, extend: int, ranges: tuple[str, ...], **options: Any) -> None:
    """Search each method's learning rate on validation data, with as many tries for each.

    Every trial is kept in learning_rate_trials.jsonl in the results folder, and is not made again; the choices are in
    learning_rates.json, and `run` uses them and says so.
    """
    from mmpt_bench import api
    from mmpt_bench.methods.method_catalog import find_methods

    wanted = ranges_of(ranges, [entry.name for entry in find_methods(method)])
    with stopping() as stop:
        try:
            choices = api.tune(
                method, trials=trials, extend=extend, ranges=wanted, told=_tell, stopping=stop, **options
            )
            for choice in choices:
                click.echo(_said(choice))
        except Interrupted:
            click.echo("Stopped. Every finished trial is kept; the same command goes on from there.", err=True)
            sys.exit(130)


def _tell(trial: Trial) -> None:
    said = f"validation loss {trial.loss:.4f}" if trial.loss is not None else f"failed: {trial.reason}"
    click.echo(f"{trial.method}: learning rate {trial.rate:g}: {said}", err=True)


def ranges_of(texts: Sequence[str], names: Sequence[str]) -> dict[str, Range]:
    """Returns method -> (lowest, highest) of `--range` options; RequestError for one that is none."""
    found: dict[str, Range] = {}
    for text in texts:
        method, equals, values = text.partition("=")
        if equals and method not in names:
            raise unknown_name("method", method, names, f"`--range {text}` names one that `--method` does not.")
        try:
            lowest, highest = (float(value) for value in values.split(","))
        except ValueError as error:
            raise RequestError(f"`--range {text}`: write METHOD=LOW,HIGH, as in `lora=1e-4,1e-1`.") from error
        if not 0 < lowest < highest < float("inf"):
            raise RequestError(f"`--range {text}`: the lowest rate is above 0 and below the highest.")
        found[method] = (lowest, highest)
    return found


def _said(choice: Choice) -> str:
    finished = [loss for _, loss in choice.trials if loss is not None]
    if not finished:
        return f"{choice.method}: all {len(choice.trials)} trials failed; `run` uses the documented default."
    edge = "; it is at the edge of what was tried, a better one may lie beyond" if choice.at_edge else ""
    failed = len(choice.trials) - len(finished)
    lost = f", {failed} failed" if failed else ""
    return f"{choice.method}: {choice.best:g} of {len(choice.trials)} rates (loss {min(finished):.4f}{lost}){edge}"
