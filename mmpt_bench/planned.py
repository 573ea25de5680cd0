"""What would run, said before anything does: runs, what is recorded, hours, memory, and what could be told apart."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from mmpt_bench.corpus import Corpus, load_corpus
from mmpt_bench.plan import Job, Request, TaskData, suite_of
from mmpt_bench.progress import duration
from mmpt_bench.store import Store


@dataclass(frozen=True)
class Cost:
    """What is to be done, and how long it may take by what earlier runs took."""

    trainings: int
    evaluations: int
    seconds: float | None
    """Estimated; None where no run with this backbone is recorded."""
    peak_bytes: int
    is_same_budget: bool
    """The runs it is estimated from had the same steps and batch."""


def estimate(jobs: Sequence[Job], data: Mapping[str, TaskData], store: Store) -> Cost:
    """Returns what jobs may cost: seconds an example of training, by method, and seconds a question, by task.

    Methods and tasks that were never run count as the mean of those that were.
    """
    todo = [job for job in jobs if job.todo]
    trainings, evaluations = sum(not job.trained for job in todo), sum(len(job.todo) for job in todo)
    if not todo:
        return Cost(0, 0, 0.0, 0, True)
    backbones = {job.recipe.backbone_fingerprint for job in todo}
    like = [r for r in store.records() if r.status == "ok" and r.backbone_fingerprint in backbones]
    budgets = [dataclasses.asdict(job.recipe.budget) for job in todo]
    same = [r for r in like if r.budget in budgets]
    trained = list({r.run: r for r in (same or like) if r.train_seconds > 0}.values())
    if not like or (trainings and not trained):
        return Cost(trainings, evaluations, None, 0, False)
    an_example = _means((r.method, r.train_seconds / (r.budget["steps"] * r.budget["batch_size"])) for r in trained)
    a_question = _means((r.task, r.eval_seconds / r.n) for r in like)
    seconds = 0.0
    for job in todo:
        budget = job.recipe.budget
        if not job.trained:
            seconds += an_example.get(job.recipe.method, an_example[""]) * budget.steps * budget.batch_size
        seconds += sum(a_question.get(name, a_question[""]) * len(data[name].samples) for name in job.todo)
    return Cost(trainings, evaluations, seconds, max(r.peak_bytes for r in like), bool(same) or not trainings)


def how_long(cost: Cost) -> str:
    """Returns the sentence on time and memory."""
    if cost.seconds is None:
        return "How long: not known before the first run with this backbone in this results folder."
    scaled = "" if cost.is_same_budget else ", which had another budget"
    memory = f"; peak memory {cost.peak_bytes / 2**20:,.0f} MiB" if cost.peak_bytes else ""
    return f"How long: about {duration(cost.seconds)}, by recorded runs{scaled}{memory}."


def _means(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Returns the mean of each name, and that of all under the empty name; empty for nothing."""
    found: dict[str, list[float]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
        found.setdefault("", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def announce(jobs: Sequence[Job], data: dict[str, TaskData]) -> None:
    """Says how much is to be done, and of each training how its learning rate was chosen."""
    todo = [job for job in jobs if job.todo]
    recorded = sum(len(job.done) for job in jobs)
    if not todo:
        click.echo(f"Everything asked for is recorded already ({recorded} results).", err=True)
        return
    training = sum(not job.trained for job in todo)
    evaluations = sum(len(job.todo) for job in todo)
    click.echo(f"{training} to train, {evaluations} evaluations to do, {recorded} recorded already.", err=True)
    for text in dict.fromkeys(_rate(job) for job in todo if not job.trained):
        click.echo(text, err=True)


def _rate(job: Job) -> str:
    return f"{job.label or job.recipe.method}: learning rate {job.adapter.learning_rate:g}, {job.rate_source}"


def say_notes(data: Mapping[str, TaskData], corpus: Corpus) -> None:
    """Says on stderr what a reader of the scores must know of the rows, and what was left out of the training data."""
    for note in (f"{item.task.title}: {text}" for item in data.values() for text in item.rows.notes):
        click.echo(note, err=True)
    for note in corpus.notes:
        click.echo(f"Training data {corpus.name}: {note}", err=True)


def print_plan(
    request: Request, jobs: Sequence[Job], data: dict[str, TaskData], store: Store, as_json: bool, **more: Any
) -> None:
    """Prints what would run, what it would cost by what earlier runs cost, and what it could tell apart.

    `more` stands beside it in the JSON.
    """
    from mmpt_bench.stats import detectable_difference

    cost = estimate(jobs, data, store)
    rows = [
        {
            "method": job.recipe.method,
            "label": job.label or job.recipe.method,
            "seed": job.recipe.seed,
            "run": job.recipe.run_name,
            "train": not job.trained and bool(job.todo),
            "evaluate": list(job.todo),
            "recorded": list(job.done),
            "learning_rate": job.adapter.learning_rate,
            "learning_rate_source": job.rate_source,
        }
        for job in jobs
    ]
    tasks = [
        {
            "task": name,
            "suite": suite_of(request),
            "questions": len(item.samples),
            "pictures": (pictures := len({s.cluster for s in item.samples})),
            "detectable_difference": detectable_difference(pictures, len(item.samples) / pictures),
        }
        for name, item in data.items()
    ]
    corpus = load_corpus(request.corpus)
    trained_on = {"name": corpus.name, "examples": corpus.size, "held_out": corpus.validation_size}
    if as_json:
        found = {
            "runs": rows,
            "tasks": tasks,
            "corpus": trained_on,
            "seconds": cost.seconds,
            "peak_bytes": cost.peak_bytes,
        }
        click.echo(json.dumps(more | found, indent=1))
        return
    held_out = f"{corpus.validation_size:,} held out for selection"
    click.echo(f"Trained on {corpus.name}: {corpus.size:,} examples, {held_out}")
    for row in rows:
        todo = ("train, " if row["train"] else "") + (
            f"evaluate {', '.join(row['evaluate'])}" if row["evaluate"] else "nothing to do"
        )
        known = f"; recorded: {', '.join(row['recorded'])}" if row["recorded"] else ""
        rate = f"learning rate {row['learning_rate']:g}, {row['learning_rate_source']}"
        click.echo(f"{row['label']} seed {row['seed']}: {todo}{known} ({rate})")
    for task in tasks:
        click.echo(
            f"{task['task']} ({task['suite']}): {task['questions']:,} questions on {task['pictures']:,} pictures; "
            f"two checkpoints differ detectably from about {task['detectable_difference']:.1%} accuracy on"
        )
    click.echo(how_long(cost))
