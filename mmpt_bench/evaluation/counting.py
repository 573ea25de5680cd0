"""What a task asks, coded once, so that a run's answers are counted as arrays: a thousand runs in seconds.

An answer adds one to some columns of its image's row. Which ones follows from the sample's group, choices and right
answer: samples that agree in these are of one kind, and a table says what each answer to a kind adds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.data.samples import Sample
from mmpt_bench.stats.resampling import Tally

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MAX_CHOICES = 1036
"""Choices that a question may have: ImageNet's thousand, and some."""
INDEX_CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz" + "".join(map(chr, range(0x100, 0x100 + MAX_CHOICES - 36)))
"""The index of a choice as one character, as in `Record.parsed_choices`: base 36, then the letters from U+0100 on."""
UNREADABLE = "-"
_CODES = np.full(0x10000, np.iinfo(np.int64).max, dtype=np.int64)
"""The code of each character; the largest number for what is none."""
_CODES[[ord(character) for character in UNREADABLE + INDEX_CHARACTERS]] = range(1 + MAX_CHOICES)
Adds = Callable[[Sample, str | None], Iterable[str]]
Complete = Callable[[np.ndarray], None]


def choices_text(samples: Sequence[Sample], choices: Sequence[str | None]) -> str:
    """Returns choices as one character a sample: its index, `-` where unreadable (ValueError for no choice).

    Answers to open questions, which have no choices, are a JSON list.
    """
    if is_open(samples):
        return json.dumps(list(choices), ensure_ascii=False, separators=(",", ":"))
    codes = _coded([sample.choices for sample in samples], choices)
    return "".join((UNREADABLE + INDEX_CHARACTERS)[code] for code in codes)


def choices_from(samples: Sequence[Sample], text: str) -> list[str | None]:
    """Returns the choices that `choices_text` wrote (UntrustedRecord where the text does not fit the samples)."""
    if is_open(samples):
        return _open_answers(text, len(samples))
    codes = _decoded(text, [sample.id for sample in samples], np.array([len(sample.choices) for sample in samples]))
    return [(None, *sample.choices)[code] for sample, code in zip(samples, codes, strict=True)]


def is_open(samples: Sequence[Sample]) -> bool:
    """Returns whether questions are open: without legal answers to choose from."""
    return any(not sample.choices for sample in samples)


def _open_answers(text: str, n: int) -> list[str | None]:
    try:
        answers = json.loads(text)
    except ValueError as error:
        raise UntrustedRecord("A record's answers to open questions are no JSON list.") from error
    if not isinstance(answers, list) or not all(each is None or isinstance(each, str) for each in answers):
        raise UntrustedRecord("A record's answers to open questions are no list of texts.")
    if len(answers) != n:
        raise UntrustedRecord(f"A record has {len(answers):,} answers to {n:,} samples.")
    return answers


def _coded(choices: Sequence[tuple[str, ...]], answers: Sequence[str | None]) -> list[int]:
    """Returns the code of an answer to each of some samples (ValueError for one that is none of its choices)."""
    return [0 if said is None else 1 + of.index(said) for of, said in zip(choices, answers, strict=True)]


def _decoded(text: str, ids: Sequence[str], n_choices: np.ndarray) -> np.ndarray:
    """Returns the codes, (samples,), of answers that `choices_text` wrote.

    Raises:
        UntrustedRecord: the text has not one answer a sample, or one that is none of its sample's choices.
    """
    if len(text) != len(ids):
        raise UntrustedRecord(f"A record has {len(text):,} answers to {len(ids):,} samples.")
    codes = _CODES[np.frombuffer(text.encode("utf-16-le", "replace"), dtype="<u2")]
    (wrong,) = np.nonzero(codes > n_choices)
    if len(wrong):
        sample, answer = ids[wrong[0]], text[wrong[0]]
        raise UntrustedRecord(f"A record answers sample `{sample}` with `{answer}`: that is none of its choices.")
    return codes


class Sheet(Protocol):
    """The samples of a task, ready for counting the answers of any run."""

    @property
    def clusters(self) -> tuple[str, ...]:
        """The images, one a row of the counts."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What is counted."""

    def tally(self, choices: Sequence[str | None]) -> Tally:
        """Returns the counts of answers in the order of the samples."""

    def codes(self, text: str) -> Any:
        """Returns answers that `choices_text` wrote as `counted` and `sums` take them."""

    def counted(self, codes: Any) -> Tally:
        """Returns the counts of coded answers."""

    def sums(self, codes: Any) -> np.ndarray:
        """Returns the counts of coded answers added up over all images, (columns,)."""

    def narrowed(self, columns: Sequence[str]) -> Sheet:
        """Returns the same samples, of which these columns alone are counted."""


