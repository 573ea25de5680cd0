"""Doing what is planned: train or load an adapter, ask what is not answered yet, score, record."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mmpt_bench.common.errors import BenchError, Interrupted, MachineError, RunFailed, UntrustedRecord
from mmpt_bench.common.hashing import content_key, derive
from mmpt_bench.common.locks import LONGEST_WAIT, in_turn
from mmpt_bench.data.images import BadImage
from mmpt_bench.data.samples import Prediction
from mmpt_bench.evaluation.scoring import scored
from mmpt_bench.records import keys
from mmpt_bench.records.environment import environment
from mmpt_bench.records.record import Record
from mmpt_bench.records.run_folder import RunFolder
from mmpt_bench.records.store import Store
from mmpt_bench.runs.bad_items import check_examples
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.plan import Job, Plan
from mmpt_bench.runs.training import Session, train_run
from mmpt_bench.sources.prepared import PreparedTask

if TYPE_CHECKING:
    from mmpt_bench.engine.adapters.attachment import Handle
    from mmpt_bench.engine.models.backbone import Backbone


def execute(
    plans: Sequence[Plan], store: Store, report: Reporter | None = None, stopping: Callable[[], bool] = lambda: False
) -> Iterator[Record]:
    """Does what is still to be done and yields each record as it is written; failed runs and tasks are recorded too.

    Runs that another process is doing are left for the end. What goes wrong with one run, and is no failure of its
    training or evaluation, is said at once and raised when the other runs are done.

    Raises:
        Interrupted: `stopping` said so; everything done so far is on the disk.
        RequestError: a training is to be done, and examples of its data cannot be used.
        MachineError: nothing can be written, or a run is held by a process that does not end.
        UntrustedRecord: the backbone's files changed while the run was planned, or an adapter is damaged.
    """
    report = report or Reporter()
    faults: list[Exception] = []
    for plan in plans:
        if any(not job.trained and job.method.trains for job in plan.open):
            check_examples(plan.prepared.corpus)
    for plan in plans:
        if plan.open:
            backbone = loaded_backbone(plan)
            for said in backbone.decoding_said:
                report.said(said)
            yield from _all_of(Session(plan, store, backbone, report, stopping), faults)
    if faults:
        raise faults[0]


def loaded_backbone(plan: Plan) -> Backbone:
    """Returns a plan's backbone; UntrustedRecord where its files changed meanwhile."""
    from mmpt_bench.engine.models.backbone import load_backbone

    request = plan.request
    backbone = load_backbone(request.backbone, request.dtype, request.device, request.offline)
    if backbone.fingerprint != plan.prepared.backbone_fingerprint:
        raise UntrustedRecord(f"The files of backbone `{request.backbone}` changed while the run was planned.")
    return backbone


def _all_of(session: Session, faults: list[Exception]) -> Iterator[Record]:
    """Does the runs of a plan."""

    def lock(job: Job, wait_seconds: float) -> contextlib.AbstractContextManager[None]:
        return session.store.run(job.recipe.run_name).lock(wait_seconds, session.stopping)

    for job, held in in_turn(session.plan.open, lock, LONGEST_WAIT):
        with held:
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
                # Whatever went wrong may have left the model changed.
                session.backbone = loaded_backbone(session.plan)


def _run(session: Session, job: Job, folder: RunFolder) -> Iterator[Record]:
    """Trains and evaluates one run, which is this process's own."""
    from mmpt_bench.engine.training.memory import told_of_memory

    recipe, tasks = job.recipe, session.plan.prepared.tasks
    # Another process may have done some of it while this one waited for the lock.
    records = folder.records()
    recorded = {record.eval_key for record in records if record.status == "ok"}
    todo = [name for name in job.todo if tasks[name].eval_key(recipe.train_key) not in recorded]
    if not todo:
        return
    folder.write_recipe(recipe)
    try:
        with told_of_memory("while it was put into the backbone", RunFailed):
            handle = job.method.attach(session.backbone, derive(recipe.seed, "init"))
    except RunFailed as error:
        # Whatever was put in already is not known.
        session.backbone = loaded_backbone(session.plan)
        yield from _kept(folder, records, [_failed(_base_record(session, job), job, str(error))])
        return
    try:
        for note in handle.notes:
            session.report.said(f"{job.label}: {note}.")
        base = _base_record(session, job, handle)
        made = _results(session, job, folder, handle, base, [tasks[name] for name in todo])
        yield from _kept(folder, records, made)
    finally:
        handle.remove()


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
            yield _failed(base, job, f"{item.task.title}: {item.failure}", item)
    todo = [item for item in todo if not item.faults]
    if not todo:
        return
    try:
        costs = train_run(session, job, folder, handle)
    except (RunFailed, BadImage) as error:
        yield _failed(base, job, str(error))
        return
    trained = dataclasses.replace(
        base,
        train_seconds=costs["seconds"],
        peak_bytes=costs["peak_bytes"],
        adapter_bytes=costs["adapter_bytes"],
        threads=", ".join(map(str, costs.get("threads", ()))),
        optimizer_state=costs.get("optimizer_state", ""),
        final_loss=costs["final_loss"],
        notes="; ".join(each for each in (base.notes, *costs.get("alarms", ())) if each),
        **(costs.get("process") or {}),
    )
    for item in todo:
        try:
            yield _evaluate(session, job, folder, trained, item)
        except (RunFailed, BadImage) as error:
            yield _failed(trained, job, f"{item.task.title}: {error}", item)


