"""Conversations about images, without the tasks that share images or labels with an evaluated one.

A task's name tells whether it does. The names are those of Vision-Flan's entries (`task_name`), as they stand in its
authors' site (vision-flan.github.io, data.json) and in code that trains on it. Where a name does not tell its images,
the authors' preprocessing does (github.com/VT-NLP/MultiInstruct, data_preprocessor): `ITM`, `image_text_selection` and
`image_caption` are of COCO 2014, `VQA` and `question_image_match` of VQAv2, the other `VQA_...` of TDIUC and Visual
Genome.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError, shown
from mmpt_bench.common.hashing import content_key, file_sha256, sampled_sha256
from mmpt_bench.common.words import counted, plural
from mmpt_bench.data.examples import PLAIN, Exchange, Opening
from mmpt_bench.data.image_folders import is_file_inside
from mmpt_bench.data.images import image_bytes
from mmpt_bench.data.tables import bad_rows
from mmpt_bench.data.training_forms import ASSISTANT, IMAGE, SYSTEM, USER, Entry, Row, entry_of, training_rows

PARTS = (
    "cinic", "cifar", "mnist", "stl10",
    "flickr30k", "coco", "vqav2", "okvqa", "vqae", "visdial", "vqg", "senticap", "exdark", "stvqa",
    "visualgenome", "gqa", "tdiuc", "refcoco",
    "vsr", "snli", "pope",
)  # fmt: skip
"""What a name holds, letters and digits alone. CINIC-10 contains CIFAR-10, and MNIST-M the digits of MNIST; STL-10 has
CIFAR's classes. Flickr30k has the images of SNLI-VE; COCO those of POPE, VSR and part of MME, and VQAv2, OK-VQA,
A-OKVQA, VQA-E, Visual Dialog and SentiCap are built on it, as are parts of VQG, ExDark, ST-VQA and Visual Genome, which
GQA is on."""

WHOLE = (
    "ITM", "image_caption", "image_text_selection", "question_image_match", "VQA", "VQA_activity_recognition",
    "VQA_attribute", "VQA_color", "VQA_counting", "VQA_object_presence", "VQA_object_recognition",
    "VQA_positional_reasoning", "VQA_scene_recognition", "VQA_sentiment_understanding", "VQA_sport_recognition",
    "VQA_utility_affordance", "VisDA-2017+image_classification", "VisDA-2017+object_classification_validation",
)  # fmt: skip
"""Names that do not tell it: COCO, by the preprocessing above; and VisDA-2017, whose real domain is cut out of COCO
(Peng et al. 2017, arXiv:1710.06924) while the third of its tasks, `object_classification_train`, is of renderings."""


def is_evaluated(task_name: str) -> bool:
    """Returns whether a training task shares images or labels with an evaluated one, by its name."""
    plain = _plain(task_name)
    return plain in _WHOLE or any(part in plain for part in PARTS)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_WHOLE = frozenset(map(_plain, WHOLE))


@dataclass(frozen=True)
class Conversation:
    """What is said about one image: questions, and the replies that are to be learnt."""

    image: str
    """The image's file name; what names its bytes, where the entry holds them."""
    exchanges: tuple[Exchange, ...]
    opening: Opening = PLAIN


@dataclass(frozen=True)
class Conversations:
    """The conversations of a file, and what was left out of it."""

    conversations: tuple[Conversation, ...]
    fingerprint: str
    notes: tuple[str, ...]
    files: dict[str, Path | bytes]
    """Where each image is, or its bytes."""


def read_conversations(
    annotations: Path,
    images: Path,
    decontaminated: bool = False,
    columns: Sequence[tuple[str, str]] = (),
) -> Conversations:
    """Returns every conversation about one image that its first question shows.

    Conversations about no image or several, with an empty reply, or with none that is learnt, are left out, and so are
    those with a second `<image>` or one after the first question; the notes count them.

    Args:
        annotations: a file of entries, or a folder with a training split; see training_forms.py for their forms.
        images: folder that names of images are relative to.
        decontaminated: leaves out the tasks whose images or labels are evaluated (`is_evaluated`).
        columns: (column, its name in the file).

    Raises:
        RequestError: no such file or folder, entries of another form, images that are not there, or a mixture that
            does not say what its tasks are and is to be decontaminated.
    """
    if not images.is_dir():
        raise RequestError(f"There is no folder `{images}` to take training images from.")
    read = training_rows(annotations, columns)
    rows, file = read.rows, read.file
    dropped: Counter[str] = Counter()
    if decontaminated:
        rows, dropped = _without_evaluated(rows, file)
    held: dict[str, bytes] = {}
    made, left_out = _conversations(rows, file, read.told, held)
    files = _files(made, images, f"`{file.name}`", held)
    notes = [f"{n:,} {what} are left out" for what, n in left_out.items()]
    several = [len(one.exchanges) for one in made if len(one.exchanges) > 1]
    if several:
        having = counted(len(several), "conversation has", "conversations have")
        notes.append(f"{having} several exchanges, {sum(several):,} in all")
    if silent := sum(not each.learnt for one in made for each in one.exchanges):
        notes.append(
            f"{counted(silent, 'reply has', 'replies have')} no weight and {plural(silent, 'is', 'are')} "
            f"read without being learnt"
        )
    if decontaminated:
        told = ", ".join(f"{name} ({n:,})" for name, n in sorted(dropped.items())) or "none is called like one"
        notes.append(
            f"decontaminated: {counted(sum(dropped.values()), 'example')} of "
            f"{counted(len(dropped), 'task')} dropped: {told}"
        )
    contents = [[name, sampled_sha256(at)] for name, at in sorted(files.items())]
    parts = [_form(made, bool(several)), file_sha256(file), decontaminated and sorted(dropped), contents]
    fingerprint = content_key([*parts, read.told] if read.told else parts, 64)
    return Conversations(tuple(made), fingerprint, tuple(notes), files)


