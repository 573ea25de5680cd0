"""What a row says beside its scores: which seeds they are over, odd answers, how its learning rate was found."""

from __future__ import annotations

from collections.abc import Sequence

from mmpt_bench.board.board import Row
from mmpt_bench.records.record import Record, asked_with
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM


def flags(row: Row, records: Sequence[Record], n_failed: int, limit: int | None) -> list[str]:
    """Returns what is said of a row, from the records of its runs.

    Args:
        row: without its flags.
        records: of its runs.
        n_failed: runs of it that failed.
        limit: questions a task, where not all were asked.
    """
    source = row.learning_rate_source
    degenerate = sorted({record.task for record in records if record.degenerate})
    return [
        *(_fewer_seeds(records) if row.trains else []),
        *([f"degenerate: {', '.join(degenerate)}"] if degenerate else []),
        *_shares(records, "n_read_otherwise", "replies that a person reads otherwise than the parse rule"),
        *_shares(records, "n_unjudged", "verdicts of the judge that could not be read, in no mean"),
        *_shares(records, "n_unfinished", "replies that end inside their reasoning"),
        *([f"{n_failed} failed"] if n_failed else []),
        *(["limit"] if limit is not None else []),
        *([before] if (before := asked_with(records[0].asking)) else []),
        *(["close calls not asked again"] if not all(record.guard for record in records) else []),
        *(["lr not searched"] if row.trains and "searched:" not in source else []),
        *(["lr of other hyperparameters"] if "with other hyperparameters" in source else []),
        *(["lr at edge"] if "edge" in source else []),
    ]


def _fewer_seeds(records: Sequence[Record]) -> list[str]:
    """Returns a note on tasks that lack a seed which another task has."""
    seeds: dict[str, set[int]] = {}
    for record in records:
        seeds.setdefault(record.task, set()).add(record.seed)
    every = set().union(*seeds.values())
    told = [f"{task} {len(own)} of {len(every)}" for task, own in sorted(seeds.items()) if own != every]
    return [f"seeds of {', '.join(told)}"] if told else []


def _shares(records: Sequence[Record], field: str, what: str) -> list[str]:
    """Returns a note with the share of such replies on each task that has some, over all seeds."""
    of: dict[str, list[Record]] = {}
    for record in records:
        if getattr(record, field):
            of.setdefault(record.task, [])
    for record in records:
        if record.task in of and record.n:
            of[record.task].append(record)
    shares = {task: sum(getattr(r, field) or 0 for r in each) / sum(r.n for r in each) for task, each in of.items()}
    told = [f"{task} {f'{share:.1%}' if share >= 0.0005 else 'under 0.1%'}" for task, share in sorted(shares.items())]
    return [f"{what}: {', '.join(told)}"] if told else []


def threads(records: Sequence[Record]) -> list[str]:
    """Returns how many threads a row's trainings had: another number makes other adapters in their last bits."""
    known = sorted({record.threads for record in records if record.threads})
    return [f"trained with {' or '.join(known)} thread{'' if known == ['1'] else 's'}"] if known else []


def of_seeds(row: Row, shared: tuple[int, ...]) -> list[str]:
    """Returns what is said of the seeds that a row's scores are over: too few, or others than its own or the board's.

    Args:
        row: with its scores.
        shared: the seeds of the ranking.
    """
    if not row.trains:
        return []
    found = ["exploratory"] if len(row.scored) < SEEDS_TO_CLAIM else []
    told = ", ".join(map(str, row.scored))
    if row.scored != row.seeds:
        found.append(f"scores over seeds {told} alone, which all ranked rows have")
    elif row.unranked and shared and row.scored != shared:
        found.append(f"scores over its own seeds {told}")
    return found
