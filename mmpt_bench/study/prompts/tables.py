"""Prompt forms as CSV for programs, as Markdown for people, and on the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.board.writers.numbers import p_value
from mmpt_bench.common.escaping import csv_table, markdown, plain_text, rich_text
from mmpt_bench.common.files import write_atomic
from mmpt_bench.common.words import counted
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.study.prompts.board import PromptRow

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

FOLDER = "prompts"
"""In the results folder: what is written of comparisons of prompt forms."""
COLUMNS = (
    "task", "method", "form", "seeds", "n", "orders", "score", "ci_low", "ci_high", "strict", "unreadable",
    "lowest_order", "highest_order", "same_in_all_orders", "prompt_tokens", "reply_tokens", "compared_with",
    "difference", "difference_ci_low", "difference_ci_high", "p", "p_holm",
)  # fmt: skip
ORDER_COLUMNS = ("task", "method", "form", "order", "score")
NOTES = (
    "**Score** counts the answers in all orders of the labels, with its 95 % interval over images (and seeds, where "
    "there are several). **Strict** is that of the replies as they are read; **unreadable** the share in which a "
    "person reads no label.",
    "**Difference** is from the first form of the same method, on the same items; p after Holm over all differences "
    "here. With fewer than two seeds it is of that checkpoint.",
    "**Orders**: lowest and highest score of one order of the labels, which differ by chance too. **Same**: the share "
    "of items with the same answer in all orders.",
    "**Tokens**, a question, on average: of the prompts' text (the image is one) + of the replies; with the free text, "
    "where a form asks for some first.",
)


@dataclass(frozen=True, repr=False)
class PromptResult:
    """Prompt forms compared on one task."""

    name: str
    """Of its files."""
    task: Task
    origin: str
    """Where the items are from."""
    folder: Path
    """The results folder."""
    rows: tuple[PromptRow, ...]
    failed: tuple[Record, ...]
    """Trainings and evaluations that failed; their methods have no row."""
    command: str = ""
    notes: tuple[str, ...] = ()
    """Trainings of another length than the default."""

    def __repr__(self) -> str:
        """Returns one line: what was compared, and where it is."""
        return f"<Prompt forms `{self.name}` in `{self.folder}`: {counted(len(self.rows), 'row')}>"

    @property
    def table(self) -> pd.DataFrame:
        """A row a method and form: score, interval, difference from the first form, p, tokens."""
        import pandas as pd

        return pd.DataFrame(lines(self), columns=list(COLUMNS))

    @property
    def orders(self) -> pd.DataFrame:
        """A row a method, form and order of the labels: its score."""
        import pandas as pd

        return pd.DataFrame(_order_lines(self), columns=list(ORDER_COLUMNS))


def write_prompts(store: Store, result: PromptResult) -> None:
    """Writes `prompts/<name>.csv`, `-orders.csv` and `.md`."""
    at = store.path(FOLDER)
    write_atomic(at / f"{result.name}.csv", csv_table(COLUMNS, lines(result)))
    write_atomic(at / f"{result.name}-orders.csv", csv_table(ORDER_COLUMNS, _order_lines(result)))
    write_atomic(at / f"{result.name}.md", prompts_md(result))


def lines(result: PromptResult) -> list[dict[str, Any]]:
    """Returns the rows as plain values, fractions as they are."""
    made: list[dict[str, Any]] = []
    first: dict[str, str] = {}
    for row in result.rows:
        base, found = first.setdefault(row.method, row.form), row.difference
        low, high = row.interval or (None, None)
        line = {
            "task": result.task.name, "method": row.method, "form": row.form, "seeds": len(row.seeds), "n": row.n,
            "orders": row.orders, "score": row.score, "ci_low": low, "ci_high": high, "strict": row.strict,
            "unreadable": row.unreadable, "lowest_order": min(row.by_order, default=None),
            "highest_order": max(row.by_order, default=None), "same_in_all_orders": row.same,
            "prompt_tokens": row.prompt_tokens, "reply_tokens": row.reply_tokens,
        }  # fmt: skip
        if found is not None:
            line |= {
                "compared_with": base, "difference": found.estimate, "difference_ci_low": found.interval[0],
                "difference_ci_high": found.interval[1], "p": found.p, "p_holm": row.p_holm,
            }  # fmt: skip
        made.append({name: line.get(name) for name in COLUMNS})
    return made


def _order_lines(result: PromptResult) -> list[dict[str, Any]]:
    return [
        {"task": result.task.name, "method": row.method, "form": row.form, "order": number, "score": score}
        for row in result.rows
        for number, score in enumerate(row.by_order, start=1)
    ]


def _cells(result: PromptResult, row: PromptRow) -> list[str]:
    scale = 1 if result.task.declared.unit == "points" else 100

    def between(pair: tuple[float, float] | None) -> str:
        return "" if pair is None else f" ({scale * pair[0]:z.1f} to {scale * pair[1]:z.1f})"

    found = row.difference
    told = "–" if found is None else f"{scale * found.estimate:+z.1f}{between(found.interval)}"
    orders = f"{scale * min(row.by_order):z.1f}–{scale * max(row.by_order):z.1f}" if row.by_order else "–"
    return [
        row.method,
        row.form,
        f"{scale * row.score:z.1f}{between(row.interval)}",
        told,
        "–" if row.p_holm is None else p_value(row.p_holm),
        f"{scale * row.strict:z.1f}",
        f"{100 * row.unreadable:z.1f} %",
        orders,
        "–" if row.same is None else f"{100 * row.same:.0f} %",
        f"{row.prompt_tokens:.0f} + {row.reply_tokens:.0f}",
    ]


def _header(result: PromptResult) -> list[str]:
    unit = "points" if result.task.declared.unit == "points" else "%"
    return [
        "Method",
        "Form",
        f"Score, {unit}",
        "Difference",
        "p (Holm)",
        "Strict",
        "Unreadable",
        "Orders",
        "Same",
        "Tokens",
    ]


def prompts_md(result: PromptResult) -> bytes:
    """Returns the comparison as Markdown: what was asked, a row a method and form, and what the columns mean."""
    items = f"{counted(result.rows[0].n, 'item')}" if result.rows else "No model answered"
    parts = [
        f"# Prompt forms: {markdown(result.task.title)}",
        *([f"Made by `{plain_text(result.command, 2000)}`."] if result.command else []),
        f"{items} of {markdown(result.origin)}; metric `{result.task.headline}`.",
        "\n".join(
            f"| {' | '.join(map(markdown, cells))} |"
            for cells in (_header(result), *(_cells(result, row) for row in result.rows))
        ).replace("\n", "\n|" + "---|" * len(_header(result)) + "\n", 1),
        "\n".join(f"- {note}" for note in (*map(markdown, result.notes), *NOTES)),
        *(f"Failed: {markdown(record.run)}: {markdown(record.reason)}." for record in result.failed),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def prompts_table(result: PromptResult) -> RenderableType:
    """Returns what to print: a row a method and form; 80 columns are enough."""
    from rich.table import Table

    table = Table(
        title=rich_text(f"Prompt forms on {result.task.title}"), title_justify="left", box=None, pad_edge=False
    )
    shown = [
        "Method, form",
        f"Score, {'points' if result.task.declared.unit == 'points' else '%'}",
        "Difference, p",
        "Orders",
        "Unread",
        "Tokens",
    ]
    for name in shown:
        table.add_column(name, justify="left" if name == shown[0] else "right", no_wrap=name != shown[0])
    for row in result.rows:
        method, form, score, told, p, _, unread, orders, same, tokens = _cells(result, row)
        score, told = score.replace(" (", "\n("), told.replace(" (", "\n(")
        told = told if p == "–" else f"{told}\np {p}"
        table.add_row(rich_text(f"{method}\n{form}"), score, told, f"{orders}\nsame {same}", unread, tokens)
    return table
