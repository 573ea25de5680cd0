"""Answers drawn at random with known truth, for the tests of intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpt_bench.stats.differences import method_difference, share_as_far, swapped_differences
from mmpt_bench.stats.resampling import Tally, Values, resample

COLUMNS = ("asked/", "right/")


def values(sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
    return {"accuracy": sums[..., 1] / sums[..., 0]}


def tally_of(right: np.ndarray, asked: int = 1, strata: Sequence[str] | None = None) -> Tally:
    """Returns the tally of `asked` questions an image of which `right` were answered rightly, (images,)."""
    n = len(right)
    counts = np.stack([np.full(n, float(asked)), np.asarray(right, dtype=np.float64)], axis=1)
    return Tally(tuple(map(str, range(n))), tuple(strata or [""] * n), COLUMNS, counts)


def simulated(rng: np.random.Generator, ability: float, pictures: np.ndarray, asked: int) -> Tally:
    """Returns a tally whose images are of unlike difficulty, `pictures` on the logit scale."""
    return tally_of(rng.binomial(asked, 1 / (1 + np.exp(-(ability + pictures)))), asked)


def checkpoint_p(a: Tally, b: Tally, of: Values, figure: str, n_resamples: int = 2000, seed: int = 0) -> float:
    """Returns the p of two checkpoints' difference, from exchanges of their answers, as the contrasts take it."""
    drawn, exact = swapped_differences(a, b, of, figure, n_resamples, seed)
    first, second = (float(of(each.counts.sum(axis=0), each.columns)[figure]) for each in (a, b))
    return share_as_far(drawn, first - second, exact)


def method_scope_error(
    n_seeds: int, repeats: int, seed: int, layout: tuple[int, int] = (200, 2)
) -> tuple[float, float]:
    """Returns how often the interval holds a true difference of 0, and how often the t test denies it."""
    rng = np.random.default_rng(seed)
    held, called, (n_pictures, asked) = 0, 0, layout
    for repeat in range(repeats):
        pictures = rng.normal(0, 1, n_pictures)
        own = {name: rng.normal(0, 0.5, n_pictures) for name in "ab"}
        board = {
            name: {s: simulated(rng, 0.8 + rng.normal(0, 0.2), pictures + own[name], asked) for s in range(n_seeds)}
            for name in "ab"
        }
        difference = method_difference(resample(board, values, "accuracy", 400, repeat), "a", "b")
        held += difference.interval[0] <= 0 <= difference.interval[1]
        called += difference.p <= 0.05
    return held / repeats, called / repeats
