"""The shifted world, in which methods are tuned and evaluated: scenes through crossed channels and a rippled pane.

One part is the same everywhere: some of each channel is taken over by the next, contrast is lower, edges are softer,
there is grain and a weave. Another part differs from place to place and from image to image: ripples that displace what
is seen, and a cast that turns colours one way along one band and the other way along the next. A map of the tower's
outputs that is the same for every image (a new projector) can repair the first part and not all of the second. The
answers stay those of the clean world. docs/decisions/0029 says how the strengths were settled.
"""

from __future__ import annotations

import numpy as np

from mmpt_bench.embedded.world import SIDE

CAST = 0.8
"""Share of a channel that the next one takes over, everywhere."""
SWING = 0.2
"""Most that the cast is more, or less, than that, in bands across the image."""
RIPPLE = 0.6
"""Most that a ripple displaces a point, in pixels, along each axis."""
WAVE = 32.0
"""Length of a ripple, in pixels; that of the cast's bands is twice as much."""
SOFT = 0.5
"""Share of the blur, weave and grain at which a person still sees everything."""


def shift(image: np.ndarray, seed: int, strength: float = 1.0) -> np.ndarray:
    """Returns a clean image as the shifted world shows it, uint8, (48, 48, 3).

    Args:
        seed: of the grain, of the weave's, the ripples' and the bands' phases and of the bands' direction.
        strength: 0 changes nothing, 1 is the world of tuning and evaluation.
    """
    rng = np.random.default_rng([seed, 77])
    phase = rng.uniform(0, 2 * np.pi, 5)
    soft = SOFT * strength
    x = _rippled(image.astype(np.float32) / 255, RIPPLE * strength, phase[:2])
    cast = strength * (CAST + SWING * _bands(phase[2], phase[3]))[:, :, None]
    x = (1 - cast) * x + cast * np.roll(x, -1, axis=2)
    x = (1 - 0.6 * soft) * x + 0.6 * soft * _blur(x)
    x = 0.5 + (x - 0.5) * (1 - 0.3 * strength) + 0.08 * strength
    grid = np.arange(SIDE, dtype=np.float32)
    weave = np.sin(grid[:, None] * 1.3 + phase[4]) + np.sin(grid[None, :] * 1.3 + phase[4])
    x = x + soft * (0.03 * weave[:, :, None] + rng.normal(0, 0.03, x.shape).astype(np.float32))
    return (x.clip(0, 1) * 255).round().astype(np.uint8)


def _bands(direction: float, phase: float) -> np.ndarray:
    """Returns a wave across the image, -1..1, (48, 48)."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    along = np.cos(direction) * x + np.sin(direction) * y
    return np.asarray(np.sin(np.pi * along / WAVE + phase), np.float32)


def _rippled(x: np.ndarray, most: float, phase: np.ndarray) -> np.ndarray:
    """Returns the image with its rows displaced sideways and its columns up and down, edges repeated."""
    from scipy.ndimage import map_coordinates

    if not most:
        return x
    down, across = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    turn = 2 * np.pi / WAVE
    at = (down + most * np.sin(turn * across + phase[0]), across + most * np.sin(turn * down + phase[1]))
    return np.stack([map_coordinates(x[:, :, c], at, order=1, mode="nearest") for c in range(3)], axis=2)


def _blur(x: np.ndarray) -> np.ndarray:
    """Returns `x` under the 3 x 3 binomial filter, edges repeated."""
    p = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
    p = (p[:-2] + 2 * p[1:-1] + p[2:]) / 4
    return (p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]) / 4
