"""What a run is: everything that decides its numbers, resolved and typed before anything is hashed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mmpt_bench.common.values import FieldError
from mmpt_bench.records import keys
from mmpt_bench.records.budget import MOST_SEED, Budget


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
    method_fingerprint: str = ""
    """Of the method's file, where it is a user's own; empty for a built-in one."""
    stage: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of a stream: "strategy"; "order", the tasks up to this one; "after", the runs of the stages before it. Empty for
    a training that begins from the method's own initial values."""

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

    def setting_key(self, suite: str) -> str:
        """Names the setting: runs are ranked together only within one."""
        return keys.setting_key(
            self.backbone_fingerprint, self.corpus_fingerprint, self.known_budget, self.dtype, suite
        )

    @property
    def known_budget(self) -> dict[str, Any]:
        """Returns the budget's fields; empty for an adapter whose training is not known."""
        return {} if self.corpus_fingerprint == keys.UNKNOWN else dataclasses.asdict(self.budget)
