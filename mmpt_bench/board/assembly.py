"""From labelled records to a board: rows, cells with their intervals, places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmpt_bench.board.board import Board, Cell, Column, Failure, Row
from mmpt_bench.board.ranking import Ranked, ranked
from mmpt_bench.board.remarks import flags, of_seeds, threads
from mmpt_bench.board.rescoring import Rescored, Samples, by, decoding, rescored
from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.evaluation.scoring import interval_of
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.keys import earlier_params
from mmpt_bench.records.record import Record
from mmpt_bench.stats.claims import Comparison
from mmpt_bench.stats.intervals import Interval, percentile, seed_spread
from mmpt_bench.stats.resampling import Resampled, resample

RESAMPLES = 2000
OF_SEEDS = ("score", "interval_of", "by_seed", "sd", "strict", "constrained", "unreadable", "values")
"""Fields of a cell that follow from its seeds alone."""
Scores = dict[str, dict[str, dict[int, Rescored]]]
"""Label -> task -> seed -> result."""


@dataclass(frozen=True)
class Evidence:
    """A board, and the counts that everything on it is made from."""

    board: Board
    scores: Scores
    overall: Resampled | None
    """The chance-centred mean over tasks of the ranked rows, resampled; None where nothing is ranked."""
    comparisons: Mapping[str, tuple[Comparison, ...]] = field(default_factory=dict)
    """By task, and under `OVERALL`: all pairs of a column, each column one family of Holm."""


def assembled(
    first: Record,
    groups: Mapping[str, Sequence[Record]],
    failed: Mapping[str, Sequence[Record]],
    limit: int | None,
    samples: Samples,
    tasks: Mapping[str, Task],
    n_resamples: int,
    left_out: Sequence[str],
) -> Evidence:
    """Returns the board of labelled records, ranked.

    Args:
        first: a record of the board's track, which may be none of its rows.
        groups: the records of each row, by its label; of one edition of each task.
        failed: failed runs, by label.
        limit: questions a task, where not all were asked.
        samples: reads samples files.
        tasks: the tasks by name, in the order of the columns.
        n_resamples: of every interval.
        left_out: what the board says of records that are not on it.
    """
    kept = [record for group in groups.values() for record in group]
    scores, repeated = _scores(groups, samples, tasks)
    failures = tuple(
        Failure(r.method, label, r.run, r.seed, r.reason, _rate(r))
        for label, group in sorted(failed.items())
        for r in sorted(group, key=lambda r: r.seed)
    )
    of_task = by(kept, [record.task for record in kept])
    columns = [_column(tasks[name], of_task[name][0], samples) for name in tasks if name in of_task]
    various = len({record.threads for record in kept} - {""}) > 1
    rows = [_row(label, runs, failures, limit, tasks, various) for label, runs in sorted(scores.items())]
    empty = Board(
        track=first.track,
        suite=first.suite,
        backbone=first.backbone,
        backbone_fingerprint=first.backbone_fingerprint,
        corpus=first.corpus,
        corpus_fingerprint=first.corpus_fingerprint,
        budget=first.budget,
        dtype=first.dtype,
        limit=limit,
        columns=tuple(columns),
        rows=tuple(rows),
        seeds=(),
        exploratory=True,
        comparisons=(),
        failures=failures,
        left_out=(*left_out, *repeated),
        reference="",
        notes=(*_not_resampled(columns), *_notes(groups, first.budget)),
        asking=first.asking,
        own_tasks=tuple(sorted({r.task for r in kept if r.declared.get("file")})),
    )
    made = ranked(empty, scores, tasks, n_resamples)
    rows = [_over_seeds(row, scores[row.label], tasks, made, n_resamples) for row in made.board.rows]
    return Evidence(replace(made.board, rows=tuple(rows)), scores, made.overall, made.comparisons)


def with_own_seeds(evidence: Evidence, row: Row, tasks: Mapping[str, Task], n_resamples: int) -> Row:
    """Returns a row with the scores of all its own seeds, as if no other row stood beside it.

    Its overall score is of the same seeds, without a place among others and what is told from others; a row that lacks
    a task of the overall score keeps none.
    """
    alone, runs = replace(evidence.board, rows=(row,)), evidence.scores[row.label]
    made = ranked(alone, {row.label: runs}, tasks, n_resamples)
    (own,) = made.board.rows
    known = of_seeds(row, evidence.board.seeds)
    row = replace(row, flags=tuple(flag for flag in row.flags if flag not in known))
    if all(column.task in row.cells for column in evidence.board.columns if column.counts):
        row = replace(
            row,
            overall=own.overall,
            overall_interval=own.overall_interval,
            overall_by_seed=own.overall_by_seed,
            place=None,
            place_interval=None,
            groups="",
            retention={},
        )
    return _over_seeds(row, runs, tasks, made, n_resamples)


def _notes(groups: Mapping[str, Sequence[Record]], budget: Mapping[str, object]) -> tuple[str, ...]:
    """Returns what the records of each row say beside their scores, once each."""
    said = {f"{label}: {record.notes}." for label, group in groups.items() for record in group if record.notes}
    if budget:
        return tuple(sorted(said))
    unknown = "What these adapters were trained on, and for how long, is not known: places compare them as they are."
    return (unknown, *sorted(said))


def _not_resampled(columns: Sequence[Column]) -> tuple[str, ...]:
    """Returns a sentence for each task whose score has no interval by its nature."""
    return tuple(
        f"{column.title} has no interval, no place and no part in the overall score: `{column.headline}` is a number "
        "of the whole set, or of a metric in a user's file: it does not follow from sums over images."
        for column in columns
        if not column.resampled
    )


def _scores(
    groups: Mapping[str, Sequence[Record]], samples: Samples, tasks: Mapping[str, Task]
) -> tuple[Scores, list[str]]:
    """Returns every result in its place, and what was left out because a later one has the same place."""
    found: Scores = {}
    repeated = []
    known: dict[str, Rescored] = {}
    for label, record in sorted(
        ((label, r) for label, group in groups.items() for r in group),
        key=lambda each: (each[1].time, each[1].eval_key),
    ):
        by_task = found.setdefault(label, {}).setdefault(record.task, {})
        # What does not train has one result, whatever the seed of its recipe was.
        seed = record.seed if record.trainable else 0
        if seed in by_task:
            repeated.append(
                f"1 of `{record.task}` by `{by_task[seed].record.run}`: `{record.run}` has the same hyperparameters "
                "and seed, and is later."
            )
        if record.eval_key not in known:
            known[record.eval_key] = rescored(record, tasks[record.task], samples)
        by_task[seed] = known[record.eval_key]
    return found, repeated


def _column(task: Task, record: Record, samples: Samples) -> Column:
    asked = samples(record.samples)
    ceiling, chance = task.metric.ceiling(asked), task.metric.chance(asked)
    if record.ceiling not in (None, ceiling):
        raise UntrustedRecord(f"`{record.run}` says that `{task.name}` reaches {record.ceiling}; it reaches {ceiling}.")
    rule = "" if record.parse_rule == task.rule else record.parse_rule
    return Column(
        task=task.name,
        title=task.title + (f" ({rule})" if rule else ""),
        headline=task.headline,
        metric=task.metric,
        ceiling=ceiling,
        chance=chance,
        dataset=record.dataset,
        data_fingerprint=record.data_fingerprint,
        split=record.split,
        decode=decoding(record) + (f", parse rule {rule}" if rule else ""),
        rule=rule,
        guard=record.guard,
        version=record.task_version,
        n=len(asked),
        n_pictures=len({sample.cluster for sample in asked}),
        counts=False,
    )


def _row(
    label: str,
    runs: Mapping[str, Mapping[int, Rescored]],
    failures: Sequence[Failure],
    limit: int | None,
    tasks: Mapping[str, Task],
    various: bool,
) -> Row:
    """Returns a row without places and intervals; `various` where the board's trainings differ in threads."""
    records = [each.record for by_seed in runs.values() for _, each in sorted(by_seed.items())]
    first, trains = records[0], any(record.trainable for record in records)
    by_run = {record.run: record for record in records}.values()
    n_failed = sum(failure.label == label for failure in failures)
    row = Row(
        label=label,
        method=first.method,
        params=first.params | earlier_params(first.method, first.params),
        trains=trains,
        seeds=tuple(sorted({seed for by_seed in runs.values() for seed in by_seed})) if trains else (),
        cells={name: _cell(by_seed, tasks[name], trains) for name, by_seed in runs.items()},
        trainable=first.trainable,
        total=first.total,
        **_costs(list(by_run)),
        question_seconds=_question_seconds(records),
        adapter_bytes=max(record.adapter_bytes for record in by_run),
        learning_rate=_rate(first) if trains else None,
        learning_rate_source="; ".join(sorted({record.learning_rate_source for record in records})),
        flags=(),
        stage=first.stage,
        objective=first.objective,
    )
    return replace(row, flags=(*flags(row, records, n_failed, limit), *(threads(records) if various else [])))


