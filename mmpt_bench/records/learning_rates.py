"""Which learning rate a method trains with, and how it was chosen: the same number of tries for every method.

A search draws rates from the method's documented range, log-uniform and quasi-random, trains each with the run's own
budget and keeps the one with the lowest loss on the validation part. As many further ones follow for each method:
beyond the range where the best was at its edge, else between the best and its neighbours. The result is a JSON file
beside the results, or, for the embedded backbone, in the package; every trial is kept as a line of another file.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import loads
from mmpt_bench.common.values import from_plain
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.keys import earlier_params, without_rate

FILE = "learning_rates.json"
TRIALS = "learning_rate_trials.jsonl"
BEYOND = math.sqrt(10)
"""How far beyond the edge the next rate lies."""
SEED = 1000
"""Of every trial: none that a board shows."""


@dataclass(frozen=True)
class Choice:
    """A searched learning rate."""

    method: str
    params: dict[str, Any]
    """The hyperparameters it was searched with, without the rate."""
    backbone_fingerprint: str
    corpus_fingerprint: str
    budget: dict[str, Any]
    trials: tuple[tuple[float, float | None], ...]
    """(rate, validation loss), in the order tried; None where training failed."""
    extended: int = 0
    """How many of them, the last, followed from those before instead of being drawn."""

    @property
    def drawn(self) -> tuple[tuple[float, float | None], ...]:
        """Returns the trials that were drawn from the range."""
        return self.trials[: len(self.trials) - self.extended]

    @property
    def best(self) -> float:
        """Returns the rate with the lowest validation loss (ValueError where every trial failed)."""
        return min((loss, rate) for rate, loss in self.trials if loss is not None)[1]

    @property
    def at_edge(self) -> bool:
        """Returns whether the best rate is the lowest or the highest that was tried: the true one may lie beyond."""
        rates = sorted(rate for rate, _ in self.trials)
        return self.best in (rates[0], rates[-1])


def candidates(lowest: float, highest: float, n: int) -> list[float]:
    """Returns `n` rates, log-uniform over the range: van der Corput's sequence in base 2, three significant digits."""
    rates = []
    for i in range(1, n + 1):
        fraction, scale, k = 0.0, 0.5, i
        while k:
            fraction, scale, k = fraction + scale * (k % 2), scale / 2, k // 2
        rate = math.exp(math.log(lowest) + fraction * (math.log(highest) - math.log(lowest)))
        rates.append(float(f"{rate:.3g}"))
    return rates


def next_rate(trials: Sequence[tuple[float, float | None]]) -> float:
    """Returns the rate to try after some trials: the same rule for every method, from the trials alone.

    Beyond the best by a factor of `BEYOND` where it is the lowest or highest tried; else in the middle (of the
    logarithms) of the wider gap beside it. Where all failed, below the lowest.
    """
    losses = dict(trials)
    known = sorted(losses)
    finished = [rate for rate in known if losses[rate] is not None]
    if not finished:
        return float(f"{known[0] / BEYOND:.3g}")
    best = min(finished, key=lambda rate: (losses[rate], rate))
    place = known.index(best)
    if place == len(known) - 1:
        return float(f"{best * BEYOND:.3g}")
    if place == 0:
        return float(f"{best / BEYOND:.3g}")
    below, above = known[place - 1], known[place + 1]
    other = above if above / best >= best / below else below
    return float(f"{math.sqrt(best * other):.3g}")


def expected_best(trials: Sequence[tuple[float, float | None]]) -> list[float | None]:
    """Returns the lowest validation loss to be expected from 1, 2, ... of these trials, drawn without replacement.

    The mean over all subsets of a size, in closed form: sum over the sorted losses of loss x C(n - i, k - 1) / C(n, k).
    It is unbiased, unlike the estimate of Dodge et al. (2019, arXiv:1909.03004), as Tang et al. show (2020,
    arXiv:2004.13705). A trial that failed gives nothing to choose: subsets of such alone are left out, and a size is
    None where all its subsets are.
    """
    losses = sorted(loss for _, loss in trials if loss is not None)
    n = len(trials)
    found: list[float | None] = []
    for k in range(1, n + 1):
        weights = [math.comb(n - i, k - 1) for i in range(1, len(losses) + 1)]
        total = sum(weights)
        found.append(sum(w * loss for w, loss in zip(weights, losses, strict=True)) / total if total else None)
    return found


