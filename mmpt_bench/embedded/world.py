"""The clean world: small scenes drawn from a seed, as the base model was taught them.

A scene is 48 x 48 RGB pixels: a grid of 3 x 3 cells of 16 pixels that hold objects (shape, colour, size, texture) or
glyphs, or one big object, or one handwritten digit (scikit-learn's, real). Drawing depends on the scene and on
nothing else. Pre-training sees them so; tuning and evaluation see them shifted (shifted.py).
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

VERSION = 4
"""Rises when a scene of the same description is drawn differently."""

SIDE, CELL, SEEDS = 48, 16, range(2**31)
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring", "star", "heart", "moon", "arrow")
COLORS = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 210),
    "yellow": (235, 215, 50),
    "purple": (140, 50, 170),
    "orange": (240, 130, 30),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
COLOR_NAMES = tuple(COLORS)
SIZES = ("small", "big")
TEXTURES = ("plain", "striped", "dotted")
LETTERS = tuple("bcdefghklmnprstuvxyz")
DIGITS = tuple("0123456789")
GLYPHS = (*LETTERS, *DIGITS, "+")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
CELLS = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
THEMES = ("gray", "sand", "sea", "grass")
_BACKGROUND = {"gray": (128, 128, 128), "sand": (196, 178, 140), "sea": (110, 150, 170), "grass": (120, 150, 110)}
THEME_SHAPES = {
    "gray": ("square", "cross", "ring", "arrow"),
    "sand": ("star", "diamond", "circle", "moon"),
    "sea": ("moon", "ring", "heart", "triangle"),
    "grass": ("heart", "circle", "triangle", "star"),
}
"""Shapes that are common in a theme: what usually appears together, for POPE's adversarial questions."""
BLOBS = tuple(f"blob{k}" for k in range(24))
"""Forms without a name, which only the eyes' lessons show (strangers.py)."""

T = TypeVar("T")
Combinations = frozenset[tuple[str, str]]
_HELD_OUT_STEPS = {"dev": (None, 4, 1, 4, None, 4, 1, 4, None, 4), "evaluation": (1, 0, None, 0, 1, 0, None, 0, 1, 0)}
HELD_OUT: dict[str, Combinations] = {
    part: frozenset((SHAPES[i], COLOR_NAMES[(3 * i + k) % 8]) for i, k in enumerate(steps) if k is not None)
    for part, steps in _HELD_OUT_STEPS.items()
}
"""15 of the 80 shapes-in-a-colour occur in one part alone: 7 in dev, 8 in evaluation."""
ALL_HELD_OUT = HELD_OUT["dev"] | HELD_OUT["evaluation"]
_USUAL_COLORS = {shape: [color for color in COLOR_NAMES if (shape, color) not in ALL_HELD_OUT] for shape in SHAPES}
HELD_OUT_SHARE = 0.35
"""Probability that an object is in a combination that is held out for the part."""

_PART_OF_SIXTEENTH = (*["pretrain"] * 8, *["tune"] * 3, "validation", *["dev"] * 2, *["evaluation"] * 2)
DIGIT_ROWS = {
    "pretrain": range(748), "tune": range(748), "validation": range(748, 898), "dev": range(898, 1198),
    "evaluation": range(1198, 1797),
}  # fmt: skip
"""Rows of scikit-learn's digits that each part may show; those of the first two are varied anew each time."""


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    cell: int
    """0..8, row by row."""
    shape: str
    color: str
    size: str
    texture: str
    dx: int = 0
    dy: int = 0
    """Pixels off the middle of its cell, -1..1."""
    tint: tuple[int, int, int] | None = None
    """Red, green and blue in place of the colour: one that has no name."""


@dataclass(frozen=True)
class Hand:
    """What varies a handwritten digit, since pre-training has 748 of them to learn from."""

    turn: float
    """Degrees it is rotated by."""
    zoom: float
    lean: float
    """Pixels sideways a pixel of height."""
    dx: float
    dy: float
    """Pixels off the middle."""
    weight: float
    """Exponent of the ink's brightness: below 1, a broader pen."""


