"""Where a task's rows are, and what is known of the official ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mmpt_bench.common.errors import unknown_name
from mmpt_bench.data.image_folders import ImageFolder
from mmpt_bench.data.rows import Rows


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
    """Of the values in the task's columns, images aside, as `tables.content_sha256` takes it."""
    source: str
    """Where the official rows are to be had, for people."""


@dataclass(frozen=True)
class Official:
    """What is known of a benchmark's official split."""

    rows: int | None = None
    """How many they are."""
    groups: tuple[tuple[str, int], ...] = ()
    """Its subtasks or strategies, and the rows of each."""
    pin: Pin | None = None
    """What the rows say."""
    repeated: int | None = None
    """Rows that ask of an image what another row of their group asks; None where that is not known."""


@dataclass(frozen=True)
class Dataset:
    """A data set on the hub, or a folder in the hub's form, and how its rows are read."""

    hub: str
    """Name on the Hugging Face hub."""
    revision: str
    """Commit, tag or branch on the hub."""
    columns: tuple[str, ...]
    """Columns that a row must have."""
    config: str | None = None
    split: str = "test"
    image_column: str = "image"
    label_column: str | None = None
    """Column whose integers are names of classes, where the data has one."""
    classes: tuple[str, ...] = ()
    """Names of the official data's classes in the order of their numbers, for files that say neither."""
    folder: str = ""
    """Name of its folder in `--data DIR`, where it is not called like the task."""
    images: ImageFolder | None = None
    """Where images are that do not come with the rows."""
    raw: RawForm | None = None
    """Another form that its rows may come in."""
    make_rows: Callable[[], Rows] | None = None
    """Makes the rows: for a task of your own whose data is neither on the hub nor in a folder."""
    official: Official = field(default_factory=Official)
    note: str = ""
    """What a reader of every score on this data must know."""
    alternatives: Mapping[str, Dataset] = field(default_factory=dict, hash=False)
    """Other data sets of the same form, by the name that `--dataset` takes."""

    @property
    def image_name_column(self) -> str | None:
        """Returns the column that names images which do not come with the rows; None where the image column does."""
        return self.images.column if self.images is not None and self.images.column != self.image_column else None

    def named(self, name: str) -> Dataset:
        """Returns the data set of a name: one of `alternatives`, or `owner/name[@revision]` on the hub.

        A revision that is not given is the newest one; the commit that it is stands in what is recorded.

        Raises:
            RequestError: the name is neither.
        """
        if name in self.alternatives:
            return self.alternatives[name]
        hub, _, revision = name.partition("@")
        if hub.count("/") != 1 or not all(hub.split("/")):
            hint = "Or name one of the hub: `owner/name`, with `@revision`."
            raise unknown_name("data set", name, self.alternatives, hint)
        return replace(self, hub=hub, revision=revision or "main")

    def training_split(self) -> Dataset:
        """Returns the data set's training split, of which nothing official is known."""
        return replace(self, split="train", official=Official(), note="")

    def validation_split(self) -> Dataset:
        """Returns the data set's validation split, of which nothing official is known."""
        return replace(self, split="validation", official=Official(), note="")
