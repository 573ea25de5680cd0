"""Token pruning as CSV for programs, as Markdown for people, and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.escaping import csv_table, markdown, plain_text, rich_text
from mmpt_bench.common.files import write_atomic
from mmpt_bench.common.words import counted
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.study.pruning.board import WHOLE, Change, PruneRow

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

FOLDER = "pruning"
"""In the results folder: what is written of token pruning."""
COLUMNS = (
    "task", "method", "prune", "keep_tokens", "tokens", "seeds", "n", "score", "ci_low", "ci_high", "from_whole",
    "from_whole_ci_low", "from_whole_ci_high", "from_random", "from_random_ci_low", "from_random_ci_high", "unreadable",
    "choose_ms", "prefill_ms",
)  # fmt: skip
NOTES = (
    "One trained model a method and seed, asked with the whole image (`none`) and with a share of its tokens. Tokens "
    "are left out before the language model; those that stay, and the text, keep their positions, and learnt prompts "
    "stay.",
    "**Score**: 95 % interval over images, and over seeds where there are several. **From whole**, **from random**: "
    "differences on the same questions, from the same method with all tokens and with as many at random; intervals "
    "are not corrected for their number. With fewer than two seeds they are of that checkpoint.",
    "**Choose**: finding the tokens, by a pass of its own. **Prefill**: the language model reads a prompt. Medians, "
    "one question at a time, measured when it was first asked; on small models mostly overhead.",
)


@dataclass(frozen=True, repr=False)
class PruneResult:
    """Models asked with a share of their image tokens."""

    name: str
    """Of its files."""
    tasks: Mapping[str, Task]
    folder: Path
    """The results folder."""
    rows: tuple[PruneRow, ...]
    notes: tuple[str, ...]
    """Ways to prune that were added, or left out, and why."""
    failed: tuple[Record, ...]
    """Trainings and evaluations that failed; they have no row."""
    command: str = ""
    source: str = ""
    """Suite, subset and day."""
    files: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        """Returns one line: what there is, and where."""
        return f"<Token pruning `{self.name}` in `{self.folder}`: {counted(len(self.rows), 'row')}>"

    @property
    def table(self) -> pd.DataFrame:
        """A row a task, method, kind and share: score, interval, differences, times."""
        import pandas as pd

        return pd.DataFrame(lines(self), columns=list(COLUMNS))


def write_pruning(store: Store, result: PruneResult) -> tuple[Path, ...]:
    """Writes `pruning/<name>.csv` and `.md` and returns their paths."""
    at = store.path(FOLDER)
    files = at / f"{result.name}.csv", at / f"{result.name}.md"
    write_atomic(files[0], csv_table(COLUMNS, lines(result)))
    write_atomic(files[1], pruning_md(result))
    return files


def lines(result: PruneResult) -> list[dict[str, Any]]:
    """Returns the rows as plain values, fractions as they are."""
    made = []
    for row in result.rows:
        line: dict[str, Any] = {
            "task": row.task, "method": row.method, "prune": row.kind, "keep_tokens": row.share, "tokens": row.tokens,
            "seeds": len(row.seeds), "n": row.n, "score": row.score, "unreadable": row.unreadable,
            "choose_ms": 1000 * row.choose_seconds, "prefill_ms": 1000 * row.prefill_seconds,
        }  # fmt: skip
        spans = {"": row.interval, "from_whole_": row.from_whole and row.from_whole.interval,
                 "from_random_": row.from_random and row.from_random.interval}  # fmt: skip
        for name, span in spans.items():
            line[f"{name}ci_low"], line[f"{name}ci_high"] = span or (None, None)
        for name, found in (("from_whole", row.from_whole), ("from_random", row.from_random)):
            line[name] = None if found is None else found.estimate
        made.append({name: line[name] for name in COLUMNS})
    return made


def _cells(result: PruneResult, row: PruneRow, digits: int = 1) -> list[str]:
    scale = 1 if result.tasks[row.task].declared.unit == "points" else 100

    def between(pair: tuple[float, float] | None) -> str:
        return "" if pair is None else f" ({scale * pair[0]:z.{digits}f} to {scale * pair[1]:z.{digits}f})"

    def change(found: Change | None) -> str:
        return "–" if found is None else f"{scale * found.estimate:+z.1f}{between(found.interval)}"

    choose = "–" if row.kind == WHOLE else f"{1000 * row.choose_seconds:.3g}"
    return [
        row.method,
        row.kind,
        f"{100 * row.share:.3g} % ({row.tokens})",
        f"{scale * row.score:z.1f}{between(row.interval)}",
        change(row.from_whole),
        change(row.from_random),
        f"{100 * row.unreadable:z.1f} %",
        choose,
        f"{1000 * row.prefill_seconds:.3g}",
    ]


def _header(unit: str) -> list[str]:
    named = f"Score, {'points' if unit == 'points' else '%'}"
    return ["Method", "Prune", "Kept (tokens)", named, "From whole", "From random", "Unreadable", "Choose, ms",
            "Prefill, ms"]  # fmt: skip


def pruning_md(result: PruneResult) -> bytes:
    """Returns the tables as Markdown: one a task, and what the columns mean."""
    parts = ["# Token pruning", *([f"Made by `{plain_text(result.command, 2000)}`."] if result.command else [])]
    for task in result.tasks.values():
        rows = [row for row in result.rows if row.task == task.name]
        if not rows:
            continue
        table = [_header(task.declared.unit), *(_cells(result, row) for row in rows)]
        text = "\n".join(f"| {' | '.join(map(markdown, cells))} |" for cells in table)
        parts += [f"## {markdown(task.title)}", f"{counted(rows[0].n, 'question')}, metric `{task.headline}`."]
        parts.append(text.replace("\n", "\n|" + "---|" * len(table[0]) + "\n", 1))
    parts.append("\n".join(f"- {note}" for note in (*NOTES, *(f"{note}." for note in result.notes))))
    parts += [f"Failed: {markdown(record.run)}: {markdown(record.reason)}." for record in result.failed]
    return ("\n\n".join(parts) + "\n").encode()


def pruning_tables(result: PruneResult) -> list[RenderableType]:
    """Returns what to print, a table a task; 80 columns are enough."""
    from rich.table import Table

    made: list[RenderableType] = []
    for task in result.tasks.values():
        unit = "points" if task.declared.unit == "points" else "%"
        title = rich_text(f"Token pruning on {task.title}")
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for name in ("Method, prune", "Kept", f"Score, {unit}", "From whole", "From random", "Prefill"):
            table.add_column(name, justify="left" if name == "Method, prune" else "right", no_wrap=True)
        for row in (row for row in result.rows if row.task == task.name):
            method, kind, kept, score, whole, random, _, _, prefill = _cells(result, row, digits=0)
            broken = (text.replace(" (", "\n(") for text in (kept, score, whole, random))
            table.add_row(rich_text(f"{method}\n{kind}"), *broken, f"{prefill}\nms")
        made.append(table)
    return made
