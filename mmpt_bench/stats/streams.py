"""What a stream of tasks did to a model: measures of the matrix A[i, j], the score of task j after stage i.

Scores are chance-corrected, tasks and stages in the stream's order, n of each. Before the first stage, the untuned
model has the scores b[j].

    last               mean over j of A[n, j]
    average            mean over i of the mean over j <= i of A[i, j] (Rebuffi et al. 2017, arXiv:1611.07725)
    fine_tuned         mean over j of A[j, j], each task at its own stage
    backward_transfer  mean over j < n of A[n, j] - A[j, j] (Lopez-Paz and Ranzato 2017, arXiv:1706.08840)
    forgetting         mean over j < n of the most of A[j..n-1, j] less A[n, j] (Chaudhry et al. 2018, arXiv:1801.10112)
    forward_transfer   mean over j > 1 of A[j-1, j] - b[j] (Lopez-Paz and Ranzato, against the untuned model)
    elsewhere          mean over the tasks that are not in the stream of A[n, k] - b[k]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmpt_bench.stats.differences import Difference, method_difference
from mmpt_bench.stats.intervals import percentile, percentile_p
from mmpt_bench.stats.resampling import Resampled, over_seeds

MEASURES = ("last", "average", "fine_tuned", "backward_transfer", "forgetting", "forward_transfer", "elsewhere")
"""In the order of tables."""
ZERO = ""
"""Name of what is 0 in all resamples, so that a measure can be held against it."""


def stream_measures(scores: np.ndarray, base: np.ndarray, elsewhere: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the measures of matrices; those that need stages or tasks that are not there are left out.

    Args:
        scores: A[i, j], (..., stages, tasks) in the stream's order; of joint training one stage alone, the last.
        base: scores of the untuned model on these tasks, (..., tasks).
        elsewhere: changes from the untuned model, after the last stage, on tasks outside the stream, (..., tasks).
    """
    n = scores.shape[-1]
    final, own = scores[..., -1, :], np.diagonal(scores, axis1=-2, axis2=-1)
    assert scores.shape[-2] in (1, n)
    found = {"last": final.mean(axis=-1)}
    if scores.shape[-2] == n:
        seen = [scores[..., i, : i + 1].mean(axis=-1) for i in range(n)]
        best = [scores[..., j:-1, j].max(axis=-1) for j in range(n - 1)]
        ahead = [scores[..., j - 1, j] - base[..., j] for j in range(1, n)]
        found |= {
            "average": np.mean(seen, axis=0),
            "fine_tuned": own.mean(axis=-1),
            "backward_transfer": (final - own)[..., :-1].mean(axis=-1),
            "forgetting": np.mean([best[j] - final[..., j] for j in range(n - 1)], axis=0),
            "forward_transfer": np.mean(ahead, axis=0),
        }
    if elsewhere.shape[-1]:
        found["elsewhere"] = elsewhere.mean(axis=-1)
    return {name: found[name] for name in MEASURES if name in found}


def measured(
    stages: Mapping[str, Resampled], base: Mapping[str, Resampled], orders: Sequence[Sequence[str]], seed: int = 0
) -> Resampled:
    """Returns the measures of a stream as a `Resampled`, with one more "method" (`ZERO`) that is 0.

    Args:
        stages: task -> its score after each stage, chance-corrected; the methods are the stages in order, and the
            seeds are the stream's trainings (a seed and an order each). Of tasks in the stream and of others.
        base: task -> that of the untuned model, one method, on the same resamples; its seeds may be none.
        orders: the tasks of each training, in its order.
        seed: of the draws of trainings.
    """
    names = list(stages)
    first = stages[names[0]]

    def of(field: str, training: int) -> dict[str, np.ndarray]:
        order = list(orders[training])
        others = [name for name in names if name not in order]

        def column(part: Resampled, at: int) -> np.ndarray:
            values = np.asarray(getattr(part, field))
            return values[..., min(at, values.shape[-1] - 1)]

        scores = np.stack([column(stages[name], training) for name in order], axis=-1)
        before = np.stack([column(base[name], training)[..., 0] for name in order], axis=-1)
        apart = [column(stages[name], training)[..., -1] - column(base[name], training)[..., 0] for name in others]
        return stream_measures(scores, before, np.stack(apart, axis=-1) if apart else np.empty((*before.shape[:-1], 0)))

    by_seed = [of("by_seed", k) for k in range(len(orders))]
    drawn = [of("pictures_drawn", k) for k in range(len(orders))]
    labels = tuple(by_seed[0])
    whole = np.array([[each[name] for each in by_seed] for name in labels] + [[0.0] * len(orders)], dtype=np.float64)
    resampled = np.stack(
        [np.stack([each[name] for each in drawn], axis=-1) for name in labels]
        + [np.zeros((len(first.draws), len(orders)))],
        axis=1,
    )
    return Resampled((*labels, ZERO), first.seeds, whole, resampled, over_seeds(resampled, seed))


