"""What was asked, where it can still be had: the records keep ids and answers, not questions and images.

The embedded suite makes its rows again; real data are read from the folder that `--images` names. Either counts only
where it is what the records were made from: same fingerprint, same ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmpt_bench.board.board import Board, Column
from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.rows import is_generated, world_of
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.declared import is_declared
from mmpt_bench.evaluation.task import Task
from mmpt_bench.sources.task_rows import Where, rows_of, samples


@dataclass(frozen=True)
class Questions:
    """A task's samples with question and image, or why there are none."""

    samples: dict[str, Sample]
    """By id; empty where they cannot be had."""
    reason: str = ""
    """Why they are missing, and what to do; empty where they are there."""


class Asked:
    """The questions of the tasks of boards, each data set read once."""

    def __init__(self, tasks: Mapping[str, Task], images: Path | None) -> None:
        """Reads nothing yet; `images` is a folder of real data as `run --data` takes it."""
        self._tasks, self._images = tasks, images
        self._known: dict[tuple[str, str, str], Questions] = {}

    def __call__(self, board: Board, column: Column) -> Questions:
        """Returns what a column of a board asked."""
        key = board.suite, column.task, column.data_fingerprint
        if key not in self._known:
            self._known[key] = self._read(board.suite, column)
        return self._known[key]

    def _read(self, suite: str, column: Column) -> Questions:
        task = self._tasks[column.task]
        if is_declared(task):
            return Questions({}, "its questions are made by a user's file, which no board or page runs")
        try:
            if not is_generated(suite) and self._images is None:
                return Questions({}, "real data are not read without `--images DIR`, the folder that `--data` named")
            where = Where(embedded=True, world=world_of(suite)) if is_generated(suite) else Where(self._images)
            rows = rows_of(task, where)
            if rows.fingerprint != column.data_fingerprint:
                return Questions({}, _other(suite, rows.fingerprint, column))
            return Questions({sample.id: sample for sample in samples(task, rows)})
        except RequestError as error:
            return Questions({}, str(error))


def _other(suite: str, found: str, column: Column) -> str:
    here = "the embedded suite of this version" if is_generated(suite) else "the data in that folder"
    then = "run again to compare with it" if is_generated(suite) else "name the folder that was evaluated"
    return f"{here} ({found[:12]}) is not what was asked ({column.data_fingerprint[:12]}): {then}"
