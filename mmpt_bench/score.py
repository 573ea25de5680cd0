"""Answers made elsewhere, scored: the questions they are to, what of the official split is missing, every figure.

The same parse rules, metrics and intervals as a run's. Where a file says what was asked, its own questions and labels
are taken; with the official rows (`--data`), each answer is matched to a row and the file's labels are checked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt_bench.answers import Answer, Answers
from mmpt_bench.errors import RequestError
from mmpt_bench.scoring import DEGENERATE, figures
from mmpt_bench.source import NO_PICTURE
from mmpt_bench.stats import Interval, cluster_bootstrap
from mmpt_bench.tables import NAMED, bad_rows
from mmpt_bench.task import Sample, Tally, Task

NO_NUMBER = -1
"""Given to a row whose number is not known: a sample that takes its id from it is called so."""


@dataclass(frozen=True)
class Scorecard:
    """What a file of answers is worth."""

    task: str
    title: str
    form: str
    """The form the answers came in."""
    rule: str
    """Name of the parse rule."""
    n: int
    n_pictures: int | None
    """None where the file does not say which questions share a picture."""
    n_unparsed: int
    """Replies that give no legal answer."""
    headline: str
    unit: str
    ceiling: float
    chance: float
    values: dict[str, float]
    """Every figure that is defined: fractions, and points where the benchmark counts points."""
    intervals: dict[str, Interval]
    """95 %, from resampling pictures; empty where the pictures are not known."""
    counts: dict[str, float]
    """What the figures are made of, summed: "right/count", "TP/random"."""
    missing: tuple[str, ...]
    """What of the official split is not there; empty for a whole one."""
    notes: tuple[str, ...] = field(default=())

    @property
    def comparable(self) -> bool:
        """Returns whether the headline figure is one of the official split, and so comparable with published ones."""
        return not self.missing


def score_answers(task: Task, given: Answers, official: Sequence[Sample] | None = None) -> Scorecard:
    """Returns the figures of answers made elsewhere, under the task's parse rule.

    Args:
        given: the answers, from `read_answers`.
        official: the samples of the official split, to match the answers to; by default the file's own words count.

    Raises:
        RequestError: a line that does not say what it answers, an id with two replies, a label that is not the official
            one, an answer to no official question, or an MME picture with one question.
    """
    notes = list(given.notes)
    if official is None:
        samples, pictures_known = _own_samples(task, given)
    else:
        samples, pictures_known = _matched(task, given, official), True
    samples, replies, repeated = _once(samples, given)
    if repeated:
        notes.append(f"{repeated:,} lines repeat another one to the letter, and count once")
    choices = [task.parse(reply, sample.choices) for sample, reply in zip(samples, replies, strict=True)]
    try:
        tally = task.metric.tally(samples, choices)
    except ValueError as error:
        raise RequestError(f"These answers cannot be scored as {task.title}: {error}.") from error
    values = figures(task, tally.counts.sum(axis=0), tally.columns)
    if not pictures_known:
        notes.append("the file does not say which questions share a picture, so that there are no intervals")
    if (share := _most_said(choices)) > DEGENERATE:
        notes.append(f"degenerate: {share:.1%} of the answers are the same")
    return Scorecard(
        task=task.name,
        title=task.title,
        form=given.form,
        rule=task.rule,
        n=len(samples),
        n_pictures=len(set(tally.clusters)) if pictures_known else None,
        n_unparsed=sum(not task.reads(reply, s.choices) for reply, s in zip(replies, samples, strict=True)),
        headline=task.headline,
        unit=task.unit,
        ceiling=task.metric.ceiling(samples),
        chance=task.metric.chance(samples),
        values=values,
        intervals=cluster_bootstrap(tally, task.metric.values) if pictures_known else {},
        counts=_counts(tally),
        missing=tuple(_missing(task, samples, official)),
        notes=tuple(notes),
    )


def _own_samples(task: Task, given: Answers) -> tuple[list[Sample], bool]:
    """Returns the samples that the lines themselves describe, and whether all of them name their pictures."""
    made, faults, known = [], [], True
    names_pictures = task.pictures is not None and task.pictures.column != task.image_column
    for position, answer in enumerate(given.answers):
        row = _as_row(task, answer)
        if names_pictures and task.pictures is not None and not row.get(task.pictures.column):
            row[task.pictures.column] = f"unknown {position}"
            known = False
        try:
            made.append(task.sample(row, position if answer.number is None else answer.number, task.classes))
        except ValueError as error:
            faults.append(f"{answer.where}: {error}")
    if faults:
        advice = "With `--data DIR`, the official rows say what a line does not."
        raise bad_rows(f"this {given.form} file", "lines do not say what they answer", faults, advice)
    return made, known


def _matched(task: Task, given: Answers, official: Sequence[Sample]) -> list[Sample]:
    """Returns the official sample of each answer, by row number, by id, or by group, picture and question."""
    by_id = {sample.id: sample for sample in official}
    by_words: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
    for each in official:
        by_words[_words(each)].append(each)
    found: list[Sample] = []
    strangers: list[str] = []
    contradictions: list[str] = []
    for answer in given.answers:
        matched = _match(task, given.form, answer, official, by_id, by_words)
        if matched is None:
            strangers.append(answer.where)
            continue
        sample = matched
        said = _label(task, answer)
        if said is not None and said != sample.answer.lower():
            contradictions.append(f"{answer.where} says `{said}`, `{sample.id}` is `{sample.answer}`")
        found.append(sample)
    if strangers:
        advice = "Answers to another release can be scored without `--data`, by their own words."
        raise bad_rows("these answers", "lines belong to no row of the official split", strangers, advice)
    if contradictions:
        raise bad_rows("these answers", "labels are not the official ones", contradictions)
    return found


def _match(
    task: Task,
    form: str,
    answer: Answer,
    official: Sequence[Sample],
    by_id: Mapping[str, Sample],
    by_words: Mapping[tuple[str, str, str], list[Sample]],
) -> Sample | None:
    """Returns the official sample that a line answers; None where it cannot be told, or two things it says differ."""
    try:
        own = task.sample(_as_row(task, answer), NO_NUMBER, task.classes)
    except ValueError:
        own = None
    is_numbered = own is None or own.id == str(NO_NUMBER)
    if answer.number is not None and (form == "lmms-eval" or is_numbered):
        sample = official[answer.number] if 0 <= answer.number < len(official) else None
        if sample is None or own is None or own.cluster == str(NO_NUMBER):
            return sample
        return sample if _words(own)[:2] == _words(sample)[:2] else None
    if own is None:
        return None
    same = by_words.get(_words(own), [])
    return by_id.get(own.id) or (same[0] if len(same) == 1 else None)


def _as_row(task: Task, answer: Answer) -> dict[str, Any]:
    """Returns a line as a row of the hub's: pictures stand in, and a class's name becomes its number."""
    row = dict(answer.row)
    names = [name.lower() for name in task.classes]
    column = task.label_column
    if column is not None and names:
        value = row.get(column, row.get("answer"))
        if isinstance(value, str):
            text = value.strip().lower()
            text = {"yes": "true", "no": "false"}.get(text, text) if set(names) == {"true", "false"} else text
            row[column] = names.index(text) if text in names else int(text) if text.isdigit() else value
    if isinstance(row.get("question_id"), int):
        row["question_id"] = str(row["question_id"])
    return row | {task.image_column: NO_PICTURE}


def _words(sample: Sample) -> tuple[str, str, str]:
    """Returns what two writings of one question share: group, the picture's bare name, and the words."""
    return sample.group, Path(sample.cluster).stem, " ".join(sample.question.lower().split())


