"""A folder is the registry: `tasks/pope.py` is the task `pope`, `baselines/lora.py` the method `lora`.

Names are found without importing anything; a path to a Python file works in place of a name.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.errors import RequestError, unknown_name

if TYPE_CHECKING:
    from mmpt_bench.task import Task

PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Entry:
    """A task or a method, found and not yet imported."""

    name: str
    path: Path
    summary: str
    """First line of its docstring."""
    own: bool = False
    """A user's file, named by its path."""
    peft: str = ""
    """PEFT's name of the method, where it is one of PEFT; "adapter" where it is one that is trained already."""
    given: str = "{}"
    """Fields of that method's configuration, as JSON."""


def folder(kind: str) -> Path:
    """Returns the folder of "tasks", "baselines" or "results": inside an installed package, beside it in a checkout."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def task_entries() -> dict[str, Entry]:
    """Returns every built-in task by name."""
    return {path.stem: _entry(path) for path in _files("tasks")}


def method_entries() -> dict[str, Entry]:
    """Returns every built-in method by name: the baselines, and the method under study."""
    paths = [*_files("baselines"), PACKAGE / "mmpt.py"]
    order = ("frozen", "projector", "mmpt", "vpt", "prefix", "lora", "full")
    found = {path.stem: _entry(path) for path in paths}
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0]) if item[0] in order else 99, item[0])))


def find(kind: str, text: str) -> list[Entry]:
    """Returns the entries that a comma-separated option names, in its order, each once; "all" names every built-in one.

    Args:
        kind: "task" or "method".
        text: names or paths to Python files: "mme,pope", "all", "./mine.py".

    Raises:
        RequestError: for an unknown name, with the nearest known one, or a file that is not there.
    """
    known = task_entries() if kind == "task" else method_entries()
    found: dict[str, Entry] = {}
    for word in (part.strip() for part in text.split(",")):
        if word == "all":
            found |= {name: entry for name, entry in known.items() if name not in found}
        elif kind == "method" and (word.startswith(("peft:", "peft-")) or word.endswith(".json")):
            entry = _peft(word)
            if entry.name in found:
                raise RequestError(f"`{entry.name}` is asked for twice: run one configuration of a method at a time.")
            found[entry.name] = entry
        elif word.endswith(".py") or "/" in word:
            entry = _own(kind, word, known)
            found[entry.name] = entry
        elif word in known:
            found.setdefault(word, known[word])
        elif word:
            raise unknown_name(kind, word, [*known, "all"], f"`mmpt-bench ls {kind}s` lists them.")
    if not found:
        raise RequestError(f"No {kind} was named. `mmpt-bench ls {kind}s` lists them.")
    return list(found.values())


def load_task(entry: Entry) -> Task:
    """Imports a task's file and returns the `Task` it exports; raises RequestError where it exports none."""
    from mmpt_bench.task import Task

    task = getattr(_import(entry, "tasks"), "TASK", None)
    if not isinstance(task, Task):
        raise RequestError(
            f"`{entry.path}` exports no task: it needs a line `TASK = Task(...)`; see tasks/_template.py."
        )
    return task if task.name == entry.name else dataclasses.replace(task, name=entry.name)


def load_method(entry: Entry) -> Any:
    """Imports a method's file and returns the adapter class it exports; raises RequestError where it exports none."""
    if entry.peft:
        import json

        module = importlib.import_module("mmpt_bench.loaded" if entry.peft == "adapter" else "mmpt_bench.peft_baseline")
        return module.adapter_class(entry.name, entry.peft, json.loads(entry.given))
    module = _import(entry, "baselines")
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


def built_in_tasks() -> dict[str, Task]:
    """Returns every built-in task by name, in the order of the columns of a board."""
    return {name: load_task(entry) for name, entry in task_entries().items()}


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
    return list(load_method(entry).known_fields() if entry.peft else fields_of(entry.path))


def check_fields(entry: Entry, names: Sequence[str]) -> None:
    """Raises RequestError for a name that is not a field of the method."""
    known = known_fields(entry)
    for name in names:
        if name not in known:
            raise unknown_name("field", name, known, f"`mmpt-bench show {entry.name}` lists those of {entry.name}.")


def coerced(where: str, hint: Any, text: str) -> Any:
    """Returns a text as a value of a type; raises RequestError, naming `where`, for one that does not fit."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        if text not in options:
            raise RequestError(f"`{where}` is not one of {', '.join(map(str, options))}.")
        return text
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        if text.lower() == "none" and type(None) in options:
            return None
        hint = next(option for option in options if option is not type(None))
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise RequestError(f"`{where}`: write true or false.")
        return text.lower() == "true"
    try:
        return hint(text)
    except (TypeError, ValueError) as error:
        raise RequestError(f"`{where}` is not a value of type {getattr(hint, '__name__', hint)}.") from error


def _files(kind: str) -> list[Path]:
    return sorted(path for path in folder(kind).glob("*.py") if not path.name.startswith("_"))


def _entry(path: Path, own: bool = False) -> Entry:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return Entry(path.stem, path, doc.split("\n")[0], own)


def _peft(word: str) -> Entry:
    """Returns the entry of `peft:VERA`, of `peft-vera` as a recipe has it, or of a configuration's file."""
    path, given = PACKAGE / "peft_baseline.py", "{}"
    if word.endswith(".json"):
        import json

        from mmpt_bench.peft_baseline import from_file

        path = Path(word).resolve()
        kind, fields = from_file(path)
        given = json.dumps(fields, sort_keys=True)
    else:
        kind = word[5:].upper().replace("-", "_")
    return Entry(
        f"peft-{kind.lower().replace('_', '-')}", path, f"{kind.upper()} of the installed PEFT", False, kind, given
    )


def _own(kind: str, word: str, known: Mapping[str, Entry]) -> Entry:
    path = Path(word)
    if not path.is_file():
        raise RequestError(f"There is no file `{word}` to read a {kind} from.")
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise RequestError(f"`{word}` cannot be a {kind}: its name must be a Python identifier and end in .py.")
    if path.stem in known and path.resolve() != known[path.stem].path.resolve():
        raise RequestError(f"`{word}` would hide the built-in {kind} `{path.stem}`: give the file another name.")
    try:
        return _entry(path.resolve(), own=path.stem not in known)
    except SyntaxError as error:
        raise RequestError(f"`{word}` is not valid Python: line {error.lineno}: {error.msg}.") from error


def own_fingerprint(entry: Entry) -> str:
    """Returns the SHA-256 of a user's own file, which is part of what its runs are; nothing for a built-in one."""
    from mmpt_bench.hashing import file_sha256

    return file_sha256(entry.path) if entry.own else ""


def _import(entry: Entry, kind: str) -> types.ModuleType:
    """Imports a file by its path, once a process, under a name of the package, or of its own where it is a user's."""
    if entry.path.parent == PACKAGE:
        return importlib.import_module(f"mmpt_bench.{entry.name}")
    name = f"mmpt_bench_own.{kind}.{entry.name}" if entry.own else f"mmpt_bench.{kind}.{entry.name}"
    module = sys.modules.get(name)
    if module is not None and getattr(module, "__file__", None) == str(entry.path):
        return module
    spec = importlib.util.spec_from_file_location(name, entry.path)
    if spec is None or spec.loader is None:
        raise RequestError(f"`{entry.path}` cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
