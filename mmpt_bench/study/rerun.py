"""The commands that make a board again, and those that make what it lacks."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence

from mmpt_bench.board.board import Board, Column, Row
from mmpt_bench.data.examples import EXAMPLES_LEFT_OUT
from mmpt_bench.data.rows import COLUMNS_TOLD, LEFT_OUT, SHIFTED, is_generated, suite_of, world_of
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog
from mmpt_bench.records import keys, learning_rates
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.keys import without_rate
from mmpt_bench.records.store import Store, results_folder
from mmpt_bench.sources.weights import EMBEDDED

PROGRAM = "mmpt-bench"


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
    words += _conditions(board) + _asked(board, tasks) if board is not None else []
    return shlex.join([*words, *out_option(store)])


def tune_command(board: Board, store: Store, methods: Sequence[str], sets: Mapping[str, str] | None = None) -> str:
    """Returns the `tune` command for methods under a board's conditions, without what is of test data alone."""
    suite = suite_of(SHIFTED) if is_generated(board.suite) else board.suite
    conditions = _conditions(dataclasses.replace(board, suite=suite, limit=None, asking={}))
    fixed = [word for name, value in (sets or {}).items() for word in ("--set", f"{name}={value}")]
    return shlex.join([PROGRAM, "tune", "--method", ",".join(methods), *fixed, *conditions, *out_option(store)])


def out_option(store: Store) -> list[str]:
    """Returns the option that names the results folder, nothing where it is the default one; never a machine's path."""
    is_there = store.root.is_absolute() or ".." in store.root.parts
    return [] if store.root == results_folder() else ["--out", store.root.name if is_there else str(store.root)]


def reproduce(board: Board, store: Store) -> list[str]:
    """Returns the commands that train and evaluate everything a board shows, a line for each set of hyperparameters.

    Methods with the hyperparameters that they have by default here share one line, tasks whose replies are read by
    another rule than their own have lines of their own; a row that begins with another run's adapter, or learns from
    one, is repeated from the recipes of its runs.
    """
    groups: dict[tuple[tuple[str, ...], tuple[int, ...], tuple[tuple[str, str], ...]], list[str]] = {}
    for row in [row for row in board.rows if not row.stage and not row.objective]:
        for rule in dict.fromkeys(column.rule for column in board.columns):
            tasks = tuple(c.task for c in board.columns if c.task in row.cells and c.rule == rule)
            if tasks:
                sets = tuple(overrides(row, board, store).items())
                groups.setdefault((tasks, row.seeds, sets), []).append(row.method)
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
    others = [row.label for row in board.rows if row.stage or row.objective]
    return lines + [f"# {label}: use `--recipe` with the recipe.yaml of each of its runs." for label in others]


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
    """Returns the options that `run` and `tune` both need for a board's setting."""
    plain = dataclasses.asdict(Budget())
    words: list[str] = []
    for name, usual in plain.items():
        if board.budget.get(name, usual) != usual:
            words += [f"--{name.replace('_', '-')}", str(board.budget.get(name))]
    words += ["--dtype", keys.option(board.dtype)] if board.dtype != "float32" else []
    words += ["--backbone", board.backbone] if board.backbone != EMBEDDED else []
    words += _trained_on(board.corpus)
    # A judge stands in the task's file.
    for name, value in ((name, value) for name, value in board.asking.items() if name != "judge"):
        words += [f"--{name.replace('_', '-')}", str(value)]
    if is_generated(board.suite) and world_of(board.suite) != SHIFTED:
        words += ["--world", world_of(board.suite)]
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


def _asked(board: Board, tasks: Sequence[str]) -> list[str]:
    """Returns the options that say how tasks of a board were asked and read."""
    columns = [column for column in board.columns if column.task in tasks]
    words: list[str] = []
    for column in columns:
        name = _other_data(column)
        words += ["--dataset", f"{column.task}={name}"] if name else []
    for rule in sorted({column.rule for column in columns} - {""}):
        words += ["--parse", rule]
    return words + ([] if all(column.guard for column in columns) else ["--no-guard"])


def _other_data(column: Column) -> str:
    """Returns the name of the data set on the hub that a column's rows are of; empty where it is the task's own."""
    entries = task_catalog.task_entries()
    found = re.match(r"`([^`]+)` at ", column.dataset)
    if found is None or column.task not in entries:
        return ""
    own = task_catalog.load_task(entries[column.task]).data
    known = {data.hub: name for name, data in own.alternatives.items()}
    return "" if found[1] == own.hub else known.get(found[1], found[1])


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
