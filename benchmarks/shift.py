"""How strong the shifted world of the embedded suite must be: the base, and full fine-tuning, at several strengths.

    python benchmarks/shift.py --strengths 0,0.5,1 --method frozen
    python benchmarks/shift.py --world RIPPLE=1.5,SWING=0.3 --world RIPPLE=2 --method frozen
    python benchmarks/shift.py --method full --set train_vision=true --rate 4e-4 --steps 200

Scenes are those of the part "dev": neither tuning nor evaluation ever shows them. Printed are the chance-centred
constrained and strict scores of each task, and their means. Only frozen and full may be looked at with it: the world's
strength is set before any method is scored (docs/decisions/0029).
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
import torch

from mmpt_bench.common.hashing import derive
from mmpt_bench.embedded import shifted, suite
from mmpt_bench.engine.inference.predict import predict
from mmpt_bench.engine.models.backbone import load_backbone
from mmpt_bench.engine.training.train import TrainingConfig, train
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.scoring import scored
from mmpt_bench.evaluation.task import Task
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.budget import Budget
from mmpt_bench.sources import corpora, task_rows

SMALL = {"mme": 20, "pope": 40, "vsr": 120, "snli_ve": 60, "cifar10": 120, "mnist": 120}


def centred(score: float, chance: float, ceiling: float) -> float:
    """Returns how far a score is between chance (0) and its ceiling (1)."""
    return (score - chance) / (ceiling - chance)


def scores(backbone: object, task: Task) -> tuple[float, float]:
    """Returns the chance-centred (constrained, strict) scores on a task's dev scenes."""
    samples = task_rows.samples(task, suite.source(task.name, "dev"))
    found = {p.id: p for batch in predict(backbone, task, samples) for p in batch}
    figures = scored(task, samples, [found[s.id] for s in samples])
    both = (figures["constrained"], figures["strict"])
    return tuple(centred(value, figures["chance"], figures["ceiling"]) for value in both)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--strengths", default="1")
    parser.add_argument("--world", action="append", metavar="NAME=VALUE,...", help="constants of shifted.py, or HASTE")
    parser.add_argument("--whole", action="store_true", help="as many scenes as evaluation has, not half of them")
    parser.add_argument("--method", default="frozen", choices=("frozen", "full"))
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.whole:
        suite.N_IMAGES.update(SMALL)
    adapter_class = method_catalog.load_method(method_catalog.method_entries()[options.method])
    values = method_catalog.coerce(adapter_class, dict(item.split("=", 1) for item in options.set))
    tasks = [
        task_catalog.load_task(entry) for name, entry in task_catalog.task_entries().items() if name in suite.N_IMAGES
    ]
    strengths = [float(value) for value in options.strengths.split(",")]
    for world, strength in itertools.product(options.world or [""], strengths):
        suite.WORLDS["shifted"] = strength
        for name, value in (item.split("=") for item in world.split(",") if item):
            setattr(suite if name == "HASTE" else shifted, name, float(value))
        backbone = load_backbone(options.backbone, offline=True)
        adapter = adapter_class(**values)
        handle = adapter.attach(backbone, derive(1000, "init"))
        began, loss = time.perf_counter(), float("nan")
        if handle.trainable:
            config = TrainingConfig(Budget(steps=options.steps), options.rate or adapter.learning_rate, seed=1000)
            loss = train(backbone, handle, corpora.load_corpus("embedded"), config).final_loss
        seconds = time.perf_counter() - began
        table = {task.name: scores(backbone, task) for task in tasks}
        means = np.mean(list(table.values()), axis=0)
        cells = "  ".join(f"{name} {a:.2f}/{b:.2f}" for name, (a, b) in table.items())
        print(
            f"{options.method} {world} strength {strength:g}: {means[0]:.3f}/{means[1]:.3f}  {cells}",
            f"loss {loss:.3f}, {seconds:.0f} s",
            flush=True,
        )
        handle.remove()


if __name__ == "__main__":
    main()
