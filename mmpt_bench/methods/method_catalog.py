"""A folder is the registry: `tasks/pope.py` is the task `pope`, `baselines/lora.py` the method `lora`.

Names are found without importing anything; a path to a Python file works in place of a name.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt_bench.common.entries import PACKAGE, Entry, built_in_files, entry_of, find, load_module
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.values import coerced


def is_method(path: Path) -> bool:
    """Returns whether a Python file exports a method, read without importing it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return False
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    return any(isinstance(t, ast.Name) and t.id == "ADAPTER" for t in targets)


def method_entries() -> dict[str, Entry]:
    """Returns every built-in method by name: the baselines, and the method under study."""
    paths = [*built_in_files("baselines"), PACKAGE / "mmpt.py"]
    order = ("frozen", "projector", "mmpt", "vpt", "prefix", "lora", "full")
    found = {path.stem: entry_of(path) for path in paths}
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0]) if item[0] in order else 99, item[0])))


def find_methods(text: str) -> list[Entry]:
    """Returns the methods that a comma-separated option names, `peft:VERA` and files among them: see `entries.find`."""
    return find("method", text, method_entries(), _peft)


def load_method(entry: Entry) -> Any:
    """Imports a method's file and returns the adapter class it exports; raises RequestError where it exports none."""
    if entry.make is not None:
        return entry.make()
    module = load_module(entry, "baselines")
    adapter = getattr(module, "ADAPTER", None)
    if not (isinstance(adapter, type) and dataclasses.is_dataclass(adapter) and hasattr(adapter, "attach")):
        raise RequestError(
            f"`{entry.path}` exports no method: it needs a line `ADAPTER = MyAdapter`, a frozen dataclass with "
            "`attach` and `count`; see baselines/_template.py."
        )
    if getattr(adapter, "name", None) != entry.name:
        raise RequestError(
            f"`{entry.path}` holds a method called `{getattr(adapter, 'name', None)}`: give both one name."
        )
    return adapter


def colors() -> dict[str, str]:
    """Returns the hex colour of every built-in method, the same in every figure."""
    return {name: load_method(entry).color for name, entry in method_entries().items()}


def fields_of(path: Path) -> dict[str, str]:
    """Returns name and annotation of the dataclass fields in a method's file, read without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = next(
        (
            n.value.id
            for n in tree.body
            if isinstance(n, ast.Assign)
            and isinstance(n.value, ast.Name)
            and any(isinstance(t, ast.Name) and t.id == "ADAPTER" for t in n.targets)
        ),
        None,
    )
    body = next((n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), [])
    return {
        n.target.id: ast.unparse(n.annotation)
        for n in body
        if isinstance(n, ast.AnnAssign)
        and isinstance(n.target, ast.Name)
        and "ClassVar" not in ast.unparse(n.annotation)
    }


def coerce(adapter: type, overrides: Mapping[str, str]) -> dict[str, Any]:
    """Returns overrides as values of the adapter's field types; raises RequestError for a value that does not fit."""
    if hasattr(adapter, "folded"):
        overrides = adapter.folded(overrides)
    hints = typing.get_type_hints(adapter)
    return {name: coerced(f"{name}={text}", hints[name], text) for name, text in overrides.items()}


def known_fields(entry: Entry) -> list[str]:
    """Returns the fields of a method that can be set; PEFT's are asked of PEFT, a file is read without importing it."""
    return list(entry.make().known_fields() if entry.make is not None else fields_of(entry.path))


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
    make = functools.partial(peft_any.adapter_class, name, kind, fields)
    return Entry(name, path, f"{kind.upper()} of the installed PEFT", make=make)
