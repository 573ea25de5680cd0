"""What ranks of torchrun do together: a training, and the questions of a task, each rank those of its images."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import Interrupted, MachineError, RequestError, RunFailed
from mmpt_bench.common.hashing import content_key, derive
from mmpt_bench.data.images import BadImage
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.runs.objectives import config_and_terms
from mmpt_bench.runs.plan import Job
from mmpt_bench.runs.session import Session, loaded_backbone
from mmpt_bench.sources.prepared import PreparedTask

if TYPE_CHECKING:
    from mmpt_bench.engine.adapters.attachment import Handle
    from mmpt_bench.engine.training.train import Trained

ROUND = 512
"""Questions that each rank answers before answers are written."""


def trained_together(session: Session, job: Job, handle: Handle | None, checkpoint: Path | None, *told: Any) -> Trained:
    """Returns what a training cost that every rank takes part in, all by this function.

    Args:
        handle: in the session's backbone, with the trained values afterwards; None on ranks that only take part, and
            attach the method themselves.
        told: as `train` takes it after `checkpoint`.

    Raises:
        MachineError: what went wrong on this rank alone, so that the job ends.
        RunFailed, RequestError, Interrupted: as `train` does, on all ranks alike.
    """
    ranks = session.loaded.ranks
    assert ranks is not None
    try:
        if ranks.way == "ddp":
            return _trained_whole(session, job, handle, checkpoint, *told)
        return _trained_sharded(session, job, handle, checkpoint, *told)
    except (RunFailed, RequestError, MachineError):
        raise
    except Exception as error:
        raise MachineError(f"rank {ranks.rank}: {type(error).__name__}: {str(error)[:300]}") from error
    finally:
        ranks.let_go()


def _trained_whole(session: Session, job: Job, handle: Handle | None, checkpoint: Path | None, *told: Any) -> Trained:
    """Trains in the session's backbone."""
    own = handle or job.method.attach(session.backbone, derive(job.recipe.seed, "init"))
    try:
        return _trained(session, session.backbone, job, own, checkpoint, *told)
    finally:
        if own is not handle:
            own.remove()


def _trained_sharded(session: Session, job: Job, handle: Handle | None, checkpoint: Path | None, *told: Any) -> Trained:
    """Trains in a backbone of its own, which is of no use after it was sharded; the session's waits in main memory."""
    ranks = session.loaded.ranks
    assert ranks is not None
    if handle is None:
        session.loaded.drop()
    else:
        session.backbone.model.to("cpu")
    try:
        trained, values = _trained_apart(session, job, checkpoint, *told)
    finally:
        ranks.let_go()
        gc.collect()
        if handle is not None:
            session.backbone.model.to(session.backbone.device)
    if handle is not None:
        from mmpt_bench.engine.training.masters import Masters

        # What is saved is float32 in half precision too.
        Masters(handle).close()
        handle.load(values)
    return trained


def _trained_apart(session: Session, job: Job, checkpoint: Path | None, *told: Any) -> tuple[Trained, Any]:
    """Returns what a training cost and the values it found; its backbone is let go."""
    backbone = loaded_backbone(session.plan)
    handle = job.method.attach(backbone, derive(job.recipe.seed, "init"))
    trained = _trained(session, backbone, job, handle, checkpoint, *told)
    return trained, handle.state()


def _trained(session: Session, backbone: Any, job: Job, handle: Handle, checkpoint: Path | None, *told: Any) -> Trained:
    from mmpt_bench.engine.training.parallel import ALONE
    from mmpt_bench.engine.training.train import train

    prepared = session.plan.prepared
    own = (job.method, prepared.before, handle)
    config, terms = config_and_terms(session.store, backbone, session.plan.request, job.recipe, own)
    ranks = session.loaded.ranks or ALONE
    work: Callable[..., Trained] = partial(train, backbone, handle, prepared.corpus, config, terms=terms, ranks=ranks)
    return work(checkpoint, *told)


def answered(session: Session, job: Job, item: PreparedTask, left: Sequence[Sample]) -> Iterator[list[Prediction]]:
    """Yields the predictions of samples, a batch at a time: all are this process's, or each rank has its images.

    Raises:
        RunFailed, BadImage: as `predict` does, on whichever rank.
        Interrupted: another rank was told to stop.
    """
    ranks = session.loaded.ranks
    if ranks is None:
        yield from _predicted(session, item, left, session.report.said)
        return
    shards = image_shards(left, ranks.count)
    for first in range(0, max(map(len, shards), default=0), ROUND):
        shares = [shard[first : first + ROUND] for shard in shards]
        ranks.tell(("answer", job.recipe.run_name, item.task.name, [[one.id for one in share] for share in shares]))
        yield answered_together(session, item, shares[0])


def answered_together(session: Session, item: PreparedTask, share: Sequence[Sample]) -> list[Prediction]:
    """Returns the predictions of all ranks, each of which gives its share; raises what any of them raised."""
    ranks = session.loaded.ranks
    assert ranks is not None
    made: list[Prediction] = []
    fault = ""
    try:
        for batch in _predicted(session, item, share, session.report.said):
            made += batch
    except (RunFailed, BadImage) as error:
        fault = str(error) if ranks.is_first else f"rank {ranks.rank}: {error}"
    found = ranks.gathered((made, fault, session.stopping()))
    for _, fault, _ in found:
        if fault:
            raise RunFailed(fault)
    if any(stop for *_, stop in found[1:]):
        raise Interrupted(f"questions of {item.task.title} are left")
    return [prediction for made, *_ in found for prediction in made]


def _predicted(session: Session, item: PreparedTask, samples: Sequence[Sample], say: Any) -> Iterator[list[Prediction]]:
    from mmpt_bench.engine.inference.predict import InferenceOptions, predict

    note = partial(noted, session)
    options = InferenceOptions(session.plan.request.eval_batch, content_key(item.asked), item.guard, say, note=note)
    return predict(session.backbone, item.task, samples, options)


def noted(session: Session, text: str) -> None:
    """Tells what holds for many tasks and seeds, once a process."""
    if text not in session.loaded.noted:
        session.loaded.noted.add(text)
        session.report.said(text)


def image_shards(samples: Sequence[Sample], n: int) -> list[list[Sample]]:
    """Returns `n` lists of about one length, with all samples, and all those of an image in one list.

    Nothing is repeated to make them equal, as `DistributedSampler` would.
    """
    by_image: dict[str, list[Sample]] = {}
    for sample in samples:
        by_image.setdefault(sample.image.key, []).append(sample)
    shards: list[list[Sample]] = [[] for _ in range(n)]
    for group in by_image.values():
        min(shards, key=len).extend(group)
    return shards
