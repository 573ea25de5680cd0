"""A results folder as data: records, scores and leaderboard as pandas tables, and boards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_bench.common.words import counted
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.records.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from mmpt_bench.board.board import Board
    from mmpt_bench.evaluation.task import Task
    from mmpt_bench.records.record import Record
    from mmpt_bench.report.leaderboard import Leaderboard


@dataclass(frozen=True, repr=False)
class Results:
    """What is recorded in a results folder; a notebook shows its leaderboard.

        results = mb.load_results("mmpt-results")
        results.leaderboard()                                     # a row a method and variant
        main = results.scores.query("is_headline and limit.isna() and ablation.isna()")
        main.pivot_table("value", ["setting", "variant"], ["task", "dataset", "parse_rule"])  # the mean over seeds

    Everything is read from the folder when it is asked for. What cannot be trusted raises `UntrustedRecord`.
    """

    folder: Path
    made: tuple[Record, ...] = ()
    """Records that the call which returned this has made."""
    runs: tuple[str, ...] = ()
    """Names of the runs that the call asked for, recorded before or not."""
    own_tasks: Mapping[str, Task] = dataclasses.field(default_factory=dict)
    """Tasks of the user's own files."""
    asked_keys: frozenset[str] = frozenset()
    """The keys of the results that the call asked for."""

    def __repr__(self) -> str:
        """Returns one line: which folder, and how much the call made."""
        asked = (
            f": {counted(len(self.runs), 'run')} asked for, {counted(len(self.made), 'result')} made"
            if self.runs
            else ""
        )
        return f"<Results of `{self.folder}`{asked}>"

    @property
    def failed(self) -> tuple[Record, ...]:
        """The runs of this call that failed, with their reasons."""
        return tuple(record for record in self.made if record.status == "failed")

    @cached_property
    def records(self) -> list[Record]:
        """Every record of the folder: one for each run and task, with its answers, costs and environment."""
        return Store(self.folder).records()

    @property
    def scores(self) -> pd.DataFrame:
        """Every score of the folder, a row for each run, task and metric: what scores.csv holds.

        Columns:
            setting, suite, backbone, training_data, dtype, limit: only rows that agree in these can be compared;
                `setting` stands for all but `limit`, which is empty where all questions were asked.
            method, variant, ablation: the method, its name on the leaderboard, and the ablation that it is of, if any.
            run, seed: a training; a method that does not train has the seed 0.
            task, task_version, dataset, parse_rule: what was asked, and how replies were read: a score of one parse
                rule is no seed of another's.
            metric, is_headline: `is_headline` marks the metric that the leaderboard shows: one a run and task.
            value, ci_low, ci_high: the score, and of the headline the 95 % interval over images of this checkpoint.
            n, unit: questions of the task; "fraction" (0 to 1) or "points".
        """
        import pandas as pd

        from mmpt_bench.board.writers.csv_file import SCORES
        from mmpt_bench.report.leaderboard import scores

        return pd.DataFrame(scores(Store(self.folder), self._tasks, self.records), columns=list(SCORES))

    def leaderboard(self) -> pd.DataFrame:
        """Returns a row for each method and variant, best first in each setting: what leaderboard.csv holds.

        Columns: setting, suite, backbone, limit; method, variant, seeds (how many); place, groups (methods that share
        a letter are not significantly different), overall (the mean over tasks of (score - chance) / (most - chance)),
        ci_low and ci_high (its 95 % interval); a column for each task, the mean over seeds in the task's unit;
        trainable (parameters), remarks.
        """
        import pandas as pd

        from mmpt_bench.board.writers.csv_file import leaderboard_rows

        columns, rows = leaderboard_rows(self.boards)
        return pd.DataFrame(rows, columns=columns)

    def write_leaderboard(self) -> Leaderboard:
        """Writes scores.csv, leaderboard.csv, leaderboard.md and figures into the folder, and returns the boards."""
        from mmpt_bench.report.leaderboard import write_leaderboard

        return write_leaderboard(Store(self.folder), self._tasks)

    @property
    def boards(self) -> tuple[Board, ...]:
        """The boards of the folder, one for each setting and limit; nothing is written."""
        from mmpt_bench.board.from_records import boards

        return boards(Store(self.folder), self._tasks, records=self.records)

    @property
    def _tasks(self) -> dict[str, Task]:
        return task_catalog.built_in_tasks() | dict(self.own_tasks)

    def _repr_html_(self) -> str:
        """Returns the leaderboard as a notebook shows it."""
        from mmpt_bench.board.writers.html import boards_html

        return boards_html(self.boards)
