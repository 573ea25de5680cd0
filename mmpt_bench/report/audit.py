"""Whether the data can carry the scores: repeated questions, equal images, leaks from training, label balance.

Two images are equal here when their pixels are, byte for byte; a scaled or recompressed copy is not found.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmpt_bench.board.board import Board, Column
from mmpt_bench.board.rescoring import Samples
from mmpt_bench.common.errors import MachineError, RequestError
from mmpt_bench.common.files import loads, write_atomic
from mmpt_bench.common.hashing import canonical_json, content_key
from mmpt_bench.data.examples import Corpus
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.records.store import Store
from mmpt_bench.report.questions import Asked, Questions
from mmpt_bench.sources.corpora import load_corpus

FILE = "audit.json"
VERSION = 1
"""Rises when a check changes: findings that were kept before are made again."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """What was found in a task's questions and images."""

    repeated: int
    """Questions that ask what an earlier one of their group asks about an equal image."""
    across: int
    """Questions that are new to their group, but not to the task: POPE asks its positive ones in all three."""
    contradicted: int
    """Repeated questions of either kind with another right answer than the earlier one."""
    equal_pictures: int
    """Images that equal an earlier one of the task."""
    elsewhere: int
    """Images that another task of the board shows too."""
    trained_on: int | None
    """Images that the training data shows too; None where the corpus cannot be had."""
    asked_in_training: int | None
    """Questions that the training data asks about an equal image."""


@dataclass(frozen=True)
class TaskAudit:
    """One task of one board."""

    column: Column
    balance: tuple[tuple[str, int], ...]
    """(right answer, samples), most frequent first."""
    found: Found | None
    reason: str
    """Why nothing was looked for; empty where it was."""
    unreadable: tuple[tuple[str, float], ...]
    """(row's label, share of its replies without a legal answer)."""

    @property
    def majority(self) -> float:
        """Returns the accuracy of the most frequent answer given to everything."""
        return self.balance[0][1] / sum(count for _, count in self.balance)


def audit(
    board: Board, sample_files: Mapping[str, str], asked: Asked, samples: Samples, store: Store, say: Say
) -> tuple[TaskAudit, ...]:
    """Returns the audit of every task of a board.

    Looking through the training data takes a while, so findings are kept in the results folder under the
    fingerprints of tasks and training data.

    Args:
        board: whose columns are looked at.
        sample_files: task -> name of its samples file.
        asked: where questions and images come from.
        samples: the samples files.
        store: where findings are kept.
        say: told what takes long.
    """
    questions = {column.task: asked(board, column) for column in board.columns}
    there = {task: each for task, each in questions.items() if each.samples}
    found = _kept_or_found(board, there, store, say)
    audits = []
    for column in board.columns:
        known = samples(sample_files[column.task])
        balance = sorted(Counter(s.answer for s in known).items(), key=lambda pair: (-pair[1], pair[0]))
        unreadable = [(r.label, r.cells[column.task].unreadable) for r in board.rows if column.task in r.cells]
        reason = questions[column.task].reason
        audits.append(TaskAudit(column, tuple(balance), found.get(column.task), reason, tuple(unreadable)))
    return tuple(audits)


def look(
    tasks: Mapping[str, Sequence[Sample]], corpus: Corpus | None, say: Say = lambda text: None
) -> dict[str, Found]:
    """Returns what is found in each task's samples, beside the others and beside a corpus."""
    digests = {task: {sample.cluster: _digest(sample.image) for sample in of} for task, of in tasks.items()}
    shown = {task: set(of.values()) for task, of in digests.items()}
    pictures, asked = _of_corpus(corpus, set().union(*shown.values()) if shown else set(), say)
    found = {}
    for task, of in tasks.items():
        elsewhere = set().union(*(shown[other] for other in shown if other != task))
        found[task] = Found(
            **_repeats(of, digests[task]),
            equal_pictures=len(digests[task]) - len(shown[task]),
            elsewhere=sum(digest in elsewhere for digest in digests[task].values()),
            trained_on=None if corpus is None else sum(digest in pictures for digest in digests[task].values()),
            asked_in_training=None if corpus is None else sum(
                (digests[task][sample.cluster], sample.question) in asked for sample in of
            ),
        )  # fmt: skip
    return found


def _repeats(samples: Sequence[Sample], digests: Mapping[str, str]) -> dict[str, int]:
    answers: dict[tuple[str, str], str] = {}
    of_group: set[tuple[str, str, str]] = set()
    counts = {"repeated": 0, "across": 0, "contradicted": 0}
    for sample in samples:
        key = digests[sample.cluster], sample.question
        if (sample.group, *key) in of_group:
            counts["repeated"] += 1
        elif key in answers:
            counts["across"] += 1
        counts["contradicted"] += answers.setdefault(key, sample.answer) != sample.answer
        of_group.add((sample.group, *key))
    return counts


def _kept_or_found(board: Board, questions: Mapping[str, Questions], store: Store, say: Say) -> dict[str, Found]:
    if not questions:
        return {}
    fingerprints = {c.task: c.data_fingerprint for c in board.columns if c.task in questions}
    key = content_key([VERSION, board.corpus_fingerprint, fingerprints])
    path = store.path(FILE)
    try:
        kept = loads(path.read_bytes()) if path.is_file() else {}
        kept = kept if isinstance(kept, dict) else {}
        if key in kept:
            return {task: Found(**fields) for task, fields in kept[key].items()}
    except (ValueError, TypeError):
        kept = {}  # a torn or older file: it only ever saves time
    corpus = _corpus(board)
    found = look({task: list(each.samples.values()) for task, each in questions.items()}, corpus, say)
    kept[key] = {task: each.__dict__ for task, each in found.items()}
    try:
        write_atomic(path, canonical_json(kept).encode())
    except MachineError as error:
        say(f"The audit is not kept for the next report: {error}")
    return found


def _corpus(board: Board) -> Corpus | None:
    """Returns the corpus that the board's methods were tuned on, None where this version has another one."""
    try:
        corpus = load_corpus(board.corpus)
    except RequestError:
        return None
    return corpus if corpus.fingerprint == board.corpus_fingerprint else None


def _of_corpus(corpus: Corpus | None, wanted: set[str], say: Say) -> tuple[set[str], set[tuple[str, str]]]:
    """Returns those images of a corpus that are wanted, and what it asks about them."""
    if corpus is None or not wanted:
        return set(), set()
    if corpus.fingerprint not in _SHOWN:
        say(
            f"Looking for evaluation images among the {corpus.size:,} examples of the training data; this is done once."
        )
        _SHOWN.clear()
        _SHOWN[corpus.fingerprint] = [
            (_digest(example.image), tuple(one.question for one in example.exchanges))
            for example in map(corpus.example, range(corpus.size))
        ]
    found = [(digest, asked) for digest, asked in _SHOWN[corpus.fingerprint] if digest in wanted]
    return {digest for digest, _ in found}, {(digest, question) for digest, asked in found for question in asked}


_SHOWN: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
"""Fingerprint of the training data that was looked through last -> image and questions of each example, which the
leaderboards of one report share."""


def _digest(picture: LazyImage) -> str:
    image = picture.open()
    return hashlib.blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).hexdigest()
