"""Options that several commands share; each parameter is called like the one of the public functions."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click

from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.records.budget import EVAL_BATCH, EVERY, SCHEDULES, Budget
from mmpt_bench.sources.weights import ATTENTION, QUANTIZED, SPREAD

PROGRAM = "mmpt-bench"
FOLDER = click.Path(path_type=Path)
PARSE = click.option(
    "--parse",
    default="official",
    show_default=True,
    metavar="RULE",
    help="How replies are read: official (as the benchmark's authors do), plain, lmms-eval, vlmevalkit, or one of the "
    "task's own.",
)
IMAGES = click.option(
    "--images",
    multiple=True,
    metavar="COLLECTION=DIR",
    help="Where images are that data sets only name: coco=DIR,flickr30k=DIR,mme=DIR; repeatable.",
)
DATASET = click.option(
    "--dataset",
    multiple=True,
    metavar="TASK=NAME",
    help="Another data set of a task's form: vsr=random, or mme=OWNER/NAME[@REVISION] of the hub; repeatable.",
)


def not_empty(context: click.Context, parameter: click.Parameter, given: str) -> str:
    """Refuses an empty value that was written: `--init-from "$RUN"` without RUN would train something else."""
    from click.core import ParameterSource

    if not given.strip() and context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT:
        raise RequestError(f"`{parameter.opts[0]}` is empty: give it a value, or leave it out.")
    return given


def _results_folder(_context: click.Context, _parameter: click.Parameter, given: Path | None) -> Path:
    from mmpt_bench.records.store import results_folder

    return results_folder(given)


OUT = click.option(
    "--out",
    type=FOLDER,
    callback=_results_folder,
    help="Folder of the results.  [default: $MMPT_RESULTS, or mmpt-results]",
)
COLUMNS = click.option(
    "--columns",
    multiple=True,
    metavar="[TASK.]COLUMN=NAME",
    help="What files call a task's columns: image=img,answer=label; `train.` before training data's; repeatable.",
)
WORLD = click.option(
    "--world",
    default="shifted",
    show_default=True,
    help="Of the embedded suite, where models are evaluated: shifted, clean (as before tuning), or strong.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, and nothing else.")
FAMILY = click.option(
    "--family",
    type=click.Path(path_type=Path),
    help="Your file that says what is not found in models of a family; its code runs.",
)
BACKBONE = click.option(
    "--backbone",
    default="embedded",
    show_default=True,
    help="`embedded`, a folder in Hugging Face form, or a name on the hub.",
)


def _optimizer_options() -> list[Callable[..., Any]]:
    """Returns what the optimizer is given alike for every method."""
    plain = Budget()
    return [
        click.option(
            "--schedule",
            type=click.Choice(SCHEDULES),
            default=plain.schedule,
            show_default=True,
            help="What the learning rate does after the warm-up.",
        ),
        click.option(
            "--warmup",
            default=plain.warmup,
            show_default=True,
            help="Share of the steps in which the learning rate rises from 0.",
        ),
        click.option("--weight-decay", default=plain.weight_decay, show_default=True, help="Of AdamW."),
        click.option(
            "--max-grad-norm", default=plain.max_grad_norm, show_default=True, help="A longer gradient is shortened."
        ),
    ]


def _memory_options() -> list[Callable[..., Any]]:
    """Returns what decides how much memory is needed, and no score."""
    return [
        click.option(
            "--gradient-checkpointing",
            is_flag=True,
            help="Compute layers again on the way back instead of keeping what they made: less memory, more time.",
        ),
        click.option(
            "--micro-batch",
            type=click.IntRange(min=1),
            help="Most examples of a batch in one pass of training: fewer need less memory; the step is the same.",
        ),
        click.option(
            "--eval-batch-size",
            default=EVAL_BATCH,
            show_default=True,
            help="Questions answered together: fewer need less memory; scores stay the same.",
        ),
    ]


def budget_options(command: Callable[..., Any], with_steps: bool = True) -> Callable[..., Any]:
    """Adds what every method is given alike; without the number of steps for a command that varies it."""
    plain = Budget()
    steps = click.option("--steps", default=plain.steps, show_default=True, help="Optimiser steps of a training.")
    for option in (
        click.option(
            "--train-data",
            default="embedded",
            show_default=True,
            help="`embedded`, `vision-flan`, a file or folder of conversations, or `task:NAME`: a task's own split.",
        ),
        click.option("--train-images", type=FOLDER, help="Folder of the training images."),
        click.option(
            "--decontaminate", is_flag=True, help="Leave out training tasks whose images or labels are evaluated."
        ),
        *([steps] if with_steps else []),
        click.option("--batch-size", default=plain.batch_size, show_default=True, help="Examples a step."),
        click.option(
            "--max-length",
            default=plain.max_length,
            show_default=True,
            help="Longest training example in tokens, with those of its image.",
        ),
        *_optimizer_options(),
        click.option(
            "--dtype",
            "--precision",
            "dtype",
            default="float32",
            show_default=True,
            callback=lambda context, option, value: {"fp32": "float32", "bf16-mixed": "bfloat16"}.get(value, value),
            help="float32 (or fp32), bfloat16 (or bf16-mixed), or float16 where nothing is trained.",
        ),
        click.option("--device", default=None, help="As torch names it; by default the accelerator if there is one."),
        click.option(
            "--quantize", type=click.Choice(tuple(QUANTIZED)), help="Frozen weights of tower and language model."
        ),
        click.option("--device-map", type=click.Choice(SPREAD), help="Spread the model over all accelerators."),
        click.option("--max-pixels", type=int, help="Larger images are made as small, where the processor can."),
        click.option("--min-pixels", type=int, help="Smaller images are made as large, where the processor can."),
        click.option(
            "--attn-implementation",
            type=click.Choice(ATTENTION),
            help="As transformers names it; by default the model's own.",
        ),
        click.option(
            "--on-bad-item",
            type=click.Choice(("fail", "skip")),
            default="fail",
            show_default=True,
            help="Images and examples that cannot be used: fail the task and refuse training, or leave them out.",
        ),
        click.option("--offline", is_flag=True, help="Open no socket: everything must be on this machine."),
        *_memory_options(),
    ):
        command = option(command)
    return with_family(command)


def with_family(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--family`, whose file runs before the command does; the command is not told of it."""

    @functools.wraps(command)
    def known(*given: Any, family: Path | None, **options: Any) -> Any:
        if family is not None:
            from mmpt_bench.engine.models.families import register_file

            register_file(family)
        return command(*given, **options)

    return FAMILY(known)


