"""A leaderboard as Markdown for people and as JSON for programs; the same bytes for the same boards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpt_bench.board.board import Board, Cell, Column, Row, plain
from mmpt_bench.board.published import REMARK, Published
from mmpt_bench.board.ranking import RATIOS
from mmpt_bench.board.writers import numbers
from mmpt_bench.common.escaping import markdown
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM

EMBEDDED_REMARK = (
    "The tasks of the embedded suite are generated miniatures, not the public benchmarks whose names they bear, for a "
    "small model that ships with the package: no figure here can be compared with one in a paper."
)
RATIO_TITLES = ("raw", "chance-corrected", "gain recovered")
FOOTNOTES = (
    "**Rank** is 1 + the number of methods that are significantly better with other seeds and other pictures "
    "(p ≤ .05 after Holm over all pairs, and by sign flips of the seeds). Methods that share a rank are not separated. "
    "**By score** is the place by the overall score alone, with the 95 % interval of that place.",
    "**Overall** is the mean over tasks of (score − chance) / (ceiling − chance), in percent: 0 is guessing, "
    "100 is everything right, below 0 is worse than guessing.",
    "**Intervals** are 95 %, of the figure itself. With two seeds or more, seeds and pictures are resampled together; "
    "with one seed, or none, pictures alone: then the interval is of that checkpoint, not of the method.",
    f"**Seeds**: fewer than {SEEDS_TO_CLAIM} cannot separate two methods at p < .05; the row is marked `exploratory`. "
    "A method that does not train (–) has one result.",
    "**Strict** is scored from the reply as parsed, **constrained** from the most probable legal answer; "
    "**unreadable** is the share of replies that give no legal answer. Where they differ, a gain "
    "may be of answer format alone.",
    "**Retention** is the share of full fine-tuning's figure that a method keeps: raw is score / full, "
    "chance-corrected is (score − chance) / (full − chance), gain recovered is (score − frozen) / (full − frozen). "
    "It is refused (n/a) where the interval of the denominator holds 0.",
)


def leaderboard_json(boards: Sequence[Board], published: Sequence[Published]) -> dict[str, Any]:
    """Returns everything the tables show, and what they are made from, as JSON values."""
    return {
        "boards": [plain(board) | {"title": board.title} for board in boards],
        "published": {"remark": REMARK, "figures": plain(published)},
    }


def leaderboard_md(boards: Sequence[Board], published: Sequence[Published]) -> bytes:
    """Returns the leaderboard as Markdown: a section a board, the published figures, and what the numbers mean."""
    suites = " and ".join(dict.fromkeys(board.suite for board in boards))
    parts = [f"# Leaderboard: {markdown(suites)} suite" if boards else "# Leaderboard: no run is recorded yet"]
    if any(board.suite == "embedded" for board in boards):
        parts.append(f"> {EMBEDDED_REMARK}")
    for board in boards:
        parts += _board_md(board)
    if published:
        parts += ["## Published figures", f"{REMARK}", _published_md(published)]
    if boards:
        parts += ["## How to read it", "\n".join(f"- {note}" for note in FOOTNOTES)]
    return ("\n\n".join(parts) + "\n").encode()


def _board_md(board: Board) -> list[str]:
    parts = [f"## {markdown(board.title[0].upper() + board.title[1:])}", _budget_md(board)]
    if board.limit is not None:
        parts.append(f"**A trial**: only the first {board.limit:,} questions of each task were asked.")
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
    text = f"Track {markdown(board.track)}: {markdown(numbers.budget(board))}; ranked over the seeds {seeds}."
    averaged = [markdown(column.title) for column in board.columns if column.counts]
    if len(averaged) < len(board.columns):
        text += f" Overall is over {', '.join(averaged) or 'no task'} alone."
    if board.exploratory and board.ranked:
        text += f" **Exploratory**: fewer than {SEEDS_TO_CLAIM} seeds, so that no two methods can be separated."
    return text


def _ranks_md(board: Board) -> str:
    titles = [markdown(column.title) for column in board.columns]
    header = ["Rank", "By score", "Method", "Overall", *titles, "Trainable", "Seeds", "Notes"]
    lines = []
    for row in board.rows:
        overall = (
            f"{numbers.percent(row.overall)} ({numbers.percents(row.overall_interval)})"
            if row.rank
            else numbers.NOTHING
        )
        scores = [numbers.score(c.score, column) if c else numbers.NOTHING for column, c in _cells(board, row)]
        notes = [*(["not ranked: " + row.unranked] if row.unranked else []), *row.flags]
        places = (numbers.rank(row.rank), numbers.rank(row.place, row.rank_interval))
        lines.append((*places, row.label, overall, *scores, numbers.share(row), numbers.seeds(row), "; ".join(notes)))
    return _table(header, lines)


def _task_md(board: Board, column: Column) -> str:
    header = ["Method", "Score", "95 % interval", "SD", "Seeds", "Strict", "Constrained", "Unreadable", "Rank"]
    header += [f"Retention: {title}" for title in RATIO_TITLES]
    lines = []
    for row in board.rows:
        cell = row.cells.get(column.task)
        if cell is None:
            continue
        lines.append(
            (
                row.label,
                numbers.score(cell.score, column),
                numbers.interval(cell.interval, column),
                numbers.spread(cell, column),
                str(len(cell.by_seed)) if row.trains else numbers.NOTHING,
                numbers.score(cell.strict, column, out_of=False),
                numbers.score(cell.constrained, column, out_of=False),
                numbers.percent(cell.unreadable),
                numbers.rank(cell.rank),
                *(numbers.ratio(cell.retention.get(name)) for name in RATIOS),
            )
        )
    chance, ceiling = (numbers.score(value, column, out_of=False) for value in (column.chance, column.ceiling))
    head = (
        f"**{markdown(column.title)}**: {markdown(column.headline)} of {column.n:,} questions on {column.n_pictures:,} "
        f"pictures; guessing gives {chance}, the most is {ceiling}; decoding {markdown(column.decode)}, "
        f"version {column.version}, data {markdown(column.data_fingerprint[:12])}."
    )
    return f"{head}\n\n{_table(header, lines)}"


def _figures_md(board: Board, column: Column) -> str:
    """Returns every figure of a task by method, mean over seeds, folded away."""
    rows = [row for row in board.rows if column.task in row.cells]
    names = list(dict.fromkeys(name for row in rows for name in row.cells[column.task].values))

    def text(name: str, value: float | None) -> str:
        points = column.unit == "points" and not name.startswith(("acc/", "acc_plus/"))
        return numbers.NOTHING if value is None else f"{value:.1f}" if points else numbers.percent(value)

    lines = [(name, *(text(name, row.cells[column.task].values.get(name)) for row in rows)) for name in names]
    table = _table(["Figure", *(row.label for row in rows)], lines)
    return f"<details><summary>All figures of {markdown(column.title)}</summary>\n\n{table}\n\n</details>"


def _costs_md(board: Board) -> str:
    header = ("Method", "Trainable (counted)", "Share", "Training (measured)", "Peak memory (measured)", "Adapter file",
              "Learning rate", "How it was chosen")  # fmt: skip
    lines = [
        (
            row.label,
            f"{row.trainable:,} of {row.total:,}",
            numbers.share(row),
            *((numbers.seconds(row.train_seconds), numbers.size(row.peak_bytes), numbers.size(row.adapter_bytes))
              if row.trains else (numbers.NOTHING,) * 3),
            numbers.rate(row),
            row.learning_rate_source,
        )
        for row in board.rows
    ]  # fmt: skip
    return _table(header, lines)


def _published_md(published: Sequence[Published]) -> str:
    header = ("Method", "Task", "Metric", "Value", "Source", "Note")
    lines = [(p.method, p.task, p.metric, f"{p.value} {p.unit}".strip(), p.source, p.note) for p in published]
    return _table(header, lines)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    texts = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*texts, *(f"| {' | '.join(markdown(text) for text in line)} |" for line in lines)])


def _cells(board: Board, row: Row) -> list[tuple[Column, Cell | None]]:
    return [(column, row.cells.get(column.task)) for column in board.columns]
