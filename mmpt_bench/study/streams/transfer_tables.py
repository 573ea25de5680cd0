"""A transfer as CSV for programs, as Markdown for people, and on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.escaping import csv_table, markdown, plain_text, rich_text
from mmpt_bench.common.files import write_atomic
from mmpt_bench.common.words import counted
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.study.streams.transfer import OWN, TransferRow

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from mmpt_bench.runs.estimate import PlanSummary

FOLDER = "transfers"
COLUMNS = (
    "method", "begins_with", "steps_to_score", "steps_low", "steps_high", "first", "last", "last_low", "last_high",
    "difference", "difference_low", "difference_high", "p_holm",
)  # fmt: skip
NOTE = (
    "Scores are of questions of the target's dev part. **Steps to the score**: in total, those on other tasks counted, "
    "until the mean score is that with which the method's own initial values end; a hyphen where that is not reached. "
    "**Last**: score after all steps, and its difference from beginning with the method's own values. Intervals: 95 %, "
    "over seeds and questions; p corrected by Holm, and none with fewer than 6 seeds."
)


@dataclass(frozen=True, repr=False)
class TransferResult:
    """A transfer with its rows; or, where nothing was run, what would run."""

    name: str
    folder: Path
    """The results folder."""
    rows: tuple[TransferRow, ...] = ()
    failed: tuple[Record, ...] = ()
    summary: PlanSummary | None = None
    figures: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        """Returns one line: which task, and where it is."""
        return f"<Transfer `{self.name}` in `{self.folder}`: {counted(len(self.rows), 'row')}>"

    @property
    def table(self) -> pd.DataFrame:
        """A row a method and beginning; steps are infinite where the score is not reached."""
        import pandas as pd

        return pd.DataFrame(table_lines(self.rows), columns=list(COLUMNS))


def table_lines(rows: Sequence[TransferRow]) -> list[dict[str, Any]]:
    """Returns a line a method and beginning, its values those of `COLUMNS`."""
    return [
        dict(zip(COLUMNS, (
            row.method, row.init, row.reached, *row.reached_interval, float(row.curve[0]), float(row.curve[-1]),
            *map(float, row.band[-1]), row.last_difference, *(row.last_interval or (None, None)), row.p,
        ), strict=True))
        for row in rows
    ]  # fmt: skip


def _texts(rows: Sequence[TransferRow]) -> tuple[list[str], list[list[str]]]:
    header = ["Method", "Begins with", "Steps to the score", "First look %", "Last look %", "Difference", "p"]
    lines = []
    for row in rows:
        difference, p = "", ""
        if row.last_difference is not None and row.last_interval is not None:
            low, high = (100 * value for value in row.last_interval)
            difference = f"{100 * row.last_difference:+z.1f} ({low:z.1f} to {high:z.1f})"
            p = "" if row.p is None else "< .001" if row.p < 0.001 else f"{row.p:.3f}"
        low, high = row.reached_interval
        lines.append([
            row.method, "its own values" if row.init == OWN else row.init,
            f"{_steps(row.reached)} ({_steps(low)} to {_steps(high)})",
            f"{100 * row.curve[0]:z.1f}", f"{100 * row.curve[-1]:z.1f}", difference, p,
        ])  # fmt: skip
    return header, lines


def _steps(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "–"


def write_transfer(store: Store, name: str, rows: Sequence[TransferRow], command: str) -> None:
    """Writes `transfers/<name>.csv` and `.md`."""
    header, lines = _texts(rows)
    table = [f"| {' | '.join(markdown(text) for text in line)} |" for line in lines]
    parts = [
        f"# Transfer to {markdown(name.rpartition('-')[0])}",
        f"Made by `{plain_text(command, 2000)}`.",
        "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *table]),
        NOTE,
    ]
    write_atomic(store.path(FOLDER, f"{name}.csv"), csv_table(COLUMNS, table_lines(rows)))
    write_atomic(store.path(FOLDER, f"{name}.md"), ("\n\n".join(parts) + "\n").encode())


def terminal_table(rows: Sequence[TransferRow]) -> Table:
    """Returns what to print; 80 columns are enough."""
    from rich.table import Table

    header, lines = _texts(rows)
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < 2 else "right", overflow="fold")
    for line in lines:
        table.add_row(*map(rich_text, line))
    return table
