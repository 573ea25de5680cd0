"""Which rows of a board can be compared, and at which seeds.

The seeds that all ranked methods share are those of everything: overall scores, the columns of the tasks in them,
places, gains. So the columns of a ranked row, chance removed, average to its overall score. A row without some of them
has no place, and the scores of its own seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmpt_bench.board.board import Board, Column, Row


def seeds_of(row: Row, names: Sequence[str]) -> set[int] | None:
    """Returns the seeds at which a row has all of some tasks; None for a method that does not train."""
    return set.intersection(*(set(row.cells[name].eval_keys) for name in names)) if row.trains else None


def comparable(seeds: Mapping[str, set[int] | None]) -> tuple[list[str], tuple[int, ...], dict[str, str]]:
    """Returns (labels that can be compared, the seeds they share, why not for each other label)."""
    trained = {label: own for label, own in seeds.items() if own is not None}
    often = {
        s for own in trained.values() for s in own if 2 * sum(s in other for other in trained.values()) >= len(trained)
    }
    without = {
        label: f"has {len(own & often)} of the {len(often)} seeds that are compared"
        for label, own in trained.items()
        if 2 * len(own & often) < len(often) or not own & often
    }
    staying = {label: own & often for label, own in trained.items() if label not in without}
    shared = set.intersection(*staying.values()) if staying else set()
    if staying and not shared:
        without |= {label: "the methods have no seed in common" for label in staying}
    return [label for label in seeds if label not in without], tuple(sorted(shared)), without


def compared_on(
    column: Column, having: Sequence[Row], board: Board
) -> tuple[list[str], tuple[int, ...], dict[str, str]]:
    """Returns what `comparable` does of a task: at the seeds of the overall score where the task is part of it.

    So the columns of a ranked row average to its overall score. A row that lacks one of those seeds has no place there.
    """
    own = {row.label: seeds_of(row, [column.task]) for row in having}
    if not (column.counts and board.seeds):
        return comparable(own)
    n = len(board.seeds)
    lost = {
        label: f"has {len(seeds & {*board.seeds})} of the {n} seeds that are compared"
        for label, seeds in own.items()
        if seeds is not None and not seeds >= {*board.seeds}
    }
    return [label for label in own if label not in lost], board.seeds, lost
