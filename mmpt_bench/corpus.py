"""What is trained on: examples in an order fixed by the seed, the same for every method; and a validation part."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmpt_bench.errors import RequestError, unknown_name
from mmpt_bench.hashing import content_key, derive
from mmpt_bench.task import Picture

if TYPE_CHECKING:
    from mmpt_bench.registry import Entry

EMBEDDED = "embedded"
VALIDATION_SHARE, VALIDATION_MOST = 0.02, 500
"""Of the examples, and the most of them, that are held out for selection."""


@dataclass(frozen=True)
class Exchange:
    """A question, without the chat frame, and the reply that is to be learnt."""

    question: str
    reply: str


@dataclass(frozen=True)
class Example:
    """One picture, what is asked about it, and the replies that are to be learnt."""

    image: Picture
    prompt: str
    """The first question alone, without the chat frame."""
    target: str
    """The reply to it."""
    later: tuple[Exchange, ...] = ()
    """What a conversation goes on with."""

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Returns the whole conversation, of one exchange or more."""
        return (Exchange(self.prompt, self.target), *self.later)


@dataclass(frozen=True)
class Corpus:
    """A training set of fixed size, whose examples are made when they are needed."""

    name: str
    fingerprint: str
    size: int
    example: Callable[[int], Example]
    """Returns training example 0..size-1."""
    validation_size: int
    validation: Callable[[int], Example]
    """Returns validation example 0..validation_size-1; selection may use these, and no test split ever."""
    notes: tuple[str, ...] = ()
    """What was left out, for people."""
    whole: str = ""
    """Fingerprint of the corpus that this is a part of; empty where it is no part."""
    most_exchanges: int = 1
    """In one example."""

    def part(self, fraction: float) -> Corpus:
        """Returns the first examples of this corpus, as a corpus of its own with the same validation part.

        Raises:
            RequestError: the fraction is not above 0 and at most 1, or leaves no example.
        """
        size = round(self.size * fraction)
        if not 0 < fraction <= 1 or not size:
            raise RequestError(f"A part of {fraction:g} of the corpus `{self.name}` ({self.size:,} examples) is none.")
        if size == self.size:
            return self
        name, fingerprint = f"{self.name}@{fraction:g}", content_key([self.fingerprint, "first", size])
        return dataclasses.replace(self, name=name, fingerprint=fingerprint, size=size, whole=self.fingerprint)

    def batches(self, seed: int, steps: int, batch_size: int, first: int = 0) -> Iterator[list[Example]]:
        """Yields a run's batches from step `first` on; each epoch has an order of its own, from the seed alone."""
        rng = np.random.default_rng(derive(seed, "data"))
        order: list[int] = []
        for step in range(steps):
            while len(order) < batch_size:
                order.extend(int(i) for i in rng.permutation(self.size))
            taken, order = order[:batch_size], order[batch_size:]
            if step >= first:
                yield [self.example(i) for i in taken]


@dataclass(frozen=True)
class TrainData:
    """What a user asked to train on: a mixture, and where it is."""

    source: str = EMBEDDED
    """"embedded", "vision-flan", the path of a JSON in LLaVA's form, or "task:NAME" for a task's training split."""
    images: Path | None = None
    """Folder of the training pictures."""
    decontaminated: bool = False
    """Without the tasks whose pictures or labels are evaluated."""
    data: Path | None = None
    """Folder of real data in the hub's schema, for a task's training split."""
    collections: tuple[tuple[str, Path], ...] = ()
    """Collection -> folder, of pictures that a task's rows name."""
    dataset: str = ""
    """Other data of the task's form."""
    offline: bool = False
    fraction: float = 1.0
    """How much of it to train on, from its beginning."""


def check_train_data(wanted: TrainData) -> None:
    """Raises RequestError for a request that can be no corpus, before anything is read."""
    is_file = Path(wanted.source).is_file()
    is_task = wanted.source.startswith("task:")
    if wanted.source not in (EMBEDDED, "vision-flan") and not is_file and not is_task:
        known = [EMBEDDED, "vision-flan", "task:vsr", "task:snli_ve", "task:cifar10", "task:mnist"]
        raise unknown_name("training data", wanted.source, known, "A JSON file in LLaVA's form is training data too.")
    if is_task:
        _task_entry(wanted.source)
    in_llava_form = is_file or wanted.source == "vision-flan"
    if wanted.images is not None and not in_llava_form:
        raise RequestError(f"`--train-images` is for data in LLaVA's form, not for `{wanted.source}`.")
    if wanted.decontaminated and not in_llava_form:
        raise RequestError(f"`--decontaminate` is for mixtures in LLaVA's form, not for `{wanted.source}`.")
    if wanted.source == "vision-flan" and wanted.images is None:
        raise RequestError(
            "Vision-Flan's pictures are one archive of 36 GB (image_191-task_1k.zip of the data set on the hub): "
            "unpack it, and name the folder with `--train-images DIR`."
        )


