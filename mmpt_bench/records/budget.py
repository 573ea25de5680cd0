"""What every method is given alike. A file of its own, because the command line reads its defaults at every start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
