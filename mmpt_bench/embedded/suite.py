"""The embedded suite: miniature tasks in the schemas of the real ones, and the mixture that methods are tuned on.

Everything here is in the shifted world. Rows have the columns of the hub's data sets, so the task files turn them into
samples with the same code, pairing, parse rules and metrics. They are not the public benchmarks, and no figure of
theirs says anything about those. What separates the parts, each proven by a test: wordings (no evaluation prompt is
asked in pre-training, tuning or validation), scenes (streams of their own, objects in `HELD_OUT` combinations only in
evaluation) and digits (rows of their own).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt_bench.common.hashing import content_key, derive
from mmpt_bench.data.examples import Corpus, Example
from mmpt_bench.data.images import LazyImage
from mmpt_bench.embedded import language, statements, world
from mmpt_bench.embedded.language import Asked
from mmpt_bench.embedded.shifted import shift
from mmpt_bench.embedded.world import Scene

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmpt_bench.data.rows import Rows

VERSION = 3
"""Rises when the rows of a task or the examples of the mixture change; a test holds the content to it."""

PICTURES = {"mme": 40, "pope": 200, "vsr": 250, "snli_ve": 200, "cifar10": 250, "mnist": 400}
"""Pictures a task; for MME, a subtask."""
STRENGTH = 1.0
"""Of the shifted world; `benchmarks/shift.py` measures others."""
ASKED_OF_THINGS = (
    *statements.SKILLS, *statements.SKILLS, "relation", "neutral",
    "?count", "?color", "?location", "?at", *["?caption"] * 8,
)  # fmt: skip
"""What the tuning mixture asks about a scene of objects, each as often as it stands here."""
HELD_OUT_SHARE = 0.35
"""Probability that an object of an evaluation scene is in a combination that was never seen before."""
CORPUS_SIZE, VALIDATION_SIZE = 20_000, 384
MIX = {"things": 0.54, "text": 0.14, "sum": 0.14, "big": 0.11, "digit": 0.07}
"""Shares of the kinds of scene in the tuning mixture, which rehearses every skill in the shifted world."""

Row = dict[str, Any]


def fingerprint(part: str) -> str:
    """Returns the name of a part's content: "tuning", or a task's."""
    return content_key(["embedded", part, VERSION, world.VERSION, language.VERSION])


def show(scene: Scene) -> Image:
    """Returns the scene in the shifted world."""
    from PIL import Image

    return Image.fromarray(shift(world.draw(scene), scene.seed, STRENGTH))


def rows(task: str) -> list[Row]:
    """Returns a task's evaluation rows in the hub's schema, pictures drawn; raises KeyError for a task without any."""
    return rows_of("evaluation", task)


def rows_of(part: str, task: str) -> list[Row]:
    """Returns a task's rows of a part with scenes of its own: "evaluation", or "calibration" (of the world itself)."""
    return _ROWS[task](np.random.default_rng(derive(VERSION, f"{part}/{task}")))


def source(task: str) -> Rows:
    """Returns a task's rows as the harness takes them from anywhere; raises KeyError for a task without any."""
    from mmpt_bench.data.rows import Rows

    return Rows(rows(task), label_names(task), fingerprint(task), "generated scenes", "embedded")


def label_names(task: str) -> tuple[str, ...]:
    """Returns the names of a task's classes where its rows hold their numbers, else nothing."""
    return {
        "cifar10": world.SHAPES,
        "mnist": world.DIGITS,
        "snli_ve": ("entailment", "neutral", "contradiction"),
        "vsr": ("false", "true"),
    }.get(task, ())


def tuning_corpus() -> Corpus:
    """Returns the mixture: chat form, short answers, wordings and combinations that evaluation does not use."""
    return Corpus(
        name="embedded",
        fingerprint=fingerprint("tuning"),
        size=CORPUS_SIZE,
        example=functools.partial(_example, "train"),
        validation_size=VALIDATION_SIZE,
        validation=functools.partial(_example, "validation"),
    )


def _example(part: str, index: int) -> Example:
    """Returns one example of "train" or "validation": a scene, and one of the questions that it allows."""
    scene, asked = tuning_question(part, index)
    return Example(LazyImage(f"embedded/{part}/{index}", lambda: show(scene)), asked.question, asked.answer)


def tuning_question(part: str, index: int) -> tuple[Scene, Asked]:
    """Returns the scene and the question of a tuning or validation example."""
    rng = np.random.default_rng([derive(VERSION, f"tuning/{part}"), index])
    language_part = "tune" if part == "train" else part
    while True:
        kind = str(rng.choice(tuple(MIX), p=tuple(MIX.values())))
        if kind == "things":
            scene = world.random_scene(rng, (1, 2, 3, 4))
            found = language.ask_things(scene, rng, language_part, [str(rng.choice(ASKED_OF_THINGS))])
        else:
            scene = _other_scene(rng, kind, part)
            found = language.ASK["text" if kind == "sum" else kind](scene, rng, language_part)
        if found:
            return scene, found[int(rng.integers(len(found)))]