def load_corpus(wanted: str | TrainData) -> Corpus:
    """Returns a corpus: the embedded mixture by its name, or what a user asked for; notes are in `Corpus.notes`.

    Raises:
        RequestError: there is no such corpus, its files cannot be used, or there is no such part of it.
        MachineError: it is on the hub and not here.
    """
    wanted = train_data(wanted)
    check_train_data(wanted)
    if wanted.source == EMBEDDED:
        from mmpt_bench.embedded.suite import tuning_corpus

        return tuning_corpus().part(wanted.fraction)
    return _read_once(dataclasses.replace(wanted, fraction=1.0)).part(wanted.fraction)


def train_data(wanted: str | TrainData) -> TrainData:
    """Returns what a name stands for: "embedded", or the first part of it, "embedded@0.25"."""
    if isinstance(wanted, TrainData):
        return wanted
    source, at, fraction = wanted.partition("@")
    try:
        return TrainData(source, fraction=float(fraction) if at else 1.0)
    except ValueError as error:
        raise RequestError(f"`{wanted}` names no part of a corpus: write a fraction, as in `{source}@0.25`.") from error


@functools.lru_cache(maxsize=2)
def _read_once(wanted: TrainData) -> Corpus:
    """Returns a corpus from files, which planning and running ask for one after the other."""
    return _task_corpus(wanted) if wanted.source.startswith("task:") else _llava_corpus(wanted)


def _llava_corpus(wanted: TrainData) -> Corpus:
    from mmpt_bench.conversations import read_conversations, vision_flan_annotations
    from mmpt_bench.pixels import decoded

    is_flan = wanted.source == "vision-flan"
    file = vision_flan_annotations(wanted.offline) if is_flan else Path(wanted.source)
    read = read_conversations(file, wanted.images or file.parent, wanted.decontaminated)
    conversations, files = read.conversations, read.files

    def example(index: int) -> Example:
        one = conversations[index]
        path = files[one.picture]
        picture = Picture(f"train/{one.picture}", lambda: decoded(path, one.picture, f"training example {index}"))
        first, *later = one.exchanges
        return Example(picture, first.question, first.reply, tuple(later))

    name = ("vision-flan" if is_flan else file.stem) + (", decontaminated" if wanted.decontaminated else "")
    corpus = _split(name, read.fingerprint, [one.picture for one in conversations], example, read.notes)
    return dataclasses.replace(corpus, most_exchanges=max(len(one.exchanges) for one in conversations))


def _task_entry(source: str) -> Entry:
    """Returns the one task that "task:NAME" names; RequestError for none or several."""
    from mmpt_bench import registry

    entries = registry.find("task", source.removeprefix("task:"))
    if len(entries) != 1:
        raise RequestError(f"`{source}` names {len(entries)} tasks: train on the split of one.")
    return entries[0]


def _task_corpus(wanted: TrainData) -> Corpus:
    """Returns the training split of a task; never its test split, whatever the data calls it."""
    from mmpt_bench import registry
    from mmpt_bench.data_check import read_rows
    from mmpt_bench.source import samples

    task = registry.load_task(_task_entry(wanted.source))
    task = task.with_dataset(wanted.dataset) if wanted.dataset else task
    task = task.training_split()
    rows = read_rows(task, wanted.data, dict(wanted.collections), wanted.offline)
    made = samples(task, rows)

    def example(index: int) -> Example:
        return Example(made[index].image, made[index].question, made[index].answer)

    fingerprint = content_key(["task", task.name, task.version, rows.fingerprint], 64)
    return _split(f"{task.name} train", fingerprint, [one.cluster for one in made], example, rows.notes)


def _split(
    name: str, fingerprint: str, pictures: Sequence[str], example: Callable[[int], Example], notes: tuple[str, ...]
) -> Corpus:
    """Returns a corpus whose validation part shares no picture with the rest.

    Pictures are taken for it in the order of the SHA-256 of their names, so that the part is the same everywhere and
    stays nearly the same when examples are added.
    """
    wanted = min(VALIDATION_MOST, max(1, round(VALIDATION_SHARE * len(pictures))))
    by_picture: dict[str, list[int]] = {}
    for index, picture in enumerate(pictures):
        by_picture.setdefault(picture, []).append(index)
    held_out: set[int] = set()
    for picture in sorted(by_picture, key=content_key):
        if len(held_out) >= wanted:
            break
        held_out.update(by_picture[picture])
    train = [index for index in range(len(pictures)) if index not in held_out]
    if not train:
        raise RequestError(f"The training data `{name}` has one picture alone: nothing could be held out.")
    validation = sorted(held_out)
    return Corpus(
        name=name,
        fingerprint=content_key([fingerprint, "split 1"], 64),
        size=len(train),
        example=lambda index: example(train[index]),
        validation_size=len(validation),
        validation=lambda index: example(validation[index]),
        notes=notes,
    )
