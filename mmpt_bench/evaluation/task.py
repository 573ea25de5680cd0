"""The words of evaluation: a task turns rows into samples, replies into choices, and predictions into scores.

A task is the same for real and for generated data: only where the rows come from differs (`source.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from mmpt_bench.common.errors import unknown_name
from mmpt_bench.data.image_folders import PictureFolder
from mmpt_bench.data.rows import Pin, RawForm
from mmpt_bench.data.samples import Decode, Sample
from mmpt_bench.evaluation.metrics import Metric
from mmpt_bench.evaluation.parsing import Parse

if TYPE_CHECKING:
    from mmpt_bench.data.rows import Rows

OFFICIAL = "official"
"""Name of a task's own parse rule."""


@dataclass(frozen=True)
class Dataset:
    """Another data set of a task's form."""

    name: str
    """What `--dataset` calls it: "random"."""
    dataset: str
    revision: str
    official_rows: int | None = None
    pin: Pin | None = None
    folder: str = ""
    """Its folder in `--data DIR`."""
    note: str = ""
    """What a reader of its score must know."""


@dataclass(frozen=True)
class Task:
    """A benchmark: where its rows are, how a row becomes a sample, and what counts as right."""

    name: str
    title: str
    """As people write it: "MME", "SNLI-VE"."""
    headline: str
    """Name in `Metric.values` of the figure that the leaderboard shows."""
    unit: Literal["points", "fraction"]
    dataset: str
    """Name on the Hugging Face hub."""
    revision: str
    """Commit, tag or branch on the hub."""
    config: str | None
    split: str
    columns: tuple[str, ...]
    """Columns that a row must have."""
    sample: Callable[[Mapping[str, Any], int, Sequence[str]], Sample]
    """(row, row number, label names) -> sample; raises ValueError naming the column of a bad value."""
    metric: Metric
    parse: Parse
    """(reply, choices) -> choice, or None where the reply is unreadable."""
    decode: Decode
    """Which of a prediction's two answers the headline is computed from."""
    max_new_tokens: int
    version: int
    """Rises when prompts, parsing or scoring change: results of two versions are never mixed."""
    metric_names: tuple[str, ...] = field(default=())
    """Other figures worth a column, names in `Metric.values`."""
    label_column: str | None = None
    """Column whose integers are names of classes, where the data has one."""
    image_column: str = "image"
    official_rows: int | None = None
    """Rows of the official split, where known."""
    pin: Pin | None = None
    """What those rows say, where known."""
    rows: Callable[[], Rows] | None = None
    """Makes the task's rows itself: for a task of your own whose data is neither on the hub nor in a folder."""
    unreadable: Callable[[str, Sequence[str]], bool] | None = None
    """(reply, choices) -> the reply gives no legal answer, though `parse` reads one; None: ask `parse`."""
    other_rules: Mapping[str, Parse] = field(default_factory=dict, hash=False)
    """Parse rules of other harnesses, by the name that `--parse` takes: "lmms-eval", "vlmevalkit"."""
    rule: str = OFFICIAL
    """Name of the rule that `parse` is."""
    classes: tuple[str, ...] = ()
    """Names of the official data's classes in the order of their numbers, for files that say neither."""
    official_groups: tuple[tuple[str, int], ...] = ()
    """Subtasks or strategies of the official split, and the rows of each."""
    pictures: PictureFolder | None = None
    """Where pictures are that do not come with the rows."""
    folder: str = ""
    """Name of its folder in `--data DIR`, where it is not called like the task."""
    raw: RawForm | None = None
    """Another form that its rows may come in."""
    alternatives: tuple[Dataset, ...] = ()
    """Other data sets of the same form, by name."""
    note: str = ""
    """What a reader of every score on this data must know."""

    def with_dataset(self, name: str) -> Task:
        """Returns the task on other data: the name of one of `alternatives`, or `owner/name[@revision]` on the hub.

        A revision that is not given is the newest one; the commit that it is stands in what is recorded.

        Raises:
            RequestError: the name is neither.
        """
        for other in self.alternatives:
            if name == other.name:
                return replace(
                    self,
                    dataset=other.dataset,
                    revision=other.revision,
                    official_rows=other.official_rows,
                    official_groups=(),
                    pin=other.pin,
                    folder=other.folder,
                    note=other.note,
                )
        where, _, revision = name.partition("@")
        if where.count("/") != 1 or not all(where.split("/")):
            known = [other.name for other in self.alternatives]
            raise unknown_name("data set", name, known, "Or name one of the hub: `owner/name`, with `@revision`.")
        return replace(self, dataset=where, revision=revision or "main")

    def training_split(self) -> Task:
        """Returns the task on its training split, of which nothing official is known."""
        return replace(self, split="train", official_rows=None, official_groups=(), pin=None, note="")

    def with_rule(self, name: str) -> Task:
        """Returns the task with another parse rule; raises RequestError where it has none of that name."""
        if name == self.rule:
            return self
        if name not in self.other_rules:
            known = [self.rule, *self.other_rules]
            raise unknown_name("parse rule", name, known, f"{self.title} has {', '.join(f'`{k}`' for k in known)}.")
        return replace(self, parse=self.other_rules[name], rule=name, unreadable=None)

    def reads(self, reply: str, choices: Sequence[str]) -> bool:
        """Returns whether a reply gives a legal answer; the share of those that do not stands beside every score."""
        if self.unreadable is not None:
            return not self.unreadable(reply, choices)
        return self.parse(reply, choices) is not None
