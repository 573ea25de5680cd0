"""What the outside is told while runs go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt_bench.records.record import Record
from mmpt_bench.runs.plan import Job, Plan


@dataclass(frozen=True)
class Reporter:
    """What the outside is told while runs go on; each call is one event, and by default nobody listens."""

    planned: Callable[[Sequence[Plan]], None] = lambda plans: None
    """What is to be done, before any of it."""
    train_step: Callable[[Job, Any], None] = lambda job, step: None
    """An optimiser step is done (engine.training.train.Step)."""
    evaluated: Callable[[Job, str, int, int], None] = lambda job, task, done, total: None
    """So many of a task's questions are answered."""
    finished: Callable[[Record], None] = lambda record: None
    """A record is on the disk."""
    said: Callable[[str], None] = lambda text: None
    """A sentence for people."""
