"""Answers made elsewhere, as rows in the hub's words: JSON lines, Parquet, files of lmms-eval and the like.

What a file holds decides which of these it is, never its name. Field order, extra fields, a byte-order mark, Windows
line ends and gzip change nothing; a torn last line is left out and said; anything else that cannot be read is refused
by line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError, shown
from mmpt_bench.common.files import scrub
from mmpt_bench.data.text_files import csv_rows, excel_rows, json_rows, parquet_rows, text_of

REPLY_FIELDS = ("reply", "response", "text", "prediction")
"""Where a line's reply is looked for, in this order."""
LMMS, VLMEVALKIT, LLAVA = "lmms-eval", "VLMEvalKit", "LLaVA"
"""Forms of other harnesses."""
ENDINGS = ("Please answer yes or no.", "Answer the question using a single word or phrase.")
"""What the authors of MME, and LLaVA and lmms-eval in place of it, end questions in."""
LMMS_STRATEGIES = {"_pope_adv": "adversarial", "_pope_pop": "popular", "_pope_random": "random"}
"""Endings of lmms-eval's sample files that say which part of POPE they hold: their lines do not."""


@dataclass(frozen=True)
class GivenAnswer:
    """One reply, and what its line says of the question."""

    where: str
    """"line 7", for messages; with the file's name where there are several."""
    row: dict[str, Any]
    """In the words of the hub's data sets, as far as the file says."""
    reply: str
    number: int | None = None
    """Row of the official split, where the file gives it."""


@dataclass(frozen=True)
class GivenAnswers:
    """The replies of one or more files."""

    form: str
    """"JSON lines", "lmms-eval", "VLMEvalKit", "LLaVA" or "MME's text files"."""
    answers: tuple[GivenAnswer, ...]
    notes: tuple[str, ...] = field(default=())
    """What a reader of the score must know: "the last line was not finished"."""


def read_answers(paths: Sequence[Path]) -> GivenAnswers:
    """Returns the replies in files of one form; a folder stands for the text files in it (MME's form).

    Raises:
        RequestError: no such file, none of the forms, a line that is damaged or has no reply, or files of two forms.
        MachineError: a .xlsx file, and no package to read it with.
    """
    made: list[GivenAnswers] = []
    for path in paths:
        parts = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        if not parts:
            raise RequestError(f"`{scrub(str(path))}` holds no .txt file; name the file with the answers.")
        several = len(paths) > 1 or path.is_dir()
        made += [_read(part, f"`{part.name}` " if several else "") for part in parts]
    forms = list(dict.fromkeys(one.form for one in made))
    if len(forms) > 1:
        raise RequestError(f"The files are of different forms: {', '.join(forms)}. Score them one by one.")
    answers = tuple(answer for one in made for answer in one.answers)
    if not answers:
        raise RequestError(f"There is no answer in `{scrub(str(paths[0]))}`.")
    return GivenAnswers(forms[0], answers, tuple(note for one in made for note in one.notes))


