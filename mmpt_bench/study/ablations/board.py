"""The board of an ablation: its points as rows, in the order asked for, and how far each is from its base."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmpt_bench.board.assembly import RESAMPLES, Evidence, assembled, with_own_seeds
from mmpt_bench.board.board import Board, Row
from mmpt_bench.board.contrasts import Contrast, contrasts
from mmpt_bench.board.from_records import standing_failures
from mmpt_bench.board.rescoring import Samples, by, check_track, known_tasks, one_edition, other_rule
from mmpt_bench.data.rows import SHIFTED, world_of
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.ablations import Ablation, Point, read_all
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.option_texts import seeds_text
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM


@dataclass(frozen=True)
class AblationBoard:
    """An ablation with its results."""

    ablation: Ablation
    evidence: Evidence | None
    """None where no point has a result yet."""
    contrasts: tuple[Contrast, ...]
    """Each point minus its base, overall and by task."""
    missing: tuple[str, ...]
    """Labels of points without a result."""

    @property
    def rows(self) -> tuple[tuple[Point, Row], ...]:
        """Returns points and references with their rows, in the order asked for."""
        found = {row.label: row for row in self.evidence.board.rows} if self.evidence else {}
        return tuple((point, found[point.label]) for point in self.ablation.all_points if point.label in found)

    @property
    def few_seeds(self) -> tuple[str, ...]:
        """Returns the points whose seeds, or those shared with what they are compared with, are too few for a claim."""
        trains = {point.label: row for point, row in self.rows if row.trains and point in self.ablation.points}
        few = {c.first for c in self.contrasts if c.first in trains and len(c.seeds) < SEEDS_TO_CLAIM}
        few |= {label for label, row in trains.items() if len(row.seeds) < SEEDS_TO_CLAIM}
        return tuple(label for label in trains if label in few)

    @property
    def exploratory(self) -> str:
        """Returns a sentence on too few seeds: of all points, or of the points that it is true of; empty otherwise."""
        few, compared = self.few_seeds, {each.first for each in self.contrasts}
        if not few:
            return ""
        if compared <= {*few}:
            return f"fewer than {SEEDS_TO_CLAIM} seeds, so that no difference is significant."
        return f"fewer than {SEEDS_TO_CLAIM} seeds of {', '.join(few)}, so that their differences are not significant."

    @property
    def command(self) -> str:
        """Returns what makes what the page shows: the command as it was typed, with all seeds and tasks shown.

        The seeds are those of the points that are not what `run` trains by default: these share its runs with others.
        """
        words = shlex.split(self.ablation.command)
        rows = [(point, row) for point, row in self.rows if point in self.ablation.points]
        varied = [row for point, row in rows if not point.is_default] or [row for _, row in rows]
        if not words or not varied or self.evidence is None:
            return self.ablation.command
        if seeds := sorted({seed for row in varied for seed in row.seeds}):
            words = _with_option(words, "--seeds", seeds_text(seeds))
        shown = {column.task for column in self.evidence.board.columns}
        known = task_catalog.task_entries()
        if shown <= known.keys():
            words = _with_option(words, "--tasks", "all" if shown == known.keys() else ",".join(sorted(shown)))
        return shlex.join(words)


def _with_option(words: Sequence[str], option: str, value: str) -> list[str]:
    """Returns a command's words with a value of an option, in the place where it stood or at the end."""
    if option not in words:
        return [*words, option, value]
    at = words.index(option) + 1
    is_same = {*words[at].split(",")} == {*value.split(",")}
    return [*words[:at], words[at] if is_same else value, *words[at + 1 :]]


def base_of(point: Point, points: Sequence[Point]) -> Point | None:
    """Returns what a point is compared with: its method as it is by default, or else its method's first point."""
    own = [each for each in points if each.method == point.method]
    base = next((each for each in own if each.is_default), own[0])
    return None if base.key == point.key else base


def ablation_boards(
    store: Store, tasks: Mapping[str, Task], n_resamples: int = RESAMPLES, records: Sequence[Record] | None = None
) -> tuple[AblationBoard, ...]:
    """Returns the boards of all ablations of a results folder, by name; raises as `ablation_board` does."""
    definitions = read_all(store)
    if definitions and records is None:
        records = store.records()
    return tuple(ablation_board(store, each, tasks, n_resamples, records) for each in definitions)


