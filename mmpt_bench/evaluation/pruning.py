"""Token pruning, without a model: kinds, shares, how many tokens stay, and which at random; docs/decisions/0040."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.hashing import derive

RANDOM, CLS, ATTENTION = "random", "cls", "attention"
KINDS = (RANDOM, CLS, ATTENTION)


@dataclass(frozen=True)
class Pruning:
    """One way to show a model fewer image tokens."""

    kind: str
    """Of `KINDS`: how tokens are chosen."""
    share: float
    """Of an image's tokens that stay, above 0 and below 1."""

    @property
    def name(self) -> str:
        """Returns what replies under it are kept under."""
        return f"keep {self.share!r} of the image tokens, {self.kind}"

    def count(self, tokens: int) -> int:
        """Returns how many of an image's tokens stay: the share, half rounded up, at least one."""
        return max(1, math.floor(self.share * tokens + 0.5))


def random_order(image: str, tokens: int) -> list[int]:
    """Returns an image's tokens in the order in which `random` keeps them, the same for every share and model."""
    order: list[int] = np.random.default_rng(derive(0, f"prune/{image}")).permutation(tokens).tolist()
    return order


def shares_of(text: str) -> tuple[float, ...]:
    """Returns the shares below 1 of "1.0,0.5,0.25", largest first; the whole image is always there to compare with.

    Raises RequestError for what is no share, stands twice, or leaves every token.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    found: list[float] = []
    for word in words:
        try:
            share = float(word)
        except ValueError:
            share = math.nan
        if not 0 < share <= 1:
            raise RequestError(f"`--keep-tokens {word[:40]}`: a share is a number above 0 and at most 1, as in 0.5.")
        found.append(share)
    if len(set(found)) < len(found):
        raise RequestError(f"`--keep-tokens {text[:80]}`: name each share once.")
    if not any(share < 1 for share in found):
        raise RequestError(f"`--keep-tokens {text[:80]}` prunes nothing: name a share below 1, as in 1.0,0.5,0.25.")
    return tuple(sorted((share for share in found if share < 1), reverse=True))


def kept_shares(shares: Sequence[float], tokens: int) -> tuple[tuple[float, ...], list[str]]:
    """Returns (the shares of an image's tokens that really stay, each once; what is said of those that are one row).

    Args:
        shares: as `shares_of` returns them.
        tokens: that an image has.

    Raises RequestError where all shares leave every token.
    """
    asked: dict[int, list[float]] = {}
    for share in shares:
        asked.setdefault(Pruning(RANDOM, share).count(tokens), []).append(share)
    said = [
        f"{' and '.join(f'{share:g}' for share in same)} keep {count:,} of an image's {tokens:,} tokens: one row"
        for count, same in asked.items()
        if len(same) > 1 and count < tokens
    ]
    if every := asked.pop(tokens, []):
        told = f"{', '.join(f'{share:g}' for share in every)} of an image's {tokens:,} tokens is all of them"
        if not asked:
            raise RequestError(f"`--keep-tokens` prunes nothing: {told}. Name a smaller share.")
        said.append(f"{told}: no row of its own")
    return tuple(count / tokens for count in asked), said


def kinds_of(text: str, unfit: dict[str, str]) -> tuple[tuple[str, ...], list[str]]:
    """Returns (the kinds of "cls,attention" in the order of `KINDS`, what is said of the choice); "": all that fit.

    `random` is always among them.

    Args:
        unfit: kind -> why this backbone cannot be pruned so.

    Raises RequestError for an unknown kind, or one that does not fit.
    """
    asked = [word.strip() for word in text.split(",") if word.strip()]
    for kind in asked:
        if kind not in KINDS:
            raise unknown_name("way to prune", kind[:40], KINDS)
        if kind in unfit:
            raise RequestError(f"`--prune {kind}`: {unfit[kind]}. Leave it out.")
    if not asked:
        said = [f"`{kind}` is left out: {why}" for kind, why in unfit.items()]
        return tuple(kind for kind in KINDS if kind not in unfit), said
    said = [] if RANDOM in asked else ["`random` is asked too: without it no way to prune can be judged"]
    return tuple(kind for kind in KINDS if kind in (*asked, RANDOM)), said


def prunings(shares: Sequence[float], kinds: Sequence[str]) -> list[Pruning]:
    """Returns every kind at every share."""
    return [Pruning(kind, share) for kind in kinds for share in shares]
