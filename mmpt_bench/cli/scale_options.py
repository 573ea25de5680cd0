"""Options about who does the runs of a command, and what of them stays; each is called like a parameter in Python."""

from __future__ import annotations

import click

from mmpt_bench.cli.options import not_empty
from mmpt_bench.records import answer_files
from mmpt_bench.records.adapter_kept import ALL, WAYS

WORKERS = click.option(
    "--workers",
    default="1",
    show_default=True,
    metavar="N",
    help="So many processes on this machine, each with one thread, or a GPU of its own; or `ray`, `ray://HOST`, "
    "`slurm`.",
)
GPUS_PER_UNIT = click.option(
    "--gpus-per-unit",
    type=float,
    metavar="K",
    help="With `--workers ray` or `slurm`: GPUs that each run or trial asks for; on Ray a fraction below 1 too.",
)
PARALLEL = click.option(
    "--parallel",
    default="",
    callback=not_empty,
    metavar="ddp|fsdp2",
    help="Under torchrun: its processes share every training and evaluation. ddp: the model whole on each GPU; fsdp2: "
    "shards of it.",
)
KEEP_ADAPTERS = click.option(
    "--keep-adapters",
    type=click.Choice(WAYS),
    default=ALL,
    show_default=True,
    help="Adapters that stay when all tasks are recorded; best: of each variant the seed with the best overall score.",
)
ANSWERS = click.option(
    "--answers",
    type=click.Choice(answer_files.WAYS),
    default=answer_files.JSONL,
    show_default=True,
    help="How the answers of a finished task are kept; parquet: in a tenth of the bytes.",
)
