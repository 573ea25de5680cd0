"""The language: what is asked about a scene, in many wordings, and what is true of it.

Three sets of wordings never meet: `pretrain` (answers in sentences, now and then in a word), `tune` (answers in a
word), and the evaluation's own, which the suite and the task files hold. Every word of all three occurs in
pre-training: a word that does not has a random embedding, which no prompt can repair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmpt_bench.embedded import world
from mmpt_bench.embedded.world import Scene, Thing

VERSION = 1
"""Rises when the questions to a scene change."""

NUMBERS = ("zero", "one", "two", "three", "four", "five")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
UNSEEN = ("is heavy", "is old", "is warm", "belongs to a child", "was made by hand", "is new", "is for sale")
"""What no picture tells: the neutral hypotheses."""


@dataclass(frozen=True)
class Asked:
    """A question about a scene with its answer, and which skill it takes."""

    skill: str
    question: str
    answer: str


Wording = tuple[str, str]
"""(question, answer) with named fields."""

YES_NO: dict[str, Sequence[str]] = {
    "pretrain": (
        "is it true that {claim} ?",
        "tell me if {claim} .",
        "do you see that {claim} ?",
        "can we say that {claim} ?",
        "{claim} , yes or no ?",
        "please say yes or no : {claim} .",
        "is this right : {claim} ?",
    ),
    "tune": (
        "would you say that {claim} ? answer yes or no .",
        "{claim} . is that so ? yes or no .",
        "look at the image . do you think {claim} ?",
        "check this : {claim} . answer with yes or no .",
    ),
}
EXISTENCE: dict[str, Sequence[str]] = {
    "pretrain": ("is {noun} in the picture ?",),
    "tune": ("do you see {noun} in this image ?", "can you see {noun} ?", "is {noun} shown here ?"),
}
"""Questions that do not say which words may answer them, as POPE's do not."""
TRUE_FALSE: dict[str, Sequence[str]] = {
    "pretrain": (
        "claim : {claim} . true or false ?",
        "{claim} . is the claim true or false ?",
        "true or false : {claim} .",
        "say true or false : {claim} .",
    ),
    "tune": (
        "look and decide , true or false : {claim} .",
        "{claim} . decide if it is true or false .",
        "is this sentence true or false ? {claim} .",
    ),
}
ENTAIL: dict[str, Sequence[str]] = {
    "pretrain": (
        "claim : {claim} . entailment , neutral or contradiction ?",
        "does the picture show that {claim} ? say entailment , neutral or contradiction .",
        "{claim} . is this entailment , neutral or contradiction ?",
    ),
    "tune": (
        "read the claim and look : {claim} . entailment , neutral or contradiction .",
        "what is right for this claim , entailment , neutral or contradiction ? {claim} .",
    ),
}
QUESTIONS: dict[str, dict[str, Sequence[str]]] = {
    "pretrain": {
        "color": ("what color is the {ref} ?", "what is the color of the {ref} ?", "name the color of the {ref} ."),
        "location": ("where is the {ref} ?", "in which place is the {ref} ?", "say where the {ref} is ."),
        "at": ("what is in the {cell} ?", "name the object in the {cell} .", "which object is in the {cell} ?"),
        "count": ("how many {refs} are there ?", "count the {refs} .", "what is the number of {refs} ?"),
        "relation": ("where is the {a} from the {b} ?", "how does the {a} stand to the {b} ?"),
        "size": ("is the {ref} small or big ?", "what size is the {ref} ?"),
        "texture": ("what texture has the {ref} ?", "is the {ref} plain , striped or dotted ?"),
        "caption": ("describe the picture .", "what is in the picture ?", "name all objects ."),
        "text": ("what letters are in the picture ?", "read the text .", "what does the text say ?"),
        "sum": ("what is the sum ?", "do the sum in the picture .", "what is the answer to the sum ?"),
        "options": ("is it a {options} ?", "choose one : {options} .", "{options} , which one do you see ?"),
        "big": ("what is the big object ?", "name the shape .", "which shape is this ?", "what is the class of it ?"),
        "digit": ("which digit is this ?", "what number is it ?", "read the number .", "name the digit ."),
    },
    "tune": {
        "color": ("tell me the color of the {ref} .", "the {ref} has which color ?"),
        "location": ("tell me where the {ref} is .", "the {ref} is in which place ?"),
        "at": ("tell me which object the {cell} has .", "the {cell} shows what ?"),
        "count": ("tell me how many {refs} you see .", "say the number of {refs} in the image ."),
        "relation": ("tell me where the {a} is from the {b} .",),
        "size": ("tell me the size of the {ref} .",),
        "texture": ("tell me the texture of the {ref} .",),
        "text": ("tell me what the text says .", "say the letters in the image ."),
        "sum": ("tell me the answer to the sum .", "say what the sum is ."),
        "options": ("say which it is , {options} .", "look at it and decide : {options} ?"),
        "big": ("tell me which shape you see .", "the image shows which class of object ?"),
        "digit": ("tell me which digit you see .", "the image shows which number ?"),
    },
}
SENTENCES = {
    "color": "the {ref} is {short} .",
    "location": "the {ref} is in the {short} .",
    "at": "in the {cell} is {short} .",
    "count": "there {counted} .",
    "relation": "the {a} is {short} the {b} .",
    "size": "the {ref} is {short} .",
    "texture": "the {ref} is {short} .",
    "caption": "{short} .",
    "text": "{short} .",
    "sum": "{short} .",
    "options": "{short} .",
    "big": "{short} .",
    "digit": "{short} .",
}
"""How pre-training answers, most of the time."""

