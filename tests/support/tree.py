"""The tree of the code, a line a file, as docs/architecture.md has it.

PYTHONPATH=tests python tests/support/tree.py    writes it into that page
"""

from __future__ import annotations

import ast
from pathlib import Path

from support.paths import ROOT

PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree -->\n```\n", "```\n<!-- end of tree -->"
WIDTH = 34


def tree() -> str:
    """Returns every module of the package, with the first line of its docstring."""
    return "".join(f"{line}\n" for line in _lines(ROOT / "mmpt_bench", 0))


def _lines(folder: Path, depth: int) -> list[str]:
    found = [_line("  " * depth + f"{folder.name}/", _summary(folder / "__init__.py"))]
    inner = "  " * (depth + 1)
    found += [
        _line(f"{inner}{path.name}", _summary(path)) for path in sorted(folder.glob("*.py")) if path.stem != "__init__"
    ]
    for child in sorted(path for path in folder.iterdir() if (path / "__init__.py").is_file()):
        found += _lines(child, depth + 1)
    return found


def _line(name: str, summary: str) -> str:
    return f"{name:<{WIDTH}} {summary}"


def _summary(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def with_tree(page: str) -> str:
    """Returns the page with the tree of now."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + tree() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_tree(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
