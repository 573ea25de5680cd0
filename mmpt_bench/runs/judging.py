"""Verdicts of a judge on the answers of a run: read where they are kept, asked for where they are not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import Interrupted, RequestError
from mmpt_bench.common.files import append_jsonl, read_jsonl
from mmpt_bench.common.hashing import content_key
from mmpt_bench.common.locks import LONGEST_WAIT, held
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.judge import Judge, verdict_key
from mmpt_bench.records.store import Store

if TYPE_CHECKING:
    from mmpt_bench.engine.inference.judging import Judging

FOLDER = "judged"


def judged_file(store: Store, task: str, judge: Mapping[str, Any], data: str) -> Path:
    """Returns where what a judge said of answers is kept.

    Args:
        judge: as in a record's `asking`.
        data: fingerprint of the task's rows, in which a key of an image is one image.
    """
    return store.path(FOLDER, f"{task}-{content_key([judge, data], 8)}.jsonl")


def known_verdicts(
    path: Path, rows: Iterable[tuple[int, Mapping[str, Any]]], field: str, is_one: Callable[[Any], bool], form: str
) -> dict[str, Any]:
    """Returns key -> verdict of a file's numbered rows; RequestError for one that is none, or contradicts another.

    Args:
        path: for messages.
        field: of a row, that holds the verdict.
        is_one: whether a value is a verdict.
        form: how one is written, for messages.
    """
    found: dict[str, Any] = {}
    for line, row in rows:
        key, verdict = row.get("key"), row.get(field)
        if not isinstance(key, str) or not is_one(verdict):
            raise RequestError(f'Line {line} of `{path.name}` is no verdict: {{"key": KEY, "{field}": {form}}}.')
        if found.setdefault(key, verdict) != verdict:
            raise RequestError(f"Line {line} of `{path.name}` contradicts an earlier verdict on `{key[:40]}`.")
    return found


def said_of(path: Path) -> dict[str, str]:
    """Returns what a judge said, by `verdict_key`, of what is kept in a file of `judged_file`."""
    # A last line that was not finished is left out: its verdict is asked for again.
    rows = enumerate(read_jsonl(path), start=1)
    return known_verdicts(path, rows, "said", lambda said: isinstance(said, str), "a text")


def verdicts(
    judge: Judge,
    path: Path,
    samples: Sequence[Sample],
    answers: Sequence[str | None],
    loaded: Callable[[], Judging],
    stopping: Callable[[], bool],
    told: Callable[[int, int], None] = lambda known, total: None,
) -> list[float | None]:
    """Returns a grade for each answer, None where none can be read; an answer of None is 0 and not shown.

    Every distinct answer is judged once, and what is kept is not asked again.

    Args:
        judge: of the task.
        path: from `judged_file`.
        samples: what was asked.
        answers: in their order.
        loaded: returns the judge's model; called where something is to be asked.
        stopping: asked after every batch.
        told: of how many of the distinct answers are judged.

    Raises:
        Interrupted: `stopping` said so; what was judged is kept.
        RequestError: the file is damaged, or an answer cannot be shown to the judge.
    """
    keys = [None if said is None else verdict_key(one, said) for one, said in zip(samples, answers, strict=True)]
    wanted = {
        key: (key, one, said)
        for key, one, said in zip(keys, samples, answers, strict=True)
        if key is not None and said is not None
    }
    ids: dict[str, list[str]] = {}
    for key, one in zip(keys, samples, strict=True):
        ids.setdefault(key or "", []).append(one.id)
    with held(path.with_suffix(".lock"), path.stem, LONGEST_WAIT, stopping):
        said = {key: text for key, text in said_of(path).items() if key in wanted}
        if todo := [each for key, each in wanted.items() if key not in said]:
            for batch in loaded().said(todo):
                append_jsonl(path, *(_row(*wanted[key], text, ids[key]) for key, text in batch))
                said |= dict(batch)
                told(len(said), len(wanted))
                if stopping() and len(said) < len(wanted):
                    raise Interrupted(f"{len(said):,} of {len(wanted):,} answers are judged")
    return [0.0 if key is None else judge.read(said[key]) for key in keys]


def _row(key: str, sample: Sample, reply: str, said: str, ids: list[str]) -> dict[str, Any]:
    return {"key": key, "ids": ids, "question": sample.question, "references": list(sample.accepted),
            "reply": reply, "said": said}  # fmt: skip