@dataclass(frozen=True)
class CodedSamples:
    """The samples of a task as numbers. The code of an answer is 0 where it is unreadable, else 1 + its index."""

    clusters: tuple[str, ...]
    """The images, one a row of the counts."""
    strata: tuple[str, ...]
    """What each row is resampled within."""
    wordings: tuple[str, ...]
    """What each row is asked in; all equal where there is one wording."""
    columns: tuple[str, ...]
    """What is counted."""
    ids: tuple[str, ...]
    choices: tuple[tuple[str, ...], ...]
    """Of each sample."""
    n_choices: np.ndarray
    """Of each sample, (samples,)."""
    row: np.ndarray
    """Of each sample, its image's, (samples,)."""
    first: np.ndarray
    """Of each sample, where its kind begins in `adds`, (samples,)."""
    adds: csr_array
    """What each answer to each kind adds to each column, 0 or 1, (kinds x codes, columns)."""
    complete: Complete | None
    """Fills in, in counts of all images, the columns that do not add up over answers."""

    def tally(self, choices: Sequence[str | None]) -> Tally:
        """Returns the counts of choices (None: unreadable) in the order of the samples.

        Raises:
            ValueError: a choice is none of its sample's, or there are more or fewer than samples.
        """
        return self.counted(np.array(_coded(self.choices, choices), dtype=np.int64))

    def codes(self, text: str) -> np.ndarray:
        """Returns answers that `choices_text` wrote as codes, (samples,); UntrustedRecord where they do not fit."""
        return _decoded(text, self.ids, self.n_choices)

    def counted(self, codes: np.ndarray) -> Tally:
        """Returns the counts of coded answers."""
        # As small as it can be: a board of a thousand runs holds a task's counts of all of them at once.
        kind = np.int16 if len(self.ids) < 2**15 else np.int32
        begins, times, added = self._added
        at, shape = self.first + codes, (len(self.clusters), len(self.columns))
        n = times[at]
        each = np.repeat(begins[at] - (np.cumsum(n) - n), n) + np.arange(n.sum())
        cells = np.repeat(self.row * shape[1], n) + added[each]
        counts = np.bincount(cells, minlength=shape[0] * shape[1]).astype(kind).reshape(shape)
        if self.complete is not None:
            self.complete(counts)
        return Tally(self.clusters, self.strata, self.columns, counts, self.wordings)

    def sums(self, codes: np.ndarray) -> np.ndarray:
        """Returns the counts of coded answers added up over all images, (columns,)."""
        if self.complete is not None:
            return np.asarray(self.counted(codes).counts.sum(axis=0))
        return np.asarray(np.bincount(self.first + codes, minlength=self.adds.shape[0]) @ self.adds)

    @cached_property
    def _added(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns of each row of `adds` where its columns begin and how many they are, and all columns in a line."""
        return self.adds.indptr[:-1], np.diff(self.adds.indptr), self.adds.indices

    def narrowed(self, columns: Sequence[str]) -> CodedSamples:
        """Returns the same samples, of which these columns alone are counted."""
        chosen = [self.columns.index(name) for name in columns]
        return replace(self, columns=tuple(columns), adds=self.adds[:, chosen])


def code_samples(
    samples: Sequence[Sample],
    columns: Sequence[str],
    adds: Adds,
    within_groups: bool = False,
    complete: Complete | None = None,
) -> CodedSamples:
    """Returns samples coded for counting.

    Args:
        columns: what is counted.
        adds: the columns to which an answer (None: unreadable) adds one; it may look at the sample's group, choices
            and right answer only.
        within_groups: an image has a row in each group that asks about it, and is resampled within the group.
        complete: fills in the columns that do not add up over answers.
    """
    from scipy.sparse import csr_array  # Here, so that a task's file is imported without it.

    rows: dict[tuple[str, str], int] = {}
    kinds: dict[tuple[str, tuple[str, ...], str], tuple[int, Sample]] = {}
    wordings: list[str] = []
    for sample in samples:
        if rows.setdefault(_row(sample, within_groups), len(rows)) == len(wordings):
            wordings.append(sample.wording)
        kinds.setdefault((sample.group, sample.choices, sample.answer), (len(kinds), sample))
    n_codes = 1 + max((len(sample.choices) for sample in samples), default=0)
    place = {name: number for number, name in enumerate(columns)}
    added: list[int] = []
    begins = [0]
    for _, sample in kinds.values():
        choices = (None, *sample.choices)
        for code in range(n_codes):
            added += sorted(place[name] for name in adds(sample, choices[code])) if code < len(choices) else []
            begins.append(len(added))
    table = csr_array((np.ones(len(added), dtype=np.int64), added, begins), shape=(len(begins) - 1, len(columns)))
    return CodedSamples(
        clusters=tuple(cluster for _, cluster in rows),
        strata=tuple(group for group, _ in rows),
        wordings=tuple(wordings),
        columns=tuple(columns),
        ids=tuple(sample.id for sample in samples),
        choices=tuple(sample.choices for sample in samples),
        n_choices=np.array([len(sample.choices) for sample in samples]),
        row=np.array([rows[_row(sample, within_groups)] for sample in samples]),
        first=n_codes * np.array([kinds[s.group, s.choices, s.answer][0] for s in samples]),
        adds=table,
        complete=complete,
    )


def _row(sample: Sample, within_groups: bool) -> tuple[str, str]:
    return sample.group if within_groups else "", sample.cluster
