"""An ablation as CSV for programs, as Markdown for people, and on the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.board.board import Column, plain
from mmpt_bench.board.contrasts import Contrast
from mmpt_bench.board.ranking import OVERALL
from mmpt_bench.board.writers import numbers
from mmpt_bench.board.writers.html import html_table, html_text
from mmpt_bench.common.escaping import csv_table, markdown, rich_text, rounded
from mmpt_bench.common.files import write_atomic
from mmpt_bench.common.words import counted
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.ablations import FOLDER, Ablation
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM, adjusted_p
from mmpt_bench.study.ablations.board import AblationBoard, ablation_board, ablation_boards

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from mmpt_bench.runs.estimate import PlanSummary

COSTS = ("trainable", "total", "train_seconds", "cpu_seconds", "peak_bytes", "own_bytes")
BETWEEN = re.compile(r"^(.*?) \((.*?)\)(.*)$")
"""A score or difference, its interval, and what stands behind it."""
WIDEST_POINT = 20
"""Columns of a terminal that a word in the name of a point has to itself; a longer one is broken."""
NOTES = (
    "**Score** is the mean over the point's own seeds with its 95 % interval: over seeds and images with two seeds or "
    "more, over images alone with one.",
    "**Difference** is the point's score minus that of the method as it is by default, or of the first point where the "
    "default is none of the points, at the seeds that both have: above 0, the point is better. p is the larger of two: "
    "after Holm over the differences of all tasks, or of the mean; and by sign flips of the seeds. \\* marks a "
    "significant difference, p < .05.",
    f"**Exploratory**: with fewer than {SEEDS_TO_CLAIM} seeds no difference is significant. With one seed there is no "
    "p: the interval then says how these trainings would differ on other images, not how other seeds would.",
)


@dataclass(frozen=True, repr=False)
class AblationResult:
    """An ablation with its board, which a notebook shows; or, where nothing was run, what would run."""

    name: str
    points: list[str]
    seeds: tuple[int, ...]
    n_runs: int
    folder: Path
    """The results folder."""
    board: AblationBoard | None = None
    failed: tuple[Record, ...] = ()
    summary: PlanSummary | None = None
    figures: tuple[Path, ...] = ()
    """Files of the figures that were drawn."""

    def __repr__(self) -> str:
        """Returns one line: what is varied, and where it is."""
        return (
            f"<Ablation `{self.name}` in `{self.folder}`: {counted(len(self.points), 'point')}, "
            f"{counted(self.n_runs, 'run')}>"
        )

    @property
    def table(self) -> pd.DataFrame:
        """A row a point and task, and the mean of the tasks with an empty task; empty where nothing was run.

        The columns are those of `ablations/NAME.csv`: the point, its score with its 95 % interval in the task's unit,
        its difference to the point that it is compared with, the p-value after Holm, and costs.
        """
        import pandas as pd

        if self.board is None:
            return pd.DataFrame()
        names, lines = _csv_lines(self.board)
        return pd.DataFrame(lines, columns=names)

    def _repr_html_(self) -> str:
        """Returns the points, their scores and differences as a notebook shows them."""
        if self.board is None or self.board.evidence is None:
            return html_text(repr(self))
        return html_table(title(self.board), *table(self.board))


def write_ablations(store: Store, tasks: Mapping[str, Task], records: Sequence[Record]) -> list[AblationBoard]:
    """Writes every ablation's table as `ablations/<name>.csv` and `.md` and returns the boards; none without one."""
    return [_write(store, board) for board in ablation_boards(store, tasks, records=records)]


def write_ablation(store: Store, ablation: Ablation, tasks: Mapping[str, Task]) -> AblationBoard:
    """Writes one ablation's tables and returns its board."""
    return _write(store, ablation_board(store, ablation, tasks))


def _write(store: Store, board: AblationBoard) -> AblationBoard:
    write_atomic(store.path(FOLDER, f"{board.ablation.name}.csv"), ablation_csv(board))
    write_atomic(store.path(FOLDER, f"{board.ablation.name}.md"), ablation_md(board))
    return board


def ablation_csv(board: AblationBoard) -> bytes:
    """Returns a row a point and task, and the mean of all tasks under an empty task."""
    return csv_table(*_csv_lines(board))


def _csv_lines(board: AblationBoard) -> tuple[list[str], list[dict[str, Any]]]:
    axes = list(board.ablation.axes)
    names = [
        "ablation", "label", "method", *axes, "is_reference", "task", "metric", "unit", "score", "interval_low",
        "interval_high", "interval_of", "sd", "n_seeds", "seeds", "by_seed", "n", "n_pictures", "exploratory",
        "compared_with", "scope", "difference", "difference_low", "difference_high", "p", "p_holm", "p_sign_flip",
        "detectable", "significant", *COSTS, "learning_rate", "learning_rate_source",
    ]  # fmt: skip
    return names, [_line(board, *place) for place in _places(board)]