def _other_scene(rng: np.random.Generator, kind: str, part: str) -> Scene:
    if kind == "big":
        return world.random_big(rng)
    if kind == "digit":
        return world.random_digit(rng, part)
    return world.random_text(rng, sums=kind == "sum")


def _scenes(
    rng: np.random.Generator, n: int, allows: Callable[[Scene], Any], counts: Sequence[int] = (2, 3, 4)
) -> list[Any]:
    """Returns what `allows` makes of `n` scenes, passing over those of which it makes nothing."""
    made: list[Any] = []
    while len(made) < n:
        result = allows(world.random_scene(rng, counts, HELD_OUT_SHARE))
        if result:
            made.append(result)
    return made


def _mme(rng: np.random.Generator) -> list[Row]:
    made: list[Row] = []
    n = PICTURES["mme"]
    for category in ("existence", "count", "position", "color"):
        makers = {"existence": _existence, "count": _count, "position": _position, "color": _color}
        for index, (scene, yes, no) in enumerate(_scenes(rng, n, functools.partial(makers[category], rng))):
            made += _pair(category, index, scene, yes, no)
    for index in range(n):
        scene = world.random_text(rng, sums=False)
        text = [glyph for _, glyph in scene.glyphs]
        other = list(text)
        other[int(rng.integers(len(text)))] = str(rng.choice([c for c in world.LETTERS if c not in text]))
        yes, no = (f'Is the text in this image "{" ".join(letters)}"?' for letters in (text, other))
        made += _pair("OCR", index, scene, yes, no)
    for index in range(n):
        scene = world.random_text(rng, sums=True)
        total = int(scene.glyphs[0][1]) + int(scene.glyphs[2][1])
        wrong = int(rng.choice([k for k in range(max(0, total - 3), min(18, total + 3) + 1) if k != total]))
        yes, no = (f"Is the answer to the arithmetic question in the image {k}?" for k in (total, wrong))
        made += _pair("numerical_calculation", index, scene, yes, no)
    return made


def _pair(category: str, index: int, scene: Scene, yes: str, no: str) -> list[Row]:
    """Returns the two questions that MME asks of a picture, one with the answer yes and one with no."""
    common = {"question_id": f"{category}/{index:04d}.png", "image": show(scene), "category": category}
    return [
        common | {"question": f"{question} Please answer yes or no.", "answer": answer}
        for question, answer in ((yes, "Yes"), (no, "No"))
    ]


def _existence(rng: np.random.Generator, scene: Scene) -> tuple[Scene, str, str] | None:
    yes, no = (statements.existence(scene, rng, truth, held_out=True) for truth in (True, False))
    if yes is None or no is None:
        return None
    return (
        scene,
        f"Is there {statements.article(yes)} in this image?",
        f"Is there {statements.article(no)} in this image?",
    )


def _count(rng: np.random.Generator, scene: Scene) -> tuple[Scene, str, str]:
    shape = str(rng.choice([t.shape for t in scene.things]))
    n = len(statements.matches(scene, shape))
    wrong = int(rng.choice([k for k in (n - 1, n + 1) if 1 <= k <= 5]))

    def asked(k: int) -> str:
        noun = shape if k == 1 else statements.plural(shape)
        return f"{'Is' if k == 1 else 'Are'} there a total of {statements.NUMBERS[k]} {noun} in the image?"

    return scene, asked(n), asked(wrong)


def _position(rng: np.random.Generator, scene: Scene) -> tuple[Scene, str, str] | None:
    named = statements.single_out(scene, rng)
    if len(named) < 2:
        return None
    (a, thing), (b, other) = named[:2]
    word = statements.relation(thing, other, rng)
    wrong = statements.OPPOSITE[word]
    return scene, f"Is the {a} {word} the {b} in this image?", f"Is the {a} {wrong} the {b} in this image?"


def _color(rng: np.random.Generator, scene: Scene) -> tuple[Scene, str, str] | None:
    single = [t for t in scene.things if len(statements.matches(scene, t.shape)) == 1]
    if not single:
        return None
    thing = single[int(rng.integers(len(single)))]
    others = [c for c in (*[t.color for t in scene.things], *world.COLOR_NAMES) if c != thing.color]
    wrong = str(rng.choice(others))
    return scene, f"Is the {thing.shape} in this image {thing.color}?", f"Is the {thing.shape} in this image {wrong}?"


STRATEGIES = ("adversarial", "popular", "random")


