"""A stream as CSV for programs, as Markdown for people, and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.escaping import csv_table, markdown, plain_text, rich_text
from mmpt_bench.common.files import write_atomic
from mmpt_bench.common.words import counted
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.records.streams import FOLDER, Stream
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM
from mmpt_bench.stats.differences import Difference
from mmpt_bench.stats.streams import MEASURES
from mmpt_bench.study.streams.board import ESSENTIAL, SUPERFICIAL, StreamBoard, StreamRow

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from mmpt_bench.runs.estimate import PlanSummary

TITLES = {
    "last": "Last", "average": "Average", "fine_tuned": "At its\nstage", "backward_transfer": "Backward\ntransfer",
    "forgetting": "Forgetting", "forward_transfer": "Forward\ntransfer", "elsewhere": "Elsewhere",
}  # fmt: skip
NOTES = (
    "Scores are chance-corrected, in percentage points, with 95 % intervals over trainings and images (one training: "
    "images alone). **Last**: mean over the stream's tasks after its last stage. **Average**: mean over stages of the "
    "mean over the tasks learnt so far. **At its stage**: mean of each task's score after its own stage. **Backward "
    "transfer**: how far tasks rose (or fell, below 0) after their stage. **Forgetting**: how far they are below their "
    "best. **Forward transfer**: how far tasks were above the untuned model before their own stage. **Elsewhere**: "
    "change from the untuned model on tasks outside the stream.",
    "`new-adapter` trains one adapter a task and takes the right one (task identity is given); `routed` "
    "takes that of the nearest mean of the untuned model's features, among the tasks learnt so far. `joint` learns all "
    "tasks at once in as many steps.",
    "**Essential** forgetting is that of the most probable legal answers; **superficial** is what the replies, as they "
    "are read, lose beyond that: the form of answers.",
)


@dataclass(frozen=True, repr=False)
class StreamResult:
    """A stream with its rows; or, where nothing was run, what would run."""

    stream: Stream
    folder: Path
    """The results folder."""
    board: StreamBoard | None = None
    failed: tuple[Record, ...] = ()
    summary: PlanSummary | None = None
    figures: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        """Returns one line: which tasks, and where it is."""
        return f"<Stream `{self.stream.name}` in `{self.folder}`: {counted(len(self.rows), 'row')}>"

    @property
    def rows(self) -> tuple[StreamRow, ...]:
        """Returns a row for each method and strategy; none where nothing was run."""
        return () if self.board is None else self.board.rows

    @property
    def table(self) -> pd.DataFrame:
        """A row a method, strategy and measure: value, ci_low, ci_high, p, trainings."""
        import pandas as pd

        return pd.DataFrame(_measure_lines(self.rows), columns=list(MEASURE_COLUMNS))

    @property
    def scores(self) -> pd.DataFrame:
        """A row a method, strategy, stage and task: its mean score, chance-corrected, with its 95 % interval."""
        import pandas as pd

        return pd.DataFrame([] if self.board is None else _matrix_lines(self.board), columns=list(MATRIX_COLUMNS))


MEASURE_COLUMNS = ("method", "strategy", "measure", "value", "ci_low", "ci_high", "p", "trainings", "seeds", "orders")
MATRIX_COLUMNS = ("method", "strategy", "stage", "learnt", "task", "score", "ci_low", "ci_high", "trainings")


def write_streams(store: Store, boards: Sequence[StreamBoard]) -> None:
    """Writes each stream's tables: `streams/<name>.csv`, `-scores.csv` and `.md`."""
    for each in boards:
        at = store.path(FOLDER)
        write_atomic(at / f"{each.stream.name}.csv", csv_table(MEASURE_COLUMNS, _measure_lines(each.rows)))
        write_atomic(at / f"{each.stream.name}-scores.csv", csv_table(MATRIX_COLUMNS, _matrix_lines(each)))
        write_atomic(at / f"{each.stream.name}.md", stream_md(each))


def _measure_lines(rows: Sequence[StreamRow]) -> list[dict[str, Any]]:
    lines = []
    for row in rows:
        for name, found in row.measures.items():
            lines.append(
                {"method": row.label, "strategy": row.strategy, "measure": name, "value": found.estimate,
                 "ci_low": found.interval[0], "ci_high": found.interval[1], "p": found.p,
                 "trainings": row.n, "seeds": len({one.seed for one in row.trainings}),
                 "orders": len({tuple(one.order) for one in row.trainings})}
            )  # fmt: skip
    return lines


def _matrix_lines(board: StreamBoard) -> list[dict[str, Any]]:
    """Returns the scores of streams in one order; over several, a stage is another task in each."""
    lines = []
    for row in board.rows:
        orders = {tuple(one.order) for one in row.trainings}
        if len(orders) > 1:
            continue
        (order,) = orders
        for stage, scores in enumerate(row.matrix):
            learnt = " + ".join(order) if len(row.matrix) == 1 else order[stage]
            for task, score, (low, high) in zip(row.tasks, scores, row.between[stage], strict=True):
                lines.append(
                    {"method": row.label, "strategy": row.strategy, "stage": stage + 1, "learnt": learnt, "task": task,
                     "score": float(score), "ci_low": float(low), "ci_high": float(high),
                     "trainings": row.n}
                )  # fmt: skip
    return lines


