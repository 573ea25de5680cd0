"""A leaderboard as CSV, for programs: a row a method and task, and a row a failed run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpt_bench.board.board import Board, Cell, Column, Row, plain
from mmpt_bench.common.escaping import csv_table


def leaderboard_csv(boards: Sequence[Board]) -> bytes:
    """Returns every method on every task, a row each; what is unknown is empty."""
    lines = [
        _csv_row(board, row, column, row.cells[column.task])
        for board in boards
        for row in board.rows
        for column in board.columns
        if column.task in row.cells
    ]
    lines += [_csv_failure(board, number) for board in boards for number in range(len(board.failures))]
    names = list(dict.fromkeys(name for line in lines for name in line))
    return csv_table(names, lines)


def _csv_row(board: Board, row: Row, column: Column, cell: Cell) -> dict[str, Any]:
    apart = ("values", "retention", "by_seed", "eval_keys", "interval", "place_interval", "gain_interval",
             "change", "change_interval")  # fmt: skip
    of_cell = {name: value for name, value in plain(cell).items() if name not in apart}
    ratios = {
        f"retention_{name}{suffix}": value
        for name, ratio in cell.retention.items()
        for suffix, value in (("", ratio.value), ("_low", _low(ratio.interval)), ("_high", _high(ratio.interval)),
                              ("_reason", ratio.reason))
    }  # fmt: skip
    costs = ("trainable", "total", "share", "train_seconds", "cpu_seconds", "peak_bytes", "own_bytes")
    return {
        **_csv_board(board),
        "method": row.method,
        "label": row.label,
        "params": row.params,
        "status": "ok",
        "task": column.task,
        **{name: value for name, value in plain(column).items() if name not in ("task", "title", "counts")},
        **of_cell,
        "worst_seed": cell.worst,
        "interval_low": _low(cell.interval),
        "interval_high": _high(cell.interval),
        "place_low": _low(cell.place_interval),
        "place_high": _high(cell.place_interval),
        "gain_low": _low(cell.gain_interval),
        "gain_high": _high(cell.gain_interval),
        "n_seeds": len(cell.by_seed) if row.trains else None,
        "seeds": " ".join(map(str, cell.by_seed)),
        **ratios,
        "overall": row.overall,
        "overall_low": _low(row.overall_interval),
        "overall_high": _high(row.overall_interval),
        "overall_worst_seed": row.worst,
        "overall_gain": row.gain,
        "overall_gain_low": _low(row.gain_interval),
        "overall_gain_high": _high(row.gain_interval),
        "overall_place": row.place,
        "overall_place_low": _low(row.place_interval),
        "overall_place_high": _high(row.place_interval),
        "overall_groups": row.groups,
        "overall_borderline": row.borderline,
        "unranked": row.unranked,
        **{name: getattr(row, name) for name in costs},
        "adapter_bytes": row.adapter_bytes,
        "learning_rate": row.learning_rate,
        "learning_rate_source": row.learning_rate_source,
        "flags": "; ".join(row.flags),
        "values": cell.values,
    }


def _csv_failure(board: Board, number: int) -> dict[str, Any]:
    failure = board.failures[number]
    return {
        **_csv_board(board), "method": failure.method, "label": failure.label, "status": "failed",
        "seeds": str(failure.seed),
        "learning_rate": failure.learning_rate, "unranked": f"failed: {failure.reason}", "flags": "failed",
    }  # fmt: skip


def _csv_board(board: Board) -> dict[str, Any]:
    return {name: getattr(board, name) for name in ("track", "suite", "backbone", "corpus", "dtype", "limit")}


def _low(interval: tuple[float, float] | tuple[int, int] | None) -> float | None:
    return None if interval is None else interval[0]


def _high(interval: tuple[float, float] | tuple[int, int] | None) -> float | None:
    return None if interval is None else interval[1]
