"""Doing what is planned: train or load an adapter, ask what is not answered yet, score, record."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSet, Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.entries import is_own, own_faults
from mmpt_bench.common.errors import BenchError, Interrupted, MachineError, RequestError, RunFailed
from mmpt_bench.common.hashing import derive
from mmpt_bench.common.locks import LONGEST_WAIT, in_turn
from mmpt_bench.data.images import BadImage
from mmpt_bench.data.samples import Prediction
from mmpt_bench.evaluation.scoring import scored
from mmpt_bench.records.answer_files import PARQUET
from mmpt_bench.records.record import Record
from mmpt_bench.records.run_folder import RunFolder
from mmpt_bench.records.store import Store
from mmpt_bench.runs.bad_items import check_examples
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.plan import Job, Plan
from mmpt_bench.runs.session import Loaded, Session, base_record, failed, judged_by, now
from mmpt_bench.runs.shared import answered
from mmpt_bench.runs.training import train_run
from mmpt_bench.sources.prepared import PreparedTask

if TYPE_CHECKING:
    from mmpt_bench.engine.adapters.attachment import Handle


def execute(
    plans: Sequence[Plan],
    store: Store,
    report: Reporter | None = None,
    stopping: Callable[[], bool] = lambda: False,
    tried: MutableSet[str] | None = None,
    loaded: Loaded | None = None,
) -> Iterator[Record]:
    """Does what is still to be done and yields each record as it is written; failed runs and tasks are recorded too.

    Runs that another process does are walked past and come back to, and so are stages of a stream whose earlier ones
    another process does. What goes wrong with one run, and is no failure of its training or evaluation, is said at once
    and raised when the other runs are done.

    Args:
        plans: what is to be done.
        store: the results folder.
        report: is told of every event.
        stopping: asked after every step and batch.
        tried: names of runs that were tried, shared with the other workers of the same command: none tries one again.
        loaded: holds the backbone of what was done before.

    Raises:
        Interrupted: `stopping` said so; everything done so far is on the disk.
        RequestError: a training is to be done, and examples of its data cannot be used.
        MachineError: nothing can be written, or a run is held by a process that does not end.
        UntrustedRecord: the backbone's files changed while the run was planned, or an adapter is damaged.
    """
    report, tried = report or Reporter(), set() if tried is None else tried
    faults: list[Exception] = []
    for plan in plans:
        if any(not job.trained and job.method.trains for job in plan.open):
            check_examples(plan.prepared.corpus)
    loaded = loaded or Loaded(report)
    items = [(Session(plan, store, loaded, report, stopping), job) for plan in plans for job in plan.open]
    names = {job.recipe.run_name for _, job in items}

    def lock(item: tuple[Session, Job]) -> contextlib.AbstractContextManager[None]:
        return store.run(item[1].recipe.run_name).lock()

    def ready(item: tuple[Session, Job]) -> bool:
        before = names.intersection(item[1].recipe.stage.get("after", ()))
        return all(name in tried or store.run(name).is_trained for name in before)

    for (session, job), held in in_turn(items, lock, LONGEST_WAIT, ready, stopping):
        with held:
            if job.recipe.run_name not in tried:
                yield from _tried(session, job, faults)
                tried.add(job.recipe.run_name)
    if faults:
        raise faults[0]


def _tried(session: Session, job: Job, faults: list[Exception]) -> Iterator[Record]:
    """Does a run, and keeps what goes wrong with it."""
    session.loaded.of(session.plan)
    try:
        for record in _run(session, job, session.store.run(job.recipe.run_name)):
            session.report.finished(record)
            yield record
    except MachineError:
        raise
    except Exception as error:
        what = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        session.report.said(f"{job.label}, seed {job.recipe.seed}: {what[:500]}")
        faults.append(error)
        session.loaded.drop()


def _run(session: Session, job: Job, folder: RunFolder) -> Iterator[Record]:
    """Trains and evaluates one run, which is this process's own."""
    from mmpt_bench.engine.training.memory import told_of_memory

    recipe, tasks = job.recipe, session.plan.prepared.tasks
    # Another process may have done some of it while this one waited for the lock.
    records = folder.records()
    if job.fault and not records:
        folder.training()  # what is damaged raises as such
        raise RequestError(job.fault)
    recorded = {record.eval_key for record in records if record.status == "ok"}
    todo = [name for name in job.todo if tasks[name].eval_key(recipe.train_key) not in recorded]
    if not todo:
        return
    folder.write_recipe(recipe)
    was = _state(session, job)
    try:
        with (
            told_of_memory("while it was put into the backbone", RunFailed),
            own_faults(is_own(job.method)),
        ):
            handle = job.method.attach(session.backbone, derive(recipe.seed, "init"))
            if not hasattr(handle, "trainable"):
                raise RunFailed(f"`attach` returns {type(handle).__name__}, no `mb.Handle`: end it with `handle(self)`")
    except RunFailed as error:
        # Whatever was put in already is not known.
        session.loaded.drop()
        yield from _kept(folder, records, [failed(base_record(session, job), job, str(error))])
        return
    try:
        for note in handle.notes:
            session.report.said(f"{job.label}: {note}.")
        base = base_record(session, job, handle)
        made = _results(session, job, folder, handle, base, [tasks[name] for name in todo])
        yield from _kept(folder, records, made)
    finally:
        handle.remove()
        if was != _state(session, job):
            session.report.said(
                f"{job.label}: `remove` leaves the backbone changed, which is therefore loaded again for the next run. "
                "Correct the method; `mmpt-bench check` says what it leaves."
            )
            session.loaded.drop()


