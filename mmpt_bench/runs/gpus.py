"""Hours on one GPU and on many: units of work, who does them, and what their operations take where nothing is measured.

A unit is a run, its training and then its evaluations. Workers take units in the order of the plan, each the next one
when it is free (list scheduling, Graham 1969), so that a board is done no sooner than its longest unit.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.words import counted

COUNTS = (1, 8, 64, 512)
"""Numbers of GPUs that are always told of."""
MOST_GPUS = 100_000
TFLOPS = 250.0
"""Assumed sustained speed of a GPU, 1e12 operations a second: about a quarter of what an H100 can do in bfloat16."""
TEXT_TOKENS = 120
"""Prompt and answer of one example: an assumption."""
IMAGE_TOKENS = 1024
"""Of an image, where the tower has no size of its own: an assumption."""
NEAR = 1.05
"""Times the longest unit: a board done within it is held up by that unit, not by the number of GPUs."""


@dataclass(frozen=True)
class Unit:
    """A run: what one GPU does without a break."""

    name: str
    train: float
    """Seconds of its training on one GPU; 0 where nothing is trained, or the adapter is there."""
    evaluate: float
    """Seconds of its evaluations on one GPU."""
    ranks: int = 1
    """GPUs that can share it: no more than a batch has examples. Evaluations are shared by images."""

    @property
    def seconds(self) -> float:
        """Returns its seconds on one GPU."""
        return self.train + self.evaluate


Stages = Sequence[Sequence[Unit]]
"""Units that may be done at once; each stage begins when the one before it is done."""


@dataclass(frozen=True)
class OnGpus:
    """How long a number of GPUs takes."""

    gpus: int
    seconds: float
    """Until everything is done, one GPU a unit (`--workers`)."""
    busy: float
    """Share of that time in which a GPU has work, mean over GPUs."""
    limit: str
    """What would have to change for it to be sooner: "GPUs", "longest training", "longest evaluation"."""
    idle: int
    """GPUs that never get a unit."""
    ranks: int
    """GPUs a unit with which groups of torchrun are soonest; 1 where sharing a unit gains nothing."""
    shared_seconds: float
    """Until everything is done so, at best: communication between GPUs is not counted."""


@dataclass(frozen=True)
class Scale:
    """What a request takes on several numbers of GPUs."""

    units: int
    at_once: int
    """Units of the largest stage."""
    longest: Unit
    rows: tuple[OnGpus, ...]
    source: str
    """What the seconds are from."""

    def as_plain(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        longest = {"run": self.longest.name, "train_seconds": self.longest.train, "eval_seconds": self.longest.evaluate}
        return {
            "units": self.units,
            "at_once": self.at_once,
            "longest": longest,
            "rows": [vars(row) for row in self.rows],
            "source": self.source,
        }


def training_operations(examples: int, tokens: int, weights: int, trained: int) -> float:
    """Returns the operations of a training, over all its steps.

    A token costs two operations a weight forward and two more backward through weights that stay; a weight that is
    trained costs two more (Kaplan et al. 2020, section 2.1).
    """
    return float(examples * tokens * (4 * weights + 2 * trained))


def asking_operations(questions: int, tokens: int, weights: int) -> float:
    """Returns the operations of as many questions: two a weight and token."""
    return float(questions * tokens * 2 * weights)


def done_after(seconds: Sequence[float], gpus: int) -> float:
    """Returns when the last unit is done, where each goes, in this order, to the GPU that is free first."""
    free = [0.0] * min(gpus, max(1, len(seconds)))
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def on_gpus(stages: Stages, gpus: int) -> OnGpus:
    """Returns how long some stages of units take on a number of GPUs."""
    alone = sum(done_after([unit.seconds for unit in stage], gpus) for stage in stages)
    longest = [max(stage, key=lambda unit: unit.seconds) for stage in stages if stage]
    total = sum(unit.seconds for stage in stages for unit in stage)
    limit, training = "GPUs", sum(unit.train for unit in longest)
    if alone <= NEAR * sum(unit.seconds for unit in longest):
        limit = "longest training" if 2 * training >= sum(unit.seconds for unit in longest) else "longest evaluation"
    best, ranks = alone, 1
    shares = [
        2**i for i in range(1, gpus.bit_length()) if 2**i <= max(unit.ranks for stage in stages for unit in stage)
    ]
    for n in shares:
        shared = sum(done_after([unit.seconds / min(n, unit.ranks) for unit in stage], gpus // n) for stage in stages)
        if shared < best:
            best, ranks = shared, n
    idle = max(0, gpus - max(map(len, stages)))
    return OnGpus(gpus, alone, total / (gpus * alone) if alone else 0.0, limit, idle, ranks, best)


def scale_of(stages: Stages, source: str, gpus: int | None = None) -> Scale:
    """Returns what stages of units take on the usual numbers of GPUs, and on this one (RequestError where it is none).

    Stages without any unit are nothing to do, and raise ValueError.
    """
    if gpus is not None and not 1 <= gpus <= MOST_GPUS:
        raise RequestError(f"`--gpus {gpus}`: a number from 1 to {MOST_GPUS:,}.")
    units = [unit for stage in stages for unit in stage]
    longest = max(units, key=lambda unit: unit.seconds)
    counts = sorted({*COUNTS, *([] if gpus is None else [gpus])})
    return Scale(len(units), max(map(len, stages)), longest, tuple(on_gpus(stages, n) for n in counts), source)


def table_of(scale: Scale) -> list[str]:
    """Returns the lines of a table for the terminal, in hours, and of what is said below it."""
    lines = [f"{'GPUs':>6} {'hours':>10} {'busy':>5}  {'limited by':<19} torchrun, at best"]
    for row in scale.rows:
        shared = f"{hours(row.shared_seconds)} ({row.ranks} GPUs a run)" if row.ranks > 1 else "-"
        lines.append(f"{row.gpus:>6} {hours(row.seconds):>10} {row.busy:>5.0%}  {row.limit:<19} {shared}")
    longest = scale.longest
    took = f"training {hours(longest.train)} h, evaluation {hours(longest.evaluate)} h"
    lines.append(f"Runs: {scale.units:,}. Longest: {longest.name}: {took}.")
    if any(row.idle for row in scale.rows):
        lines.append(
            f"At most {counted(scale.at_once, 'run')} can be done at once: more GPUs wait, unless they share runs."
        )
    return lines


def hours(seconds: float) -> str:
    """Returns hours: "1,234", "12.3", "0.0123"."""
    value = seconds / 3600
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"
