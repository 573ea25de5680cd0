"""Typed values from text and plain values: a field that is unknown, missing or of another type is refused by name."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from mmpt_bench.common.errors import RequestError

T = TypeVar("T")


def coerced(where: str, hint: Any, text: str) -> Any:
    """Returns a text as a value of a type; raises RequestError, naming `where`, for one that does not fit."""
    hint, may_be_none = _without_none(hint)
    if may_be_none and text.lower() == "none":
        return None
    if typing.get_origin(hint) is typing.Literal:
        if text not in (options := typing.get_args(hint)):
            raise RequestError(f"`{where}` is not one of {', '.join(map(str, options))}.")
        return text
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise RequestError(f"`{where}`: write true or false.")
        return text.lower() == "true"
    try:
        value = hint(text)
    except (TypeError, ValueError) as error:
        raise RequestError(f"`{where}` is not a value of type {_name(hint)}.") from error
    if hint is float and not math.isfinite(value):
        raise RequestError(f"`{where}` is not a finite number.")
    return value


class FieldError(ValueError):
    """A field does not fit; `field` is its name."""

    def __init__(self, field: str, message: str) -> None:
        """Keeps the field's name beside the message."""
        super().__init__(message)
        self.field = field


def from_plain(cls: type[T], row: Mapping[str, Any]) -> T:
    """Returns a dataclass from JSON or YAML values; lists become tuples, nested mappings become nested dataclasses.

    Raises:
        FieldError: a field is unknown (with the nearest known one), missing, or not of its type; numbers are not
            made from text, nor integers from fractions.
    """
    hints = _hints(cls)  # type: ignore[arg-type]
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in row:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1, cutoff=0.5)
            guess = f" Did you mean `{near[0]}`?" if near else ""
            raise FieldError(str(name), f"there is no field `{name}`.{guess}")
    values = {}
    for name, field in fields.items():
        if name in row:
            values[name] = _fitted(name, row[name], hints[name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise FieldError(name, f"the field `{name}` is missing.")
    return cls(**values)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """Returns the types of a class's fields; evaluated once, they cost more than all else in reading a record."""
    return typing.get_type_hints(cls)


def _fitted(name: str, value: Any, hint: Any) -> Any:
    """Returns a value as its field's type, or raises FieldError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise FieldError(name, f"the field `{name}` is {value}, which is no finite number.")
    if type(value) is hint:
        return value
    hint, may_be_none = _without_none(hint)
    if type(value) is hint or hint is Any or (value is None and may_be_none):
        return value
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_plain(typing.cast(type, hint), value)
    if origin is tuple and isinstance(value, list | tuple) and options[1:] == (...,):
        return tuple(_fitted(name, each, options[0]) for each in value)
    if origin is tuple and isinstance(value, list | tuple) and len(value) == len(options):
        return tuple(_fitted(name, each, option) for each, option in zip(value, options, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return {_fitted(name, key, options[0]): _fitted(name, each, options[1]) for key, each in value.items()}
    if origin is typing.Literal and value in options:
        return value
    if hint is float and type(value) is int:
        return float(value)
    kind = " or ".join(map(repr, options)) if origin is typing.Literal else _name(hint)
    raise FieldError(name, f"the field `{name}` is {str(value)[:60]!r}, which is not {kind}.")


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Returns a type without None, and whether it allows None."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint, False
    return next(option for option in options if option is not types.NoneType), types.NoneType in options


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def given_values(values: Mapping[str, Any], options: Any, also: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the values that a caller gave for options, without those that are None: each is of its option's type.

    Numbers and arrays of numpy become Python's.

    Args:
        values: by option, as they came from Python.
        options: a TypedDict of all options.
        also: what else the caller can name, for a guess.

    Raises:
        TypeError: an option that there is not, with the nearest one.
        RequestError: a value of another type.
    """
    hints = typing.get_type_hints(options)
    values = {name: python_value(value) for name, value in values.items()}
    for name, value in values.items():
        if name not in hints:
            near = difflib.get_close_matches(name, [*hints, *also], n=1, cutoff=0.5)
            guess = f"; did you mean `{near[0]}`?" if near else f"; `mmpt_bench.{options.__name__}` has all"
            raise TypeError(f"there is no option `{name}`{guess}")
        if value is not None and not _may_be(value, hints[name]):
            kinds = dict.fromkeys(_KINDS.get(typing.get_origin(each) or each, "") for each in _either(hints[name]))
            raise RequestError(
                f"`{name}` is {str(value)[:40]}, which is not {' or '.join(kind for kind in kinds if kind)}."
            )
    return {name: value for name, value in values.items() if value is not None}


def python_value(value: Any) -> Any:
    """Returns a number or an array of numpy as Python's number or list; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


_KINDS = {
    int: "a whole number", float: "a number", bool: "True or False", str: "text", Path: "a path",
    collections.abc.Sequence: "a list", collections.abc.Mapping: "a dictionary", typing.Literal: "text",
}  # fmt: skip
"""Types of options, for people."""


def _may_be(value: Any, hint: Any) -> bool:
    """Returns whether a value can stand for one of a type; what is in a list is looked at where it is read."""
    for each in _either(hint):
        kind = typing.get_origin(each) or each
        if kind in (int, float):
            if isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool):
                return True
        elif isinstance(value, {typing.Literal: str, collections.abc.Sequence: Iterable}.get(kind, kind)):
            return True
    return False


def _either(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
