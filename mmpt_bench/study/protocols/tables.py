"""A protocol's scores as CSV for programs, as Markdown for people, and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.escaping import csv_table, markdown, plain_text, rich_text
from mmpt_bench.common.files import write_atomic
from mmpt_bench.evaluation.protocols import FILES, SEVEN, Protocol
from mmpt_bench.records.store import Store
from mmpt_bench.study.protocols.board import MMAVG, PARTS, ProtocolRow
from mmpt_bench.study.protocols.items import ItemFile

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

FOLDER = "protocols"
"""In the results folder: tables, replies for a judge, and verdicts of local judges."""
COLUMNS = (
    "protocol", "method", "seeds", "name", "n", "unit", "score", "ci_low", "ci_high", "judged", "judged_ci_low",
    "judged_ci_high", "judge", "items", "template", "temperature", "top_k", "new_tokens", "sample_seed",
)  # fmt: skip
NOTES = (
    "Replies are sampled; each item has a seed of its own, which follows from the sampling seed and its id. Intervals "
    "are 95 %, over images, and over training seeds where there are several; they do not cover other sampling seeds.",
    "Accuracy is by exact match with the target: in any case, without outer blanks and full stops. **Judged** is by "
    "the judge that is named. MME's replies are read as in the authors' pipeline: yes anywhere, else no anywhere.",
    "**MMAvg** is the mean of seven: Text-VQA, VSR, SNLI-VE, CIFAR-10, CIFAR-100, MNIST, and the mean of POPE's three.",
)


@dataclass(frozen=True, repr=False)
class ProtocolResult:
    """Scores under a paper's protocol."""

    name: str
    """Of its files."""
    protocol: Protocol
    sample_seed: int
    files: tuple[ItemFile, ...]
    folder: Path
    """The results folder."""
    rows: tuple[ProtocolRow, ...]
    judge: str = ""
    command: str = ""

    def __repr__(self) -> str:
        """Returns one line: which protocol, and where it is."""
        return f"<Protocol `{self.name}` in `{self.folder}`: {len(self.rows)} scores>"

    @property
    def missing(self) -> tuple[str, ...]:
        """Returns the files of items that MMAvg lacks."""
        there = {each.file for each in self.files}
        return tuple(file for files in SEVEN.values() for file in files if file not in there)

    @property
    def table(self) -> pd.DataFrame:
        """A row a method and score: value, interval, the judge's, items, decoding."""
        import pandas as pd

        return pd.DataFrame(lines(self), columns=list(COLUMNS))


def write_protocol(store: Store, result: ProtocolResult) -> None:
    """Writes `protocols/<name>.csv` and `.md`."""
    at = store.path(FOLDER)
    write_atomic(at / f"{result.name}.csv", csv_table(COLUMNS, lines(result)))
    write_atomic(at / f"{result.name}.md", protocol_md(result))


def lines(result: ProtocolResult) -> list[dict[str, Any]]:
    """Returns the scores as plain values, fractions as they are; means have no decoding of their own."""
    made, origins = [], {each.file: each.origin for each in result.files}
    for row in result.rows:
        low, high = row.judged_interval or (None, None)
        file = "mme" if row.name.startswith("MME ") else row.name
        decoding = result.protocol.decoding(file, result.sample_seed) if file in FILES else {}
        line = {
            "protocol": result.protocol.name, "method": row.method, "seeds": len(row.seeds), "name": row.name,
            "n": row.n, "unit": "points" if file == "mme" else "fraction", "score": row.score,
            "ci_low": row.interval[0], "ci_high": row.interval[1], "judged": row.judged, "judged_ci_low": low,
            "judged_ci_high": high, "judge": result.judge, "items": origins.get(file, ""),
            "sample_seed": result.sample_seed,
        }  # fmt: skip
        line |= {name: decoding.get(name) for name in ("template", "temperature", "top_k", "new_tokens")}
        made.append({name: line[name] for name in COLUMNS})
    return made


def items_told(result: ProtocolResult) -> str:
    """Returns one sentence on whose items were asked."""
    made = [each.file for each in result.files if each.origin.startswith("not the paper's items")]
    if made:
        return f"Not the paper's items: made of the tasks' rows ({', '.join(made)})."
    return "Items as given; nobody has verified that they are the paper's."


def missing_told(result: ProtocolResult) -> str:
    """Returns why there is no MMAvg; empty where there is one."""
    return f"No MMAvg: {', '.join(result.missing)} are missing." if result.missing else ""


def _cell(row: ProtocolRow | None, judged: bool = False) -> str:
    if row is None or (judged and row.judged is None):
        return "–"
    value, interval = (row.judged, row.judged_interval) if judged else (row.score, row.interval)
    assert value is not None
    assert interval is not None
    scale = 1 if row.name.startswith("MME ") else 100
    return f"{scale * value:z.1f} ({scale * interval[0]:z.1f} to {scale * interval[1]:z.1f})"


def _names(result: ProtocolResult) -> list[str]:
    order = [*FILES[:-1], "POPE", MMAVG, *(f"MME {part}" for part in PARTS)]
    return [name for name in order if any(row.name == name for row in result.rows)]


def protocol_md(result: ProtocolResult) -> bytes:
    """Returns the scores as Markdown: whose items, a column a method, the decoding of each file."""
    methods = list(dict.fromkeys(row.method for row in result.rows))
    by = {(row.method, row.name): row for row in result.rows}
    header = [
        "Score, % (MME: points)",
        *(text for m in methods for text in ([m, f"{m}, judged"] if result.judge else [m])),
    ]
    table = [
        [
            name,
            *(
                _cell(by.get((m, name)), judged)
                for m in methods
                for judged in ((False, True) if result.judge else (False,))
            ),
        ]
        for name in _names(result)
    ]
    decoding = []
    for each in result.files:
        by_file = result.protocol.decoding(each.file, result.sample_seed)
        told = [str(by_file[name]) for name in ("temperature", "top_k", "new_tokens", "seed", "template")]
        decoding.append([each.file, str(len(each.items)), each.origin, *told])
    parts = [
        f"# Protocol {markdown(result.protocol.name)}",
        *([f"Made by `{plain_text(result.command, 2000)}`."] if result.command else []),
        f"**{items_told(result)}**",
        _table(header, table),
        *([missing_told(result)] if result.missing else []),
        *([f"Judge: {markdown(result.judge)}."] if result.judge else []),
        "\n".join(f"- {note}" for note in NOTES),
        "## Items and decoding",
        _table(["File", "Items", "From", "Temperature", "Top k", "New tokens", "Seed", "Template"], decoding),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    texts = [f"| {' | '.join(map(markdown, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(map(markdown, header))} |", f"|{'---|' * len(header)}", *texts])


def protocol_table(result: ProtocolResult) -> RenderableType:
    """Returns what to print: a row a score, a column a method."""
    from rich.table import Table

    methods = list(dict.fromkeys(row.method for row in result.rows))
    by = {(row.method, row.name): row for row in result.rows}
    table = Table(title=rich_text(f"Protocol {result.protocol.name}: %, MME in points"), title_justify="left", box=None)
    table.add_column("Score")
    for method in methods:
        table.add_column(rich_text(method), justify="right")
    for name in _names(result):
        table.add_row(name, *(_cell(by.get((m, name))) for m in methods))
        if result.judge and not name.startswith("MME "):
            table.add_row("  judged", *(_cell(by.get((m, name)), judged=True) for m in methods))
    return table
