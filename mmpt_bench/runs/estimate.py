"""What would run, said before anything does: runs, what is recorded, hours, memory, and what could be told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmpt_bench.records.store import Store
from mmpt_bench.runs.plan import Job
from mmpt_bench.runs.request import TaskData


def duration(seconds: float) -> str:
    """Returns seconds for people: "42 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
