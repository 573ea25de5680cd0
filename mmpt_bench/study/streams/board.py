"""Streams from their records: the measures of each method and strategy, with intervals, and the matrix of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmpt_bench.board.rescoring import Rescored, Samples, answers_of, check_track, edition, rescored
from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.keys import RATE
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.records.streams import Stream, Training, read_all
from mmpt_bench.runs.stages import NEW, Strategy
from mmpt_bench.stats.differences import Difference
from mmpt_bench.stats.resampling import Resampled, Runs, Tally, resample
from mmpt_bench.stats.streams import MEASURES, centred, measure, measured, merged, over_units
from mmpt_bench.study.streams.routes import Routes, read_routes

RESAMPLES = 1000
ROUTED = "routed"
ESSENTIAL, SUPERFICIAL = "essential_forgetting", "superficial_forgetting"
"""Forgetting of the most probable legal answers; and what that of the replies as they are read is above it: loss of the
answers' form (Chen et al. 2025, SEFE, arXiv:2505.02486)."""


@dataclass(frozen=True)
class StreamRow:
    """A method with a strategy."""

    label: str
    strategy: str
    trainings: tuple[Training, ...]
    """Those that are complete."""
    measures: dict[str, Difference]
    """By name: `MEASURES`, and the two kinds of forgetting."""
    tasks: tuple[str, ...]
    """Columns of `matrix`: those of the stream in the order of the first training, then the others."""
    matrix: np.ndarray
    """Score of each task after each stage, (stages, tasks), chance-corrected, mean over trainings; in several orders a
    stage is another task in each."""
    between: np.ndarray
    """95 % interval of each, (stages, tasks, 2): percentiles over trainings and images."""
    resampled: Resampled
    """The measures at each training."""

    @property
    def units(self) -> tuple[int, ...]:
        """Returns of each training which replicate it is."""
        return units_of(self.trainings)

    @property
    def n(self) -> int:
        """Returns how many trainings there are of which no two consist of the same runs."""
        return len(set(self.units))

    @property
    def method(self) -> str:
        """Returns the method without hyperparameters."""
        return self.label.partition(" (")[0]

    @property
    def name(self) -> str:
        """Returns what it is called."""
        return f"{self.label} {self.strategy}"


@dataclass(frozen=True)
class StreamBoard:
    """A stream with its results."""

    stream: Stream
    rows: tuple[StreamRow, ...]
    missing: tuple[str, ...]
    """Trainings that are not complete."""
    routed: dict[str, float] = field(default_factory=dict)
    """Share of each task's questions that the router sends to the task's own adapter; empty without `new-adapter`."""
    dated: str = ""
    """Day of the newest record, in words."""
    suite: str = ""


def stream_boards(
    store: Store, tasks: Mapping[str, Task], records: Sequence[Record] | None = None
) -> list[StreamBoard]:
    """Returns the streams of a results folder; UntrustedRecord where a record contradicts its own answers."""
    streams = read_all(store)
    if not streams:
        return []
    records = store.records() if records is None else records
    return [_board(store, stream, tasks, records) for stream in streams]


def _board(store: Store, stream: Stream, tasks: Mapping[str, Task], records: Sequence[Record]) -> StreamBoard:
    wanted = {run for training in stream.trainings for run in training.runs} | {stream.base}
    samples, found = Samples(store), {}
    done = [record for record in records if record.run in wanted and record.status == "ok" and record.task in tasks]
    editions = {r.task: edition(r) for r in done if stream.results.get(r.task) == r.eval_key}
    for record in done:
        # The same run may have been asked otherwise, too: on a subset, in another world, by another parse rule.
        if record.limit == stream.limit and edition(record) == editions.get(record.task):
            check_track(record)
            found[record.run, record.task] = rescored(record, tasks[record.task], samples)
    names = [name for name in stream.tasks if name in tasks and (stream.base, name) in found]
    groups: dict[tuple[str, str], list[Training]] = {}
    missing = []
    labels = _labels(stream.trainings, found)
    numbers: dict[tuple[tuple[str, ...], int], int] = {}
    for training in stream.trainings:
        if all((run, name) in found for run in training.runs for name in names) and set(training.order) <= set(names):
            groups.setdefault((labels[training.runs[-1]], training.strategy), []).append(training)
            numbers.setdefault((tuple(training.order), training.seed), len(numbers))
        else:
            missing.append(f"{training.label} {training.strategy}, seed {training.seed}, {' → '.join(training.order)}")
    own = {name: tasks[name] for name in names}
    routes = read_routes(store, stream.name)
    rows = []
    for (label, strategy), of in groups.items():
        is_new = routes is not None and Strategy.of(strategy).kind == NEW
        for name, by in ((strategy, None), *([(f"{strategy}, {ROUTED}", routes)] if is_new else [])):
            row = _row((label, name), of, found, stream.base, own, numbers, by)
            if row is None:
                missing.append(f"{label} {name}: a score is undefined in some bootstrap samples")
            else:
                rows.append(row)
    routed = {name: routes.accuracy(name) for name in stream.stream} if routes is not None else {}
    suite = next((each.record.suite for each in found.values()), "")
    newest = max((each.record.time for each in found.values()), default="")
    dated = f"newest record {newest[:10]}" if newest else "no date recorded"
    return StreamBoard(stream, tuple(rows), tuple(missing), routed, dated, suite)


