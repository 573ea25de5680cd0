"""Scores anew from what a record stores, its answers and its samples: a table never trusts a number it can check."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.hashing import content_key
from mmpt_bench.common.values import FieldError, from_plain
from mmpt_bench.data.samples import Decode, Sample
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.counting import Sheet
from mmpt_bench.evaluation.declared import OWN, Values, ValuesSheet, declared_task
from mmpt_bench.evaluation.scoring import figures
from mmpt_bench.evaluation.task import OFFICIAL, Task
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.keys import UNKNOWN, train_key
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.record import Record, asked_with
from mmpt_bench.records.store import Store
from mmpt_bench.stats.resampling import Tally

TOLERANCE = 1e-9
"""Relative: sums of the same counts in another order; a wrong answer moves a score by 1e-5 of the ceiling or more."""
K = TypeVar("K")


@dataclass(frozen=True)
class Rescored:
    """A record, and its figures under the decoding that its score is of."""

    record: Record
    values: dict[str, float]
    """Every figure that is defined."""
    sheet: Sheet
    """Of the task's samples."""
    headline: Sheet
    """The same for what the headline figure is made from."""

    @property
    def tally(self) -> Tally:
        """Returns the counts, made anew each time: those of a thousand runs would fill the memory."""
        return self.sheet.counted(self.sheet.codes(counted_of(self.record, self.sheet)))

    @property
    def headline_tally(self) -> Tally:
        """Returns the counts that the headline is resampled from."""
        return self.headline.counted(self.headline.codes(counted_of(self.record, self.headline)))


def counted_of(record: Record, sheet: Sheet) -> str:
    """Returns what a sheet counts of a record, as text: its answers, or the values that it declares."""
    return record.question_values if isinstance(sheet, ValuesSheet) else answers_of(record)


def answers_of(record: Record) -> str:
    """Returns the answers that a record's score is of, as text."""
    return record.parsed_choices if record.decode == "generate" else record.ranked_choices


def check_track(record: Record) -> None:
    """Refuses a record whose track is not that of its backbone, corpus, budget, dtype and suite (UntrustedRecord)."""
    is_known = record.corpus_fingerprint != UNKNOWN
    try:
        from_plain(Budget, record.budget if is_known else {})
    except FieldError as error:
        raise UntrustedRecord(f"A record of `{record.run}` has a budget that can be none: {error}") from error
    if record.setting_key != record.track:
        also = f"dtype{', suite and what it was asked with' if record.asking else ' and suite'}"
        raise UntrustedRecord(
            f"A record of `{record.run}` says it belongs to track `{record.track}`, but its backbone, corpus, budget, "
            f"{also} make `{record.setting_key}`: it was changed. Run it again."
        )
    recipe = {field.name: getattr(record, field.name) for field in dataclasses.fields(Recipe)}
    recipe["budget"] = record.own_budget
    if is_known and (train_key(recipe), f"{record.method}-{record.train_key}") != (record.train_key, record.run):
        raise UntrustedRecord(
            f"A record of `{record.run}` is of other hyperparameters, data or seed than its key says: it was changed. "
            "Run it again."
        )


def known_tasks(tasks: Mapping[str, Task], records: Sequence[Record]) -> dict[str, Task]:
    """Returns tasks with those of users' own files, made of what the latest record of each declares.

    A built-in task is never one of these, whatever a record declares under its name.

    A task that was loaded from its file counts anew where its metric is one that a record cannot declare.
    """
    latest: dict[str, Record] = {}
    built_in = task_catalog.task_entries()
    for record in sorted(records, key=lambda record: (record.time, record.eval_key)):
        if record.declared and record.task not in built_in:
            latest[record.task] = record
    found = dict(tasks)
    for name, record in sorted(latest.items()):
        if name not in tasks or record.declared.get("metric") != OWN:
            found[name] = declared_task(name, record.task_version, _decode(record), record.declared)
        # A declaration names the rule of its record; one that was read by the own rule of its task tells that.
        if any(each.task == name and each.parse_rule == OFFICIAL for each in records):
            found[name] = dataclasses.replace(found[name], rule=OFFICIAL)
    return found


def other_rule(record: Record, tasks: Mapping[str, Task]) -> str:
    """Returns the parse rule of a record; empty where it is its task's own."""
    is_own = record.task not in tasks or record.parse_rule == tasks[record.task].rule
    return "" if is_own else record.parse_rule


def _decode(record: Record) -> Decode:
    return "rank" if record.decode == "rank" else "generate"


def edition(record: Record) -> tuple[str, ...]:
    """Returns what two results of a task must share to be compared: data, split, decoding, samples and parse rule.

    Of a user's own task also what it declares, its file's hash among it.
    """
    file = str(record.declared.get("file", ""))[:8]
    own = f"task file {file}, declaring {content_key([record.declared], 8)}, " if record.declared else ""
    return record.data_fingerprint, record.split, decoding(record), record.samples, own, record.parse_rule


def decoding(record: Record) -> str:
    """Returns how answers were made: "generate" or "rank", what stood before questions, close calls left alone."""
    before = asked_with(record.asking)
    return record.decode + (f", {before}" if before else "") + ("" if record.guard else ", close calls not asked again")


