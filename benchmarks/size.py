"""How large the package is and how its modules import each other: python benchmarks/size.py COMMIT_OR_FOLDER ...

A commit is read from git, a folder as it lies there. Levels: a module that imports none of the package stands on level
1, another one above the highest that it imports; modules of one import circle share a level. Lazy imports count,
imports for types too.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "mmpt_bench"


def modules(root: Path) -> dict[str, Path]:
    """Returns module name -> its file, of every package below a folder."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph(files: dict[str, Path], trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Returns module -> the modules of the package that it imports."""
    reached: dict[str, set[str]] = {}
    for name, tree in trees.items():
        found: set[str] = set()
        own = name.split(".") if files[name].name == "__init__.py" else name.split(".")[:-1]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = own[: len(own) + 1 - node.level] if node.level else []
                base = ".".join([*above, *filter(None, [node.module])])
                found |= {full if (full := f"{base}.{alias.name}") in trees else base for alias in node.names}
        reached[name] = {each for each in found if each in trees} - {name}
    return reached


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Returns the strongly connected sets of modules, imported ones first (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for each in sorted(edges[name]):
            if each not in order:
                visit(each)
                low[name] = min(low[name], low[each])
            elif each in stack:
                low[name] = min(low[name], order[each])
        if low[name] == order[name]:
            at = stack.index(name)
            found.append(set(stack[at:]))
            del stack[at:]

    for name in edges:
        if name not in order:
            visit(name)
    return found


def levels(edges: dict[str, set[str]], groups: list[set[str]]) -> int:
    """Returns the height of the import graph, a circle as one."""
    height: dict[str, int] = {}
    for group in groups:
        below = set().union(*(edges[name] for name in group)) - group
        height |= dict.fromkeys(group, 1 + max((height[name] for name in below), default=0))
    return max(height.values())


def code_lines(source: str, tree: ast.Module) -> int:
    """Returns the number of lines that are neither blank, nor a comment, nor of a docstring."""
    strings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            strings |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and at not in strings for at, line in lines)


def measured(root: Path) -> dict[str, str]:
    """Returns the table's column for a package's folder."""
    files = modules(root)
    trees, paths = {name: ast.parse(path.read_bytes()) for name, path in files.items()}, list(files.values())
    edges = graph(files, trees)
    groups = circles(edges)
    functions = [node for tree in trees.values() for node in ast.walk(tree)
                 if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]  # fmt: skip
    spans = [(node.end_lineno or 0) - node.lineno + 1 for node in functions]
    wide = [node for node in functions if len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) >= 8]
    sources = [path.read_text(encoding="utf-8") for path in paths]
    figures = {
        "files": len(paths),
        "files beside `__init__.py`": sum(path.name != "__init__.py" for path in paths),
        "loose files": sum(path.name != "__init__.py" for path in root.glob("*.py")),
        "lines": sum(len(source.splitlines()) for source in sources),
        "lines of code": sum(code_lines(source, ast.parse(source)) for source in sources),
        "levels of imports": levels(edges, groups),
        "modules in import circles": [len(group) for group in groups if len(group) > 1] or "none",
        "longest function, lines": max(spans),
        "functions over 40 lines": sum(span > 40 for span in spans),
        "functions over 60 lines": sum(span > 60 for span in spans),
        "functions of 8 parameters or more": len(wide),
    }
    return {name: str(value) for name, value in figures.items()}


def main(wanted: list[str]) -> None:
    sys.setrecursionlimit(10_000)
    columns = {}
    for each in wanted:
        if Path(each).is_dir():
            columns[Path(each).name] = measured(Path(each))
            continue
        archive = subprocess.run(["git", "archive", each, PACKAGE], check=True, capture_output=True).stdout
        with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
            columns[each] = measured(Path(folder, PACKAGE))
    print("| |", " | ".join(columns), "|\n|---|" + "---|" * len(columns))
    for name in next(iter(columns.values())):
        print(f"| {name} |", " | ".join(column[name] for column in columns.values()), "|")


if __name__ == "__main__":
    main(sys.argv[1:] or [PACKAGE])
