"""Ablations: requests become points, points become plans of the one runner, and their results a board of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.ablations import Ablation, Point, write
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.estimate import estimate, how_long
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.execute import execute
from mmpt_bench.runs.option_texts import pairs
from mmpt_bench.runs.options import make_request
from mmpt_bench.runs.plan import Job, Plan, plan, plan_all
from mmpt_bench.runs.request import Request
from mmpt_bench.runs.workers.backends import Do
from mmpt_bench.sources.corpora import TrainData
from mmpt_bench.sources.prepared import Prepared
from mmpt_bench.sources.weights import check_backbone, loading_of
from mmpt_bench.study.ablations.axes import OPTIONS, Axis, Setting, axes_of, combinations, label_of, name_of, split_sets


@dataclass(frozen=True)
class AblationRequest:
    """What a user asked to vary."""

    request: Request
    """Methods that are varied, tasks, seeds, budget; and what is fixed in all runs, as its overrides."""
    axes: tuple[Axis, ...]
    references: tuple[Entry, ...]
    """Methods that are run as they are, to compare with."""
    one_at_a_time: bool
    budget_hours: float | None
    command: str

    @classmethod
    def of(
        cls,
        request: Request,
        options: Mapping[str, str],
        varied: Sequence[str],
        beside: str,
        one_at_a_time: bool = False,
        budget_hours: float | None = None,
        command: str = "",
    ) -> AblationRequest:
        """Returns the request that options stand for; see `api.ablate`.

        Raises:
            RequestError: a value that is none, a method that cannot be varied so, two axes that set one field, or
                hours that are none.
        """
        if budget_hours is not None and not budget_hours > 0:
            raise RequestError(f"`--budget-hours {budget_hours:g}`: above 0.")
        axes = axes_of(options, varied, request.methods)
        names = {entry.name for entry in request.methods}
        found = [] if beside == "none" else method_catalog.find_methods(beside)
        references = tuple(entry for entry in found if entry.name not in names)
        return cls(request, tuple(axes), references, one_at_a_time, budget_hours, command)


@dataclass(frozen=True)
class AblationPlan:
    """The points of an ablation, and the runs that they need."""

    ablation: Ablation
    plans: tuple[Plan, ...]
    """One for each backbone and training data, with the same tasks."""

    @property
    def n_runs(self) -> int:
        """Returns how many runs there are."""
        return sum(len(each.jobs) for each in self.plans)


def ablation_asked(given: Any, budget_hours: float | None = None, command: str = "") -> AblationRequest:
    """Returns the request that `api.ablate` was given: (method, tasks, axes, beside, one_at_a_time, options).

    Raises:
        RequestError: as `AblationRequest.of`, or an axis that is neither an option of the command nor a field.
        TypeError: axes that are no mapping, or an option that is an axis.
    """
    method, tasks, axes, beside, one_at_a_time, options = given
    axes = {} if axes is None else axes
    if not isinstance(axes, Mapping):
        raise TypeError('`axes` maps what is varied to its values: axes={"prompt-len": [5, 10, 20]}')
    for name in options:
        is_one = name == "backbone" or (name == "steps" and name not in axes)
        if not is_one and (axis := name.replace("_", "-")) in OPTIONS:
            raise TypeError(f'`{name}` is varied by `axes`: axes={{"{axis}": [...]}}')
    varied, fixed = split_sets(pairs(options.get("set", ())))
    request = make_request(method, tasks, {**options, "set": fixed})
    texts: dict[str, str] = {}
    for name, values in axes.items():
        is_several = isinstance(values, Iterable) and not isinstance(values, str)
        text = ",".join(map(str, values)) if is_several else str(values)
        if (option := name.replace("_", "-")) in OPTIONS:
            texts[option] = text
        else:
            _check_field(name, request.methods)
            varied.append(f"{name}={text}")
    return AblationRequest.of(request, texts, varied, beside, one_at_a_time, budget_hours, command)


def _check_field(name: str, methods: Sequence[Entry]) -> None:
    """Raises RequestError for the name of an axis that is no field: "lora.r", or "r" where one method is varied."""
    own = method_catalog.known_fields(methods[0]) if len(methods) == 1 else []
    if "." not in name and name not in own:
        hint = "`mmpt-bench ablate --help` lists them, and `mmpt-bench show METHOD` the fields, which are axes too."
        raise unknown_name("axis", name, (*OPTIONS, *own), hint)


def plans_given(given: Any, store: Store) -> Sequence[Plan]:
    """Returns the plans of what `ablation_asked` takes."""
    return plan_ablation(ablation_asked(given), store).plans


def plan_ablation(asked: AblationRequest, store: Store) -> AblationPlan:
    """Returns what an ablation needs; nothing is run or written.

    Raises:
        RequestError: a point that cannot be, backbones of two suites, or more hours than were given.
    """
    places = _places(asked)
    for request, _, _ in places:
        check_backbone(request.backbone)
        for entry in request.methods:
            request.method_of(entry)
    _check_suites(places)
    tasks = asked.request.prepare_tasks()
    plans = plan_all([(request, request.prepare(tasks)) for request, _, _ in places], store)
    groups = _grouped(places, plans)
    _check_hours(asked, groups, store)
    return AblationPlan(_ablation(asked, places, plans, store, plans[0].prepared), tuple(groups))


def run_ablation(
    planned: AblationPlan,
    store: Store,
    report: Reporter,
    stopping: Callable[[], bool] = lambda: False,
    do: Do = execute,
) -> list[Record]:
    """Does what is not yet recorded, keeps the ablation's definition, and returns the new records."""
    store.check_writable()
    report.planned(planned.plans)
    write(store, planned.ablation)
    return list(do(planned.plans, store, report, stopping))


