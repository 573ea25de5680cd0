"""The embedded suite: miniature tasks in the schemas of the real ones, and the mixture that methods are tuned on.

Everything here is in the shifted world. Rows have the columns of the hub's data sets, and one more with the wording
that they are asked in, so the task files turn them into samples with the same code, pairing, parse rules and metrics.
They are not the public benchmarks, and no figure of theirs says anything about those. Tasks have two parts: methods are
chosen on "dev" and reported on "evaluation". What separates the parts, each proven by a test: wordings (prompts.py),
scenes and digits (`world.part_of`), combinations of shape and colour (`world.HELD_OUT`), and neutral phrases.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mmpt_bench.common.hashing import content_key, derive
from mmpt_bench.data.rows import SHIFTED, WORLDS, Rows, suite_of
from mmpt_bench.embedded import language, prompts, statements, world
from mmpt_bench.embedded.shifted import shift
from mmpt_bench.embedded.world import Scene

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 4
"""Rises when the rows of a task or the examples of the mixture change; a test holds the content to it."""

N_IMAGES = {"mme": 40, "pope": 200, "vsr": 250, "snli_ve": 200, "cifar10": 250, "mnist": 400}
"""Images a task; for MME, a subtask."""
TASK_PARTS = {"evaluation": "evaluation", "dev": "dev", "train": "tune"}
"""Parts of a task, and what their scenes, digits and wordings are called; a training split shares the mixture's."""
TRAIN_ROWS = 2_400
"""Rows of each task's training split."""
HASTE = 2.1
"""How much more a digit varies than in pre-training: turned, sheared, shrunk and off the middle."""

ABOUT = "cells"
"""Column of the cells that a question is about: for explanations, not part of the rows."""
Row = dict[str, Any]
Fields = dict[str, str]
"""What a wording is filled with."""
Pair = tuple[Scene, Fields, Fields]
"""A scene, what a question whose answer is yes is filled with, and one whose answer is no."""
T = TypeVar("T")


def fingerprint(part: str) -> str:
    """Returns the name of a part's content: "tuning", or a task's."""
    return content_key(["embedded", part, VERSION, world.VERSION, language.VERSION])


def show(scene: Scene, of: str = SHIFTED) -> Image:
    """Returns the scene in one of the `WORLDS`."""
    from PIL import Image

    return Image.fromarray(shift(world.draw(scene), scene.seed, WORLDS[of]))


def rows(task: str, part: str = "evaluation", of: str = SHIFTED) -> list[Row]:
    """Returns a task's rows in the hub's schema, images drawn.

    Args:
        part: "evaluation"; "dev", on which learning rates are searched and the world's strength is set; "train".
        of: one of the `WORLDS`.

    Raises:
        KeyError: a task without rows, or no such world.
        ValueError: no such part.
    """
    if part not in TASK_PARTS:
        raise ValueError(f"the embedded suite has no part `{part}`: {' or '.join(TASK_PARTS)}")
    made = [{name: value for name, value in row.items() if name != ABOUT} for row in _made(task, part)]
    if part == "train":
        # Training takes some of them.
        return [
            {n: functools.partial(show, v, of) if isinstance(v, Scene) else v for n, v in row.items()} for row in made
        ]
    scenes = {id(value): value for row in made for value in row.values() if isinstance(value, Scene)}
    shown = {key: show(scene, of) for key, scene in scenes.items()}
    return [{name: shown.get(id(value), value) for name, value in row.items()} for row in made]


def _made(task: str, part: str) -> list[Row]:
    """Returns a task's rows with scenes in place of images, and what each question is about."""
    return _ROWS[task](np.random.default_rng(derive(VERSION, f"{part}/{task}")), TASK_PARTS[part])


def regions(task: str, part: str = "evaluation") -> list[tuple[int, ...]]:
    """Returns, for each of a task's rows in order, the cells (0..8) of what its question names.

    None of them where it names what is not there, or is about the whole image; KeyError for a task without rows.
    """
    return [row.get(ABOUT, ()) for row in _made(task, part)]


@functools.cache
def source(task: str, part: str = "evaluation", of: str = SHIFTED) -> Rows:
    """Returns a task's rows as the harness takes them from anywhere, drawn once a process; raises as `rows` does."""
    other = [name for name, usual in ((part, "evaluation"), (of, SHIFTED)) if name != usual]
    origin = "generated scenes" + (f" ({', '.join(other)})" if other else "")
    return Rows(rows(task, part, of), label_names(task), fingerprint("/".join([task, *other])), origin, suite_of(of))


def in_a_word(answer: str) -> str:
    """Returns an answer as tuning replies: "yes .", "fire truck ."."""
    return f"{answer.lower()} ."


def label_names(task: str) -> tuple[str, ...]:
    """Returns the names of a task's classes where its rows hold their numbers, else nothing."""
    return {
        "cifar10": world.SHAPES,
        "mnist": world.DIGITS,
        "snli_ve": ("entailment", "neutral", "contradiction"),
        "vsr": ("false", "true"),
    }.get(task, ())