@dataclass(frozen=True)
class Scene:
    """What there is to see, before it is drawn."""

    theme: str
    things: tuple[Thing, ...] = ()
    glyphs: tuple[tuple[int, str], ...] = ()
    """(cell, character)."""
    font: int = 0
    ink: str = "black"
    """Colour of the glyphs."""
    big: Thing | None = None
    """An object of three cells' width, which stands alone."""
    digit_row: int | None = None
    """A row of scikit-learn's digits, which stands alone."""
    hand: Hand | None = None
    """How a digit is written differently from its row; None, as it is, in evaluation."""
    seed: int = 0
    """Of the noise of the shifted world."""


def draw(scene: Scene) -> np.ndarray:
    """Returns the scene in the clean world, uint8, (48, 48, 3)."""
    if scene.digit_row is not None:
        return _draw_digit(scene)
    image = np.empty((SIDE, SIDE, 3), np.float32)
    image[:] = _BACKGROUND[scene.theme]
    for thing in scene.things:
        _paint(image, thing, CELL, CELL * (thing.cell // 3) + thing.dy, CELL * (thing.cell % 3) + thing.dx)
    if scene.big is not None:
        _paint(image, scene.big, SIDE, 2 * scene.big.dy, 2 * scene.big.dx)
    for cell, glyph in scene.glyphs:
        top, left = CELL * (cell // 3), CELL * (cell % 3)
        place = image[top : top + CELL, left : left + CELL]
        alpha = _glyph(glyph, scene.font)[:, :, None]
        place[:] = place * (1 - alpha) + alpha * np.asarray(COLORS[scene.ink], np.float32)
    return image.round().astype(np.uint8)


def part_of(scene: Scene) -> str:
    """Returns the one part that may show a scene: that of its digit's row, else that of a hash of all that is drawn."""
    if scene.digit_row is not None:
        return next(part for part, rows in DIGIT_ROWS.items() if scene.digit_row in rows)
    return _PART_OF_SIXTEENTH[zlib.crc32(repr(replace(scene, seed=0)).encode()) % 16]


def _of_part(part: str, make: Callable[[], Scene]) -> Scene:
    """Returns the first scene made that the part may show."""
    while True:
        scene = make()
        if part_of(scene) == part:
            return scene


def pick(rng: np.random.Generator, of: Sequence[T]) -> T:
    """Returns one of a sequence: the one that `rng.choice` would, which is slow because it makes an array of it."""
    return of[int(rng.integers(len(of)))]


def random_thing(rng: np.random.Generator, cell: int, theme: str, held_out: Combinations = frozenset()) -> Thing:
    """Returns an object; its shape is one of the theme's own with probability 0.7.

    Args:
        held_out: combinations that it may have beside those that every part shows.
    """
    shape = pick(rng, THEME_SHAPES[theme] if rng.random() < 0.7 else SHAPES)
    color, size, texture = _random_color(rng, shape, held_out), pick(rng, SIZES), pick(rng, TEXTURES)
    return Thing(cell, shape, color, size, texture, dx=int(rng.integers(-1, 2)), dy=int(rng.integers(-1, 2)))


def _random_color(rng: np.random.Generator, shape: str, held_out: Combinations) -> str:
    if rng.random() < HELD_OUT_SHARE and (own := [color for color in COLOR_NAMES if (shape, color) in held_out]):
        return pick(rng, own)
    return pick(rng, _USUAL_COLORS[shape])


def random_scene(rng: np.random.Generator, counts: Sequence[int], part: str = "pretrain") -> Scene:
    """Returns a scene of objects; now and then several share a shape, so that counting means something."""
    return _of_part(part, lambda: _random_scene(rng, counts, HELD_OUT.get(part, frozenset())))


def _random_scene(rng: np.random.Generator, counts: Sequence[int], held_out: Combinations) -> Scene:
    theme = pick(rng, THEMES)
    n = pick(rng, counts)
    cells = rng.choice(9, n, replace=False)
    things = [random_thing(rng, int(cell), theme, held_out) for cell in cells]
    if n > 1 and rng.random() < 0.5:
        copies = int(rng.integers(2, n + 1))
        model = things[0]
        for k in range(1, copies):
            other = random_thing(rng, things[k].cell, theme)
            color = model.color if rng.random() < 0.5 or (model.shape, other.color) in ALL_HELD_OUT else other.color
            things[k] = replace(other, shape=model.shape, color=color)
    return Scene(theme, tuple(sorted(things, key=lambda t: t.cell)), seed=pick(rng, SEEDS))


def random_text(rng: np.random.Generator, sums: bool, letters: Sequence[int] = (2, 3), part: str = "pretrain") -> Scene:
    """Returns a scene of glyphs in a row: as many letters as one of `letters`, or a sum of two digits ("3 + 4")."""
    return _of_part(part, lambda: _random_text(rng, sums, letters))


def _random_text(rng: np.random.Generator, sums: bool, letters: Sequence[int]) -> Scene:
    theme, row = pick(rng, THEMES), int(rng.integers(3))
    if sums:
        texts = [str(rng.integers(10)), "+", str(rng.integers(10))]
    else:
        texts = [str(letter) for letter in rng.choice(LETTERS, pick(rng, letters))]
    glyphs = tuple((3 * row + column, text) for column, text in enumerate(texts))
    ink = pick(rng, ("black", "white", "blue", "red"))
    return Scene(theme, glyphs=glyphs, font=int(rng.integers(len(_FONTS))), ink=ink, seed=pick(rng, SEEDS))


def random_big(rng: np.random.Generator, part: str = "pretrain") -> Scene:
    """Returns a scene of one big object, every shape equally likely."""
    return _of_part(part, lambda: _random_big(rng, HELD_OUT.get(part, frozenset())))


def _random_big(rng: np.random.Generator, held_out: Combinations) -> Scene:
    theme, shape = pick(rng, THEMES), pick(rng, SHAPES)
    color, size, texture = _random_color(rng, shape, held_out), pick(rng, SIZES), pick(rng, TEXTURES)
    dx, dy = (int(v) for v in rng.integers(-2, 3, 2))
    return Scene(theme, big=Thing(4, shape, color, size, texture, dx, dy), seed=pick(rng, SEEDS))


def random_digit(rng: np.random.Generator, part: str, haste: float = 0.0) -> Scene:
    """Returns one handwritten digit of a part, varied `haste` times as much as in pre-training; 0: there alone."""
    rows, much = DIGIT_ROWS[part], haste or float(part == "pretrain")
    hand = random_hand(rng, much) if much else None
    return Scene("gray", digit_row=int(rng.integers(rows.start, rows.stop)), hand=hand, seed=pick(rng, SEEDS))


def random_hand(rng: np.random.Generator, much: float) -> Hand:
    """Returns how a digit is written differently, by so many times what pre-training shows."""
    reach = much * np.array([14, 0.18, 0.2, 2.5, 2.5, 0])
    low, high = np.array([0, 1, 0, 0, 0, 0.6]) - reach, np.array([14, 0, 0.2, 2.5, 2.5, 0]) * much
    return Hand(*rng.uniform(low, high + np.array([0, 1.12, 0, 0, 0, 1.5])).tolist())


def digit_label(row: int) -> int:
    """Returns which digit a row of scikit-learn's digits is."""
    return int(_digits()[1][row])


def _paint(image: np.ndarray, thing: Thing, side: int, top: int, left: int) -> None:
    """Blends an object, `side` pixels wide, into the image; what lies beyond the edge is cut."""
    rows, columns = slice(max(top, 0), min(top + side, SIDE)), slice(max(left, 0), min(left + side, SIDE))
    cut = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    mask = _sprite(thing.shape, thing.size, side)[cut][:, :, None]
    texture = _texture(thing.texture, side)[cut][:, :, None]
    color = thing.tint or COLORS[thing.color]
    ink = np.asarray(color, np.float32) * texture
    if thing.texture != "plain" and max(color) < 60:
        ink = ink + 150 * (1 - texture)
    image[rows, columns] = image[rows, columns] * (1 - mask) + mask * ink


@functools.cache
def _texture(name: str, side: int) -> np.ndarray:
    """Returns brightness factors, (side, side): stripes or dots whose pitch grows with the object."""
    pitch = 4 if side == CELL else 8
    y, x = np.mgrid[0:side, 0:side] % pitch < pitch // 2
    dark = {"plain": np.zeros_like(x), "striped": y, "dotted": y & x}[name]
    return np.where(dark, 0.45, 1.0).astype(np.float32)


@functools.cache
def _sprite(shape: str, size: str, side: int) -> np.ndarray:
    """Returns a shape's coverage of each pixel, (side, side) in 0..1, from 4 x 4 points a pixel."""
    radius = side / 2 * (0.95 if size == "big" else 0.62)
    points = ((np.arange(side * 4) + 0.5) / 4 - side / 2) / radius
    inside = _inside(shape, x=points[None, :], y=points[:, None])
    return inside.reshape(side, 4, side, 4).mean((1, 3)).astype(np.float32)


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns whether points of the plane, y downwards, lie in a shape of radius about 1."""
    r = np.hypot(x, y)
    angle = np.arctan2(x, -y)
    if shape in BLOBS:
        rng = np.random.default_rng([19, BLOBS.index(shape)])
        waves = [
            a * np.cos(k * angle + b)
            for k, a, b in zip(range(1, 6), rng.uniform(0, 0.2, 5), rng.uniform(0, 6, 5), strict=True)
        ]
        return r < 0.62 + np.sum(waves, axis=0)
    lobe = np.abs((angle / (2 * np.pi / 5) + 0.5) % 1 - 0.5) * 2
    forms = {
        "circle": r < 0.92,
        "square": np.maximum(abs(x), abs(y)) < 0.8,
        "triangle": (y < 0.75) & (abs(x) < (y + 0.9) * 0.58),
        "diamond": abs(x) * 1.35 + abs(y) < 0.98,
        "cross": (np.minimum(abs(x), abs(y)) < 0.28) & (np.maximum(abs(x), abs(y)) < 0.9),
        "ring": (r < 0.95) & (r > 0.52),
        "star": r < 0.98 - 0.6 * lobe,
        "heart": (x * 1.1) ** 2 + ((-y + 0.05) * 1.15 - 0.65 * np.sqrt(abs(x))) ** 2 < 0.72,
        "moon": (r < 0.95) & (np.hypot(x - 0.5, y) > 0.78),
        "arrow": ((abs(y) < 0.25) & (x > -0.9) & (x < 0.2)) | ((x >= 0.0) & (abs(y) < (0.95 - x) * 0.85)),
    }
    return forms[shape]


_FONTS = ("DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono-Bold.ttf")


@functools.cache
def _glyph(character: str, font: int) -> np.ndarray:
    """Returns a glyph's coverage, (16, 16) in 0..1, from the fonts bundled with matplotlib; letters are capitals."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = f"{matplotlib.get_data_path()}/fonts/ttf/{_FONTS[font]}"
    sheet = Image.new("L", (CELL * 4, CELL * 4))
    ImageDraw.Draw(sheet).text(
        (CELL * 2, CELL * 2), character.upper(), fill=255, font=ImageFont.truetype(path, 58), anchor="mm"
    )
    return np.asarray(sheet, np.float32).reshape(CELL, 4, CELL, 4).mean((1, 3)) / 255


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns scikit-learn's 1,797 digits, uint8 (1797, 8, 8) in 0..16, and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images.astype(np.uint8), data.target


def _draw_digit(scene: Scene) -> np.ndarray:
    from PIL import Image

    assert scene.digit_row is not None
    small = Image.fromarray((_digits()[0][scene.digit_row] * 15.9).astype(np.uint8))
    sheet = Image.new("L", (SIDE, SIDE))
    sheet.paste(small.resize((40, 40), Image.Resampling.BICUBIC), (4, 4))
    if scene.hand is None:
        return np.repeat(np.asarray(sheet)[:, :, None], 3, axis=2)
    hand, middle = scene.hand, SIDE / 2
    sine, cosine = np.sin(np.deg2rad(hand.turn)), np.cos(np.deg2rad(hand.turn))
    a, b, c, d = np.array([cosine, sine + hand.lean, -sine, cosine]) / hand.zoom
    across, down = middle + hand.dx, middle + hand.dy
    back = (a, b, middle - a * across - b * down, c, d, middle - c * across - d * down)
    moved = sheet.transform((SIDE, SIDE), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
    ink = (np.asarray(moved) / 255.0) ** hand.weight * 255
    return np.repeat(ink.round().astype(np.uint8)[:, :, None], 3, axis=2)