def read(path: Path) -> list[Choice]:
    """Returns the choices of a file; none where there is no file, UntrustedRecord for one that is damaged."""
    if not path.is_file():
        return []
    try:
        return [_choice(entry) for entry in loads(path.read_bytes())]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UntrustedRecord(
            f"`{path.name}` is damaged: {str(error)[:100]}. Remove it; `mmpt-bench tune` makes it anew from trials "
            "that are kept."
        ) from error


def _choice(entry: dict[str, Any]) -> Choice:
    """Returns one entry of the file; ValueError and the like for one that is none."""
    trials = tuple((float(rate), None if loss is None else float(loss)) for rate, loss in entry["trials"])
    known = from_plain(_Kept, {name: value for name, value in entry.items() if name != "trials"})
    if not all(rate > 0 for rate, _ in trials):
        raise ValueError("a learning rate is not above 0")
    from_plain(Budget, known.budget)
    return Choice(**vars(known), trials=trials)


@dataclass(frozen=True)
class _Kept:
    """What the file holds of a choice beside its trials."""

    method: str
    params: dict[str, Any]
    backbone_fingerprint: str
    corpus_fingerprint: str
    budget: dict[str, Any]
    extended: int = 0


def dump(choices: Sequence[Choice]) -> str:
    """Returns the text of a file of choices."""
    ordered = sorted(choices, key=lambda c: (c.method, json.dumps(c.params, sort_keys=True), c.backbone_fingerprint))
    return json.dumps([dataclasses.asdict(choice) for choice in ordered], indent=1, sort_keys=True) + "\n"


def shipped() -> Path:
    """Returns the file of the embedded backbone's searched rates."""
    return Path(__file__).parent.parent / "embedded" / FILE


def completed(choice: Choice) -> dict[str, Any]:
    """Returns a choice's hyperparameters with what those that it lacks were fixed to."""
    return choice.params | earlier_params(choice.method, choice.params)


def look_up(
    known: Sequence[Choice],
    method: str,
    params: dict[str, Any],
    backbone: str,
    corpus: str,
    budget: Budget,
    defaults: Mapping[str, Any] | None = None,
) -> tuple[float, str] | None:
    """Returns (rate, how it was chosen) of the search that fits best; None where this method was never searched here.

    A search fits where backbone and corpus agree. One with other hyperparameters or another budget still says more than
    a default, and the answer says so: the one that differs in the fewest, and among those the method's own before a
    variant's. One from before a hyperparameter was there was made with its `defaults`, or with what was fixed then.
    """
    plain = without_rate(params)
    fits = [c for c in known if (c.method, c.backbone_fingerprint, c.corpus_fingerprint) == (method, backbone, corpus)]
    fits = [choice for choice in fits if any(loss is not None for _, loss in choice.trials)]
    if not fits:
        return None
    rest = without_rate(defaults or {})

    def distance(choice: Choice) -> tuple[int, bool, bool]:
        params = rest | completed(choice)
        apart = sum(params.get(name) != value for name, value in plain.items())
        return apart, bool(rest) and params != rest, choice.budget != dataclasses.asdict(budget)

    choice = min(fits, key=distance)
    said = f"searched: {len(choice.trials)} rates on validation data"
    said += "" if rest | completed(choice) == plain else ", with other hyperparameters"
    said += "" if choice.budget == dataclasses.asdict(budget) else f", at {choice.budget['steps']} steps"
    said += ", best at the edge" if choice.at_edge else ""
    return choice.best, said
