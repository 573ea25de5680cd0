"""Which question each answer made elsewhere is to: by the file's own words, or among the official rows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.rows import NO_IMAGE
from mmpt_bench.data.samples import Sample
from mmpt_bench.data.tables import bad_rows
from mmpt_bench.evaluation.task import Task
from mmpt_bench.interop.answers.forms import LLAVA, LMMS, VLMEVALKIT, GivenAnswer, GivenAnswers, plain_words
from mmpt_bench.interop.answers.llava import mme_row, pope_samples

ASKED = ("caption", "hypothesis")
"""Columns whose text stands in the question as it is."""
NO_NUMBER = -1
"""Given to a row whose number is not known: a sample that takes its id from it is called so."""


def own_samples(task: Task, given: GivenAnswers) -> tuple[list[Sample], bool]:
    """Returns the samples that the lines themselves describe, and whether all of them name their images.

    Raises:
        RequestError: lines that do not say what they answer (first ten and count).
    """
    if given.form == LLAVA:
        raise RequestError(
            f"LLaVA's answer files hold no labels: pass the official rows of {task.title}, `--data DIR`."
        )
    made, faults, known = [], [], True
    names_pictures = task.data.images is not None and task.data.images.column != task.data.image_column
    for position, answer in enumerate(given.answers):
        try:
            row = _as_row(task, answer)
            if names_pictures and task.data.images is not None and not row.get(task.data.images.column):
                row[task.data.images.column] = f"unknown {position}"
                known = False
            made.append(task.sample(row, position if answer.number is None else answer.number, task.data.classes))
        except ValueError as error:
            faults.append(f"{answer.where}: {error}")
    if faults:
        advice = "With `--data DIR`, the official rows say what a line does not."
        raise bad_rows(
            f"this {given.form} file",
            "line does not say what it answers|lines do not say what they answer",
            faults,
            advice,
        )
    return made, known


def matched(task: Task, given: GivenAnswers, official: Sequence[Sample]) -> list[Sample]:
    """Returns the official sample of each answer, by row number, by id, or by group, image and question.

    Raises:
        RequestError: lines that belong to no official row, or whose label is not the official one.
    """
    found: list[Sample] = []
    strangers: list[str] = []
    contradictions: list[str] = []
    for answer, sample in zip(given.answers, _each_match(task, given, official), strict=True):
        said = _label(task, answer)
        if isinstance(sample, str):
            strangers.append(f"{answer.where} ({sample})")
            continue
        if said is not None and said != sample.answer.lower():
            contradictions.append(f"{answer.where} says `{said}`, `{sample.id}` is `{sample.answer}`")
        found.append(sample)
    if strangers:
        advice = "Answers to another release can be scored without `--data`, by their own words."
        raise bad_rows("these answers", "line belongs|lines belong to no row of the official split", strangers, advice)
    if contradictions:
        raise bad_rows(
            "these answers", "label is not the official one|labels are not the official ones", contradictions
        )
    return found


def _each_match(task: Task, given: GivenAnswers, official: Sequence[Sample]) -> list[Sample | str]:
    """Returns the official sample of each answer, or why there is none."""
    if given.form == LLAVA and task.name not in ("mme", "pope"):
        raise RequestError(
            f"LLaVA's answer files are read for MME and POPE, whose questions it numbers. For {task.title}, give each "
            "line the row's number as `index`."
        )
    if given.form == LLAVA and task.name == "pope":
        return pope_samples(given.answers, official)
    rows, answers = _Official(official), given.answers
    if given.form == LLAVA:
        answers = tuple(replace(each, row=mme_row(each.row)) for each in answers)
    if given.form == VLMEVALKIT:
        answers = _from_zero(task, answers, official)
    return [rows.match(task, given.form, each, _label(task, each)) for each in answers]


def _from_zero(task: Task, answers: Sequence[GivenAnswer], official: Sequence[Sample]) -> tuple[GivenAnswer, ...]:
    """Returns answers whose numbers count the official rows from 0, where their own count from 1.

    What of a question differs from row to row must stand in the line's own; where that is nothing, or nowhere to be
    found, the labels tell. Where neither way of counting fits, numbers are left out, and the line's words must do.
    """
    head = _common_start([each.question for each in official])
    tail = _common_start([each.question[::-1] for each in official])

    groups = {each.group for each in official}

    def says(answer: GivenAnswer, sample: Sample) -> bool:
        if answer.row.get("category") in groups - {"", sample.group}:
            return False
        own = plain_words(sample.question[len(head) : len(sample.question) - len(tail)]).strip(" .")
        asked = plain_words(str(answer.row.get("question") or ""))
        return bool(own) and own in asked

    numbered = [(each, each.number) for each in answers if each.number is not None]
    for by_words in (True, False):
        fitting = []
        for start in (0, 1):
            if all(0 <= number - start < len(official) for _, number in numbered):
                rows = [(each, official[number - start]) for each, number in numbered]
                told = [says(*pair) if by_words else _label(task, pair[0]) == pair[1].answer.lower() for pair in rows]
                if told and all(told):
                    fitting.append(start)
        if len(fitting) == 1 or (fitting and by_words):
            return tuple(replace(each, number=(each.number or 0) - fitting[0]) for each in answers)
    return tuple(replace(each, number=None) for each in answers)


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    same = [a == b for a, b in zip(first, last, strict=False)]
    return first[: (*same, False).index(False)]


class _Official:
    """The official samples, to be found by number, id or words."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self._by_id = {sample.id: sample for sample in samples}
        self._by_words: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
        for each in samples:
            self._by_words[_words(each)].append(each)
        self._taken: set[str] = set()

    def match(self, task: Task, form: str, answer: GivenAnswer, said: str | None) -> Sample | str:
        """Returns the sample that a line answers, or why there is none that can be told."""
        own = self._own(task, answer, said)
        is_numbered = isinstance(own, str) or own.id == str(NO_NUMBER)
        if answer.number is not None and (form == LMMS or is_numbered):
            inside = 0 <= answer.number < len(self._samples)
            if not inside:
                return f"there is no row {answer.number}"
            sample = self._samples[answer.number]
            if any(words not in plain_words(sample.question) for words in _asked(answer)):
                return f"row {answer.number} asks something else"
            if isinstance(own, str) or own.cluster == str(NO_NUMBER) or _words(own)[:2] == _words(sample)[:2]:
                return sample
            return f"row {answer.number} is of another image or subtask"
        if isinstance(own, str):
            return own
        named = self._by_id.get(own.id)
        return named if named and _words(named) == _words(own) else self._same_words(own, said)

    def _own(self, task: Task, answer: GivenAnswer, said: str | None) -> Sample | str:
        """Returns the sample that a line describes, or what it lacks.

        A label that it lacks is made up, since nobody looks at it.
        """
        try:
            row = _as_row(task, answer)
            if said is None:
                row[task.data.label_column or "answer"] = 0 if task.data.label_column else self._samples[0].answer
            return task.sample(row, NO_NUMBER, task.data.classes)
        except ValueError as error:
            return str(error)

    def _same_words(self, own: Sample, said: str | None) -> Sample | str:
        """Returns a sample of the same words: of several with one answer the first that no line had yet."""
        same = self._by_words.get(_words(own), [])
        fits = [sample for sample in same if said in (None, sample.answer.lower())] or same
        if len({sample.answer for sample in fits}) != 1:
            return "several rows with different labels fit" if fits else "no row has this image and question"
        chosen = next((sample for sample in fits if sample.id not in self._taken), fits[0])
        self._taken.add(chosen.id)
        return chosen


