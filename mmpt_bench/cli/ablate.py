"""Commands that study what is recorded, or what is changed: ablations, comparisons, figures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mmpt_bench.cli.options import JSON, OUT, budget_options, request_of
from mmpt_bench.common.errors import RequestError


def _axis_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds an option for each thing that `axes.OPTIONS` names."""
    for name, metavar, text in reversed(
        (
            ("prompt-len", "N,N,...", "Prompts on every side that a method has."),
            ("visual-len", "N,N,...", "Prompts in each block of the vision tower."),
            ("text-len", "N,N,...", "Prompts, or prefix rows, in each layer of the language model."),
            ("parts", "PART,...", "Of visual, text, both-plain (without interaction), both."),
            ("depth", "DEPTH,...", "Of deep, shallow, visual-deep, text-deep."),
            ("placement", "NAME,...", "For methods that have a field `placement`."),
            ("init", "NAME,...", "For methods that have a field `init`."),
            ("data-fraction", "F,F,...", "Share of the corpus that is trained on, above 0 and at most 1."),
            ("lr", "RATE,...", "Learning rates."),
            ("backbone", "NAME,...", "Backbones; one for all runs, `embedded` by default."),
        )
    ):
        command = click.option(f"--{name}", f"axis_{name.replace('-', '_')}", metavar=metavar, help=text)(command)
    return command


@click.command()
@click.option("--method", default="mmpt", show_default=True, help="What is varied: names or files, comma-separated.")
@click.option("--tasks", default="mme,pope", show_default=True, help="Names or files, comma-separated, or `all`.")
@click.option("--seeds", default="0", show_default=True, help="Comma-separated; six or more before points differ.")
@_axis_options
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="METHOD.FIELD=V,V,...",
    help="Any field: several values are varied, one is fixed in all runs; repeatable.",
)
@click.option(
    "--with", "beside", default="frozen", show_default=True, help="Methods run as they are, to compare with; or `none`."
)
@click.option("--one-at-a-time", is_flag=True, help="Each value with nothing else changed, instead of a grid.")
@click.option("--budget-hours", type=float, help="Refuse what would take longer, by what recorded runs took.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of real data in the hub's schema.")
@click.option("--limit", type=click.IntRange(min=1), help="The first so many questions of each task: a trial.")
@click.option("--plan", "only_plan", is_flag=True, help="Say what would run and how long; run nothing.")
@OUT
@JSON
@budget_options
def ablate(
    method: str,
    tasks: str,
    seeds: str,
    overrides: tuple[str, ...],
    beside: str,
    one_at_a_time: bool,
    budget_hours: float | None,
    only_plan: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Vary something in a method, train and evaluate each variant, and tabulate what it changes.

    Several options make a grid. What is recorded already is not done again, whatever asked for it.

    \b
    mmpt-bench ablate --prompt-len 5,10,20 --tasks mme,pope
    mmpt-bench ablate --visual-len 5,10,20 --text-len 5,10 --seeds 0,1,2
    mmpt-bench ablate --parts visual,text,both-plain,both
    mmpt-bench ablate --method lora --set r=4,16,64 --lr 1e-4,1e-3 --one-at-a-time
    """
    import dataclasses

    from mmpt_bench.methods import method_catalog
    from mmpt_bench.runs.request import parse_overrides
    from mmpt_bench.study.axes import OPTIONS, axes_of

    texts = {name: text for name in OPTIONS if (text := options.pop(f"axis_{name.replace('-', '_')}")) is not None}
    if "," not in texts.get("backbone", ""):
        options["backbone"] = texts.pop("backbone", "embedded")
    else:
        options["backbone"] = texts["backbone"].split(",")[0].strip()
    if budget_hours is not None and not budget_hours > 0:
        raise RequestError(f"`--budget-hours {budget_hours:g}`: above 0.")
    request = request_of(method, tasks, seeds, (), options)
    axes, fixed = axes_of(texts, overrides, request.methods)
    request = dataclasses.replace(request, overrides=parse_overrides(fixed, request.methods))
    varied = {entry.name for entry in request.methods}
    references = [] if beside == "none" else method_catalog.find_methods(beside)

    from mmpt_bench.study.ablate import Asked
    from mmpt_bench.study.ablate import ablate as do

    asked = Asked(
        request=request,
        axes=tuple(axes),
        references=tuple(entry for entry in references if entry.name not in varied),
        one_at_a_time=one_at_a_time,
        budget_hours=budget_hours,
        command=_command(),
    )
    sys.exit(do(asked, only_plan, as_json))


NO_FIGURE = ("as_json", "only_plan", "out", "budget_hours", "offline")
"""Options that change no figure of an ablation."""


def _command() -> str:
    """Returns the command as it was typed, without what changes no figure."""
    import shlex

    context = click.get_current_context()
    words = ["mmpt-bench", context.info_name or ""]
    for option in context.command.params:
        if not isinstance(option, click.Option) or option.name in NO_FIGURE:
            continue
        if context.get_parameter_source(option.name or "") is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = context.params[option.name or ""]
        for each in value if isinstance(value, tuple) else (value,):
            words += [option.opts[0]] if option.is_flag else [option.opts[0], str(each)]
    return shlex.join(words)
