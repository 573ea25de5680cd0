"""The paper's full setting: LLaVA-7B, Vision-Flan, all tasks, all methods, three seeds.

    python examples/paper.py --plan
    python examples/paper.py --train-images vision-flan/images_191task_1k --images coco=DIR,flickr30k=DIR,mme=DIR
    python examples/paper.py --train-images DIR --images coco=DIR,flickr30k=DIR,mme=DIR --protocol m2pt --items DIR

`--plan` prints hours, memory and disk and runs nothing; it needs no weights, hub or accelerator. Without it, the
learning rates are searched first, each method by the same search, then everything is trained, evaluated and ranked.
What is recorded is not done again: the same command goes on after an interruption. `--protocol` also asks and scores
all of it as the paper's authors do, on their items where `--items` has them (docs/protocols.md).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from mmpt_bench.evaluation.protocols import PROTOCOLS
from mmpt_bench.records.rate_curve import Protocol
from mmpt_bench.runs.gpus import (
    TEXT_TOKENS,
    TFLOPS,
    Scale,
    Unit,
    asking_operations,
    scale_of,
    table_of,
    training_operations,
)

METHODS = ("frozen", "projector", "mmpt", "vpt", "prefix", "lora", "full")
EXAMPLES = 186_103
"""Of Vision-Flan, 191 tasks (arXiv:2402.11690)."""
EPOCHS, BATCH = 3, 128
"""Of the paper's training."""
QUESTIONS = {"mme": 2_374, "pope": 9_000, "vsr": 1_222, "snli_ve": 17_901, "cifar10": 10_000, "mnist": 10_000}
DEV_QUESTIONS = {"vsr": 340, "snli_ve": 17_858}
"""Of the tasks that have a validation split, which learning rates are chosen on."""
ACTIVATION_BYTES = 34
"""Kept for the way back, a value of a layer's width and token in half precision (Korthikanti et al. 2022, without the
attention matrix, which fused kernels do not keep)."""
DATA_GB = {
    "Vision-Flan, images and JSON": 37 + 37,
    "MME": 1,
    "POPE": 1,
    "VSR and COCO images": 19 + 6,
    "Flickr30k": 5,
}
"""Archives and what they unpack to, rounded up."""


def steps() -> int:
    """Returns the optimiser steps of one training."""
    return round(EXAMPLES * EPOCHS / BATCH)


def plan(backbone: str, seeds: int, searched: int, tflops: float) -> dict[str, Any]:
    """Returns hours, memory and disk of the whole setting, counted from the architecture.

    `searched` is the number of trainings in a method's search, `mmpt_bench.records.rate_curve.Protocol.trainings`.
    Operations are counted as `mmpt-bench run --plan --gpus` counts them, at an assumed sustained speed, `tflops`.
    """
    from mmpt_bench.engine.models.loading import anatomy_of
    from mmpt_bench.methods.method_catalog import load_method, method_entries

    anatomy, total, image_tokens = anatomy_of(backbone)
    entries, language = method_entries(), anatomy.language_parameters
    tokens = image_tokens + TEXT_TOKENS
    asked, dev_asked = (
        asking_operations(sum(of.values()), tokens, language) / (tflops * 1e12) / 3600
        for of in (QUESTIONS, DEV_QUESTIONS)
    )
    width = anatomy.text_dim * len(anatomy.decoder_layers)
    rows: dict[str, Any] = {}
    for name in METHODS:
        adapter = load_method(entries[name])()
        trained = adapter.count(anatomy)
        runs = (seeds if trained else 1, searched if trained else 0)
        seen = tokens + adapter.decoder_rows
        work = training_operations(steps() * BATCH, seen, language, trained) if trained else 0.0
        hours = work / (tflops * 1e12) / 3600
        # Weights and gradients in half precision, AdamW's two moments beside them.
        state = 2 * total + 6 * trained
        rows[name] = {
            "trainable": trained,
            "hours": sum(runs) * hours + runs[0] * asked + runs[1] * dev_asked,
            "hours_each": (hours, asked, dev_asked),
            "gib_states": state / 2**30,
            "gib_an_example": seen * width * ACTIVATION_BYTES / 2**30 if trained else 0.0,
            "gib_disk": runs[0] * 2 * trained / 2**30,
        }
    return {"total": total, "tokens": tokens, "methods": rows}


def on_gpus(found: dict[str, Any], seeds: int, protocol: Protocol, gpus: int | None) -> Scale:
    """Returns hours on several numbers of GPUs: the rounds of the search, one after the other, and then the board."""
    rows = {name: [3600 * hours for hours in row["hours_each"]] for name, row in found["methods"].items()}
    trained = {name: row for name, row in rows.items() if row[0]}
    stages = [
        [Unit(f"search of {name}", row[0], row[2], BATCH) for _ in range(n) for name, row in trained.items()]
        for n in protocol.most_by_round
    ]
    board = [
        Unit(f"{name}, seed {seed}" if name in trained else name, row[0], row[1], BATCH)
        for seed in range(seeds)
        for name, row in rows.items()
        if name in trained or seed == 0
    ]
    return scale_of([*stages, board], "", gpus)


