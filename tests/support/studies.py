"""A whole study by hand: seven methods, tasks like MME and POPE, ablations, searches and training logs. No model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpt_bench.common.files import append_jsonl, write_atomic
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.metrics import MME_COGNITION, MME_PERCEPTION
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records import ablations, rate_curve, streams
from mmpt_bench.records.ablations import Ablation, Point
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.learning_rates import FILE, Choice, dump
from mmpt_bench.records.rate_curve import Curve, grid_between
from mmpt_bench.records.rate_trials import DEV, Search
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.run_folder import LOG
from mmpt_bench.records.store import Store
from support.synthetic import keep, record, samples, store_in, task

COLORS = {
    "frozen": "#000000", "projector": "#E69F00", "mmpt": "#D55E00", "vpt": "#56B4E9", "prefix": "#CC79A7",
    "lora": "#0072B2", "full": "#009E73",
}  # fmt: skip
SKILL = {"frozen": 0.55, "projector": 0.6, "mmpt": 0.68, "vpt": 0.62, "prefix": 0.64, "lora": 0.72, "full": 0.74}
TRAINABLE = {"frozen": 0, "projector": 60_000, "mmpt": 90_000, "vpt": 80_000, "prefix": 70_000, "lora": 400_000,
             "full": 2_900_000}  # fmt: skip
PARAMS = {
    "frozen": {"learning_rate": 0.0}, "projector": {"learning_rate": 1e-3}, "lora": {"r": 16, "learning_rate": 1e-3},
    "mmpt": {
        "visual_length": 20, "text_length": 10, "interaction": True, "interaction_place": "image",
        "learning_rate": 7e-4,
    },
    "vpt": {"visual_length": 20, "learning_rate": 7e-4}, "prefix": {"length": 10, "learning_rate": 1e-2},
    "full": {"learning_rate": 2e-5},
}  # fmt: skip


def study_tasks() -> dict[str, Task]:
    """Returns a task like MME with all subtasks, and two scored by accuracy."""
    return {"mme": task("mme", "MME", points=True), "pope": task("pope", "POPE"), "mnist": task("mnist", "MNIST")}


def asked(name: str) -> list[Sample]:
    """Returns a task's samples."""
    if name != "mme":
        return samples(120, name, 6 if name == "pope" else 1)
    return [s for group in (*MME_PERCEPTION, *MME_COGNITION) for s in samples(16, group, 2)]


def recipe(method: str, seed: int, **changed: object) -> Recipe:
    """Returns the recipe of a method with some hyperparameters changed."""
    params = PARAMS[method] | changed
    return Recipe("tiny", "b" * 8, "scenes", "c" * 8, method, params, Budget(steps=120), seed)


def add(store: Store, by: Recipe, skill: float, names: Sequence[str]) -> None:
    """Adds a run's records: right with probability `skill`, a part of which is the image's and the seed's luck."""
    for number, name in enumerate(names):
        of, questions = study_tasks()[name], asked(name)
        luck = np.random.default_rng([number]).normal(0, 0.12, len(questions))
        rng = np.random.default_rng([by.seed, number, int(1000 * skill)])
        chances = skill + rng.normal(0, 0.015) + luck
        right = "".join("01"[int(rng.random() < chance)] for chance in chances)
        keep(store, 
            record(
                store, of, questions, right, by, trainable=TRAINABLE[by.method], total=3_700_000,
                train_seconds=0.0 if by.method == "frozen" else 20 + 25 * skill + len(by.method),
                peak_bytes=int(2**28 * (1 + skill)), own_process=True, resident_bytes=2**28,
                cpu_seconds=15 + 25 * skill, others_cpu_seconds=0.1, eval_others_cpu_seconds=0.1,
            )
        )  # fmt: skip


