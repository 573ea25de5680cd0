"""Conversations about images in LLaVA's form, without the tasks that share images or labels with an evaluated one.

A task's name tells whether it does. The names are those of Vision-Flan's entries (`task_name`), as they stand in its
authors' site (vision-flan.github.io, data.json) and in code that trains on it. Where a name does not tell its images,
the authors' preprocessing does (github.com/VT-NLP/MultiInstruct, data_preprocessor): `ITM`, `image_text_selection` and
`image_caption` are of COCO 2014, `VQA` and `question_image_match` of VQAv2, the other `VQA_...` of TDIUC and Visual
Genome.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError, shown
from mmpt_bench.common.hashing import content_key, file_sha256
from mmpt_bench.data.examples import Exchange
from mmpt_bench.data.image_folders import is_file_inside
from mmpt_bench.data.tables import bad_rows
from mmpt_bench.data.text_files import json_rows, text_of

PARTS = (
    "cinic", "cifar", "mnist", "stl10",
    "flickr30k", "coco", "vqav2", "okvqa", "vqae", "visdial", "vqg", "senticap", "exdark", "stvqa",
    "visualgenome", "gqa", "tdiuc", "refcoco",
    "vsr", "snli", "pope",
)  # fmt: skip
"""What a name holds, letters and digits alone. CINIC-10 contains CIFAR-10, and MNIST-M the digits of MNIST; STL-10 has
CIFAR's classes. Flickr30k has the pictures of SNLI-VE; COCO those of POPE, VSR and part of MME, and VQAv2, OK-VQA,
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

Row = tuple[int, dict[str, Any]]
"""Its number in the file, and what it holds."""

PLACEHOLDER = "<image>"
"""Stands in a question for the image; the chat frame puts the image there itself."""


@dataclass(frozen=True)
class Conversation:
    """What is said about one image: questions, and the replies that are to be learnt."""

    image: str
    """The image's file name."""
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True)
class Conversations:
    """The conversations of a file, and what was left out of it."""

    conversations: tuple[Conversation, ...]
    fingerprint: str
    notes: tuple[str, ...]
    files: dict[str, Path]
    """Where each image is."""


def read_conversations(annotations: Path, images: Path, decontaminated: bool = False) -> Conversations:
    """Returns every conversation about one image that its first question shows.

    Conversations about no image or several, and with an empty reply, are left out; the notes count them.

    Args:
        annotations: JSON array or JSON lines of `{id, image, conversations: [{from, value}, ...]}`, and `task_name`.
        images: folder that the `image` names are relative to.
        decontaminated: leaves out the tasks whose images or labels are evaluated (`is_evaluated`).

    Raises:
        RequestError: no such file or folder, entries of another form, images that are not there, or a mixture that
            does not say what its tasks are and is to be decontaminated.
    """
    if not images.is_dir():
        raise RequestError(f"There is no folder `{images}` to take training pictures from.")
    rows, torn = json_rows(text_of(annotations), annotations)
    if torn:
        raise RequestError(f"`{annotations.name}` is cut short: its last line was not finished. Fetch it again.")
    dropped: Counter[str] = Counter()
    if decontaminated:
        rows, dropped = _without_evaluated(rows, annotations)
    made, left_out = _conversations(rows, annotations)
    files = _files(made, images, f"`{annotations.name}`")
    notes = [f"{n:,} {what} are left out" for what, n in left_out.items()]
    several = [len(one.exchanges) for one in made if len(one.exchanges) > 1]
    if several:
        notes.append(f"{len(several):,} conversations have several exchanges, {sum(several):,} in all")
    if decontaminated:
        told = ", ".join(f"{name} ({n:,})" for name, n in sorted(dropped.items())) or "none is called like one"
        notes.append(f"decontaminated: {sum(dropped.values()):,} examples of {len(dropped)} tasks dropped: {told}")
    sizes = [[name, path.stat().st_size] for name, path in sorted(files.items())]
    # 1 read the first exchange alone, so that where there is one alone nothing has changed.
    form = f"LLaVA form {2 if several else 1}"
    fingerprint = content_key([form, file_sha256(annotations), decontaminated and sorted(dropped), sizes], 64)
    return Conversations(tuple(made), fingerprint, tuple(notes), files)


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


def _conversations(rows: list[Row], file: Path) -> tuple[list[Conversation], Counter[str]]:
    """Returns the conversations that can be trained on, and how many of each other sort there are."""
    made: list[Conversation] = []
    faults: list[str] = []
    left_out: Counter[str] = Counter()
    for number, row in rows:
        try:
            names = _image_names(row)
            if len(names) != 1:
                left_out["conversations about no picture" if not names else "conversations about several pictures"] += 1
                continue
            exchanges = _exchanges(row)
        except ValueError as error:
            faults.append(f"entry {number}: {error}")
            continue
        if not all(one.reply for one in exchanges):
            # Vision-Flan has one.
            left_out["conversations with an empty reply"] += 1
        elif any(PLACEHOLDER in text for one in exchanges for text in (one.question, one.reply)):
            left_out["conversations that show their picture late"] += 1
        else:
            made.append(Conversation(names[0], exchanges))
    if faults:
        raise bad_rows(f"`{file.name}`", "entries are no conversations", faults)
    if not made:
        why = "; ".join(f"{n:,} {what}" for what, n in left_out.items()) or "nothing is left of it"
        raise RequestError(
            f"There is no conversation about one picture in `{file.name}`: {why}. "
            "LLaVA's form is an array of `{image, conversations: [{from, value}, ...]}`."
        )
    return made, left_out


def _image_names(row: Mapping[str, Any]) -> list[str]:
    """Returns the images of an entry; ValueError where they are no file names."""
    value = row.get("image") or []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"`image` is {shown(value)}, not a file name")
    return names


def _exchanges(row: Mapping[str, Any]) -> tuple[Exchange, ...]:
    """Returns the exchanges of an entry, without the mark of the image in the first; ValueError where it has none."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or len(turns) < 2 or len(turns) % 2:
        raise ValueError("`conversations` is no list of questions with replies")
    for turn, who in zip(turns, ("human", "gpt") * (len(turns) // 2), strict=True):
        if not isinstance(turn, dict) or turn.get("from") != who or not isinstance(turn.get("value"), str):
            raise ValueError(f"`conversations` holds a turn that is not `{who}` with a text `value`")
    texts = [turn["value"].strip() for turn in turns]
    texts[0] = texts[0].replace(PLACEHOLDER, "").strip()
    if not all(texts[::2]):
        raise ValueError("a question is empty")
    return tuple(map(Exchange, texts[::2], texts[1::2]))


def _files(made: Sequence[Conversation], folder: Path, origin: str) -> dict[str, Path]:
    """Returns where each image is; RequestError with count and first names where some are not there."""
    files = {one.image: folder / one.image for one in made}
    missing = [f"`{name}`" for name, path in files.items() if not is_file_inside(path, folder)]
    if missing:
        raise bad_rows(origin, "pictures are missing", missing, "Name their folder with `--train-images DIR`.")
    return files