SHORT_CUES = ("in short , ", "in a word : ", "answer with a word . ")
"""What tells the base, in pre-training, that the answer is to be a word."""


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


def relation(a: Thing, b: Thing, rng: np.random.Generator) -> str:
    """Returns a relation that holds from `a` to `b`, which stand in different cells."""
    across, down = a.cell % 3 - b.cell % 3, a.cell // 3 - b.cell // 3
    true = [] if not across else ["left of" if across < 0 else "right of"]
    true += [] if not down else ["above" if down < 0 else "below"]
    return str(rng.choice(true))


def holds(a: Thing, b: Thing, word: str) -> bool:
    """Returns whether a relation is true of two objects."""
    across, down = a.cell % 3 - b.cell % 3, a.cell // 3 - b.cell // 3
    return {"left of": across < 0, "right of": across > 0, "above": down < 0, "below": down > 0}[word]


def matches(scene: Scene, shape: str | None = None, color: str | None = None) -> list[Thing]:
    """Returns the objects of a scene that have the given shape and colour."""
    return [t for t in scene.things if shape in (None, t.shape) and color in (None, t.color)]


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


def existence(scene: Scene, rng: np.random.Generator, truth: bool) -> tuple[str, str] | None:
    """Returns (words for an object, its shape) that the scene has or lacks; None where no such words were found.

    Half of the absent objects mix a shape and a colour that the scene has, so that neither alone decides.
    """
    if truth:
        thing = scene.things[int(rng.integers(len(scene.things)))]
        return (thing.shape if rng.random() < 0.4 else f"{thing.color} {thing.shape}"), thing.shape
    for _ in range(8):
        shapes, colors = [t.shape for t in scene.things], [t.color for t in scene.things]
        shape = str(rng.choice(shapes if rng.random() < 0.5 else world.SHAPES))
        color = str(rng.choice(colors if rng.random() < 0.6 else world.COLOR_NAMES))
        if not matches(scene, shape):
            return (shape if rng.random() < 0.5 else f"{color} {shape}"), shape
        if not matches(scene, shape, color):
            return f"{color} {shape}", shape
    return None


