"""The shifted world: what it does everywhere, and what it does to each image in its own way."""

import numpy as np
import pytest

from mmpt_bench.embedded import shifted, world


@pytest.fixture
def smooth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what is drawn at random for each pixel."""
    monkeypatch.setattr(shifted, "SOFT", 0.0)


def plain(color: tuple[int, int, int]) -> np.ndarray:
    return np.broadcast_to(np.asarray(color, np.uint8), (48, 48, 3)).copy()


def test_without_strength_a_scene_stays_as_it_is() -> None:
    image = world.draw(world.random_scene(np.random.default_rng(0), (4,)))
    assert (shifted.shift(image, seed=3, strength=0.0) == image).all()


def test_the_same_seed_shows_the_same_and_another_one_another(smooth: None) -> None:
    image = world.draw(world.random_scene(np.random.default_rng(0), (4,)))
    assert (shifted.shift(image, 1) == shifted.shift(image, 1)).all()
    assert (shifted.shift(image, 1) != shifted.shift(image, 2)).mean() > 0.2


def test_the_cast_differs_across_an_image_and_at_one_place_across_images(smooth: None) -> None:
    """A red surface: green stays as it was, and how much of red is left follows from the band that a pixel lies in."""
    shown = np.stack([shifted.shift(plain((255, 0, 0)), seed) for seed in range(30)]).astype(float) / 255
    red = (shown[..., 0] - 0.5 - 0.08) / 0.7 + 0.5
    least, most = 1 - shifted.CAST - shifted.SWING, 1 - shifted.CAST + shifted.SWING
    assert red.min() == pytest.approx(least, abs=0.01)
    assert red.max() == pytest.approx(most, abs=0.01)
    assert np.ptp(red, axis=(1, 2)).mean() > 1.5 * shifted.SWING
    assert np.ptp(red, axis=0).mean() > 1.5 * shifted.SWING
    assert np.ptp(shown[..., 1]) == 0


def test_ripples_displace_a_line_by_as_much_as_they_say_and_differently_in_each_image(
    smooth: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shifted, "CAST", 0.0)
    monkeypatch.setattr(shifted, "SWING", 0.0)
    image = plain((0, 0, 0))
    image[:, 23:25] = 255
    centres = []
    for seed in range(20):
        ink = shifted.shift(image, seed)[..., 0].astype(float)
        ink -= ink.min()
        centres.append((ink * np.arange(48)).sum(1) / ink.sum(1) - 23.5)
    assert np.abs(centres).max() == pytest.approx(shifted.RIPPLE, abs=0.15)
    assert np.abs(np.diff(np.asarray(centres)[:, 10])).max() > shifted.RIPPLE / 2
