"""A leaderboard as Markdown for people and as JSON for programs; the same bytes for the same boards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpt_bench.board.board import Board, Cell, Column, Row, plain
from mmpt_bench.board.published import REMARK, Published
from mmpt_bench.board.ranking import RATIOS
from mmpt_bench.board.writers import numbers
from mmpt_bench.common.escaping import markdown
from mmpt_bench.common.words import counted
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM

EMBEDDED_REMARK = (
    "The tasks of the embedded suite are generated miniatures, not the public benchmarks whose names they bear, for a "
    "small model that ships with the package: no score here can be compared with one in a paper."
)
COVERED = (
    "They cover other images and other seeds; they do not cover the choice of the learning rate, nor another backbone."
)
RATIO_TITLES = ("raw", "chance-corrected", "gain recovered")
FOOTNOTES = (
    "**Place** is by the mean, with the 95 % interval of that place. Methods that share a **letter** are not "
    "significantly different; one that shares none with another differs from it with other seeds and other images (p < "
    ".05 after Holm over all pairs of that column, and by sign flips of the seeds). "
    f"{numbers.BORDERLINE_SIGN} marks a method of which some pair is borderline, p between .025 and .1: there another "
    "run of one seed may change the letters.",
    "**Gain** is over tuning the projector alone, in percentage points (MME: "
    "points). **Worst seed** is the lowest score of one training.",
    "**Forgetting** is the mean over tasks of how far the method fell below the untuned baseline, 0 where it did not, "
    "chance-corrected, in points, with the task that fell most. Its interval holds 0 where noise explains it.",
    "**Overall** is the mean over tasks of (score − chance) / (ceiling − chance), in percent: 0 is guessing, "
    "100 is everything right, below 0 is worse than guessing.",
    "**Intervals** are 95 %, of the score itself. With two seeds or more, seeds and images are resampled together; "
    "with one seed, or none, images alone: then the interval is of that checkpoint, not of the method. "
    f"{COVERED}",
    "**Costs** are shown only where they were measured: memory of a training that had a process to itself, time of "
    "one that had the machine to itself too (`mmpt-bench run --measure-costs`).",
    f"**Seeds**: with fewer than {SEEDS_TO_CLAIM} no difference is significant at p < .05; the row is marked "
    "`exploratory`. A method that does not train (–) has one result.",
    "**Strict** is scored from the reply as parsed, **constrained** from the most probable legal answer; "
    "**unreadable** is the share of replies that give no legal answer. Where they differ, a gain "
    "may be of answer format alone.",
    "**Retention** is the share of full fine-tuning's score that a method keeps: raw is score / full, "
    "chance-corrected is (score − chance) / (full − chance), gain recovered is (score − frozen) / (full − frozen). "
    "It is refused (n/a) where the interval of the denominator holds 0.",
)


def leaderboard_json(boards: Sequence[Board], published: Sequence[Published]) -> dict[str, Any]:
    """Returns everything the tables show, and what they are made from, as JSON values."""
    return {
        "boards": [_board_json(board) for board in boards],
        "published": {"remark": REMARK, "figures": plain(published)},
    }


def _board_json(board: Board) -> dict[str, Any]:
    found = plain(board) | {"title": board.title}
    return {name: value for name, value in found.items() if value or name not in ("asking", "own_tasks")}


def leaderboard_md(boards: Sequence[Board], published: Sequence[Published]) -> bytes:
    """Returns the leaderboard as Markdown: a section a board, the published scores, and what the numbers mean."""
    suites = " and ".join(dict.fromkeys(board.suite for board in boards if not board.is_own))
    heading = f"{markdown(suites)} suite" if suites else "own tasks"
    parts = [f"# Leaderboard: {heading}" if boards else "# Leaderboard: no run is recorded yet"]
    if any(board.is_embedded for board in boards):
        parts.append(f"> {EMBEDDED_REMARK}")
    for board in boards:
        parts += _board_md(board)
    if published:
        parts += ["## Published scores", f"{REMARK}", _published_md(published)]
    if boards:
        parts += ["## How to read it", "\n".join(f"- {note}" for note in FOOTNOTES)]
    return ("\n\n".join(parts) + "\n").encode()


def _board_md(board: Board) -> list[str]:
    parts = [f"## {markdown(board.title[0].upper() + board.title[1:])}", _budget_md(board)]
    if board.limit is not None:
        parts.append(f"**A subset**: {markdown(board.subset)}.")
    if board.rows:
        parts += [_ranks_md(board), "### Scores by task"]
        parts += [part for column in board.columns for part in (_task_md(board, column), _figures_md(board, column))]
        parts += ["### Costs", _costs_md(board)]
    if board.notes:
        parts += ["### Notes", "\n".join(f"- {markdown(text)}" for text in board.notes)]
    if board.failures:
        header = ("Method", "Seed", "Learning rate", "Why")
        lines = [(f.label, str(f.seed), f"{f.learning_rate}", f.reason) for f in board.failures]
        parts += ["### Failed runs (never ranked)", _table(header, lines)]
    if board.left_out:
        parts += ["### Left out", "\n".join(f"- {markdown(text)}" for text in board.left_out)]
    return parts


def _budget_md(board: Board) -> str:
    seeds = ", ".join(map(str, board.seeds)) or "none in common"
    text = f"Setting {markdown(board.id)}: {markdown(numbers.budget(board))}; ranked over the seeds {seeds}."
    averaged = [markdown(column.title) for column in board.columns if column.counts]
    if len(averaged) < len(board.columns):
        text += f" Overall is over {', '.join(averaged) or 'no task'} alone."
    if board.exploratory and board.ranked:
        text += f" **Exploratory**: fewer than {SEEDS_TO_CLAIM} seeds, so that no difference is significant."
    return text


def _ranks_md(board: Board) -> str:
    titles = [markdown(column.title) for column in board.columns]
    header = ["Place", "Method", "Overall", "Worst seed", "Gain", "Forgetting", *titles, "Trainable", "Seeds", "Notes"]
    lines = []
    for row in board.rows:
        overall = (
            f"{numbers.percent(row.overall)} ({numbers.percents(row.overall_interval)})"
            if row.place
            else numbers.NOTHING
        )
        beside = (
            numbers.percent(row.worst),
            numbers.gain(row.gain, row.gain_interval),
            numbers.forgetting(row, board),
        )
        scores = [numbers.score(c.score, column) if c else numbers.NOTHING for column, c in _cells(board, row)]
        notes = [*(["not ranked: " + row.unranked] if row.unranked else []), *row.flags]
        share, seeds = numbers.share(row), numbers.seeds(row)
        lines.append((numbers.place(row, board), row.label, overall, *beside, *scores, share, seeds, "; ".join(notes)))
    table = _table(header, lines)
    return f"{table}\n\n{markdown(numbers.legend(board), 2000)}" if len(board.ranked) > 1 else table


def _task_md(board: Board, column: Column) -> str:
    header = ["Place", "Method", "Score", "95 % interval", "SD", "Worst seed", "Gain", "Seeds", "Strict", "Constrained"]
    header += ["Unreadable"] + [f"Retention: {title}" for title in RATIO_TITLES]
    lines = []
    for row in board.rows:
        cell = row.cells.get(column.task)
        if cell is None:
            continue
        lines.append(
            (
                numbers.place(cell, board),
                row.label,
                numbers.score(cell.score, column),
                numbers.interval(cell.interval, column),
                numbers.spread(cell, column),
                numbers.score(cell.worst, column, out_of=False),
                numbers.gain(cell.gain, cell.gain_interval, column),
                str(len(cell.by_seed)) if row.trains else numbers.NOTHING,
                numbers.score(cell.strict, column, out_of=False),
                numbers.score(cell.constrained, column, out_of=False),
                numbers.percent(cell.unreadable),
                *(numbers.ratio(cell.retention.get(name)) for name in RATIOS),
            )
        )
    chance, ceiling = (numbers.score(value, column, out_of=False) for value in (column.chance, column.ceiling))
    head = (
        f"**{markdown(column.title)}**: {markdown(column.headline)} of {counted(column.n, 'question')} on "
        f"{column.n_pictures:,} "
        f"images; guessing gives {chance}, the most is {ceiling}; decoding {markdown(column.decode)}, "
        f"version {column.version}, data {markdown(column.data_fingerprint[:12])}."
    )
    return f"{head}\n\n{_table(header, lines)}"


def _figures_md(board: Board, column: Column) -> str:
    """Returns every score of a task by method, mean over seeds, folded away."""
    rows = [row for row in board.rows if column.task in row.cells]
    names = list(dict.fromkeys(name for row in rows for name in row.cells[column.task].values))
    lines = [
        (name, *(numbers.figure(name, row.cells[column.task].values.get(name), column) for row in rows))
        for name in names
    ]
    table = _table(["Score", *(row.label for row in rows)], lines)
    return f"<details><summary>All scores of {markdown(column.title)}</summary>\n\n{table}\n\n</details>"


def _costs_md(board: Board) -> str:
    header = ("Method", "Trainable (counted)", "Share", "Training, wall", "Training, CPU", "A question",
              "Memory of its own", "Peak of the process", "Adapter file", "Learning rate",
              "How it was chosen")  # fmt: skip
    lines = [
        (
            row.label,
            f"{row.trainable:,} of {row.total:,}",
            numbers.share(row),
            *(numbers.seconds(value) for value in (row.train_seconds, row.cpu_seconds)),
            numbers.milliseconds(row.question_seconds),
            *(numbers.size(value) for value in (row.own_bytes, row.peak_bytes)),
            numbers.size(row.adapter_bytes if row.trains else None),
            numbers.rate(row),
            row.learning_rate_source,
        )
        for row in board.rows
    ]  # fmt: skip
    return _table(header, lines)


def _published_md(published: Sequence[Published]) -> str:
    header = ("Method", "Task", "Metric", "Value", "Kind", "Source", "Note")
    lines = [(p.method, p.task, p.metric, f"{p.value} {p.unit}".strip(), p.kind, p.source, p.note) for p in published]
    return _table(header, lines)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    texts = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*texts, *(f"| {' | '.join(markdown(text) for text in line)} |" for line in lines)])


def _cells(board: Board, row: Row) -> list[tuple[Column, Cell | None]]:
    return [(column, row.cells.get(column.task)) for column in board.columns]
