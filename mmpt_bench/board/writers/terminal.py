"""A leaderboard in the terminal: who is where, by how much tuning helped, the scores by task; 80 columns are enough."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from mmpt_bench.board.board import Board, Cell, Column, Row
from mmpt_bench.board.writers import numbers
from mmpt_bench.common.escaping import rich_text
from mmpt_bench.records.record import asked_with
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM, SIGNIFICANT

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

WIDTH, OF_METHOD, OF_TASK, OF_CHANGE = 80, 20, 12, 15
"""Columns of a terminal, and those that a method's name, a score and a difference take of them."""
GAP, LONG_HEADING = 3, 30
"""Columns between two of a table; a heading that is longer wraps."""
NARROW, WIDE, WIDEST = 72, 110, 120
"""So many columns have room for costs and seeds; for the worst seed and the share that is trained; for forgetting."""
FLAGS = {
    "exploratory": f"exploratory: fewer than {SEEDS_TO_CLAIM} seeds",
    "lr not searched": "learning rate not searched",
    "lr of other hyperparameters": "learning rate searched with other hyperparameters",
    "lr at edge": "learning rate at the edge of those searched",
    "limit": "",  # the board's title says it
}
"""What the flags of a row mean."""
DEGENERATE = re.compile(r"^degenerate: (.*)")


def leaderboard_tables(
    boards: Sequence[Board], new: Collection[str] = (), width: int = WIDTH, by_task: bool = False
) -> list[RenderableType]:
    """Returns what to print for boards, in order, for `rich.console.Console.print`.

    Args:
        boards: in order.
        new: keys of results whose rows are marked as new.
        width: columns of the terminal.
        by_task: changes from the untuned base are shown for each task too.
    """
    from rich.text import Text

    parts: list[RenderableType] = []
    for board in boards:
        if board.rows:
            title = f"{board.title}: {numbers.budget(board)}"
            parts += [Text.from_markup(f"[italic]{rich_text(title)}[/]"), _ranks(board, new, width)]
        parts += [_by_task(board, some, "Score by task", _cell) for some in _split(board.columns, width, OF_TASK)]
        if by_task and any(cell.change is not None for row in board.rows for cell in row.cells.values()):
            title = "Change from the untuned base by task"
            parts += [_by_task(board, some, title, _change) for some in _split(board.columns, width, OF_CHANGE)]
        if len(board.ranked) > 1:
            told = numbers.legend(board)
            if board.exploratory:
                told = f"Place: by the mean. Exploratory: fewer than {SEEDS_TO_CLAIM} seeds tell no two methods apart."
            parts.append(Text.from_markup(rich_text(told, 2000)))
        parts += [Text.from_markup(rich_text(note)) for note in _notes(board)]
    return parts


def answer(board: Board, keys: Collection[str]) -> str:
    """Returns one sentence on whether tuning helped: of the best row with some of these results; empty without any."""
    asked = [row for row in board.rows if row.has(keys)]
    tuned = [row for row in asked if row.label != board.base] or asked
    if not tuned:
        return ""
    if len(tuned) > 1 and (without := [row for row in tuned if row.unranked]):
        told = "; ".join(f"{row.label}: {row.unranked}" for row in without)
        return f"Not all of these methods have a place ({told}): none is called the highest; `compare` takes two."
    best = tuned[0]
    columns = [c for c in board.columns if c.counts and c.task in best.cells] or [
        c for c in board.columns if c.task in best.cells
    ]
    on = "+".join(c.title for c in columns) if len(columns) < 4 else f"the mean of {len(columns)} tasks"
    of: Row | Cell = best.cells[columns[0].task] if len(columns) == 1 else best
    column = columns[0] if isinstance(of, Cell) else None
    score = numbers.score(of.score, columns[0]) if isinstance(of, Cell) else numbers.signed(best.overall).lstrip("+")
    first = best.label if len(tuned) == 1 else f"Of {len(tuned)} tuned methods {best.label}"
    verb = "scores" if len(tuned) == 1 else "has the highest score:"
    said = f"{first} {verb} {score} on {on}" if score != numbers.NOTHING else f"{first} has no place on {on}"
    if of.change is None:
        between = (
            numbers.interval(of.interval, columns[0])
            if isinstance(of, Cell)
            else numbers.percents(best.overall_interval)
        )
        return f"{said}{_limit(board)} (95 % CI {between}; {_seeds(best, board)})."
    size = numbers.signed(abs(of.change), column).lstrip("+")
    where = f"{size} points {'above' if of.change > 0 else 'below'} the untuned base"
    where = where if of.change else "as much as the untuned base"
    interval = numbers.between(of.change_interval, column)
    return f"{said}{_limit(board)}, {where} (95 % CI {interval}; {_seeds(best, board)})."


def _limit(board: Board) -> str:
    if board.is_smoke:
        return " in a smoke test, which is no result"
    if board.suite.startswith("embedded-"):
        return f" in the {board.suite.removeprefix('embedded-')} world" + _first(board)
    return _first(board)


def _first(board: Board) -> str:
    before = f", {text}" if (text := asked_with(board.asking)) else ""
    before += f", read by the parse rule {board.rule}" if board.rule else ""
    return before + (f" ({board.subset})" if board.subset else "")


