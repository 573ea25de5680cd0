"""A question about an image, and what a model answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmpt_bench.data.images import LazyImage

Decode = Literal["generate", "rank"]


@dataclass(frozen=True)
class Shot:
    """A solved example that a model sees before a question."""

    id: str
    """Of its sample in the training split."""
    images: tuple[LazyImage, ...]
    """In front of its question; none where it is shown as text alone."""
    question: str
    reply: str


@dataclass(frozen=True)
class Sample:
    """One question about one image.

    mb.Sample("17", mb.read_image(row["image"], "mine/17.png", "17"), "Is there a cat?", ("yes", "no"), "yes")
    """

    id: str
    """Unique within the task's split."""
    image: LazyImage
    question: str
    """What the user of the model would type, without the chat frame."""
    choices: tuple[str, ...]
    """The legal answers; empty for an open question."""
    answer: str
    """The right one of `choices`; of an open question, the answer that a training learns."""
    group: str = ""
    """Subtask or strategy the scores are broken down by; empty where there is none."""
    cluster: str = ""
    """The image, for errors that are taken over images; MME's pairs are read off it. By default the key of `image`."""
    wording: str = ""
    """The template that the question was made from, where a set has several; empty where all questions have one."""
    references: tuple[str, ...] = ()
    """Accepted answers to an open question; empty where `answer` is the only one."""
    more_images: tuple[LazyImage, ...] = ()
    """Images after the first, where a question is about several; all of them are shown before it, in this order."""
    system: str = ""
    """What the system says before the question, where the backbone's chat template has a turn for that."""
    shots: tuple[Shot, ...] = ()
    """Solved examples before the question; `run --few-shot` puts them there."""

    def __post_init__(self) -> None:
        """Takes the image's key for the cluster where none is given; ValueError for one text in place of several."""
        for name in ("choices", "references"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"`{name}` is one text: give a tuple of texts")
        if not self.cluster:
            object.__setattr__(self, "cluster", self.image.key)

    @property
    def images(self) -> tuple[LazyImage, ...]:
        """Returns all images, in the order of their marks in the prompt: those of solved examples first."""
        return (*(image for shot in self.shots for image in shot.images), self.image, *self.more_images)

    @property
    def accepted(self) -> tuple[str, ...]:
        """Returns the answers that a reply is held to."""
        return self.references or (self.answer,)


@dataclass(frozen=True)
class Prediction:
    """What a model said to one sample, and how it ranked the legal answers."""

    id: str
    reply: str
    """The greedy reply, untouched."""
    parsed: str | None
    """The choice that the task's parse rule reads from the reply, or the open answer; None where it reads none."""
    ranked: str | None
    """The most probable legal answer; None for an open question."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each of the sample's choices, in their order."""
