"""A leaderboard in the terminal: who is where, and the scores by task; narrow enough for 80 columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mmpt_bench.board.board import Board, Cell, Column
from mmpt_bench.board.writers import numbers
from mmpt_bench.common.escaping import rich_text
from mmpt_bench.data.rows import is_generated

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

TASKS_A_TABLE = 5
"""Tasks whose scores stand side by side in 80 columns."""


def leaderboard_tables(boards: Sequence[Board], new: Collection[str] = ()) -> list[RenderableType]:
    """Returns what to print for boards, in order, for `rich.console.Console.print`; rows with `new` results say so."""
    from rich.text import Text

    parts: list[RenderableType] = []
    for board in boards:
        if board.rows:
            parts.append(_ranks(board, new))
        n_tables = -(-len(board.columns) // TASKS_A_TABLE)
        for number in range(n_tables):
            first, last = (len(board.columns) * k // n_tables for k in (number, number + 1))
            parts.append(_scores(board, board.columns[first:last]))
        if len(board.ranked) > 1:
            parts.append(Text.from_markup(rich_text(numbers.legend(board), 2000)))
        notes = [f"Not ranked: {row.label}: {row.unranked}." for row in board.rows if row.unranked]
        notes += [f"{row.label}: {'; '.join(row.flags)}." for row in board.rows if row.flags]
        notes += [f"Note: {text}" for text in board.notes]
        notes += [f"Failed: {f.label}, seed {f.seed}: {f.reason}" for f in board.failures]
        notes += [f"Left out: {text}" for text in board.left_out]
        if is_generated(board.suite):
            notes.append("Embedded suite: generated miniature tasks, not the public benchmarks.")
        parts += [Text.from_markup(rich_text(note)) for note in notes]
    return parts


def _ranks(board: Board, new: Collection[str]) -> Table:
    table = _table(f"{board.title}: {numbers.budget(board)}")
    for name in ("Place", "Method", "Overall", "Worst seed", "Trained", "Seeds"):
        table.add_column(name, justify="left" if name == "Method" else "right", no_wrap=name != "Method")
    for row in board.rows:
        between = f"\n{numbers.percents(row.overall_interval)}" if row.overall_interval else ""
        table.add_row(
            numbers.place(row),
            rich_text(row.label) + (" [green]new[/]" if row.has(new) else ""),
            f"{numbers.percent(row.overall)}{between}",
            numbers.percent(row.worst),
            numbers.share(row),
            numbers.seeds(row),
        )
    return table


def _scores(board: Board, columns: Sequence[Column]) -> Table:
    table = _table("")
    table.add_column("Method", overflow="fold")
    for column in columns:
        most = f" /{column.ceiling:.0f}" if column.unit == "points" else " %"
        table.add_column(rich_text(column.title) + most, justify="right", no_wrap=True)
    for row in board.rows:
        cells = (_cell(row.cells.get(column.task), column) for column in columns)
        table.add_row(rich_text(row.label), *cells)
    return table


def _cell(cell: Cell | None, column: Column) -> str:
    """Returns a score with its interval below it."""
    if cell is None:
        return numbers.NOTHING
    score = numbers.score(cell.score, column, out_of=False).removesuffix(" %")
    return f"{score}\n{numbers.interval(cell.interval, column)}"


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=rich_text(title) or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
