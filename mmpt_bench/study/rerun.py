"""The commands that make a board again, and those that make what it lacks."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence

from mmpt_bench.board.board import Board, Row
from mmpt_bench.data.examples import EXAMPLES_LEFT_OUT
from mmpt_bench.data.rows import COLUMNS_TOLD, LEFT_OUT
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog
from mmpt_bench.records import keys, learning_rates
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.keys import without_rate
from mmpt_bench.records.store import Store, results_folder
from mmpt_bench.sources.weights import EMBEDDED

PROGRAM = "mmpt-bench"
OPTIONS = ("steps", "batch_size", "max_length", "schedule")
"""Fields of a budget that `run` has an option for."""


def run_command(
    board: Board | None,
    store: Store,
    methods: Sequence[str],
    tasks: Sequence[str],
    seeds: Sequence[int],
    sets: Mapping[str, str] | None = None,
) -> str:
    """Returns the `run` command for methods, tasks and seeds under a board's conditions; None: under the default ones.

    Args:
        board: whose backbone, budget, precision, data and limit are kept.
        store: the results folder, named by `--out` where it is not the default one.
        methods: names; one that is not built in is written as a file.
        tasks: names, all built in ones as `all`.
        seeds: empty where nothing trains.
        sets: "method.field" -> value.
    """  # fmt: skip
    known, own = method_catalog.method_entries(), () if board is None else board.own_tasks
    words = [PROGRAM, "run", "--method", ",".join(name if name in known else f"./{name}.py" for name in methods)]
    named = ",".join(f"./{name}.py" if name in own else name for name in tasks)
    words += ["--tasks", "all" if set(tasks) == set(task_catalog.task_entries()) else named]
    words += ["--seeds", ",".join(map(str, seeds))] if seeds and tuple(seeds) != (0,) else []
    for name, value in (sets or {}).items():
        words += ["--set", f"{name}={value}"]
    words += _conditions(board) if board is not None else []
    return shlex.join([*words, *out_option(store)])


def tune_command(board: Board, store: Store, methods: Sequence[str]) -> str:
    """Returns the `tune` command for methods under a board's conditions, without what is of test data alone."""
    conditions = _conditions(dataclasses.replace(board, limit=None, asking={}))
    return shlex.join([PROGRAM, "tune", "--method", ",".join(methods), *conditions, *out_option(store)])


def out_option(store: Store) -> list[str]:
    """Returns the option that names the results folder, nothing where it is the default one; never a machine's path."""
    is_there = store.root.is_absolute() or ".." in store.root.parts
    return [] if store.root == results_folder() else ["--out", store.root.name if is_there else str(store.root)]


def reproduce(board: Board, store: Store) -> list[str]:
    """Returns the commands that train and evaluate everything a board shows, a line for each set of hyperparameters.

    Methods with the hyperparameters that they have by default here share one line; a row whose budget no option can
    give is repeated from the recipe of its run.
    """
    groups: dict[tuple[tuple[str, ...], tuple[int, ...], tuple[tuple[str, str], ...]], list[str]] = {}
    for row in [row for row in board.rows if not row.stage]:
        tasks = tuple(column.task for column in board.columns if column.task in row.cells)
        groups.setdefault((tasks, row.seeds, tuple(overrides(row, board, store).items())), []).append(row.method)
    # What does not train needs no seeds of its own: it joins a line with the same tasks.
    for (tasks, seeds, sets), methods in list(groups.items()):
        hosts = [key for key in groups if key[0] == tasks and key[1] and not key[2]]
        if not seeds and not sets and hosts:
            groups[hosts[0]] = [*methods, *groups[hosts[0]]]
            del groups[tasks, seeds, sets]
    lines = [
        run_command(board, store, _in_order(methods), tasks, seeds, dict(sets))
        for (tasks, seeds, sets), methods in groups.items()
    ]
    others = [row.label for row in board.rows if row.stage]
    lines += [f"# {label}: use `--recipe` with the recipe.yaml of each of its runs." for label in others]
    if not _has_options(board):
        others = sorted(set(board.budget) - set(OPTIONS))
        lines.insert(0, f"# {', '.join(others)} of the budget have no option: use `--recipe` with a run's recipe.yaml.")
    return lines


def overrides(row: Row, board: Board, store: Store) -> dict[str, str]:
    """Returns the `--set` options of a row: hyperparameters that the method would not have by itself."""
    entries = method_catalog.method_entries()
    if row.method not in entries:
        return {}
    plain = dataclasses.asdict(method_catalog.load_method(entries[row.method])())
    own = {k: v for k, v in without_rate(row.params).items() if v != plain.get(k)}
    if row.trains:
        known = [*learning_rates.read(store.root / learning_rates.FILE), *learning_rates.read(learning_rates.shipped())]
        wanted = learning_rates.Wanted(
            row.method, plain | row.params, board.backbone_fingerprint, board.corpus_fingerprint,
            Budget(**board.budget), board.dtype, plain,
        )  # fmt: skip
        found = learning_rates.look_up(known, wanted)
        if row.learning_rate != (found[0] if found is not None else plain["learning_rate"]):
            own["learning_rate"] = row.learning_rate
    return {f"{row.method}.{name}": str(value) for name, value in sorted(own.items())}


def _in_order(methods: Sequence[str]) -> list[str]:
    order = list(method_catalog.method_entries())
    return sorted(set(methods), key=lambda name: (order.index(name) if name in order else len(order), name))


def _conditions(board: Board) -> list[str]:
    plain = dataclasses.asdict(Budget())
    words: list[str] = []
    for name in OPTIONS:
        if board.budget.get(name, plain[name]) != plain[name]:
            words += [f"--{name.replace('_', '-')}", str(board.budget.get(name))]
    words += ["--dtype", keys.option(board.dtype)] if board.dtype != "float32" else []
    words += ["--backbone", board.backbone] if board.backbone != EMBEDDED else []
    words += _trained_on(board.corpus)
    # A judge stands in the task's file.
    for name, value in ((name, value) for name, value in board.asking.items() if name != "judge"):
        words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--limit", str(board.limit)] if board.limit is not None else []
    skipped = any(LEFT_OUT in column.dataset for column in board.columns) or board.corpus.endswith(EXAMPLES_LEFT_OUT)
    words += ["--on-bad-item", "skip"] if skipped else []
    from_folder = board.suite == "real" and any(
        column.dataset.startswith(("folder ", "file ")) for column in board.columns
    )
    for column in board.columns:
        for part in column.dataset.split(", "):
            if part.startswith(COLUMNS_TOLD):
                words += ["--columns", f"{column.task}.{part.removeprefix(COLUMNS_TOLD)}"]
    return words + (["--data", "FOLDER"] if from_folder else [])


def _trained_on(corpus: str) -> list[str]:
    """Returns the options that name training data; a file's own folder is not recorded, and stands as `FILE`."""
    name = corpus.partition("@")[0].removesuffix(EXAMPLES_LEFT_OUT).partition(", ")[0]
    if name in (EMBEDDED, keys.UNKNOWN):
        return []
    if (task := name.removesuffix(" train")) != name and task in task_catalog.task_entries():
        return ["--train-data", f"task:{task}"]
    words = (
        ["--train-data", "vision-flan", "--train-images", "FOLDER"]
        if name == "vision-flan"
        else ["--train-data", "FILE"]
    )
    return words + (["--decontaminate"] if ", decontaminated" in corpus else [])


def _has_options(board: Board) -> bool:
    plain = dataclasses.asdict(Budget())
    return all(value == plain.get(name) for name, value in board.budget.items() if name not in OPTIONS)
