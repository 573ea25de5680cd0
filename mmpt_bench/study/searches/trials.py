"""One trial of a search: a model is trained at a rate and a seed, and scored on what selection may look at."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.entries import is_own, own_faults
from mmpt_bench.common.errors import Interrupted, RequestError, RunFailed
from mmpt_bench.common.hashing import content_key, derive
from mmpt_bench.evaluation.scoring import centred_score
from mmpt_bench.records.rate_trials import DEV, LOSS
from mmpt_bench.runs.objectives import groups_of, terms_of_method
from mmpt_bench.runs.request import Request
from mmpt_bench.sources.prepared import Prepared, PreparedTask

if TYPE_CHECKING:
    from mmpt_bench.data.examples import Corpus
    from mmpt_bench.data.samples import Prediction
    from mmpt_bench.engine.models.backbone import Backbone
    from mmpt_bench.records.budget import Budget

VALIDATION_BATCH = 64


@dataclass(frozen=True)
class Judge:
    """What the models of a search are scored on."""

    criterion: str
    dev: Mapping[str, PreparedTask]
    """Empty for a validation loss."""
    test: Mapping[str, PreparedTask]
    """For scores that no choice reads; empty where none are asked for."""

    @property
    def fingerprint(self) -> str:
        """Returns that of the rows of the dev part; empty for a validation loss."""
        rows = [[name, item.task.version, item.rows.fingerprint, item.limit] for name, item in self.dev.items()]
        return content_key(rows) if rows else ""


def prepare(request: Request, has_dev: bool, also_test: bool) -> tuple[Prepared, Judge]:
    """Returns what a search runs on, and what its models are scored on.

    Args:
        request: its tasks are those of the dev part.
        has_dev: score on their dev part; else by the validation loss.
        also_test: score on their test part too.

    Raises:
        RequestError: test scores without a dev part, or a task that has none, or whose images cannot be used.
    """
    if also_test and not has_dev:
        raise RequestError("`--also-test` is for a search by dev score: name the tasks with `--dev-tasks`.")
    prepared = request.prepare(request.prepare_tasks(is_dev=True) if has_dev else {})
    test = request.prepare().tasks if also_test else {}
    for item in (*prepared.tasks.values(), *test.values()):
        if item.faults:
            raise RequestError(f"{item.task.title}: {item.failure}")
    return prepared, Judge(DEV if has_dev else LOSS, prepared.tasks, test)


@dataclass(frozen=True)
class Result:
    """What a trained model scored on one part."""

    score: float | None
    """Mean over tasks, or a validation loss with a minus sign; None where the trial failed."""
    by_task: dict[str, float]
    reason: str = ""


@dataclass(frozen=True)
class Trainer:
    """What all trials of a command share."""

    backbone: Backbone
    corpus: Corpus
    budget: Budget
    judge: Judge
    eval_batch: int
    micro_batch: int | None
    gradient_checkpointing: bool
    stopping: Callable[[], bool]

    def trial(
        self, method: Any, rate: float, seed: int, checkpoint: Path, parts: Sequence[str]
    ) -> tuple[dict[str, Result], float]:
        """Trains once and returns (results on "dev" and "test", as asked for; seconds, with those of earlier sittings).

        Raises:
            Interrupted: `stopping` said so; the training's checkpoint is on the disk.
            RequestError: a user's own method leaves the backbone changed, which the next trial would begin with.
        """
        from mmpt_bench.engine.adapters.trial import traces
        from mmpt_bench.engine.training.train import TrainingConfig, train

        began = time.perf_counter()
        method = dataclasses.replace(method, learning_rate=rate)
        was = traces(self.backbone) if is_own(method) else None
        with own_faults(is_own(method)):
            handle = method.attach(self.backbone, derive(seed, "init"))
        try:
            with own_faults(is_own(method)):
                how = (groups_of(method, self.backbone), self.micro_batch, self.gradient_checkpointing)
                made, terms = TrainingConfig(self.budget, rate, seed, *how), terms_of_method(method)
                trained = train(
                    self.backbone, handle, self.corpus, made, checkpoint, stopping=self.stopping, terms=terms
                )
                began = time.perf_counter() - trained.seconds
                handle.let_go()
            found = {part: self._result(part) for part in parts}
        except RunFailed as error:
            found = {part: Result(None, {}, str(error)) for part in parts}
        finally:
            handle.remove()
        if was is not None and was != traces(self.backbone):
            raise RequestError(
                f"`{method.name}`: `remove` leaves the backbone changed, with which the next trial would begin. "
                "Correct the method; `mmpt-bench check` says what it leaves."
            )
        return found, time.perf_counter() - began

    def _result(self, part: str) -> Result:
        tasks = self.judge.dev if part == "dev" else self.judge.test
        try:
            if tasks:
                by_task = {name: self._score(item) for name, item in tasks.items()}
                return Result(math.fsum(by_task.values()) / len(by_task), by_task)
            return Result(-self._loss(), {})
        except RunFailed as error:
            return Result(None, {}, str(error))

    def _loss(self) -> float:
        from mmpt_bench.engine.training.train import validation_loss

        loss = validation_loss(self.backbone, self.corpus, VALIDATION_BATCH, self.budget.max_length)
        if not math.isfinite(loss):
            raise RunFailed(f"the validation loss is {loss}")
        return loss

    def _score(self, item: PreparedTask) -> float:
        """Returns the chance-centred constrained score on a task, by the prediction and the metric of every run."""
        from mmpt_bench.engine.inference.predict import InferenceOptions, predict

        answered: dict[str, Prediction] = {}
        options = InferenceOptions(self.eval_batch, content_key(item.asked), item.guard)
        for batch in predict(self.backbone, item.task, item.samples, options):
            answered |= {prediction.id: prediction for prediction in batch}
            if self.stopping():
                raise Interrupted(f"while {item.task.title} was asked")
        score = centred_score(item.task, item.samples, [answered[sample.id] for sample in item.samples])
        if score is None:
            raise RunFailed(f"`{item.task.headline}` of {item.task.title} is undefined for its answers")
        return score
