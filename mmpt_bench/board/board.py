"""What a leaderboard holds: boards, one a track; their rows, the methods; and a cell for each method and task."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmpt_bench.common.words import counted
from mmpt_bench.data.rows import is_generated
from mmpt_bench.evaluation.metrics import Metric
from mmpt_bench.records.budget import SMOKE_LIMIT, SMOKE_STEPS
from mmpt_bench.records.record import asked_with
from mmpt_bench.stats.claims import Comparison, Ratio
from mmpt_bench.stats.intervals import Interval


@dataclass(frozen=True)
class Column:
    """A task as one board shows it: which data, and what its headline figure can be."""

    task: str
    title: str
    """As people write it: "MME"; with the parse rule where it is not the benchmark's own."""
    headline: str
    """Name of the figure."""
    metric: Metric = dataclasses.field(repr=False)
    """What its scores are declared to be."""
    ceiling: float
    chance: float
    dataset: str
    data_fingerprint: str
    split: str
    decode: str
    rule: str
    """By which replies were parsed; empty where it is the task's own."""
    guard: bool
    """False where close calls of half precision were not asked again."""
    version: int
    n: int
    """Questions."""
    n_pictures: int
    counts: bool
    """It is part of the overall score."""

    @property
    def unit(self) -> str:
        """Returns the unit of the headline: "points", or "fraction"."""
        return self.metric.declared(self.headline).unit

    @property
    def resampled(self) -> bool:
        """Returns whether resampling images gives the headline an interval."""
        return self.metric.declared(self.headline).resampled


@dataclass(frozen=True)
class Cell:
    """A method's result on a task."""

    score: float
    """Mean over the seeds in `by_seed`, in the unit of the task."""
    interval: Interval | None
    """95 %; None where it is undefined on some resamples."""
    interval_of: Literal["seeds and images", "images"]
    """What was resampled: images alone where there is one seed, or none."""
    by_seed: dict[int, float]
    """Of the seeds that the place on the task is made from; where there is no place, of all that are recorded."""
    sd: float | None
    """Over seeds; None below two."""
    strict: float | None
    """Of the parsed replies; None where it is undefined for a seed."""
    constrained: float | None
    """Of the best-ranked legal answers."""
    unreadable: float
    """Share of replies without a legal answer, mean over seeds."""
    values: dict[str, float]
    """Every figure of the task that all seeds have, mean over seeds."""
    eval_keys: dict[int, str] = dataclasses.field(default_factory=dict)
    """Seed -> `eval_key` of each record; 0 for a method that does not train."""
    place: int | None = None
    """By the figure among the methods of the task that can be compared; equal figures share a place."""
    place_interval: tuple[int, int] | None = None
    """Of `place`, over resamples."""
    groups: str = ""
    """Letters: methods that share one are not significantly different on this task, by Holm over its pairs."""
    borderline: bool = False
    """Some pair of it has a p near .05 (`BORDERLINE`), so that other seeds may well change its letters."""
    gain: float | None = None
    """Over tuning the projector alone, in the unit of the task; None where that was not run, or it is that itself."""
    gain_interval: Interval | None = None
    change: float | None = None
    """From the baseline, the untuned model, in the unit of the task; None where that was not run, or it is that."""
    change_interval: Interval | None = None
    retention: dict[str, Ratio] = dataclasses.field(default_factory=dict)
    """Against full fine-tuning: raw, chance_corrected, gain_recovered."""

    @property
    def worst(self) -> float | None:
        """Returns the score of the worst seed; None for a method without seeds."""
        return min(self.by_seed.values(), default=None)