def _scenes(rng: np.random.Generator, part: str, n: int, make: Callable[[Scene], T | None]) -> list[T]:
    """Returns what is made of `n` scenes, passing over those of which nothing is made."""
    made: list[T] = []
    while len(made) < n:
        result = make(world.random_scene(rng, (2, 3, 4), part))
        if result is not None:
            made.append(result)
    return made


def _n_images(task: str, part: str) -> int:
    """Returns the images of a part; for MME, of a subtask."""
    rows_an_image = {"mme": 12, "pope": 12, "snli_ve": 3}
    return TRAIN_ROWS // rows_an_image.get(task, 1) if part == "tune" else N_IMAGES[task]


def _in_turn(wordings: Sequence[str], index: int) -> str:
    """Returns the wording that the image of a number is asked in."""
    return wordings[index % len(wordings)]


def _mme(rng: np.random.Generator, part: str) -> list[Row]:
    made: list[Row] = []
    n, known = _n_images("mme", part), world.HELD_OUT.get(part, frozenset())
    makers = {"existence": _existence, "count": _count, "position": _position, "color": _color}
    for category, make in makers.items():
        drawn = _scenes(rng, part, n, functools.partial(make, rng, known))
        for index, (scene, yes, no) in enumerate(drawn):
            made += _pair(part, category, index, scene, yes, no)
    for index in range(n):
        scene = world.random_text(rng, sums=False, part=part)
        text = [glyph for _, glyph in scene.glyphs]
        other = statements.misread(text, rng)
        made += _pair(part, "OCR", index, scene, {"said": " ".join(text)}, {"said": " ".join(other)})
    for index in range(n):
        scene = world.random_text(rng, sums=True, part=part)
        total = int(scene.glyphs[0][1]) + int(scene.glyphs[2][1])
        wrong = statements.wrong_sum(total, rng)
        made += _pair(part, "numerical_calculation", index, scene, {"said": str(total)}, {"said": str(wrong)})
    return made


def _pair(part: str, category: str, index: int, scene: Scene, yes: Fields, no: Fields) -> list[Row]:
    """Returns the two questions that MME asks of an image, in one wording, one with the answer yes and one with no."""
    wording = _in_turn(prompts.MME[part][category], index)
    common = {"question_id": f"{category}/{index:04d}.png", "image": scene, "category": category}
    return [
        common
        | {"question": _capital(wording.format(**fields)) + prompts.YES_OR_NO, "answer": answer, "wording": wording}
        | {ABOUT: statements.cells_named(scene, fields)}
        for fields, answer in ((yes, "Yes"), (no, "No"))
    ]


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _existence(rng: np.random.Generator, held_out: world.Combinations, scene: Scene) -> Pair | None:
    present, absent = (statements.existence(scene, rng, truth, held_out) for truth in (True, False))
    if present is None or absent is None:
        return None
    return scene, {"noun": statements.article(present)}, {"noun": statements.article(absent)}


def _count(rng: np.random.Generator, _held_out: world.Combinations, scene: Scene) -> Pair:
    shape = world.pick(rng, [t.shape for t in scene.things])
    n = len(statements.matches(scene, shape))
    wrong = world.pick(rng, [k for k in (n - 1, n + 1) if 1 <= k <= 5])

    def said(k: int) -> Fields:
        refs = shape if k == 1 else statements.plural(shape)
        return {"verb": "Is" if k == 1 else "Are", "n": statements.NUMBERS[k], "refs": refs}

    return scene, said(n), said(wrong)


def _position(rng: np.random.Generator, _held_out: world.Combinations, scene: Scene) -> Pair | None:
    found = statements.related(statements.single_out(scene, rng), rng)
    if found is None:
        return None
    a, word, b = found
    yes, no = ({"a": a, "word": said, "b": b} for said in (word, statements.OPPOSITE[word]))
    return scene, yes, no


def _color(rng: np.random.Generator, held_out: world.Combinations, scene: Scene) -> Pair | None:
    single = [t for t in scene.things if len(statements.matches(scene, t.shape)) == 1]
    if not single:
        return None
    thing = single[int(rng.integers(len(single)))]
    wrong = world.pick(rng, statements.wrong_colors(scene, thing, held_out))
    return scene, {"ref": thing.shape, "color": thing.color}, {"ref": thing.shape, "color": wrong}


STRATEGIES = ("adversarial", "popular", "random")