def claim(scene: Scene, rng: np.random.Generator, truth: bool, skill: str) -> tuple[str, str] | None:
    """Returns (claim, correction) about a scene, true or false as asked; None where the scene does not allow it.

    Args:
        skill: "existence", "shape" (existence by the shape alone), "count", "color", "location" or "relation".
    """
    if skill == "existence":
        found = existence(scene, rng, truth)
        return found and (f"there is a {found[0]}", f"there is {'a' if truth else 'no'} {found[0]}")
    if skill == "shape":
        shapes = [t.shape for t in scene.things]
        name = str(rng.choice(shapes if truth else [s for s in world.SHAPES if s not in shapes]))
        return f"there is a {name}", f"there is {'a' if truth else 'no'} {name}"
    if skill == "count":
        shape = str(rng.choice([t.shape for t in scene.things] if rng.random() < 0.85 else world.SHAPES))
        n = len(matches(scene, shape))
        said = n if truth else int(rng.choice([k for k in range(max(0, n - 2), n + 3) if k != n and k < 6]))
        return f"there {counted(said, shape)}", f"there {counted(n, shape)}"
    named = single_out(scene, rng)
    if not named:
        return None
    ref, thing = named[0]
    if skill == "color":
        ref = thing.shape if len(matches(scene, thing.shape)) == 1 else f"{ref} in the {world.CELLS[thing.cell]}"
        if " in the " in ref:
            return None
        others = [c for c in (*[t.color for t in scene.things], *world.COLOR_NAMES) if c != thing.color]
        said_color = thing.color if truth else str(rng.choice(others))
        return f"the {ref} is {said_color}", f"the {ref} is {thing.color}"
    if skill == "location":
        near = [c for c in range(9) if c != thing.cell and (c // 3 == thing.cell // 3 or c % 3 == thing.cell % 3)]
        cell = thing.cell if truth else int(rng.choice(near))
        return f"the {ref} is in the {world.CELLS[cell]}", f"the {ref} is in the {world.CELLS[thing.cell]}"
    if len(named) < 2:
        return None
    other_ref, other = named[1]
    word = relation(thing, other, rng)
    said_word = word if truth else OPPOSITE[word]
    return f"the {ref} is {said_word} the {other_ref}", f"the {ref} is {word} the {other_ref}"


CLAIMS = ("existence", "count", "color", "location", "relation")


def _claimed(scene: Scene, rng: np.random.Generator, part: str, skill: str) -> Asked | None:
    """Returns a claim to be judged, as yes or no, true or false, or entailment, neutral or contradiction."""
    truth = bool(rng.random() < 0.5)
    form = rng.choice(("yes", "true", "entail"), p=(0.55, 0.25, 0.2))
    if form == "entail" and rng.random() < 1 / 3:
        thing = scene.things[int(rng.integers(len(scene.things)))]
        words = f"the {thing.shape} {rng.choice(UNSEEN)}"
        return Asked("neutral", str(rng.choice(ENTAIL[part])).format(claim=words), "neutral .")
    found = claim(scene, rng, truth, skill)
    if found is None:
        return None
    said, correct = found
    forms, right, wrong = {
        "yes": (YES_NO, "yes", "no"),
        "true": (TRUE_FALSE, "true", "false"),
        "entail": (ENTAIL, "entailment", "contradiction"),
    }[str(form)]
    answer = right if truth else wrong
    question = str(rng.choice(forms[part])).format(claim=said)
    if skill == "existence" and form == "yes" and rng.random() < (0.3 if part == "pretrain" else 0.6):
        question = str(rng.choice(EXISTENCE[part])).format(noun=said.removeprefix("there is "))
    if part == "pretrain" and rng.random() < 0.5:
        return Asked(skill, question, f"{answer} , {correct} .")
    return Asked(skill, question, answer + " .")


def _open(scene: Scene, rng: np.random.Generator, part: str, skill: str, short: str, **fields: str) -> Asked:
    """Returns an open question of a skill; in pre-training most answers are sentences, in tuning all are short."""
    question = str(rng.choice(QUESTIONS[part][skill])).format(**fields)
    if part == "tune":
        return Asked(skill, question, f"{short} .")
    if rng.random() < 0.3 and skill != "caption":
        return Asked(skill, str(rng.choice(SHORT_CUES)) + question, f"{short} .")
    return Asked(skill, question, SENTENCES[skill].format(short=short, **fields))


def ask_things(scene: Scene, rng: np.random.Generator, part: str, skills: Sequence[str]) -> list[Asked]:
    """Returns one question for each skill that the scene allows; a claim for those in `CLAIMS`, else an open one.

    Args:
        skills: names of claims ("count"), or of open questions with a leading question mark ("?count").
    """
    asked = []
    for skill in skills:
        if not skill.startswith("?"):
            question = _claimed(scene, rng, part, skill)
        else:
            question = _open_things(scene, rng, part, skill[1:])
        if question is not None:
            asked.append(question)
    return asked


def _open_things(scene: Scene, rng: np.random.Generator, part: str, skill: str) -> Asked | None:
    """Returns an open question about the objects of a scene, None where it allows none of this skill."""
    if skill == "caption":
        words = " , ".join(
            f"a {phrase(t, ('size', 'texture', 'color'))} in the {world.CELLS[t.cell]}" for t in scene.things
        )
        return _open(scene, rng, part, skill, words)
    if skill == "count":
        shape = str(rng.choice([t.shape for t in scene.things] if rng.random() < 0.8 else world.SHAPES))
        n = len(matches(scene, shape))
        return _open(scene, rng, part, skill, NUMBERS[n], refs=plural(shape), counted=counted(n, shape))
    if skill == "at":
        cell = int(rng.integers(9)) if rng.random() < 0.3 else scene.things[int(rng.integers(len(scene.things)))].cell
        here = [t for t in scene.things if t.cell == cell]
        return _open(
            scene, rng, part, skill, f"a {phrase(here[0], ('color',))}" if here else "nothing", cell=world.CELLS[cell]
        )
    named = single_out(scene, rng)
    if skill == "relation":
        if len(named) < 2:
            return None
        (a, thing), (b, other) = named[:2]
        return _open(scene, rng, part, skill, relation(thing, other, rng), a=a, b=b)
    if not named:
        return None
    ref, thing = named[0]
    if skill == "color" and " " in ref:
        return None
    short = {"color": thing.color, "location": world.CELLS[thing.cell], "size": thing.size, "texture": thing.texture}
    return _open(scene, rng, part, skill, short[skill], ref=ref)


def ask_text(scene: Scene, rng: np.random.Generator, part: str) -> list[Asked]:
    """Returns questions about the glyphs of a scene: what they say, and whether they say something else."""
    text = [character for _, character in scene.glyphs]
    truth, form = bool(rng.random() < 0.5), YES_NO[part]
    if "+" in text:
        total = int(text[0]) + int(text[2])
        said = (
            total
            if truth
            else int(rng.choice([k for k in range(max(0, total - 3), min(18, total + 3) + 1) if k != total]))
        )
        right = f"the sum is {total}"
        asked = [_open(scene, rng, part, "sum", str(total))]
        if part == "pretrain":
            asked.append(Asked("sum", "read the sum .", f"{' '.join(text)} is {total} ."))
        wrong = f"the sum is {said}"
    else:
        shown = list(text)
        if not truth:
            shown[int(rng.integers(len(shown)))] = str(rng.choice([c for c in world.LETTERS if c not in text]))
        right, wrong = f"the text says {' '.join(text)}", f"the text says {' '.join(shown)}"
        asked = [_open(scene, rng, part, "text", " ".join(text))]
    question, answer = str(rng.choice(form)).format(claim=wrong), "yes" if truth else "no"
    full = part == "pretrain" and rng.random() < 0.6
    return [*asked, Asked("claim_text", question, f"{answer} , {right} ." if full else answer + " .")]


def ask_big(scene: Scene, rng: np.random.Generator, part: str) -> list[Asked]:
    """Returns questions about one big object."""
    assert scene.big is not None
    shape, color = scene.big.shape, scene.big.color
    truth = bool(rng.random() < 0.5)
    said = shape if truth else str(rng.choice([s for s in world.SHAPES if s != shape]))
    claims = str(rng.choice(YES_NO[part])).format(claim=f"this is a {said}")
    shapes = [str(s) for s in rng.permutation([s for s in world.SHAPES if s != shape])[: int(rng.integers(2, 10))]]
    shapes.insert(int(rng.integers(len(shapes) + 1)), shape)
    options = f"{' , '.join(shapes[:-1])} or {shapes[-1]}"
    asked = [
        _open(scene, rng, part, "big", shape),
        _open(scene, rng, part, "options", shape, options=options),
        _open(scene, rng, part, "color", color, ref=shape),
    ]
    return [*asked, Asked("claim_big", claims, ("yes" if truth else "no") + " .")]


def ask_digit(scene: Scene, rng: np.random.Generator, part: str) -> list[Asked]:
    """Returns questions about one handwritten digit."""
    assert scene.digit_row is not None
    return [_open(scene, rng, part, "digit", str(world.digit_label(scene.digit_row)))]


ASK: dict[str, Callable[[Scene, np.random.Generator, str], list[Asked]]] = {
    "text": ask_text,
    "big": ask_big,
    "digit": ask_digit,
}
