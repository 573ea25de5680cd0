"""What a results folder lacks for its scores to say more, and the command that gets it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from mmpt_bench.board.board import Board, Failure, Row
from mmpt_bench.board.ranking import FROZEN, FULL
from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.words import counted, plural
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.adapter_kept import not_kept
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.report.verdict import listed
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM
from mmpt_bench.study.ablations.board import AblationBoard
from mmpt_bench.study.rerun import overrides, run_command, tune_command

SHOWN = 5
"""Gaps of one kind that are named; the rest are counted."""


@dataclass(frozen=True)
class Gap:
    """Something that is not there."""

    what: str
    """A sentence: what is missing, and what cannot be said without it."""
    command: str
    """What gets it."""


def nothing_recorded(store: Store, has_ablations: bool = False) -> Gap:
    """Returns the gap of a results folder without a run of a method as it is by default."""
    what = "Nothing is recorded in this folder yet, so there is no board, no figure and no sample to show."
    if has_ablations:
        what = "No method was run as it is by default, so there is no leaderboard: the ablations stand alone."
    return Gap(
        what,
        run_command(
            None, store, list(method_catalog.method_entries()), list(task_catalog.task_entries()), range(SEEDS_TO_CLAIM)
        ),
    )


def of_ablation(board: AblationBoard) -> list[Gap]:
    """Returns the gap of an ablation's points without a result."""
    lost = board.missing
    if not lost:
        return []
    named = f"{', '.join(lost[:SHOWN])}{f' and {len(lost) - SHOWN} more' if len(lost) > SHOWN else ''}"
    n, total = len(lost), len(board.ablation.all_points)
    has = plural(n, "has", "have")
    return [Gap(f"{n} of {total} points of an ablation {has} no result: {named}.", board.command)]


def gaps(board: Board, store: Store) -> list[Gap]:
    """Returns what a board lacks, what matters most first."""
    return [*_failed(board, store), *_tasks(board, store), *_methods(board, store), *_cells(board, store),
            *_seeds(board, store), *_searches(board, store)]  # fmt: skip


def _failed(board: Board, store: Store) -> list[Gap]:
    found = []
    for failure in board.failures:
        tasks = [column.task for column in board.columns] or list(task_catalog.task_entries())
        found.append(
            Gap(
                f"{failure.label}, seed {failure.seed}, failed and is not ranked: {failure.reason}.",
                run_command(board, store, [failure.method], tasks, [failure.seed], _sets_of(failure, board, store)),
            )
        )
    return found


def _sets_of(failure: Failure, board: Board, store: Store) -> dict[str, str]:
    """Returns what `--set` must say of a failed run whose row has other runs that did not fail."""
    return next((overrides(row, board, store) for row in board.rows if row.label == failure.label), {})


def _tasks(board: Board, store: Store) -> list[Gap]:
    """Returns the gap of tasks without any finished run."""
    there = {column.task for column in board.columns}
    # On a board of users' own tasks alone, the project's are not missing; another parse rule is not for every task.
    is_of_some = bool(board.rule) or bool(there and there <= set(board.own_tasks))
    known = [] if is_of_some else task_catalog.task_entries()
    absent = [name for name in known if name not in there]
    rows = [row for row in board.rows if not row.stage and not row.objective]
    groups = _in_commands(rows, board, store)
    if not absent or not (groups or board.failures):
        return []
    text = f"{listed(absent)} {plural(len(absent), 'has', 'have')} no finished run"
    if not groups:
        methods = sorted({failure.method for failure in board.failures})
        return [Gap(f"{text} on this board.", run_command(board, store, methods, absent, _all_seeds(board)))]
    found, lost = [], _lost(board, store)
    for some, sets in groups:
        keys = {key for row in some for cell in row.cells.values() for key in cell.eval_keys.values()}
        tasks, told = _with_lost(board, absent, [each for each in lost if each.eval_key in keys])
        whose = f"of {listed([row.label for row in some])}" if len(groups) > 1 else "on this board"
        methods = sorted({row.method for row in some})
        found.append(Gap(f"{text} {whose}.{told}", run_command(board, store, methods, tasks, _all_seeds(board), sets)))
    return _first(found, "sets of hyperparameters lack them")


def _in_commands(rows: Sequence[Row], board: Board, store: Store) -> list[tuple[list[Row], dict[str, str]]]:
    """Returns rows by the command that can run them, with what its `--set` must say.

    A command runs a method with one set of hyperparameters: a second row of a method needs another one.
    """
    groups: list[tuple[list[Row], dict[str, str]]] = []
    for row in rows:
        own = overrides(row, board, store)
        for others, sets in groups:
            if all(other.method != row.method for other in others):
                others.append(row)
                sets |= own
                break
        else:
            groups.append(([row], own))
    return groups