def _pope(rng: np.random.Generator, part: str) -> list[Row]:
    """Returns, for each image and strategy, two questions about shapes that are there and two about absent ones."""
    n, wordings = _n_images("pope", part), prompts.WHOLE[part]["pope"]
    scenes = _scenes(rng, part, n, lambda scene: scene if len({t.shape for t in scene.things}) >= 2 else None)
    frequent = [t.shape for scene in scenes for t in scene.things]
    popular = sorted(world.SHAPES, key=lambda shape: -frequent.count(shape))[:5]
    made: dict[str, list[Row]] = {strategy: [] for strategy in STRATEGIES}
    for index, scene in enumerate(scenes):
        image, present, wording = scene, sorted({t.shape for t in scene.things}), _in_turn(wordings, index)
        yes = [str(shape) for shape in rng.choice(present, 2, replace=False)]
        likely = {"adversarial": world.THEME_SHAPES[scene.theme], "popular": popular, "random": world.SHAPES}
        for strategy, rows_so_far in made.items():
            absent = [shape for shape in likely[strategy] if shape not in present]
            rest = [shape for shape in world.SHAPES if shape not in present and shape not in absent]
            no = [str(s) for s in rng.permutation(absent)][:2]
            no += [str(s) for s in rng.permutation(rest)][: 2 - len(no)]
            for shape, answer in (*((s, "yes") for s in yes), *((s, "no") for s in no)):
                rows_so_far.append(
                    {
                        "id": str(len(rows_so_far)),
                        "question_id": str(len(rows_so_far) + 1),
                        "question": wording.format(noun=statements.article(shape)),
                        "answer": answer,
                        "image_source": f"scene_{index:06d}",
                        "image": image,
                        "category": strategy,
                        "wording": wording,
                        ABOUT: statements.cells_named(scene, {"noun": shape}),
                    }
                )
    return [row for of_strategy in made.values() for row in of_strategy]


def _vsr(rng: np.random.Generator, part: str) -> list[Row]:
    def captioned(scene: Scene) -> Row | None:
        truth = bool(rng.random() < 0.5)
        found = statements.related(statements.single_out(scene, rng), rng)
        if found is None:
            return None
        a, word, b = found
        said = word if truth else statements.OPPOSITE[word]
        caption = f"The {a} is {said} the {b}."
        row = {"image": scene, "caption": caption, "label": int(truth), "relation": said, "subj": a, "obj": b}
        return row | {ABOUT: statements.cells_named(scene, {"a": a, "b": b})}

    made = _scenes(rng, part, _n_images("vsr", part), captioned)
    wordings = prompts.WHOLE[part]["vsr"]
    return [
        row | {"image_link": f"scenes/{index:06d}.jpg", "wording": _in_turn(wordings, index)}
        for index, row in enumerate(made)
    ]


def _snli_ve(rng: np.random.Generator, part: str) -> list[Row]:
    known = world.HELD_OUT.get(part, frozenset())

    def stated(scene: Scene) -> list[Row] | None:
        skills = [str(skill) for skill in rng.permutation(statements.SKILLS)[:2]]
        true = statements.claim(scene, rng, True, skills[0], known)
        false = statements.claim(scene, rng, False, skills[1], known)
        if true is None or false is None:
            return None
        thing = scene.things[int(rng.integers(len(scene.things)))]
        neutral = f"the {thing.shape} {rng.choice(statements.UNSEEN[part])}"
        common = {"image": scene, "premise": None}
        named = (true.fields, {"ref": thing.shape}, false.fields)
        return [
            common | {"hypothesis": f"{_capital(said)}.", "label": label, ABOUT: statements.cells_named(scene, fields)}
            for label, (said, fields) in enumerate(zip((true.statement, neutral, false.statement), named, strict=True))
        ]

    made = _scenes(rng, part, _n_images("snli_ve", part), stated)
    wordings = prompts.WHOLE[part]["snli_ve"]
    return [
        row | {"filename": f"{index:06d}.jpg", "wording": _in_turn(wordings, index)}
        for index, of_scene in enumerate(made)
        for row in of_scene
    ]


def _cifar10(rng: np.random.Generator, part: str) -> list[Row]:
    left = dict.fromkeys(world.SHAPES, _n_images("cifar10", part) // len(world.SHAPES))
    made: list[Row] = []
    wordings = prompts.WHOLE[part]["cifar10"]
    while any(left.values()):
        scene = world.random_big(rng, part)
        assert scene.big is not None
        if left[scene.big.shape]:
            left[scene.big.shape] -= 1
            label, wording = world.SHAPES.index(scene.big.shape), _in_turn(wordings, len(made))
            made.append({"img": scene, "label": label, "wording": wording})
    return made


def _mnist(rng: np.random.Generator, part: str) -> list[Row]:
    own, wordings = world.DIGIT_ROWS[part], prompts.WHOLE[part]["mnist"]
    is_train = part == "tune"
    n = _n_images("mnist", part) if is_train else min(N_IMAGES["mnist"], len(own))
    # In training a digit is shown several times, written and shifted anew.
    chosen = rng.choice(np.arange(own.start, own.stop), n, replace=is_train)
    return [
        {
            "image": Scene(
                "gray", digit_row=int(row), hand=world.random_hand(rng, HASTE), seed=index if is_train else int(row)
            ),
            "label": world.digit_label(int(row)),
            "wording": _in_turn(wordings, index),
        }
        for index, row in enumerate(chosen)
    ]


_ROWS: dict[str, Callable[[np.random.Generator, str], list[Row]]] = {
    "mme": _mme,
    "pope": _pope,
    "vsr": _vsr,
    "snli_ve": _snli_ve,
    "cifar10": _cifar10,
    "mnist": _mnist,
}
