"""How the examples of one step are cut into micro-batches of like length, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmpt_bench.anatomy import Anatomy

CALL_FLOPS = {"cpu": 2.5e8, "cuda": 4e11}
"""Arithmetic that could be done in the time one decoder layer's calls take, forward and back, however few rows they
have: 4 ms at 66 GFLOP/s on one core (`benchmarks/training.py --fit` finds 1e8 to 4e8, by method), 1 ms at 400 TFLOP/s
on an accelerator, which is assumed. Constants and no stopwatch, because a resumed run must be cut as the one it goes on
from. Only the speed depends on them."""


def overhead_tokens(anatomy: Anatomy, device: str) -> float:
    """Returns the fixed cost of one more micro-batch, in tokens trained (6 operations a parameter and token)."""
    flops = CALL_FLOPS["cuda" if device.startswith("cuda") else "cpu"] * len(anatomy.decoder_layers)
    return flops / (6 * anatomy.language_parameters)


def cut(lengths: Sequence[int], limit: int, overhead: float) -> list[list[int]]:
    """Returns the cheapest cut into groups, as indices into `lengths`, short examples first.

    A group costs its overhead and its padded area; examples next to each other by length share a group, which no other
    cut can beat. Equal lengths keep their order, so that the same step is always cut in the same way.

    Args:
        lengths: tokens of each example.
        limit: most examples in a group.
        overhead: what a group costs beside its tokens, in tokens.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    best, came = [0.0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        costs = [best[start] + (end - start) * longest for start in range(max(0, end - limit), end)]
        cheapest = min(range(len(costs)), key=costs.__getitem__)
        best.append(costs[cheapest] + overhead)
        came.append(max(0, end - limit) + cheapest)
    groups, end = [], len(order)
    while end:
        groups.append(order[came[end] : end])
        end = came[end]
    return groups[::-1]
