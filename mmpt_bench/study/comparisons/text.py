"""A comparison as a sentence, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mmpt_bench.board.board import Board, plain
from mmpt_bench.board.contrasts import Contrast
from mmpt_bench.board.ranking import OVERALL
from mmpt_bench.board.writers import numbers
from mmpt_bench.board.writers.html import html_table, html_text
from mmpt_bench.common.escaping import rich_text
from mmpt_bench.common.words import counted
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM, SIGNIFICANT

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


NARROW = 78
"""With fewer columns of a terminal, tables leave out what is for a second look, and say who is better all the same."""
SECOND = ("p on\nboard", "Detect-\nable", "Gain\nrecovered", "Trained")
"""The headings of that."""
LONGEST_LABEL = 15
"""Characters of a label that is repeated in a narrow column."""


@dataclass(frozen=True, repr=False)
class ComparisonResult:
    """What is said of some rows of a board; a notebook shows the sentence and the table."""

    board: Board
    labels: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    """Of each pair: the mean of the tasks, then each task."""
    sentence: str

    def __repr__(self) -> str:
        """Returns the sentence."""
        return f"<{self.sentence}>"

    @property
    def table(self) -> pd.DataFrame:
        """A row a pair and task; the mean of the tasks has the task "".

        Columns: first, second, task, difference (first - second, in the task's unit; of the mean, a fraction with
        chance removed), ci_low, ci_high (95 %), p (the larger of Holm's over this comparison and that of sign flips),
        detectable (the minimum detectable difference, 80 % power), better (its label; None where the two are not
        significantly different).
        """
        import pandas as pd

        rows = [
            (
                c.first,
                c.second,
                c.task,
                c.difference.estimate,
                *c.difference.interval,
                c.p_adjusted,
                c.detectable,
                c.better,
            )
            for c in self.contrasts
        ]
        names = ["first", "second", "task", "difference", "ci_low", "ci_high", "p", "detectable", "better"]
        return pd.DataFrame(rows, columns=names)

    def _repr_html_(self) -> str:
        """Returns the sentence and the differences as a notebook shows them."""
        header = ["First", "Second", "On", "Difference", "95 % interval", "p", "Better"]
        lines = []
        for each in self.contrasts:
            low, high = (_amount(value, each, self.board) for value in each.difference.interval)
            on = "mean of tasks" if each.task == OVERALL else _what(each, self.board)
            amount = _amount(each.difference.estimate, each, self.board)
            better = each.better or "not significantly different"
            lines.append(
                [each.first, each.second, on, amount, f"{low} to {high}", numbers.p_value(each.p_adjusted), better]
            )
        return html_text(self.sentence) + html_table("", header, lines)


def sentence(made: Sequence[Contrast], board: Board) -> str:
    """Returns what the first family of contrasts says, in one sentence for a pair, and a list for several."""
    main = [each for each in made if each.task == made[0].task]
    what = _what(main[0], board)
    if len(main) == 1:
        return _of_pair(main[0], board, what)
    better = [f"{each.better} over {_other(each)}" for each in main if each.better is not None]
    even = [f"{each.first} and {each.second}" for each in main if each.better is None]
    of_trainings = all(each.scope == "checkpoint" for each in main)
    on = f" between these checkpoints on {what}" if of_trainings else f" on {what}"
    told = f"Significantly different{on}: {'; '.join(better)}." if better else f"No difference is significant{on}."
    told += f" Not significantly different: {'; '.join(even)}." if even and better else ""
    told += " Of the methods this says nothing: that takes seeds." if of_trainings else ""
    return told + _few(main)


def threads_note(board: Board, labels: Sequence[str]) -> str:
    """Returns a sentence on rows that were trained with different numbers of threads; empty where none were."""
    told = {
        row.label: flag
        for row in board.rows
        for flag in row.flags
        if row.label in labels and flag.startswith("trained with ") and flag.endswith(("thread", "threads"))
    }
    if len(set(told.values())) < 2:
        return ""
    each = "; ".join(f"{label} {flag}" for label, flag in told.items())
    return f" Threads differ, which changes sums in their last bits: {each}."


def _of_pair(each: Contrast, board: Board, what: str) -> str:
    size, low, high = (_amount(value, each, board) for value in (abs(each.difference.estimate), *_toward_better(each)))
    unit = _unit(each, board)
    basis = f"95 % interval {low} to {high}, p {numbers.p_value(each.p_adjusted)}{_on_board(each, board)}"
    on = _basis(each)
    if each.scope == "checkpoint":
        where = f" at seed {each.seeds[0]}" if each.seeds else ""
        if each.better is not None:
            told = f"This checkpoint of {each.better} is better than that of {_other(each)}{where} on {what}: "
            return f"{told}by {size} {unit} ({basis}; {on}). Of the methods this says nothing: that takes seeds."
        return (
            f"These checkpoints of {each.first} and {each.second} are not significantly different{where} on {what}: "
            f"{_ahead(each)} by {size} {unit} ({basis}; {on}){_could(each, board)}."
        )
    if each.better is not None:
        return f"{each.better} is better than {_other(each)} on {what}: by {size} {unit} ({basis}; {on})."
    flips = each.difference.p_sign_flip
    if each.p_holm <= SIGNIFICANT and flips is not None:
        basis += f"; sign flips of the seeds do not agree with the t-test, whose p is {numbers.p_value(each.p_holm)}"
    return (
        f"{each.first} and {each.second} are not significantly different on {what}: {_ahead(each)} by {size} {unit} "
        f"({basis}; {on}){_could(each, board)}."
    )


def _could(each: Contrast, board: Board) -> str:
    """Returns what could have been found; nothing where all answers are alike."""
    if each.scope == "method" and len(each.seeds) < SEEDS_TO_CLAIM:
        return f"; with fewer than {SEEDS_TO_CLAIM} seeds no difference is significant"
    if not each.detectable:
        return ""
    return f"; the minimum detectable difference (80 % power) is {_amount(each.detectable, each, board)}"


def _on_board(each: Contrast, board: Board) -> str:
    """Returns the p-value of the board beside that of the comparison, which has a family of its own."""
    if each.on_board is None:
        return ""
    n = len(board.ranked)
    family = f"the {n * (n - 1) // 2} pairs of the board" if each.task == OVERALL else "all pairs of the board's column"
    return f" in this comparison, {numbers.p_value(each.on_board.p_adjusted)} among {family}"


def _toward_better(each: Contrast) -> tuple[float, float]:
    """Returns the interval of the difference in favour of the one that is ahead."""
    low, high = each.difference.interval
    return (low, high) if each.difference.estimate >= 0 else (-high, -low)


def _basis(each: Contrast) -> str:
    seeds = f"{counted(len(each.seeds), 'seed')}, " if each.scope == "method" else ""
    return f"{seeds}{counted(each.n_pictures, 'image')}"


def _few(main: Sequence[Contrast]) -> str:
    few = [each for each in main if each.scope == "method" and each.detectable is None]
    return f" With fewer than {SEEDS_TO_CLAIM} seeds no difference is significant." if few else ""


def _ahead(each: Contrast) -> str:
    return f"{each.first if each.difference.estimate >= 0 else each.second} is ahead"


def _other(each: Contrast) -> str:
    return each.second if each.better == each.first else each.first


def _what(each: Contrast, board: Board) -> str:
    if each.task == OVERALL:
        return f"the mean of {counted(len(each.tasks), 'task')}"
    return next(c.title for c in board.columns if c.task == each.task)


def _amount(value: float, each: Contrast, board: Board) -> str:
    return f"{value if _unit(each, board) == 'points' else 100.0 * value:z.1f}"


def _unit(each: Contrast, board: Board) -> str:
    if each.task == OVERALL:
        return "percentage points, chance-corrected"
    column = next(c for c in board.columns if c.task == each.task)
    return "points" if column.unit == "points" else "percentage points"


def as_plain(answer: ComparisonResult) -> dict[str, Any]:
    """Returns an answer as JSON values."""
    rows = [plain(row) for row in answer.board.rows if row.label in answer.labels]
    return {
        "sentence": answer.sentence, "setting": answer.board.id, "board": answer.board.title,
        "contrasts": [plain(each) for each in answer.contrasts], "rows": rows,
        "families": "p_holm: Holm over the pairs asked for on the mean of the tasks, and over those on all tasks; "
        "on_board: over all pairs of the board, each column for itself",
    }  # fmt: skip


def tables(answer: ComparisonResult, width: int = 80) -> list[Table]:
    """Returns what to print below the sentence: the differences, and the rows themselves; by the terminal's width."""
    found = [*_differences_tables(answer), _rows_table(answer)]
    for table in found if width < NARROW else ():
        table.columns = [column for column in table.columns if column.header not in SECOND]
    return found


def _differences_tables(answer: ComparisonResult) -> list[Table]:
    """Returns the differences of a pair by task, or of several pairs a table for each task; 80 columns are enough."""
    pairs = list(dict.fromkeys((each.first, each.second) for each in answer.contrasts))
    names = ("Differ-\nence", "95 %\ninterval", "p", "p on\nboard", "Detect-\nable", "Better")
    if len(pairs) == 1:
        made = {"": _empty(" − ".join(pairs[0]), ("On", *names))}
    else:
        made = {each.task: _empty(f"On {_on(each, answer.board)}", ("Pair", *names)) for each in answer.contrasts}
    for each in answer.contrasts:
        low, high = (_amount(value, each, answer.board) for value in each.difference.interval)
        made["" if len(pairs) == 1 else each.task].add_row(
            rich_text(_on(each, answer.board) if len(pairs) == 1 else f"{each.first} − {each.second}"),
            _amount(each.difference.estimate, each, answer.board),
            f"{low} to {high}",
            numbers.p_value(each.p_adjusted),
            numbers.NOTHING if each.on_board is None else numbers.p_value(each.on_board.p_adjusted),
            numbers.NOTHING if each.detectable is None else _amount(each.detectable, each, answer.board),
            rich_text(better_text(each.first, each.better)),
        )
    return list(made.values())


def better_text(first: str, better: str | None) -> str:
    """Returns which of a pair is better, for a narrow column: its label, or where that is long, its place in the pair.

    Args:
        first: the label of the first of the pair.
        better: the label of the better one; None where the two are not significantly different.
    """
    if better is None:
        return "not significant"
    return better if len(better) <= LONGEST_LABEL else ("the first" if better == first else "the second")


def _on(each: Contrast, board: Board) -> str:
    return "mean of tasks" if each.task == OVERALL else _what(each, board)


def _rows_table(answer: ComparisonResult) -> Table:
    """Returns the rows themselves: overall, place and groups, and how much of full fine-tuning's gain is kept."""
    table = _empty(answer.board.title, ("Method", "Overall", "Place", "Gain\nrecovered", "Trained", "Seeds"))
    for row in answer.board.rows:
        if row.label in answer.labels:
            table.add_row(
                rich_text(row.label),
                f"{numbers.percent(row.overall)}\n{numbers.percents(row.overall_interval)}",
                numbers.place(row, answer.board),
                rich_text(numbers.ratio(row.retention.get("gain_recovered"))),
                numbers.share(row),
                numbers.seeds(row),
            )
    return table


def _empty(title: str, names: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=rich_text(title) or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        # Labels of variants differ at their ends: none may be cut.
        is_text = name in ("Pair", "On", "Better", "Method")
        may_fold = is_text or name.startswith("Gain")
        least = {"Better": len("significant"), "On": 8, "Pair": 8, "Method": 8}.get(name)
        justify: Literal["left", "right"] = "left" if is_text else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=not may_fold, min_width=least)
    return table
