"""The search of learning rates: as many tries for each method, on validation data, with the budget of the runs."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench import rates
from mmpt_bench.errors import RunFailed
from mmpt_bench.hashing import derive
from mmpt_bench.rates import Choice
from mmpt_bench.recipe import Budget

if TYPE_CHECKING:
    from mmpt_bench.backbone import Backbone
    from mmpt_bench.corpus import Corpus


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
    trials = [tried(rate) for rate in rates.candidates(lowest, highest, n_trials)]
    for _ in range(n_extended):
        trials.append(tried(rates.next_rate(trials)))
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
    from mmpt_bench.train import train, validation_loss

    handle = dataclasses.replace(adapter, learning_rate=rate).attach(backbone, derive(rates.SEED, "init"))
    try:
        train(backbone, handle, corpus, budget, rate, rates.SEED, stopping=stopping)
        loss = validation_loss(backbone, corpus, 64, budget.max_length)
    except RunFailed as error:
        return None, str(error)
    finally:
        handle.remove()
    return (loss, "") if math.isfinite(loss) else (None, f"the validation loss is {loss}")
