"""Scores and leaderboards as tables for programs: a row a score of a run, and a row a method and variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt_bench.board.board import Board, Failure, Row
from mmpt_bench.common.escaping import csv_table
from mmpt_bench.evaluation.metrics import MMEMetric
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.record import Record, asked_with

SCORES = (
    "setting", "suite", "backbone", "training_data", "dtype", "limit", "method", "variant", "ablation", "run", "seed",
    "task", "task_version", "dataset", "asked", "parse_rule", "metric", "is_headline", "value", "ci_low", "ci_high",
    "n", "unit",
)  # fmt: skip
"""Columns of scores.csv."""
BEFORE = ("setting", "suite", "backbone", "limit", "method", "variant", "seeds", "place", "groups", "overall", "ci_low",
          "ci_high")  # fmt: skip
AFTER = ("trainable", "remarks")
"""Columns of leaderboard.csv before and after its tasks."""
OF_SOME = ("perception", "cognition")
"""Metrics of some of a task's questions, beside those that a subset or a class stands in: "acc/OCR"."""


def score_rows(
    records: Sequence[Record], named: Mapping[str, tuple[str, str]], tasks: Mapping[str, Task]
) -> list[dict[str, Any]]:
    """Returns a row for each run, task and metric of the finished records, in their order.

    Args:
        records: of a results folder.
        named: (variant, ablation or "") of each record, by its `eval_key`: see `from_records.named`.
        tasks: by name; they know the unit of a score.
    """
    rows = []
    for record in (record for record in records if record.status == "ok"):
        variant, ablation = named[record.eval_key]
        of_run = {
            "setting": record.track, "suite": record.suite, "backbone": record.backbone,
            "training_data": record.corpus, "dtype": record.dtype, "limit": record.limit, "method": record.method,
            "variant": variant, "ablation": ablation or None, "run": record.run, "seed": record.seed,
            "task": record.task, "task_version": record.task_version, "dataset": record.dataset,
            "asked": asked_with(record.asking) or None, "parse_rule": record.parse_rule,
        }  # fmt: skip
        for metric, value in record.values.items():
            is_headline = metric == record.headline
            low, high = record.interval if is_headline and record.interval else (None, None)
            of_score = {"metric": metric, "is_headline": is_headline, "value": value, "ci_low": low, "ci_high": high}
            is_of_all = is_headline or not ("/" in metric or metric in OF_SOME)
            n = record.n if is_of_all else None
            row = of_run | of_score | {"n": n, "unit": _unit(record, metric, tasks)}
            rows.append({name: row[name] for name in SCORES})
    return rows


def _unit(record: Record, metric: str, tasks: Mapping[str, Task]) -> str:
    """Returns "points" or "fraction"; of a task that is not here, as MME's where its headline reaches more than 1."""
    if record.task in tasks:
        return tasks[record.task].metric.declared(metric).unit
    if record.ceiling is None:
        return ""
    return "fraction" if record.ceiling == 1 else MMEMetric().declared(metric).unit


def leaderboard_rows(boards: Sequence[Board]) -> tuple[list[str], list[dict[str, Any]]]:
    """Returns the columns, and a row for each method and variant; a variant whose runs all failed has one too.

    A task has one column: the mean over seeds, in its own unit. Fixed columns are 14, so that the six tasks make 20;
    where replies of some board were read by another parse rule than the task's own, `parse_rule` is one more.
    """
    columns = dict.fromkeys(column.task for board in boards for column in board.columns)
    called = {task: f"{task} (task)" if task in (*BEFORE, "parse_rule", *AFTER) else task for task in columns}
    rows = []
    for board in boards:
        rows += [_row(board, row) | {called[t]: cell.score for t, cell in row.cells.items()} for row in board.rows]
        there = {row.label for row in board.rows}
        lost: dict[str, list[Failure]] = {}
        for failure in board.failures:
            if failure.label not in there:
                lost.setdefault(failure.label, []).append(failure)
        rows += [_failed_row(board, failures) for failures in lost.values()]
    rules = ["parse_rule"] if any(board.rule for board in boards) else []
    names = [*BEFORE, *rules, *called.values(), *AFTER]
    return names, [{name: row[name] for name in names if name in row} for row in rows]


def _row(board: Board, row: Row) -> dict[str, Any]:
    low, high = row.overall_interval or (None, None)
    return {
        **_setting(board),
        "method": row.method, "variant": row.label, "seeds": len(row.scored) if row.trains else None,
        "place": row.place, "groups": "" if board.exploratory else row.groups, "overall": row.overall,
        "ci_low": low, "ci_high": high,
        "trainable": row.trainable, "remarks": "; ".join(each for each in (row.unranked, *row.flags) if each),
    }  # fmt: skip


def _failed_row(board: Board, failures: Sequence[Failure]) -> dict[str, Any]:
    told = "; ".join(f"seed {failure.seed} failed: {failure.reason}" for failure in failures)
    return _setting(board) | {"method": failures[0].method, "variant": failures[0].label, "remarks": told}


def _setting(board: Board) -> dict[str, Any]:
    names = ("suite", "backbone", "limit")
    return {"setting": board.track, "parse_rule": board.rule or None} | {name: getattr(board, name) for name in names}


def scores_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns scores.csv; what is unknown is empty."""
    return csv_table(SCORES, rows)


def leaderboard_csv(boards: Sequence[Board]) -> bytes:
    """Returns leaderboard.csv; what is unknown is empty."""
    return csv_table(*leaderboard_rows(boards))
