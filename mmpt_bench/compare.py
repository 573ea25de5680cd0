"""`mmpt-bench compare A B`: one sentence on who is better, and the table that it rests on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmpt_bench import registry, shown
from mmpt_bench.ablation_board import ablation_boards
from mmpt_bench.ablation_files import p_value
from mmpt_bench.assemble import RESAMPLES, Evidence, assembled
from mmpt_bench.board import Board, plain
from mmpt_bench.claims import SEEDS_TO_CLAIM, SIGNIFICANT
from mmpt_bench.contrast import OVERALL, Contrast, Scope, contrasts
from mmpt_bench.errors import RequestError, unknown_name
from mmpt_bench.escape import rich_text
from mmpt_bench.leaderboard import evidence
from mmpt_bench.rescore import Samples, by, check_track, one_edition
from mmpt_bench.store import Store
from mmpt_bench.task import Task

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Answer:
    """What is said of some rows of a board."""

    board: Board
    labels: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    sentence: str


def compare(out: Path, names: Sequence[str], scope: Scope | None, tasks: str, track: str, as_json: bool) -> int:
    """Prints the answer to which of some methods, variants or runs is better; returns 0.

    Raises:
        RequestError: nothing, or several boards, hold all the names; or they cannot be compared at the scope.
    """
    known = registry.built_in_tasks()
    wanted = {entry.name: registry.load_task(entry) for entry in registry.find("task", tasks)} if tasks else {}
    answer = answer_to(Store(out), names, known | wanted, scope, track, list(wanted))
    if as_json:
        click.echo(json.dumps(as_plain(answer), indent=1))
        return 0
    from rich.console import Console

    click.echo(answer.sentence)
    console = Console()
    for part in tables(answer):
        console.print(part)
    return 0


def answer_to(
    store: Store,
    names: Sequence[str],
    tasks: Mapping[str, Task],
    scope: Scope | None = None,
    track: str = "",
    only: Sequence[str] = (),
    n_resamples: int = RESAMPLES,
) -> Answer:
    """Returns how some methods, variants or runs differ, pair by pair.

    Args:
        store: the results folder.
        names: labels of a board or an ablation, methods that have one row there, or runs (their beginnings do).
        tasks: every task that records may be of, by name, in the order of the columns.
        scope: "method", "checkpoint"; by default what the seeds allow.
        track: of the board, where several hold the names.
        only: tasks that count; all where it is empty.
        n_resamples: of every interval.

    Raises:
        RequestError: as `compare` does.
    """
    if len(set(names)) < 2:
        raise RequestError("Name two methods or more: `mmpt-bench compare lora mmpt`.")
    found, labels = _resolved(store, names, tasks, track, n_resamples)
    if only:
        found = _restricted(found, only)
    is_run = not {row.label for row in found.board.rows}.isdisjoint(record.run for record in store.records())
    pairs = list(combinations(labels, 2))
    made = contrasts(found, tasks, pairs, "checkpoint" if is_run else scope, n_resamples)
    if is_run:
        made = tuple(replace(each, seeds=()) for each in made)
    if not made:
        seeds = "; ".join(f"{row.label}: {_seeds(row.seeds)}" for row in found.board.rows if row.label in labels)
        asked = f" at the scope `{scope}`" if scope else ""
        raise RequestError(
            f"{' and '.join(labels)} cannot be compared{asked}: they share no task, or too few seeds ({seeds}). "
            "Run them on the same tasks at the same seeds."
        )
    return Answer(found.board, labels, made, sentence(made, found.board))


def _seeds(seeds: Sequence[int]) -> str:
    return f"seeds {', '.join(map(str, seeds))}" if seeds else "not trained"


def _resolved(
    store: Store, names: Sequence[str], tasks: Mapping[str, Task], track: str, n_resamples: int
) -> tuple[Evidence, tuple[str, ...]]:
    """Returns the board that holds all the names, and their labels on it."""
    of_runs = _runs(store, names, tasks, n_resamples)
    if of_runs is not None:
        return of_runs
    boards = list(evidence(store, tasks, n_resamples))
    places = _holding(boards, names, track)
    if not places:
        ablations = [each.evidence for each in ablation_boards(store, tasks, n_resamples)]
        boards += [each for each in ablations if each is not None]
        places = _holding(boards, names, track)
    if not places:
        known = [row.label for each in boards for row in each.board.rows]
        if not known:
            raise RequestError(f"Nothing is recorded in `{store.root}`: `mmpt-bench run --method all` makes something.")
        lost = next((name for name in names if not any(_label(each.board, name) for each in boards)), "")
        several = list(dict.fromkeys(row.label for each in boards for row in each.board.rows if row.method == lost))
        if several:
            told = ", ".join(f"`{label}`" for label in several)
            raise RequestError(f"`{lost}` has several rows: {told}. Name one of them, in quotation marks.")
        if lost in registry.method_entries():
            tasks_there = ",".join(dict.fromkeys(c.task for each in boards for c in each.board.columns))
            raise RequestError(
                f"`{lost}` has no finished run in `{store.root}`: "
                f"`mmpt-bench run --method {lost} --tasks {tasks_there} --out {store.root}` makes one."
            )
        if lost:
            raise unknown_name("method or run", lost, dict.fromkeys(known), "`mmpt-bench ls runs` lists what there is.")
        raise RequestError(f"No board holds all of {', '.join(names)}: they were run on different tracks or limits.")
    if len(places) > 1 and len({each.board.track for each, _ in places}) > 1:
        told = "; ".join(f"`--track {each.board.track}`: {each.board.title}" for each, _ in places)
        raise RequestError(f"Several boards hold {', '.join(names)}: say which one. {told}.")
    return places[0]


def _holding(boards: Sequence[Evidence], names: Sequence[str], track: str) -> list[tuple[Evidence, tuple[str, ...]]]:
    """Returns the boards of a track that have a row for every name, with their labels."""
    found = []
    for each in boards:
        labels = tuple(_label(each.board, name) for name in names)
        if all(labels) and (not track or each.board.track == track):
            found.append((each, labels))
    return found


def _label(board: Board, name: str) -> str:
    """Returns the label that a name means on a board: its own, or the only row of a method; empty for none."""
    if any(row.label == name for row in board.rows):
        return name
    of_method = [row.label for row in board.rows if row.method == name]
    return of_method[0] if len(of_method) == 1 else ""


def _runs(
    store: Store, names: Sequence[str], tasks: Mapping[str, Task], n_resamples: int
) -> tuple[Evidence, tuple[str, ...]] | None:
    """Returns runs as rows of a board of their own, each a checkpoint; None where a name is no run's beginning."""
    records = [record for record in store.records() if record.status == "ok"]
    runs = sorted({record.run for record in records})
    labels = []
    for name in names:
        match = [run for run in runs if run.startswith(name)] if "-" in name else []
        if len(match) != 1:
            return None
        labels += match
    chosen = [record for record in records if record.run in labels]
    for record in chosen:
        check_track(record)
    kept, left_out = one_edition(chosen, tasks)
    # Checkpoints have no seed in common; here each stands for itself.
    groups = by([replace(record, seed=0) for record in kept], [record.run for record in kept])
    limit = chosen[0].limit
    return assembled(chosen[0], groups, {}, limit, Samples(store), tasks, n_resamples, left_out), tuple(labels)


