"""Raw answers, packed for the page: each record's choices beside what was asked, compressed, within a size."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt_bench.board.board import Board
from mmpt_bench.board.rescoring import Samples
from mmpt_bench.common.escaping import plain_text
from mmpt_bench.common.hashing import canonical_json
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.counting import choices_from, is_open
from mmpt_bench.evaluation.open_answers import is_right
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.report.questions import Asked

OTHER = "another answer"
"""What stands for an answer to an open question that is none of the accepted ones; the reply is shown beside it."""
REPLY_CHARACTERS = 120
"""Of a reply that are shown; the whole one is in the run's folder."""
BASE64 = 4 / 3


@dataclass(frozen=True)
class Packed:
    """What the page's script reads."""

    text: str
    """Base64 of deflated JSON: {"samples": {file: ...}, "answers": {eval_key: ...}}."""
    left_out: int
    """Records whose answers did not fit."""


def pack(
    boards: Sequence[Board], records: Mapping[str, Record], store: Store, samples: Samples, asked: Asked, budget: int
) -> Packed:
    """Returns the answers of as many records as fit into `budget` bytes, all methods' first seeds before the next ones.

    A record's answers are strings of one character a sample, as in records.jsonl; its replies, where the run's folder
    has them, are numbers into a list of the distinct ones.
    """
    files, room = _files(boards, records, samples, asked), float(budget)
    room -= BASE64 * sum(len(_deflated(file)) for file in files.values())
    # A run may stand on the leaderboard and on the board of an ablation: it is packed once, in its first place.
    order = sorted(
        (place, key)
        for board_number, board in enumerate(boards)
        for row_number, row in enumerate(board.rows)
        for cell in row.cells.values()
        for place, key in (
            ((seed_number, board_number, row_number), key) for seed_number, key in enumerate(cell.eval_keys.values())
        )
    )
    kept: dict[str, Any] = {}
    left_out = 0
    for key in dict.fromkeys(key for _, key in order):
        packed = _record(records[key], store, samples)
        room -= BASE64 * len(_deflated(packed))
        if room < 0:
            left_out += 1
        else:
            kept[key] = packed
    used = {packed["samples"] for packed in kept.values()}
    value = {"samples": {name: file for name, file in files.items() if name in used}, "answers": kept}
    return Packed(base64.b64encode(_deflated(value)).decode(), left_out)


def _files(
    boards: Sequence[Board], records: Mapping[str, Record], samples: Samples, asked: Asked
) -> dict[str, dict[str, Any]]:
    """Returns every samples file that cells need, with the questions where they can be had."""
    found: dict[str, dict[str, Any]] = {}
    for board in boards:
        for column in board.columns:
            questions = asked(board, column).samples
            keys = [key for row in board.rows if column.task in row.cells
                    for key in row.cells[column.task].eval_keys.values()]  # fmt: skip
            for name in sorted({records[key].samples for key in keys} - set(found)):
                known = samples(name)
                choices = [sample.choices or (" / ".join(sample.accepted), OTHER) for sample in known]
                sets = list(dict.fromkeys(choices))
                found[name] = {
                    "ids": [plain_text(sample.id) for sample in known],
                    "groups": [plain_text(sample.group) for sample in known],
                    "pictures": [plain_text(sample.cluster) for sample in known],
                    "choices": [[plain_text(choice) for choice in each] for each in sets],
                    "set": [sets.index(each) for each in choices],
                    "right": [sample.choices.index(sample.answer) if sample.choices else 0 for sample in known],
                    "questions": [plain_text(questions[s.id].question) if s.id in questions else "" for s in known]
                    if questions
                    else [],
                }
    return found


def _record(record: Record, store: Store, samples: Samples) -> dict[str, Any]:
    known = samples(record.samples)
    packed: dict[str, Any] = {
        "samples": record.samples,
        "decode": record.decode,
        "parsed": _letters(known, record.parsed_choices) if is_open(known) else record.parsed_choices,
        "ranked": record.ranked_choices,
        "run": record.run,
        "task": record.task,
    }
    replies = store.run(record.run).predictions(record.task, record.replies_key or record.eval_key)
    if replies:
        texts = [
            plain_text(replies[sample.id].reply, REPLY_CHARACTERS) if sample.id in replies else "" for sample in known
        ]
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        packed |= {"replies": list(distinct), "reply": [distinct[text] for text in texts]}
    return packed


def _letters(known: Sequence[Sample], text: str) -> str:
    """Returns answers to open questions as choices of what `_files` names: accepted, another one, or unreadable."""
    answers = zip(known, choices_from(known, text), strict=True)
    return "".join("-" if answer is None else "01"[not is_right(sample, answer)] for sample, answer in answers)


def _deflated(value: Any) -> bytes:
    return zlib.compress(canonical_json(value).encode(), 9)
