"""MME's fourteen subtasks by method: a panel a subtask, in points of 200."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmpt_bench.board.assembly import RESAMPLES, Evidence
from mmpt_bench.common.words import counted
from mmpt_bench.evaluation.metrics import MME_PERCEPTION, MME_POINTS, MME_SUBTASKS
from mmpt_bench.evaluation.task import Task
from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing, source_of
from mmpt_bench.stats.intervals import Interval, percentile
from mmpt_bench.stats.resampling import resample_all

TASK = "mme"
TITLE = "MME's subtasks by method"
NOTHING = "No run was evaluated on MME: `mmpt-bench run --method all --tasks mme`."
CHANCE = 75.0
"""Points of a coin flip: 50 for acc and 25 for acc+."""
LINE_INCHES = 0.17
Score = tuple[float, Interval | None]


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields a figure for each board with MME."""
    boards = [each.board for each in of.boards]
    for each in of.boards:
        if any(TASK in row.cells for row in each.board.rows) and TASK in of.tasks:
            yield _drawn(each, of, style.name_of("subtasks", each.board, boards))


def _drawn(of: Evidence, material: FigureData, name: str) -> Drawn:
    board = of.board
    rows = [row for row in board.rows if TASK in row.cells]
    known = {key for row in rows for key in row.cells[TASK].values}
    subtasks = [each for each in MME_SUBTASKS if f"score/{each}" in known]
    scores = {row.label: _scores(of, row.label, material.tasks[TASK], subtasks) for row in rows}
    labels = [row.label for row in rows]
    size = (1.45, LINE_INCHES * len(rows) + 0.1)
    figure, axes = style.panels(
        len(subtasks), size=size, left=style.label_room(labels), gap=0.28, below=0.32, legend=0.3
    )
    lines: list[dict[str, Any]] = []
    for number, (panel, subtask) in enumerate(zip(axes, subtasks, strict=True)):
        panel.axvline(CHANCE, color="#bbbbbb", linewidth=0.8, zorder=0)
        for place, row in enumerate(rows):
            score, interval = scores[row.label][subtask]
            color = style.color_of(row.method, material.colors)
            panel.axhline(place, color=style.PALE, linewidth=0.5, zorder=0)
            style.draw_score(panel, place, score, interval, color, size=4, width=1.4)
            part = "perception" if subtask in MME_PERCEPTION else "cognition"
            lines.append(
                {"label": row.label, "method": row.method, "subtask": subtask, "part": part, "points": score,
                 **style.spanned(interval), "n_seeds": len(row.cells[TASK].by_seed)}
            )  # fmt: skip
        panel.set_xlim(-6, MME_POINTS + 6)
        panel.set_xticks([0, 50, 100, 150, 200])
        style.label_rows(panel, labels, number % 4 == 0, lines=1)
        panel.set_title(style.safe(subtask.replace("_", " ")))
    scores_entry = style.line_entry(style.INK, marker="o", markersize=4, linewidth=1.4)
    entries = [(f"points of {MME_POINTS:.0f}, with 95 % interval", scores_entry),
               (f"a coin flip: {CHANCE:.0f}", style.line_entry("#bbbbbb", linewidth=0.8))]  # fmt: skip
    style.Legend(entries, columns=2).draw(figure)
    at_chance = [s for s in subtasks if all(_holds_chance(scores[label][s]) for label in labels)]
    told = f"At chance for every method: {', '.join(at_chance)}." if at_chance else "None is at chance for all methods."
    return Drawn(
        "subtasks", name, f"{TITLE}: {board.title}",
        f"Points of {MME_POINTS:.0f}, mean over seeds, with 95 % intervals over seeds and images, over images "
        f"alone where there is one seed. Grey line: a coin flip, {CHANCE:.0f}. "
        f"{style.notes(board)}",
        f"MME's {counted(len(subtasks), 'subtask')} for {counted(len(rows), 'method')}. {told}",
        figure, source_of(of), style.table(lines),
    )  # fmt: skip


def _scores(of: Evidence, label: str, task: Task, subtasks: Sequence[str]) -> dict[str, Score]:
    """Returns a row's points in each subtask with their interval."""
    row, every = next(row for row in of.board.rows if row.label == label), of.scores[label][TASK]
    # As on the board: at the seeds that its scores are over.
    results = {seed: each for seed, each in every.items() if not row.trains or seed in row.cells[TASK].by_seed}
    names = [f"score/{each}" for each in subtasks]
    try:
        tallies = {seed: each.tally for seed, each in results.items()}
        found = resample_all({"": tallies}, task.metric.values, names, RESAMPLES // 4, task=task.name)
    except ValueError:
        # A subtask of so few images that some bootstrap sample has none of it.
        values = row.cells[TASK].values
        return {each: (values[f"score/{each}"], None) for each in subtasks}
    return {
        each: (float(found[f"score/{each}"].estimates[0]), percentile(found[f"score/{each}"].draws[:, 0]))
        for each in subtasks
    }


def _holds_chance(score: Score) -> bool:
    return score[1] is not None and score[1][0] <= CHANCE <= score[1][1]