def _read(path: Path, prefix: str) -> GivenAnswers:
    name = path.name.removesuffix(".gz").lower()
    if name.endswith(".txt"):
        return _mme_text(text_of(path), path.name.removesuffix(".gz").removesuffix(".txt"), prefix)
    word, notes = "line", tuple[str, ...]()
    if name.endswith((".xlsx", ".tsv", ".csv")):
        word, rows = "row", list(enumerate(_table(path, name), start=2))
    elif name.endswith(".parquet"):
        word, rows = "row", list(enumerate(parquet_rows(path), start=1))
    else:
        rows, notes = json_rows(text_of(path), path)
    first = rows[0][1] if rows else {}
    if "eval_key" in first or {"id", "reply", "parsed", "ranked", "logprobs"} == first.keys():
        raise RequestError(
            f"`{path.name}` holds the answers of a run of ours, whose score is in its results folder: `mmpt-bench "
            "leaderboard`. `mmpt-bench run` with the same options and `--parse RULE` reads replies by another rule."
        )
    if len(rows) == 1 and isinstance(first.get("logs"), list):
        notes = (*notes, f"`{path.name}` is a log of lmms-eval before 0.3, which held all samples in one object")
        rows = [(n, row) for n, row in enumerate(first["logs"], start=1) if isinstance(row, dict)]
        first, word = rows[0][1] if rows else {}, "entry"
    if "doc_id" in first and ({"filtered_resps", "resps"} & first.keys() or not set(REPLY_FIELDS) & first.keys()):
        return _of_lmms_eval(rows, notes, name, f"{prefix}{word}")
    if "prediction" in first and "reply" not in first and (word == "row" or {"index", "question"} <= first.keys()):
        return GivenAnswers(VLMEVALKIT, _vlmevalkit(rows, prefix, word), notes)
    if {"question_id", "prompt", "text"} <= first.keys() and not {"answer", "label", "question"} & first.keys():
        llava = [_plain(row | {"question": str(row.get("prompt"))}, f"{prefix}{word} {number}") for number, row in rows]
        return GivenAnswers(LLAVA, tuple(llava), notes)
    made = [_plain(row, f"{prefix}{word} {number}") for number, row in rows]
    return GivenAnswers("JSON lines" if word == "line" else "table", tuple(made), notes)


def _table(path: Path, name: str) -> list[dict[str, Any]]:
    """Returns the rows of a workbook or text table; RequestError where no column can be the reply."""
    is_book = name.endswith(".xlsx")
    rows = excel_rows(path) if is_book else csv_rows(text_of(path), "\t" if name.endswith(".tsv") else ",", path)
    if rows and not set(REPLY_FIELDS) & rows[0].keys():
        there = ", ".join(f"`{name[:40]}`" for name in list(rows[0])[:10])
        raise RequestError(f"`{path.name}` has no column `prediction`. It has {there}.")
    return rows


def _of_lmms_eval(
    rows: Sequence[tuple[int, dict[str, Any]]], notes: tuple[str, ...], name: str, where: str
) -> GivenAnswers:
    """Returns the lines of a sample log; RequestError names logs of versions that did not keep the replies."""
    first = rows[0][1]
    if "filtered_resps" not in first and "resps" not in first:
        raise RequestError(
            f"`{name}` is a log of lmms-eval without replies (no `resps`). Run it again with `--log_samples`, by 0.3 "
            "or later."
        )
    if not {"doc", "target"} & first.keys():
        notes = (*notes, "this log of an older lmms-eval has neither `doc` nor `target`: only `doc_id` tells the rows")
    stem = name.removesuffix(".jsonl").removesuffix(".json")
    strategy = next((part for end, part in LMMS_STRATEGIES.items() if stem.endswith(end)), None)
    return GivenAnswers(LMMS, tuple(_lmms(row, f"{where} {number}", strategy) for number, row in rows), notes)


def plain_words(question: str) -> str:
    """Returns what the writings of one question share: its words in small letters, without what tells how to answer.

    POPE's first release writes "imange" where "an" stands before the object.
    """
    for ending in ENDINGS:
        question = question.replace(ending, " ")
    return " ".join(question.lower().replace("imange", "image").split())


def _plain(row: dict[str, Any], where: str) -> GivenAnswer:
    name = next((name for name in REPLY_FIELDS if row.get(name) is not None), None)
    name = name or next((name for name in REPLY_FIELDS if name in row), None)
    if name is None:
        raise RequestError(f"There is no reply in {where}: none of its fields is {_or(REPLY_FIELDS)}.")
    return GivenAnswer(where, row, _only_reply(row, name, row[name], where), _number(row.get("index")))


NUMBER = re.compile(r"([0-9]{1,18})(?:\.0*)?", re.ASCII)