def _places(board: AblationBoard) -> list[tuple[int, str]]:
    """Returns (number of a row, task) of every line."""
    columns = [c.task for c in board.evidence.board.columns] if board.evidence else []
    found = []
    for number, (_, row) in enumerate(board.rows):
        found += [(number, OVERALL)] if row.overall is not None and len(columns) > 1 else []
        found += [(number, name) for name in columns if name in row.cells]
    return found


def _line(board: AblationBoard, number: int, task: str) -> dict[str, Any]:
    assert board.evidence is not None
    point, row = board.rows[number]
    columns = {c.task: c for c in board.evidence.board.columns}
    contrast = next((c for c in board.contrasts if (c.first, c.task) == (point.label, task)), None)
    if task == OVERALL:
        seeds = tuple(sorted(row.overall_by_seed)) if row.trains else ()
        low, high = row.overall_interval or (None, None)
        figures: dict[str, Any] = {
            "task": "", "metric": "chance-corrected mean over tasks", "unit": "fraction", "score": row.overall,
            "interval_low": low, "interval_high": high,
            "interval_of": "seeds and images" if seeds[1:] else "images",
        }  # fmt: skip
        n, n_pictures = (sum(getattr(c, name) for c in columns.values() if c.counts) for name in ("n", "n_pictures"))
    else:
        cell, column = row.cells[task], columns[task]
        seeds = tuple(cell.by_seed)
        low, high = cell.interval or (None, None)
        figures = {
            "task": task, "metric": column.headline, "unit": column.unit, "score": cell.score, "interval_low": low,
            "interval_high": high, "interval_of": cell.interval_of, "sd": cell.sd,
            "by_seed": " ".join(f"{seed}:{rounded(score)!r}" for seed, score in cell.by_seed.items()),
        }  # fmt: skip
        n, n_pictures = column.n, column.n_pictures
    return {
        "ablation": board.ablation.name,
        "label": point.label,
        "method": point.method,
        **point.values,
        "is_reference": point not in board.ablation.points,
        **figures,
        "n_seeds": len(seeds) if row.trains else None,
        "seeds": " ".join(map(str, seeds)),
        "n": n,
        "n_pictures": n_pictures,
        "exploratory": row.trains and len(seeds) < SEEDS_TO_CLAIM,
        **_contrast_line(contrast),
        **{name: getattr(row, name) for name in (*COSTS, "learning_rate")},
        "learning_rate_source": row.learning_rate_source,
    }


def _contrast_line(contrast: Contrast | None) -> dict[str, Any]:
    if contrast is None:
        return {}
    low, high = contrast.difference.interval
    contrast = _without_p(contrast)
    return {
        "compared_with": contrast.second, "scope": contrast.scope, "difference": contrast.difference.estimate,
        "difference_low": low, "difference_high": high, "p": contrast.difference.p, "p_holm": contrast.p_holm,
        "p_sign_flip": contrast.difference.p_sign_flip, "detectable": contrast.detectable,
        "significant": contrast.better is not None,
    }  # fmt: skip


def _without_p(contrast: Contrast) -> Any:
    """Returns a contrast without p and what follows from it where it is of two trainings: a point is no seed."""
    if not (contrast.scope == "checkpoint" and contrast.seeds):
        return contrast
    difference: Any = replace(contrast.difference, p=None, p_sign_flip=None)  # type: ignore[arg-type]
    return replace(contrast, difference=difference, p_holm=None, detectable=None)  # type: ignore[arg-type]


