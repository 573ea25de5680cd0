"""The words of evaluation: a task turns rows into samples, replies into choices, and predictions into scores.

A task is the same for real and for generated data: only where the rows come from differs (`source.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mmpt_bench.errors import unknown_name

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from mmpt_bench.sheet import Sheet
    from mmpt_bench.source import Rows

Decode = Literal["generate", "rank"]
Parse = Callable[[str, Sequence[str]], str | None]
"""(reply, legal answers) -> the answer that the reply gives, or None."""
OFFICIAL = "official"
"""Name of a task's own parse rule."""


@dataclass(frozen=True)
class Picture:
    """A picture that is opened when it is needed, and known by its key before that."""

    key: str
    """Identity: equal keys are equal pictures. Caches and clusters use it."""
    open: Callable[[], Image]
    """Returns the picture as RGB."""


@dataclass(frozen=True)
class Sample:
    """One question about one picture."""

    id: str
    """Unique within the task's split."""
    image: Picture
    question: str
    """What the user of the model would type, without the chat frame."""
    choices: tuple[str, ...]
    """The legal answers."""
    answer: str
    """The right one of `choices`."""
    group: str = ""
    """Subtask or strategy the scores are broken down by; empty where there is none."""
    cluster: str = ""
    """The picture, for errors that are taken over pictures; MME's pairs are read off it."""


@dataclass(frozen=True)
class Prediction:
    """What a model said to one sample, and how it ranked the legal answers."""

    id: str
    reply: str
    """The greedy reply, untouched."""
    parsed: str | None
    """The choice that the task's parse rule reads from the reply; None where it reads none."""
    ranked: str
    """The most probable legal answer."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each of the sample's choices, in their order."""


@dataclass(frozen=True)
class Tally:
    """Counts per picture from which every figure of a task follows: resampling pictures is resampling rows."""

    clusters: tuple[str, ...]
    """The pictures, one a row of `counts`."""
    strata: tuple[str, ...]
    """What each picture is resampled within (MME: its subtask); all equal where the benchmark fixes nothing."""
    columns: tuple[str, ...]
    """What is counted, one a column of `counts`."""
    counts: np.ndarray
    """Numbers of answers, (pictures, columns)."""


class Metric(Protocol):
    """Says what is counted of the answers to a picture, and turns sums of such counts into figures.

    A metric of your own is a class that derives from this one.
    """

    def sheet(self, samples: Sequence[Sample]) -> Sheet:
        """Returns the samples coded for counting, as `sheet_of` makes it."""
        ...

    def values(self, sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns every figure by name for `sums` of counts, (..., columns) -> (...); an undefined one is absent.

        The names are those of the field: "total", "acc_plus/count", "f1/random", "accuracy".
        """
        ...

    def ceiling(self, samples: Sequence[Sample]) -> float:
        """Returns the most that the task's headline figure can reach on these samples."""
        ...

    def chance(self, samples: Sequence[Sample]) -> float:
        """Returns what the headline figure is, in expectation, when legal answers are drawn at random."""
        ...

    def needs(self, figure: str, columns: Sequence[str]) -> tuple[str, ...]:
        """Returns the columns that a figure is made from: all, where a metric does not say."""
        return tuple(columns)

    def tally(self, samples: Sequence[Sample], choices: Sequence[str | None]) -> Tally:
        """Returns the counts of `choices` (None: unreadable) against `samples`, which are in the same order."""
        return self.sheet(samples).tally(choices)


@dataclass(frozen=True)
class PictureFolder:
    """Where a task's pictures are, whose rows on the hub hold names alone."""

    collection: str
    """What `--images` calls it: "coco", "flickr30k", "mme"."""
    column: str
    """Column that names a row's picture."""
    suffix: str = ""
    """What the name lacks: ".jpg"."""
    subfolders: tuple[str, ...] = ()
    """Where in the folder it is looked for too, as the collection is laid out when it is unpacked."""


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


def chosen(prediction: Prediction, decode: Decode) -> str | None:
    """Returns the answer that counts under a decoding: the reply as parsed, or the best-ranked legal answer."""
    return prediction.parsed if decode == "generate" else prediction.ranked
