"""A recipe as recipe.yaml: the file that every run writes, and that reruns it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.files import scrubbed, write_atomic
from mmpt_bench.common.hashing import canonical_json
from mmpt_bench.common.values import FieldError, from_plain
from mmpt_bench.common.yaml_file import read_document
from mmpt_bench.records.recipe import Recipe


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
    # Trainings of no stream, and without a teacher, are written as they were before there were any.
    value = {name: each for name, each in value.items() if name not in ("stage", "objective") or each}
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    write_atomic(path, f"# Reruns this training: mmpt-bench run --recipe {path.name}\n{text}".encode())


def read_recipe(path: Path) -> Recipe:
    """Returns the recipe in a YAML file.

    Raises:
        RequestError: no file, too large, malformed, an alias, an unknown, repeated or missing field, a wrong type; with
            line and column where there is one.
    """
    document = read_document(path, "recipe")
    try:
        recipe = from_plain(Recipe, document.value)
        canonical_json(dataclasses.asdict(recipe))
        return recipe
    except FieldError as error:
        raise document.error(str(error), document.place_of(error.field)) from error
    except (TypeError, ValueError) as error:
        raise document.error("it holds what is no text and no finite number.") from error
