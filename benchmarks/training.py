"""Training steps a second against the plain way, for each method: one process, one thread, taken in turns.

    python benchmarks/training.py                      the embedded model
    python benchmarks/training.py --backbone DIR       another one
    python benchmarks/training.py --fit                what a micro-batch costs beside its tokens

The plain way, with the same attached adapter: a step's examples padded to the longest, all logits, every picture
through the whole tower, gradients of every answer token's mean, fused AdamW. It is no other library's trainer. Losses
of both are compared step by step. "Kept" is a second run on the same examples, as of a further method at the same seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmpt_bench import registry, train
from mmpt_bench.anatomy import Anatomy
from mmpt_bench.backbone import Backbone, load_backbone
from mmpt_bench.corpus import Corpus, load_corpus
from mmpt_bench.loss import Losses
from mmpt_bench.machine import environment, steady_malloc
from mmpt_bench.recipe import Budget
from mmpt_bench.vision import FeatureCache

METHODS = ("lora", "prefix", "projector", "mmpt", "vpt", "full")


def plain(backbone: Backbone, handle: Any, corpus: Corpus, budget: Budget, rate: float) -> list[float]:
    """Returns the losses of a training without any of the shortcuts."""
    parameters = list(handle.trainable.values())
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=budget.weight_decay, fused=True)
    losses = []
    backbone.model.train()
    for step, examples in enumerate(corpus.batches(0, budget.steps, budget.batch_size)):
        for group in optimizer.param_groups:
            group["lr"] = train.learning_rate(step, budget, rate)
        prompts = [backbone.prompt_text(example.prompt) for example in examples]
        pictures = [example.image.open() for example in examples]
        batch = backbone.batch(pictures, prompts, [example.target for example in examples])
        optimizer.zero_grad(set_to_none=True)
        loss = backbone.model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, budget.max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
    backbone.model.eval()
    return losses


def fast(backbone: Backbone, handle: Any, corpus: Corpus, budget: Budget, rate: float) -> list[float]:
    """Returns the losses of the harness's own training."""
    losses: list[float] = []
    train.train(backbone, handle, corpus, budget, rate, 0, on_step=lambda step: losses.append(step.loss))
    return losses


def timed(
    way: Callable[..., list[float]], backbone: Backbone, method: str, corpus: Corpus, budget: Budget
) -> tuple[float, float, list[float]]:
    """Returns (CPU seconds, seconds, losses) of one training from the start."""
    adapter = registry.load_method(registry.method_entries()[method])()
    handle = adapter.attach(backbone, 1)
    try:
        cpu, wall = time.process_time(), time.perf_counter()
        losses = way(backbone, handle, corpus, budget, adapter.learning_rate)
        return time.process_time() - cpu, time.perf_counter() - wall, losses
    finally:
        handle.remove()


def row(backbone: Backbone, method: str, corpus: Corpus, budget: Budget, pairs: int) -> dict[str, Any]:
    """Returns the medians over pairs of one method."""
    ratios: dict[str, list[float]] = {"cpu": [], "wall": [], "kept_cpu": [], "kept_wall": []}
    apart = 0.0
    for _ in range(pairs):
        backbone.features = FeatureCache()
        slow = timed(plain, backbone, method, corpus, budget)
        quick = timed(fast, backbone, method, corpus, budget)
        kept = timed(fast, backbone, method, corpus, budget)
        for name, other in (("", quick), ("kept_", kept)):
            ratios[f"{name}cpu"].append(slow[0] / other[0])
            ratios[f"{name}wall"].append(slow[1] / other[1])
            apart = max(apart, *(abs(a - b) / a for a, b in zip(slow[2], other[2], strict=True)))
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    return {"method": method, **medians, "loss_difference": apart, "plain_cpu_seconds_a_step": slow[0] / budget.steps}


def fit(backbone: Backbone, corpus: Corpus, method: str) -> dict[str, float]:
    """Returns the least-squares costs of a micro-batch: seconds each, seconds a token, and the first in operations."""
    handle = registry.load_method(registry.method_entries()[method])().attach(backbone, 1)
    losses = Losses(backbone, corpus.fingerprint, 1024)
    examples = next(corpus.batches(0, 1, 24))
    ready = losses.ready(examples)
    order = sorted(range(24), key=lambda i: len(ready.rows[i].ids))
    points = []
    for n in (2, 4, 8, 16, 24):
        chosen = order[-n:]
        times = []
        for _ in range(5):
            began = time.process_time()
            losses.sum_of(ready, chosen)[0].backward()
            times.append(time.process_time() - began)
        points.append((n * len(ready.rows[order[-1]].ids), statistics.median(times[1:])))
    handle.remove()
    slope, start = statistics.linear_regression(*zip(*points, strict=True))
    anatomy: Anatomy = backbone.anatomy
    flops = start / slope * 6 * anatomy.language_parameters / len(anatomy.decoder_layers)
    return {"seconds": start, "seconds_a_token": slope, "tokens": start / slope, "operations_a_layer": flops}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    steady_malloc()
    backbone, corpus = load_backbone(given.backbone, offline=True), load_corpus("embedded")
    if given.fit:
        for method in given.methods.split(","):
            print(method, {name: f"{value:.3g}" for name, value in fit(backbone, corpus, method).items()})
        return
    budget = Budget(steps=given.steps, batch_size=given.batch_size)
    rows = []
    print("| method | CPU | wall | CPU, features kept | loss, largest relative difference | plain, s a step |")
    print("|---|---|---|---|---|---|")
    for method in given.methods.split(","):
        rows.append(r := row(backbone, method, corpus, budget, given.pairs))
        print(
            f"| {method} | {r['cpu']:.2f} | {r['wall']:.2f} | {r['kept_cpu']:.2f} | {r['loss_difference']:.1e} | "
            f"{r['plain_cpu_seconds_a_step']:.3f} |",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