def _number(value: Any) -> int | None:
    """Returns the number of a row, which tables hold as text; None where it is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (found := NUMBER.fullmatch(value.strip())):
        return int(found[1])
    return value if type(value) is int else None


def _lmms(row: dict[str, Any], where: str, strategy: str | None) -> GivenAnswer:
    """Returns a line of `samples_<task>.jsonl` as lmms-eval 0.3 to 0.7 write it; older ones hold the row as `doc`."""
    reply = row.get("filtered_resps", row.get("resps"))
    while isinstance(reply, list) and len(reply) == 1:
        reply = reply[0]
    doc = row.get("doc")
    known: dict[str, Any] = dict(doc) if isinstance(doc, Mapping) else {}
    for value in row.values():
        if isinstance(value, Mapping):
            known |= {name: value[name] for name in ("question_id", "category") if name in value and name not in known}
    for name, other in (("answer", "target"), ("label", "target"), ("question", "input")):
        if name not in known and row.get(other) is not None:
            known[name] = row[other]
    if strategy is not None:
        known.setdefault("category", strategy)
    number = row["doc_id"] if strategy is None and type(row.get("doc_id")) is int else None
    return GivenAnswer(where, known, _only_reply(row, "filtered_resps", reply, where), number)


def _vlmevalkit(rows: Sequence[tuple[int, dict[str, Any]]], prefix: str, word: str) -> tuple[GivenAnswer, ...]:
    """Returns the rows of a VLMEvalKit prediction file: `index, question, answer, category, image_path, prediction`.

    A POPE question that several strategies share stands there once, with all of them in `category`, and counts once
    for each, as in that tool's own score.
    """
    made: list[GivenAnswer] = []
    for number, row in rows:
        where = f"{prefix}{word} {number}"
        if "prediction" not in row:
            raise RequestError(f"There is no column `prediction` in {where}.")
        picture = str(row.get("image_path") or "")
        known = row | {"question_id": picture or row.get("index"), "label": row.get("label", row.get("answer"))}
        if picture:
            known |= {"image_source": Path(picture).stem, "filename": Path(picture).name, "image_link": picture}
        reply = _only_reply(row, "prediction", row["prediction"], where)
        parts = [part.strip() for part in str(row.get("category") or "").split(",")]
        if len(parts) > 1 or ("image_source" in known and parts[0] in ("random", "popular", "adversarial")):
            known["question_id"] = str(row.get("index"))
        index = _number(row.get("index"))
        made += [GivenAnswer(where, known | {"category": part}, reply, index) for part in parts]
    return tuple(made)


def _mme_text(text: str, subtask: str, prefix: str) -> GivenAnswers:
    """Returns the lines of MME's own form: image, question, answer and reply, with tabs between, a file a subtask."""
    made = []
    for number, line in enumerate(text.split("\n"), start=1):
        parts = line.rstrip("\r").split("\t", 3)
        if len(parts) == 1 and not parts[0].strip():
            continue
        where = f"{prefix}line {number}"
        if len(parts) != 4:
            raise RequestError(
                f"There are {len(parts)} columns in {where}, not image, question, answer and reply with tabs between."
            )
        row = {"category": subtask, "question_id": parts[0], "question": parts[1], "answer": parts[2]}
        made.append(GivenAnswer(where, row, parts[3]))
    return GivenAnswers("MME's text files", tuple(made))


def _only_reply(row: Mapping[str, Any], name: str, value: Any, where: str) -> str:
    """Returns the reply in field `name`; RequestError where another field of the line holds another reply."""
    reply = _reply(value, where, name)
    for other in REPLY_FIELDS:
        if other != name and row.get(other) is not None and _reply(row[other], where, other) != reply:
            raise RequestError(
                f"`{name}` and `{other}` in {where} are two different replies ({shown(reply)}, {shown(row[other])}): "
                "keep the field with the reply, and leave out or rename the other."
            )
    return reply


def _reply(value: Any, where: str, name: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # A spreadsheet keeps the reply "7" as a number.
        value = str(int(value)) if float(value).is_integer() else str(value)
    if not isinstance(value, str):
        what = f"a list of {len(value)}" if isinstance(value, list) else shown(value)
        raise RequestError(f"Field `{name}` in {where} holds {what}, not one reply.")
    return value


def _or(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:-1]) + f" or `{names[-1]}`"