def _labels(trainings: Sequence[Training], found: Mapping[tuple[str, str], Rescored]) -> dict[str, str]:
    """Returns what the row of each training is called, by its last run: with the learning rate where those of one
    method have several, as after a search between two commands."""
    params = {run: each.record.params for (run, _), each in found.items()}
    rates: dict[str, dict[str, float | None]] = {}
    for one in trainings:
        rates.setdefault(one.label, {})[one.runs[-1]] = params.get(one.runs[-1], {}).get(RATE)
    labels = {}
    for label, of in rates.items():
        several = len(set(of.values()) - {None}) > 1
        stem, opening = label.removesuffix(")"), ", " if label.endswith(")") else " ("
        for run, rate in of.items():
            labels[run] = f"{stem}{opening}{RATE}={rate})" if several and rate is not None else label
    return labels


def _row(
    key: tuple[str, str],
    trainings: Sequence[Training],
    found: Mapping[tuple[str, str], Rescored],
    base: str,
    tasks: Mapping[str, Task],
    numbers: Mapping[tuple[tuple[str, ...], int], int],
    routes: Routes | None = None,
) -> StreamRow | None:
    """Returns the measures of a method with a strategy; of new adapters with the choices of a router, if any.

    None where a score is undefined in some bootstrap samples.
    """
    numbered = {numbers[tuple(one.order), one.seed]: one for one in trainings}
    in_order = [numbered[k] for k in sorted(numbered)]
    orders = [one.order for one in in_order]
    by_answers = {}
    for answers in ("score", "strict", "constrained"):
        parts = {name: _resampled(name, tasks[name], numbered, found, base, answers, routes) for name in tasks}
        if all(part is not None for part in parts.values()):
            stages = {name: part[0] for name, part in parts.items() if part is not None}
            before = {name: part[1] for name, part in parts.items() if part is not None}
            by_answers[answers] = (measured(stages, before, orders), stages)
    if "score" not in by_answers:
        return None
    resampled, stages = by_answers["score"]
    units = units_of(in_order)
    own = over_units(resampled, units)
    measures = {name: measure(own, name) for name in resampled.methods if name in MEASURES}
    if "forgetting" in measures and {"strict", "constrained"} <= set(by_answers):
        both = over_units(merged({name: by_answers[name][0] for name in ("strict", "constrained")}), units)
        measures[ESSENTIAL] = measure(both, "constrained forgetting")
        measures[SUPERFICIAL] = measure(both, "strict forgetting", "constrained forgetting")
    matrix = np.mean(
        [[stages[name].by_seed[:, k] for name in [*order, *_others(tasks, order)]] for k, order in enumerate(orders)],
        axis=0,
    ).T
    columns = (*orders[0], *_others(tasks, orders[0]))
    draws = np.stack([stages[name].draws for name in columns], axis=-1)
    between = np.moveaxis(np.quantile(draws, [0.025, 0.975], axis=0), 0, -1)
    return StreamRow(*key, tuple(in_order), measures, columns, matrix, between, resampled)


def units_of(trainings: Sequence[Training]) -> tuple[int, ...]:
    """Returns of each training which replicate it is: in other orders, new adapters are the same runs, and one."""
    runs: dict[frozenset[str], int] = {}
    return tuple(runs.setdefault(frozenset(one.runs), len(runs)) for one in trainings)


def _others(tasks: Mapping[str, Task], order: Sequence[str]) -> list[str]:
    return [name for name in tasks if name not in order]


def _resampled(
    name: str,
    task: Task,
    trainings: Mapping[int, Training],
    found: Mapping[tuple[str, str], Rescored],
    base: str,
    answers: str,
    routes: Routes | None,
) -> tuple[Resampled, Resampled] | None:
    """Returns (a task's score after each stage, that of the untuned model), chance-corrected, on the same resamples.

    None where the score is undefined for one of them.
    """
    of_base = _tally(found[base, name], answers)
    runs: dict[str, Runs] = {}
    n_stages = max(len(one.runs) for one in trainings.values())
    for stage in range(n_stages):
        by_training: dict[int, Tally] = {}
        for k, one in trainings.items():
            run = one.runs[stage]
            if routes is not None:
                by_training[k] = _routed(name, one, stage, found, answers, routes)
                continue
            if Strategy.of(one.strategy).kind == NEW:
                # The task's own adapter as soon as there is one; before that, the untuned model.
                place = one.order.index(name) if name in one.order else n_stages
                run = one.runs[place] if place <= stage else ""
            by_training[k] = _tally(found[run, name], answers) if run else of_base
        runs[str(stage)] = by_training
    record = found[base, name].record
    if record.chance is None or record.ceiling is None:
        raise UntrustedRecord(f"The record of `{name}` in `{base}` lacks chance or ceiling. Run it again.")
    chance, ceiling = record.chance, record.ceiling
    try:
        scores, before = (
            resample(each, task.metric.values, task.headline, RESAMPLES, task=task.name)
            for each in (runs, {"base": of_base})
        )
    except ValueError:
        return None
    return centred(scores, chance, ceiling), centred(before, chance, ceiling)


def _routed(
    name: str, one: Training, stage: int, found: Mapping[tuple[str, str], Rescored], answers: str, routes: Routes
) -> Tally:
    """Returns the counts of a task where each question is answered by the adapter that the router takes."""
    seen = {task: found[run, name] for task, run in zip(one.order[: stage + 1], one.runs, strict=False)}
    first = next(iter(seen.values()))
    codes = {task: first.headline.codes(_answers(of, answers)) for task, of in seen.items()}
    taken = routes.of(name, first.record.samples, tuple(seen))
    return first.headline.counted([codes[task][at] for at, task in enumerate(taken)])


def _tally(of: Rescored, answers: str) -> Tally:
    return of.headline.counted(of.headline.codes(_answers(of, answers)))


def _answers(of: Rescored, answers: str) -> str:
    """Returns a record's answers, a character a sample: those of its score, "strict" or "constrained" ones."""
    if answers == "score":
        return answers_of(of.record)
    return of.record.parsed_choices if answers == "strict" else of.record.ranked_choices
