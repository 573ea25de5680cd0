"""What the outside is told while runs go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmpt_bench.records.recipe import Record
from mmpt_bench.runs.plan import Job


@dataclass
class Reporter:
    """What the outside is told while runs go on; each call is one event."""

    train_step: Callable[[Job, Any], None] = lambda job, step: None
    evaluated: Callable[[Job, str, int, int], None] = lambda job, task, done, total: None
    finished: Callable[[Record], None] = lambda record: None
    said: Callable[[str], None] = lambda text: None
