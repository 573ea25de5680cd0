"""Doing what is planned: train or load an adapter, ask what is not answered yet, score, record."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import Interrupted, RunFailed, UntrustedRecord
from mmpt_bench.common.hashing import content_key, derive, file_sha256
from mmpt_bench.data.examples import Corpus
from mmpt_bench.data.samples import Prediction
from mmpt_bench.evaluation.scoring import scored
from mmpt_bench.records import run_folder
from mmpt_bench.records.environment import environment
from mmpt_bench.records.recipe import Record, track_key
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.plan import Job, eval_key
from mmpt_bench.runs.request import Request, TaskData, suite_of
from mmpt_bench.sources.corpora import load_corpus

if TYPE_CHECKING:
    from mmpt_bench.engine.models.backbone import Backbone

LOCK_SECONDS = 24 * 3600.0
"""How long a run that another process is doing is waited for."""


def execute(
    request: Request,
    jobs: Sequence[Job],
    data: dict[str, TaskData],
    store: Store,
    report: Reporter,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Record]:
    """Does what is still to be done and yields each record as it is written; a failed run is recorded too."""
    from mmpt_bench.engine.models.backbone import load_backbone

    open_jobs = [job for job in jobs if job.todo]
    if not open_jobs:
        return
    corpus = load_corpus(request.corpus)
    backbone = load_backbone(request.backbone, request.dtype, request.device, request.offline)
    if backbone.fingerprint != open_jobs[0].recipe.backbone_fingerprint:
        raise UntrustedRecord(f"The files of backbone `{request.backbone}` changed while the run was planned.")
    if request.features is not None:
        from mmpt_bench.engine.models.feature_disk import FeatureDisk

        backbone.disk = FeatureDisk(request.features, request.features_bytes)
    for job in open_jobs:
        with store.run_lock(job.recipe.run_name, wait_seconds=LOCK_SECONDS):
            for record in _do(request, job, data, store, backbone, corpus, report, stopping):
                report.finished(record)
                yield record


def _do(
    request: Request,
    job: Job,
    data: dict[str, TaskData],
    store: Store,
    backbone: Backbone,
    corpus: Corpus,
    report: Reporter,
    stopping: Callable[[], bool],
) -> Iterator[Record]:
    recipe = job.recipe
    # Another process may have done some of it while this one waited for the lock.
    recorded = {record.eval_key for record in store.records(published=False) if record.status == "ok"}
    todo = [task for task in job.todo if eval_key(recipe, data[task]) not in recorded]
    if not todo:
        return
    store.write_recipe(recipe)
    handle = job.adapter.attach(backbone, derive(recipe.seed, "init"))
    try:
        base = _base_record(request, job, backbone, handle)
        try:
            trained = _trained(job, handle, store, backbone, corpus, report, stopping)
            for task in todo:
                yield _evaluated(job, base, trained, data[task], store, backbone, report, stopping, request.eval_batch)
        except RunFailed as error:
            failed = dataclasses.replace(base, eval_key=content_key([recipe.train_key, "failed"]), reason=str(error))
            failed = dataclasses.replace(failed, time=_now())
            store.append_record(failed)
            yield failed
    finally:
        handle.remove()


def _trained(
    job: Job,
    handle: Any,
    store: Store,
    backbone: Backbone,
    corpus: Corpus,
    report: Reporter,
    stopping: Callable[[], bool],
) -> dict[str, Any]:
    """Returns what training cost, after training or after loading what was trained before."""
    from mmpt_bench.engine.training.train import Step, train

    name, recipe = job.recipe.run_name, job.recipe
    if not handle.trainable:
        return {"seconds": 0.0, "peak_bytes": 0, "final_loss": None, "adapter_bytes": 0}
    known = run_folder.training(store, name)
    if known is not None:
        _load(store.run_path(name) / "adapter", known["sha256"], handle)
        return known
    log: list[dict[str, Any]] = []

    def on_step(step: Step) -> None:
        report.train_step(job, step)
        log.append(dataclasses.asdict(step))
        if len(log) >= 25:
            run_folder.log_steps(store, name, log)
            log.clear()

    checkpoint = store.run_path(name) / "checkpoint.pt"
    try:
        result = train(
            backbone,
            handle,
            corpus,
            recipe.budget,
            job.adapter.learning_rate,
            recipe.seed,
            checkpoint,
            on_step,
            stopping,
        )
    finally:
        run_folder.log_steps(store, name, log)
    if result.left_out:
        report.said(
            f"{job.label or recipe.method}, seed {recipe.seed}: {result.left_out:,} times an exchange of a "
            f"conversation stood behind {recipe.budget.max_length:,} tokens and was left out; raise `--max-length` to "
            "train on it."
        )
    part = store.run_path(name) / "adapter.part"
    handle.save(part)
    tensors = part / "adapter_model.safetensors"
    known = dataclasses.asdict(result) | {"adapter_bytes": tensors.stat().st_size, "sha256": file_sha256(tensors)}
    run_folder.finish_training(store, name, part, known)
    for leftover in (checkpoint, checkpoint.with_suffix(".sha256")):
        leftover.unlink(missing_ok=True)
    return known


def _load(folder: Path, sha256: str, handle: Any) -> None:
    """Puts a stored adapter's values into an attached one; raises UntrustedRecord where its bytes have changed."""
    from mmpt_bench.engine.adapters.saved import read_adapter

    if file_sha256(folder / "adapter_model.safetensors") != sha256:
        raise UntrustedRecord(
            f"The adapter in `{folder.parent.name}` is damaged. Delete that folder to train it again."
        )
    handle.load(read_adapter(folder))


