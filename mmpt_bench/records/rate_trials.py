"""The trials of searches, a line each: what was trained, at which rate and seed, and what it scored.

Scores on test data are in a file of their own, which no choice of a rate reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import loads, read_jsonl
from mmpt_bench.common.hashing import content_key
from mmpt_bench.common.values import FieldError, from_plain
from mmpt_bench.records.rate_curve import Scores

TRIALS = "learning_rate_trials.jsonl"
TESTS = "learning_rate_test_scores.jsonl"
DEV, LOSS = "dev score", "validation loss"
"""Criteria: the mean chance-centred score on a dev part, and the mean loss on held-out training data."""


@dataclass(frozen=True)
class Search:
    """What one search is for: everything but rate and seed."""

    method: str
    params: dict[str, Any]
    """The hyperparameters that it is made with, without the rate."""
    backbone_fingerprint: str
    corpus_fingerprint: str
    budget: dict[str, Any]
    dtype: str = "float32"
    """As records say it: "float32", "bfloat16-mixed"."""
    criterion: str = LOSS
    dev_fingerprint: str = ""
    """Of the rows of the dev part; empty for a validation loss."""

    @cached_property
    def key(self) -> str:
        """Names the search."""
        return content_key(dataclasses.asdict(self))


@dataclass(frozen=True)
class Trial:
    """One training of a search, or one of its models on test data."""

    search: Search
    rate: float
    seed: int
    score: float | None
    """Mean chance-centred score over tasks, 1 at most; or a validation loss in nats a token with a minus sign. None
    where training failed."""
    by_task: dict[str, float]
    """Task -> chance-centred score."""
    reason: str
    """Why it failed."""
    seconds: float
    """Of training and scoring, with those of earlier sittings of the training."""
    threads: int
    commit: str
    time: str

    @property
    def row(self) -> dict[str, Any]:
        """Returns it as a line of a file holds it."""
        return dataclasses.asdict(self)


def read_trials(path: Path) -> list[Trial]:
    """Returns the trials of a file, without those that an earlier protocol made.

    Raises:
        UntrustedRecord: a line is no trial, or has another score for one that stands above it (with its number).
    """
    found: dict[str, list[Trial]] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        if (trial := _trial(row, path, number)) is not None:
            known = found.setdefault(trial.search.key, [])
            _check_once(trial, known, path, number)
            known.append(trial)
    return [trial for of in found.values() for trial in of]


def _check_once(trial: Trial, known: Sequence[Trial], path: Path, number: int) -> None:
    if any((of.rate, of.seed) == (trial.rate, trial.seed) and of.score != trial.score for of in known):
        raise UntrustedRecord(
            f"Line {number} of `{path.name}` has another score for a trial that stands above it: "
            f"{trial.search.method} at {trial.rate:g}, seed {trial.seed}. Remove one of the two."
        )


def _trial(row: dict[str, Any], path: Path, number: int) -> Trial | None:
    if "search" not in row and "loss" in row:
        return None
    try:
        trial = from_plain(Trial, row)
        if not trial.rate > 0 or (trial.score is not None and trial.score > 1):
            raise ValueError(f"it says rate {trial.rate:g}, score {trial.score}.")
    except (FieldError, TypeError, ValueError) as error:
        raise UntrustedRecord(f"Line {number} of `{path.name}` is no trial: {error} Remove that line.") from error
    return trial


class TrialFile:
    """The trials of a file by search, to which several processes append; reading it again reads the new lines alone."""

    def __init__(self, path: Path) -> None:
        """Reads nothing yet."""
        self.path = path
        self._end, self._lines = 0, 0
        self._found: dict[str, list[Trial]] = {}

    def read(self) -> TrialFile:
        """Reads what was appended and returns itself; raises as `read_trials` does. A torn last line is left."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < self._end:
            self._end, self._lines, self._found = 0, 0, {}
        if size == self._end:
            return self
        with self.path.open("rb") as stream:
            stream.seek(self._end)
            whole = stream.read().rpartition(b"\n")[0]
        for line in whole.splitlines():
            self._lines += 1
            try:
                row = loads(line)
            except ValueError as error:
                told = f"Line {self._lines} of `{self.path.name}` is damaged: {error}. Remove that line."
                raise UntrustedRecord(told) from error
            if (trial := _trial(row, self.path, self._lines)) is not None:
                known = self._found.setdefault(trial.search.key, [])
                _check_once(trial, known, self.path, self._lines)
                known.append(trial)
        self._end += len(whole) + bool(whole)
        return self

    @property
    def trials(self) -> list[Trial]:
        """Returns all of them, search by search."""
        return [trial for of in self._found.values() for trial in of]

    def scores(self, search: Search) -> Scores:
        """Returns (rate, seed) -> score of a search."""
        return {(trial.rate, trial.seed): trial.score for trial in self._found.get(search.key, ())}


def scores_of(trials: Sequence[Trial], search: Search) -> Scores:
    """Returns (rate, seed) -> score of a search."""
    return {(trial.rate, trial.seed): trial.score for trial in trials if trial.search == search}


def by_search(trials: Sequence[Trial]) -> dict[str, Scores]:
    """Returns key of a search -> its scores."""
    found: dict[str, dict[tuple[float, int], float | None]] = {}
    for trial in trials:
        found.setdefault(trial.search.key, {})[trial.rate, trial.seed] = trial.score
    return dict(found)