def _costs(records: Sequence[Record]) -> dict[str, Any]:
    """Returns the time and memory of trainings as a row shows them: of those runs alone that were measured."""
    timed = [record for record in records if record.is_timed]
    seen = [record for record in records if record.is_memory_own]
    return {
        "train_seconds": _mean([record.train_seconds for record in timed]) if timed else None,
        "cpu_seconds": _mean([record.cpu_seconds for record in timed]) if timed else None,
        "peak_bytes": max((record.peak_bytes for record in seen), default=None),
        "own_bytes": max((record.peak_bytes - (record.resident_bytes or 0) for record in seen), default=None),
    }


def _question_seconds(records: Sequence[Record]) -> float | None:
    """Returns the seconds a question, of the evaluations that had an idle machine to themselves.

    That is the mean of each task's, weighed by its questions, so that rows with the same tasks are of the same
    questions; None where a task of the row has no such evaluation.
    """
    of: dict[str, list[Record]] = {record.task: [] for record in records}
    for record in records:
        if record.is_evaluation_timed:
            of[record.task].append(record)
    if not of or not all(of.values()):
        return None
    each = [(sum(r.eval_seconds for r in timed) / sum(r.n for r in timed), timed[0].n) for timed in of.values()]
    return sum(seconds * n for seconds, n in each) / sum(n for _, n in each)


