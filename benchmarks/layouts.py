"""Made-up samples in the six tasks' layouts: as many questions an image, as long, on images of the usual sizes."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mmpt_bench.data.images import LazyImage, decoded
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.task import Task

_THINGS = """
    person bicycle car motorcycle airplane bus train truck boat bench bird cat dog horse sheep cow elephant bear zebra
    giraffe backpack umbrella handbag tie suitcase frisbee snowboard kite skateboard surfboard bottle cup fork knife
    spoon bowl banana apple sandwich orange broccoli carrot pizza donut cake chair couch bed toilet laptop mouse remote
    keyboard microwave oven toaster sink refrigerator book clock vase scissors
"""
THINGS = tuple(_THINGS.split())
_PLACES = "left of,right of,above,below,next to,behind,in front of,on top of,inside,touching"
PLACES = tuple(_PLACES.split(","))
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple("0123456789")
ANSWERS = ("Yes", "No", "yes", "no", "true", "false", "entailment", "neutral", "contradiction", *CLASSES, *DIGITS)
_SPOKEN = """
    Is there a in the image Please answer yes or no Two are standing near while it is raining outside at a station and
    somebody looks over statement true false given entailment neutral contradiction Which of these digit
"""
WORDS = [*THINGS, *" ".join(PLACES).split(), *_SPOKEN.split(), "The", "automobile", "deer", "frog", "ship"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """A task's name, and how its questions lie on images."""

    title: str
    task: str
    each: tuple[int, ...]
    """Questions an image, repeated ones too; images take turns in these."""
    size: tuple[int, int]
    """Width and height of an image."""
    question: Callable[[int, int], tuple[str, tuple[str, ...]]]
    """(image, number of the question) -> question, legal answers."""

    def loaded(self) -> Task:
        """Returns the task itself."""
        return task_catalog.load_task(task_catalog.task_entries()[self.task])


def _mme(picture: int, number: int) -> tuple[str, tuple[str, ...]]:
    thing = THINGS[(picture + 7 * number) % len(THINGS)]
    return f"Is there a {thing} in the image? Please answer yes or no.", ("Yes", "No")


def _pope(picture: int, number: int) -> tuple[str, tuple[str, ...]]:
    """Six questions a strategy: three about things that are there, the same in all three, three about absent ones.

    Of 18 on an image about ten are distinct, as in POPE itself (5,127 of 9,000).
    """
    strategy, within = divmod(number, 6)
    # Popular and adversarial absentees overlap.
    which = within if within < 3 else {0: within, 1: within + 3, 2: within + 5}[strategy]
    thing = THINGS[(5 * picture + 3 * which) % len(THINGS)]
    return f"Is there a {thing} in the image?", ("yes", "no")


def _snli_ve(picture: int, number: int) -> tuple[str, tuple[str, ...]]:
    things = [THINGS[(picture * 3 + number * k) % len(THINGS)] for k in (1, 2)]
    more = " while it is raining outside at a station"[: [0, 20, 41][number % 3]]
    claim = f"Two {things[0]} are standing near a {things[1]}{more}."
    choices = ("entailment", "neutral", "contradiction")
    return f"{claim} Is the statement entailment, neutral or contradiction, given the image?", choices


def _vsr(picture: int, number: int) -> tuple[str, tuple[str, ...]]:
    one, other = THINGS[(picture + number) % len(THINGS)], THINGS[(3 * picture + 1) % len(THINGS)]
    claim = f"The {one} is {PLACES[picture % len(PLACES)]} the {other}."
    return f"{claim} Is the statement true or false?", ("false", "true")


def _cifar10(picture: int, number: int) -> tuple[str, tuple[str, ...]]:
    return f"Which of these is in the image: {', '.join(CLASSES[:-1])} or {CLASSES[-1]}?", CLASSES


def _mnist(picture: int, number: int) -> tuple[str, tuple[str, ...]]:
    return "Which digit is in the image?", DIGITS


_VSR = (1, 2, 1, 3, 1, 2, 1, 1, 4, 1, 1, 2, 3, 1)
"""The zero-shot test split has 1,222 questions on 715 images, 430 of which have one question and 160 two."""

LAYOUTS = (
    Layout("MME", "mme", (2,), (640, 480), _mme),
    Layout("POPE, one strategy", "pope", (6,), (640, 480), _pope),
    Layout("POPE", "pope", (18,), (640, 480), _pope),
    Layout("SNLI-VE", "snli_ve", (18,), (500, 375), _snli_ve),
    Layout("VSR", "vsr", _VSR, (640, 480), _vsr),
    Layout("CIFAR-10", "cifar10", (1,), (32, 32), _cifar10),
    Layout("MNIST", "mnist", (1,), (28, 28), _mnist),
)


def samples(layout: Layout, pictures: int) -> list[Sample]:
    """Returns the samples of a number of images, whose bytes are decoded each time that one is opened."""
    made = []
    for i in range(pictures):
        data = picture_bytes(layout.size, i)
        shown = LazyImage(f"{layout.title}/{i}", partial(decoded, data, f"{i}", f"{i}"))
        for j in range(layout.each[i % len(layout.each)]):
            question, choices = layout.question(i, j)
            made.append(Sample(f"{i}/{j}", shown, question, choices, choices[0], cluster=str(i)))
    return made


def picture_bytes(size: tuple[int, int], seed: int) -> bytes:
    """Returns an image of smooth noise: a JPEG like a photograph's, or a PNG where it is no larger than 32 pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "PNG" if max(size) <= 32 else "JPEG", quality=90)
    return stream.getvalue()


def write_lmms_data(layout: Layout, pictures: int, folder: Path) -> None:
    """Writes the same samples as JSON lines with images beside them, for another harness."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rows.jsonl").open("w") as stream:
        for sample in samples(layout, pictures):
            number = sample.id.split("/")[0]
            suffix = "png" if max(layout.size) <= 32 else "jpg"
            (folder / f"{number}.{suffix}").write_bytes(picture_bytes(layout.size, int(number)))
            row = {"id": sample.id, "image": f"{number}.{suffix}", "question": sample.question}
            stream.write(json.dumps(row | {"answer": sample.answer}) + "\n")
