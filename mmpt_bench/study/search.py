"""The search of learning rates: as many tries for each method, on the validation set, with the budget of the runs."""

from __future__ import annotations

import dataclasses
import datetime
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError, RunFailed, UntrustedRecord
from mmpt_bench.common.files import append_jsonl, read_jsonl, write_atomic
from mmpt_bench.common.hashing import derive
from mmpt_bench.records import learning_rates
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.keys import RATE, without_rate
from mmpt_bench.records.learning_rates import Choice
from mmpt_bench.records.store import Store
from mmpt_bench.runs.bad_items import check_examples
from mmpt_bench.runs.request import Request

if TYPE_CHECKING:
    from mmpt_bench.data.examples import Corpus
    from mmpt_bench.engine.models.backbone import Backbone

Range = tuple[float, float]


@dataclass(frozen=True)
class Trial:
    """One learning rate that was tried."""

    method: str
    rate: float
    loss: float | None
    """Validation loss; None where training failed."""
    reason: str
    """Why it failed."""
    seconds: float


def tune(
    request: Request,
    n_trials: int,
    n_extended: int,
    ranges: Mapping[str, Range],
    told: Callable[[Trial], None] = lambda trial: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Choice]:
    """Yields the choice for each method, keeping every trial in the results folder; trials made before count.

    Args:
        request: its methods, with the hyperparameters to search with, training data and budget.
        n_trials: rates that are drawn.
        n_extended: rates that `learning_rates.next_rate` adds.
        ranges: method -> lowest and highest rate, where they are not the method's own.
        told: of each new trial.
        stopping: asked after every step; `Interrupted` is raised when it says so.

    Raises:
        RequestError: a rate is given, none of the methods has one, or examples cannot be used.
    """
    from mmpt_bench.engine.models.backbone import load_backbone

    for name, texts in request.overrides.items():
        if RATE in texts:
            raise RequestError(f"`--set {name}.learning_rate`: the rate is what is searched; `--range` says where.")
    store = Store(request.out)
    methods = [method for entry in request.methods if (method := request.method_of(entry)).trains]
    if not methods:
        raise RequestError("None of these methods has a learning rate to search.")
    store.check_writable()
    check_examples(corpus := request.checked_corpus())
    backbone = load_backbone(request.backbone, request.dtype, request.device, request.offline)
    for method in methods:
        search = {
            "method": method.name,
            "params": without_rate(dataclasses.asdict(method)),
            "backbone_fingerprint": backbone.fingerprint,
            "corpus_fingerprint": corpus.fingerprint,
            "budget": dataclasses.asdict(request.budget),
        }
        made = _known(store, search)

        def loss_at(rate: float, method: Any = method, search: Any = search, made: Any = made) -> float | None:
            if rate not in made:
                began = time.perf_counter()
                made[rate], why = _trial(backbone, corpus, method, request.budget, rate, stopping)
                trial = Trial(method.name, rate, made[rate], why, time.perf_counter() - began)
                _keep_trial(store, search, trial)
                told(trial)
            return made[rate]

        lowest, highest = ranges.get(method.name, method.lr_range)
        trials = [(rate, loss_at(rate)) for rate in learning_rates.candidates(lowest, highest, n_trials)]
        for _ in range(n_extended):
            rate = learning_rates.next_rate(trials)
            trials.append((rate, loss_at(rate)))
        choice = Choice(**search, trials=tuple(trials), extended=n_extended)  # type: ignore[arg-type]
        _keep(store, choice)
        yield choice


def _known(store: Store, search: Mapping[str, Any]) -> dict[float, float | None]:
    """Returns rate -> loss of the trials of a search that were made already."""
    found = {}
    for number, row in enumerate(read_jsonl(store.path(learning_rates.TRIALS)), start=1):
        try:
            if all(row[name] == value for name, value in search.items()):
                found[float(row["rate"])] = None if row["loss"] is None else float(row["loss"])
        except (KeyError, TypeError, ValueError) as error:
            raise UntrustedRecord(
                f"Line {number} of `{learning_rates.TRIALS}` is no trial. Remove that line."
            ) from error
    return found


def _keep_trial(store: Store, search: Mapping[str, Any], trial: Trial) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result = {"rate": trial.rate, "loss": trial.loss, "reason": trial.reason, "seconds": round(trial.seconds, 1)}
    append_jsonl(store.path(learning_rates.TRIALS), {**search, **result, "time": now})


def _keep(store: Store, choice: Choice) -> None:
    """Writes a choice in the place of an earlier one of the same search."""
    path = store.path(learning_rates.FILE)
    same = dataclasses.replace(choice, trials=(), extended=0)
    others = [each for each in learning_rates.read(path) if dataclasses.replace(each, trials=(), extended=0) != same]
    write_atomic(path, learning_rates.dump([*others, choice]).encode())


def _trial(
    backbone: Backbone, corpus: Corpus, method: Any, budget: Budget, rate: float, stopping: Callable[[], bool]
) -> tuple[float | None, str]:
    """Returns (validation loss, why there is none)."""
    from mmpt_bench.engine.training.train import TrainingConfig, train, validation_loss

    handle = dataclasses.replace(method, learning_rate=rate).attach(backbone, derive(learning_rates.SEED, "init"))
    try:
        train(backbone, handle, corpus, TrainingConfig(budget, rate, learning_rates.SEED), stopping=stopping)
        loss = validation_loss(backbone, corpus, 64, budget.max_length)
    except RunFailed as error:
        return None, str(error)
    finally:
        handle.remove()
    return (loss, "") if math.isfinite(loss) else (None, f"the validation loss is {loss}")
