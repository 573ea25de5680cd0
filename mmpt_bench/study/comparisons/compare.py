"""`mmpt-bench compare A B`: one sentence on who is better, and the table that it rests on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TypeVar

from mmpt_bench.board.assembly import RESAMPLES, Evidence, assembled, with_own_seeds
from mmpt_bench.board.board import Board
from mmpt_bench.board.contrasts import Scope, contrasts
from mmpt_bench.board.from_records import evidence
from mmpt_bench.board.rescoring import Samples, by, check_track, known_tasks, one_edition, other_rule
from mmpt_bench.board.writers import numbers
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.evaluation.task import Task
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store, published_folder
from mmpt_bench.study.ablations.board import ablation_boards
from mmpt_bench.study.comparisons.text import ComparisonResult, sentence, threads_note
from mmpt_bench.study.rerun import run_command

T = TypeVar("T")
RUN = ("mmpt-bench", "run")
PUBLISHED = "published"
"""Names the published board, or with `:NAME` a row of it."""


def answer_to(
    store: Store,
    names: Sequence[str],
    tasks: Mapping[str, Task],
    scope: Scope | None = None,
    setting: str = "",
    only: Sequence[str] = (),
    n_resamples: int = RESAMPLES,
    published: Store | None = None,
) -> ComparisonResult:
    """Returns how some methods, variants or runs differ, pair by pair.

    Args:
        store: the results folder.
        names: labels of a board or an ablation, methods that have one row there, or runs (their beginnings do);
            `published:NAME` is a row of the published board in the same setting, `published` stands for all of them.
        tasks: every task that records may be of, by name, in the order of the columns.
        scope: "method", "checkpoint"; by default what the seeds allow.
        setting: of the board, where several hold the names.
        only: tasks that count; all where it is empty.
        n_resamples: of every interval.
        published: the results folder of the published board; that of the project by default.

    Raises:
        RequestError: as `compare` does.
    """
    if len(set(names)) < 2 and PUBLISHED not in names:
        raise RequestError("Name two methods or more: `mmpt-bench compare lora mmpt`.")
    records = store.records()
    tasks = known_tasks(tasks, records)
    own = [name for name in names if name.partition(":")[0] != PUBLISHED]
    if len(own) < len(names):
        theirs = _of_setting(evidence(published or Store(published_folder()), tasks, n_resamples), setting)
        mine = _resolved(store, records, own, tasks, setting, n_resamples) if own else None
        found, labels = _beside_published(mine, theirs, names)
    else:
        found, labels = _resolved(store, records, names, tasks, setting, n_resamples)
    if only:
        found = _restricted(found, only)
    if only or len(own) < len(names):
        rows = tuple(
            with_own_seeds(found, row, tasks, n_resamples) if row.label in labels else row for row in found.board.rows
        )
        found = replace(found, board=replace(found.board, rows=rows))
    is_run = not {row.label for row in found.board.rows}.isdisjoint(record.run for record in records)
    is_own = {label: label.partition(":")[0] != PUBLISHED for label in labels}
    pairs = [pair for pair in combinations(labels, 2) if not own or any(is_own[label] for label in pair)]
    made = contrasts(found, tasks, pairs, "checkpoint" if is_run else scope, n_resamples)
    if is_run:
        made = tuple(replace(each, seeds=()) for each in made)
    if not made:
        seeds = "; ".join(f"{row.label}: {_seeds(row.seeds)}" for row in found.board.rows if row.label in labels)
        _check_resampled(found.board, labels)
        asked = f" at the scope `{scope}`" if scope else ""
        raise RequestError(
            f"{' and '.join(labels)} cannot be compared{asked}: they share no task, or too few seeds ({seeds}). "
            "Run them on the same tasks at the same seeds."
        )
    told = sentence(made, found.board) + threads_note(found.board, labels)
    return ComparisonResult(found.board, labels, made, told)


def _of_setting(published: Sequence[Evidence], setting: str) -> list[Evidence]:
    """Returns the published boards of a setting, all without one; RequestError where there is none."""
    found = _in_setting(published, [each.board for each in published], setting)
    if not found:
        raise RequestError(f"The published board has no setting `{setting[:40]}`. It has: {_told(published)}")
    return found


def _in_setting(of: Sequence[T], boards: Sequence[Board], setting: str) -> list[T]:
    """Returns what belongs to the boards that `--setting` names: the one of that id, or else all of that setting."""
    exact = [each for each, board in zip(of, boards, strict=True) if board.id == setting]
    return exact or [each for each, board in zip(of, boards, strict=True) if setting in ("", board.track)]


def _check_resampled(board: Board, labels: Sequence[str]) -> None:
    """Raises RequestError where all that rows share are numbers of the whole set."""
    rows = [row for row in board.rows if row.label in labels]
    shared = [column for column in board.columns if all(column.task in row.cells for row in rows)]
    if shared and not any(column.resampled for column in shared):
        told = ", ".join(f"`{column.headline}` of {column.title}" for column in shared)
        raise RequestError(f"{told} has no interval, so nothing tells a difference from chance.")


def _beside_published(
    mine: tuple[Evidence, tuple[str, ...]] | None, theirs: Sequence[Evidence], names: Sequence[str]
) -> tuple[Evidence, tuple[str, ...]]:
    """Returns a board with one's own rows and those of the published board in the same setting, and the labels.

    Args:
        mine: one's own board and labels; None where published rows alone are compared.
        theirs: the published boards.
        names: with those of published rows.
    """
    own, labels = mine or (theirs[0], ())
    same = next((e for e in theirs if e.board.id == own.board.id), None)
    if same is None:
        told = "; ".join(f"{each.board.title}, setting {each.board.track[:8]}" for each in theirs)
        raise RequestError(
            f"The published board has no results in the setting of {', '.join(labels)} ({own.board.track[:8]}). "
            f"It has: {told}. Rows compare where backbone, training data, budget, precision and limit are equal."
        )
    wanted = dict.fromkeys(row.label for row in same.board.rows) if PUBLISHED in names else {}
    for name in (name.partition(":")[2] for name in names if name.startswith(f"{PUBLISHED}:")):
        if not (label := _label(same.board, name)):
            known = [row.label for row in same.board.rows]
            _check_one_row([same], name, f"{PUBLISHED}:")
            hint = "`mmpt-bench leaderboard --published` shows them. Quote names that have spaces."
            raise unknown_name("row of the published board", name, known, hint)
        wanted[label] = None
    moved = {label: f"{PUBLISHED}:{label}" for label in wanted}
    rows = [replace(row, label=moved[row.label]) for row in same.board.rows if row.label in moved]
    rows += own.board.rows if mine else []
    what = {(c.task, c.version, c.data_fingerprint, c.decode) for c in same.board.columns}
    board = replace(
        own.board,
        rows=tuple(rows),
        columns=tuple(c for c in own.board.columns if (c.task, c.version, c.data_fingerprint, c.decode) in what),
        comparisons=(),
    )
    scores = (own.scores if mine else {}) | {moved[label]: same.scores[label] for label in moved}
    return Evidence(board, scores, None), (*labels, *moved.values())


def _seeds(seeds: Sequence[int]) -> str:
    return f"seeds {', '.join(map(str, seeds))}" if seeds else "not trained"


def _resolved(
    store: Store, records: list[Record], names: Sequence[str], tasks: Mapping[str, Task], setting: str, n_resamples: int
) -> tuple[Evidence, tuple[str, ...]]:
    """Returns the board that holds all the names, and their labels on it."""
    boards: list[Evidence] = []
    places = _of_runs(store, records, names, tasks, n_resamples)
    if not places:
        boards = list(evidence(store, tasks, n_resamples, records))
        places = _holding(boards, names)
    if not places:
        ablations = [each.evidence for each in ablation_boards(store, tasks, n_resamples, records)]
        boards += [each for each in ablations if each is not None]
        places = _holding(boards, names)
    if not places:
        known = [row.label for each in boards for row in each.board.rows]
        if not known:
            raise RequestError(
                f"Nothing is recorded in `{store.root}`. "
                f"`{shlex.join([*RUN, '--method', 'all', '--out', str(store.root)])}` makes something."
            )
        lost = next((name for name in names if not any(_label(each.board, name) for each in boards)), "")
        _check_one_row(boards, lost)
        if lost in method_catalog.method_entries():
            raise RequestError(
                f"`{lost}` has no finished run in `{store.root}`: `{_makes(lost, boards, names, store)}`."
            )
        if lost:
            _check_no_run(records, lost, names)
            raise unknown_name("method or run", lost, dict.fromkeys(known), "`mmpt-bench ls runs` lists what there is.")
        raise _apart({name: [each.board for each in boards if _label(each.board, name)] for name in names})
    chosen = _in_setting(places, [each.board for each, _ in places], setting)
    if not chosen:
        held = _told([each for each, _ in places])
        raise RequestError(
            f"`--setting` takes an id, and no board with `{setting[:40]}` holds {', '.join(names)}. {held}"
        )
    # A smoke test is no result, and stands in nobody's way; nor does a subset, or another rule, in that of the whole.
    chosen = [each for each in chosen if not each[0].board.is_smoke] or chosen
    ids = {each.board.id for each, _ in chosen}
    chosen = [each for each in chosen if each[0].board.id == setting or not _usual_ids(each[0].board) & ids]
    if len({each.board.id for each, _ in chosen}) > 1:
        raise RequestError(f"Several boards hold {', '.join(names)}: say which one. {_told([e for e, _ in chosen])}")
    return chosen[0]


def _usual_ids(board: Board) -> set[str]:
    """Returns the ids of the boards that are meant before a board: of all questions, and of each task's own rule."""
    by_own_rule = replace(board, columns=tuple(replace(column, rule="") for column in board.columns))
    return {each.id for each in (by_own_rule, replace(by_own_rule, limit=None))} - {board.id}


