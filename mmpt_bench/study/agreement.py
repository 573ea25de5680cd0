"""`mmpt-bench judged`: how often a judge says what a literal score or a person says of the same answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.board.rescoring import Samples, known_tasks, rescored
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import read_jsonl
from mmpt_bench.data.text_files import json_rows, text_of
from mmpt_bench.evaluation.counting import choices_from
from mmpt_bench.evaluation.declared import DeclaredMetric
from mmpt_bench.evaluation.metrics import Declared
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.judging import judged_file, known_verdicts

if TYPE_CHECKING:
    import pandas as pd

HUMAN = "human"


@dataclass(frozen=True)
class Agreement:
    """A judge beside another verdict, on the answers of one run to one task that both graded."""

    task: str
    method: str
    seed: int
    judge: str
    beside: str
    """A literal score of the task, or "human"."""
    n: int
    """Answers with both verdicts; 0 where there is none, and nothing else is known."""
    unread: int
    """Verdicts of the judge that could not be read."""
    judge_right: float | None
    """Share of the answers that the judge calls right: half of its scale or more."""
    other_right: float | None
    agree: float | None
    """Share of equal verdicts."""
    kappa: float | None
    """Cohen's; None where it is undefined, as both always say the same one thing."""


@dataclass(frozen=True)
class Agreements:
    """How judges agree with literal scores and with people."""

    rows: tuple[Agreement, ...]

    @property
    def table(self) -> pd.DataFrame:
        """A row a task, run and what the judge is beside."""
        import pandas as pd

        columns = [field.name for field in dataclasses.fields(Agreement)]
        return pd.DataFrame(self.lines, columns=columns)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The same as plain values."""
        return [dataclasses.asdict(row) for row in self.rows]


def agreements(store: Store, human: Path | None = None) -> Agreements:
    """Returns how the judges of a results folder agree with the literal scores of their tasks.

    Args:
        store: the results folder.
        human: a file of JSON lines, {"key": KEY, "grade": NUMBER}, with keys of the files in `judged/`.

    Raises:
        RequestError: nothing is judged there, or the file is no file of grades, or none of its keys is known.
        UntrustedRecord: a record contradicts its own values.
    """
    records = [r for r in store.records() if r.status == "ok" and r.asking.get("judge") and r.question_values]
    if not records:
        raise RequestError(f"Nothing in `{store.root}` was scored by a judge: docs/extending.md says how.")
    given = None if human is None else _human(human)
    rows = tuple(row for record in records for row in _of_record(store, record, given))
    if given is not None and not any(row.n for row in rows if row.beside == HUMAN):
        raise RequestError(f"`{human}` grades none of the answers that were judged: its keys are those of `judged/`.")
    return Agreements(rows)


def _human(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise RequestError(f"There is no file `{path}` of grades.")

    def is_grade(grade: Any) -> bool:
        return isinstance(grade, int | float) and not isinstance(grade, bool)

    rows = [row for row in json_rows(text_of(path), path)[0] if "grade" in row[1]]
    return known_verdicts(path, rows, "grade", is_grade, "NUMBER")


def _of_record(store: Store, record: Record, human: Mapping[str, float] | None) -> Iterator[Agreement]:
    samples, task = Samples(store), known_tasks({}, [record])[record.task]
    assert isinstance(task.metric, DeclaredMetric)
    rescored(record, task, samples)
    values: dict[str, Any] = json.loads(record.question_values)
    judge = record.asking["judge"]
    name = str(record.declared.get("judged", ""))
    if name not in values:
        raise UntrustedRecord(
            f"The record of `{record.task}` in `{record.run}` does not say which score is its judge's."
        )
    verdicts = _right(values[name], task.metric.declared(name))
    others = {
        other: _right(each, task.metric.declared(other))
        for other, each in values.items()
        if other != name and isinstance(each, list)
    }
    if human is not None:
        known = samples(record.samples)
        rows = read_jsonl(judged_file(store, record.task, judge, record.data_fingerprint))
        keys = {(one, row.get("reply")): row.get("key", "") for row in rows for one in row.get("ids", ())}
        said = zip(known, choices_from(known, record.parsed_choices), strict=True)
        grades = [human.get(keys.get((sample.id, answer), "")) for sample, answer in said]
        others[HUMAN] = _right(grades, task.metric.declared(name))
    for other, theirs in others.items():
        yield _compared(record, other, verdicts, theirs)


def _right(values: Sequence[float | None], of: Declared) -> list[bool | None]:
    """Returns whether each value is in the upper half of its range."""
    return [None if value is None else value >= (of.low + of.high) / 2 for value in values]


def _compared(record: Record, beside: str, judge: Sequence[bool | None], other: Sequence[bool | None]) -> Agreement:
    both = [(a, b) for a, b in zip(judge, other, strict=True) if a is not None and b is not None]
    found = Agreement(
        record.task, record.method, record.seed, record.asking["judge"]["model"], beside, len(both),
        record.n_unjudged or 0, None, None, None, None,
    )  # fmt: skip
    if not both:
        return found
    n = len(both)
    ours, theirs, agree = sum(a for a, _ in both) / n, sum(b for _, b in both) / n, sum(a == b for a, b in both) / n
    by_chance = ours * theirs + (1 - ours) * (1 - theirs)
    kappa = None if by_chance == 1 else (agree - by_chance) / (1 - by_chance)
    return dataclasses.replace(found, judge_right=ours, other_right=theirs, agree=agree, kappa=kappa)
