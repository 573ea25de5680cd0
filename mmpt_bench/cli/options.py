"""Options that several commands share, and the request that they stand for, checked before anything costly starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmpt_bench.common.errors import RequestError, unknown_name

if TYPE_CHECKING:
    from mmpt_bench.runs.request import Request
    from mmpt_bench.sources.corpora import TrainData

RULES = ("official", "lmms-eval", "vlmevalkit")

PARSE = click.option(
    "--parse",
    "rule",
    type=click.Choice(RULES),
    default=RULES[0],
    show_default=True,
    help="How replies are read: as the benchmark's authors do, or as another harness does.",
)

IMAGES = click.option(
    "--images",
    multiple=True,
    metavar="COLLECTION=DIR",
    help="Where pictures are that data sets only name: coco=DIR,flickr30k=DIR,mme=DIR; repeatable.",
)

DATASET = click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="TASK=NAME",
    help="Another data set of a task's form: vsr=random, or mme=OWNER/NAME[@REVISION] of the hub; repeatable.",
)


def dataset_names(texts: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """Returns task -> data set of `--dataset vsr=random`; RequestError names what is wrong."""
    found: dict[str, str] = {}
    for text in texts:
        task, equals, name = text.partition("=")
        if not equals or not name:
            raise RequestError(f"`--dataset {text}`: write TASK=NAME, as in `vsr=random`.")
        if task not in tasks:
            raise unknown_name("task", task, tasks, f"`--dataset {text}` is for one that `--tasks` does not name.")
        found[task] = name
    return found


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


def budget_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what every method is given alike."""
    from mmpt_bench.records.recipe import Budget

    plain = Budget()
    for option in (
        click.option(
            "--train-data",
            default="embedded",
            show_default=True,
            help="`embedded`, `vision-flan`, a JSON in LLaVA's form, or `task:NAME` for a task's own training split.",
        ),
        click.option("--train-images", type=click.Path(path_type=Path), help="Folder of the training pictures."),
        click.option(
            "--decontaminate", is_flag=True, help="Leave out training tasks whose pictures or labels are evaluated."
        ),
        click.option("--steps", default=plain.steps, show_default=True, help="Optimiser steps of a training."),
        click.option("--batch-size", default=plain.batch_size, show_default=True, help="Examples a step."),
        click.option(
            "--max-length",
            default=plain.max_length,
            show_default=True,
            help="Longest training example in tokens, with those of its picture.",
        ),
        click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16."),
        click.option("--device", default=None, help="As torch names it; by default the accelerator if there is one."),
        click.option("--offline", is_flag=True, help="Open no socket: everything must be on this machine."),
    ):
        command = option(command)
    return command


def request_of(method: str, tasks: str, seeds: str, overrides: tuple[str, ...], options: dict[str, Any]) -> Request:
    """Returns the request that options stand for; raises RequestError before anything costly is imported."""
    from mmpt_bench.data.image_folders import image_folders
    from mmpt_bench.evaluation import task_catalog
    from mmpt_bench.methods import method_catalog
    from mmpt_bench.records.recipe import Budget
    from mmpt_bench.runs.request import Request, parse_overrides
    from mmpt_bench.sources.weights import DTYPES, check_backbone

    methods = method_catalog.find_methods(method)
    found = task_catalog.find_tasks(tasks)
    check_backbone(options["backbone"])
    if options["dtype"] not in DTYPES:
        from mmpt_bench.common.errors import unknown_name

        raise unknown_name("dtype", options["dtype"], DTYPES)
    for name in ("steps", "batch_size", "max_length"):
        if options[name] < 1:
            raise RequestError(f"`--{name.replace('_', '-')} {options[name]}`: at least 1.")
    if options.get("features") is not None:
        from mmpt_bench.engine.models.feature_disk import check_folder

        check_folder(options["features"])
    data = options.get("data")
    if data is not None and not data.is_dir():
        raise RequestError(f"There is no folder `{data}` to read data from.")
    return Request(
        methods=tuple(methods),
        overrides=parse_overrides(overrides, methods),
        tasks=tuple(found),
        seeds=_seeds(seeds),
        backbone=options["backbone"],
        corpus=_train_data(options),
        budget=Budget(steps=options["steps"], batch_size=options["batch_size"], max_length=options["max_length"]),
        dtype=options["dtype"],
        out=options["out"],
        data=data,
        images=image_folders(options.get("images", ())),
        datasets=dataset_names(options.get("datasets", ()), [entry.name for entry in found]),
        limit=options.get("limit"),
        rule=options.get("rule", "official"),
        offline=options["offline"],
        device=options["device"],
        guard=options.get("guard", True),
        features=options.get("features"),
        features_bytes=int(options.get("features_gb", 10.0) * 2**30),
    )


def _train_data(options: dict[str, Any]) -> TrainData:
    """Returns what to train on; raises RequestError for options that can be no training data."""
    from mmpt_bench.data.image_folders import image_folders
    from mmpt_bench.sources.corpora import TrainData, check_train_data

    source: str = options["train_data"]
    names = dict(text.partition("=")[::2] for text in options.get("datasets", ()))
    wanted = TrainData(
        source=source,
        images=options["train_images"],
        decontaminated=options["decontaminate"],
        data=options.get("data"),
        collections=tuple(image_folders(options.get("images", ())).items()),
        dataset=names.get(source.removeprefix("task:"), ""),
        offline=options["offline"],
    )
    check_train_data(wanted)
    return wanted


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise RequestError(f"`--seeds {text}`: whole numbers, comma-separated.") from error
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise RequestError(f"`--seeds {text}`: one or more different numbers, none below 0.")
    return seeds
