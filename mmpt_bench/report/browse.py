"""Samples on which methods disagree, with their images: where a difference in scores comes from."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmpt_bench.board.board import Board, Column, Row
from mmpt_bench.board.rescoring import Samples
from mmpt_bench.common.hashing import content_key
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.counting import choices_from
from mmpt_bench.evaluation.open_answers import is_right
from mmpt_bench.records.record import Record
from mmpt_bench.report.questions import Asked, Questions

METHODS_SHOWN = 12
"""Answers beside an image."""
SIDE = 192
"""Pixels of an image's longer side; a smaller one stays as it is."""
QUALITY = 88


@dataclass(frozen=True)
class Answer:
    """What one method said to a sample, over its seeds."""

    row: Row
    said: tuple[tuple[str, int], ...]
    """(answer, seeds), most frequent first; an unreadable one is empty."""
    right: float
    """Share of seeds."""


@dataclass(frozen=True)
class Card:
    """A sample on which methods disagree."""

    column: Column
    sample: Sample
    question: str
    """Empty where it cannot be had."""
    picture: str
    """Data URI; empty where it cannot be had."""
    size: tuple[int, int]
    answers: tuple[Answer, ...]
    spread: float
    """Variance over methods of the share of seeds that are right: 0.25 where half of the methods always are."""


@dataclass(frozen=True)
class Browser:
    """The samples of one board that are worth a look."""

    cards: tuple[Card, ...]
    methods: tuple[str, ...]
    """Labels of the rows whose answers stand beside the images."""
    disagreed: int
    """Samples on which these methods disagree, of all tasks."""
    asked: int
    """Samples in all."""
    without: tuple[tuple[Column, str], ...]
    """Tasks whose questions and images cannot be had, and why."""


def browser(board: Board, records: Mapping[str, Record], samples: Samples, asked: Asked, n_cards: int) -> Browser:
    """Returns the samples on which a board's methods disagree most, the same number for each task, an image once.

    Methods are compared by the answer that their score is made of, each by its best set of hyperparameters.
    """
    rows = _one_a_method(board)
    cards: list[Card] = []
    disagreed = total = 0
    without = []
    for column in board.columns:
        having = [row for row in rows if column.task in row.cells]
        if not having:
            continue
        known = samples(records[next(iter(having[0].cells[column.task].eval_keys.values()))].samples)
        said = {row.label: _choices(row, column, records, known) for row in having}
        right = np.array([_shares(said[row.label], known) for row in having])
        spread = right.var(axis=0)
        disagreed, total = disagreed + int((spread > 0).sum()), total + len(known)
        questions = asked(board, column)
        if questions.reason:
            without.append((column, questions.reason))
        for place in _most_spread(spread, known, max(1, n_cards // len(board.columns))):
            cards.append(_card(column, known[place], place, float(spread[place]), having, said, right, questions))
    return Browser(tuple(cards), tuple(row.label for row in rows), disagreed, total, tuple(without))


def thumbnail(image: Image.Image) -> str:
    """Returns an image as a WebP data URI, scaled down to `SIDE`."""
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _one_a_method(board: Board) -> list[Row]:
    best: dict[str, Row] = {}
    for row in board.rows:
        known = best.get(row.method)
        if known is None or (row.overall or -9.0) > (known.overall or -9.0):
            best[row.method] = row
    return list(best.values())[:METHODS_SHOWN]


def _choices(
    row: Row, column: Column, records: Mapping[str, Record], known: Sequence[Sample]
) -> list[list[str | None]]:
    """Returns the answers of each seed, in the order of the samples."""
    found = []
    for key in row.cells[column.task].eval_keys.values():
        record = records[key]
        text = record.parsed_choices if record.decode == "generate" else record.ranked_choices
        found.append(choices_from(known, text))
    return found


def _shares(said: Sequence[Sequence[str | None]], known: Sequence[Sample]) -> list[float]:
    return [sum(is_right(sample, choices[i]) for choices in said) / len(said) for i, sample in enumerate(known)]


def _most_spread(spread: np.ndarray, known: Sequence[Sample], n: int) -> list[int]:
    """Returns the places of the `n` samples with the largest spread above 0, each of another image.

    Of equal ones those with the lowest hash come first: the first of a file are often all of one group.
    """
    chosen: list[int] = []
    pictures: set[str] = set()
    for place in sorted(range(len(known)), key=lambda i: (-spread[i], content_key(known[i].id))):
        if len(chosen) == n or spread[place] <= 0:
            break
        if known[place].cluster not in pictures:
            pictures.add(known[place].cluster)
            chosen.append(place)
    return chosen


def _card(
    column: Column, sample: Sample, place: int, spread: float, rows: Sequence[Row],
    said: Mapping[str, Sequence[Sequence[str | None]]], right: np.ndarray, questions: Questions,
) -> Card:  # fmt: skip
    answers = []
    for number, row in enumerate(rows):
        counts = Counter(choices[place] or "" for choices in said[row.label])
        ordered = tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
        answers.append(Answer(row, ordered, float(right[number, place])))
    whole = questions.samples.get(sample.id)
    picture, size = "", (0, 0)
    if whole is not None:
        image = whole.image.open()
        picture, size = thumbnail(image), image.size
    return Card(column, sample, whole.question if whole else "", picture, size, tuple(answers), spread)
