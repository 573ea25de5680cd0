"""Evaluation against the plain way, a question at a time (reference.py): one process, one thread, taken in turns.

    python benchmarks/evaluation.py                                    the embedded model and suite
    python benchmarks/evaluation.py --methods frozen,mmpt --limit 200  fewer questions

Replies of both have to be the same, or it stops. "Kept" is a second evaluation, as of a further method that leaves the
tower alone. Ratios are medians over pairs, the plain way's seconds over ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from mmpt_bench import registry, source
from mmpt_bench.backbone import Backbone, load_backbone
from mmpt_bench.embedded import suite
from mmpt_bench.machine import environment, steady_malloc
from mmpt_bench.predict import predict
from mmpt_bench.task import Sample, Task
from mmpt_bench.vision import FeatureCache

BATCH = 64


def timed(backbone: Backbone, task: Task, samples: list[Sample], **way: Any) -> tuple[float, float, dict[str, str]]:
    """Returns (CPU seconds, seconds, reply by sample)."""
    cpu, wall = time.process_time(), time.perf_counter()
    replies = {p.id: p.reply for batch in predict(backbone, task, samples, **way) for p in batch}
    return time.process_time() - cpu, time.perf_counter() - wall, replies


def row(backbone: Backbone, task: Task, samples: list[Sample], pairs: int) -> dict[str, float]:
    """Returns the median ratios of one task under the attached adapter."""
    ratios: dict[str, list[float]] = {"cpu": [], "wall": [], "kept_cpu": []}
    for _ in range(pairs):
        backbone.features, backbone.kept_pictures = FeatureCache(), FeatureCache()
        slow = timed(backbone, task, samples, batch_size=1, share=False)
        # The plain way kept no picture for us: sets have names.
        quick = timed(backbone, task, samples, batch_size=BATCH, pictures="set")
        kept = timed(backbone, task, samples, batch_size=BATCH, pictures="set")
        if not slow[2] == quick[2] == kept[2]:
            raise SystemExit(f"{task.name}: replies differ from those of the plain way")
        ratios["cpu"].append(slow[0] / quick[0])
        ratios["wall"].append(slow[1] / quick[1])
        ratios["kept_cpu"].append(slow[0] / kept[0])
    return {name: statistics.median(values) for name, values in ratios.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--methods", default="frozen,lora,mmpt")
    parser.add_argument("--tasks", default=",".join(suite.PICTURES))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    steady_malloc()
    backbone, rows = load_backbone(given.backbone, offline=True), []
    print("| method | task | questions | CPU | wall | CPU, features kept |\n|---|---|---|---|---|---|")
    for method in given.methods.split(","):
        handle = registry.load_method(registry.method_entries()[method])().attach(backbone, 1)
        for name in given.tasks.split(","):
            task = registry.load_task(registry.task_entries()[name])
            samples = source.samples(task, suite.source(name))[: given.limit]
            r = row(backbone, task, samples, given.pairs)
            rows.append({"method": method, "task": name, "questions": len(samples), **r})
            cells = f"{r['cpu']:.2f} | {r['wall']:.2f} | {r['kept_cpu']:.2f}"
            print(f"| {method} | {name} | {len(samples)} | {cells} |", flush=True)
        handle.remove()
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
