"""Ablations: requests become points, points become jobs of the one runner, and their results a board of their own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from mmpt_bench.cli.announce import announce, print_plan, say_notes
from mmpt_bench.cli.run import run_jobs
from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.files import write_atomic
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.ablations import FOLDER, Ablation, Point, variant_key, write
from mmpt_bench.records.recipe import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.estimate import estimate, how_long
from mmpt_bench.runs.plan import Job, plan_all
from mmpt_bench.runs.request import Request, TaskData, adapter_of, load_data, suite_of
from mmpt_bench.sources.corpora import TrainData, load_corpus, train_data
from mmpt_bench.sources.weights import check_backbone
from mmpt_bench.study.ablation_board import ablation_board
from mmpt_bench.study.ablation_tables import ablation_csv, ablation_json, ablation_md, ablation_tables
from mmpt_bench.study.axes import Axis, Setting, combinations, label_of, name_of


@dataclass(frozen=True)
class Asked:
    """What a user asked to vary."""

    request: Request
    """Methods that are varied, tasks, seeds, budget; and what is fixed in all runs, as its overrides."""
    axes: tuple[Axis, ...]
    references: tuple[Entry, ...]
    """Methods that are run as they are, to compare with."""
    one_at_a_time: bool
    budget_hours: float | None
    command: str


def ablate(asked: Asked, only_plan: bool, as_json: bool) -> int:
    """Does what is asked and not yet recorded, writes the ablation's table, and returns the exit code."""
    places = _places(asked)
    for request, _, _ in places:
        check_backbone(request.backbone)
        for entry in request.methods:
            adapter_of(entry, request.overrides.get(entry.name, {}))
    _check_suites(places)
    store = Store(asked.request.out)
    data = load_data(asked.request)
    planned = plan_all([(request, data) for request, _, _ in places], store)
    groups = _grouped(places, planned)
    jobs = [job for _, group in groups for job in group]
    ablation = _ablation(asked, places, planned, store, data)
    _check_hours(asked, jobs, data, store)
    say_notes(data, load_corpus(asked.request.corpus))
    if only_plan:
        points = [point.label for point in ablation.all_points]
        if not as_json:
            seeds = f"{len(asked.request.seeds)} seed{'s' if len(asked.request.seeds) > 1 else ''}"
            click.echo(f"{len(points)} points at {seeds}: {', '.join(points)}.", err=True)
        print_plan(asked.request, jobs, data, store, as_json, ablation=ablation.name, points=points)
        return 0
    store.check_writable()
    announce(jobs, data)
    write(store, ablation)
    made: list[Record] = []
    for request, group in groups:
        if not run_jobs(request, group, data, store, made):
            return 130
    tasks = task_catalog.built_in_tasks()
    _show(store, ablation, tasks | {name: item.task for name, item in data.items()}, as_json)
    failed = [record for record in made if record.status == "failed"]
    if failed:
        click.echo(f"{len(failed)} of {len(jobs)} runs failed; the table lists them.", err=True)
    return 4 if failed else 0


Place = tuple[Request, str, dict[str, Setting]]
"""The request of one point, its method, and what is changed in it."""


def _places(asked: Asked) -> list[Place]:
    """Returns every point as a request of its own, then the references."""
    base = asked.request
    found: list[Place] = []
    for entry in base.methods:
        for changed in combinations(asked.axes, entry.name, asked.one_at_a_time):
            texts = dict(base.overrides.get(entry.name, {}))
            corpus, backbone = base.corpus, base.backbone
            for setting in changed.values():
                texts |= setting.fields.get(entry.name, {})
                backbone = setting.backbone or backbone
                if setting.fraction is not None:
                    corpus = dataclasses.replace(train_data(base.corpus), fraction=setting.fraction)
            overrides = {entry.name: texts} if texts else {}
            request = dataclasses.replace(base, methods=(entry,), overrides=overrides, corpus=corpus, backbone=backbone)
            found.append((request, entry.name, changed))
    for entry in asked.references:
        found.append((dataclasses.replace(base, methods=(entry,), overrides={}), entry.name, {}))
    return found


def _check_suites(places: Sequence[Place]) -> None:
    suites = {suite_of(request) for request, _, _ in places}
    if len(suites) > 1:
        raise RequestError(
            "`--backbone` names the embedded model and others, whose tasks are not the same ones: "
            "give `--data DIR`, or compare backbones of one kind."
        )


def _grouped(places: Sequence[Place], planned: Sequence[Sequence[Job]]) -> list[tuple[Request, list[Job]]]:
    """Returns the jobs by what must be loaded for them, each training once, all points at one seed before the next."""
    groups: dict[tuple[str, TrainData], tuple[Request, dict[str, Job]]] = {}
    for (request, method, changed), jobs in zip(places, planned, strict=True):
        _, known = groups.setdefault((request.backbone, train_data(request.corpus)), (request, {}))
        for job in jobs:
            known.setdefault(job.recipe.train_key, dataclasses.replace(job, label=label_of(method, changed)))
    return [(request, sorted(jobs.values(), key=lambda j: j.recipe.seed)) for request, jobs in groups.values()]


def _ablation(
    asked: Asked,
    places: Sequence[Place],
    planned: Sequence[Sequence[Job]],
    store: Store,
    data: dict[str, TaskData],
) -> Ablation:
    """Returns the definition of what was asked."""
    entries = {entry.name: entry for entry in (*asked.request.methods, *asked.references)}
    plain = dataclasses.replace(asked.request, overrides={}, methods=tuple(entries.values()), seeds=(0,))
    default = {variant_key(job.recipe) for job in plan_all([(plain, data)], store)[0]}
    points: list[Point] = []
    for (_, method, changed), jobs in zip(places, planned, strict=True):
        key = variant_key(jobs[0].recipe)
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


def _check_hours(asked: Asked, jobs: Sequence[Job], data: dict[str, TaskData], store: Store) -> None:
    """Raises RequestError for a grid that would take longer than the hours that were given."""
    if asked.budget_hours is None:
        return
    cost = estimate(jobs, data, store)
    count = f"{cost.trainings} trainings and {cost.evaluations} evaluations are to be done"
    if cost.seconds is None:
        raise RequestError(
            f"`--budget-hours {asked.budget_hours:g}`: {count}, and how long they take is not known: no run with this "
            "backbone is recorded. Run one point first, with `mmpt-bench run`, or leave the option out."
        )
    if cost.seconds > 3600 * asked.budget_hours:
        raise RequestError(
            f"`--budget-hours {asked.budget_hours:g}`: {count}. {how_long(cost)} Ask for fewer values, seeds or "
            "tasks, use `--one-at-a-time`, or give more hours."
        )


def _show(store: Store, ablation: Ablation, tasks: Mapping[str, Task], as_json: bool) -> None:
    """Writes and prints an ablation's table."""
    board = ablation_board(store, ablation, tasks)
    write_atomic(store.path(FOLDER, f"{ablation.name}.csv"), ablation_csv(board))
    write_atomic(store.path(FOLDER, f"{ablation.name}.md"), ablation_md(board))
    if as_json:
        click.echo(json.dumps(ablation_json(board), indent=1))
        return
    from rich.console import Console

    console = Console()
    for part in ablation_tables(board):
        console.print(part)
    click.echo(f"Written: {ablation.name}.csv and .md in {store.root}/{FOLDER}/", err=True)
