"""Rows as CSV for programs: digits that do not hang on the machine, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmpt_bench.escape import csv_text

DIGITS = 10
"""Significant digits of a fraction. Processors add in different orders, so that the last of a double's seventeen
differ between them (docs/decisions/0019-ten-digits.md)."""


def csv_table(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Returns a header line and a line a row; what is unknown is empty, and mappings and lists are JSON."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def rounded(value: Any) -> Any:
    """Returns a value with its fractions, also those inside mappings and lists, to `DIGITS` significant digits."""
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _cell(value: Any) -> Any:
    if isinstance(value, (Mapping, list, tuple)):
        return json.dumps(rounded(value), sort_keys=True)
    if isinstance(value, str):
        return csv_text(value)
    return "" if value is None else rounded(value)
