"""The trials of searches, a line each: what was trained, at which rate and seed, and what it scored.

Scores on test data are in a file of their own, which no choice of a rate reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import read_jsonl
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

    @property
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
        UntrustedRecord: a line is no trial (with its number).
    """
    found = []
    for number, row in enumerate(read_jsonl(path), start=1):
        if "search" not in row and "loss" in row:
            continue
        try:
            trial = from_plain(Trial, row)
            if not trial.rate > 0 or (trial.score is not None and trial.score > 1):
                raise ValueError(f"it says rate {trial.rate:g}, score {trial.score}.")
        except (FieldError, TypeError, ValueError) as error:
            raise UntrustedRecord(f"Line {number} of `{path.name}` is no trial: {error} Remove that line.") from error
        found.append(trial)
    return found


def scores_of(trials: Sequence[Trial], search: Search) -> Scores:
    """Returns (rate, seed) -> score of a search."""
    return {(trial.rate, trial.seed): trial.score for trial in trials if trial.search == search}


def by_search(trials: Sequence[Trial]) -> dict[str, Scores]:
    """Returns key of a search -> its scores."""
    found: dict[str, dict[tuple[float, int], float | None]] = {}
    for trial in trials:
        found.setdefault(trial.search.key, {})[trial.rate, trial.seed] = trial.score
    return dict(found)
