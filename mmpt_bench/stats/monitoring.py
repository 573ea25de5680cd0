"""Whether a probe's score has dropped since a training began, looked at again and again.

Each look is an exact one-sided sign test on the probe's items (McNemar's, with one item an image): under the null
hypothesis an item that changed was lost as often as it was won. An alarm needs p <= level / looks, counting all looks
at all tasks of the training, so that the chance of any false alarm in it is at most the level, however the looks
depend on each other (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence

LEVEL = 0.05
"""Chance of a false alarm in a whole training, at most."""


def drop_p(before: Sequence[bool], now: Sequence[bool]) -> float:
    """Returns the p-value of a drop: the chance of as many lost items among those that changed.

    Args:
        before: whether each item was right when the training began.
        now: the same at a look.
    """
    from scipy.stats import binom

    lost = sum(a and not b for a, b in zip(before, now, strict=True))
    won = sum(b and not a for a, b in zip(before, now, strict=True))
    return float(binom.sf(lost - 1, lost + won, 0.5)) if lost + won else 1.0


def is_alarm(p: float, looks: int) -> bool:
    """Returns whether a drop is more than noise explains, with so many looks in the training."""
    return p <= LEVEL / looks