def centred(part: Resampled, chance: float, ceiling: float) -> Resampled:
    """Returns a figure with chance removed: (figure - chance) / (ceiling - chance)."""

    def scaled(values: np.ndarray) -> np.ndarray:
        return (values - chance) / (ceiling - chance)

    return Resampled(part.methods, part.seeds, scaled(part.by_seed), scaled(part.pictures_drawn), scaled(part.draws))


def at_trainings(resampled: Resampled, trainings: Sequence[int], seed: int = 0) -> Resampled:
    """Returns a figure at some of its trainings; trainings are drawn anew among these."""
    chosen = [resampled.seeds.index(k) for k in trainings]
    drawn = resampled.pictures_drawn[:, :, chosen]
    by_seed = resampled.by_seed[:, chosen]
    return Resampled(resampled.methods, tuple(trainings), by_seed, drawn, over_seeds(drawn, seed))


def over_units(resampled: Resampled, units: Sequence[int], seed: int = 0) -> Resampled:
    """Returns figures with the trainings of a unit averaged: what consists of the same runs is one replicate.

    Args:
        resampled: a figure at each training.
        units: of each training, the unit that it is of.
        seed: of the draws of units.
    """
    if len(set(units)) == len(units):
        return resampled
    of = [[k for k, unit in enumerate(units) if unit == each] for each in dict.fromkeys(units)]
    by_seed = np.stack([resampled.by_seed[:, chosen].mean(axis=1) for chosen in of], axis=1)
    drawn = np.stack([resampled.pictures_drawn[:, :, chosen].mean(axis=2) for chosen in of], axis=2)
    seeds = tuple(resampled.seeds[chosen[0]] for chosen in of)
    return Resampled(resampled.methods, seeds, by_seed, drawn, over_seeds(drawn, seed))


def merged(parts: Mapping[str, Resampled]) -> Resampled:
    """Returns figures of several on the same resamples and seeds side by side, each called by its part, too."""
    first = next(iter(parts.values()))
    if any((part.seeds, part.draws.shape[0]) != (first.seeds, first.draws.shape[0]) for part in parts.values()):
        raise ValueError("figures of other trainings or resamples cannot stand side by side")
    names = [f"{part} {name}".strip() for part, each in parts.items() for name in each.methods]
    by_seed, pictures, draws = (
        np.concatenate([getattr(each, field) for each in parts.values()], axis=axis)
        for field, axis in (("by_seed", 0), ("pictures_drawn", 1), ("draws", 1))
    )
    return Resampled((*names, ZERO), first.seeds, *_with_zero(by_seed, pictures, draws))


def _with_zero(by_seed: np.ndarray, pictures: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the arrays of a `Resampled` with one more method, which is 0."""
    return tuple(
        np.concatenate([each, np.zeros_like(np.take(each, [0], axis=axis))], axis=axis)
        for each, axis in ((by_seed, 0), (pictures, 1), (draws, 1))
    )


def measure(resampled: Resampled, name: str, other: str = ZERO, level: float = 0.95) -> Difference:
    """Returns a measure, or how far it is above another, with interval and p against 0.

    Over trainings and images where there are two trainings or more (see `method_difference`), else over images.
    """
    if len(resampled.seeds) > 1:
        return method_difference(resampled, name, other, level)
    i, j = resampled.column(name), resampled.column(other)
    draws = resampled.draws[:, i] - resampled.draws[:, j]
    return Difference(
        float(resampled.estimates[i] - resampled.estimates[j]), percentile(draws, level), percentile_p(draws)
    )
