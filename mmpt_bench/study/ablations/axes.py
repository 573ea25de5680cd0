"""What an ablation may vary: options such as `--prompt-len 5,10,20` become axes, checked for every method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.hashing import content_key
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.ablations import Point
from mmpt_bench.records.budget import MOST


def combinations(axes: Sequence[Axis], method: str, one_at_a_time: bool) -> list[dict[str, Setting]]:
    """Returns what is changed at each point of a method, by axis.

    A grid is every combination. One at a time is the method as it is, and each value of each axis with nothing else
    changed.
    """
    own = [axis for axis in axes if axis.varies(method)]
    if one_at_a_time:
        return [{}, *({axis.name: setting} for axis in own for setting in axis.settings)]
    names = [axis.name for axis in own]
    return [dict(zip(names, chosen, strict=True)) for chosen in product(*(axis.settings for axis in own))]


def label_of(method: str, changed: dict[str, Setting]) -> str:
    """Returns a point's label: "mmpt (prompt-len=5)", with a method's own field without its name."""
    told = ", ".join(f"{axis.removeprefix(f'{method}.')}={setting.label}" for axis, setting in changed.items())
    return f"{method} ({told})" if told else method


def name_of(points: Sequence[Point], axes: Sequence[Axis], limit: int | None) -> str:
    """Returns an ablation's name: what is varied in which methods, and a key of its points."""
    methods = "-".join(dict.fromkeys(point.method for point in points))
    varied = "-".join(axis.name.rpartition(".")[2] for axis in axes)
    key = content_key([sorted(point.key for point in points), limit], 6)
    return f"{methods}-{varied}"[:120].replace("_", "-") + f"-{key}"


LENGTHS: dict[str, tuple[str, ...]] = {
    "prompt-len": ("visual_length", "text_length", "length"),
    "visual-len": ("visual_length",),
    "text-len": ("text_length", "length"),
}
"""Option -> the fields that it sets, those of them that a method has."""

PARTS: dict[str, dict[str, str]] = {
    "visual": {"text_length": "0", "interaction": "false"},
    "text": {"visual_length": "0", "interaction": "false"},
    "both-plain": {"interaction": "false"},
    "both": {"interaction": "true"},
}
"""`--parts`: visual prompts alone, textual ones alone, both without interaction, both with it."""

DEPTHS: dict[str, tuple[str, str]] = {
    "deep": ("true", "true"),
    "visual-deep": ("true", "false"),
    "text-deep": ("false", "true"),
    "shallow": ("false", "false"),
}
"""`--depth`: (`visual_deep`, `text_deep`): a set of prompts before every layer, or one before the first."""

WHY_NOT = {
    "prompt-len": "it has no prompts",
    "visual-len": "it has no visual prompts",
    "text-len": "it has no textual prompts and no prefix",
    "parts": "it has no two sides of which one could be left out",
    "depth": "it has no choice between deep and shallow prompts",
    "placement": "where its parameters stand is fixed",
    "init": "how its parameters start is fixed",
    "lr": "it has no learning rate",
}

OPTIONS = (*WHY_NOT, "data-fraction", "steps", "backbone")
"""Options of `mmpt-bench ablate` that make an axis each; `--set` makes any other."""


@dataclass(frozen=True)
class Setting:
    """One value of an axis, and what it changes."""

    label: str
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Method -> field -> text."""
    fraction: float | None = None
    """Share of the training data that is used."""
    steps: int | None = None
    """Optimiser steps."""
    backbone: str | None = None


@dataclass(frozen=True)
class Axis:
    """One thing that is varied."""

    name: str
    """The option without dashes, "prompt-len", or a method's field, "lora.r"."""
    settings: tuple[Setting, ...]

    def varies(self, method: str) -> bool:
        """Returns whether a method differs along this axis."""
        return any(not each.fields or method in each.fields for each in self.settings)