def _told(boards: Sequence[Evidence]) -> str:
    """Returns the options that name boards, each with what only it has of what they are called."""
    parts = [[*each.board.title.split(", "), numbers.budget(each.board)] for each in boards]
    shared = set.intersection(*map(set, parts))
    own = [", ".join(part for part in each if part not in shared) or each[0] for each in parts]
    return "; ".join(f"`--setting {each.board.id}`: {said}" for each, said in zip(boards, own, strict=True)) + "."


def _check_one_row(boards: Sequence[Evidence], method: str, prefix: str = "") -> None:
    """Raises RequestError for a method that has several rows."""
    several = list(dict.fromkeys(row.label for each in boards for row in each.board.rows if row.method == method))
    if several:
        told = ", ".join(f'"{prefix}{label}"' for label in several)
        raise RequestError(f"`{prefix}{method}` has several rows: {told}. Name one of them, in quotation marks.")


def _makes(lost: str, boards: Sequence[Evidence], names: Sequence[str], store: Store) -> str:
    """Returns the command that runs a method as the others were run: the first board that holds one of them."""
    held = [each.board for each in boards if any(_label(each.board, name) for name in names)]
    board = (held or [each.board for each in boards])[0]
    rows = [row for row in board.rows if held and row.label in {_label(board, name) for name in names}] or board.rows
    tasks = [c.task for c in board.columns if any(c.task in row.cells for row in rows)]
    seeds = sorted({seed for row in rows for seed in row.seeds})
    return run_command(board, store, [lost], tasks, seeds)


