"""What would run, printed before anything does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from mmpt_bench.data.examples import Corpus
from mmpt_bench.records.store import Store
from mmpt_bench.runs.estimate import estimate, how_long
from mmpt_bench.runs.plan import Job
from mmpt_bench.runs.request import Request, TaskData, suite_of
from mmpt_bench.sources.corpora import load_corpus


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
    from mmpt_bench.stats.differences import detectable_difference

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
