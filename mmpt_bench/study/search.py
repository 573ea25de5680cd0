"""The search of learning rates: as many tries for each method, on validation data, with the budget of the runs."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RunFailed, UntrustedRecord
from mmpt_bench.common.files import read_jsonl, write_atomic
from mmpt_bench.common.hashing import derive
from mmpt_bench.records import learning_rates
from mmpt_bench.records.learning_rates import Choice
from mmpt_bench.records.recipe import Budget
from mmpt_bench.records.store import Store
from mmpt_bench.runs.request import Request

if TYPE_CHECKING:
    from mmpt_bench.data.examples import Corpus
    from mmpt_bench.engine.models.backbone import Backbone


def _place(adapter: Any, backbone: str, corpus: str, request: Request) -> dict[str, Any]:
    """Returns what trials must share to be of one search."""
    params = {name: value for name, value in dataclasses.asdict(adapter).items() if name != "learning_rate"}
    return {
        "method": adapter.name, "params": params, "backbone_fingerprint": backbone, "corpus_fingerprint": corpus,
        "budget": dataclasses.asdict(request.budget),
    }  # fmt: skip


def _known(store: Store, place: Mapping[str, Any]) -> list[tuple[float, float | None]]:
    """Returns (rate, loss) of the trials that were made already."""
    found = []
    for number, row in enumerate(read_jsonl(store.path(learning_rates.TRIALS)), start=1):
        try:
            if all(row[name] == value for name, value in place.items()):
                found.append((float(row["rate"]), None if row["loss"] is None else float(row["loss"])))
        except (KeyError, TypeError, ValueError) as error:
            raise UntrustedRecord(
                f"Line {number} of `{learning_rates.TRIALS}` is no trial. Remove that line."
            ) from error
    return found


def _keep(store: Store, choice: learning_rates.Choice) -> None:
    """Writes a choice in the place of an earlier one of the same search."""
    path = store.path(learning_rates.FILE)
    same = dataclasses.replace(choice, trials=(), extended=0)
    others = [each for each in learning_rates.read(path) if dataclasses.replace(each, trials=(), extended=0) != same]
    write_atomic(path, learning_rates.dump([*others, choice]).encode())


def search(
    backbone: Backbone,
    corpus: Corpus,
    adapter: Any,
    budget: Budget,
    n_trials: int,
    n_extended: int = 0,
    rate_range: tuple[float, float] | None = None,
    known: Sequence[tuple[float, float | None]] = (),
    tell: Callable[[float, float | None, str, float], None] = lambda rate, loss, why, seconds: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Choice:
    """Returns the choice after `n_trials` rates from a range and `n_extended` that follow from them.

    Args:
        backbone: to train on.
        corpus: with the validation part that decides.
        adapter: the hyperparameters to search with; its learning rate does not matter.
        budget: of each trial.
        n_trials: rates that are drawn.
        n_extended: rates that `rates.next_rate` adds.
        rate_range: lowest and highest; by default the adapter's own.
        known: (rate, validation loss) of trials already made, which are not made again.
        tell: told of each new trial: rate, validation loss or None, why it failed, and seconds.
        stopping: asked after every step; `Interrupted` is raised when it says so.
    """
    made = dict(known)

    def tried(rate: float) -> tuple[float, float | None]:
        if rate not in made:
            began = time.perf_counter()
            made[rate], why = _trial(backbone, corpus, adapter, budget, rate, stopping)
            tell(rate, made[rate], why, time.perf_counter() - began)
        return rate, made[rate]

    lowest, highest = rate_range or adapter.lr_range
    trials = [tried(rate) for rate in learning_rates.candidates(lowest, highest, n_trials)]
    for _ in range(n_extended):
        trials.append(tried(learning_rates.next_rate(trials)))
    params = {name: value for name, value in dataclasses.asdict(adapter).items() if name != "learning_rate"}
    return Choice(
        method=adapter.name,
        params=params,
        backbone_fingerprint=backbone.fingerprint,
        corpus_fingerprint=corpus.fingerprint,
        budget=dataclasses.asdict(budget),
        trials=tuple(trials),
        extended=n_extended,
    )


def _trial(
    backbone: Backbone, corpus: Corpus, adapter: Any, budget: Budget, rate: float, stopping: Callable[[], bool]
) -> tuple[float | None, str]:
    """Returns (validation loss, why there is none)."""
    from mmpt_bench.engine.training.train import train, validation_loss

    handle = dataclasses.replace(adapter, learning_rate=rate).attach(backbone, derive(learning_rates.SEED, "init"))
    try:
        train(backbone, handle, corpus, budget, rate, learning_rates.SEED, stopping=stopping)
        loss = validation_loss(backbone, corpus, 64, budget.max_length)
    except RunFailed as error:
        return None, str(error)
    finally:
        handle.remove()
    return (loss, "") if math.isfinite(loss) else (None, f"the validation loss is {loss}")
