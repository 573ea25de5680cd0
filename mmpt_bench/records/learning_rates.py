"""Which learning rate a method trains with, and how it was chosen: the same search for every method.

The protocol is in rate_curve.py, its trials in rate_trials.py. What comes of a search, the choice with its whole curve,
is an entry of a JSON file beside the results, or, for the embedded backbone, in the package.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import loads
from mmpt_bench.common.values import from_plain
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.keys import earlier_params, without_rate
from mmpt_bench.records.rate_curve import FIRST_SEED, Curve, Point
from mmpt_bench.records.rate_trials import DEV, LOSS, Search

FILE = "learning_rates.json"


@dataclass(frozen=True)
class Choice:
    """A finished search, and the rate that it chose."""

    search: Search
    curve: Curve
    extended: int = 0
    """Rates of the curve that lie beyond the grid."""
    tasks: tuple[str, ...] = ()
    """Of the dev part; empty for a validation loss."""

    @property
    def rate(self) -> float | None:
        """Returns the chosen rate; None where all rates failed."""
        return None if self.curve.chosen is None else self.curve.chosen.rate

    @property
    def width(self) -> float | None:
        """Returns the decades within 1 point of the best rate; None for a validation loss, which has no points."""
        return self.curve.width if self.search.criterion == DEV else None

    @property
    def collapsed(self) -> tuple[float, ...]:
        """Returns the rates whose worst seed is more than 3 points below their mean; none for a validation loss."""
        return self.curve.collapsed if self.search.criterion == DEV else ()

    @property
    def n_trainings(self) -> int:
        """Returns how many trainings the curve is made from."""
        return sum(len(point.scores) for point in self.curve.points)

    @property
    def said(self) -> str:
        """Returns how the rate was chosen, for records: "searched: dev score, 11 rates, 5 seeds"."""
        seeds = max(len(point.scores) for point in self.curve.points)
        counts = f"{_counted(len(self.curve.points), 'rate')}, {_counted(seeds, 'seed')}"
        return f"searched: {self.search.criterion}, {counts}"

    @property
    def flags(self) -> list[str]:
        """Returns what a reader of the rate must know."""
        chosen, width = self.curve.chosen, self.width
        found = [f"{width:.2g} decades within 1 point of the best"] if width is not None else []
        found += ["best at the edge"] if self.curve.at_edge else []
        found += (
            ["worst seed over 3 points below the mean"] if chosen is not None and chosen.rate in self.collapsed else []
        )
        return found


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def read(path: Path) -> list[Choice]:
    """Returns the choices of a file; none where there is no file, UntrustedRecord for one that is damaged."""
    if not path.exists():
        return []
    try:
        entries = loads(path.read_bytes())
        if not isinstance(entries, list) or not entries:
            raise ValueError("it is no list of searches")
        return [_choice(entry) for entry in entries]
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UntrustedRecord(
            f"`{path.name}` is damaged: {str(error)[:100]}. Remove it; `mmpt-bench tune` makes it anew from trials "
            "that are kept."
        ) from error


def _choice(entry: dict[str, Any]) -> Choice:
    """Returns one entry of the file; ValueError and the like for one that is none."""
    if "trials" in entry:
        entry = _before_dev_scores(entry)
    search = from_plain(Search, entry["search"])
    points = tuple(
        Point(float(of["rate"]), tuple((int(seed), None if s is None else float(s)) for seed, s in of["scores"]))
        for of in entry["curve"]
    )
    if not points or not all(point.rate > 0 and point.scores for point in points):
        raise ValueError("a curve has no rate, a rate no seed, or is not above 0")
    from_plain(Budget, search.budget)
    ordered = tuple(sorted(points, key=lambda point: point.rate))
    return Choice(search, Curve(ordered), int(entry["extended"]), tuple(map(str, entry["tasks"])))


def _before_dev_scores(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns an entry of an earlier version: in float32, one seed a rate, chosen by the validation loss."""
    known = ("method", "params", "backbone_fingerprint", "corpus_fingerprint", "budget")
    curve = [
        {"rate": rate, "scores": [[FIRST_SEED, None if loss is None else -float(loss)]]}
        for rate, loss in entry["trials"]
    ]
    search = {name: entry[name] for name in known} | {"criterion": LOSS}
    return {"search": search, "curve": curve, "extended": entry.get("extended", 0), "tasks": []}


def dump(choices: Sequence[Choice]) -> str:
    """Returns the text of a file of choices; means and the like are for readers, and are made anew when it is read."""
    ordered = sorted(
        choices, key=lambda c: (c.search.method, json.dumps(c.search.params, sort_keys=True), c.search.key)
    )
    return json.dumps([_entry(choice) for choice in ordered], indent=1, sort_keys=True) + "\n"


def _entry(choice: Choice) -> dict[str, Any]:
    points = [
        {"rate": of.rate, "scores": of.scores, "n": len(of.scores), "mean": of.mean, "worst": of.worst}
        for of in choice.curve.points
    ]
    told = {"rate": choice.rate, "at_edge": choice.curve.at_edge, "width_decades": choice.width,
            "collapsed": choice.collapsed}  # fmt: skip
    kept = {"curve": points, "extended": choice.extended, "tasks": choice.tasks}
    return {"search": dataclasses.asdict(choice.search)} | kept | told


def shipped() -> Path:
    """Returns the file of the embedded backbone's searched rates."""
    return Path(__file__).parent.parent / "embedded" / FILE


def completed(search: Search) -> dict[str, Any]:
    """Returns a search's hyperparameters with what those that it lacks were fixed to."""
    return search.params | earlier_params(search.method, search.params)


@dataclass(frozen=True)
class Wanted:
    """What a rate is looked up for."""

    method: str
    params: Mapping[str, Any]
    backbone_fingerprint: str
    corpus_fingerprint: str
    budget: Budget
    dtype: str = "float32"
    """As records say it."""
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Hyperparameters that the method has where nothing is set."""


def look_up(known: Sequence[Choice], wanted: Wanted) -> tuple[float, str] | None:
    """Returns (rate, how it was chosen) of the search that fits best; None where this method was never searched here.

    A search fits where backbone, corpus and precision agree. One with other hyperparameters or another budget still
    says more than a default, and the answer says so: the one that differs in the fewest, and among those the method's
    own before a variant's, and a dev score before a validation loss. One from before a hyperparameter was there was
    made with its default, or with what was fixed then.
    """
    plain, rest = without_rate(wanted.params), without_rate(wanted.defaults)
    budget = dataclasses.asdict(wanted.budget)
    same = (wanted.method, wanted.backbone_fingerprint, wanted.corpus_fingerprint, wanted.dtype)

    def fits(of: Search) -> bool:
        return (of.method, of.backbone_fingerprint, of.corpus_fingerprint, of.dtype) == same

    def distance(choice: Choice) -> tuple[int, bool, bool, bool]:
        params = rest | completed(choice.search)
        apart = sum(params.get(name) != value for name, value in plain.items())
        is_variant, is_loss = bool(rest) and params != rest, choice.search.criterion != DEV
        return apart, is_variant, choice.search.budget != budget, is_loss

    choice = min((c for c in known if fits(c.search) and c.rate is not None), key=distance, default=None)
    if choice is None or choice.rate is None:
        return None
    said = [choice.said, *choice.flags]
    said += [] if rest | completed(choice.search) == plain else ["with other hyperparameters"]
    apart = {name: value for name, value in choice.search.budget.items() if value != budget.get(name)}
    said += [f"at {value} steps" if name == "steps" else f"with {name} {value}" for name, value in apart.items()]
    return choice.rate, ", ".join(said)