def _evaluated(
    job: Job,
    base: Record,
    trained: dict[str, Any],
    item: TaskData,
    store: Store,
    backbone: Backbone,
    report: Reporter,
    stopping: Callable[[], bool],
    batch_size: int,
) -> Record:
    """Returns the record of one task, written to the store, after asking what is not answered yet."""
    from mmpt_bench.engine.inference.predict import predict

    key, name, task = eval_key(job.recipe, item), job.recipe.run_name, item.task
    kept = (backbone.features, backbone.kept_pictures)
    for cache in kept:
        cache.begin()
    began = time.perf_counter()
    # Replies are kept under what was asked: another parse rule reads them anew and asks nothing.
    asked_key = content_key([job.recipe.train_key, *item.asked_key])
    choices = {sample.id: sample.choices for sample in item.samples}
    answered: dict[str, Prediction] = {
        known.id: dataclasses.replace(known, parsed=task.parse(known.reply, choices[known.id]))
        for known in run_folder.predictions(store, name, task.name, asked_key).values()
    }
    left = [sample for sample in item.samples if sample.id not in answered]
    report.evaluated(job, task.name, len(answered), len(item.samples))
    pictures = content_key(item.asked_key)
    for batch in predict(backbone, task, left, batch_size, pictures, report.said, item.guard):
        run_folder.append_predictions(store, name, task.name, asked_key, batch)
        answered |= {prediction.id: prediction for prediction in batch}
        report.evaluated(job, task.name, len(answered), len(item.samples))
        if stopping() and len(answered) < len(item.samples):
            raise Interrupted(f"{len(answered):,} of {len(item.samples):,} questions of {task.title} are answered")
    predictions = [answered[sample.id] for sample in item.samples]
    record = dataclasses.replace(
        base,
        eval_key=key,
        status="ok",
        reason="",
        task=task.name,
        task_version=task.version,
        parse_rule=task.rule,
        replies_key="" if asked_key == key else asked_key,
        dataset=item.rows.origin,
        data_fingerprint=item.rows.fingerprint,
        split=task.split,
        limit=item.limit,
        samples=store.write_samples(item.samples),
        train_seconds=trained["seconds"],
        eval_seconds=time.perf_counter() - began + sum(cache.spared for cache in kept),
        peak_bytes=trained["peak_bytes"],
        adapter_bytes=trained["adapter_bytes"],
        final_loss=trained["final_loss"],
        time=_now(),
        **scored(task, item.samples, predictions),
    )
    store.append_record(record)
    return record


def _base_record(request: Request, job: Job, backbone: Backbone, handle: Any) -> Record:
    from mmpt_bench.engine.adapters.saved import public_name

    recipe = job.recipe
    return Record(
        eval_key="",
        train_key=recipe.train_key,
        track=track_key(recipe, suite_of(request)),
        suite=suite_of(request),
        run=recipe.run_name,
        method=recipe.method,
        params=recipe.params,
        seed=recipe.seed,
        backbone=public_name(recipe.backbone),
        backbone_fingerprint=recipe.backbone_fingerprint,
        corpus=recipe.corpus,
        corpus_fingerprint=recipe.corpus_fingerprint,
        budget=dataclasses.asdict(recipe.budget),
        dtype=recipe.dtype,
        world_size=recipe.world_size,
        method_fingerprint=recipe.method_fingerprint,
        learning_rate_source=job.rate_source,
        task="",
        status="failed",
        reason="",
        trainable=handle.size,
        total=sum(p.numel() for p in backbone.model.parameters()),
        environment=environment() | {"device": backbone.device},
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
