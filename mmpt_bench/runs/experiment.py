"""An experiment from a YAML file: methods with their variants, tasks, seeds and options. It runs no code."""

from __future__ import annotations

import contextlib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.yaml_file import Document, Place, read_document
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog
from mmpt_bench.runs.option_texts import comma_text
from mmpt_bench.runs.options import Options, make_request
from mmpt_bench.runs.request import field_text
from mmpt_bench.sources.weights import EMBEDDED

BUDGET = ("steps", "batch_size", "max_length", "schedule", "warmup", "weight_decay", "max_grad_norm")
"""Options that stand under `budget`."""
ELSEWHERE = {**dict.fromkeys(BUDGET, "budget"), "set": "methods", "variants": "methods"}
FOLDERS = ("data", "train_images", "out")
"""Options that are paths; those of `images` are paths too, those of `SOURCES` where such a file is there."""
SOURCES = ("backbone", "train_data")


@dataclass(frozen=True)
class _Listed:
    """A method that an experiment names."""

    word: str
    place: Place
    variants: list[tuple[Place, dict[str, Any]]] = field(default_factory=list)
    """Of each its place and its hyperparameters; none for a method as it is."""


def read_experiment(path: str | Path, **given: Any) -> dict[str, Any]:
    """Returns an experiment's file as the arguments of `run` and `plan`.

        mb.run(**mb.read_experiment("experiment.yaml"))
        mb.run(**mb.read_experiment("experiment.yaml", seeds=[0, 1], out="elsewhere"))

    Args:
        path: of the file; `mmpt-bench new experiment` writes one with comments.
        given: arguments of `run` that take the place of what the file says; `method` and `tasks` choose, and methods
            keep the variants that the file gives them. Python files run only where these name them.

    Raises:
        RequestError: no such file; a key, name or value that cannot be, with line and column.
    """
    if not Path(path).exists():
        raise RequestError(
            f"There is no experiment `{path}`: `mmpt-bench new experiment` writes one; methods go with `--method`."
        )
    document = read_document(Path(path), "experiment")
    options = _options(document, Path(path).parent)
    methods, variants = _methods(document, Path(path).parent, given.get("method"))
    tasks = _tasks(document, given.get("tasks"))
    own = {name: value for name, value in options.items() if name not in given}
    rest = {name: value for name, value in given.items() if name not in ("method", "tasks")}
    source = str(own.get("train_data", ""))
    if source.startswith("task:") and source.removeprefix("task:") not in task_catalog.task_entries():
        raise document.error(f"`{source[:60]}` is the training split of no built-in task.", ("train_data",))
    _check(document, methods, tasks, own, rest)
    return {"method": methods, "tasks": tasks, **({"variants": variants} if variants else {}), **own, **rest}


def _options(document: Document, folder: Path) -> dict[str, Any]:
    """Returns the options of the file, their keys and types checked and their paths made whole."""
    hints = typing.get_type_hints(Options)
    known = ["methods", "tasks", "budget", *(name for name in hints if name not in ELSEWHERE)]
    found: dict[str, Any] = {}
    for name, value in document.value.items():
        if name in ELSEWHERE:
            raise document.error(f"`{name}` stands under `{ELSEWHERE[name]}`.", (name,))
        if name not in known:
            raise document.error(str(unknown_name("key", str(name)[:60], known)), (str(name),))
        if name == "budget":
            found |= _budget(document, value, hints)
        elif name not in ("methods", "tasks"):
            found[name] = _typed(document, (name,), value, hints[name])
    for name in FOLDERS:
        if found.get(name) is not None:
            found[name] = folder / Path(found[name]).expanduser()
    for name in SOURCES:
        if name in found:
            found[name] = _source(folder, found[name])
    if isinstance(found.get("images"), Mapping):
        found["images"] = {name: str(folder / Path(at).expanduser()) for name, at in found["images"].items()}
    return found


