"""A leaderboard as LaTeX for a paper: a booktabs table a board, in bold the best and what does not differ from it."""

from __future__ import annotations

from collections.abc import Sequence

from mmpt_bench.board.board import Board, Column, Row
from mmpt_bench.board.writers import numbers
from mmpt_bench.board.writers.markdown import EMBEDDED_REMARK
from mmpt_bench.common.escaping import latex
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM
from mmpt_bench.stats.intervals import Interval

HEAD = (
    "% Made by `mmpt-bench leaderboard --format latex`; it needs \\usepackage{booktabs,adjustbox} and "
    "\\usepackage[T1]{fontenc}."
)
NOTHING = "--"


def leaderboard_latex(boards: Sequence[Board]) -> bytes:
    """Returns a table for each board that has a row, the same bytes for the same boards.

    A score is bold where its method shares a letter with the best that has a place in its column: they are not
    significantly different. A score of other seeds than the others' has no place, and is never bold. Where no
    difference is significant, everything that is ranked is bold, and the caption says why.
    """
    tables = [_table(board) for board in boards if board.rows]
    return ("\n\n".join([HEAD, *tables]) + "\n").encode()


def _table(board: Board) -> str:
    columns = "l" + "r" * (len(board.columns) + 1) + "lr"
    units = ["of " + f"{c.ceiling:.0f}" if c.unit == "points" else r"\%" for c in board.columns]
    units += [r"\%", "", r"\%"]
    head = ["Method", *(latex(column.title) for column in board.columns), "Overall", "Place", "Trained"]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_caption(board)}}}",
        rf"\label{{tab:mmpt-bench-{board.track}{board.id.removeprefix(board.track).replace('-first', '')}}}",
        # Six tasks with their intervals are wider than most papers' text.
        r"\begin{adjustbox}{max width=\textwidth}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        f"{' & '.join(head)} \\\\",
        f"{' & '.join(['', *units])} \\\\",
        r"\midrule",
        *(_row(row, board) for row in board.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{adjustbox}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _row(row: Row, board: Board) -> str:
    cells = [latex(row.label), *(_cell(row, column, board) for column in board.columns)]
    overall, place = NOTHING, NOTHING
    if row.overall is not None:
        overall = _figure(row.overall, row.overall_interval, 100.0, row in board.leaders)
        place = latex(numbers.place(row, board))
    return f"{' & '.join([*cells, overall, place, latex(numbers.share(row).removesuffix(' %'))])} \\\\"


def _cell(row: Row, column: Column, board: Board) -> str:
    cell = row.cells.get(column.task)
    if cell is None:
        return NOTHING
    best = next((c.groups for r in board.rows if (c := r.cells.get(column.task)) is not None and c.place == 1), "")
    is_best = bool(set(cell.groups) & set(best))
    return _figure(cell.score, cell.interval, 1.0 if column.unit == "points" else 100.0, is_best)


def _figure(value: float, interval: Interval | None, scale: float, is_best: bool) -> str:
    text = _number(scale * value)
    # A minus is mathematics, which `\textbf` alone leaves light.
    weight = r"\boldmath" if text.startswith("$") else ""
    figure = rf"\textbf{{{weight}{text}}}" if is_best else text
    if interval is None:
        return figure
    return rf"{figure} {{\scriptsize [{_number(scale * interval[0])}, {_number(scale * interval[1])}]}}"


def _number(value: float) -> str:
    text = f"{value:.1f}"
    return f"${text}$" if text.startswith("-") else text


def _caption(board: Board) -> str:
    n = len(board.seeds)
    seeds = "no seeds" if not n else "one seed" if n == 1 else f"{n} seeds"
    what = "seeds and images" if n > 1 else "images"
    others = "; ".join(f"{row.label}: {row.unranked}" for row in board.rows if row.unranked)
    others = f" Without a place overall: {others}." if others else ""
    text = (
        f"{board.title[0].upper()}{board.title[1:]}; {numbers.budget(board)}; {seeds}. In brackets: 95 % intervals "
        f"over {what}. Overall: mean over tasks of (score - chance) / (ceiling - chance). Bold: not significantly "
        f"different from the best that has a place in the column.{others} {numbers.legend(board)}"
    )
    if board.exploratory:
        text += f" Exploratory: fewer than {SEEDS_TO_CLAIM} seeds, so that no difference is significant."
    return latex(f"{text} {EMBEDDED_REMARK}" if board.is_embedded else text, 2000)