def study(folder: Path, n_seeds: int = 6) -> Store:
    """Returns a results folder with a board, a length and a component ablation, a grid, searches, and training logs."""
    store = store_in(folder)
    seeds = range(n_seeds)
    for method, skill in SKILL.items():
        for seed in seeds if method != "frozen" else [0]:
            by = recipe(method, seed)
            add(store, by, skill, list(study_tasks()))
            if method != "frozen":
                steps = [{"step": s, "loss": 1.6 * np.exp(-s / 60) + 0.9 - skill + 0.02 * seed} for s in range(1, 121)]
                append_jsonl(store.run(by.run_name).path(LOG), *steps)
    names = ["mme", "pope"]
    lengths = [({"prompt-len": str(n)}, {"visual_length": n, "text_length": n}, 0.60 + 0.02 * i) for i, n in
               enumerate((5, 10, 20, 40))]  # fmt: skip
    parts = [
        ({"parts": "visual"}, {"text_length": 0, "interaction": False}, 0.6),
        ({"parts": "text"}, {"visual_length": 0, "interaction": False}, 0.62),
        ({"parts": "both-plain"}, {"interaction": False}, 0.65),
        ({"parts": "both"}, {}, SKILL["mmpt"]),
    ]
    grid = [
        ({"visual-len": str(v), "text-len": str(t)}, {"visual_length": v, "text_length": t}, 0.6 + v / 400 + t / 300)
        for v in (5, 10, 20) for t in (5, 10, 20)
    ]  # fmt: skip
    for name, points in (("lengths", lengths), ("parts", parts), ("grid", grid)):
        _ablate(store, name, points, seeds if name != "grid" else range(2), names)
    choices = [
        Choice(
            Search(method, {k: v for k, v in PARAMS[method].items() if k != "learning_rate"}, "b" * 8, "c" * 8,
                   vars(Budget(steps=60)), "float32", DEV, "d" * 8),
            Curve(tuple(rate_curve.Point(rate, _by_seed(method, skill, i))
                        for i, rate in enumerate(grid_between(3e-5, 3e-2)))),
            0, ("mme", "pope"),
        )
        for method, skill in SKILL.items() if method != "frozen"
    ]  # fmt: skip
    write_atomic(store.path(FILE), dump(choices).encode())
    return store


def add_stream(store: Store) -> Store:
    """Adds a stream of two tasks to a study: LoRA, sequential, one training."""
    order, seed = ("mme", "pope"), 0
    first = dataclasses.replace(recipe("lora", seed), corpus="mme train", corpus_fingerprint="e" * 8)
    stage = {"strategy": "sequential", "order": list(order), "after": [first.run_name]}
    second = dataclasses.replace(first, corpus="pope train", corpus_fingerprint="f" * 8, stage=stage)
    for by, skill in ((first, 0.7), (second, 0.6)):
        add(store, by, skill, list(study_tasks()))
    training = streams.Training("lora", "sequential", order, seed, (first.run_name, second.run_name))
    base = recipe("frozen", 0).run_name
    results = {record.task: record.eval_key for record in store.records() if record.run == base}
    made = streams.Stream("mme-pope", order, tuple(results), base, results, None, (training,), "mmpt-bench stream")
    streams.write(store, made)
    return store


def _by_seed(method: str, skill: float, i: int) -> tuple[tuple[int, float | None], ...]:
    """Returns (seed, score) of the rate with number `i`: highest in the middle, with three seeds around it."""
    n = 3 if abs(i - 3) < 2 else 1
    failed = i == 6 and method == "full"
    return tuple((1000 + s, None if failed else skill - 0.1 * abs(i - 3) + 0.01 * s) for s in range(n))


Made = tuple[dict[str, str], dict[str, object], float]


def _ablate(store: Store, name: str, points: Sequence[Made], seeds: Sequence[int], names: Sequence[str]) -> None:
    made = []
    for values, changed, skill in points:
        told = ", ".join(f"{axis}={value}" for axis, value in values.items())
        for seed in seeds:
            by = recipe("mmpt", seed, **changed)
            if by != recipe("mmpt", seed):
                add(store, by, skill, names)
        key = recipe("mmpt", 0, **changed).variant_key
        is_default = key == recipe("mmpt", 0).variant_key
        made.append(Point(f"mmpt ({told})", "mmpt", values, key, is_default))
    frozen = Point("frozen", "frozen", {}, recipe("frozen", 0).variant_key, True)
    axes = {axis: list(dict.fromkeys(values[axis] for values, _, _ in points)) for axis in points[0][0]}
    options = " ".join(f"--{axis} {','.join(values)}" for axis, values in axes.items())
    ablations.write(store, Ablation(name, axes, made, [frozen], None, f"mmpt-bench ablate {options}"))
