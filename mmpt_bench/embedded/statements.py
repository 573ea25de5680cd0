"""What is true of a scene: words that single an object out, and claims about it, true or false as asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmpt_bench.embedded import world
from mmpt_bench.embedded.world import Combinations, Scene, Thing

NUMBERS = ("zero", "one", "two", "three", "four", "five")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_WITHOUT_A_PICTURE = (
    (
        ("is", "feels", "was once", "will soon be", "is said to be", "must be", "was never"),
        ("heavy", "old", "warm", "new", "cold", "soft", "hard", "cheap", "dear", "wet", "clean", "strong", "weak",
         "famous", "lost", "broken", "empty", "hollow", "loud", "sweet"),
    ),
    (
        ("belongs to", "was made by", "was bought by", "was found by", "is liked by", "was sent to", "is wanted by"),
        ("a child", "a man", "a woman", "a teacher", "a friend", "a doctor", "my brother", "the king", "a farmer",
         "a writer"),
    ),
    (
        ("was sold", "was painted", "was moved", "was cleaned", "was lost", "will be sold", "will be moved"),
        ("yesterday", "today", "last week", "long ago", "at night", "in the morning", "in winter", "in summer"),
    ),
)  # fmt: skip
_PART_OF_PHRASE = ("pretrain", "pretrain", "pretrain", "tune", "validation", "dev", "evaluation")
UNSEEN: dict[str, tuple[str, ...]] = {
    part: tuple(
        f"{frame} {rest}"
        for frames, ends in _WITHOUT_A_PICTURE
        for i, frame in enumerate(frames)
        for j, rest in enumerate(ends)
        if _PART_OF_PHRASE[(i + j) % 7] == part
    )
    for part in dict.fromkeys(_PART_OF_PHRASE)
}
"""What no picture tells: the neutral hypotheses. Each part has phrases of its own, of words that pre-training uses."""
SKILLS = ("existence", "count", "color", "location", "relation")


@dataclass(frozen=True)
class Claim:
    """A statement about a scene, true or false."""

    statement: str
    correction: str
    """What is true; the statement itself where that is."""
    fields: dict[str, str]
    """The words that the skill's direct questions are filled with."""


def article(noun: str) -> str:
    """Returns the noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """Returns the plural of a shape's name or of "object"."""
    return noun + ("es" if noun.endswith("s") else "s")


def counted(n: int, shape: str) -> str:
    """Returns "is one circle", "are two circles"."""
    return f"is one {shape}" if n == 1 else f"are {NUMBERS[n]} {plural(shape)}"


def phrase(thing: Thing, parts: Sequence[str]) -> str:
    """Returns the words for an object: those of size, texture and color that `parts` names, and its shape."""
    words = {"size": thing.size, "texture": thing.texture, "color": thing.color}
    return " ".join([words[part] for part in ("size", "texture", "color") if part in parts] + [thing.shape])


def matches(scene: Scene, shape: str | None = None, color: str | None = None) -> list[Thing]:
    """Returns the objects of a scene that have the given shape and colour."""
    return [t for t in scene.things if shape in (None, t.shape) and color in (None, t.color)]


def cells_named(scene: Scene, fields: Mapping[str, str]) -> tuple[int, ...]:
    """Returns the cells of what a question's words name: the objects of each name; every glyph of a scene of glyphs.

    Args:
        scene: that is asked about.
        fields: what a wording is filled with; "noun", "ref", "refs", "a" and "b" name objects.
    """
    if scene.glyphs:
        return tuple(cell for cell, _ in scene.glyphs)
    found: set[int] = set()
    for words in (fields[name].split() for name in ("noun", "ref", "refs", "a", "b") if name in fields):
        shape = next(shape for shape in world.SHAPES if words[-1] in (shape, plural(shape)))
        color = words[-2] if len(words) > 1 and words[-2] in world.COLORS else None
        found |= {thing.cell for thing in matches(scene, shape, color)}
    return tuple(sorted(found))


def single_out(scene: Scene, rng: np.random.Generator) -> list[tuple[str, Thing]]:
    """Returns, in random order, objects with words that fit them alone: the shape, else colour and shape."""
    found = []
    for index in rng.permutation(len(scene.things)):
        thing = scene.things[int(index)]
        if len(matches(scene, thing.shape)) == 1 and rng.random() < 0.7:
            found.append((thing.shape, thing))
        elif len(matches(scene, thing.shape, thing.color)) == 1:
            found.append((f"{thing.color} {thing.shape}", thing))
    return found


def related(named: Sequence[tuple[str, Thing]], rng: np.random.Generator) -> tuple[str, str, str] | None:
    """Returns the words for the first two objects with a relation that holds between them; None for fewer than two."""
    if len(named) < 2:
        return None
    (a, thing), (b, other) = named[:2]
    across, down = thing.cell % 3 - other.cell % 3, thing.cell // 3 - other.cell // 3
    true = [] if not across else ["left of" if across < 0 else "right of"]
    true += [] if not down else ["above" if down < 0 else "below"]
    return a, world.pick(rng, true), b


