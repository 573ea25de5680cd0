"""Rows of a data set, and the values in them; a bad value is named by its column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmpt_bench.data import image_folders
from mmpt_bench.data.images import Picture, decoded, rgb


class _NoPicture:
    """Takes a picture's place where questions and labels are wanted alone."""

    def convert(self, mode: str) -> None:
        """Makes `picture` take this for one; nobody opens it."""
        raise AssertionError(f"this stands for a picture that nobody needs, least of all as {mode}")


NO_PICTURE = _NoPicture()

OTHER_ROWS = "NOT the official rows"
"""Stands in the origin of rows that say something else than those that the task pins."""


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
    suite: Literal["real", "embedded"]
    notes: tuple[str, ...] = ()
    """What a reader of the score must know: "14,740 rows; the official split has 17,901"."""
    found: image_folders.Found | None = None
    """Where the pictures are, for rows from files."""
    official: bool | None = None
    """Whether they say what the official rows say; None where the task does not pin those."""


def picture(value: Any, key: str, where: str, column: str = "image") -> Picture:
    """Returns a picture that is opened when it is needed.

    Args:
        value: a PIL image, the hub's {"bytes", "path"}, or the path of a file.
        key: the picture's identity; equal keys must be equal pictures.
        where: id of the sample, for messages.
        column: that the value is from, for messages.

    Raises:
        ValueError: `value` is none of these, or an empty one of them.
    """
    name = "bytes of the row"
    if isinstance(value, Mapping):
        name = value.get("path") or name
        value = value.get("bytes") or value.get("path")
    if isinstance(value, (str, Path)) and str(value):
        path = Path(value)
        return Picture(key, lambda: decoded(path, "/".join(path.parts[-2:]), where))
    if isinstance(value, bytes) and value:
        return Picture(key, lambda: decoded(value, Path(name).name, where))
    if hasattr(value, "convert"):
        return Picture(key, lambda: rgb(value, name, where))
    raise ValueError(f"column `{column}` holds {_shown(value)}, not a picture, in sample `{where}`")


def text(row: Mapping[str, Any], column: str) -> str:
    """Returns a row's text; ValueError naming the column where it is missing, empty or no text."""
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"column `{column}` holds {_shown(value)}, not text")
    return value


def label(row: Mapping[str, Any], column: str, names: Sequence[str]) -> str:
    """Returns the name of a row's class; ValueError naming the column where its number is none of the names'."""
    value = row.get(column)
    if not names:
        raise ValueError(f"column `{column}` has no class names; the data must give them, as the hub's does")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(names):
        raise ValueError(f"column `{column}` holds {_shown(value)}, not a class number from 0 to {len(names) - 1}")
    return names[value]


def one_of(row: Mapping[str, Any], column: str, legal: Sequence[str]) -> str:
    """Returns the legal answer that a row's text is, whatever its case; ValueError naming the column."""
    value = text(row, column).strip().lower()
    for choice in legal:
        if choice.lower() == value:
            return choice
    raise ValueError(f"column `{column}` holds {_shown(row[column])}, not one of {', '.join(legal)}")


def _shown(value: Any) -> str:
    """Returns a value for a message, cut to 40 characters."""
    shown = repr(value)
    return f"`{shown if len(shown) <= 40 else shown[:37] + '...'}`"


@dataclass(frozen=True)
class RawForm:
    """Rows in other words than the task's, as some data sets keep them on the hub."""

    columns: tuple[str, ...]
    """Columns by which the form is known."""
    others: tuple[str, ...]
    """Further columns that `row` looks at, where they are there; the rest is never unpacked."""
    row: Callable[[Mapping[str, Any]], dict[str, Any]]
    """Returns a row in the task's own columns; raises ValueError naming the column of a bad value."""


@dataclass(frozen=True)
class Pin:
    """The rows of an official split, known by what they say and in which order, whichever file they come in."""

    sha256: str
    """Of the values in the task's columns, pictures aside, as `tables.content_sha256` takes it."""
    source: str
    """Where the official rows are to be had, for people."""
