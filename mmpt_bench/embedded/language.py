"""The language: what is asked about a scene, and the answer; claims are in statements.py, wordings in wordings.py.

Pre-training answers in sentences, now and then in a word; tuning and validation answer in a word. Tuning asks half of
its questions in pre-training's wordings: a mixture of few wordings teaches the wordings (docs/decisions/0010). Every
word that tuning or evaluation uses occurs in pre-training: one that does not has a random embedding, which no prompt
can repair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmpt_bench.embedded import statements, wordings, world
from mmpt_bench.embedded.statements import UNSEEN, Claim, article, counted, phrase, plural
from mmpt_bench.embedded.world import Scene

VERSION = 4
"""Rises when the questions to a scene change."""

SHORT = ("tune", "validation")
"""Parts that answer in a word."""
REHEARSED = 0.5
"""Share of the tuning mixture's questions that are asked in pre-training's wordings."""
ABSENT = 0.3
"""Share of pre-training's questions after a colour or a place that are about a shape which is not there."""


@dataclass(frozen=True)
class Asked:
    """A question about a scene with its answer, and which skill it takes."""

    skill: str
    question: str
    answer: str


def judged(made: Claim, truth: bool, rng: np.random.Generator, part: str, skill: str, full: float) -> Asked:
    """Returns the question whether a claim holds, to be answered by yes or no, or by one of two or three names.

    Args:
        full: probability, in pre-training, that the answer goes on to say what is true.
    """
    form = "yes" if part == "primer" else str(rng.choice(("yes", "true", "entail"), p=(0.6, 0.22, 0.18)))
    forms, right, wrong = {
        "yes": (wordings.YES_NO, "yes", "no"),
        "true": (wordings.TRUE_FALSE, "true", "false"),
        "entail": (wordings.ENTAIL, "entailment", "contradiction"),
    }[form]
    answer = right if truth else wrong
    asked_as = _wordings(part, rng)
    direct = wordings.DIRECT[asked_as].get("existence" if skill == "shape" else skill.removeprefix("claim_"))
    if form == "yes" and direct and rng.random() < 0.55:
        question = _pick(direct, rng).format(**made.fields)
    else:
        question = _pick(forms[asked_as], rng).format(claim=made.statement)
    question = _varied(question, rng, asked_as, form == "yes")
    if part not in SHORT and rng.random() < full:
        return Asked(skill, question, f"{answer} , {made.correction} .")
    return Asked(skill, question, f"{answer} .")


def _wordings(part: str, rng: np.random.Generator) -> str:
    """Returns the part whose wordings a question of `part` is asked in."""
    return "pretrain" if part == "tune" and rng.random() < REHEARSED else part


def _varied(question: str, rng: np.random.Generator, asked_as: str, yes_no: bool = False) -> str:
    """Returns a question as it is, save in pre-training's wordings.

    There it has words before or after it, and another word for the picture, now and then.
    """
    if asked_as != "pretrain":
        return question
    if rng.random() < 0.3:
        question = question.replace("picture", _pick(wordings.SYNONYMS, rng))
    if rng.random() < 0.2:
        question = _pick(wordings.HEADS, rng) + question
    if yes_no and "yes or no" not in question and rng.random() < 0.3:
        question += _pick(wordings.TAILS, rng)
    return question


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _claimed(scene: Scene, rng: np.random.Generator, part: str, skill: str) -> Asked | None:
    """Returns a claim to be judged; one that no picture can decide, for "neutral"."""
    truth = bool(rng.random() < 0.5)
    if skill == "neutral":
        thing = scene.things[int(rng.integers(len(scene.things)))]
        asked_as = _wordings(part, rng)
        question = _pick(wordings.ENTAIL[asked_as], rng).format(
            claim=f"the {thing.shape} {_pick(UNSEEN[asked_as], rng)}"
        )
        return Asked("neutral", _varied(question, rng, asked_as), "neutral .")
    made = statements.claim(scene, rng, truth, skill)
    return None if made is None else judged(made, truth, rng, part, skill, 0.5)


def _open(rng: np.random.Generator, part: str, skill: str, short: str, **fields: str) -> Asked:
    """Returns an open question of a skill; in pre-training most answers are sentences, in tuning all are short."""
    asked_as = _wordings(part, rng)
    question = _varied(_pick(wordings.QUESTIONS[asked_as][skill], rng).format(**fields), rng, asked_as)
    if part in SHORT:
        return Asked(skill, question, f"{short} .")
    if rng.random() < 0.3 and skill != "caption":
        return Asked(skill, _pick(wordings.SHORT_CUES, rng) + question, f"{short} .")
    return Asked(skill, question, wordings.SENTENCES[skill].format(short=short, **fields))