def teacher_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what is learnt beside the answers."""
    command = click.option(
        "--objective",
        default="",
        callback=not_empty,
        metavar="PARTS",
        help="What is learnt from the teacher: kd:WEIGHT, temperature:T, divergence:forward|reverse|jsd, and "
        "compute:steps|equal (fewer steps, its passes counted).",
    )(command)
    return click.option(
        "--teacher",
        default="",
        callback=not_empty,
        metavar="METHOD:RUN",
        help="Learn each answer token from a model too: a trained run on this backbone, or backbone:NAME.",
    )(command)


def monitor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what is looked at during training."""
    command = click.option("--every", default=EVERY, show_default=True, help="Steps between two looks of `--monitor`.")(
        command
    )
    command = click.option(
        "--stop-on-alarm", is_flag=True, help="An alarm ends the training; the best values before it are kept."
    )(command)
    return click.option(
        "--monitor",
        default="",
        callback=not_empty,
        metavar="TASKS",
        help="Look at 100 questions of these tasks' dev part during training; a drop beyond noise raises an alarm.",
    )(command)


def verbosity_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `-v` and `-q`, as the parameter `verbosity`: 1, -1, or 0 by default."""
    command = click.option(
        "-q", "--quiet", "verbosity", flag_value=-1, type=int, help="Print results and errors alone."
    )(command)
    return click.option(
        "-v",
        "--verbose",
        "verbosity",
        flag_value=1,
        type=int,
        default=0,
        help="Print every step, and what the package logs.",
    )(command)


def words_again(context: click.Context, drop: Collection[str] = (), **instead: str | None) -> list[str]:
    """Returns the command as it was typed, as words.

    Args:
        context: of the command.
        drop: parameters that are left out.
        instead: parameter -> what is said in its place; None leaves it out.
    """
    given = {**dict.fromkeys(drop), **instead}
    names: list[str] = []
    at = context
    while at.parent is not None:
        names, at = [at.info_name or "", *names], at.parent
    n = os.environ.get("LOCAL_WORLD_SIZE", "")
    ranks = ["torchrun", "--nproc-per-node", n, "-m", "mmpt_bench"]
    words = [*(ranks if n and context.params.get("parallel") else [PROGRAM]), *names]
    for option in context.command.params:
        name = option.name or ""
        if name in given:
            if (text := given[name]) is not None:
                words += [option.opts[0], text]
            continue
        if context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(option, click.Argument):
            words += list(map(str, value if isinstance(value, tuple) else [value]))
        elif isinstance(option, click.Option) and option.is_flag:
            if not isinstance(value, bool) and value != option.flag_value:
                continue  # Another flag of the same parameter was typed.
            words += [(option.opts if value else option.secondary_opts or option.opts)[0]]
        else:
            for each in value if option.multiple else [value]:
                words += [option.opts[0], str(each)]
    return words


def command_on(out: Path, *words: str) -> str:
    """Returns a command on a results folder, to be typed in a shell; `--out` only where it is not the default one."""
    from mmpt_bench.records.store import results_folder

    folder = [] if out == results_folder() else ["--out", str(out)]
    return shlex.join([PROGRAM, *words, *folder])


def named_protocol(context: click.Context, option: click.Parameter, name: str | None) -> None:
    """Raises RequestError for `run --protocol NAME`, naming the command, whose tasks are files of items."""
    if name is None:
        return
    from mmpt_bench.evaluation.protocols import PROTOCOLS

    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    raise RequestError(
        f"`--protocol {name}` is a command of its own, which asks what `run` has trained: `{PROGRAM} protocol {name}`, "
        "with the same `--method`, `--seeds`, `--set` and `--backbone`."
    )


def refuse_beside(what: str, *names: str) -> None:
    """Raises RequestError where an option says what the recipe or the adapter says already."""
    context = click.get_current_context()
    hint = ": edit a copy of the recipe instead" if what == "recipe" else ""
    for name in names:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise RequestError(f"`--{name.replace('_', '-')}` and `--{what}` do not go together{hint}.")


def given_beside_experiment(context: click.Context) -> dict[str, Any]:
    """Returns the options that were typed beside an experiment's file; RequestError for those that cannot stand there.

    Args:
        context: of `run`.
    """
    from mmpt_bench.runs.options import Options

    typed = click.core.ParameterSource.COMMANDLINE
    given = {name: value for name, value in context.params.items() if context.get_parameter_source(name) is typed}
    for name in ("recipe", "adapter", "measure_costs"):
        if name in given:
            raise RequestError(f"`--{name.replace('_', '-')}` and an experiment's file do not go together.")
    return {name: value for name, value in given.items() if name in ("method", "tasks", *Options.__annotations__)}


def print_json(value: Any) -> None:
    """Prints JSON to stdout."""
    import json

    click.echo(json.dumps(value, indent=1))
