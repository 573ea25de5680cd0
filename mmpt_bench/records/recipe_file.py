"""A recipe as recipe.yaml: the file that every run writes, and that reruns it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.files import scrub, scrubbed, write_atomic
from mmpt_bench.common.hashing import canonical_json
from mmpt_bench.common.values import FieldError, from_plain
from mmpt_bench.records.recipe import Recipe

MAX_BYTES = 65_536
"""A recipe is about a kilobyte; a file far larger is not one."""
MAX_DEPTH = 20
"""Levels of nesting; a recipe has three."""


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
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"`{key.value}` stands twice", problem_mark=key.start_mark)
                seen.add(key.value if isinstance(key.value, str) else id(key))
        return node


# YAML 1.1 reads `7e-4` as text, and people write learning rates so.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Writes a recipe as YAML, atomically, with the home directory as `~`.

    Raises:
        RequestError: the home directory or a secret stands in a field that the run's key is made of.
    """
    value = scrubbed(dataclasses.asdict(recipe))
    if from_plain(Recipe, value).train_key != recipe.train_key:
        changed = [name for name in value if name != "backbone" and value[name] != dataclasses.asdict(recipe)[name]]
        raise RequestError(
            f"`{changed[0]}` names your home directory or a secret, and would be part of the run's key. "
            "Write it relative to the working directory, or with `~`."
        )
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    write_atomic(path, f"# Reruns this training: mmpt-bench run --recipe {path.name}\n{text}".encode())


def read_recipe(path: Path) -> Recipe:
    """Returns the recipe in a YAML file.

    Raises:
        RequestError: no file, too large, malformed, an alias, an unknown, repeated or missing field, a wrong type; with
            line and column where there is one.
    """
    shown = scrub(str(path))
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise RequestError(f"The recipe `{shown}` cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise RequestError(f"`{shown}` is no recipe: it is larger than {MAX_BYTES:,} bytes.")
    try:
        value, marks = _parsed(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RequestError(f"`{shown}` is no recipe{where}: {error.problem or error.context}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RequestError(f"`{shown}` is no recipe: {str(error).splitlines()[0]}.") from error
    try:
        recipe = from_plain(Recipe, value)
        canonical_json(dataclasses.asdict(recipe))
        return recipe
    except FieldError as error:
        line = marks.get(error.field)
        where = f", line {line.line + 1}, column {line.column + 1}" if line else ""
        raise RequestError(f"`{shown}` is no recipe{where}: {error}") from error
    except (TypeError, ValueError) as error:
        raise RequestError(f"`{shown}` is no recipe: it holds what is no text and no finite number.") from error


def _parsed(data: bytes) -> tuple[dict[str, Any], dict[str, yaml.Mark]]:
    """Returns a document's mapping, and where each field of it and of its `budget` stands."""
    loader = _Loader(data)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ValueError("it holds no fields")
        pairs = list(node.value)
        pairs += [pair for key, inner in node.value if key.value == "budget" and not isinstance(inner.value, str)
                  for pair in inner.value if isinstance(pair, tuple)]  # fmt: skip
        return loader.construct_document(node), {str(key.value): key.start_mark for key, _ in reversed(pairs)}
    finally:
        loader.dispose()
