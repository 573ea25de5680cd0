"""The commands that README and docs/ show, and which of them are marked as not executed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.paths import ROOT

MARK = re.compile(r"<!-- not executed: .+ -->")
"""Stands before a code block, with the reason."""
PROGRAMS = ("mmpt-bench", "python", "python3", "pip", "source", "cp", "bash")


@dataclass(frozen=True)
class Line:
    """A line of a code block that starts with one of the programs."""

    page: str
    number: int
    """Of lines, where one that goes on after a backslash is one."""
    text: str
    is_executed: bool

    @property
    def commands(self) -> list[list[str]]:
        """Returns the words of its commands, which `&&`, `;`, `|` or `>` separate; comments are left out."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars=";&|>")
        lexer.whitespace_split = True
        commands: list[list[str]] = [[]]
        for word in lexer:
            if set(word) <= set(";&|>"):
                commands.append([])
            else:
                commands[-1].append(word)
        return [words for words in commands if words and _program(words[0]) in PROGRAMS]

    @property
    def ours(self) -> list[list[str]]:
        """Returns the arguments of each call of `mmpt-bench`."""
        return [words[1:] for words in self.commands if _program(words[0]) == "mmpt-bench"]


def _program(word: str) -> str:
    return word.rsplit("/", 1)[-1]


def pages() -> list[Path]:
    """Returns README and the pages of docs/; decisions are of their time."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def lines(page: Path) -> Iterator[Line]:
    """Yields the commands in a page's code blocks, indented or fenced (sh, console, or no language)."""
    fence: str | None = None
    is_inside = is_marked = is_next_marked = False
    whole = page.read_text(encoding="utf-8")
    for number, text in enumerate(re.sub(r"\\\n\s*", "", whole).splitlines(), 1):
        if MARK.fullmatch(text.strip()):
            is_next_marked = True
            continue
        is_edge = text.strip().startswith("```")
        if is_edge:
            fence = text.strip()[3:] if fence is None else None
        if is_edge or fence is not None or text.startswith("    "):
            if not is_inside:
                is_marked, is_next_marked = is_next_marked, False
            is_inside = True
        elif text.strip():
            is_inside = False
        is_code = not is_edge and is_inside and (text.startswith("    ") if fence is None else True)
        command = text.strip().removeprefix("$ ")
        if is_code and fence in (None, "", "sh", "console") and _program(command.split(" ")[0]) in PROGRAMS:
            yield Line(page.name, number, command, not is_marked)