def _restricted(found: Evidence, only: Sequence[str]) -> Evidence:
    """Returns a board with some of its tasks."""
    missing = [name for name in only if name not in {c.task for c in found.board.columns}]
    if missing:
        raise RequestError(f"No run on this board was evaluated on `{missing[0]}`.")
    columns = tuple(column for column in found.board.columns if column.task in only)
    return replace(found, board=replace(found.board, columns=columns))


def sentence(made: Sequence[Contrast], board: Board) -> str:
    """Returns what the first family of contrasts says, in one sentence for a pair, and a list for several."""
    main = [each for each in made if each.task == made[0].task]
    what = _what(main[0], board)
    if len(main) == 1:
        return _of_pair(main[0], board, what)
    better = [f"{each.better} over {_other(each)}" for each in main if each.better is not None]
    even = [f"{each.first} and {each.second}" for each in main if each.better is None]
    told = f"Separated on {what}: {'; '.join(better)}." if better else f"Nothing is separated on {what}."
    told += f" Not separated: {'; '.join(even)}." if even and better else ""
    return told + _few(main)


def _of_pair(each: Contrast, board: Board, what: str) -> str:
    size, low, high = (_amount(value, each, board) for value in (abs(each.difference.estimate), *_toward_better(each)))
    unit = _unit(each, board)
    basis = f"95 % interval {low} to {high}, p {p_value(each.p_holm)}"
    on = _basis(each)
    if each.scope == "checkpoint":
        where = f" at seed {each.seeds[0]}" if each.seeds else ""
        if each.better is not None:
            told = f"This checkpoint of {each.better} is better than that of {_other(each)}{where} on {what}: "
            return f"{told}by {size} {unit} ({basis}; {on}). Of the methods this says nothing: that takes seeds."
        found = _amount(each.detectable or 0.0, each, board)
        return (
            f"These checkpoints of {each.first} and {each.second} are not separated{where} on {what}: {_ahead(each)} "
            f"by {size} {unit} ({basis}; {on}); a difference of {found} would have been found 4 times of 5."
        )
    if each.better is not None:
        return f"{each.better} is better than {_other(each)} on {what}: by {size} {unit} ({basis}; {on})."
    flips = each.difference.p_sign_flip
    if each.p_holm <= SIGNIFICANT and flips is not None:
        basis += f", but the seeds alone do not agree: sign flips p {p_value(flips)}"
    could = (
        f"a difference of {_amount(each.detectable, each, board)} would have been found 4 times of 5"
        if each.detectable is not None
        else f"{len(each.seeds)} seeds can separate nothing, {SEEDS_TO_CLAIM} are needed"
    )
    return (
        f"{each.first} and {each.second} are not separated on {what}: {_ahead(each)} by {size} {unit} "
        f"({basis}; {on}); {could}."
    )