def _seeds(row: Row, board: Board) -> str:
    """Returns what a score or change rests on: "one seed, exploratory", "8 seeds", "6 seeds, p .012 after Holm, …"."""
    if not row.trains:
        return "not trained"
    n = len(row.scored)
    seeds = "one seed" if n == 1 else f"{n} seeds"
    pair = next((c for c in board.comparisons if {c.first, c.second} == {row.label, board.base}), None)
    if n < SEEDS_TO_CLAIM or board.exploratory:
        return f"{seeds}, exploratory"
    if pair is None:
        return seeds
    told = "significantly different" if pair.p_adjusted <= SIGNIFICANT else "not significantly different"
    return f"{seeds}, p {numbers.p_value(pair.p_adjusted)} after Holm, {told}"


def _split(columns: Sequence[Column], width: int, of_each: int) -> list[Sequence[Column]]:
    """Returns columns in groups that a table of some width has room for, all of about the same number."""
    groups: list[Sequence[Column]] = []
    for n_tables in range(1, len(columns) + 1):
        cuts = [len(columns) * k // n_tables for k in range(n_tables + 1)]
        groups = [columns[first:last] for first, last in pairwise(cuts)]
        if all(sum(max(of_each, len(_heading(each)) + GAP) for each in some) <= width - OF_METHOD for some in groups):
            break
    return groups


def _heading(column: Column) -> str:
    return column.title + (f" /{column.ceiling:.0f}" if column.unit == "points" else " %")


def _notes(board: Board) -> list[str]:
    notes = [f"Not ranked: {row.label}: {row.unranked}." for row in board.rows if row.unranked]
    notes += [f"{row.label}: {told}." for row in board.rows if (told := _flags(row))]
    notes += [f"Note: {text}" for text in board.notes]
    notes += [f"Failed: {f.label}, seed {f.seed}: {f.reason}" for f in board.failures]
    notes += [f"Left out: {text}" for text in board.left_out]
    if board.is_embedded:
        notes.append("Embedded suite: generated miniature tasks, not the public benchmarks.")
    return notes


def _flags(row: Row) -> str:
    flags = [DEGENERATE.sub(r"over 99 % of the answers on \1 are the same one", FLAGS.get(f, f)) for f in row.flags]
    return "; ".join(flag for flag in flags if flag)


def _ranks(board: Board, new: Collection[str], width: int) -> Table:
    table = _table("")
    changes = any(row.change is not None for row in board.rows)

    def change(row: Row) -> str:
        return _two(numbers.signed(row.change), numbers.between(row.change_interval))

    def forgetting(row: Row) -> str:
        told = numbers.forgetting(row, board)
        parts = told.replace(" (", "\n(").replace(", most on ", "\n").splitlines()
        return "\n".join(map(rich_text, parts))

    worst = width >= WIDE and any(len(row.seeds) > 1 for row in board.rows)
    shown: dict[str, Callable[[Row], str]] = {
        "Place": lambda row: numbers.place(row, board),
        "Method": lambda row: rich_text(row.label) + (" [green]new[/]" if row.has(new) else ""),
        "Overall": lambda row: _two(numbers.percent(row.overall), numbers.percents(row.overall_interval)),
        **({"vs. base": change} if changes else {}),
        **({"Worst seed": lambda row: numbers.percent(row.worst)} if worst else {}),
        **({"Forgetting": forgetting} if width >= WIDEST and changes else {}),
        **({"Trained": numbers.share} if width >= WIDE else {}),
        **({"Cost": numbers.cost, "Seeds": numbers.seeds} if width >= NARROW else {}),
    }  # fmt: skip
    for name in shown:
        # Labels of variants differ at their ends: none may be cut.
        is_method = name == "Method"
        table.add_column(name, justify="left" if is_method else "right", no_wrap=not is_method, overflow="fold")
    for row in board.rows:
        table.add_row(*(cell(row) for cell in shown.values()))
    return table


def _by_task(board: Board, columns: Sequence[Column], title: str, of: Callable[[Cell, Column], str]) -> Table:
    table = _table(title)
    longest = max((len(row.label) for row in board.rows), default=0)
    table.add_column("Method", overflow="fold", min_width=min(longest, OF_METHOD - GAP))
    for column in columns:
        # The title of a user's own task may be wider than a table: it wraps, and labels keep their room.
        wide = len(_heading(column)) > LONG_HEADING
        table.add_column(rich_text(_heading(column)), justify="right", no_wrap=not wide, min_width=OF_TASK - GAP)
    for row in board.rows:
        if of is _cell or row.label != board.base:
            found = [(row.cells.get(column.task), column) for column in columns]
            table.add_row(
                rich_text(row.label), *(numbers.NOTHING if c is None else of(c, column) for c, column in found)
            )
    return table


def _cell(cell: Cell, column: Column) -> str:
    """Returns a score with its interval below it."""
    score = numbers.score(cell.score, column, out_of=False).removesuffix(" %")
    return _two(score, numbers.interval(cell.interval, column))


def _change(cell: Cell, column: Column) -> str:
    return _two(numbers.signed(cell.change, column), numbers.between(cell.change_interval, column))


def _two(first: str, second: str) -> str:
    return first if second == numbers.NOTHING else f"{first}\n{second}"


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=rich_text(title) or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
                 min_width=len(title) or None)  # fmt: skip