def stream_json(board: StreamBoard) -> dict[str, Any]:
    """Returns a stream with its measures and scores as JSON values."""
    return {
        "stream": board.stream.name, "order": list(board.stream.stream), "tasks": list(board.stream.tasks),
        "measures": _measure_lines(board.rows), "scores": _matrix_lines(board), "missing": list(board.missing),
    }  # fmt: skip


def told(found: Difference | None) -> tuple[str, str]:
    """Returns a measure and its interval in percentage points: ("71.2", "68.0 to 74.1")."""
    if found is None:
        return "–", ""
    low, high = found.interval
    return f"{100 * found.estimate:z.1f}", f"{100 * low:z.1f} to {100 * high:z.1f}"


def title(stream: Stream) -> str:
    """Returns what is learnt: "mnist → vsr → snli_ve"."""
    return " → ".join(stream.stream)


def measures_table(board: StreamBoard) -> tuple[list[str], list[list[str]]]:
    """Returns (header, a line a method and strategy): each measure with its interval, in percentage points."""
    header = ["Method", "Strategy", "Trainings", *(TITLES[name].replace("\n", " ") for name in MEASURES)]
    header += ["Essential forgetting", "Superficial forgetting"]
    lines = []
    for row in board.rows:
        cells = [told(row.measures.get(name)) for name in (*MEASURES, ESSENTIAL, SUPERFICIAL)]
        lines.append([row.label, row.strategy, str(row.n), *(f"{a} ({b})" if b else a for a, b in cells)])
    return header, lines


def stream_md(board: StreamBoard) -> bytes:
    """Returns a stream as Markdown: measures, kinds of forgetting, scores by stage, and what is missing."""
    stream = board.stream
    parts = [
        f"# Stream: {markdown(title(stream))}",
        *(f"Made by `{plain_text(line, 2000)}`." for line in stream.command.splitlines()),
    ]
    header, lines = measures_table(board)
    parts += [_table(header, lines), "\n".join(f"- {note}" for note in NOTES)]
    if board.routed:
        told_of = ", ".join(f"{markdown(name)} {share:.1%}" for name, share in board.routed.items())
        parts.append(f"Questions that the router sends to their task's own adapter: {told_of}.")
    matrix = _matrix_lines(board)
    if matrix:
        tasks = list(dict.fromkeys(line["task"] for line in matrix))
        by_stage: dict[tuple[str, str, int, str], dict[str, str]] = {}
        for line in matrix:
            key = (line["method"], line["strategy"], line["stage"], line["learnt"])
            score, low, high = (f"{100 * line[name]:z.1f}" for name in ("score", "ci_low", "ci_high"))
            by_stage.setdefault(key, {})[line["task"]] = f"{score} ({low} to {high})"
        rows = [
            [method, strategy, f"{stage}: {learnt}", *(scores[task] for task in tasks)]
            for (method, strategy, stage, learnt), scores in by_stage.items()
        ]
        parts += ["## Scores after each stage", _table(["Method", "Strategy", "Stage", *tasks], rows)]
    parts += [f"Not complete: {markdown(text)}." for text in board.missing]
    return ("\n\n".join(parts) + "\n").encode()


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [f"| {' | '.join(markdown(text) for text in line)} |" for line in lines]
    return "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *rows])


def stream_tables(board: StreamBoard) -> list[RenderableType]:
    """Returns what to print: a row a method and strategy, and a column a measure; 80 columns are enough."""
    from rich.table import Table

    made: list[RenderableType] = []
    heading = f"Stream {title(board.stream)}: scores, chance-corrected, in percentage points"
    for names in (
        ("last", "average", "fine_tuned", "elsewhere"),
        ("backward_transfer", "forgetting", "forward_transfer"),
    ):
        shown = [name for name in names if any(name in row.measures for row in board.rows)]
        table = Table(title=rich_text(heading), title_justify="left", box=None, pad_edge=False)
        table.add_column("Method", overflow="fold")
        for name in shown:
            table.add_column(TITLES[name].replace("\n", " "), justify="right", no_wrap=True)
        for row in board.rows:
            cells = ["\n".join(told(row.measures.get(name))).strip() for name in shown]
            n = row.n
            trained = f"{n} training{'s' if n > 1 else ''}"
            table.add_row("\n".join(map(rich_text, (row.label, row.strategy, trained))), *cells)
        made += [table] if shown else []
        heading = "Changes over the stream, in percentage points"
    if any(row.n < SEEDS_TO_CLAIM for row in board.rows):
        made.append(f"Exploratory: with fewer than {SEEDS_TO_CLAIM} trainings no difference is significant.")
    return made
