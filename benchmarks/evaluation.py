"""Evaluation against the plain way, a question at a time (plain.py): one process, one thread, taken in turns.

    python benchmarks/evaluation.py                                    48 M parameters, made-up questions in six layouts
    python benchmarks/evaluation.py --backbone embedded --methods frozen,mmpt --limit 200

Replies of both have to be the same, or it stops. "Kept" is a second evaluation, as of a further method that leaves the
tower alone. Ratios are medians over pairs, the plain way's seconds over ours. The comparison with the plain way that
begins an evaluation (`Shared.check`) costs the same for twenty questions as for 9,000: it is counted apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import layouts
import midsize
import torch

from mmpt_bench.data.samples import Sample, Shot
from mmpt_bench.embedded import suite
from mmpt_bench.engine.inference import plain as reference
from mmpt_bench.engine.inference.predict import InferenceOptions, predict
from mmpt_bench.engine.inference.shared import Shared
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.models.feature_cache import FeatureCache
from mmpt_bench.engine.training.memory import steady_malloc
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.task import Task
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.environment import environment
from mmpt_bench.sources import task_rows

BATCH = 64
PICTURES = {"mme": 8, "pope": 3, "snli_ve": 3, "vsr": 14, "cifar10": 14, "mnist": 14}
"""Images of each layout by default."""
Timed = tuple[float, float, dict[str, str]]
"""CPU seconds, seconds, reply by sample."""


def plain(backbone: Backbone, task: Task, samples: list[Sample]) -> Timed:
    """Returns the cost and replies of the plain way."""
    cpu, wall = time.process_time(), time.perf_counter()
    replies = {sample.id: reply for sample, (reply, _) in reference.one_by_one(backbone, task, samples)}
    return time.process_time() - cpu, time.perf_counter() - wall, replies


@contextmanager
def check_apart() -> Iterator[list[float]]:
    """Yields the CPU seconds and seconds that `Shared.check` takes inside, with images of its own."""
    whole, spent = Shared.check, [0.0, 0.0]

    def timed(self: Shared, batch: Any) -> None:
        backbone = self.backbone
        kept = backbone.features, backbone.kept_pictures
        backbone.features, backbone.kept_pictures = FeatureCache(), FeatureCache()
        cpu, wall = time.process_time(), time.perf_counter()
        whole(self, batch)
        spent[:] = spent[0] + time.process_time() - cpu, spent[1] + time.perf_counter() - wall
        backbone.features, backbone.kept_pictures = kept

    Shared.check = timed  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        Shared.check = whole  # type: ignore[method-assign]


def ours(backbone: Backbone, task: Task, samples: list[Sample]) -> Timed:
    """Returns the cost, without the check, and replies of the harness's own evaluation."""
    with check_apart() as spent:
        cpu, wall = time.process_time(), time.perf_counter()
        made = predict(backbone, task, samples, InferenceOptions(BATCH, "set"))
        replies = {p.id: p.reply for batch in made for p in batch}
        return time.process_time() - cpu - spent[0], time.perf_counter() - wall - spent[1], replies


def row(backbone: Backbone, task: Task, samples: list[Sample], pairs: int) -> dict[str, float]:
    """Returns the median ratios of one task under the attached adapter, and the plain way's CPU time a question."""
    ratios: dict[str, list[float]] = {"cpu": [], "wall": [], "kept_cpu": [], "kept_wall": []}
    each = []
    for _ in range(pairs):
        backbone.features, backbone.kept_pictures = FeatureCache(), FeatureCache()
        slow, quick, kept = (way(backbone, task, samples) for way in (plain, ours, ours))
        if not slow[2] == quick[2] == kept[2]:
            raise SystemExit(f"{task.name}: replies differ from those of the plain way")
        each.append(slow[0] / len(samples))
        for name, one in (("", quick), ("kept_", kept)):
            ratios[f"{name}cpu"].append(slow[0] / one[0])
            ratios[f"{name}wall"].append(slow[1] / one[1])
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    return {**medians, "plain_cpu_seconds_a_question": statistics.median(each)}


def questions(backbone: str, tasks: list[str], limit: int | None, scale: float) -> list[tuple[str, Task, list[Sample]]]:
    """Returns (title, task, samples) of what is asked: the layouts, or the embedded suite."""
    if backbone not in midsize.MADE:
        loaded = {name: task_catalog.load_task(task_catalog.task_entries()[name]) for name in tasks}
        return [(name, task, task_rows.samples(task, suite.source(name))[:limit]) for name, task in loaded.items()]
    return [
        (layout.title, layout.loaded(), layouts.samples(layout, max(2, round(PICTURES[layout.task] * scale)))[:limit])
        for layout in layouts.LAYOUTS
        if layout.task in tasks
    ]


def behind_examples(samples: list[Sample], k: int) -> list[Sample]:
    """Returns questions about all but `k` images, each after a solved question about every one of those."""
    if not k:
        return samples
    images = list(dict.fromkeys(one.image.key for one in samples))[:k]
    solved = [next(one for one in samples if one.image.key == image) for image in images]
    shots = tuple(Shot(one.id, (one.image,), one.question, one.answer) for one in solved)
    return [dataclasses.replace(one, shots=shots) for one in samples if one.image.key not in images]


def backbone_of(name: str, folder: Path) -> Backbone:
    """Returns a backbone by name; the one of 48 million parameters is written to `folder` first."""
    return load_backbone(str(midsize.MADE[name](folder)) if name in midsize.MADE else name, device="cpu", offline=True)


def table(backbone: Backbone, name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Prints the table, a row at a time, and returns its rows."""
    rows = []
    print("| method | layout | questions | CPU | CPU, features kept | wall | plain, CPU s a question |")
    print("|---|---|---|---|---|---|---|")
    for method in given.methods.split(","):
        handle = method_catalog.load_method(method_catalog.method_entries()[method])().attach(backbone, 1)
        for title, task, samples in questions(name, given.tasks.split(","), given.limit, given.scale):
            samples = behind_examples(samples, given.few_shot)
            r = row(backbone, task, samples, given.pairs)
            rows.append({"method": method, "layout": title, "questions": len(samples), **r})
            cells = f"{r['cpu']:.2f} | {r['kept_cpu']:.2f} | {r['wall']:.2f} | {r['plain_cpu_seconds_a_question']:.3f}"
            print(f"| {method} | {title} | {len(samples)} | {cells} |", flush=True)
        handle.remove()
    return rows


def options(parser: argparse.ArgumentParser) -> None:
    """Adds what `table` reads."""
    parser.add_argument("--methods", default="frozen")
    parser.add_argument("--tasks", default=",".join(PICTURES))
    parser.add_argument("--limit", type=int, help="questions of each task, at most")
    parser.add_argument("--few-shot", type=int, default=0, help="solved examples before each question")
    parser.add_argument("--scale", type=float, default=1.0, help="of the layouts' images")
    parser.add_argument("--pairs", type=int, default=3)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="midsize", help=f"{', '.join(midsize.MADE)}, `embedded` or a folder")
    options(parser)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    steady_malloc()
    with tempfile.TemporaryDirectory() as folder:
        backbone = backbone_of(given.backbone, Path(folder))
        rows = table(backbone, given.backbone, given)
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
