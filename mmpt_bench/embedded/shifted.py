"""The shifted world, in which methods are tuned and evaluated: scenes as a camera with crossed channels sees them.

Colours turned, lower contrast, softer edges, grain and a woven texture; the answers stay those of the clean world.
"""

from __future__ import annotations

import numpy as np

from mmpt_bench.embedded.world import SIDE

CAST, SOFT = 0.8, 0.85
"""Of the shifted world: the share of a channel that the next one takes over, and the share of its blur, weave and grain
at which a person still sees everything. docs/decisions/0010 says how they were settled."""


def shift(image: np.ndarray, seed: int, strength: float = 1.0) -> np.ndarray:
    """Returns a clean image as the shifted world shows it, uint8, (48, 48, 3).

    Args:
        seed: of the grain and of the weave's phase; the colours, contrast and focus are the same everywhere.
        strength: 0 changes nothing, 1 is the world of tuning and evaluation.
    """
    rng = np.random.default_rng([seed, 77])
    cast, soft = CAST * strength, SOFT * strength
    x = image.astype(np.float32) / 255
    x = (1 - cast) * x + cast * np.roll(x, -1, axis=2)
    x = (1 - 0.6 * soft) * x + 0.6 * soft * _blur(x)
    x = 0.5 + (x - 0.5) * (1 - 0.3 * strength) + 0.08 * strength
    phase = rng.uniform(0, 2 * np.pi, 2)
    grid = np.arange(SIDE, dtype=np.float32)
    weave = np.sin(grid[:, None] * 1.3 + phase[0]) + np.sin(grid[None, :] * 1.3 + phase[1])
    x = x + soft * (0.03 * weave[:, :, None] + rng.normal(0, 0.03, x.shape).astype(np.float32))
    return (x.clip(0, 1) * 255).round().astype(np.uint8)


def _blur(x: np.ndarray) -> np.ndarray:
    """Returns `x` under the 3 x 3 binomial filter, edges repeated."""
    p = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
    p = (p[:-2] + 2 * p[1:-1] + p[2:]) / 4
    return (p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]) / 4