def _label(task: Task, answer: Answer) -> str | None:
    """Returns the right answer that a line gives, lower-cased; None where it gives none."""
    row = _as_row(task, answer)
    value = row.get(task.label_column) if task.label_column else row.get("answer")
    if isinstance(value, int) and task.classes and 0 <= value < len(task.classes):
        return task.classes[value].lower()
    return value.strip().lower() if isinstance(value, str) else None


def _once(samples: Sequence[Sample], given: Answers) -> tuple[list[Sample], list[str], int]:
    """Returns each sample once with its reply, and how many lines repeated another; refuses two replies to one."""
    kept: dict[str, tuple[Sample, Answer]] = {}
    faults = []
    for sample, answer in zip(samples, given.answers, strict=True):
        known = kept.setdefault(sample.id, (sample, answer))
        if known[1].reply != answer.reply or known[0].answer != sample.answer:
            faults.append(f"`{sample.id}` in {known[1].where} and {answer.where}")
    if faults:
        raise bad_rows("these answers", "ids are there more than once with different content", faults)
    pairs = list(kept.values())
    return [s for s, _ in pairs], [a.reply for _, a in pairs], len(samples) - len(pairs)


def _missing(task: Task, samples: Sequence[Sample], official: Sequence[Sample] | None) -> list[str]:
    """Returns what the official split has and these samples have not, or the other way round, in words."""
    if official is not None:
        there = {sample.id for sample in samples}
        absent = [sample for sample in official if sample.id not in there]
        if not absent:
            return _counted(task, samples)
        groups = Counter(sample.group for sample in absent)
        whole = Counter(sample.group for sample in official)
        told = [f"{group or task.title}: {n:,} of {whole[group]:,} missing" for group, n in groups.items()]
        named = ", ".join(f"`{sample.id}`" for sample in absent[:NAMED])
        return [*told, f"first {min(NAMED, len(absent))} of {len(absent):,}: {named}"]
    return _counted(task, samples)


def _counted(task: Task, samples: Sequence[Sample]) -> list[str]:
    """Returns where numbers of questions are not those of the official split."""
    there = Counter(sample.group for sample in samples)
    told = [f"{g}: {there[g]:,} of {n:,} questions" for g, n in task.official_groups if there[g] != n]
    told += [
        f"{g}: not part of {task.title}" for g in there if task.official_groups and g not in dict(task.official_groups)
    ]
    if not told and task.official_rows not in (None, len(samples)):
        told.append(f"{len(samples):,} of {task.official_rows:,} questions")
    return told


def _counts(tally: Tally) -> dict[str, float]:
    """Returns the sums of a tally, and with them TP, FP, TN and FN where "yes" is counted as positive."""
    sums = dict(zip(tally.columns, tally.counts.sum(axis=0).tolist(), strict=True))
    for name in [column for column in tally.columns if column.startswith("tp/")]:
        group = name.removeprefix("tp/")
        tp, fp = sums[name], sums[f"fp/{group}"]
        # An unreadable answer to a "no" question is neither a true nor a false negative: it is no "no".
        sums |= {f"TP/{group}": tp, f"FP/{group}": fp, f"TN/{group}": sums[f"right/{group}"] - tp}
        sums[f"FN/{group}"] = sums[f"positive/{group}"] - tp
    return sums


def _most_said(choices: Sequence[str | None]) -> float:
    return Counter(choices).most_common(1)[0][1] / len(choices)