def _failed(base: Record, job: Job, reason: str, item: PreparedTask | None = None) -> Record:
    """Returns the record of a training that failed, or of a task."""
    name = "" if item is None else item.task.name
    key = keys.failure_key(job.recipe.train_key, name)
    failed = dataclasses.replace(base, eval_key=key, reason=reason, task=name, time=_now())
    if item is None:
        return failed
    origin, fingerprint = item.rows.origin, item.rows.fingerprint
    return dataclasses.replace(
        failed, task_version=item.task.version, dataset=origin, data_fingerprint=fingerprint, limit=item.limit
    )


def _evaluate(session: Session, job: Job, folder: RunFolder, base: Record, item: PreparedTask) -> Record:
    """Returns the record of one task, after asking what is not answered yet."""
    from mmpt_bench.engine.training.memory import CpuClock

    task, train_key, caches = item.task, job.recipe.train_key, session.backbone.caches
    for cache in caches:
        cache.begin()
    # Where replies may be kept already, the time is not that of all questions.
    is_whole = not folder.path(f"{task.name}.jsonl").is_file()
    began, clock = time.perf_counter(), CpuClock()
    predictions = _answers(session, job, folder, item)
    others = clock.others() if is_whole else None
    key, replies_key = item.eval_key(train_key), item.replies_key(train_key)
    written, sha256 = folder.answers_written(task.name)
    return dataclasses.replace(
        base,
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
        samples=session.store.write_samples(item.samples),
        eval_seconds=time.perf_counter() - began + sum(cache.spared for cache in caches),
        eval_others_cpu_seconds=others,
        time=_now(),
        **scored(task, item.samples, predictions),
    )


def _answers(session: Session, job: Job, folder: RunFolder, item: PreparedTask) -> list[Prediction]:
    """Returns the predictions in the order of the samples; replies that are kept already are read, not asked for."""
    from mmpt_bench.engine.inference.predict import InferenceOptions, predict

    task, report, total = item.task, session.report, len(item.samples)
    key = item.replies_key(job.recipe.train_key)
    choices = {sample.id: sample.choices for sample in item.samples}
    answered = {
        known.id: dataclasses.replace(known, parsed=task.read(known.reply, choices[known.id]))
        for known in folder.predictions(task.name, key).values()
    }
    left = [sample for sample in item.samples if sample.id not in answered]
    report.evaluated(job, task.name, len(answered), total)
    images, size = content_key(item.asked), session.plan.request.eval_batch
    options = InferenceOptions(size, images, item.guard, report.said)
    for batch in predict(session.backbone, task, left, options):
        folder.append_predictions(task.name, key, batch)
        answered |= {prediction.id: prediction for prediction in batch}
        report.evaluated(job, task.name, len(answered), total)
        if session.stopping() and len(answered) < total:
            raise Interrupted(f"{len(answered):,} of {total:,} questions of {task.title} are answered")
    return [answered[sample.id] for sample in item.samples]


def _base_record(session: Session, job: Job, handle: Handle | None = None) -> Record:
    """Returns what all records of a run share, as a failure without a reason; `handle` is None where none was made."""
    import torch

    from mmpt_bench.engine.adapters.saved import public_name

    recipe, suite = job.recipe, session.plan.request.suite
    return Record(
        eval_key="",
        train_key=recipe.train_key,
        track=recipe.setting_key(suite),
        suite=suite,
        run=recipe.run_name,
        method=recipe.method,
        params=recipe.params,
        changed=job.changed,
        seed=recipe.seed,
        backbone=public_name(recipe.backbone),
        backbone_fingerprint=recipe.backbone_fingerprint,
        corpus=recipe.corpus,
        corpus_fingerprint=recipe.corpus_fingerprint,
        budget=recipe.known_budget,
        notes="; ".join(handle.notes) if handle else "",
        dtype=recipe.dtype,
        world_size=recipe.world_size,
        method_fingerprint=recipe.method_fingerprint,
        stage=recipe.stage,
        learning_rate_source=job.rate_source,
        task="",
        status="failed",
        reason="",
        trainable=handle.size if handle else 0,
        total=sum(p.numel() for p in session.backbone.model.parameters()),
        environment=environment()
        | {"device": session.backbone.device, "threads": int(torch.get_num_threads())}
        | ({"decoding": decoding} if (decoding := session.backbone.decoding) else {}),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
