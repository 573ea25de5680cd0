"""A stranger's YAML as plain values, and where each of them stands: no aliases, no objects, a limit to its size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.files import scrub

MAX_BYTES = 65_536
"""A recipe or an experiment is about a kilobyte; a file far larger is neither."""
MAX_DEPTH = 20
"""Levels of nesting; a recipe has three."""
Place = tuple[str | int, ...]
"""("methods", "lora", 0, "r"): keys and numbers of items, from the outside."""


@dataclass(frozen=True)
class Document:
    """The mapping of a YAML file."""

    value: dict[str, Any]
    shown: str
    """The file's path for messages."""
    what: str
    """What the file should be: "recipe"."""
    marks: dict[Place, yaml.Mark]
    """Where each key, and each item of a list, begins."""

    def error(self, message: str, place: Place = ()) -> RequestError:
        """Returns the error of a place, with the line and column of the nearest one that is known."""
        mark = next((self.marks[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self.marks), None)
        return _error(self.shown, self.what, message, mark)

    def place_of(self, field: str) -> Place:
        """Returns the outermost place of a key; one that is nowhere for a key that is not there."""
        return min((place for place in self.marks if place[-1] == field), key=len, default=())


class _Loader(yaml.SafeLoader):
    """YAML without aliases (ten lines of which can stand for gigabytes), repeated keys and bottomless nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="it is nested too deep", problem_mark=mark)
        node = super().compose_node(parent, index)  # type: ignore[arg-type]
        self.depth -= 1
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(problem="a key is no text", problem_mark=key.start_mark)
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"`{key.value}` stands twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


# YAML 1.1 reads `7e-4` as text, and people write learning rates so.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_document(path: Path, what: str) -> Document:
    """Returns the mapping in a YAML file.

    Args:
        path: of the file.
        what: it should be, in the singular: "recipe".

    Raises:
        RequestError: no file, too large, malformed, an alias, a repeated key, or no mapping; with line and column where
            there is one.
    """
    shown = scrub(str(path))
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise RequestError(f"The {what} `{shown}` cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise RequestError(f"`{shown}` is no {what}: it is larger than {MAX_BYTES:,} bytes.")
    loader = None
    try:
        loader = _Loader(data)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ValueError("it holds no fields")
        return Document(loader.construct_document(node), shown, what, dict(_marks(node, ())))
    except yaml.MarkedYAMLError as error:
        raise _error(shown, what, f"{error.problem or error.context}.", error.problem_mark) from error
    except (yaml.YAMLError, ValueError) as error:
        raise RequestError(f"`{shown}` is no {what}: {str(error).splitlines()[0]}.") from error
    finally:
        if loader is not None:
            loader.dispose()


def _marks(node: yaml.Node, place: Place) -> Iterator[tuple[Place, yaml.Mark]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inside = (*place, str(key.value))
            yield inside, key.start_mark
            yield from _marks(value, inside)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield (*place, number), item.start_mark
            yield from _marks(item, (*place, number))


def _error(shown: str, what: str, message: str, mark: yaml.Mark | None) -> RequestError:
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return RequestError(f"`{shown}` is no {what}{where}: {message}")
