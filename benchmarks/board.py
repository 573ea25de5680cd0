"""How long a large board takes, and how much memory: a made-up store, and `mmpt-bench leaderboard` on it as it is run.

    python benchmarks/board.py                         1,000 runs with 60,000 answers each
    python benchmarks/board.py --runs 100 --seeds 4    fewer
    python benchmarks/board.py --runs 10000 --tasks vsr    a board of one task that grew; at most 30 s and 1 GB
    python benchmarks/board.py --runs 3000    a board of all tasks that grew; at most 45 s
    python benchmarks/board.py --keep DIR              keeps the store, and builds its board only when run again

The tasks are the six of the board with as many questions an image as the real ones; MNIST has the questions that are
left. Answers are drawn, no model runs. Time is that of the processor, user and system, on one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmpt_bench.common.hashing import canonical_json, content_key
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.counting import INDEX_CHARACTERS, UNREADABLE, CodedSamples
from mmpt_bench.evaluation.scoring import figures
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.environment import environment
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store

N_ANSWERS = 60_000
METHODS = ("lora", "prefix", "vpt", "mmpt", "full", "projector")
SNLI_VE = ("entailment", "neutral", "contradiction")


def samples_of(task: Task, left: int) -> list[Sample]:
    """Returns samples laid out like the real task's; the last task has those that are `left`."""
    found: list[Sample] = []

    def add(n_pictures: int, each: int, choices: tuple[str, ...], group: str = "") -> None:
        for i in range(n_pictures * each):
            picture = f"{group}/{i // each}" if task.name == "mme" else str(i // each)
            name, right = f"{group}/{len(found)}", choices[i % len(choices)]
            found.append(Sample(name, LazyImage(picture, open_none), "?", choices, right, group, picture))

    if task.name == "mme":
        for group, n in task.data.official.groups:
            add(n // 2, 2, ("Yes", "No"), group)
    elif task.name == "pope":
        for group, n in task.data.official.groups:
            add(500, n // 500, ("yes", "no"), group)
    elif task.name == "snli_ve":
        add(1000, 18, SNLI_VE)
    else:
        n = {"vsr": 1222, "cifar10": 10_000}.get(task.name, left)
        add(n, 1, ("True", "False") if task.name == "vsr" else tuple(map(str, range(10))))
    return found


def open_none() -> None:
    """Stands for an image: nobody looks at one."""
    raise AssertionError("a board needs no image")


def answered(sheet: CodedSamples, samples: list[Sample], skill: float, rng: np.random.Generator) -> tuple[str, str]:
    """Returns (replies as parsed, answers as ranked): each right with a chance that is partly its image's."""
    right = np.array([s.choices.index(s.answer) for s in samples])
    luck = np.random.default_rng(len(samples)).normal(0, 0.2, len(sheet.clusters))[sheet.row]
    wrong = (right + rng.integers(1, sheet.n_choices)) % sheet.n_choices
    ranked = np.where(rng.random(len(samples)) < skill + luck, right, wrong)
    letters = np.array(list(INDEX_CHARACTERS + UNREADABLE))
    parsed = np.where(rng.random(len(samples)) < 0.01, len(INDEX_CHARACTERS), ranked)
    return "".join(letters[parsed]), "".join(letters[ranked])


def records(store: Store, tasks: dict[str, Task], n_runs: int, n_seeds: int, n_answers: int) -> Iterator[Record]:
    """Yields the records of runs, a method with one set of hyperparameters at each seed, on every task."""
    asked: dict[str, list[Sample]] = {}
    for name in sorted(tasks, key=lambda name: name == "mnist"):
        asked[name] = samples_of(tasks[name], n_answers - sum(map(len, asked.values())))
    sheets = {name: tasks[name].metric.coded(of) for name, of in asked.items()}
    files = {name: store.write_samples(of) for name, of in asked.items()}
    for number in range(n_runs):
        row, seed = divmod(number, n_seeds)
        rng = np.random.default_rng(number)
        params = {"variant": row, "learning_rate": 1e-3}
        recipe = Recipe("made", "b" * 8, "made", "c" * 8, METHODS[row % len(METHODS)], params, Budget(), seed)
        base = Record(
            eval_key="", train_key=recipe.train_key, track=recipe.setting_key("real"), suite="real",
            run=recipe.run_name, method=recipe.method, params=params, seed=seed, backbone="made",
            backbone_fingerprint="b" * 8, corpus="made", corpus_fingerprint="c" * 8,
            budget=dataclasses.asdict(recipe.budget), dtype="float32", learning_rate_source="set by the user", task="",
            status="ok", reason="", trainable=1000 + row, total=10**6, train_seconds=60.0, eval_seconds=60.0,
            peak_bytes=2**30, adapter_bytes=4000, time="2026-01-01T00:00:00Z",
        )  # fmt: skip
        for name, of in asked.items():
            task, sheet = tasks[name], sheets[name]
            parsed, ranked = answered(sheet, of, 0.5 + 0.3 * rng.random() * row * n_seeds / n_runs, rng)
            strict, constrained = (figures(task, sheet.sums(sheet.codes(t)), sheet.columns) for t in (parsed, ranked))
            own = strict if task.decode == "generate" else constrained
            yield dataclasses.replace(
                base, eval_key=content_key([recipe.train_key, name]), task=name, task_version=task.version,
                dataset=task.data.hub, data_fingerprint="d" * 8, split=task.data.split, decode=task.decode,
                headline=task.headline, score=own[task.headline], strict=strict[task.headline],
                constrained=constrained[task.headline], ceiling=task.metric.ceiling(of),
                chance=task.metric.chance(of), values=own, n=len(of), n_pictures=len(set(sheet.clusters)),
                n_unparsed=parsed.count(UNREADABLE), samples=files[name], parsed_choices=parsed,
                ranked_choices=ranked,
            )  # fmt: skip


def make(folder: Path, n_runs: int, n_seeds: int, n_answers: int, names: str) -> None:
    """Writes the store."""
    tasks = {entry.name: task_catalog.load_task(entry) for entry in task_catalog.find_tasks(names)}
    store = Store(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with store.path("records.jsonl").open("w", encoding="utf-8") as stream:
        for record in records(store, tasks, n_runs, n_seeds, n_answers):
            stream.write(canonical_json(dataclasses.asdict(record)) + "\n")


def built(folder: Path) -> dict[str, float]:
    """Returns what building the board took: processor seconds, and the peak of memory in bytes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "mmpt_bench", "leaderboard", "--out", str(folder)]
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    subprocess.run(command, env=os.environ | one, stdout=subprocess.DEVNULL, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": seconds, "peak_bytes": 1024 * used.ru_maxrss}


def main() -> None:
    """Prints what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=8, help="of each method with one set of hyperparameters")
    parser.add_argument("--tasks", default="all", help="of all runs: names, comma-separated")
    parser.add_argument("--answers", type=int, default=N_ANSWERS, help="of a run")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the store is, or is to be")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch) / "results"
        if not (folder / "records.jsonl").is_file():
            make(folder, given.runs, given.seeds, given.answers, given.tasks)
        took = built(folder)
    print(f"{given.runs:,} runs on {given.tasks}: {took['cpu_seconds']:.1f} s of the processor, "
          f"{took['peak_bytes'] / 1e9:.2f} GB at most")  # fmt: skip
    if given.json:
        row = {"runs": given.runs, "tasks": given.tasks, "answers": given.answers, **took, "environment": environment()}
        given.json.write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
