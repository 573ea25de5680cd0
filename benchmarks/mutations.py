"""The small faults that mutants.py puts into the code: which places of a file can be changed, and how each reads then.

Changed are operators, constants, conditions, arguments given by name, and statements that are left out. Not changed
are docstrings, annotations, imports, the words of messages (in `raise`, in the log, in f-strings), and `strict=` and
`encoding=`, which guard what holds already.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}


@dataclass(frozen=True)
class Mutant:
    """One changed place of one file."""

    path: str
    place: int
    """Which of the file's places, in the order of `changes`."""
    lines: tuple[int, int]
    """Of the statement, first and last; a compound statement's header alone."""
    inside: bool
    """Whether it runs when a function is called, not when the file is imported."""
    label: str
    """`path::function | before -> after`, with a number where a function has the same change twice."""


def changes(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST, ast.stmt, str]]:
    """Yields (node, what stands for it, its statement, its function's name) of all places, in a fixed order."""

    def walk(node: ast.AST, statement: ast.stmt | None, name: str) -> Iterator[Any]:
        if isinstance(node, ast.stmt):
            statement = node
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = f"{name}.{node.name}".lstrip(".")
        if statement is not None:
            yield from ((node, new, statement, name) for new in instead(node))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Raise | ast.JoinedStr) or is_message(node):
            return
        for key, value in ast.iter_fields(node):
            if key in ("annotation", "returns", "decorator_list", "func"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, statement, name)

    yield from walk(tree, None, "")


def is_message(node: ast.AST) -> bool:
    """Returns whether a node is a docstring, a call of the log, or a test of types alone."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    return isinstance(node, ast.Expr) and ast.unparse(node).startswith(("log.", "warnings."))


def instead(node: ast.AST) -> Iterator[ast.AST]:
    """Yields what may stand for a node: another operator, another constant, a negation, a thing left out."""

    def made(**values: Any) -> ast.AST:
        new = copy.copy(node)
        for key, value in values.items():
            setattr(new, key, value)
        return new

    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield made(ops=[*ops[:i], OTHER[type(op)](), *ops[i + 1 :]])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in OTHER:
            yield made(op=OTHER[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=bool() as value):
            yield made(value=not value)
        case ast.Constant(value=int() as value):
            yield made(value=value + 1)
        case ast.Constant(value=float() as value):
            yield made(value=value * 2 or 1.0)
        case ast.Constant(value=str() as value) if value:
            yield made(value=f"X{value}")
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not isinstance(
            test, ast.Compare | ast.BoolOp | ast.UnaryOp
        ):
            yield made(test=ast.UnaryOp(ast.Not(), test))
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield made(value=ast.Constant(None))
        case ast.Raise() | ast.AugAssign() | ast.Break():
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Expr(value=ast.Call()) if not is_message(node):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Slice(lower=lower, upper=upper):
            if lower is not None:
                yield made(lower=None)
            if upper is not None:
                yield made(upper=None)
        case ast.Call(func=func, keywords=keywords):
            if isinstance(func, ast.Name) and func.id in NAMES:
                yield made(func=ast.Name(NAMES[func.id]))
            for i, keyword in enumerate(keywords):
                if keyword.arg not in ("strict", "encoding"):
                    yield made(keywords=keywords[:i] + keywords[i + 1 :])
    if isinstance(node, ast.AugAssign):
        yield ast.Pass()


def mutants_of(path: str) -> list[Mutant]:
    """Returns all mutants of a file."""
    found, seen = [], Counter[str]()
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for place, (node, new, statement, name) in enumerate(changes(tree)):
        before, after = (" ".join(ast.unparse(each).split())[:90] for each in (node, new))
        label = f"{path.removeprefix('mmpt_bench/')}::{name or 'module'} | {before} -> {after}"
        seen[label] += 1
        body = getattr(statement, "body", None)
        last = max(statement.lineno, body[0].lineno - 1) if body else statement.end_lineno or statement.lineno
        inside = any(isinstance(each, ast.FunctionDef) and each is not statement for each in around(tree, statement))
        label += f" #{seen[label]}" if seen[label] > 1 else ""
        found.append(Mutant(path, place, (statement.lineno, last), inside, label))
    return found


def around(tree: ast.Module, statement: ast.stmt) -> Iterator[ast.AST]:
    """Yields the nodes whose lines hold those of a statement, the definitions among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.lineno <= statement.lineno <= (node.end_lineno or 0):
            yield node


def source_of(mutant: Mutant) -> str:
    """Returns the file with the change in it."""
    tree = ast.parse((ROOT / mutant.path).read_text(encoding="utf-8"))
    node, new, *_ = next(each for place, each in enumerate(changes(tree)) if place == mutant.place)

    class Put(ast.NodeTransformer):
        def visit(self, at: ast.AST) -> ast.AST:
            return new if at is node else self.generic_visit(at)

    return ast.unparse(ast.fix_missing_locations(Put().visit(tree)))