Place = tuple[Request, str, dict[str, Setting]]
"""The request of one point, its method, and what is changed in it."""


def _check_loading(asked: AblationRequest) -> None:
    """Raises RequestError where an option would say of one of several backbones alone how it is loaded."""
    names = [one.backbone for axis in asked.axes if axis.name == "backbone" for one in axis.settings]
    if names and asked.request.backbone not in names:
        how = next(iter(loading_of(asked.request.backbone)[1]), "")
        raise RequestError(
            f"`{how}` beside several backbones: write it after each that is loaded so, as in `NAME?{how}=...`."
        )


def _places(asked: AblationRequest) -> list[Place]:
    """Returns every point as a request of its own, then the references."""
    base = asked.request
    _check_loading(asked)
    found: list[Place] = []
    for entry in base.methods:
        for changed in combinations(asked.axes, entry.name, asked.one_at_a_time):
            texts = dict(base.overrides.get(entry.name, {}))
            train, backbone, budget = base.train, base.backbone, base.budget
            for setting in changed.values():
                texts |= setting.fields.get(entry.name, {})
                backbone = setting.backbone or backbone
                budget = dataclasses.replace(budget, steps=setting.steps or budget.steps)
                if setting.fraction is not None:
                    train = dataclasses.replace(base.train, fraction=setting.fraction)
            one = dataclasses.replace(base, methods=(entry,), overrides={entry.name: texts} if texts else {})
            request = dataclasses.replace(one, train=train, backbone=backbone, budget=budget)
            found.append((request, entry.name, changed))
    for entry in asked.references:
        found.append((dataclasses.replace(base, methods=(entry,), overrides={}), entry.name, {}))
    return found


def _check_suites(places: Sequence[Place]) -> None:
    suites = {request.suite for request, _, _ in places}
    if len(suites) > 1:
        raise RequestError(
            "`--backbone` names the embedded model and others, whose tasks are not the same ones: "
            "give `--data DIR`, or compare backbones of one kind."
        )


def _grouped(places: Sequence[Place], plans: Sequence[Plan]) -> list[Plan]:
    """Returns the jobs by what must be loaded for them, each training once, all points at one seed before the next."""
    groups: dict[tuple[str, TrainData], tuple[Plan, dict[str, Job]]] = {}
    for (request, method, changed), each in zip(places, plans, strict=True):
        _, known = groups.setdefault((request.backbone, request.train), (each, {}))
        for job in each.jobs:
            known.setdefault(job.recipe.train_key, dataclasses.replace(job, label=label_of(method, changed)))
    return [
        dataclasses.replace(first, jobs=tuple(sorted(jobs.values(), key=lambda job: job.recipe.seed)))
        for first, jobs in groups.values()
    ]


def _ablation(
    asked: AblationRequest, places: Sequence[Place], plans: Sequence[Plan], store: Store, prepared: Prepared
) -> Ablation:
    """Returns the definition of what was asked."""
    entries = {entry.name: entry for entry in (*asked.request.methods, *asked.references)}
    plain = dataclasses.replace(asked.request, overrides={}, methods=tuple(entries.values()), seeds=(0,))
    default = {job.recipe.variant_key for job in plan(plain, store, plain.prepare(prepared.tasks)).jobs}
    points: list[Point] = []
    for (_, method, changed), made in zip(places, plans, strict=True):
        key = made.jobs[0].recipe.variant_key
        values = {axis: setting.label for axis, setting in changed.items()}
        points.append(Point(label_of(method, changed), method, values, key, key in default))
    varied = points[: len(points) - len(asked.references)]
    # A reference that is a point already is drawn once.
    references = [p for p in points[len(varied) :] if p.label not in {each.label for each in varied}]
    return Ablation(
        name=name_of(varied, asked.axes, asked.request.limit),
        axes={axis.name: [setting.label for setting in axis.settings] for axis in asked.axes},
        points=varied,
        references=references,
        limit=asked.request.limit,
        command=asked.command,
    )


def _check_hours(asked: AblationRequest, plans: Sequence[Plan], store: Store) -> None:
    """Raises RequestError for a grid that would take longer than the hours that were given."""
    if asked.budget_hours is None:
        return
    cost = estimate(plans, store)
    count = f"{cost.trainings} trainings and {cost.evaluations} evaluations are to be done"
    # What another machine took says nothing of the hours here.
    if cost.seconds is None or cost.is_own:
        raise RequestError(
            f"`--budget-hours {asked.budget_hours:g}`: {count}, and how long they take is not known: no run with this "
            "backbone is recorded. Run one point first, with `mmpt-bench run`, or leave the option out."
        )
    if cost.seconds > 3600 * asked.budget_hours:
        raise RequestError(
            f"`--budget-hours {asked.budget_hours:g}`: {count}. {how_long(cost)} Ask for fewer values, seeds or "
            "tasks, use `--one-at-a-time`, or give more hours."
        )