def show(found: dict[str, Any], seeds: int, searched: int, tflops: float) -> None:
    """Prints the plan."""
    rows = found["methods"]
    rates = f"{searched} trainings to search a method's learning rate"
    print(f"{steps():,} steps of {BATCH} examples; {seeds} seeds, {rates}; {tflops:g} TFLOP/s")
    print(f"{'method':<10} {'trainable':>14} {'share':>9} {'hours':>8} {'GiB':>6} {'GiB/example':>12} {'adapters':>9}")
    for name, row in rows.items():
        print(
            f"{name:<10} {row['trainable']:>14,} {row['trainable'] / found['total']:>9.4%} {row['hours']:>8.0f} "
            f"{row['gib_states']:>6.1f} {row['gib_an_example']:>12.1f} {row['gib_disk']:>9.2f}"
        )
    disk = 2 * found["total"] / 2**30 + sum(row["gib_disk"] for row in rows.values())
    print(f"hours in all: {sum(row['hours'] for row in rows.values()):,.0f} on one accelerator")
    print("memory: states, and activations a micro-batch; a batch is cut in halves until it fits")
    data = ", ".join(f"{name} {size} GB" for name, size in DATA_GB.items())
    print(f"disk: {disk:,.0f} GiB of weights and adapters; data: {data}")


def commands(options: argparse.Namespace) -> list[list[str]]:
    """Returns the commands that do it, in order."""
    common = ["--backbone", options.backbone, "--method", ",".join(METHODS), "--dtype", "bfloat16"]
    common += ["--steps", str(steps()), "--batch-size", str(BATCH), "--out", str(options.out)]
    common += ["--train-data", "vision-flan", "--train-images", str(options.train_images)]
    common += ["--decontaminate"] if options.decontaminate else []
    seeds = ",".join(str(seed) for seed in range(options.seeds))
    common += ["--images", options.images] if options.images else []
    common += ["--data", str(options.data)] if options.data else []
    tune = ["tune", *common, "--rounds", options.rounds, "--dev-tasks", ",".join(DEV_QUESTIONS)]
    made = [tune, ["run", *common, "--tasks", "all", "--seeds", seeds]]
    if options.protocol:
        items = ["--items", str(options.items)] if options.items else []
        judge = ["--judge", options.judge] if options.judge else []
        made.append(["protocol", options.protocol, *common, "--seeds", seeds, *items, *judge])
    return made


def main() -> int:
    """Prints the plan, or does what it says; returns the exit code of what failed, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--plan", action="store_true", help="print hours, memory and disk, and run nothing")
    parser.add_argument("--backbone", default="llava-hf/llava-1.5-7b-hf", help="a folder, or a name on the hub")
    parser.add_argument("--train-images", type=Path, help="folder of Vision-Flan's images")
    parser.add_argument("--images", help="folders of the tasks' images: coco=DIR,flickr30k=DIR,mme=DIR")
    parser.add_argument("--data", type=Path, help="folder of the tasks' data in the hub's schema; else the hub")
    parser.add_argument("--decontaminate", action="store_true", help="leave out training tasks that are evaluated")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", default="1,3,5", help="seeds of each learning rate by round of the search")
    parser.add_argument("--protocol", choices=tuple(PROTOCOLS), help="also ask and score as a paper's authors do")
    parser.add_argument("--items", type=Path, help="folder of the authors' items, for --protocol")
    parser.add_argument("--judge", help="file of verdicts, or a local model, for --protocol")
    parser.add_argument("--tflops", type=float, default=TFLOPS, help="sustained speed that the plan counts with")
    parser.add_argument("--gpus", type=int, help="plan for so many GPUs too")
    parser.add_argument("--out", type=Path, default=Path("results-paper"))
    options = parser.parse_args()
    if options.plan:
        # The hub's model is planned by the paper's own architecture, which is on this disk.
        here = Path(__file__).parent / "llava-7b-linear"
        backbone = options.backbone if Path(options.backbone).is_dir() else str(here)
        search = Protocol(rounds=tuple(map(int, options.rounds.split(","))))
        found = plan(backbone, options.seeds, search.trainings[1], options.tflops)
        show(found, options.seeds, search.trainings[1], options.tflops)
        print("\n".join(table_of(on_gpus(found, options.seeds, search, options.gpus))))
        return 0
    if options.train_images is None:
        parser.error("--train-images: Vision-Flan's images are needed (see `mmpt-bench run --help`)")
    for command in commands(options):
        code = subprocess.run([sys.executable, "-m", "mmpt_bench", *command], check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