def split_sets(sets: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the `--set` texts that make an axis (`lora.r=4,8`), and those that fix a value (`lora.r=4`)."""
    varied = [text for text in sets if "," in text.partition("=")[2]]
    return varied, [text for text in sets if text not in varied]


def axes_of(options: Mapping[str, str], varied: Sequence[str], methods: Sequence[Entry]) -> list[Axis]:
    """Returns the axes that options stand for.

    Args:
        options: name in `OPTIONS` -> comma-separated values.
        varied: `--set` texts with several values, each an axis.
        methods: what is varied; every option must be able to vary each of them.

    Raises:
        RequestError: a value that is none, twice the same one, a method that cannot be varied so, or two axes that
            set the same field.
    """
    axes = [_axis(name, text, methods) for name, text in options.items()]
    axes += [_field_axis(text, methods) for text in varied]
    for entry in methods:
        owner: dict[str, str] = {}
        for axis in axes:
            for name in {name for setting in axis.settings for name in setting.fields.get(entry.name, {})}:
                # `--parts` leaves sides out of whatever the lengths are.
                if owner.setdefault(name, axis.name) != axis.name and "parts" not in (owner[name], axis.name):
                    raise RequestError(f"`--{owner[name]}` and `--{axis.name}` both set `{entry.name}.{name}`.")
        if not any(axis.varies(entry.name) for axis in axes):
            raise RequestError(
                f"Nothing would be varied in `{entry.name}`. Give an axis, as `--prompt-len 5,10,20` or `--set "
                f"{entry.name}.FIELD=1,2` (`mmpt-bench show {entry.name}` lists fields), or `--with {entry.name}`."
            )
    return sorted(axes, key=lambda axis: axis.name == "parts")


def _axis(name: str, text: str, methods: Sequence[Entry]) -> Axis:
    if name in LENGTHS:
        return _same_value(name, _numbers(name, text, int, _length), LENGTHS[name], methods)
    if name == "lr":
        return _same_value(name, _numbers(name, text, float, _rate), ("learning_rate",), methods)
    if name in ("data-fraction", "steps"):
        for entry in methods:
            if not method_catalog.method_of(entry, {}).trains:
                raise RequestError(
                    f"`--{name}` cannot vary `{entry.name}`: it trains nothing. Leave it out of `--method`; "
                    f"`--with {entry.name}` evaluates it beside the others."
                )
    if name == "data-fraction":
        found = _numbers(name, text, float, _fraction)
        return Axis(name, tuple(Setting(label, fraction=float(label)) for label in found))
    if name == "steps":
        return Axis(name, tuple(Setting(label, steps=int(label)) for label in _numbers(name, text, int, _steps)))
    words = _words(name, text)
    if name == "backbone":
        return Axis(name, tuple(Setting(word, backbone=word) for word in words))
    if name in ("placement", "init"):
        return _same_value(name, words, (name,), methods)
    known = PARTS if name == "parts" else DEPTHS
    for word in words:
        if word not in known:
            raise unknown_name("part" if name == "parts" else "depth", word, known)
    fields = {entry.name: method_catalog.known_fields(entry) for entry in methods}
    needed = {"visual_length", "text_length", "interaction"} if name == "parts" else set()
    for entry in methods:
        deep = {"visual_deep", "text_deep"} & set(fields[entry.name])
        if not needed <= set(fields[entry.name]) or (name == "depth" and not deep):
            raise _cannot(name, entry)
        if name == "depth" and len(deep) == 1 and not {"visual-deep", "text-deep"}.isdisjoint(words):
            raise RequestError(f"`--depth`: `{entry.name}` has one side: it is `deep` or `shallow`.")

    def changed(word: str, has: Sequence[str]) -> dict[str, str]:
        if name == "parts":
            return PARTS[word]
        return {n: v for n, v in zip(("visual_deep", "text_deep"), DEPTHS[word], strict=True) if n in has}

    return Axis(name, tuple(Setting(w, {m: changed(w, has) for m, has in fields.items()}) for w in words))


def _same_value(name: str, values: Sequence[str], wanted: Sequence[str], methods: Sequence[Entry]) -> Axis:
    """Returns an axis that gives one value to all those of some fields that a method has."""
    having = {}
    for entry in methods:
        having[entry.name] = [known for known in method_catalog.known_fields(entry) if known in wanted]
        if not having[entry.name]:
            raise _cannot(name, entry)
    return Axis(name, tuple(Setting(v, {m: dict.fromkeys(fields, v) for m, fields in having.items()}) for v in values))


def _field_axis(text: str, methods: Sequence[Entry]) -> Axis:
    """Returns the axis of `--set lora.r=4,8`, or of `r=4,8` where one method is varied."""
    from mmpt_bench.runs.request import parse_overrides

    name, _, values = text.partition("=")
    words = _words(f"set {name}=", values)
    ((method, fields),) = parse_overrides([f"{name}={words[0]}"], methods).items()
    (field_name,) = fields
    entry = next(each for each in methods if each.name == method)
    typed = [method_catalog.coerce(method_catalog.load_method(entry), {field_name: word}) for word in words]
    if any(each in typed[:number] for number, each in enumerate(typed)):
        raise RequestError(f"`--set {text}`: a value stands twice.")
    return Axis(f"{method}.{field_name}", tuple(Setting(w, {method: {field_name: w}}) for w in words))


def _numbers(name: str, text: str, kind: type, check: Callable[[float], str]) -> list[str]:
    """Returns the values of a numeric option as they are shown; RequestError for one that is none, or stands twice."""
    values = []
    for word in text.split(","):
        try:
            value = kind(word.strip())
        except ValueError as error:
            what = "whole numbers" if kind is int else "numbers"
            raise RequestError(
                f"`--{name} {text}`: `{word.strip()}` is none; write {what}, comma-separated."
            ) from error
        if not math.isfinite(value) or check(value):
            raise RequestError(f"`--{name} {text}`: {check(value) or f'`{word.strip()}` is not a number to use'}.")
        values.append(f"{value}" if kind is int else f"{value:g}")
    if len(set(values)) < len(values):
        raise RequestError(f"`--{name} {text}`: a value stands twice.")
    return values


def _length(value: float) -> str:
    wrong = f"a length of {value:g} is no prompt: at least 1, and `--parts` leaves a side of MMPT out"
    return "" if value >= 1 else wrong


def _rate(value: float) -> str:
    return "" if value > 0 else "a learning rate is above 0"


def _fraction(value: float) -> str:
    return "" if 0 < value <= 1 else "a share of the training data is above 0 and at most 1"


def _steps(value: float) -> str:
    return "" if 1 <= value <= MOST else f"a training has from 1 to {MOST:,} steps"


def _words(name: str, text: str) -> list[str]:
    given = f"--{name}{text}" if name.endswith("=") else f"--{name} {text}"
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise RequestError(f"`{given}`: a value is empty.")
    if len(set(words)) < len(words):
        raise RequestError(f"`{given}`: a value stands twice.")
    return words


def _cannot(name: str, entry: Entry) -> RequestError:
    return RequestError(
        f"`--{name}` cannot vary `{entry.name}`: {WHY_NOT[name]}. Its fields: {_fields(entry)}; "
        f"`--set {entry.name}.FIELD=1,2` varies any of them."
    )


def _fields(entry: Entry) -> str:
    return ", ".join(f"`{name}`" for name in method_catalog.known_fields(entry))
