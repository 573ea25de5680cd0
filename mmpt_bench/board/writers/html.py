"""What a notebook shows of results: tables as HTML, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mmpt_bench.board.board import Board, Row
from mmpt_bench.board.writers import numbers
from mmpt_bench.common.escaping import plain_text


def boards_html(boards: Sequence[Board]) -> str:
    """Returns the boards of a results folder: place, overall score and the score of each task, with intervals."""
    if not boards:
        return html_text("Nothing is recorded yet.")
    return "".join(_board(board) for board in boards)


def html_table(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a table of texts with a caption."""
    head = "".join(f"<th>{_shown(text)}</th>" for text in header)
    body = "".join(f"<tr>{''.join(f'<td>{_shown(text)}</td>' for text in line)}</tr>" for line in lines)
    caption = f'<caption style="text-align: left">{_shown(title)}</caption>' if title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_text(text: str) -> str:
    """Returns a paragraph."""
    return f"<p>{_shown(text, 2000)}</p>"


def _board(board: Board) -> str:
    header = ["Place", "Method", "Overall", *(column.title for column in board.columns), "Trained", "Seeds"]
    notes = [f"Not ranked: {row.label}: {row.unranked}." for row in board.rows if row.unranked]
    notes += [f"Failed: {failure.label}, seed {failure.seed}: {failure.reason}" for failure in board.failures]
    notes += [numbers.legend(board)] if len(board.ranked) > 1 else []
    return html_table(board.title, header, [_line(board, row) for row in board.rows]) + "".join(map(html_text, notes))


def _line(board: Board, row: Row) -> list[str]:
    overall = f"{numbers.percent(row.overall)} ({numbers.percents(row.overall_interval)})"
    cells = []
    for column in board.columns:
        cell = row.cells.get(column.task)
        between = f" ({numbers.interval(cell.interval, column)})" if cell and cell.interval else ""
        cells.append(numbers.score(cell.score, column) + between if cell else numbers.NOTHING)
    overall = numbers.NOTHING if row.overall is None else overall
    return [numbers.place(row, board), row.label, overall, *cells, numbers.share(row), numbers.seeds(row)]


def _shown(text: str, limit: int = 300) -> str:
    return escape(plain_text(text, limit))