def _over_seeds(
    row: Row, runs: Mapping[str, Mapping[int, Rescored]], tasks: Mapping[str, Task], made: Ranked, n_resamples: int
) -> Row:
    """Returns a row with the score and interval of each cell over the seeds that its place there is made from.

    Those are the shared seeds of the ranking, so that the columns of a ranked row average to its overall score. A row
    without a place has the scores of its own seeds, and says which.
    """
    cells = {}
    for name, cell in row.cells.items():
        labels, seeds = made.compared.get(name, ((), ()))
        own = {seed: runs[name][seed] for seed in seeds} if row.trains and row.label in labels else runs[name]
        of = _cell(own, tasks[name], row.trains)
        interval = _interval(row.label, own, tasks[name], made.headlines.get(name), n_resamples)
        scores = {each: getattr(of, each) for each in OF_SEEDS}
        cells[name] = replace(cell, interval=interval, **scores)
    scored = row.overall_by_seed or {seed for cell in cells.values() for seed in cell.by_seed}
    row = replace(row, cells=cells, scored=tuple(sorted(scored)))
    return replace(row, flags=(*of_seeds(row, made.board.seeds), *row.flags))


def _interval(
    label: str, by_seed: Mapping[int, Rescored], task: Task, common: Resampled | None, n_resamples: int
) -> Interval | None:
    """Returns the interval of one cell; None where the figure is undefined on some resamples (too few images).

    `common` is the headline of the rows that are ranked. Its draws are those that the row alone would give.
    """
    seeds = tuple(sorted(by_seed))
    if len(seeds) == 1:
        tally = by_seed[seeds[0]].headline_tally
        return interval_of(task, tally, n_resamples)
    if common is not None and common.seeds == seeds and label in common.methods:
        return percentile(common.draws[:, common.column(label)])
    try:
        tallies = {seed: by_seed[seed].headline_tally for seed in seeds}
        alone = resample({"": tallies}, task.metric.values, task.headline, n_resamples, task=task.name)
        return percentile(alone.draws[:, 0])
    except ValueError:
        return None


def _cell(by_seed: Mapping[int, Rescored], task: Task, trains: bool) -> Cell:
    """Returns a cell without place and interval."""
    results = [by_seed[seed] for seed in sorted(by_seed)]
    spread = seed_spread([result.values[task.headline] for result in results])
    shared = set.intersection(*(set(result.values) for result in results))
    return Cell(
        score=spread.mean,
        interval=None,
        interval_of="seeds and images" if len(results) > 1 else "images",
        by_seed={seed: by_seed[seed].values[task.headline] for seed in sorted(by_seed)} if trains else {},
        sd=spread.sd,
        strict=_mean([result.record.strict for result in results]),
        constrained=_mean([result.record.constrained for result in results]),
        unreadable=sum(result.record.n_unparsed / result.record.n for result in results) / len(results),
        values={name: sum(r.values[name] for r in results) / len(results) for name in sorted(shared)},
        eval_keys={seed: by_seed[seed].record.eval_key for seed in sorted(by_seed)},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _rate(record: Record) -> float | None:
    value = record.params.get("learning_rate")
    return float(value) if isinstance(value, int | float) and record.trainable else None
