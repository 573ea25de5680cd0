"""What is trained on: examples in an order fixed by the seed, the same for every method; and a validation part."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.hashing import content_key
from mmpt_bench.data.examples import Corpus, Example
from mmpt_bench.data.images import LazyImage
from mmpt_bench.sources import hub

if TYPE_CHECKING:
    from mmpt_bench.common.entries import Entry

VISION_FLAN = ("Vision-Flan/vision-flan_191-task_1k", "24ba71985e7424afe1262bfe302b022ae1c76ce8")
"""Data set and commit on the hub."""
ANNOTATIONS = "annotation_191-task_1k.json"
EMBEDDED = "embedded"
VALIDATION_SHARE, VALIDATION_MOST = 0.02, 500
"""Of the examples, and the most of them, that are held out for selection."""


@dataclass(frozen=True)
class TrainData:
    """What a user asked to train on: a mixture, and where it is."""

    source: str = EMBEDDED
    """"embedded", "vision-flan", the path of a file or folder of conversations, or "task:NAME" for a
    task's training split."""
    images: Path | None = None
    """Folder of the training images."""
    decontaminated: bool = False
    """Without the tasks whose images or labels are evaluated."""
    data: Path | None = None
    """Folder of real data in the hub's schema, for a task's training split."""
    embedded: bool = False
    """A task's training split is generated, where no folder is given."""
    collections: tuple[tuple[str, Path], ...] = ()
    """Collection -> folder, of images that a task's rows name."""
    dataset: str = ""
    """Other data of the task's form."""
    offline: bool = False
    columns: tuple[tuple[str, str], ...] = ()
    """(Column, its name in the files)."""
    fraction: float = 1.0
    """How much of it to train on, from its beginning."""


def check_train_data(wanted: TrainData) -> None:
    """Raises RequestError for a request that can be no corpus, before anything is read."""
    is_file = wanted.source not in (EMBEDDED, "vision-flan") and Path(wanted.source).exists()
    is_task = wanted.source.startswith("task:")
    if wanted.source not in (EMBEDDED, "vision-flan") and not is_file and not is_task:
        known = [EMBEDDED, "vision-flan", "task:vsr", "task:snli_ve", "task:cifar10", "task:mnist"]
        raise unknown_name(
            "training data", wanted.source, known, "A file or folder of conversations is training data too."
        )
    if is_task:
        _task_entry(wanted.source)
    in_llava_form = is_file or wanted.source == "vision-flan"
    if wanted.images is not None and not in_llava_form:
        raise RequestError(f"`--train-images` is for conversations from files, not for `{wanted.source}`.")
    if wanted.decontaminated and not in_llava_form:
        raise RequestError(f"`--decontaminate` is for mixtures from files, not for `{wanted.source}`.")
    if wanted.source == "vision-flan" and wanted.images is None:
        raise RequestError(
            "Vision-Flan's images are one archive of 36 GB (image_191-task_1k.zip of the data set on the hub): "
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
        from mmpt_bench.embedded.mixture import tuning_corpus

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
    from mmpt_bench.data.conversations import read_conversations
    from mmpt_bench.data.images import decoded

    is_flan = wanted.source == "vision-flan"
    file = _vision_flan_annotations(wanted.offline) if is_flan else Path(wanted.source)
    beside = file if file.is_dir() else file.parent
    read = read_conversations(file, wanted.images or beside, wanted.decontaminated, wanted.columns)
    conversations = read.conversations

    def example(index: int) -> Example:
        one = conversations[index]
        at = read.files[one.image]
        where = f"training example {index}"
        image = LazyImage(f"train/{one.image}", lambda: decoded(at, one.image[:80], where), at)
        first, *later = one.exchanges
        return Example(image, first.question, first.reply, tuple(later), one.opening, first.learnt, where)

    name = ("vision-flan" if is_flan else file.stem) + (", decontaminated" if wanted.decontaminated else "")
    corpus = _split(name, read.fingerprint, [one.image for one in conversations], example, read.notes)
    return dataclasses.replace(corpus, most_exchanges=max(len(one.exchanges) for one in conversations))


def _task_entry(source: str) -> Entry:
    """Returns the one task that "task:NAME" names; RequestError for none or several."""
    from mmpt_bench.evaluation import task_catalog

    entries = task_catalog.find_tasks(source.removeprefix("task:"))
    if len(entries) != 1:
        raise RequestError(f"`{source}` names {len(entries)} tasks: train on the split of one.")
    return entries[0]


def _task_corpus(wanted: TrainData) -> Corpus:
    """Returns the training split of a task; never its test split, whatever the data calls it."""
    from mmpt_bench.embedded.suite import in_a_word
    from mmpt_bench.evaluation import task_catalog
    from mmpt_bench.sources.task_rows import Where, rows_of, samples

    task = task_catalog.load_task(_task_entry(wanted.source))
    task = task.on(task.data.named(wanted.dataset)) if wanted.dataset else task
    task = task.on(task.data.training_split())
    columns = tuple(("", column, own) for column, own in wanted.columns)
    where = Where(wanted.data, dict(wanted.collections), wanted.embedded, wanted.offline, columns=columns)
    rows = rows_of(task, where)
    own = task.data.make_rows
    if own is not None and rows.fingerprint == own().fingerprint:
        raise RequestError(f"{task.title} has no training split apart from what is evaluated: name a folder, `--data`.")
    made = samples(task, rows)
    if any(row.more_images or row.system for row in made):
        raise RequestError(
            f"{task.title} asks about several images, or with a system's turn: nothing is trained on that."
        )

    def example(index: int) -> Example:
        row = made[index]
        reply = in_a_word(row.answer) if rows.suite != "real" else row.answer
        return Example(row.image, row.question, reply, name=f"training example {index}")

    fingerprint = content_key(["task", task.name, task.version, rows.fingerprint], 64)
    return _split(f"{task.name} train", fingerprint, [one.cluster for one in made], example, rows.notes)


def _split(
    name: str, fingerprint: str, images: Sequence[str], example: Callable[[int], Example], notes: tuple[str, ...]
) -> Corpus:
    """Returns a corpus whose validation part shares no image with the rest; `images` names that of each example.

    Images are taken for it in the order of the SHA-256 of their names, so that the part is the same everywhere and
    stays nearly the same when examples are added.
    """
    wanted = min(VALIDATION_MOST, max(1, round(VALIDATION_SHARE * len(images))))
    by_image: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        by_image.setdefault(image, []).append(index)
    held_out: set[int] = set()
    for image in sorted(by_image, key=content_key):
        if len(held_out) >= wanted:
            break
        held_out.update(by_image[image])
    train = [index for index in range(len(images)) if index not in held_out]
    if not train:
        raise RequestError(f"The training data `{name}` has one image alone: nothing could be held out.")
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


def _vision_flan_annotations(offline: bool) -> Path:
    """Returns the annotation file of Vision-Flan from the hub or its cache; MachineError where it is in neither."""
    name, commit = VISION_FLAN
    with hub.asking(f"file `{ANNOTATIONS}` of `{name}`", "Give the file itself: `--train-data FILE`.", offline):
        return hub.snapshot(name, [ANNOTATIONS], offline, commit, dataset=True) / ANNOTATIONS