def one_edition(records: Sequence[Record], tasks: Mapping[str, Task]) -> tuple[list[Record], list[str]]:
    """Returns the records that can stand in one table, and what was left out and why.

    Of each task the current version counts, and of its editions the one that most records are of; of a user's own
    task, the latest. Records that were read by different parse rules are no matter of this: they never meet.
    """
    kept: list[Record] = []
    left_out: list[str] = []
    for name, group in sorted(by(records, [record.task for record in records]).items()):
        if name not in tasks:
            left_out.append(f"{len(group)} of `{name}`: there is no such task here, so they cannot be scored again.")
            continue
        now = [record for record in group if record.task_version == tasks[name].version]
        if len(now) < len(group):
            old = sorted({record.task_version for record in group} - {tasks[name].version})
            numbers = ", ".join(str(version) for version in old)
            left_out.append(
                f"{len(group) - len(now)} of `{name}` at version {numbers}: it is at version "
                f"{tasks[name].version} now. Run them again."
            )
        editions = sorted(by(now, [edition(record) for record in now]).items(), key=lambda e: (-len(e[1]), e[0]))
        editions.sort(key=lambda e: max(r.time for r in e[1] if r.declared) if e[1][0].declared else "", reverse=True)
        for number, (key, of_edition) in enumerate(editions):
            if number == 0:
                kept += of_edition
            else:
                main = editions[0][0]
                other = "on other data or asked otherwise"
                if key[-2] != main[-2]:
                    other = "of another file, or declaring other scores"
                left_out.append(
                    f"{len(of_edition)} of `{name}` {other}: {_edition_text(key)}; shown are those of "
                    f"{_edition_text(main)}."
                )
    return kept, left_out


def rescored(record: Record, task: Task, samples: Samples) -> Rescored:
    """Returns a record with its figures, made from its stored answers.

    Raises:
        UntrustedRecord: they do not give the score that the record says, or do not fit its samples.
    """
    if record.score is None:
        raise UntrustedRecord(f"The record of `{record.task}` in `{record.run}` has no score and no reason for that.")
    if record.decode not in ("generate", "rank"):
        raise UntrustedRecord(f"The record of `{record.task}` in `{record.run}` has no decoding `{record.decode}`.")
    sheet, headline = samples.sheets(record.samples, task)
    counted = counted_of(record, sheet)
    if record.declared:
        _check_declared(record, sheet.codes(counted) if isinstance(sheet, ValuesSheet) else {})
    texts = {counted} if isinstance(sheet, ValuesSheet) else {record.parsed_choices, record.ranked_choices} - {""}
    found: dict[str, dict[str, float]] = {"": {}}
    found |= {text: figures(task, sheet.sums(sheet.codes(text)), sheet.columns) for text in texts}
    claims: list[tuple[str, float | None, str]] = [("score", record.score, counted)]
    if isinstance(sheet, ValuesSheet):
        claims += [("strict", record.strict, counted)] if record.decode == "generate" else []
        claims += [("constrained", record.constrained, counted)] if record.decode == "rank" else []
    else:
        claims += [("strict", record.strict, record.parsed_choices)]
        claims += [("constrained", record.constrained, record.ranked_choices)]
    for name, said, text in claims:
        is_so = found[text].get(task.headline)
        if said != is_so and (said is None or is_so is None or abs(said - is_so) > TOLERANCE * max(1.0, abs(is_so))):
            raise UntrustedRecord(
                f"`{record.run}` says that its {name} on `{record.task}` is {said}, but its answers give {is_so}. "
                "Remove that line of its records.jsonl and run it again."
            )
    return Rescored(record, found[counted], sheet, headline)


def _check_declared(record: Record, values: Values) -> None:
    """Refuses a record that contradicts what it declares, or its values of questions (UntrustedRecord)."""
    claims = {name: (getattr(record, name), record.declared.get(name)) for name in ("headline", "chance", "ceiling")}
    unread = sum(value is None for each in values.values() if isinstance(each, list) for value in each)
    claims["number of unreadable verdicts"] = record.n_unjudged, unread
    for name, (said, is_so) in claims.items():
        if said not in (None, is_so):
            raise UntrustedRecord(
                f"`{record.run}` says that the {name} of `{record.task}` is {said!r}; its other fields say {is_so!r}. "
                "It was changed: run it again."
            )


class Samples:
    """The samples files of a store, each read, verified and coded once."""

    def __init__(self, store: Store) -> None:
        """Reads nothing yet."""
        self._store = store
        self._known: dict[str, list[Sample]] = {}
        self._sheets: dict[tuple[str, str], tuple[Sheet, Sheet]] = {}

    def __call__(self, name: str) -> list[Sample]:
        """Returns the samples of a file; raises as `Store.read_samples` does."""
        if name not in self._known:
            self._known[name] = self._store.read_samples(name)
        return self._known[name]

    def sheets(self, name: str, task: Task) -> tuple[Sheet, Sheet]:
        """Returns the sheet of a file's samples, and the one that the headline figure is resampled from."""
        if (name, task.name) not in self._sheets:
            try:
                sheet = task.metric.coded(self(name))
            except (ValueError, KeyError) as error:
                raise UntrustedRecord(f"The samples of `{task.name}` are not such as its metric counts.") from error
            needed = task.metric.needs(task.headline, sheet.columns)
            self._sheets[name, task.name] = sheet, sheet.narrowed(needed)
        return self._sheets[name, task.name]


def by(records: Sequence[Record], keys: Sequence[K]) -> dict[K, list[Record]]:
    """Returns the records of each key, in order of appearance."""
    found: dict[K, list[Record]] = {}
    for record, key in zip(records, keys, strict=True):
        found.setdefault(key, []).append(record)
    return found


def _edition_text(key: tuple[str, ...]) -> str:
    fingerprint, split, decode, samples, own, rule = key
    return f"{own}data {fingerprint[:12]}, split {split}, decoding {decode}, samples {samples}, parse rule {rule}"
