"""Scores from papers: shown with their source, under a heading of their own, and never ranked.

They are of other models, other data and other training than any run here, so that no difference to a run means
anything. A row without a source is not accepted.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from mmpt_bench.common.errors import RequestError, UntrustedRecord

COLUMNS = ("method", "task", "metric", "value", "unit", "kind", "source", "note")
KINDS = ("primary", "secondary")
REMARK = (
    "From papers, of other models and other data than the runs above: not comparable with them, and never ranked. "
    "`primary` was read in the source itself; `secondary` was read in another text about it, and may be wrong."
)


@dataclass(frozen=True)
class Published:
    """One score as a paper gives it."""

    method: str
    """As the paper calls it."""
    task: str
    """Empty where the number is of no task: a count of parameters."""
    metric: str
    """Empty where the paper's claim names none."""
    value: str
    """As printed; words where the paper only orders: "above full fine-tuning"."""
    unit: str
    kind: str
    """`primary`: read in the source itself. `secondary`: read in another text that tells what the source says."""
    source: str
    """Authors, title, venue and arXiv number; or a repository, a file and its commit."""
    note: str


def read_published(path: Path) -> tuple[Published, ...]:
    """Returns the rows of published.csv in their order.

    Raises:
        RequestError: there is no such file, or it is no UTF-8 text.
        UntrustedRecord: its columns are others, or a row lacks its method, value, kind or source (with line number).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"The published scores `{path.name}` cannot be read: {error}.") from error
    reader = csv.DictReader(text.splitlines(), strict=True)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise UntrustedRecord(f"`{path.name}` needs the columns {', '.join(COLUMNS)}.")
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise UntrustedRecord(f"Line {reader.line_num} of `{path.name}` has not {len(COLUMNS)} fields.")
        for name in ("method", "value", "source"):
            if not row[name].strip():
                raise UntrustedRecord(f"Line {reader.line_num} of `{path.name}` has no {name}: it is not accepted.")
        if row["kind"].strip() not in KINDS:
            raise UntrustedRecord(f"Line {reader.line_num} of `{path.name}`: `kind` is {' or '.join(KINDS)}.")
        rows.append(Published(**{name: row[name].strip() for name in COLUMNS}))
    return tuple(rows)
