"""The search of learning rates: as many tries for each method, on validation data, with the budget of the runs."""

from __future__ import annotations

import dataclasses
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
    known: Sequence[tuple[float, float | None]] = (),
    tell: Callable[[float, float | None, str], None] = lambda rate, loss, why: None,
) -> Choice:
    """Returns the choice after `n_trials` rates from the adapter's own range; those in `known` are not tried again.

    Args:
        adapter: the hyperparameters to search with; its learning rate does not matter.
        known: (rate, validation loss) of trials already made.
        tell: told of each trial: rate, validation loss or None, and why it failed.
    """
    from mmpt_bench.train import train, validation_loss

    made = dict(known)
    lowest, highest = adapter.lr_range
    for rate in rates.candidates(lowest, highest, n_trials):
        if rate in made:
            continue
        handle = dataclasses.replace(adapter, learning_rate=rate).attach(backbone, derive(rates.SEED, "init"))
        try:
            train(backbone, handle, corpus, budget, rate, rates.SEED)
            made[rate] = validation_loss(backbone, corpus, 64, budget.max_length)
            tell(rate, made[rate], "")
        except RunFailed as error:
            made[rate] = None
            tell(rate, None, str(error))
        finally:
            handle.remove()
    params = {name: value for name, value in dataclasses.asdict(adapter).items() if name != "learning_rate"}
    return Choice(
        method=adapter.name,
        params=params,
        backbone_fingerprint=backbone.fingerprint,
        corpus_fingerprint=corpus.fingerprint,
        budget=dataclasses.asdict(budget),
        trials=tuple((rate, made[rate]) for rate in rates.candidates(lowest, highest, n_trials)),
    )
