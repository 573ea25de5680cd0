"""A folder is the registry: `tasks/pope.py` is the task `pope`, `baselines/lora.py` the method `lora`.

Names are found without importing anything; a path to a Python file works in place of a name.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt_bench.common.entries import PACKAGE, Entry, built_in_files, entry_of, find, load_module
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.values import coerced
from mmpt_bench.methods.method import Method

EXPORTS = ("METHOD", "ADAPTER")
"""What a method's file calls its class: `METHOD`; `ADAPTER` in files from before 0.2."""


def is_method(path: Path) -> bool:
    """Returns whether a Python file exports a method, read without importing it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return False
    return _class_name(tree) is not None


def method_entries() -> dict[str, Entry]:
    """Returns every built-in method by name: the baselines, and the method under study."""
    paths = [*built_in_files("baselines"), PACKAGE / "mmpt.py"]
    order = ("frozen", "projector", "mmpt", "vpt", "prefix", "dynamic", "lora", "moe_lora", "adapter", "full")
    found = {path.stem: entry_of(path) for path in paths}
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0]) if item[0] in order else 99, item[0])))


def find_methods(text: str) -> list[Entry]:
    """Returns the methods that a comma-separated option names, `peft:VERA` and files among them: see `entries.find`."""
    return find("method", text, method_entries(), _peft)


def named_method(name: str) -> Entry:
    """Returns the method that a file names (a recipe, an adapter): a built-in one, or `peft-vera`; never a path.

    Raises RequestError for any other name: what a file says never decides which code runs.
    """
    known = method_entries()
    entry = known.get(name) or (_peft(name) if re.fullmatch(r"peft-[a-z0-9_-]{1,60}", name) else None)
    if entry is None:
        hint = "A file of your own runs only where `--method` names it."
        raise unknown_name("method", name[:100], known, hint)
    return entry


def load_method(entry: Entry) -> Any:
    """Imports a method's file and returns the class it exports; raises RequestError where it exports none."""
    if entry.make is not None:
        return entry.make()
    module = load_module(entry, "baselines")
    method = next((getattr(module, name) for name in EXPORTS if hasattr(module, name)), None)
    attaches = getattr(method, "attach", Method.attach) is not Method.attach
    if not (isinstance(method, type) and dataclasses.is_dataclass(method) and attaches):
        raise RequestError(
            f"`{entry.path}` exports no method: it needs a line `METHOD = MyMethod`, a frozen dataclass with "
            "`attach` and `count`; see baselines/_template.py."
        )
    is_called = getattr(method, "name", None) == entry.name
    if not is_called and not entry.own:
        raise RequestError(
            f"`{entry.path}` holds a method called `{getattr(method, 'name', None)}`: give both one name."
        )
    # One that has the same members may leave the base out; a user's own, as a copy, is called like its file.
    bases = (method,) if issubclass(method, Method) else (method, Method)
    if is_called and len(bases) == 1:
        return method
    return type(method.__name__, bases, {"__module__": method.__module__, "name": entry.name})


def colors() -> dict[str, str]:
    """Returns the hex colour of every built-in method, the same in every figure."""
    return {name: load_method(entry).color for name, entry in method_entries().items()}


def _class_name(tree: ast.Module) -> str | None:
    """Returns the name of the class that a method's file exports; None where it exports none."""
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name)]
    named = [node for node in assigned if any(isinstance(t, ast.Name) and t.id in EXPORTS for t in node.targets)]
    return named[0].value.id if named else None  # type: ignore[attr-defined]


def coerce(method: type[Method], overrides: Mapping[str, str]) -> dict[str, Any]:
    """Returns overrides as values of the method's field types; raises RequestError for a value that does not fit."""
    hints = typing.get_type_hints(method)
    return {name: coerced(f"{name}={text}", hints[name], text) for name, text in method.folded(overrides).items()}


def method_of(entry: Entry, overrides: dict[str, str]) -> Any:
    """Returns a method with a user's hyperparameters; raises RequestError for one that does not fit."""
    check_fields(entry, list(overrides))
    method = load_method(entry)
    try:
        made = method(**coerce(method, overrides))
    except (TypeError, ValueError) as error:
        raise RequestError(f"`{entry.name}` cannot be made with {overrides}: {error}") from error
    if made.trains and not made.learning_rate > 0:
        raise RequestError(f"`{entry.name}` trains nothing at `learning_rate` {made.learning_rate:g}: above 0.")
    return made


def known_fields(entry: Entry) -> list[str]:
    """Returns the fields of a method that can be set; PEFT's are asked of PEFT, a file is read without importing it."""
    if entry.make is not None:
        return entry.make().settable()
    tree = ast.parse(entry.path.read_text(encoding="utf-8"))
    name = _class_name(tree)
    body = next((node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), [])
    annotated = [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return [node.target.id for node in annotated if "ClassVar" not in ast.unparse(node.annotation)]  # type: ignore[union-attr]


def check_fields(entry: Entry, names: Sequence[str]) -> None:
    """Raises RequestError for a name that is not a field of the method."""
    known = known_fields(entry)
    for name in names:
        if name not in known:
            raise unknown_name("field", name, known, f"`mmpt-bench show {entry.name}` lists those of {entry.name}.")


def _peft(word: str) -> Entry | None:
    """Returns the entry of `peft:VERA`, of `peft-vera` as a recipe has it, or of a configuration's file."""
    from mmpt_bench.methods import peft_any

    if word.endswith(".json"):
        path = Path(word).resolve()
        kind, fields = peft_any.from_file(path)
    elif word.startswith(("peft:", "peft-")):
        path, kind, fields = Path(peft_any.__file__), word[5:].upper().replace("-", "_"), {}
    else:
        return None
    name = f"peft-{kind.lower().replace('_', '-')}"
    make = functools.partial(peft_any.method_class, name, kind, fields)
    return Entry(name, path, f"{kind.upper()} of the installed PEFT", make=make)