def ask_things(scene: Scene, rng: np.random.Generator, part: str, skills: Sequence[str]) -> list[Asked]:
    """Returns one question for each skill that the scene allows; a claim, or an open one.

    Args:
        skills: names of claims ("count"), or of open questions with a leading question mark ("?count").
    """
    asked = [
        _open_things(scene, rng, part, skill[1:]) if skill.startswith("?") else _claimed(scene, rng, part, skill)
        for skill in skills
    ]
    return [question for question in asked if question is not None]


def _open_things(scene: Scene, rng: np.random.Generator, part: str, skill: str) -> Asked | None:
    """Returns an open question about the objects of a scene, None where it allows none of this skill."""
    if skill == "caption":
        words = " , ".join(
            f"{article(phrase(t, ('size', 'texture', 'color')))} in the {world.CELLS[t.cell]}" for t in scene.things
        )
        return _open(rng, part, skill, words)
    if skill == "count":
        shape = world.pick(rng, [t.shape for t in scene.things] if rng.random() < 0.8 else world.SHAPES)
        n = len(statements.matches(scene, shape))
        return _open(rng, part, skill, statements.NUMBERS[n], refs=plural(shape), counted=counted(n, shape))
    if skill == "at":
        cell = int(rng.integers(9)) if rng.random() < 0.3 else scene.things[int(rng.integers(len(scene.things)))].cell
        here = [article(phrase(t, ("color",))) for t in scene.things if t.cell == cell] or ["nothing"]
        return _open(rng, part, skill, here[0], cell=world.CELLS[cell])
    if part not in SHORT and skill in ("color", "location") and rng.random() < ABSENT:
        # What is not there: the step from finding an object to saying that there is none, which claims build on.
        absent = world.pick(rng, [shape for shape in world.SHAPES if not statements.matches(scene, shape)])
        question = _pick(wordings.QUESTIONS[part][skill], rng).format(ref=absent)
        return Asked(skill, _varied(question, rng, part), f"no {absent} .")
    named = statements.single_out(scene, rng)
    if skill == "relation":
        found = statements.related(named, rng)
        return None if found is None else _open(rng, part, skill, found[1], a=found[0], b=found[2])
    if not named:
        return None
    ref, thing = named[0]
    if skill == "color" and " " in ref:
        return None
    short = {"color": thing.color, "location": world.CELLS[thing.cell], "size": thing.size, "texture": thing.texture}
    return _open(rng, part, skill, short[skill], ref=ref)


def ask_text(scene: Scene, rng: np.random.Generator, part: str) -> list[Asked]:
    """Returns questions about the glyphs of a scene: what they say, and whether they say something else."""
    text = [character for _, character in scene.glyphs]
    truth = bool(rng.random() < 0.5)
    if "+" in text:
        total = int(text[0]) + int(text[2])
        said = str(total if truth else statements.wrong_sum(total, rng))
        asked = [_open(rng, part, "sum", str(total))]
        if part not in SHORT:
            asked.append(Asked("sum", "read the sum .", f"{' '.join(text)} is {total} ."))
        made = Claim(f"the sum is {said}", f"the sum is {total}", {"said": said})
        return [*asked, judged(made, truth, rng, part, "claim_sum", 0.6)]
    said = " ".join(text if truth else statements.misread(text, rng))
    made = Claim(f"the text says {said}", f"the text says {' '.join(text)}", {"said": said})
    return [_open(rng, part, "text", " ".join(text)), judged(made, truth, rng, part, "claim_text", 0.6)]


def ask_big(scene: Scene, rng: np.random.Generator, part: str) -> list[Asked]:
    """Returns questions about one big object."""
    assert scene.big is not None
    shape, color = scene.big.shape, scene.big.color
    truth = bool(rng.random() < 0.5)
    said = shape if truth else world.pick(rng, [s for s in world.SHAPES if s != shape])
    made = Claim(f"this is {article(said)}", f"this is {article(shape)}", {"noun": article(said)})
    shapes = [str(s) for s in rng.permutation([s for s in world.SHAPES if s != shape])[: int(rng.integers(2, 10))]]
    shapes.insert(int(rng.integers(len(shapes) + 1)), shape)
    options = f"{' , '.join(shapes[:-1])} or {shapes[-1]}"
    return [
        _open(rng, part, "big", shape),
        _open(rng, part, "options", shape, options=options),
        _open(rng, part, "color", color, ref=shape),
        judged(made, truth, rng, part, "claim_big", 0.3),
    ]


def ask_digit(scene: Scene, rng: np.random.Generator, part: str) -> list[Asked]:
    """Returns questions about one handwritten digit."""
    assert scene.digit_row is not None
    return [_open(rng, part, "digit", str(world.digit_label(scene.digit_row)))]


ASK: dict[str, Callable[[Scene, np.random.Generator, str], list[Asked]]] = {
    "text": ask_text,
    "big": ask_big,
    "digit": ask_digit,
}
