"""Streams from their records: measures with intervals, the matrix of scores, and both as CSV, Markdown and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt_bench.board.rescoring import Rescored, Samples, check_track, rescored
from mmpt_bench.common.escaping import csv_table, markdown, plain_text, rich_text
from mmpt_bench.common.files import write_atomic
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.records.streams import FOLDER, Stream, Training, read_all
from mmpt_bench.runs.stages import JOINT, NEW, Strategy
from mmpt_bench.stats.differences import Difference
from mmpt_bench.stats.resampling import Resampled, Runs, Tally, resample
from mmpt_bench.stats.streams import MEASURES, centred, measure, measured, merged

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from mmpt_bench.runs.estimate import PlanSummary

RESAMPLES = 1000
ESSENTIAL, SUPERFICIAL = "essential_forgetting", "superficial_forgetting"
"""Forgetting of the most probable legal answers; and what that of the replies as they are read is above it: loss of the
answers' form (Chen et al. 2025, SEFE, arXiv:2505.02486)."""
TITLES = {
    "last": "Last", "average": "Average", "fine_tuned": "At its\nstage", "backward_transfer": "Backward\ntransfer",
    "forgetting": "Forgetting", "forward_transfer": "Forward\ntransfer", "elsewhere": "Elsewhere",
}  # fmt: skip
NOTES = (
    "Scores are chance-corrected, in percentage points, with 95 % intervals over trainings and images (one training: "
    "images alone). **Last**: mean over the stream's tasks behind its last stage. **Average**: mean over stages of the "
    "mean over the tasks learnt so far. **At its stage**: mean of each task's score behind its own stage. **Backward "
    "transfer**: how far tasks rose (or fell, below 0) after their stage. **Forgetting**: how far they are below their "
    "best. **Forward transfer**: how far tasks were above the untuned model before their own stage. **Elsewhere**: "
    "change from the untuned model on tasks outside the stream.",
    "`new-adapter` trains one adapter a task and takes the right one (task identity is given). `joint` learns all "
    "tasks at once in as many steps.",
)


@dataclass(frozen=True)
class StreamRow:
    """A method with a strategy."""

    label: str
    strategy: str
    trainings: tuple[Training, ...]
    """Those that are complete."""
    measures: dict[str, Difference]
    """By name: `MEASURES`, and the two kinds of forgetting."""
    matrix: np.ndarray
    """Score of each task behind each stage, (stages, tasks), chance-corrected, mean over trainings: stages and tasks by
    place in the stream; only of streams in one order."""
    resampled: Resampled

    @property
    def name(self) -> str:
        """Returns what it is called."""
        return f"{self.label} {self.strategy}"


@dataclass(frozen=True, repr=False)
class StreamResult:
    """A stream with its rows; or, where nothing was run, what would run."""

    stream: Stream
    folder: Path
    """The results folder."""
    rows: tuple[StreamRow, ...] = ()
    missing: tuple[str, ...] = ()
    """Trainings that are not complete."""
    failed: tuple[Record, ...] = ()
    summary: PlanSummary | None = None
    figures: tuple[Path, ...] = ()
    dated: str = ""
    """Day of the newest record, in words."""

    def __repr__(self) -> str:
        """Returns one line: which tasks, and where it is."""
        return f"<Stream `{self.stream.name}` in `{self.folder}`: {len(self.rows)} rows>"

    @property
    def table(self) -> pd.DataFrame:
        """A row a method, strategy and measure: value, ci_low, ci_high, p, trainings."""
        import pandas as pd

        return pd.DataFrame(_measure_lines(self.rows), columns=list(MEASURE_COLUMNS))

    @property
    def scores(self) -> pd.DataFrame:
        """A row a method, strategy, stage and task: its mean score, chance-corrected."""
        import pandas as pd

        return pd.DataFrame(_matrix_lines(self), columns=list(MATRIX_COLUMNS))


MEASURE_COLUMNS = ("method", "strategy", "measure", "value", "ci_low", "ci_high", "p", "trainings", "seeds", "orders")
MATRIX_COLUMNS = ("method", "strategy", "stage", "learnt", "task", "score", "trainings")


def stream_results(
    store: Store, tasks: Mapping[str, Task], records: Sequence[Record] | None = None
) -> list[StreamResult]:
    """Returns the streams of a results folder; UntrustedRecord where a record contradicts its own answers."""
    streams = read_all(store)
    if not streams:
        return []
    records = store.records() if records is None else records
    return [_result(store, stream, tasks, records) for stream in streams]


def write_streams(store: Store, results: Sequence[StreamResult]) -> None:
    """Writes each stream's tables: `streams/<name>.csv`, `-scores.csv` and `.md`."""
    for each in results:
        at = store.path(FOLDER)
        write_atomic(at / f"{each.stream.name}.csv", csv_table(MEASURE_COLUMNS, _measure_lines(each.rows)))
        write_atomic(at / f"{each.stream.name}-scores.csv", csv_table(MATRIX_COLUMNS, _matrix_lines(each)))
        write_atomic(at / f"{each.stream.name}.md", stream_md(each))


