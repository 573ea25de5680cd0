"""Everything that is said about speed, in one command: evaluation, training, the machine's own rate, and the start.

    python benchmarks/speed.py --json speed.json

Prints tables and writes JSON; nothing is needed but the project. A quarter of an hour with `--pairs 1` on an idle core,
three times that by default; beside other work, ratios of CPU time too may lose a seventh. See evaluation.py and
training.py for what is compared with what.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import midsize
import mixture
import startup
import torch
import training
from torch.utils.flop_counter import FlopCounterMode

import evaluation
from mmpt_bench.engine.forward.prepared_images import PreparedImages
from mmpt_bench.engine.inference import plain
from mmpt_bench.engine.inference.shared import Shared
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.training.loss import Losses
from mmpt_bench.engine.training.memory import steady_malloc
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.environment import environment

SIDE = 1024
"""Of the square matrices whose product is the machine's own rate."""


def cpu_seconds(work: Callable[[], Any], times: int = 5) -> float:
    """Returns the median CPU seconds of a piece of work, after one that warms up."""
    work()
    spent = []
    for _ in range(times):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return statistics.median(spent)


def operations(work: Callable[[], Any]) -> int:
    """Returns the floating-point operations of the matrix products in a piece of work."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def share(work: Callable[[], Any], rate: float) -> dict[str, float]:
    """Returns operations, CPU seconds, and the share of the machine's rate that a piece of work reaches."""
    seconds, done = cpu_seconds(work), operations(work)
    return {"operations": done, "cpu_seconds": seconds, "share": done / seconds / rate}


def prefill(backbone: Backbone) -> Callable[[], Any]:
    """Returns one prefill of eight prompts whose images are encoded."""
    asked = [plain.Question(backbone.prompt_text(s.question), [s]) for s in layouts.samples(layouts.LAYOUTS[0], 8)]
    way = Shared(backbone, 4, PreparedImages(backbone, "set"))

    def work() -> None:
        with torch.no_grad():
            way._prefill(asked[::2])

    return work


def step(backbone: Backbone, method: str) -> tuple[Callable[[], Any], Callable[[], None]]:
    """Returns one step forward and back on eight examples, and what takes the method off again."""
    handle = method_catalog.load_method(method_catalog.method_entries()[method])().attach(backbone, 1)
    losses = Losses(backbone, "set", 1024)
    ready = losses.ready(next(mixture.corpus(4).batches(0, 1, 8)))

    def work() -> None:
        for chosen in losses.cut(ready, 8):
            losses.sum_of(ready, chosen)[0].backward()

    return work, handle.remove


def machine_share() -> dict[str, Any]:
    """Prints which share of the machine's matrix-product rate prefill and training reach, and returns it."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    rate = 2 * SIDE**3 / cpu_seconds(lambda: a @ b)
    found: dict[str, Any] = {"product_operations_a_second": rate}
    with tempfile.TemporaryDirectory() as folder:
        backbone = load_backbone(str(midsize.save_llava(Path(folder))), device="cpu", offline=True)
    found["prefill"] = share(prefill(backbone), rate)
    for method in ("lora", "mmpt"):
        work, remove = step(backbone, method)
        found[method] = share(work, rate)
        remove()
    print(f"\n| of {rate / 1e9:.0f} GFLOP/s, float32 product of {SIDE} x {SIDE}, one thread | share |\n|---|---|")
    for name in ("prefill", "lora", "mmpt"):
        print(
            f"| {name if name == 'prefill' else f'a training step, {name}'} | {found[name]['share']:.2f} |", flush=True
        )
    return found


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the layouts' images")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    steady_malloc()
    pairs = str(given.pairs)
    words = argparse.ArgumentParser()
    evaluation.options(words)
    asked = words.parse_args(["--pairs", pairs, "--scale", str(given.scale)])
    with tempfile.TemporaryDirectory() as folder:
        backbone = evaluation.backbone_of("midsize", Path(folder))
    found: dict[str, Any] = {"evaluation": evaluation.table(backbone, "midsize", asked), "training": []}
    words = argparse.ArgumentParser()
    training.options(words)
    for which in ("midsize", "smolvlm"):
        found["training"] += training.table(words.parse_args(["--backbone", which, "--pairs", pairs]))
    found |= {"machine": machine_share(), "start": startup.table(5), "environment": environment()}
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
