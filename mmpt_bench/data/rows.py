"""Rows of a data set, and the values in them; a bad value is named by its column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from mmpt_bench.common.errors import shown
from mmpt_bench.data.image_folders import RowImages
from mmpt_bench.data.images import LazyImage, decoded, image_bytes, rgb
from mmpt_bench.data.tables import is_class_number


class _NoImage:
    """Takes an image's place where questions and labels are wanted alone."""

    def convert(self, mode: str) -> None:
        """Makes `read_image` take this for one; nobody opens it."""
        raise AssertionError(f"this stands for an image that nobody needs, least of all as {mode}")


NO_IMAGE = _NoImage()

OTHER_ROWS = "NOT the official rows"
"""Stands in the origin of rows that say something else than those that the task pins."""
COLUMNS_TOLD = "column "
"""Stands before `image=img` in the name of data whose files call a column otherwise."""
LEFT_OUT = "questions left out"
"""Stands in the origin of rows of which some cannot be used."""


SHIFTED = "shifted"
"""The world of the embedded suite in which methods are tuned."""
WORLDS = {SHIFTED: 1.0, "clean": 0.0, "strong": 1.5}
"""World -> strength of its shift; `strong` is one that nothing was tuned in."""


def suite_of(world: str) -> str:
    """Returns the name of the embedded suite in one of its worlds."""
    return "embedded" if world == SHIFTED else f"embedded-{world}"


def world_of(suite: str) -> str:
    """Returns the world of an embedded suite."""
    return suite.partition("-")[2] or SHIFTED


def is_generated(suite: str) -> bool:
    """Returns whether a suite's rows are generated scenes."""
    return suite.split("-")[0] == "embedded"


@dataclass(frozen=True)
class Rows:
    """A task's rows, and what identifies them."""

    rows: Sequence[Mapping[str, Any]]
    label_names: tuple[str, ...]
    """Names of the classes, in the order of the label column's integers; empty where the data names none."""
    fingerprint: str
    """Of the files' names and bytes: two sets of rows with one fingerprint are the same."""
    origin: str
    """Where they were read, for people: "lmms-lab/POPE at 4db12766 (Full, test)", or a folder's name."""
    suite: str
    """"real", or one that is generated: "embedded", "embedded-clean", "embedded-strong"."""
    notes: tuple[str, ...] = ()
    """What a reader of the score must know: "14,740 rows; the official split has 17,901"."""
    found: RowImages | None = None
    """Where the images are, for rows from files."""
    files: tuple[str, ...] = ()
    """That they were read from, as far as there are some."""
    not_read: tuple[str, ...] = ()
    """Files beside them that are called like the split and were not read."""
    official: bool | None = None
    """Whether they say what the official rows say; None where the task does not pin those."""


def read_image(value: Any, key: str, where: str, column: str = "image") -> LazyImage:
    """Returns an image that is opened when it is needed.

    Args:
        value: a PIL image, the hub's {"bytes", "path"}, an image file's bytes, as they are or as base64 text (a `data:`
            address too), the path of a file, or a function that makes the image.
        key: the image's identity; equal keys must be equal images.
        where: id of the sample, for messages.
        column: that the value is from, for messages.

    Raises:
        ValueError: `value` is none of these, or an empty one of them.
    """
    name = "bytes of the row"
    if isinstance(value, Mapping):
        name = value.get("path") or name
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        value = image_bytes(value) or value
    if isinstance(value, (str, Path)) and str(value):
        path = Path(value)
        return LazyImage(key, lambda: decoded(path, "/".join(path.parts[-2:]), where), path)
    if isinstance(value, bytes) and value:
        return LazyImage(key, lambda: decoded(value, Path(name).name, where), value)
    if hasattr(value, "convert"):
        return LazyImage(key, lambda: rgb(value, name, where), value)
    if callable(value):
        return LazyImage(key, lambda: rgb(value(), name, where))
    raise ValueError(f"column `{column}` holds {shown(value)}, not an image, in sample `{where}`")


def read_text(row: Mapping[str, Any], column: str) -> str:
    """Returns a row's text; ValueError naming the column where it is missing, empty or no text."""
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"column `{column}` holds {shown(value)}, not text")
    return value


def read_texts(row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """Returns a row's list of texts, or its one text; ValueError naming the column where there is none."""
    value = row.get(column)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise ValueError(f"column `{column}` holds {shown(value)}, not a list of texts")
    return tuple(texts)


def read_wording(row: Mapping[str, Any], default: str = "") -> str:
    """Returns the template that a row says it is to be asked in, else the task's own; public sets have none of theirs.

    Raises:
        ValueError: the row's `wording` is no text, or lacks a field of the task's own.
    """
    if "wording" not in row:
        return default
    told = read_text(row, "wording")
    names = [{name for _, name, _, _ in Formatter().parse(text) if name} for text in (default, told)]
    if default and names[0] != names[1]:
        raise ValueError(f"column `wording` holds {shown(told)}, which lacks or adds a field of `{default}`")
    return told


def read_label(row: Mapping[str, Any], column: str, names: Sequence[str]) -> str:
    """Returns the name of a row's class; ValueError naming the column where its number is none of the names'."""
    value = row.get(column)
    if not names:
        raise ValueError(f"column `{column}` has no class names; the data must give them, as the hub's does")
    if not is_class_number(value, len(names)):
        raise ValueError(f"column `{column}` holds {shown(value)}, not a class number from 0 to {len(names) - 1}")
    return names[value]


def read_choice(row: Mapping[str, Any], column: str, legal: Sequence[str]) -> str:
    """Returns the legal answer that a row's text is, whatever its case; ValueError naming the column."""
    value = read_text(row, column).strip().lower()
    for choice in legal:
        if choice.lower() == value:
            return choice
    raise ValueError(f"column `{column}` holds {shown(row[column])}, not one of {', '.join(legal)}")
