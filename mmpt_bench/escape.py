"""Text of others (names, reasons, replies) made harmless for where it is shown, one function a place."""

from __future__ import annotations

import re

MAX_SHOWN = 300
"""Characters that a table shows of a text that somebody else wrote."""
# CSI, OSC (up to BEL or ST) and two-character escapes; what is left of a broken one falls with the control characters.
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]|\x9b[0-?]*[ -/]*[@-~]")
LATEX = {
    **{character: f"\\{character}" for character in "{}$&#_%"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "−": "$-$", "≤": r"$\le$", "×": r"$\times$",
}  # fmt: skip
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~!$])")


def plain_text(text: str, limit: int = MAX_SHOWN) -> str:
    """Returns text as one printable line of limited length: no escape sequences, no control or direction marks."""
    line = " ".join(ANSI.sub("", text[: 20 * limit]).split())
    line = "".join(character for character in line if character.isprintable())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def markdown(text: str) -> str:
    """Returns text for a cell or a line of Markdown: it can end no cell, open no link, no code and no HTML."""
    return MARKDOWN.sub(r"\\\1", plain_text(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


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
