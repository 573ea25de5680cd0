"""The curriculum of the language stage: which scenes, asked what, in which wordings, from which step on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmpt_bench.embedded import language, world
from mmpt_bench.embedded.language import Asked
from mmpt_bench.embedded.world import Scene

OPEN_SKILLS = ("?count", "?color", "?location", "?at", "?at", "?relation", "?size", "?texture")


@dataclass(frozen=True)
class Phase:
    """A part of the curriculum."""

    start: int
    """First step."""
    things: tuple[int, ...]
    """Numbers of objects a scene may have."""
    letters: tuple[int, ...]
    """Numbers of letters a text may have."""
    kinds: tuple[float, float, float, float, float]
    """Shares of scenes of objects, letters, sums, one big object and one digit."""
    claims: int
    """Claims asked of a scene of objects; true or false is learnt late, and on one object first."""
    open: int
    """Open questions asked of it."""
    captions: float
    """Probability that it is also to be described."""
    skills: tuple[str, ...]
    """What the claims are about, each as often as it stands here."""
    opens: tuple[str, ...] = OPEN_SKILLS
    """What the open questions are about."""
    part: str = "pretrain"
    """Whose wordings: many, or the few of the primer."""


ALL = ("shape", "existence", "existence", "count", "count", "color", "color", "location", "location", "neutral")
PAIRS = (*ALL, "relation", "relation", "relation")
FOUND = ("shape", "shape", "existence", "color", "location", "relation")
WHERE = ("location", "location", "relation", "relation", "relation", "existence", "count", "count", "color")
OPEN_WHERE = ("?location", "?location", "?at", "?relation", "?color", "?count")
HARD, HARD_OPEN = ("relation", "relation", "count", "existence", "color"), ("?count", "?relation", "?color")
REST = ("relation", "relation", "count", "count", "color", "existence", "location")
REST_OPEN = ("?color", "?color", "?count", "?location", "?at", "?relation", "?size", "?texture")
PHASES = (
    Phase(0, (1, 2), (1,), (0.70, 0.09, 0.09, 0.07, 0.05), 3, 6, 0.1, ("shape",), part="primer"),
    Phase(500, (1, 2, 2, 3), (1, 2), (0.68, 0.09, 0.11, 0.07, 0.05), 5, 4, 0.1, FOUND, part="primer"),
    Phase(1100, (1, 2, 3), (1, 2, 3), (0.60, 0.14, 0.14, 0.07, 0.05), 6, 4, 0.1, (*FOUND, "count"), part="primer"),
    Phase(1600, (1, 2, 3), (1, 2, 3), (0.60, 0.14, 0.14, 0.07, 0.05), 7, 3, 0.1, PAIRS),
    Phase(2600, (2, 2, 3), (2, 3), (0.62, 0.13, 0.14, 0.06, 0.05), 7, 3, 0.1, WHERE, OPEN_WHERE),
    Phase(3600, (1, 2, 3, 4), (2, 3), (0.60, 0.14, 0.14, 0.07, 0.05), 8, 2, 0.05, (*PAIRS, *WHERE), OPEN_WHERE),
    Phase(5000, (2, 2, 3, 3, 4), (2, 3), (0.62, 0.13, 0.13, 0.07, 0.05), 8, 1, 0.02, (*PAIRS, *HARD), HARD_OPEN),
    Phase(6600, (1, 2, 3, 4), (2, 3), (0.60, 0.13, 0.14, 0.08, 0.05), 8, 2, 0.05, (*ALL, *REST), REST_OPEN),
)
REHEARSED = (*ALL, *REST, "count", "count", "color")
REHEARSAL = (
    Phase(0, (1, 2, 2, 3), (1, 2, 3), (0.58, 0.13, 0.14, 0.09, 0.06), 7, 4, 0.1, REHEARSED, REST_OPEN),
    Phase(1500, (1, 2, 3, 4), (2, 3), (0.59, 0.13, 0.14, 0.08, 0.06), 8, 3, 0.05, REHEARSED, (*REST_OPEN, "?count")),
    Phase(7000, (1, 2, 3, 4), (2, 3), (0.5, 0.25, 0.11, 0.08, 0.06), 8, 3, 0.05, REHEARSED, (*REST_OPEN, "?count")),
)
"""Of a base that begins with an earlier one's weights: everything at once, fewer objects first, more letters last."""


def draw_rows(rng: np.random.Generator, n: int, phase: Phase) -> list[tuple[Scene, list[Asked]]]:
    """Returns scenes of a phase with questions in pre-training's wordings."""
    return [draw_row(rng, phase) for _ in range(n)]


def draw_row(rng: np.random.Generator, phase: Phase) -> tuple[Scene, list[Asked]]:
    """Returns one scene of a phase with more questions, in random order, than a row may hold."""
    kind = str(rng.choice(("things", "text", "sum", "big", "digit"), p=phase.kinds))
    if kind == "things":
        scene = world.random_scene(rng, phase.things)
        skills = [*rng.choice(phase.skills, phase.claims), *rng.choice(phase.opens, phase.open)]
        if rng.random() < phase.captions:
            skills.append("?caption")
        questions = language.ask_things(scene, rng, phase.part, [str(skill) for skill in skills])
    elif kind == "digit":
        scene = world.random_digit(rng, "pretrain")
        questions = [a for _ in range(3) for a in language.ask_digit(scene, rng, phase.part)]
    else:
        if kind == "big":
            scene = world.random_big(rng)
        else:
            scene = world.random_text(rng, sums=kind == "sum", letters=phase.letters)
        ask = language.ask_big if kind == "big" else language.ask_text
        questions = [a for _ in range(6) for a in ask(scene, rng, phase.part)]
        # What is seen is soon named; whether it is what somebody says takes longer to learn.
        questions = [a for a in questions if a.skill.startswith("claim_") or rng.random() < 0.4]
    return scene, [questions[int(i)] for i in rng.permutation(len(questions))]