def _as_row(task: Task, answer: GivenAnswer) -> dict[str, Any]:
    """Returns a line as a row of the hub's: images stand in, and a class's name becomes its number.

    Raises:
        ValueError: the line is in the task's other form, and holds a bad value.
    """
    row = dict(answer.row)
    column = task.data.label_column
    is_raw = task.data.raw is not None and set(task.data.raw.columns) <= row.keys()
    if column is not None and task.data.classes:
        value = row.get(column, None if is_raw else row.get("answer"))
        if isinstance(value, str):
            row[column] = _class_number(task, value)
    if task.data.raw is not None and is_raw:
        raw = task.data.raw.row(row)
        if clash := next((name for name in raw if row.get(name, raw[name]) != raw[name]), None):
            raise ValueError(f"`{clash}` and the line's other form ({', '.join(task.data.raw.columns)}) differ")
        row = raw | row
    value = row.get("question_id")
    number = re.fullmatch(r"([0-9]+)\.0*", str(value), re.ASCII) if isinstance(value, str | float) else None
    if number or isinstance(value, int):
        row["question_id"] = number[1] if number else str(value)
    return row | {task.data.image_column: NO_IMAGE}


def _class_number(task: Task, text: str) -> int | str:
    """Returns the number of a class by its name or by its digits; the text as it is where it is neither."""
    names = [name.lower() for name in task.data.classes]
    name = text.strip().lower()
    name = {"yes": "true", "no": "false"}.get(name, name) if set(names) == {"true", "false"} else name
    return names.index(name) if name in names else int(name) if names and name.isdigit() and len(name) < 19 else text


def _asked(answer: GivenAnswer) -> list[str]:
    """Returns the words that a line says of its question."""
    given = (answer.row.get(name) for name in ASKED)
    return [plain_words(text).rstrip(" .") for text in given if isinstance(text, str) and text.strip()]


def _words(sample: Sample) -> tuple[str, str, str]:
    """Returns what two writings of one question share: group, the image's bare name, and the words."""
    return sample.group, Path(sample.cluster).stem, plain_words(sample.question)


def _label(task: Task, answer: GivenAnswer) -> str | None:
    """Returns the right answer that a line gives, lower-cased; None where it gives none."""
    try:
        row: Mapping[str, Any] = _as_row(task, answer)
    except ValueError:
        return None
    value = row.get(task.data.label_column) if task.data.label_column else row.get("answer")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and task.data.classes and 0 <= value < len(task.data.classes):
        return task.data.classes[value].lower()
    return None if value is None else str(value).strip().lower()[:60]