def _state(session: Session, job: Job) -> Any:
    """Returns what a user's own method must leave as it was; nothing for a built-in one, whose tests say so."""
    if not is_own(job.method):
        return None
    from mmpt_bench.engine.adapters.trial import traces

    return traces(session.backbone)


def _kept(folder: RunFolder, records: Sequence[Record], made: Iterable[Record]) -> Iterator[Record]:
    """Yields records as they are written; `records` are those of the run before."""
    for record in made:
        folder.append_record(record, records)
        yield record


def _results(
    session: Session, job: Job, folder: RunFolder, handle: Handle, base: Record, todo: Sequence[PreparedTask]
) -> Iterator[Record]:
    """Yields the record of each task; one that cannot be asked fails alone, a training that fails takes all of them."""
    for item in todo:
        if item.faults:
            yield failed(base, job, f"{item.task.title}: {item.failure}", item)
    todo = [item for item in todo if not item.faults]
    if not todo:
        return
    try:
        with own_faults(is_own(job.method)):
            costs = train_run(session, job, folder, handle)
    except (RunFailed, BadImage) as error:
        yield failed(base, job, str(error))
        return
    trained = dataclasses.replace(
        base,
        train_seconds=costs["seconds"],
        peak_bytes=costs["peak_bytes"],
        adapter_bytes=costs["adapter_bytes"],
        adapter_sha256=costs.get("sha256", ""),
        attempt=costs.get("attempt", ""),
        threads=", ".join(map(str, costs.get("threads", ()))),
        optimizer_state=costs.get("optimizer_state", ""),
        gradient_checkpointing=costs.get("gradient_checkpointing", False),
        final_loss=costs["final_loss"],
        world_size=costs.get("world_size", 1),
        notes="; ".join(each for each in (base.notes, _fewer_steps(job, costs), *costs.get("alarms", ())) if each),
        **(costs.get("process") or {}),
    )
    for item in todo:
        try:
            with own_faults(bool(item.own) or is_own(job.method)):
                record = _evaluate(session, job, folder, trained, item)
            yield record
        except (RunFailed, BadImage) as error:
            yield failed(trained, job, f"{item.task.title}: {error}", item)


def _fewer_steps(job: Job, costs: Mapping[str, Any]) -> str:
    """Returns how many steps equal compute with a teacher left; empty where it does not count."""
    if job.recipe.objective.get("compute") != "equal":
        return ""
    return f"{costs['steps']:,} of {job.recipe.budget.steps:,} steps, for the teacher's forward passes are counted"


def _evaluate(session: Session, job: Job, folder: RunFolder, base: Record, item: PreparedTask) -> Record:
    """Returns the record of one task, after asking what is not answered yet."""
    from mmpt_bench.engine.training.memory import CpuClock

    task, caches = item.task, session.backbone.caches
    for cache in caches:
        cache.begin()
    # Where replies may be kept already, the time is not that of all questions.
    is_whole = not folder.answer_files(task.name)
    began, clock = time.perf_counter(), CpuClock()
    predictions = _answers(session, job, folder, item)
    others, seconds = clock.others() if is_whole else None, time.perf_counter() - began
    graded = session.verdicts(item, predictions)
    key, replies_key = item.eval_key(job.recipe.train_key), item.replies_key(job.recipe.train_key)
    if session.plan.request.answers == PARQUET:
        folder.pack_answers(task.name, replies_key)
    written, sha256 = folder.answers_written(task.name, replies_key)
    return dataclasses.replace(
        judged_by(base, item),
        eval_key=key,
        status="ok",
        task=task.name,
        task_version=task.version,
        parse_rule=task.rule,
        replies_key="" if replies_key == key else replies_key,
        dataset=item.rows.origin,
        data_fingerprint=item.rows.fingerprint,
        split=task.data.split,
        guard=item.guard,
        answers_bytes=written,
        answers_sha256=sha256,
        limit=item.limit,
        shots=tuple(shot.id for shot in item.shots),
        samples=session.store.write_samples(item.samples),
        eval_seconds=seconds + sum(cache.spared for cache in caches),
        eval_others_cpu_seconds=others,
        time=now(),
        **scored(task, item.samples, predictions, item.own, graded),
    )


def _answers(session: Session, job: Job, folder: RunFolder, item: PreparedTask) -> list[Prediction]:
    """Returns the predictions in the order of the samples; replies that are kept already are read, not asked for."""
    task, report, total = item.task, session.report, len(item.samples)
    key = item.replies_key(job.recipe.train_key)
    choices = {sample.id: sample.choices for sample in item.samples}
    found = {
        known.id: dataclasses.replace(known, parsed=task.read(known.reply, choices[known.id]))
        for known in folder.predictions(task.name, key).values()
    }
    left = [sample for sample in item.samples if sample.id not in found]
    report.evaluated(job, task.name, len(found), total)
    for batch in answered(session, job, item, left):
        folder.append_predictions(task.name, key, batch)
        found |= {prediction.id: prediction for prediction in batch}
        report.evaluated(job, task.name, len(found), total)
        if session.stopping() and len(found) < total:
            raise Interrupted(f"{len(found):,} of {total:,} questions of {task.title} are answered")
    return [found[sample.id] for sample in item.samples]
