"""What a run is: everything that decides its numbers, resolved and typed before anything is hashed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmpt_bench.common.values import FieldError
from mmpt_bench.common.words import counted
from mmpt_bench.records import keys
from mmpt_bench.records.budget import MOST_SEED, Budget


def learnt(corpus: str, stage: Mapping[str, Any]) -> str:
    """Returns what a run learnt: "vsr train"; of a stream, "replay:0.1, mnist → vsr"; or with what came before."""
    if "order" in stage:
        return f"{stage['strategy']}, {' → '.join(stage['order'])}"
    return f"{corpus} after {counted(stage['steps'], 'step')} on {stage['of'][0]}" if "from" in stage else corpus


STOPS = "stops at an alarm"


def stops_at(stage: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a label says of a training that an alarm may end: {"stops at an alarm": "mnist every 50"}."""
    return {STOPS: f"{' '.join(stage['stop'])} every {stage['every']}"} if "stop" in stage else {}


@dataclass(frozen=True)
class Recipe:
    """One training: its `train_key` names the run."""

    backbone: str
    backbone_fingerprint: str
    corpus: str
    corpus_fingerprint: str
    method: str
    params: dict[str, Any]
    """The method's hyperparameters, all of them, resolved."""
    budget: Budget
    seed: int
    dtype: str = "float32"
    """Or a half precision as `keys.precision` calls it."""
    world_size: int = 1
    """Always 1, however many ranks share the training: it is the same run. A record says how many there were."""
    method_fingerprint: str = ""
    """Of the method's file, where it is a user's own; empty for a built-in one."""
    stage: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How the training departs from the usual one, which begins from the method's own initial values.

    Of a stream: "strategy"; "order", the tasks up to this one; "after", the runs of the stages before it. "from":
    the run whose adapter it begins with; "of", "variant", "seed" and "steps": its training data, learning rate and
    batch size, all of its recipe but the seed, its seed, and for how many steps it was trained. "meta": tasks over
    whose training splits Reptile learns an initial value. "stop" and "every": tasks that are looked at, an alarm on
    which ends the training, and steps between two looks."""
    objective: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What is learnt from a teacher, as `runs/objectives.Distillation`; empty for a training on answers alone."""

    def __post_init__(self) -> None:
        """Raises FieldError for what no run can have."""
        if not 0 <= self.seed <= MOST_SEED:
            raise FieldError("seed", f"`seed` is {str(self.seed)[:40]}: a number from 0 to {MOST_SEED:,}.")
        if self.world_size < 1:
            raise FieldError("world_size", f"`world_size` is {self.world_size}: 1 or more.")

    @property
    def train_key(self) -> str:
        """Names the training: the same for the same request everywhere, another one as soon as a figure may differ."""
        return keys.train_key(dataclasses.asdict(self))

    @property
    def run_name(self) -> str:
        """Name of the run's folder."""
        return f"{self.method}-{self.train_key}"

    @property
    def variant_key(self) -> str:
        """Names the training without its seed: what seeds are averaged over."""
        return keys.variant_key(self, self.known_budget)

    def setting_key(self, suite: str, asking: Mapping[str, Any] | None = None) -> str:
        """Names the setting: runs are ranked together only within one; `asking` is that of a record."""
        return keys.setting_key(
            self.backbone_fingerprint, self.corpus_fingerprint, self.known_budget, self.dtype, suite, asking or {}
        )

    @property
    def known_budget(self) -> dict[str, Any]:
        """Returns the budget's fields, with the steps of a run that it begins from; empty where they are not known."""
        if self.corpus_fingerprint == keys.UNKNOWN:
            return {}
        return dataclasses.asdict(self.budget) | {"steps": self.budget.steps + self.stage.get("steps", 0)}