def _budget(document: Document, value: Any, hints: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise document.error(f"`budget` holds {', '.join(f'`{name}`' for name in BUDGET)}.", ("budget",))
    for name in value:
        if name not in BUDGET:
            raise document.error(str(unknown_name("key", str(name)[:60], BUDGET)), ("budget", str(name)))
    return {name: _typed(document, ("budget", name), each, hints[name]) for name, each in value.items()}


def _typed(document: Document, place: Place, value: Any, hint: Any) -> Any:
    """Returns a value of an option's type: texts, numbers, true or false, a mapping of texts, a list of texts."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    kinds = [typing.get_origin(option) or option for option in options]
    if isinstance(value, Mapping) and any(issubclass(kind, Mapping) for kind in kinds):
        if all(isinstance(each, str) for pair in value.items() for each in pair):
            return dict(value)
    elif isinstance(value, list) and any(kind is Sequence for kind in kinds):
        each = int if int in kinds else str
        if all(type(item) is each for item in value):
            return value
    elif type(value) in kinds:
        return value
    elif type(value) is int and float in kinds:
        return float(value)
    if isinstance(value, list) and any(kind is Sequence for kind in kinds):
        other = next(item for item in value if type(item) is not each)
        told = "a list of whole numbers" if each is int else "a list of texts"
        raise document.error(f"`{place[-1]}` holds {_as_yaml(other)} and is {told}.", place)
    names = {
        str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null",
        Sequence: "a list", Mapping: "a mapping of texts",
    }  # fmt: skip
    told = " or ".join(dict.fromkeys(names[kind] for kind in kinds if kind in names))
    raise document.error(f"`{place[-1]}` is {_as_yaml(value)}, which is not {told}.", place)


def _as_yaml(value: Any) -> str:
    """Returns a value as the file has it, on one line, cut to 60 characters."""
    if isinstance(value, str):
        return f"'{value[:60]}'"
    return yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0][:60]


def _source(folder: Path, text: str) -> str:
    """Returns a backbone or training data: a path beside the experiment where there is one, else the name."""
    plain, question, how = text.rpartition("?") if "?" in text else (text, "", "")
    near = folder / Path(plain).expanduser()
    is_name = not plain.startswith((".", "/", "~")) and not Path(plain).exists()
    return text if plain == EMBEDDED or (is_name and not near.exists()) else f"{near}{question}{how}"


def _methods(document: Document, folder: Path, given: Any) -> tuple[str, dict[str, list[dict[str, str]]]]:
    """Returns the methods as `--method` has them, and the variants of each by its name."""
    listed = [_beside(each, folder) for each in _listed(document)]
    text = comma_text(given) if given is not None else ",".join(each.word for each in listed)
    named = {Path(word.strip()).resolve() for word in text.split(",")} if given is not None else set()
    entries = {entry.name for entry in method_catalog.find_methods(text)} if given is not None else None
    variants: dict[str, list[dict[str, str]]] = {}
    for each in listed:
        if _is_code(each.word) and Path(each.word).resolve() not in named:
            if given is None:
                raise document.error(_refusal(each.word, "method", text), each.place)
            continue
        with _at(document, each.place):
            found = method_catalog.find_methods(each.word)
        for entry in found if entries is None else [entry for entry in found if entry.name in entries]:
            if entry.name in variants:
                raise document.error(f"`{entry.name}` stands twice: list its variants under it.", each.place)
            variants[entry.name] = _variants(document, each, entry)
    return text, {name: each for name, each in variants.items() if each}


def _listed(document: Document) -> list[_Listed]:
    """Returns the methods in the file's order: a text, a list of names, or a mapping of names to their variants."""
    value = document.value.get("methods", "mmpt")
    if isinstance(value, str | list):
        return [_Listed(word, place) for word, place in _words(document, "methods", value)]
    if not isinstance(value, Mapping):
        raise document.error("`methods` is a list of names, or a mapping of names to hyperparameters.", ("methods",))
    found = []
    for key, fields in value.items():
        place = ("methods", str(key))
        found.append(_Listed(_name(document, place, str(key)), place, _fields(document, place, fields)))
    return found


def _words(document: Document, key: str, value: str | list[Any]) -> list[tuple[str, Place]]:
    """Returns the names in a comma-separated text or a list, each with its place."""
    if isinstance(value, str):
        return [(word.strip(), (key,)) for word in value.split(",") if word.strip()]
    if not value or not all(isinstance(word, str) for word in value):
        raise document.error(f"`{key}` is a list of names.", (key,))
    return [(_name(document, (key, number), word), (key, number)) for number, word in enumerate(value)]


def _name(document: Document, place: Place, word: str) -> str:
    """Returns a name as it is looked up; a comma would make several of it."""
    if "," in word or not word.strip():
        raise document.error(f"`{word[:60]}` is not one name.", place)
    return word.strip()


def _fields(document: Document, place: Place, value: Any) -> list[tuple[Place, dict[str, Any]]]:
    """Returns what stands under a method: nothing, the hyperparameters of one variant, or a list of such."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [(place, dict(value))]
    if isinstance(value, list) and value and all(each is None or isinstance(each, Mapping) for each in value):
        return [((*place, number), dict(each or {})) for number, each in enumerate(value)]
    raise document.error(f"`{place[-1]}` holds its hyperparameters, or a list with those of each variant.", place)


def _beside(each: _Listed, folder: Path) -> _Listed:
    """Returns a listed method whose file, where it is one, is beside the experiment."""
    is_file = _is_code(each.word) or each.word.endswith(".json")
    return _Listed(str(folder / each.word), each.place, each.variants) if is_file else each


def _is_code(word: str) -> bool:
    """Returns whether a name is that of a Python file, as `entries.find` has it."""
    return word.endswith(".py") or ("/" in word and not word.endswith(".json"))


def _variants(document: Document, each: _Listed, entry: Entry) -> list[dict[str, str]]:
    """Returns the hyperparameters of each variant as text, checked."""
    found: list[dict[str, str]] = []
    for place, fields in each.variants:
        texts = {}
        for name, value in fields.items():
            if not isinstance(value, str | int | float | bool | list | dict | None):
                raise document.error(f"`{name}` is {str(value)[:60]!r}, which is no value.", (*place, str(name)))
            texts[str(name)] = field_text(value)
            with _at(document, (*place, str(name))):
                method_catalog.method_of(entry, {str(name): texts[str(name)]})
        with _at(document, place):
            method_catalog.method_of(entry, texts)
        if texts in found:
            raise document.error(f"`{entry.name}` has this variant twice.", place)
        found.append(texts)
    return found


def _tasks(document: Document, given: Any) -> str:
    """Returns the tasks as `--tasks` has them."""
    if given is not None:
        return comma_text(given)
    value = document.value.get("tasks", "mme,pope")
    if not isinstance(value, str | list):
        raise document.error("`tasks` is a list of names.", ("tasks",))
    words = _words(document, "tasks", value)
    text = ",".join(word for word, _ in words)
    for word, place in words:
        if _is_code(word):
            raise document.error(_refusal(word, "tasks", text), place)
        with _at(document, place):
            task_catalog.find_tasks(word)
    return text


def _refusal(word: str, option: str, text: str) -> str:
    return f"`{word}` is Python code, which runs only where the command names it: add `--{option} {text}`."


def _check(document: Document, methods: str, tasks: str, own: dict[str, Any], rest: dict[str, Any]) -> None:
    """Raises RequestError for a value that cannot be, with the place of the one that is to blame."""

    def fault(without: str = "") -> str:
        options: Any = {name: value for name, value in (own | rest).items() if name != without}
        options = {name: value for name, value in options.items() if name in Options.__annotations__}
        try:
            request = make_request(methods, tasks, options, is_run=True)
            for entry in request.tasks:
                task = task_catalog.load_task(entry).with_rule(request.rule)
                if entry.name in request.datasets:
                    task.data.named(request.datasets[entry.name])
        except RequestError as error:
            return str(error)
        return ""

    if not (told := fault()):
        return
    for name in own:
        if fault(name) != told:
            raise document.error(_plainly(told), ("budget", name) if name in BUDGET else (name,))
    raise RequestError(told)


@contextlib.contextmanager
def _at(document: Document, place: Place) -> Iterator[None]:
    try:
        yield
    except RequestError as error:
        raise document.error(_plainly(str(error)), place) from error


def _plainly(message: str) -> str:
    """Returns a message with options called as in the file: `seeds` for `--seeds`."""
    return re.sub(r"`--([a-z][a-z-]*)", lambda found: f"`{found[1].replace('-', '_')}", message)