def _holding(boards: Sequence[Evidence], names: Sequence[str]) -> list[tuple[Evidence, tuple[str, ...]]]:
    """Returns the boards that have a row for every name, with their labels."""
    found = []
    for each in boards:
        labels = tuple(_label(each.board, name) for name in names)
        if all(labels):
            found.append((each, labels))
    return found


def _label(board: Board, name: str) -> str:
    """Returns the label that a name means on a board: its own, or the only row of a method; empty for none.

    `lr` and `learning_rate` are the same, as in the option of `ablate` and the field of a method.
    """
    if any(row.label == name for row in board.rows):
        return name
    alike = [row.label for row in board.rows if _with_rate(row.label) == _with_rate(name)]
    if len(alike) == 1:
        return alike[0]
    of_method = [row.label for row in board.rows if row.method == name]
    return of_method[0] if len(of_method) == 1 else ""


def _with_rate(label: str) -> str:
    """Returns a label with its learning rate, however that is called and written, as one text."""
    try:
        return re.sub(r"\b(lr|learning_rate)=([^,)]+)", lambda found: f"learning_rate={float(found[2]):g}", label)
    except ValueError:
        return label


def _run_of(runs: Sequence[str], name: str) -> list[str]:
    """Returns the runs whose names begin so; none for a name without the dash that every run's has."""
    return [run for run in runs if run.startswith(name)] if "-" in name else []