def ablation_md(board: AblationBoard) -> bytes:
    """Returns an ablation as Markdown: scores by task, differences to the base, and what is missing."""
    parts = [f"# Ablation: {markdown(title(board))}", f"Made by `{board.command or 'mmpt_bench.ablate'}`."]
    if board.evidence is not None:
        b, varied = board.evidence.board, board.ablation.axes
        backbone = "" if "backbone" in varied else f", backbone {b.backbone}"
        subset = f"; {b.subset}" if b.subset else ""
        parts.append(markdown(f"{b.suite} suite{backbone}; {numbers.budget(b, 'steps' not in varied)}{subset}."))
        if board.exploratory:
            parts.append(f"**Exploratory**: {markdown(board.exploratory)}")
        header, lines = table(board)
        rows = [f"| {' | '.join(markdown(text) for text in line)} |" for line in lines]
        parts.append("\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *rows]))
        parts.append("\n".join(f"- {note}" for note in NOTES))
        parts += [f"Left out: {markdown(text)}" for text in b.left_out]
        parts += [f"Failed: {markdown(f.label)}, seed {f.seed}: {markdown(f.reason)}" for f in b.failures]
    parts += [f"Without a result: {markdown(', '.join(board.missing))}."] if board.missing else []
    return ("\n\n".join(parts) + "\n").encode()


def title(board: AblationBoard) -> str:
    """Returns what is varied in what: "prompt-len of mmpt", "learning rate of lora", "train_projector of mmpt, vpt"."""
    methods = dict.fromkeys(point.method for point in board.ablation.points)
    axes = dict.fromkeys("learning rate" if axis == "lr" else axis.split(".")[-1] for axis in board.ablation.axes)
    return f"{', '.join(axes)} of {', '.join(methods)}"


def table(board: AblationBoard) -> tuple[list[str], list[list[str]]]:
    """Returns header and lines, as text: a line a point, two columns a task: its score, and its difference."""
    assert board.evidence is not None
    columns = board.evidence.board.columns
    overall = len(columns) > 1 and any(row.overall is not None for _, row in board.rows)
    header = ["Point", *(["Overall", "Difference"] if overall else [])]
    header += [text for column in columns for text in (column.title, "Difference")]
    header += ["Trainable", "Seeds"]
    lines = []
    for point, row in board.rows:
        found = {c.task: c for c in board.contrasts if c.first == point.label}
        line = [row.label]
        if overall:
            between = f" ({numbers.percents(row.overall_interval)})" if row.overall_interval else ""
            line += [numbers.percent(row.overall) + between, difference(found.get(""))]
        for column in columns:
            cell = row.cells.get(column.task)
            score = numbers.score(cell.score, column, out_of=False) if cell else numbers.NOTHING
            between = f" ({numbers.interval(cell.interval, column)})" if cell and cell.interval else ""
            line += [score + between, difference(found.get(column.task), column)]
        lines.append([*line, f"{row.trainable:,}", numbers.seeds(row)])
    return header, lines


def difference(contrast: Contrast | None, column: Column | None = None) -> str:
    """Returns "+3.2 (0.4 to 6.0), p .021 *", the star where it is significant; without p where it is of one seed."""
    if contrast is None:
        return numbers.NOTHING
    scale = 1.0 if column is not None and column.unit == "points" else 100.0
    low, high = (scale * end for end in contrast.difference.interval)
    told = f"{scale * contrast.difference.estimate:+z.1f} ({low:z.1f} to {high:z.1f})"
    if contrast.scope == "checkpoint" and contrast.seeds:
        return told
    star = " *" if contrast.better is not None else ""
    return f"{told}, p {numbers.p_value(adjusted_p(contrast.difference, contrast.p_holm))}{star}"


def ablation_json(board: AblationBoard) -> dict[str, Any]:
    """Returns an ablation as JSON values."""
    rows = [plain(point) | {"row": plain(row)} for point, row in board.rows]
    return {
        "name": board.ablation.name, "title": title(board), "axes": board.ablation.axes, "points": rows,
        "contrasts": [plain(_without_p(each)) for each in board.contrasts], "missing": list(board.missing),
        "exploratory": bool(board.exploratory), "command": board.command,
    }  # fmt: skip


def ablation_tables(board: AblationBoard) -> list[RenderableType]:
    """Returns what to print: a table of the points for each task, intervals below scores; 60 columns are enough."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if board.evidence is None:
        return [Text(text) for text in _lacking(board)]
    header, lines = table(board)
    # Where the heading names the only method, a point is called by what is changed in it.
    changed = [", ".join(f"{axis} {value}" for axis, value in point.values.items()) for point, _ in board.rows]
    is_alone = len({point.method for point in board.ablation.points}) == 1
    names = [(is_alone and told) or line[0] for told, line in zip(changed, lines, strict=True)]
    parts: list[RenderableType] = []
    for first in range(1, len(header) - 2, 2):
        heading = f"{title(board)}: {header[first]}"
        made = Table(title=rich_text(heading), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        # A line may break between an axis and its value, not within a number.
        made.add_column("Point", overflow="fold", min_width=min(WIDEST_POINT, max(map(len, " ".join(names).split()))))
        for column in ("Score", "Difference", "Seeds"):
            made.add_column(column, justify="right", no_wrap=True)
        for name, line in zip(names, lines, strict=True):
            cells = [*(BETWEEN.sub(r"\1\3\n\2", text) for text in line[first : first + 2]), line[-1]]
            made.add_row(*("\n".join(map(rich_text, text.splitlines())) for text in (name, *cells)))
        parts.append(made)
    notes = _lacking(board)
    if board.exploratory:
        notes.append(f"Exploratory: {board.exploratory}")
    if any(contrast.better is not None for contrast in board.contrasts):
        notes.append("* significant: p < .05 after Holm, and by sign flips of the seeds.")
    return [*parts, *(Text(note) for note in notes)]


def _lacking(board: AblationBoard) -> list[str]:
    labels = ", ".join(board.missing)
    return [f"Without a result: {labels}. `{board.command}` makes them."] if labels else []
