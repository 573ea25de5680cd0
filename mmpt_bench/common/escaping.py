"""Rows as CSV for programs: digits that do not hang on the machine, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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


MAX_SHOWN = 300
"""Characters that a table shows of a text that somebody else wrote."""

# CSI, OSC (up to BEL or ST) and two-character escapes; what is left of a broken one falls with the control characters.
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]|\x9b[0-?]*[ -/]*[@-~]")

LATEX = {
    **{character: f"\\{character}" for character in "{}$&#_%"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "−": "$-$", "≤": r"$\le$", "≥": r"$\ge$", "×": r"$\times$", "†": r"\dag{}",
}  # fmt: skip

MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~!$])")


def without_escapes(text: str) -> str:
    """Returns text of any number of lines without escape sequences, control characters and direction marks."""
    lines = text.split("\n")
    if not all(line.isprintable() for line in lines):
        lines = ANSI.sub("", text).split("\n")
        lines = ["".join(c for c in line if c.isprintable() or c == "\t") for line in lines]
    return "\n".join(lines)


def plain_text(text: str, limit: int = MAX_SHOWN) -> str:
    """Returns text as one printable line of limited length: no escape sequences, no control or direction marks."""
    line = " ".join(ANSI.sub("", text[: 20 * limit]).split())
    line = "".join(character for character in line if character.isprintable())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def markdown(text: str, limit: int = MAX_SHOWN) -> str:
    """Returns text for a cell or a line of Markdown: it can end no cell, open no link, no code and no HTML."""
    return MARKDOWN.sub(
        r"\\\1", plain_text(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    )


@functools.lru_cache(1 << 12)
def csv_text(text: str) -> str:
    """Returns text for a cell of CSV that a spreadsheet does not run: one that begins like a formula gets a quote."""
    line = plain_text(text)
    return f"'{line}" if line[:1] in ("=", "+", "-", "@") else line


def latex(text: str, limit: int = MAX_SHOWN) -> str:
    """Returns text for LaTeX: it can begin no command, no formula, no comment and no cell."""
    return "".join(LATEX.get(character, character) for character in plain_text(text, limit))


def rich_text(text: str, limit: int = MAX_SHOWN) -> str:
    """Returns text for a terminal: no escape sequences, and what looks like markup is shown as it stands."""
    from rich.markup import escape

    # A backslash at the end would escape the tag that follows.
    line = escape(plain_text(text, limit))
    return f"{line} " if line.endswith("\\") else line