@dataclass(frozen=True)
class Row:
    """A method with one set of hyperparameters."""

    label: str
    """The method, with the hyperparameters that are not its defaults, and those that tell its rows apart."""
    method: str
    params: dict[str, Any]
    trains: bool
    seeds: tuple[int, ...]
    """Of the runs that are recorded; a method that does not train has one result for all of them."""
    cells: dict[str, Cell]
    """By task."""
    trainable: int
    total: int
    train_seconds: float | None
    """Mean over the runs that had a process and an idle machine to themselves; None where there is none."""
    cpu_seconds: float | None
    """The same of the processor's time, over all its threads."""
    peak_bytes: int | None
    """Largest over the runs that had a process to themselves; None where there is none."""
    own_bytes: int | None
    """The same without what was held before training: the loaded model and data."""
    adapter_bytes: int
    learning_rate: float | None
    learning_rate_source: str
    flags: tuple[str, ...]
    scored: tuple[int, ...] = ()
    """The seeds that its scores are over: those of the ranking; all its own where it has no place."""
    stage: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How its trainings depart from the usual (`Recipe.stage`)."""
    objective: dict[str, Any] = dataclasses.field(default_factory=dict)
    """From whom they learn (`Recipe.objective`)."""
    question_seconds: float | None = None
    """Of evaluation, over all tasks, where it had an idle machine to itself; None where it never had."""
    overall: float | None = None
    """Mean over tasks of (score - chance) / (ceiling - chance), over the seeds of the ranking."""
    overall_interval: Interval | None = None
    overall_by_seed: dict[int, float] = dataclasses.field(default_factory=dict)
    """Empty for a method without seeds."""
    place: int | None = None
    place_interval: tuple[int, int] | None = None
    groups: str = ""
    """Letters: methods that share one are not significantly different overall."""
    borderline: bool = False
    """As of a cell."""
    gain: float | None = None
    """Of the overall score over tuning the projector alone; None where that has none, or it is that itself."""
    gain_interval: Interval | None = None
    change: float | None = None
    """Of the overall score from the baseline, the untuned model; None where that has none, or it is that itself."""
    change_interval: Interval | None = None
    forgetting: float | None = None
    """Mean over tasks of how far it fell below the baseline, 0 where it did not, chance-corrected; None where the
    baseline was not run, or it is that itself."""
    forgetting_interval: Interval | None = None
    """Over the tasks below the baseline: it holds 0 where noise explains them. None where there is none."""
    forgot_most: str = ""
    """The task that fell most; empty where none did."""
    unranked: str = ""
    """Why it has no place; empty where it has one."""
    retention: dict[str, Ratio] = dataclasses.field(default_factory=dict)
    """Of the overall score."""

    @property
    def share(self) -> float:
        """Returns the share of all parameters that is trained."""
        return self.trainable / self.total if self.total else 0.0

    def has(self, keys: Collection[str]) -> bool:
        """Returns whether some of these results are in the row."""
        return any(key in keys for cell in self.cells.values() for key in cell.eval_keys.values())

    @property
    def worst(self) -> float | None:
        """Returns the overall score of the worst seed; None for a method without seeds."""
        return min(self.overall_by_seed.values(), default=None)


@dataclass(frozen=True)
class Failure:
    """A run that failed: shown, never ranked."""

    method: str
    label: str
    run: str
    seed: int
    reason: str
    learning_rate: float | None


@dataclass(frozen=True)
class Board:
    """Methods that may be compared: equal backbone, corpus, budget, dtype, suite, limit, and parse rule."""

    track: str
    suite: str
    backbone: str
    backbone_fingerprint: str
    corpus: str
    corpus_fingerprint: str
    budget: dict[str, Any]
    dtype: str
    limit: int | None
    """Questions a task, where not all were asked: a trial, not the benchmark."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    """Ranked ones first, by overall score; then the others by label."""
    seeds: tuple[int, ...]
    """Those that all ranked methods have, and that the ranking is made from; empty where none trains."""
    exploratory: bool
    """Fewer than six seeds: no difference can be significant."""
    comparisons: tuple[Comparison, ...]
    """Of every pair of ranked methods, overall, at method scope: one family of Holm, which the groups follow."""
    failures: tuple[Failure, ...]
    left_out: tuple[str, ...]
    """Records that were not used, and why."""
    reference: str
    """Label of the full fine-tuning that retention is against; empty where there is none."""
    projector: str = ""
    """Label of the tuned projector that gains are over; empty where there is none."""
    base: str = ""
    """Label of the untuned model that changes are from; empty where there is none."""
    notes: tuple[str, ...] = ()
    """What must be read beside the scores of some rows."""
    asking: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What stands before every question and who judges, as of a record."""
    own_tasks: tuple[str, ...] = ()
    """Names of the tasks that are of users' own files."""

    @property
    def rule(self) -> str:
        """Returns the parse rule by which its replies were read; empty for the own rule of each task."""
        return next((column.rule for column in self.columns if column.rule), "")

    @property
    def id(self) -> str:
        """Returns what names the board: its setting, with its subset and parse rule where they are not the usual."""
        parts = [self.track, *([f"first-{self.limit}"] if self.limit is not None else [])]
        return "-".join([*parts, *([re.sub(r"[^a-z0-9]+", "-", self.rule.lower()).strip("-")] if self.rule else [])])

    @property
    def subset(self) -> str:
        """Returns how many questions of each task were asked, where not all were; empty otherwise.

        A task may have asked more than the limit: all questions on an image that has one of the first.
        """
        if self.limit is None:
            return ""
        if all(column.n == self.limit for column in self.columns):
            return f"first {counted(self.limit, 'question')} a task only"
        return f"first questions only: {', '.join(f'{column.n:,} of {column.title}' for column in self.columns)}"

    @property
    def suite_told(self) -> str:
        """Returns the suite for people, which is not that of users' own tasks: "embedded suite and own tasks"."""
        if not self.own_tasks:
            return f"{self.suite} suite"
        return "own tasks" if self.is_own else f"{self.suite} suite and own tasks"

    @property
    def is_own(self) -> bool:
        """Returns whether all its tasks are of users' own files."""
        return bool(self.own_tasks) and {column.task for column in self.columns} <= set(self.own_tasks)

    @property
    def is_embedded(self) -> bool:
        """Returns whether tasks of the embedded suite stand on it."""
        return is_generated(self.suite) and not self.is_own

    @property
    def ranked(self) -> tuple[Row, ...]:
        """Returns the rows that have a place overall."""
        return tuple(row for row in self.rows if row.place is not None)

    @property
    def leaders(self) -> tuple[Row, ...]:
        """Returns the ranked rows that are not significantly different from the best one, that itself first."""
        best = next((row for row in self.rows if row.place == 1), None)
        return tuple(row for row in self.ranked if best is not None and set(row.groups) & set(best.groups))

    @property
    def keys(self) -> frozenset[str]:
        """Returns the `eval_key` of every result on the board."""
        return frozenset(key for row in self.rows for cell in row.cells.values() for key in cell.eval_keys.values())

    def holds(self, keys: Collection[str], runs: Collection[str]) -> bool:
        """Returns whether some of these results, or a failure of these runs, stand on the board."""
        return any(row.has(keys) for row in self.rows) or any(failure.run in runs for failure in self.failures)

    @property
    def is_smoke(self) -> bool:
        """Returns whether it is of `run --smoke`: a trial that everything works."""
        return self.limit == SMOKE_LIMIT and self.budget.get("steps") == SMOKE_STEPS

    @property
    def title(self) -> str:
        """Returns the board's name for people."""
        limit = f", {self.subset}" if self.subset else ""
        limit = ", smoke test and no result" if self.is_smoke else limit
        before = f", {text}" if (text := asked_with(self.asking)) else ""
        read = f", read by the parse rule {self.rule}" if self.rule else ""
        return f"{self.suite_told}, backbone {self.backbone}, training data {self.corpus}{before}{read}{limit}"


def asked_of(suite: str, limit: int | None, columns: Sequence[Column] = ()) -> str:
    """Returns suite and subset for people, "embedded suite" or "own tasks": "Embedded suite, all questions".

    Args:
        suite: for people.
        limit: questions a task, where not all were asked.
        columns: the tasks, whose own numbers are named where they are others.
    """
    subset = "all questions" if limit is None else f"the first {counted(limit, 'question')} of each task"
    if limit is not None and any(column.n != limit for column in columns):
        subset = f"the first questions of each task ({', '.join(f'{c.n:,} of {c.title}' for c in columns)})"
    elif limit is not None and not columns:
        subset += " and the others on their images"
    return f"{suite[:1].upper()}{suite[1:]}, {subset}"


CALLED = {
    "track": "setting",
    "corpus": "training_data",
    "corpus_fingerprint": "training_data_fingerprint",
    "n_pictures": "n_images",
}
"""Fields that are called otherwise in JSON, as in scores.csv."""


def plain(value: Any) -> Any:
    """Returns dataclasses, mappings and tuples as what JSON holds, for people: names as in the tables."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {CALLED.get(name, name): plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value