def _result(store: Store, stream: Stream, tasks: Mapping[str, Task], records: Sequence[Record]) -> StreamResult:
    wanted = {run for training in stream.trainings for run in training.runs} | {stream.base}
    samples, found = Samples(store), {}
    for record in records:
        # A later record of the same result takes the place of an earlier one.
        if record.run in wanted and record.status == "ok" and record.limit == stream.limit and record.task in tasks:
            check_track(record)
            found[record.run, record.task] = rescored(record, tasks[record.task], samples)
    names = [name for name in stream.tasks if name in tasks and (stream.base, name) in found]
    groups: dict[tuple[str, str], list[Training]] = {}
    missing = []
    numbers: dict[tuple[tuple[str, ...], int], int] = {}
    for training in stream.trainings:
        if all((run, name) in found for run in training.runs for name in names) and set(training.order) <= set(names):
            groups.setdefault((training.label, training.strategy), []).append(training)
            numbers.setdefault((tuple(training.order), training.seed), len(numbers))
        else:
            missing.append(f"{training.label} {training.strategy}, seed {training.seed}, {' → '.join(training.order)}")
    own = {name: tasks[name] for name in names}
    rows = tuple(_row(key, of, found, stream.base, own, numbers) for key, of in groups.items())
    newest = max((each.record.time for each in found.values()), default="")
    dated = f"newest record {newest[:10]}" if newest else "no date recorded"
    return StreamResult(stream, store.root, rows, tuple(missing), dated=dated)


def _row(
    key: tuple[str, str],
    trainings: Sequence[Training],
    found: Mapping[tuple[str, str], Rescored],
    base: str,
    tasks: Mapping[str, Task],
    numbers: Mapping[tuple[tuple[str, ...], int], int],
) -> StreamRow:
    """Returns the measures of a method with a strategy."""
    numbered = {numbers[tuple(one.order), one.seed]: one for one in trainings}
    in_order = [numbered[k] for k in sorted(numbered)]
    orders = [one.order for one in in_order]
    by_answers = {}
    for answers in ("score", "strict", "constrained"):
        parts = {name: _resampled(name, tasks[name], numbered, found, base, answers) for name in tasks}
        if all(part is not None for part in parts.values()):
            stages = {name: part[0] for name, part in parts.items() if part is not None}
            before = {name: part[1] for name, part in parts.items() if part is not None}
            by_answers[answers] = (measured(stages, before, orders), stages)
    resampled, stages = by_answers["score"]
    measures = {name: measure(resampled, name) for name in resampled.methods if name in MEASURES}
    if "forgetting" in measures and {"strict", "constrained"} <= set(by_answers):
        both = merged({answers: by_answers[answers][0] for answers in ("strict", "constrained")})
        measures[ESSENTIAL] = measure(both, "constrained forgetting")
        measures[SUPERFICIAL] = measure(both, "strict forgetting", "constrained forgetting")
    matrix = np.mean(
        [[stages[name].by_seed[:, k] for name in [*order, *_others(tasks, order)]] for k, order in enumerate(orders)],
        axis=0,
    ).T
    return StreamRow(*key, tuple(in_order), measures, matrix, resampled)


def _others(tasks: Mapping[str, Task], order: Sequence[str]) -> list[str]:
    return [name for name in tasks if name not in order]


def _resampled(
    name: str,
    task: Task,
    trainings: Mapping[int, Training],
    found: Mapping[tuple[str, str], Rescored],
    base: str,
    answers: str,
) -> tuple[Resampled, Resampled] | None:
    """Returns (a task's score behind each stage, that of the untuned model), chance-corrected, on the same resamples.

    None where the score is undefined for one of them.
    """
    of_base = _tally(found[base, name], answers)
    runs: dict[str, Runs] = {}
    n_stages = max(len(one.runs) for one in trainings.values())
    for stage in range(n_stages):
        by_training: dict[int, Tally] = {}
        for k, one in trainings.items():
            run = one.runs[stage]
            if Strategy.of(one.strategy).kind == NEW:
                # The task's own adapter as soon as there is one; before that, the untuned model.
                place = one.order.index(name) if name in one.order else n_stages
                run = one.runs[place] if place <= stage else ""
            by_training[k] = _tally(found[run, name], answers) if run else of_base
        runs[str(stage)] = by_training
    record = found[base, name].record
    chance, ceiling = record.chance or 0.0, record.ceiling or 1.0
    try:
        scores, before = (
            resample(each, task.metric.values, task.headline, RESAMPLES, task=task.name)
            for each in (runs, {"base": of_base})
        )
    except ValueError:
        return None
    return centred(scores, chance, ceiling), centred(before, chance, ceiling)


def _tally(of: Rescored, answers: str) -> Tally:
    record = of.record
    if answers == "score":
        return of.headline_tally
    text = record.parsed_choices if answers == "strict" else record.ranked_choices
    return of.headline.counted(of.headline.codes(text))


