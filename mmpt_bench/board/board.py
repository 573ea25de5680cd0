"""What a leaderboard holds: boards, one a track; their rows, the methods; and a cell for each method and task."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

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
    unit: Literal["points", "fraction"]
    ceiling: float
    chance: float
    dataset: str
    data_fingerprint: str
    split: str
    decode: str
    version: int
    n: int
    """Questions."""
    n_pictures: int
    counts: bool
    """It is part of the overall score."""


@dataclass(frozen=True)
class Cell:
    """A method's result on a task."""

    score: float
    """Mean over seeds, in the unit of the task."""
    interval: Interval | None
    """95 %; None where it is undefined on some resamples."""
    interval_of: Literal["seeds and pictures", "pictures"]
    """What was resampled: pictures alone where there is one seed, or none."""
    by_seed: dict[int, float]
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
    """Seed -> `eval_key` of the record that it is made from; 0 for a method that does not train."""
    rank: int | None = None
    """1 + number of methods that are significantly better on this task."""
    rank_interval: tuple[int, int] | None = None
    """Of `place`, over resamples."""
    place: int | None = None
    """By the figure alone; equal figures share a place."""
    retention: dict[str, Ratio] = dataclasses.field(default_factory=dict)
    """Against full fine-tuning: raw, chance_corrected, gain_recovered."""


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
    train_seconds: float
    """Mean over runs, measured."""
    peak_bytes: int
    """Largest over runs, measured in training."""
    adapter_bytes: int
    learning_rate: float | None
    learning_rate_source: str
    flags: tuple[str, ...]
    overall: float | None = None
    """Mean over tasks of (score - chance) / (ceiling - chance), over the seeds of the ranking."""
    overall_interval: Interval | None = None
    rank: int | None = None
    rank_interval: tuple[int, int] | None = None
    place: int | None = None
    unranked: str = ""
    """Why it has no rank; empty where it has one."""
    retention: dict[str, Ratio] = dataclasses.field(default_factory=dict)
    """Of the overall score."""

    @property
    def share(self) -> float:
        """Returns the share of all parameters that is trained."""
        return self.trainable / self.total if self.total else 0.0

    def has(self, keys: Collection[str]) -> bool:
        """Returns whether some of these results are in the row."""
        return any(key in keys for cell in self.cells.values() for key in cell.eval_keys.values())


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
    """Methods that may be compared: equal backbone, corpus, budget, dtype, suite, and limit."""

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
    """Fewer than six seeds: nothing can be separated."""
    comparisons: tuple[Comparison, ...]
    """Of every pair of ranked methods, overall, at method scope."""
    failures: tuple[Failure, ...]
    left_out: tuple[str, ...]
    """Records that were not used, and why."""
    reference: str
    """Label of the full fine-tuning that retention is against; empty where there is none."""
    notes: tuple[str, ...] = ()
    """What must be read beside the scores of some rows."""

    @property
    def ranked(self) -> tuple[Row, ...]:
        """Returns the rows that have a rank."""
        return tuple(row for row in self.rows if row.rank is not None)

    def holds(self, keys: Collection[str], runs: Collection[str]) -> bool:
        """Returns whether some of these results, or a failure of these runs, stand on the board."""
        return any(row.has(keys) for row in self.rows) or any(failure.run in runs for failure in self.failures)

    @property
    def title(self) -> str:
        """Returns the board's name for people."""
        limit = f", first {self.limit:,} questions a task only" if self.limit is not None else ""
        return f"{self.suite} suite, backbone {self.backbone}, corpus {self.corpus}{limit}"


def plain(value: Any) -> Any:
    """Returns dataclasses, mappings and tuples as what JSON holds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value
