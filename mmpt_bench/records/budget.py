"""What every method is given alike. A file of its own, because the command line reads its defaults at every start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from mmpt_bench.common.values import FieldError
from mmpt_bench.common.words import counted

MOST = 10**9
"""Steps, examples a step, and tokens of an example."""
MOST_SEED = 2**32 - 1
"""Of a run: what every generator of random numbers takes, that of PEFT's methods and of NumPy too."""
SMOKE_STEPS, SMOKE_LIMIT = 3, 8
"""Of a trial that everything works: a training of so many steps, and questions of each task. Not a result."""
SCHEDULES = ("cosine", "constant")
EVAL_BATCH = 64
"""Questions that are answered together; no part of a budget."""
EVERY = 50
"""Steps between two looks at a probe; no part of a budget."""


@dataclass(frozen=True)
class Budget:
    """What every method is given alike."""

    steps: int = 400
    """Optimiser steps."""
    batch_size: int = 16
    """Examples a step, over all processes."""
    warmup: float = 0.03
    """Share of the steps in which the learning rate rises from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the learning rate does after the warm-up."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int = 1024
    """Longest example in tokens; a longer one is refused, a longer conversation ends with an earlier reply."""

    def __post_init__(self) -> None:
        """Raises FieldError for a value with which nothing can be trained."""
        if self.schedule not in SCHEDULES:
            raise FieldError("schedule", f"`schedule` is {str(self.schedule)[:40]}: {' or '.join(SCHEDULES)}.")
        for name in ("steps", "batch_size", "max_length"):
            if not 1 <= getattr(self, name) <= MOST:
                raise FieldError(name, f"`{name}` is {str(getattr(self, name))[:40]}: a number from 1 to {MOST:,}.")
        if not 0 <= self.warmup <= 1:
            raise FieldError("warmup", f"`warmup` is {self.warmup:g}: a share from 0 to 1.")
        if not (self.weight_decay >= 0 and isfinite(self.weight_decay)):
            raise FieldError("weight_decay", f"`weight_decay` is {self.weight_decay:g}: 0 or more.")
        if not (self.max_grad_norm > 0 and isfinite(self.max_grad_norm)):
            raise FieldError("max_grad_norm", f"`max_grad_norm` is {self.max_grad_norm:g}: above 0.")

    @property
    def unusual(self) -> str:
        """Returns in words how a training under it departs from the default length; empty where it does not.

        That of `run --smoke` is called no result.
        """
        usual = Budget()
        if (self.steps, self.batch_size) == (usual.steps, usual.batch_size):
            return ""
        steps, examples = counted(self.steps, "step"), counted(self.batch_size, "example")
        smoke = "; a smoke test, which is no result" if self.steps <= SMOKE_STEPS else ""
        return f"{steps} of {examples}, not the default {usual.steps:,} of {usual.batch_size}{smoke}"


def unusual_told(labels: Mapping[str, Budget]) -> list[str]:
    """Returns a sentence for each length of training that is not the default, with the methods that had it."""
    of: dict[str, list[str]] = {}
    for label, budget in labels.items():
        if budget.unusual:
            of.setdefault(budget.unusual, []).append(label)
    return [f"Trained for {told}: {', '.join(names)}." for told, names in of.items()]