def _toward_better(each: Contrast) -> tuple[float, float]:
    """Returns the interval of the difference in favour of the one that is ahead."""
    low, high = each.difference.interval
    return (low, high) if each.difference.estimate >= 0 else (-high, -low)


def _basis(each: Contrast) -> str:
    seeds = f"{len(each.seeds)} seeds, " if each.scope == "method" else ""
    return f"{seeds}{each.n_pictures:,} pictures"


def _few(main: Sequence[Contrast]) -> str:
    few = [each for each in main if each.scope == "method" and each.detectable is None]
    return f" Fewer than {SEEDS_TO_CLAIM} seeds can separate nothing." if few else ""


def _ahead(each: Contrast) -> str:
    return f"{each.first if each.difference.estimate >= 0 else each.second} is ahead"


def _other(each: Contrast) -> str:
    return each.second if each.better == each.first else each.first


def _what(each: Contrast, board: Board) -> str:
    if each.task == OVERALL:
        return f"the mean of {len(each.tasks)} tasks"
    return next(c.title for c in board.columns if c.task == each.task)


def _amount(value: float, each: Contrast, board: Board) -> str:
    column = next((c for c in board.columns if c.task == each.task), None)
    scale = 1.0 if column is not None and column.unit == "points" else 100.0
    return f"{scale * value:.1f}"


def _unit(each: Contrast, board: Board) -> str:
    column = next((c for c in board.columns if c.task == each.task), None)
    if column is None:
        return "percentage points, chance removed"
    return "points" if column.unit == "points" else "percentage points"


def as_plain(answer: Answer) -> dict[str, Any]:
    """Returns an answer as JSON values."""
    rows = [plain(row) for row in answer.board.rows if row.label in answer.labels]
    return {
        "sentence": answer.sentence, "track": answer.board.track, "board": answer.board.title,
        "contrasts": [dataclasses.asdict(each) for each in answer.contrasts], "rows": rows,
        "families": "Holm over the pairs on the mean of the tasks, and over all pairs and tasks",
    }  # fmt: skip


def tables(answer: Answer) -> tuple[Table, Table]:
    """Returns what to print below the sentence: the differences, and the rows themselves."""
    return _table(answer), _rows_table(answer)


def _table(answer: Answer) -> Table:
    pairs = list(dict.fromkeys(f"{each.first} − {each.second}" for each in answer.contrasts))
    names = ("On", "Difference", "95 % interval", "p", "Found from", "Better")
    table = _empty(pairs[0], names) if len(pairs) == 1 else _empty("", ("Pair", *names))
    for each in answer.contrasts:
        column = next((c.title for c in answer.board.columns if c.task == each.task), "mean of tasks")
        low, high = (_amount(value, each, answer.board) for value in each.difference.interval)
        table.add_row(
            *([] if len(pairs) == 1 else [rich_text(f"{each.first} − {each.second}")]),
            rich_text(column),
            _amount(each.difference.estimate, each, answer.board),
            f"{low} to {high}",
            p_value(each.p_holm),
            shown.NOTHING if each.detectable is None else _amount(each.detectable, each, answer.board),
            rich_text(each.better or "not separated"),
        )
    return table


def _rows_table(answer: Answer) -> Table:
    """Returns the rows themselves: overall, rank with its interval, and how much of full fine-tuning's gain is kept."""
    table = _empty(answer.board.title, ("Method", "Overall", "Rank", "Place", "Gain recovered", "Trained", "Seeds"))
    for row in answer.board.rows:
        if row.label in answer.labels:
            table.add_row(
                rich_text(row.label),
                f"{shown.percent(row.overall)} ({shown.percents(row.overall_interval)})",
                shown.rank(row.rank),
                shown.rank(row.place, row.rank_interval),
                rich_text(shown.ratio(row.retention.get("gain_recovered"))),
                shown.share(row),
                shown.seeds(row),
            )
    return table


def _empty(title: str, names: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=rich_text(title) or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        # Labels of variants differ at their ends: none may be cut.
        is_text = name in ("Pair", "On", "Better", "Method")
        table.add_column(name, justify="left" if is_text else "right", overflow="fold")
    return table