def _measure_lines(rows: Sequence[StreamRow]) -> list[dict[str, Any]]:
    lines = []
    for row in rows:
        for name, found in row.measures.items():
            lines.append(
                {"method": row.label, "strategy": row.strategy, "measure": name, "value": found.estimate,
                 "ci_low": found.interval[0], "ci_high": found.interval[1], "p": found.p,
                 "trainings": len(row.trainings), "seeds": len({one.seed for one in row.trainings}),
                 "orders": len({tuple(one.order) for one in row.trainings})}
            )  # fmt: skip
    return lines


def _matrix_lines(result: StreamResult) -> list[dict[str, Any]]:
    """Returns the scores of streams in one order; over several, a stage is another task in each."""
    lines = []
    for row in result.rows:
        orders = {tuple(one.order) for one in row.trainings}
        if len(orders) > 1:
            continue
        (order,) = orders
        tasks = [*order, *(name for name in result.stream.tasks if name not in order)]
        for stage, scores in enumerate(row.matrix):
            learnt = " + ".join(order) if Strategy.of(row.strategy).kind == JOINT else order[stage]
            for task, score in zip(tasks, scores, strict=False):
                lines.append(
                    {"method": row.label, "strategy": row.strategy, "stage": stage + 1, "learnt": learnt, "task": task,
                     "score": float(score), "trainings": len(row.trainings)}
                )  # fmt: skip
    return lines


def stream_json(result: StreamResult) -> dict[str, Any]:
    """Returns a stream with its measures and scores as JSON values."""
    return {
        "stream": result.stream.name, "order": list(result.stream.stream), "tasks": list(result.stream.tasks),
        "measures": _measure_lines(result.rows), "scores": _matrix_lines(result), "missing": list(result.missing),
        "figures": [str(path) for path in result.figures],
    }  # fmt: skip


def told(found: Difference | None) -> tuple[str, str]:
    """Returns a measure and its interval in percentage points: ("71.2", "68.0 to 74.1")."""
    if found is None:
        return "–", ""
    low, high = found.interval
    return f"{100 * found.estimate:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"


def title(stream: Stream) -> str:
    """Returns what is learnt: "mnist → vsr → snli_ve"."""
    return " → ".join(stream.stream)


def stream_md(result: StreamResult) -> bytes:
    """Returns a stream as Markdown: measures, kinds of forgetting, scores by stage, and what is missing."""
    stream = result.stream
    parts = [f"# Stream: {markdown(title(stream))}", f"Made by `{plain_text(stream.command, 2000)}`."]
    header = ["Method", "Strategy", "Trainings", *(TITLES[name].replace("\n", " ") for name in MEASURES)]
    header += ["Essential forgetting", "Superficial forgetting"]
    lines = []
    for row in result.rows:
        cells = [told(row.measures.get(name)) for name in (*MEASURES, ESSENTIAL, SUPERFICIAL)]
        lines.append([row.label, row.strategy, str(len(row.trainings)), *(f"{a} ({b})" if b else a for a, b in cells)])
    parts += [_table(header, lines), "\n".join(f"- {note}" for note in NOTES)]
    matrix = _matrix_lines(result)
    if matrix:
        tasks = list(dict.fromkeys(line["task"] for line in matrix))
        by_stage: dict[tuple[str, str, int, str], dict[str, float]] = {}
        for line in matrix:
            key = (line["method"], line["strategy"], line["stage"], line["learnt"])
            by_stage.setdefault(key, {})[line["task"]] = line["score"]
        rows = [
            [method, strategy, f"{stage}: {learnt}", *(f"{100 * scores[task]:.1f}" for task in tasks)]
            for (method, strategy, stage, learnt), scores in by_stage.items()
        ]
        parts += ["## Scores behind each stage", _table(["Method", "Strategy", "Stage", *tasks], rows)]
    parts += [f"Not complete: {markdown(text)}." for text in result.missing]
    return ("\n\n".join(parts) + "\n").encode()


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [f"| {' | '.join(markdown(text) for text in line)} |" for line in lines]
    return "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *rows])


def stream_tables(result: StreamResult) -> list[RenderableType]:
    """Returns what to print: a row a method and strategy, and a column a measure; 80 columns are enough."""
    from rich.table import Table

    made: list[RenderableType] = []
    heading = f"Stream {title(result.stream)}: scores, chance-corrected, in percentage points"
    for names in (
        ("last", "average", "fine_tuned", "elsewhere"),
        ("backward_transfer", "forgetting", "forward_transfer"),
    ):
        shown = [name for name in names if any(name in row.measures for row in result.rows)]
        table = Table(title=rich_text(heading), title_justify="left", box=None, pad_edge=False)
        table.add_column("Method", overflow="fold")
        for name in shown:
            table.add_column(TITLES[name].replace("\n", " "), justify="right", no_wrap=True)
        for row in result.rows:
            cells = ["\n".join(told(row.measures.get(name))).strip() for name in shown]
            table.add_row(rich_text(row.label) + "\n" + rich_text(row.strategy), *cells)
        made += [table] if shown else []
        heading = "Changes over the stream, in percentage points"
    return made