def wrong_colors(scene: Scene, thing: Thing, held_out: Combinations = frozenset()) -> list[str]:
    """Returns colours that an object has not, those of other objects more often; `held_out` as for `existence`."""
    colors = (*[t.color for t in scene.things], *world.COLOR_NAMES)
    banned = world.ALL_HELD_OUT - held_out
    return [color for color in colors if color != thing.color and (thing.shape, color) not in banned]


def wrong_sum(total: int, rng: np.random.Generator) -> int:
    """Returns a number near a sum of two digits, and not the sum."""
    return world.pick(rng, [k for k in range(max(0, total - 3), min(18, total + 3) + 1) if k != total])


def misread(letters: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Returns letters with one of them replaced by one that is not among them."""
    other = list(letters)
    other[int(rng.integers(len(other)))] = world.pick(rng, [c for c in world.LETTERS if c not in letters])
    return other


def existence(scene: Scene, rng: np.random.Generator, truth: bool, held_out: Combinations = frozenset()) -> str | None:
    """Returns words for an object that the scene has or lacks; None where no such words were found.

    Half of the absent objects mix a shape and a colour that the scene has, so that neither alone decides.

    Args:
        held_out: combinations held out for the part, which an absent object may have. Outside dev and evaluation there
            are none: a model that hears of them only where they are absent would learn that they are.
    """
    if truth:
        thing = scene.things[int(rng.integers(len(scene.things)))]
        return thing.shape if rng.random() < 0.4 else f"{thing.color} {thing.shape}"
    for _ in range(8):
        shapes, colors = [t.shape for t in scene.things], [t.color for t in scene.things]
        shape = world.pick(rng, shapes if rng.random() < 0.5 else world.SHAPES)
        color = world.pick(rng, colors if rng.random() < 0.6 else world.COLOR_NAMES)
        if (shape, color) in world.ALL_HELD_OUT - held_out:
            continue
        if not matches(scene, shape):
            return shape if rng.random() < 0.5 else f"{color} {shape}"
        if not matches(scene, shape, color):
            return f"{color} {shape}"
    return None


def claim(
    scene: Scene, rng: np.random.Generator, truth: bool, skill: str, held_out: Combinations = frozenset()
) -> Claim | None:
    """Returns a claim about a scene, true or false as asked; None where the scene does not allow it.

    Args:
        skill: "existence", "shape" (existence by the shape alone), "count", "color", "location" or "relation".
        held_out: as for `existence`.
    """
    if skill in ("existence", "shape"):
        return _claim_existence(scene, rng, truth, skill, held_out)
    if skill == "count":
        return _claim_count(scene, rng, truth)
    named = single_out(scene, rng)
    if not named:
        return None
    ref, thing = named[0]
    if skill == "color":
        if len(matches(scene, thing.shape)) > 1:
            return None
        color = thing.color if truth else world.pick(rng, wrong_colors(scene, thing, held_out))
        fields, right = {"ref": thing.shape, "color": color}, f"the {thing.shape} is {thing.color}"
        return Claim(f"the {thing.shape} is {color}", right, fields)
    if skill == "location":
        near = [c for c in range(9) if c != thing.cell and (c // 3 == thing.cell // 3 or c % 3 == thing.cell % 3)]
        cell = world.CELLS[thing.cell if truth else world.pick(rng, near)]
        right = f"the {ref} is in the {world.CELLS[thing.cell]}"
        return Claim(f"the {ref} is in the {cell}", right, {"ref": ref, "cell": cell})
    found = related(named, rng)
    if found is None:
        return None
    a, word, b = found
    said = word if truth else OPPOSITE[word]
    return Claim(f"the {a} is {said} the {b}", f"the {a} is {word} the {b}", {"a": a, "b": b, "word": said})


def _claim_count(scene: Scene, rng: np.random.Generator, truth: bool) -> Claim:
    shape = world.pick(rng, [t.shape for t in scene.things] if rng.random() < 0.85 else world.SHAPES)
    n = len(matches(scene, shape))
    said = n if truth else world.pick(rng, [k for k in range(max(0, n - 2), n + 3) if k != n and k < 6])
    verb, rest = counted(said, shape).split(" ", 1)
    refs = shape if said == 1 else plural(shape)
    fields = {"counted": f"{verb} there {rest}", "n": NUMBERS[said], "refs": refs}
    return Claim(f"there {verb} {rest}", f"there {counted(n, shape)}", fields)


def _claim_existence(
    scene: Scene, rng: np.random.Generator, truth: bool, skill: str, held_out: Combinations
) -> Claim | None:
    if skill == "shape":
        shapes = [t.shape for t in scene.things]
        words = world.pick(rng, shapes if truth else [s for s in world.SHAPES if s not in shapes])
    else:
        found = existence(scene, rng, truth, held_out)
        if found is None:
            return None
        words = found
    said = f"there is {article(words)}"
    return Claim(said, said if truth else f"there is no {words}", {"noun": article(words)})
