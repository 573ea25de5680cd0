"""A results folder as data: records, scores as a table, boards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_bench.evaluation import task_catalog
from mmpt_bench.records.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from mmpt_bench.board.board import Board
    from mmpt_bench.evaluation.task import Task
    from mmpt_bench.records.record import Record
    from mmpt_bench.report.leaderboard import Leaderboard


@dataclass(frozen=True)
class Results:
    """What is recorded in a results folder."""

    folder: Path
    made: tuple[Record, ...] = ()
    """Records that the call which returned this has made."""
    runs: tuple[str, ...] = ()
    """Names of the runs that the call asked for, recorded before or not."""
    own_tasks: Mapping[str, Task] = dataclasses.field(default_factory=dict)
    """Tasks of the user's own files."""

    @property
    def failed(self) -> tuple[Record, ...]:
        """The runs of this call that failed, with their reasons."""
        return tuple(record for record in self.made if record.status == "failed")

    @cached_property
    def records(self) -> list[Record]:
        """Every record of the folder."""
        return Store(self.folder).records()

    @property
    def scores(self) -> pd.DataFrame:
        """Every score of the folder: a row for each run, task and metric; the interval is that of the headline score.

        Columns: method, run, seed, setting, suite, task, metric, value, ci_low, ci_high, n, is_headline.
        """
        import pandas as pd

        names = ["method", "run", "seed", "setting", "suite", "task", "metric", "value", "ci_low", "ci_high", "n",
                 "is_headline"]  # fmt: skip
        rows = []
        for record in (record for record in self.records if record.status == "ok"):
            of_run = (record.method, record.run, record.seed, record.track, record.suite, record.task)
            for metric, value in record.values.items():
                is_headline = metric == record.headline
                low, high = record.interval if is_headline and record.interval else (None, None)
                rows.append((*of_run, metric, value, low, high, record.n, is_headline))
        return pd.DataFrame(rows, columns=names)

    @property
    def asked_keys(self) -> frozenset[str]:
        """The keys of all results of the runs that the call asked for."""
        return frozenset(record.eval_key for record in self.records if record.run in self.runs)

    def leaderboard(self) -> Leaderboard:
        """Builds and writes the leaderboard of the folder."""
        from mmpt_bench.report.leaderboard import write_leaderboard

        return write_leaderboard(Store(self.folder), task_catalog.built_in_tasks() | dict(self.own_tasks))

    @property
    def boards(self) -> tuple[Board, ...]:
        """The boards of the folder, one for each setting and limit; nothing is written."""
        from mmpt_bench.board.from_records import boards

        return boards(Store(self.folder), task_catalog.built_in_tasks() | dict(self.own_tasks), records=self.records)