def _check_no_run(records: Sequence[Record], lost: str, names: Sequence[str]) -> None:
    """Raises RequestError for the name of a run that stands beside names of methods, or for one that begins several."""
    done = {record.run: record for record in records if record.status == "ok"}
    runs = sorted(done)
    match = _run_of(runs, lost)
    if len(match) > 1:
        told = ", ".join(f"`{run}`" for run in match[:3])
        raise RequestError(f"`{lost}` begins the names of {len(match)} runs ({told}, ...): write more of it.")
    if match:
        methods = dict.fromkeys(
            done[r].method if (r := next(iter(_run_of(runs, name)), "")) else name for name in names
        )
        alone = f"methods alone (`{shlex.join(['mmpt-bench', 'compare', *methods])}`) or " if len(methods) > 1 else ""
        others = ", ".join(f"`{name}`" for name in names if not _run_of(runs, name))
        raise RequestError(f"`{lost}` is a run, {others} is none: name {alone}runs alone (`mmpt-bench ls runs`).")


def _of_runs(
    store: Store,
    records: Sequence[Record],
    names: Sequence[str],
    tasks: Mapping[str, Task],
    n_resamples: int,
) -> list[tuple[Evidence, tuple[str, ...]]]:
    """Returns boards with runs as rows, each a checkpoint, one of each setting; none where a name begins no run's.

    RequestError where no setting holds all of the runs.
    """
    records = [record for record in records if record.status == "ok"]
    runs = sorted({record.run for record in records})
    labels: list[str] = []
    for name in names:
        match = _run_of(runs, name)
        if len(match) != 1:
            return []
        labels += match
    chosen = [record for record in records if record.run in labels]
    found = []
    # All questions before a subset, and the own rule of each task before another, as boards are.
    keys = [(r.track, r.limit or 0, other_rule(r, tasks)) for r in chosen]
    for _, own in sorted(by(chosen, keys).items()):
        if {record.run for record in own} != {*labels}:
            continue
        for record in own:
            check_track(record)
        kept, left_out = one_edition(own, tasks)
        # Checkpoints have no seed in common; here each stands for itself.
        groups = by([replace(record, seed=0) for record in kept], [record.run for record in kept])
        samples, limit = Samples(store), own[0].limit
        made = assembled(own[0], groups, {}, limit, samples, tasks, n_resamples, left_out)
        found.append((made, tuple(labels)))
    if not found:
        raise _apart({run: [] for run in labels})
    return found


def _apart(held: Mapping[str, Sequence[Board]]) -> RequestError:
    """Returns the error for names that no board holds together, with the boards that hold each."""
    told = "; ".join(f"{name}: {', '.join(board.id for board in boards)}" for name, boards in held.items() if boards)
    return RequestError(
        f"No board holds all of {', '.join(held)}: they were run in different settings or on different subsets"
        f"{f' ({told})' if told else ''}. Run them with the same options: `mmpt-bench run --method A,B ...`."
    )


def _restricted(found: Evidence, only: Sequence[str]) -> Evidence:
    """Returns a board with some of its tasks."""
    missing = [name for name in only if name not in {c.task for c in found.board.columns}]
    if missing:
        raise RequestError(f"No run on this board was evaluated on `{missing[0]}`.")
    columns = tuple(column for column in found.board.columns if column.task in only)
    # What the board says of the mean is of all its tasks.
    comparisons = {task: pairs for task, pairs in found.comparisons.items() if task in only}
    return replace(found, board=replace(found.board, columns=columns), comparisons=comparisons)
