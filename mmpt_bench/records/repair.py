"""Damaged lines of records set aside, into a file beside them, with a copy of what was there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmpt_bench.common.files import loads, write_atomic
from mmpt_bench.records.run_folder import RECORDS, check_sum
from mmpt_bench.records.store import Store

ASIDE, COPY = "records.damaged", "records.original"
"""Names, without `.jsonl`, of the lines that were set aside and of the file as it was."""


@dataclass(frozen=True)
class Repair:
    """What was done to a file of records."""

    path: Path
    lines: tuple[int, ...]
    """Numbers of the lines that were set aside, from 1."""
    aside: Path
    """Holds these lines."""
    copy: Path
    """Holds the file as it was."""


def repair(store: Store) -> Iterator[Repair]:
    """Sets the damaged and the edited lines of all records aside, and yields what was done.

    A last line without its end is left: reading leaves it out, and the next record takes its place. Records of another
    version are left too.

    Raises:
        Held: a run is being made by another process.
        MachineError: a file cannot be written; the records are then as they were.
    """
    if (found := _repaired(store.path(RECORDS))) is not None:
        yield found
    for run in store.runs():
        if damaged(run.path(RECORDS)):
            with run.lock():
                found = _repaired(run.path(RECORDS))
            if found is not None:
                yield found


def damaged(path: Path) -> dict[int, bytes]:
    """Returns number -> line of the lines that are no JSON object, or not what their checksum says."""
    found = {}
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            continue
        try:
            row = loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is no JSON object")
            check_sum(row)
        except (ValueError, RecursionError):
            found[number] = line
    return found


def _repaired(path: Path) -> Repair | None:
    lost = damaged(path)
    if not lost:
        return None
    data = path.read_bytes()
    aside, copy = _free(path, ASIDE), _free(path, COPY)
    write_atomic(copy, data)
    write_atomic(aside, b"".join(lost.values()))
    kept = (line for number, line in enumerate(data.splitlines(keepends=True), start=1) if number not in lost)
    write_atomic(path, b"".join(kept))
    return Repair(path, tuple(lost), aside, copy)


def _free(path: Path, name: str) -> Path:
    """Returns a path beside `path` that no earlier repair has taken."""
    number = 1
    while (free := path.with_name(f"{name}{'' if number == 1 else f'-{number}'}.jsonl")).exists():
        number += 1
    return free