def _methods(board: Board, store: Store) -> list[Gap]:
    there = {row.method for row in board.rows}
    tasks = [column.task for column in board.columns]
    if not tasks:
        return []
    if len(there) == 1:
        others = [name for name in method_catalog.method_entries() if name not in there]
        text = f"Only {listed(sorted(there))} was run, so there is nothing to compare it with."
        return [Gap(text, run_command(board, store, others, tasks, _all_seeds(board)))]
    found = []
    for name, use in ((FROZEN, "what tuning gained cannot be told"), (FULL, "retention has no reference")):
        if name not in there:
            seeds = _all_seeds(board) if name == FULL else ()
            found.append(Gap(f"{name} was not run: {use}.", run_command(board, store, [name], tasks, seeds)))
    return found


def _cells(board: Board, store: Store) -> list[Gap]:
    """Returns a gap for each method that lacks a task which others have."""
    found, lost = [], _lost(board, store)
    for row in board.rows:
        absent = [column for column in board.columns if column.task not in row.cells]
        if absent:
            text = f"{row.label} has no finished run on {listed([column.title for column in absent])}."
            sets, keys = (
                overrides(row, board, store),
                {key for cell in row.cells.values() for key in cell.eval_keys.values()},
            )
            own = [each for each in lost if each.eval_key in keys]
            tasks, told = _with_lost(board, [column.task for column in absent], own)
            found.append(Gap(text + told, run_command(board, store, [row.method], tasks, row.seeds, sets)))
    return _first(found, "methods lack a task")


def _lost(board: Board, store: Store) -> list[Record]:
    """Returns the results on a board of runs whose adapters were not kept, which can be asked nothing more."""
    found: list[Record] = []
    for run in store.runs():
        # Of what is damaged, other commands tell.
        with contextlib.suppress(UntrustedRecord):
            if not_kept(run):
                found += [record for record in run.records() if record.track == board.track]
    return found


def _with_lost(board: Board, absent: list[str], lost: Sequence[Record]) -> tuple[list[str], str]:
    """Returns the tasks to ask for, and what is said: a run that is trained again needs all of its tasks again."""
    if not lost:
        return absent, ""
    runs = sorted({record.run for record in lost})
    named = [f"`runs/{name}`" for name in runs[:SHOWN]]
    more = [f"{len(runs) - SHOWN:,} more, whose records say `adapter_kept`: false"] if len(runs) > SHOWN else []
    was, them = counted(len(runs), "adapter was", "adapters were"), plural(len(runs), "it", "them")
    told = (
        f" {was} not kept (`--keep-adapters`): first delete {listed([*named, *more])} in the results "
        f"folder; the command trains {them} again."
    )
    return list(dict.fromkeys([*(column.task for column in board.columns), *absent])), told


def _seeds(board: Board, store: Store) -> list[Gap]:
    """Returns a gap for the methods with few seeds, those with hyperparameters of their own each for itself."""
    few_seeds = [row for row in board.rows if row.trains and len(row.seeds) < SEEDS_TO_CLAIM]
    tasks, found = [column.task for column in board.columns], []
    for few, sets in _in_commands(few_seeds, board, store):
        text = (
            f"{listed([row.label for row in few])} {plural(len(few), 'has', 'have')} fewer than "
            f"{SEEDS_TO_CLAIM} seeds: no difference from {plural(len(few), 'it', 'them')} is significant."
        )
        methods = list(dict.fromkeys(row.method for row in few))
        found.append(Gap(text, run_command(board, store, methods, tasks, range(SEEDS_TO_CLAIM), sets)))
    return _first(found, "sets of hyperparameters have too few seeds")


def _first(found: list[Gap], what: str) -> list[Gap]:
    """Returns the first few gaps of a kind, the last of them saying how many more there are."""
    if len(found) <= SHOWN:
        return found
    last = found[SHOWN - 1]
    more = f" {len(found) - SHOWN:,} more {what}."
    return [*found[: SHOWN - 1], Gap(last.what + more, last.command)]


def _searches(board: Board, store: Store) -> list[Gap]:
    found = []
    groups = _in_commands([row for row in board.rows if "lr not searched" in row.flags], board, store)
    for rows, sets in groups:
        methods = [row.method for row in rows]
        named = listed([row.label for row in rows] if len(groups) > 1 else methods)
        text = f"The learning rate of {named} was not searched: a worse score may be of a worse learning rate."
        fixed = {name: value for name, value in sets.items() if not name.endswith(".learning_rate")}
        found.append(Gap(text, tune_command(board, store, methods, fixed)))
    return _first(found, "sets of hyperparameters have no search")


def _all_seeds(board: Board) -> Sequence[int]:
    return sorted({seed for row in board.rows for seed in row.seeds} | {failure.seed for failure in board.failures})
