"""What the runs of a command share: store, events, the loaded backbone; and what all records of a run say alike."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.data.samples import Prediction
from mmpt_bench.evaluation.functions import FunctionMetric
from mmpt_bench.records import keys
from mmpt_bench.records.environment import environment
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.judging import judged_file, verdicts
from mmpt_bench.runs.plan import Job, Plan
from mmpt_bench.sources.prepared import PreparedTask

if TYPE_CHECKING:
    from mmpt_bench.engine.adapters.attachment import Handle
    from mmpt_bench.engine.inference.judging import Judging
    from mmpt_bench.engine.models.backbone import Backbone
    from mmpt_bench.engine.training.parallel import Together
    from mmpt_bench.evaluation.judge import Judge


class Loaded:
    """The backbone that was loaded last: plans that take the same one share it, and no two are in memory."""

    def __init__(self, report: Reporter, ranks: Together | None = None) -> None:
        """Loads nothing yet; `ranks` of torchrun share trainings and evaluations, where there are any."""
        self._report, self.ranks = report, ranks
        self.noted: set[str] = set()
        self._of: tuple[str, str, str | None] | None = None
        self._backbone: Backbone | None = None
        self._judge: tuple[Judge, Judging] | None = None

    def of(self, plan: Plan) -> Backbone:
        """Returns a plan's backbone; raises as `loaded_backbone` does."""
        wanted = (plan.request.backbone, plan.request.dtype, plan.request.device)
        if self._backbone is None or self._of != wanted:
            self.drop()
            self._backbone, self._of = loaded_backbone(plan), wanted
            for said in self._backbone.decoding_said:
                self._report.said(said)
        return self._backbone

    def judging(self, judge: Judge, plan: Plan) -> Judging:
        """Returns a loaded judge; the one before it is let go. Raises as `Judging` does."""
        from mmpt_bench.engine.inference.judging import Judging

        if self._judge is None or self._judge[0] != judge:
            self._judge, request = None, plan.request
            self._judge = judge, Judging(judge, request.device, request.offline, request.eval_batch)
        return self._judge[1]

    def drop(self) -> None:
        """Lets go of it: whatever went wrong may have left the model changed."""
        self._backbone = None


def loaded_backbone(plan: Plan) -> Backbone:
    """Returns a plan's backbone; UntrustedRecord where its files changed meanwhile."""
    from mmpt_bench.engine.models.backbone import load_backbone

    request = plan.request
    backbone = load_backbone(request.backbone, request.dtype, request.device, request.offline)
    if backbone.fingerprint != plan.prepared.backbone_fingerprint:
        raise UntrustedRecord(f"The files of backbone `{request.backbone}` changed while the run was planned.")
    return backbone


@dataclass(frozen=True)
class Session:
    """A plan, and what it shares with the other plans of a command."""

    plan: Plan
    store: Store
    loaded: Loaded
    report: Reporter
    stopping: Callable[[], bool]

    @property
    def backbone(self) -> Backbone:
        """Returns the plan's backbone, loaded when it is asked for."""
        return self.loaded.of(self.plan)

    def verdicts(self, item: PreparedTask, predictions: Sequence[Prediction]) -> list[float | None]:
        """Returns the judge's grade of each prediction, as `judging.verdicts` does; nothing where nobody judges."""
        if not item.judge:
            return []
        assert isinstance(item.task.metric, FunctionMetric)
        judge = item.task.metric.judge
        assert judge is not None
        path = judged_file(self.store, item.task.name, item.judge, item.rows.fingerprint)
        answers = [prediction.parsed for prediction in predictions]
        return verdicts(
            judge, path, item.samples, answers, lambda: self.loaded.judging(judge, self.plan), self.stopping
        )


def base_record(session: Session, job: Job, handle: Handle | None = None) -> Record:
    """Returns what all records of a run share, as a failure without a reason; `handle` is None where none was made."""
    import torch

    from mmpt_bench.engine.adapters.saved import public_name
    from mmpt_bench.engine.models.quantized import n_values

    recipe, suite, asking = job.recipe, session.plan.request.suite, session.plan.request.asking
    return Record(
        eval_key="",
        train_key=recipe.train_key,
        track=recipe.setting_key(suite, asking),
        asking=asking,
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
        objective=recipe.objective,
        learning_rate_source=job.rate_source,
        task="",
        status="failed",
        reason="",
        trainable=handle.size if handle else 0,
        total=sum(n_values(p) for p in session.backbone.model.parameters()),
        environment=environment()
        | {"device": session.backbone.device, "threads": int(torch.get_num_threads())}
        | ({"decoding": decoding} if (decoding := session.backbone.decoding) else {}),
    )


def judged_by(base: Record, item: PreparedTask) -> Record:
    """Returns what the records of a task share, in the setting of the judge that scores it, where one does."""
    if not item.judge:
        return base
    judged = dataclasses.replace(base, asking=base.asking | {"judge": dict(item.judge)})
    return dataclasses.replace(judged, track=judged.setting_key)


def failed(base: Record, job: Job, reason: str, item: PreparedTask | None = None) -> Record:
    """Returns the record of a training that failed, or of a task."""
    base, name = (base, "") if item is None else (judged_by(base, item), item.task.name)
    key = keys.failure_key(job.recipe.train_key, name, base.asking)
    failed = dataclasses.replace(base, eval_key=key, reason=reason, task=name, time=now())
    if item is None:
        return failed
    origin, fingerprint = item.rows.origin, item.rows.fingerprint
    return dataclasses.replace(
        failed, task_version=item.task.version, dataset=origin, data_fingerprint=fingerprint, limit=item.limit
    )


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
