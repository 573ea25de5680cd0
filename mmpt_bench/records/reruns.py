"""Trainings that were made again: how far apart the scores of one recipe and seed are, on other machines or threads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.words import counted
from mmpt_bench.records.record import Record

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rerun:
    """One recipe and seed, trained twice, on the tasks of one suite that both were asked alike."""

    run: str
    method: str
    seed: int
    suite: str
    here: str
    """What the first was trained on: threads, processor, version of torch."""
    there: str
    tasks: int
    score_here: float
    """Mean over tasks of (score − chance) / (ceiling − chance)."""
    score_there: float
    largest: float
    """The largest difference of a task's part in it, without sign."""
    answers_differ: float
    """Share of all answers that are another."""

    @property
    def difference(self) -> float:
        """Returns by how much the second is above the first."""
        return self.score_there - self.score_here


@dataclass(frozen=True)
class Reruns:
    """All trainings that two results folders both made."""

    rows: tuple[Rerun, ...]

    @property
    def sd(self) -> float:
        """Returns the standard deviation of one training's overall score about that of its recipe and seed.

        √(Σ d² / 2n) of n pairs with difference d: each pair is two draws.
        """
        return math.sqrt(sum(row.difference**2 for row in self.rows) / (2 * len(self.rows)))

    @property
    def table(self) -> pd.DataFrame:
        """A row a training."""
        import pandas as pd

        return pd.DataFrame([vars(row) | {"difference": row.difference} for row in self.rows])

    @property
    def markdown(self) -> str:
        """The same as a table in Markdown, in percentage points, with one sentence below."""
        lines = [
            "| Run | Suite | Trained on | Again on | Tasks | Overall | Again | Differ | Of a task | Other answers |",
            "|---|---|---|---|--:|--:|--:|--:|--:|--:|",
        ]
        for row in self.rows:
            shares = f"{row.score_here:.1%} | {row.score_there:.1%} | {100 * row.difference:+.1f}"
            what = f"{row.method}, seed {row.seed} (`{row.run}`) | {row.suite}"
            cells = f"{what} | {row.here} | {row.there} | {row.tasks} | {shares}"
            lines.append(f"| {cells} | {100 * row.largest:.1f} | {row.answers_differ:.1%} |")
        n, most = len({row.run for row in self.rows}), max(abs(row.difference) for row in self.rows)
        equal = sum(not row.answers_differ and not row.largest for row in self.rows)
        rows = "" if n == len(self.rows) else f", {counted(len(self.rows), 'row')}"
        told = (
            f"{counted(n, 'training')} made twice{rows}, {equal} with equal answers. Overall, they differ by "
            f"{100 * most:.1f} points"
        )
        told += " at most"
        return "\n".join([*lines, "", f"{told}; the standard deviation of a rerun is {100 * self.sd:.1f} points."])


def reruns(first: Iterable[Record], second: Iterable[Record]) -> Reruns:
    """Returns the trainings of one recipe and seed that two folders' records are of, in the order of `first`.

    Raises:
        RequestError: there is none, or one folder is a copy of the other.
    """
    known = {record.eval_key: record for record in second if _counts(record)}
    pairs: dict[tuple[str, str], dict[str, tuple[Record, Record]]] = {}
    copies = 0
    for record in first:
        other = known.get(record.eval_key)
        if other is None or not _counts(record):
            continue
        if record.attempt == other.attempt and (record.attempt or record.time == other.time):
            copies += 1
            continue
        of_run = pairs.setdefault((record.run, record.track), {})
        # Of a task whose replies several parse rules read, the result that they were given for.
        if record.task not in of_run or not record.replies_key:
            of_run[record.task] = record, other
    if not pairs:
        why = f" {counted(copies, 'result is', 'results are')} a copy." if copies else ""
        raise RequestError(f"The two folders have no training in common that was made twice.{why}")
    return Reruns(tuple(_rerun(list(both.values())) for both in pairs.values()))


def _counts(record: Record) -> bool:
    """Returns whether a record is of a training that ended, with a score that has a chance and a ceiling."""
    return record.status == "ok" and record.trainable > 0 and None not in (record.score, record.chance, record.ceiling)


def _rerun(both: list[tuple[Record, Record]]) -> Rerun:
    record, other = both[0]
    here, there = ([_centred(pair[side]) for pair in both] for side in (0, 1))
    answers = [zip(a.parsed_choices, b.parsed_choices, strict=True) for a, b in both]
    differ = [x != y for pairs in answers for x, y in pairs]
    changed = ", ".join(f"{name}={value}" for name, value in sorted((record.changed or {}).items()))
    return Rerun(
        record.run,
        f"{record.method} ({changed})" if changed else record.method,
        record.seed,
        record.suite,
        _where(record),
        _where(other),
        len(both),
        sum(here) / len(here),
        sum(there) / len(there),
        max(abs(a - b) for a, b in zip(here, there, strict=True)),
        sum(differ) / len(differ) if differ else 0.0,
    )


def _centred(record: Record) -> float:
    score, chance, ceiling = record.score, record.chance, record.ceiling
    assert score is not None
    assert chance is not None
    assert ceiling is not None
    return (score - chance) / (ceiling - chance)


def _where(record: Record) -> str:
    known: dict[str, Any] = record.environment
    threads = record.threads or str(known.get("threads", "?"))
    torch = known.get("versions", {}).get("torch", "?")
    return f"{threads} {'thread' if threads == '1' else 'threads'}, {known.get('processor', '?')}, torch {torch}"
