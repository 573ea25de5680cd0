"""Which trained parameters the loss reaches: one that never has a gradient would be saved as it began."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mmpt_bench.common.errors import RunFailed
from mmpt_bench.engine.adapters.attachment import whole

WITHIN = 10
"""Steps in which every parameter must have had a gradient that is not zero. A factor of a product that begins at zero
keeps the others without one for a step (LoRA's A; three factors, for two), and what only some examples reach, as a row
of tiles, comes by in ten batches."""
LEAST = 3
"""Steps below which nothing is said of a training: factors that begin at zero may still wait."""


class Reached:
    """The parameters that have had no gradient yet; of a stack of three dimensions, each set by itself."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = parameters
        self.waiting = [(name, i) for name, p in parameters.items() for i in range(len(p) if p.dim() == 3 else 1)]

    def note(self) -> None:
        """Looks at the gradients of a step."""
        names = [name for name in dict.fromkeys(name for name, _ in self.waiting)]
        found = {name: whole(grad) for name in names if (grad := self._parameters[name].grad) is not None}
        if not found:
            return
        seen = [(g != 0).flatten(1).any(1) if g.dim() == 3 else (g != 0).any()[None] for g in found.values()]
        places = [(name, i) for (name, _), one in zip(found.items(), seen, strict=True) for i in range(len(one))]
        hits = torch.cat([one.to(seen[0].device) for one in seen]).tolist()
        reached = {place for place, hit in zip(places, hits, strict=True) if hit}
        self.waiting = [place for place in self.waiting if place not in reached]

    def judge(self, step: int, steps: int) -> None:
        """Raises RunFailed where a parameter still waits at the step of 1..steps by which none may."""
        if not self.waiting or step < LEAST or step < min(WITHIN, steps):
            return
        name, i = self.waiting[0]
        where = f"`{name}`" + (f" (set {i})" if self._parameters[name].dim() == 3 else "")
        raise RunFailed(
            f"step {step}: {len(self.waiting)} trained parameters have had no gradient, first {where}: the loss does "
            "not reach them. Leave them frozen, or let the model's output depend on them."
        )
