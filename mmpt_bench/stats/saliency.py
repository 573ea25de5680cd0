"""Whether a map over image tokens is right and faithful: scores of one map, to be averaged over questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Of the tokens that are taken away, or put back, along a curve."""


def pointing(values: np.ndarray, inside: np.ndarray) -> float:
    """Returns whether the highest token is inside the region: 0 or 1, or the share of the highest that are, of several.

    Zhang et al. 2018, doi:10.1007/s11263-017-1059-x.

    Args:
        values: (tokens,).
        inside: (tokens,), booleans.
    """
    return float(inside[values == values.max()].mean())


def energy(values: np.ndarray, inside: np.ndarray) -> float:
    """Returns the share of a map's positive part that lies inside; a map without one is counted as uniform.

    Wang et al. 2020 (Score-CAM), arXiv:1910.01279.
    """
    positive = np.clip(values, 0, None)
    return float(positive[inside].sum() / positive.sum()) if positive.any() else float(inside.mean())


def counts_along(n: int) -> list[int]:
    """Returns how many of `n` tokens each of `SHARES` is, at least one where it is above 0; each number once."""
    return sorted({0 if share == 0 else max(1, round(share * n)) for share in SHARES})


def area(counts: Sequence[int], heights: Sequence[float]) -> float:
    """Returns the mean height of a curve over the share of tokens, by trapezoids; `counts` begin at 0.

    Petsiuk et al. 2018 (RISE), arXiv:1806.07421: of the answer's probability as tokens are taken away (low is good),
    or put back (high is good).
    """
    return float(np.trapezoid(heights, np.asarray(counts) / counts[-1]))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Returns Spearman's correlation of two maps; 0 where one of them is constant, and so has no order."""
    from scipy.stats import spearmanr

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second).statistic)


def disagreement(maps: Sequence[np.ndarray]) -> float:
    """Returns 1 minus the mean rank correlation of all pairs of maps; 0 for fewer than two."""
    pairs = [rank_correlation(a, b) for i, a in enumerate(maps) for b in maps[i + 1 :]]
    return 1 - float(np.mean(pairs)) if pairs else 0.0