def ablation_board(
    store: Store,
    ablation: Ablation,
    tasks: Mapping[str, Task],
    n_resamples: int = RESAMPLES,
    records: Sequence[Record] | None = None,
) -> AblationBoard:
    """Returns an ablation's board from whatever is recorded of its points, by seed and task.

    Args:
        store: the results folder.
        ablation: its definition.
        tasks: every task that records may be of, by name, in the order of the columns.
        n_resamples: of every interval.
        records: what `store.records()` returned, where it is known already.

    Raises:
        UntrustedRecord: a record contradicts its own answers, samples or setting.
    """
    keys = {point.key for point in ablation.all_points}
    known = store.records() if records is None else records
    tasks = known_tasks(tasks, known)
    records = [record for record in known if record.variant_key in keys]
    for record in records:
        check_track(record)
    done = [r for r in records if r.status == "ok" and r.limit == ablation.limit and _is_asked_plainly(r, tasks)]
    kept, left_out = one_edition(done, tasks)
    kept = _of_its_tasks(kept, {point.key for point in ablation.points})
    of_key = by(kept, [record.variant_key for record in kept])
    failed = standing_failures(records)
    failed_of = by(failed, [record.variant_key for record in failed])
    groups = {p.label: of_key[p.key] for p in ablation.all_points if p.key in of_key}
    failures = {p.label: failed_of[p.key] for p in ablation.all_points if p.key in failed_of}
    missing = tuple(p.label for p in ablation.all_points if p.key not in of_key and p.key not in failed_of)
    if not groups:
        return AblationBoard(ablation, None, (), missing)
    evidence = assembled(kept[0], groups, failures, ablation.limit, Samples(store), tasks, n_resamples, left_out)
    board = evidence.board
    order = {point.label: number for number, point in enumerate(ablation.all_points)}
    evidence = replace(evidence, board=replace(board, rows=tuple(sorted(board.rows, key=lambda r: order[r.label]))))
    bases = ((point, base_of(point, ablation.points)) for point in ablation.points)
    pairs = [
        (point.label, base.label)
        for point, base in bases
        if base is not None and point.label in groups and base.label in groups
    ]
    found = contrasts(evidence, tasks, pairs, None, n_resamples)
    rows = tuple(
        with_own_seeds(evidence, row, tasks, n_resamples) if _has_other_seeds(row, board) else row
        for row in evidence.board.rows
    )
    evidence = replace(evidence, board=replace(evidence.board, rows=rows))
    return AblationBoard(ablation, evidence, tuple(_of_points(each) for each in found), missing)


def _is_asked_plainly(record: Record, tasks: Mapping[str, Task]) -> bool:
    """Returns whether a result is such as `ablate` makes: in no other world, nothing before questions, the own rule."""
    return not record.asking and world_of(record.suite) == SHIFTED and not other_rule(record, tasks)


def _has_other_seeds(row: Row, board: Board) -> bool:
    """Returns whether a row has other seeds than those that all rows share: its scores are of its own."""
    return row.trains and any(cell.eval_keys.keys() != {*board.seeds} for cell in row.cells.values())


def _of_points(contrast: Contrast) -> Contrast:
    """Returns a contrast without a claim where it is of two trainings: a point is hyperparameters, not a seed."""
    is_of_trainings = contrast.scope == "checkpoint" and bool(contrast.seeds)
    return replace(contrast, better=None) if is_of_trainings else contrast


def _of_its_tasks(records: Sequence[Record], keys: set[str]) -> list[Record]:
    """Returns the records of the tasks that more than half of the points have, of those with any result; or else all.

    A method as it is by default is a point of many ablations, and was perhaps run on tasks that none of them asked for.
    """
    having: dict[str, set[str]] = {}
    for record in records:
        having.setdefault(record.task, set()).update({record.variant_key} & keys)
    n_points = len(set().union(*having.values()))
    shared = {task for task, points in having.items() if 2 * len(points) > n_points}
    return [record for record in records if record.task in shared or not shared]
