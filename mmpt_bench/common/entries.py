"""Tasks and methods found in folders: a file adds one, its name is the file's, and nothing is imported to find it."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import BenchError, RequestError, RunFailed, unknown_name
from mmpt_bench.common.hashing import file_sha256

PACKAGE = Path(__file__).resolve().parent.parent
OWN = "mmpt_bench_own."
"""Begins the module names of users' files."""


@dataclass(frozen=True)
class Entry:
    """A task or a method, found and not yet imported."""

    name: str
    path: Path
    summary: str
    """First line of its docstring."""
    own: bool = False
    """A user's file, named by its path."""
    make: Callable[[], Any] | None = None
    """Returns the class of a method that no file of ours holds: one of PEFT, or a trained adapter."""


def folder(kind: str) -> Path:
    """Returns the folder of "tasks", "baselines" or "results": inside an installed package, beside it in a checkout."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def built_in_files(kind: str) -> list[Path]:
    """Returns the Python files of "tasks" or "baselines" by name, without templates."""
    return sorted(path for path in folder(kind).glob("*.py") if not path.name.startswith("_"))


def entry_of(path: Path, own: bool = False) -> Entry:
    """Returns the entry of a file, read without importing it (SyntaxError where it is no Python)."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return Entry(path.stem, path, doc.split("\n")[0], own)


def find(
    kind: str, text: str, known: Mapping[str, Entry], special: Callable[[str], Entry | None] = lambda word: None
) -> list[Entry]:
    """Returns the entries that a comma-separated option names, in its order, each once; "all" names every built-in one.

    Args:
        kind: "task" or "method".
        text: names or paths to Python files: "mme,pope", "all", "./mine.py".
        special: returns the entry of a word in a form of its own, None for any other word.

    Raises:
        RequestError: for an unknown name, with the nearest known one, or a file that is not there.
    """
    found: dict[str, Entry] = {}
    for word in (part.strip() for part in text.split(",")):
        entry = special(word)
        if word == "all":
            found |= {name: entry for name, entry in known.items() if name not in found}
        elif entry is not None:
            if entry.name in found:
                raise RequestError(f"`{entry.name}` is asked for twice: run one configuration of a method at a time.")
            found[entry.name] = entry
        elif word in known:
            found.setdefault(word, known[word])
        elif word and (word.endswith(".py") or "/" in word or os.path.isfile(word)):
            entry = own_entry(kind, word, known)
            found[entry.name] = entry
        elif word:
            raise unknown_name(kind, word, [*known, "all"], f"`mmpt-bench ls {kind}s` lists them.")
    if not found:
        raise RequestError(f"No {kind} was named. `mmpt-bench ls {kind}s` lists them.")
    return list(found.values())


def own_entry(kind: str, word: str, known: Mapping[str, Entry]) -> Entry:
    """Returns the entry of a user's file; RequestError where it is none, or would hide what is `known`."""
    path = Path(word)
    if not path.is_file():
        raise RequestError(f"There is no file `{word}` to read a {kind} from.")
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise RequestError(f"`{word}` cannot be a {kind}: its name must be a Python identifier and end in .py.")
    if path.stem == "all":
        raise RequestError(f"`{word}`: `all` stands for every built-in {kind}; give the file another name.")
    if path.stem in known and path.resolve() != known[path.stem].path.resolve():
        raise RequestError(f"`{word}` would hide the built-in {kind} `{path.stem}`: give the file another name.")
    try:
        return entry_of(path.resolve(), own=path.stem not in known)
    except SyntaxError as error:
        raise RequestError(f"`{word}` is not valid Python: line {error.lineno}: {error.msg}.") from error


def own_fingerprint(entry: Entry) -> str:
    """Returns the SHA-256 of a user's own file, which is part of what its runs are; nothing for a built-in one."""
    return file_sha256(entry.path) if entry.own else ""


def is_own(of: object) -> bool:
    """Returns whether an object's class stands in a user's own file."""
    return type(of).__module__.startswith(OWN)


@contextmanager
def own_faults(own: bool) -> Iterator[None]:
    """Raises what goes wrong in a user's own file, where it is one, as RunFailed with the line there."""
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        if not own:
            raise
        running = [
            (Path(frame.f_code.co_filename).name, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if str(frame.f_globals.get("__name__", "")).startswith(OWN)
        ]
        where = f"`{running[-1][0]}`, line {running[-1][1]}: " if running else ""
        raise RunFailed(f"{where}{type(error).__name__}: {error}"[:500]) from error


def load_module(entry: Entry, kind: str) -> types.ModuleType:
    """Imports a file by its path, once a process, under a name of the package, or of its own where it is a user's.

    Raises RequestError, with the line, where a user's file fails.
    """
    if entry.path.parent == PACKAGE:
        return importlib.import_module(f"mmpt_bench.{entry.name}")
    name = f"{OWN}{kind}.{entry.name}" if entry.own else f"mmpt_bench.{kind}.{entry.name}"
    module = sys.modules.get(name)
    if module is not None and getattr(module, "__file__", None) == str(entry.path):
        return module
    spec = importlib.util.spec_from_file_location(name, entry.path)
    if spec is None or spec.loader is None:
        raise RequestError(f"`{entry.path}` cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if not entry.own or isinstance(error, BenchError):
            raise
        lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(entry.path)]
        hint = " Its imports are those of `_template.py`." if isinstance(error, ImportError) else ""
        where = f"line {lines[-1]}: " if lines else ""
        raise RequestError(
            f"`{entry.path.name}` fails when it is imported: {where}{type(error).__name__}: {error}.{hint}"
        ) from error
    return module