def _form(made: Sequence[Conversation], several: bool) -> str:
    """Returns what names the way in which entries were read, as part of the fingerprint."""
    # 1 read the first exchange alone, and 2 no more than questions and replies: where there is no more, nothing has
    # changed.
    if any(one.opening != PLAIN or not all(each.learnt for each in one.exchanges) for one in made):
        return "LLaVA form 3"
    return f"LLaVA form {2 if several else 1}"


def _without_evaluated(rows: list[Row], file: Path) -> tuple[list[Row], Counter[str]]:
    """Returns the rows of tasks that share nothing with an evaluated one, and how many of each other task there are."""
    kept: list[Row] = []
    dropped: Counter[str] = Counter()
    for number, row in rows:
        task = row.get("task_name") or row.get("task") or row.get("dataset")
        if not (task and isinstance(task, str)):
            raise RequestError(f"Entry {number} of `{file.name}` names no task: it cannot be decontaminated.")
        if is_evaluated(task):
            dropped[task] += 1
        else:
            kept.append((number, row))
    return kept, dropped


def _conversations(
    rows: list[Row], file: Path, told: Mapping[str, Any], held: dict[str, bytes]
) -> tuple[list[Conversation], Counter[str]]:
    """Returns the conversations that can be trained on, and how many of each other sort there are.

    Bytes of images that entries hold are put into `held`, by what names them.
    """
    made: list[Conversation] = []
    faults: list[str] = []
    left_out: Counter[str] = Counter()
    for number, row in rows:
        try:
            entry = entry_of(row, told)
            if len(entry.images) != 1:
                kind = "conversations about several images" if entry.images else "conversations about no image"
                left_out[kind] += 1
                continue
            system, exchanges = _exchanges(entry)
            name = _image_name(entry.images[0], held)
        except ValueError as error:
            faults.append(f"entry {number}: {error}")
            continue
        at = exchanges[0].question.find(IMAGE)
        first = replace(exchanges[0], question=exchanges[0].question.replace(IMAGE, ""))
        before = first.question[: max(at, 0)]
        if not before.strip():
            before, first = "", replace(first, question=first.question.strip())
        if not first.question.strip():
            faults.append(f"entry {number}: a question is empty")
        elif not all(one.reply for one in exchanges):
            # Vision-Flan has one.
            left_out["conversations with an empty reply"] += 1
        elif exchanges[0].question.count(IMAGE) > 1:
            left_out["conversations with more `<image>` than images"] += 1
        elif any(IMAGE in text for text in (first.reply, *(each.question + each.reply for each in exchanges[1:]))):
            left_out["conversations that show their image late"] += 1
        elif not any(one.learnt for one in exchanges):
            left_out["conversations without a reply that is learnt"] += 1
        else:
            made.append(Conversation(name, (first, *exchanges[1:]), Opening(system, len(before))))
    if faults:
        raise bad_rows(f"`{file.name}`", "entry is no conversation|entries are no conversations", faults)
    if not made:
        why = "; ".join(f"{n:,} {what}" for what, n in left_out.items()) or "nothing is left of it"
        raise RequestError(
            f"There is no conversation about one image in `{file.name}`: {why}. "
            "LLaVA's form is an array of `{image, conversations: [{from, value}, ...]}`."
        )
    return made, left_out


def _exchanges(entry: Entry) -> tuple[str, tuple[Exchange, ...]]:
    """Returns what the system says, and the exchanges; ValueError where questions and replies do not take turns."""
    system = "\n".join(turn.text.strip() for turn in entry.turns if turn.role == SYSTEM)
    turns = [turn for turn in entry.turns if turn.role != SYSTEM]
    if any(turn.role == SYSTEM for turn in entry.turns[1:]):
        raise ValueError("`conversations` holds a turn of the system after the first question")
    if len(turns) < 2 or len(turns) % 2:
        raise ValueError("`conversations` is no list of questions with replies")
    for turn, role in zip(turns, (USER, ASSISTANT) * (len(turns) // 2), strict=True):
        if turn.role != role:
            raise ValueError(f"`conversations` holds a turn that is not `{'human' if role == USER else 'gpt'}`")
    texts = [turn.text.strip() for turn in turns]
    if not all(texts[::2]):
        raise ValueError("a question is empty")
    learnt = [turn.learnt for turn in turns[1::2]]
    return system, tuple(map(Exchange, texts[::2], texts[1::2], learnt))


def _image_name(value: Any, held: dict[str, bytes]) -> str:
    """Returns an image's file name, or what names its bytes, which are put into `held`; ValueError where it is none."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        value = image_bytes(value) or value.removeprefix("file://")
    if isinstance(value, bytes) and value:
        name = f"sha256-{hashlib.sha256(value).hexdigest()}"
        held[name] = value
        return name
    if not isinstance(value, str) or not value:
        raise ValueError(f"`image` is {shown(value)}, not a file name")
    return value


def _files(
    made: Sequence[Conversation], folder: Path, origin: str, held: Mapping[str, bytes]
) -> dict[str, Path | bytes]:
    """Returns where each image is; RequestError with count and first names where some are not there."""
    files: dict[str, Path | bytes] = {one.image: held.get(one.image, folder / one.image) for one in made}
    missing = [
        f"`{name[:100]}`" for name, at in files.items() if isinstance(at, Path) and not is_file_inside(at, folder)
    ]
    if missing:
        raise bad_rows(origin, "image is|images are missing", missing, "Name their folder with `--train-images DIR`.")
    return files