def _pope(rng: np.random.Generator) -> list[Row]:
    """Returns, for each picture and strategy, two questions about shapes that are there and two about absent ones."""

    def enough(scene: Scene) -> list[Scene] | None:
        return [scene] if len({t.shape for t in scene.things}) >= 2 else None

    scenes = [found[0] for found in _scenes(rng, PICTURES["pope"], enough, (2, 3, 4))]
    frequent = [t.shape for scene in scenes for t in scene.things]
    popular = sorted(world.SHAPES, key=lambda shape: -frequent.count(shape))[:5]
    made: dict[str, list[Row]] = {strategy: [] for strategy in STRATEGIES}
    for index, scene in enumerate(scenes):
        image, present = show(scene), sorted({t.shape for t in scene.things})
        yes = [str(shape) for shape in rng.choice(present, 2, replace=False)]
        for strategy in STRATEGIES:
            likely = {"random": world.SHAPES, "popular": popular, "adversarial": world.THEME_SHAPES[scene.theme]}[
                strategy
            ]
            absent = [shape for shape in likely if shape not in present]
            rest = [shape for shape in world.SHAPES if shape not in present and shape not in absent]
            no = [str(s) for s in rng.permutation(absent)][:2]
            no += [str(s) for s in rng.permutation(rest)][: 2 - len(no)]
            for shape, answer in (*((s, "yes") for s in yes), *((s, "no") for s in no)):
                made[strategy].append(
                    {
                        "id": str(len(made[strategy])),
                        "question_id": str(len(made[strategy]) + 1),
                        "question": f"Is there {statements.article(shape)} in the image?",
                        "answer": answer,
                        "image_source": f"scene_{index:06d}",
                        "image": image,
                        "category": strategy,
                    }
                )
    return [row for strategy in STRATEGIES for row in made[strategy]]


def _vsr(rng: np.random.Generator) -> list[Row]:
    def captioned(scene: Scene) -> Row | None:
        truth = bool(rng.random() < 0.5)
        named = statements.single_out(scene, rng)
        if len(named) < 2:
            return None
        (a, thing), (b, other) = named[:2]
        word = statements.relation(thing, other, rng)
        said = word if truth else statements.OPPOSITE[word]
        caption = f"The {a} is {said} the {b}."
        return {"image": show(scene), "caption": caption, "label": int(truth), "relation": said, "subj": a, "obj": b}

    made = _scenes(rng, PICTURES["vsr"], captioned)
    return [row | {"image_link": f"scenes/{index:06d}.jpg"} for index, row in enumerate(made)]


def _snli_ve(rng: np.random.Generator) -> list[Row]:
    made: list[Row] = []

    def stated(scene: Scene) -> list[tuple[str, int]] | None:
        skills = [str(skill) for skill in rng.permutation(statements.SKILLS)[:2]]
        true = statements.claim(scene, rng, True, skills[0], held_out=True)
        false = statements.claim(scene, rng, False, skills[1], held_out=True)
        if true is None or false is None:
            return None
        thing = scene.things[int(rng.integers(len(scene.things)))]
        neutral = f"the {thing.shape} {rng.choice(statements.UNSEEN)}"
        hypotheses = [(true.statement, 0), (neutral, 1), (false.statement, 2)]
        image, index = show(scene), len(made) // 3
        for hypothesis, label in hypotheses:
            said = f"{hypothesis[0].upper()}{hypothesis[1:]}."
            made.append(
                {"image": image, "filename": f"{index:06d}.jpg", "premise": None, "hypothesis": said, "label": label}
            )
        return hypotheses

    _scenes(rng, PICTURES["snli_ve"], stated)
    return made


def _cifar10(rng: np.random.Generator) -> list[Row]:
    left = dict.fromkeys(world.SHAPES, PICTURES["cifar10"] // len(world.SHAPES))
    made = []
    while any(left.values()):
        scene = world.random_big(rng, HELD_OUT_SHARE)
        assert scene.big is not None
        if left[scene.big.shape]:
            left[scene.big.shape] -= 1
            made.append({"img": show(scene), "label": world.SHAPES.index(scene.big.shape)})
    return made


def _mnist(rng: np.random.Generator) -> list[Row]:
    part = world.DIGIT_ROWS["test"]
    chosen = rng.choice(np.arange(part.start, part.stop), PICTURES["mnist"], replace=False)
    return [
        {
            "image": show(Scene("gray", digit_row=int(row), seed=int(row))),
            "label": world.digit_label(int(row)),
        }
        for row in chosen
    ]


_ROWS: dict[str, Callable[[np.random.Generator], list[Row]]] = {
    "mme": _mme,
    "pope": _pope,
    "vsr": _vsr,
    "snli_ve": _snli_ve,
    "cifar10": _cifar10,
    "mnist": _mnist,
}
