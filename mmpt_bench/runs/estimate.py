"""What would run: runs, what is recorded, hours, memory, and what could be told apart."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import read_jsonl
from mmpt_bench.methods.prompt_method import PromptMethod
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.record import Record
from mmpt_bench.records.run_folder import RECORDS, read_records
from mmpt_bench.records.store import Store, published_folder
from mmpt_bench.runs import gpus as on_gpus
from mmpt_bench.runs.gpus import Scale, Unit
from mmpt_bench.runs.plan import Job, Plan
from mmpt_bench.runs.request import Request
from mmpt_bench.sources.weights import EMBEDDED, backbone_folder, loading_of
from mmpt_bench.stats.differences import detectable_difference

OWN = ("embedded", "float32")
"""Backbone and precision that the package was measured with."""


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
    is_own: bool = False
    """It is estimated from the package's own measurements, on another machine: nothing is recorded here yet."""
    least_bytes: int = 0
    """In half precision, what the largest training holds before any activation; 0 in float32."""


@dataclass(frozen=True)
class PlanSummary:
    """What would run, what it may cost, and what it could tell apart."""

    runs: list[dict[str, Any]]
    """Of each run: method, label, seed, whether it is trained, tasks to do and recorded, learning rate and source."""
    tasks: list[dict[str, Any]]
    """Of each task: suite, questions, images, the difference between two checkpoints that could be detected, and how
    many images cannot be used."""
    corpus: dict[str, Any]
    """Name, examples, how many are held out for selection, and how many cannot be used."""
    corpora: list[dict[str, Any]]
    """The same of all training data, where a stream has several."""
    cost: Cost
    notes: list[str]
    """What a reader of the scores must know of rows and training data; runs whose records cannot be trusted."""
    scale: Scale | None = None
    """What it takes on several numbers of GPUs, where that was asked and anything is to be done."""

    def as_plain(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        found: dict[str, Any] = {"runs": self.runs, "tasks": self.tasks}
        found |= {"corpus": self.corpus, "corpora": self.corpora}
        found |= {"seconds": self.cost.seconds, "peak_bytes": self.cost.peak_bytes}
        return found | ({} if self.scale is None else {"gpus": self.scale.as_plain()})


def plan_summary(
    plans: Sequence[Plan], store: Store, gpus: int | None = None, tflops: float | None = None
) -> PlanSummary:
    """Returns what some plans with the same tasks would do; with one of the numbers, on several GPUs, as `scale_of`."""
    rows = [
        {
            "method": job.recipe.method,
            "label": job.label,
            "seed": job.recipe.seed,
            "run": job.recipe.run_name,
            "train": not job.trained and bool(job.todo),
            "evaluate": list(job.todo),
            "recorded": list(job.done),
            "learning_rate": job.method.learning_rate,
            "learning_rate_source": job.rate_source,
        }
        for plan in plans
        for job in plan.jobs
    ]
    first = plans[0]
    tasks = [
        {
            "task": name,
            "suite": first.request.suite,
            "questions": len(item.samples),
            "pictures": (pictures := len({s.cluster for s in item.samples})),
            "detectable_difference": detectable_difference(pictures, len(item.samples) / pictures),
            "bad_items": len(item.faults),
        }
        for name, item in first.prepared.tasks.items()
    ]
    trains = [plan for plan in plans if any(job.method.trains for job in plan.jobs)] or plans
    corpora = {plan.prepared.corpus.fingerprint: plan.prepared.corpus for plan in trains}
    trained_on = [
        {"name": of.name, "examples": of.size, "held_out": of.validation_size, "bad_examples": len(of.faults)}
        for of in corpora.values()
    ]
    faults = [f"{job.label}, seed {job.recipe.seed}: {job.fault}" for plan in plans for job in plan.jobs if job.fault]
    told = first.prepared.notes + faults + _misfits(plans)
    scale = None if gpus is None and tflops is None else scale_of(plans, store, gpus, tflops)
    return PlanSummary(rows, tasks, trained_on[0], trained_on, estimate(plans, store), told, scale)


def _misfits(plans: Sequence[Plan]) -> list[str]:
    """Returns why prompt methods cannot run on a backbone, told by its configuration alone."""
    found: dict[str, None] = {}
    for plan in plans:
        jobs = [job for job in plan.open if isinstance(job.method, PromptMethod)]
        if plan.request.backbone != EMBEDDED and jobs:
            found |= dict.fromkeys(_misfits_of(plan.request, jobs))
    return list(found)


def _misfits_of(request: Request, jobs: Sequence[Job]) -> Iterator[str]:
    from mmpt_bench.engine.models.anatomy import find_anatomy
    from mmpt_bench.engine.models.loading import empty_model
    from mmpt_bench.engine.prompts.hooks import check_plan
    from mmpt_bench.engine.prompts.plan import plan_of

    model = empty_model(backbone_folder(request.backbone, request.offline, weights=False))
    anatomy = find_anatomy(model)
    for job in jobs:
        try:
            check_plan(model, anatomy, plan_of(job.method))
        except RequestError as error:
            yield f"{job.recipe.method} cannot run on this backbone. {error}"


def estimate(plans: Sequence[Plan], store: Store) -> Cost:
    """Returns what plans may cost: seconds an example of training, by method, and seconds a question, by task.

    Methods and tasks that were never run count as the mean of those that were; runs whose records cannot be trusted do
    not count.
    """
    todo = [job for plan in plans for job in plan.open]
    trainings, evaluations = sum(not job.trained for job in todo), sum(len(job.todo) for job in todo)
    if not todo:
        return Cost(0, 0, 0.0, 0, is_same_budget=True)
    least = max((least_bytes(job) for job in todo if not job.trained), default=0)
    known, is_own = known_paces(todo, store)
    if known is None:
        return Cost(trainings, evaluations, None, 0, False, least_bytes=least)
    seconds = sum(unit.seconds for unit in units_of(plans, known))
    is_same, peak = known.is_same_budget or not trainings, 0 if is_own else known.peak_bytes
    return Cost(trainings, evaluations, seconds, peak, is_same, is_own, least)


def known_paces(todo: Sequence[Job], store: Store) -> tuple[Paces | None, bool]:
    """Returns (what runs like these took, or None; whether by the package's own measurements on another machine)."""
    recipes = [job.recipe for job in todo]
    known = paces(
        store.records(told=lambda fault: None),
        {recipe.backbone_fingerprint for recipe in recipes},
        {recipe.dtype for recipe in recipes},
        [dataclasses.asdict(recipe.budget) for recipe in recipes],
    )
    if known is not None and (known.an_example or all(job.trained for job in todo)):
        return known, False
    return (own_paces() if {(recipe.backbone, recipe.dtype) for recipe in recipes} == {OWN} else None), True


def units_of(plans: Sequence[Plan], known: Paces) -> list[Unit]:
    """Returns what is to be done as units, with the seconds that are known."""
    units = []
    for plan in plans:
        tasks = plan.prepared.tasks
        for job in plan.open:
            train = 0.0 if job.trained else known.training(job.recipe.method, job.recipe.budget) * with_teacher(job)
            asked = sum(known.asking(name, len(tasks[name].samples)) for name in job.todo)
            units.append(Unit(_unit_name(job), train, asked, job.recipe.budget.batch_size))
    return units


def with_teacher(job: Job) -> float:
    """Returns how many times longer a training is for a teacher of its size, at most: one pass to two (full: to 3)."""
    return 1.5 if job.recipe.objective.get("compute") == "steps" else 1.0


def _unit_name(job: Job) -> str:
    return f"{job.label}, seed {job.recipe.seed}" if job.method is None or job.method.trains else job.label


def scale_of(plans: Sequence[Plan], store: Store, gpus: int | None = None, tflops: float | None = None) -> Scale | None:
    """Returns what plans take on several numbers of GPUs, by recorded runs, else by FLOPs; None where all is done.

    Args:
        plans: with the same tasks.
        store: whose records say how long such runs took.
        gpus: a number of GPUs beside the usual ones.
        tflops: sustained speed of a GPU, by which FLOPs are counted even where runs are recorded.

    Raises:
        RequestError: a number of GPUs or a speed that cannot be.
    """
    if tflops is not None and not 0 < tflops < 1e6:
        raise RequestError(f"`--tflops {tflops:g}`: above 0.")
    todo = [job for plan in plans for job in plan.open]
    if not todo:
        return None
    known, is_own = known_paces(todo, store) if tflops is None else (None, False)
    if known is None:
        units, source = counted_units(plans, tflops or on_gpus.TFLOPS)
    else:
        units = units_of(plans, known)
        source = "By the package's own measurements on another machine" if is_own else "By recorded runs"
        source += ", each on one device as fast as theirs."
    return on_gpus.scale_of([units], source, gpus)


def counted_units(plans: Sequence[Plan], tflops: float) -> tuple[list[Unit], str]:
    """Returns (what is to be done as units whose operations are counted, the sentence that says by what)."""
    from mmpt_bench.engine.models.loading import anatomy_of

    anatomy, _, patches = anatomy_of(plans[0].request.backbone)
    image, weights, speed = patches or on_gpus.IMAGE_TOKENS, anatomy.language_parameters, tflops * 1e12
    tokens, units = image + on_gpus.TEXT_TOKENS, []
    for plan in plans:
        for job in plan.open:
            budget, seen = job.recipe.budget, tokens + job.method.decoder_rows
            trained = 0 if job.trained else int(job.method.count(anatomy))
            work = (budget.steps * budget.batch_size, seen, weights, trained)
            train = on_gpus.training_operations(*work) if trained else 0.0
            asked = sum(len(plan.prepared.tasks[name].samples) for name in job.todo)
            evaluate = on_gpus.asking_operations(asked, seen, weights)
            units.append(Unit(_unit_name(job), train / speed, evaluate / speed, budget.batch_size))
    return units, (
        f"An assumption, not a measurement: {tflops:g} TFLOP/s sustained on each GPU (`--tflops`), {image:,} tokens of "
        f"the image and {on_gpus.TEXT_TOKENS} of text an example; loading and the vision tower are not counted."
    )


@dataclass(frozen=True)
class Paces:
    """What recorded runs took: seconds an example of training, by method, and a question, by task; "" is the mean."""

    an_example: dict[str, float]
    a_question: dict[str, float]
    peak_bytes: int
    is_same_budget: bool

    def training(self, method: str, budget: Budget) -> float:
        """Returns the seconds of a training."""
        return self.an_example.get(method, self.an_example[""]) * budget.steps * budget.batch_size

    def asking(self, task: str, n: int) -> float:
        """Returns the seconds of `n` questions."""
        return self.a_question.get(task, self.a_question[""]) * n


@functools.cache
def own_paces() -> Paces:
    """Returns what the runs of the published leaderboard took: the package's own measurements, on another machine."""
    # Trainings of a stream also do what their strategy adds; those of ablations over steps or data were on other days.
    path, found = published_folder() / RECORDS, None
    with contextlib.suppress(UntrustedRecord):
        # Checking a record takes most of the time: those of other settings are not.
        settings = Counter(row.get("track") for row in read_jsonl(path) if not row.get("stage"))
        (usual, _), *_ = settings.most_common(1) or [("", 0)]
        records = [record for record in read_records(path, of_track=usual) if not record.stage]
        found = paces(records, {record.backbone_fingerprint for record in records}, {"float32"}, [])
    if found is None or not found.an_example:
        raise UntrustedRecord("The records of the published leaderboard lack trainings: install the package again.")
    return found


def paces(
    records: Sequence[Record], backbones: Collection[str], precisions: Collection[str], budgets: Sequence[Any]
) -> Paces | None:
    """Returns what runs with these backbones and precisions took, those with these budgets first; None without any."""
    like = [
        r for r in records if r.status == "ok" and r.backbone_fingerprint in backbones and r.dtype in precisions
    ]  # fmt: skip
    if not like:
        return None
    same = [r for r in like if r.budget in budgets]
    trained = list({r.run: r for r in (same or like) if r.train_seconds > 0}.values())
    # A teacher takes its time, and with `compute:equal` the steps are others than the budget's.
    trained = [r for r in trained if not r.objective] or trained
    an_example = _means((r.method, r.train_seconds / (r.own_budget["steps"] * r.budget["batch_size"])) for r in trained)
    a_question = _means((r.task, r.eval_seconds / r.n) for r in like)
    return Paces(an_example, a_question, max(r.peak_bytes for r in like), bool(same))


def least_bytes(job: Job) -> int:
    """Returns what a training in half precision holds before any activation; 0 in float32, where runs are measured.

    2 bytes for each weight of the base, about 1 or a half where it is quantized; for each trained value 4 in float32,
    4 for its gradient, 8 for AdamW's moments.
    """
    if job.recipe.dtype == "float32":
        return 0
    from mmpt_bench.engine.models.loading import anatomy_of

    anatomy, total, _ = anatomy_of(job.recipe.backbone)
    each = {"int8": 1.0, "int4": 0.5 + 4 / 64}.get(loading_of(job.recipe.backbone)[1].get("quantize", ""), 2.0)
    return round(each * total) + 16 * int(job.method.count(anatomy))


def how_long(cost: Cost) -> str:
    """Returns the sentences on time and memory."""
    held = f" Weights, gradients and optimizer: {cost.least_bytes / 2**20:,.0f} MiB." if cost.least_bytes else ""
    return _how_long(cost) + held


def _how_long(cost: Cost) -> str:
    if cost.seconds is None:
        return "How long: not known before the first run with this backbone in this results folder."
    scaled = "" if cost.is_same_budget else ", which had another budget"
    memory = f"; peak memory {cost.peak_bytes / 2**20:,.0f} MiB" if cost.peak_bytes else ""
    if cost.is_own and cost.trainings + cost.evaluations:
        told = "by the package's own measurements on another machine: nothing like it is recorded here yet"
        return f"How long: about {duration(cost.seconds)}, {told}."
    return f"How long: about {duration(cost.seconds)}, by recorded runs{scaled}{memory}."


def _means(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Returns the mean of each name, and that of all under the empty name; empty for nothing."""
    found: dict[str, list[float]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
        found.setdefault("", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def duration(seconds: float) -> str:
    """Returns seconds for people: "42 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
