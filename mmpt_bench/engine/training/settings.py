"""What the optimizer is given: the learning rate of each step, and groups of parameters with settings of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmpt_bench.common.errors import RunFailed
from mmpt_bench.engine.adapters.attachment import Group
from mmpt_bench.records.budget import Budget


@dataclass(frozen=True)
class TrainingConfig:
    """What decides a training, beside its examples and the adapter's first values."""

    budget: Budget
    rate: float
    """Peak learning rate."""
    seed: int
    groups: tuple[Group, ...] = ()
    """Parameters with settings of their own."""
    micro_batch: int | None = None
    """Most examples that a rank computes in one pass; None: as many as it has of a batch."""
    gradient_checkpointing: bool = False
    """Layers keep their input alone, and are computed again on the way back: less memory, more time, equal gradients
    to rounding."""


def learning_rate(step: int, budget: Budget, peak: float) -> float:
    """Returns the rate of step 0..steps-1: a linear rise over the warm-up, then a cosine to 0, or a plateau."""
    warm = max(1, round(budget.warmup * budget.steps))
    if step < warm:
        return peak * (step + 1) / warm
    if budget.schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, budget.steps - warm)))


def grouped(parameters: Mapping[str, nn.Parameter], config: TrainingConfig) -> list[dict[str, Any]]:
    """Returns parameters as an optimizer takes them, with the factor of the learning rate as "rate"; no empty group.

    Raises RunFailed for a group of no parameter.
    """
    decay = config.budget.weight_decay
    plain: dict[str, Any] = {"params": [], "rate": 1.0, "weight_decay": decay}
    own: list[dict[str, Any]] = [
        {"params": [], "rate": one.rate, "weight_decay": decay if one.weight_decay is None else one.weight_decay}
        for one in config.groups
    ]
    for name, parameter in parameters.items():
        fits = (made for one, made in zip(config.groups, own, strict=True) if name.startswith(one.prefix))
        next(fits, plain)["params"].append(parameter)
    for one, made in zip(config.groups, own, strict=True):
        if not made["params"]:
            raise RunFailed(f"the method's group `{one.prefix}` holds no parameter that is trained")
    return [made for made in (plain, *own) if made["params"]]


def in_force(group: Mapping[str, Any], rate: float) -> dict[str, float]:
    """Returns parameters, peak learning rate and weight decay of a group, as they are in force."""
    n = sum(parameter.numel() for parameter in group["params"])
    return {"parameters": n, "learning_rate": rate * group["rate"], "weight_decay": group["weight_decay"]}
