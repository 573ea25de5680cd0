"""The images of an explanation as a file that a page can show: small, and one question after another."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import write_atomic
from mmpt_bench.common.values import from_plain
from mmpt_bench.records.store import Store
from mmpt_bench.study.explanations.result import FOLDER

SUFFIX = "-gallery.json"
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class ShownModel:
    """What one model said to a question, and where it looked."""

    label: str
    answer: str
    probability: float
    """Of that answer, among the legal ones."""
    is_right: bool
    disagreement: float
    """Between its maps: 1 minus their mean rank correlation, without `random`."""
    images: tuple[str, ...]
    """WebP in base64: the image with the true region, then a map each."""
    scores: tuple[str, ...] = ()
    """What each map scores on this question, in their order; empty in older files."""


@dataclass(frozen=True)
class ShownQuestion:
    """A question of a gallery."""

    task: str
    question: str
    right: str
    models: tuple[ShownModel, ...]
    """The untuned base first."""

    @property
    def n_bytes(self) -> int:
        """Returns the size of its images in a page."""
        return sum(len(image) for model in self.models for image in model.images)


@dataclass(frozen=True)
class Gallery:
    """Some questions of an explanation, those first on which the base's maps disagree most."""

    name: str
    maps: tuple[str, ...]
    explained: int
    """Questions of the explanation."""
    questions: tuple[ShownQuestion, ...]
    command: str = ""
    title: str = ""
    """Which models, and on what; empty in older files, as `setting` is."""
    setting: str = ""


def write_gallery_file(store: Store, gallery: Gallery) -> None:
    """Writes `explain/NAME-gallery.json`."""
    text = json.dumps(dataclasses.asdict(gallery), ensure_ascii=False)
    write_atomic(store.path(FOLDER) / f"{gallery.name}{SUFFIX}", text.encode())


def read_galleries(store: Store) -> tuple[Gallery, ...]:
    """Returns the galleries of a results folder by name; UntrustedRecord for a file that is none."""
    found = []
    for path in sorted((store.root / FOLDER).glob(f"*{SUFFIX}")):
        try:
            gallery = from_plain(Gallery, json.loads(path.read_bytes()))
            _check(gallery)
        except (ValueError, TypeError, KeyError) as error:
            raise UntrustedRecord(
                f"`{FOLDER}/{path.name}` is no gallery: {str(error)[:100]}. Remove it; `mmpt-bench explain` makes it "
                "again."
            ) from error
        found.append(gallery)
    return tuple(found)


def _check(gallery: Gallery) -> None:
    """Raises ValueError where images are none, or not one a map."""
    for question in gallery.questions:
        for model in question.models:
            if len(model.images) != 1 + len(gallery.maps):
                raise ValueError(f"{len(model.images)} images for {len(gallery.maps)} maps")
            if model.scores and len(model.scores) != len(gallery.maps):
                raise ValueError(f"{len(model.scores)} scores for {len(gallery.maps)} maps")
            if not all(_BASE64.fullmatch(image) for image in model.images):
                raise ValueError("an image is not in base64")
        if [model.label for model in question.models] != [model.label for model in gallery.questions[0].models]:
            raise ValueError("questions are of several models")
