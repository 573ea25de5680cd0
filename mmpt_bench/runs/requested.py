"""What `run` and `plan` were given: methods and their variants, or an adapter, or a recipe; and the untuned base."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.methods import method_catalog
from mmpt_bench.runs.option_texts import Names
from mmpt_bench.runs.options import FROZEN, Options, make_request
from mmpt_bench.runs.request import Request, parse_variants


def requested(
    method: Names,
    tasks: Names,
    trained: tuple[str | None, bool],
    recipe: str | Path | None,
    options: Options,
    base: bool = False,
) -> tuple[Request, Any]:
    """Returns (the request, the recipe that it repeats or None).

    Args:
        trained: adapter, may it be of another base.
        base: the untuned model is evaluated too, before all others; not beside an adapter, whose setting is its own,
            nor beside a recipe, which is one run.
    """
    adapter, other_base = trained
    options, variants = options.copy(), options.get("variants", {})
    options.pop("variants", None)
    if variants and (adapter is not None or recipe is not None):
        raise RequestError(
            "An adapter or a recipe is one variant: `variants`, or an experiment, cannot stand beside it."
        )
    if adapter is not None and recipe is not None:
        raise RequestError("`--adapter` and `--recipe` do not go together: the one trains nothing.")
    if adapter is not None:
        from mmpt_bench.methods.trained_adapter import adapter_entry

        request = make_request(FROZEN, tasks, options, is_run=True)
        entry = adapter_entry(adapter, request.offline, other_base)
        return dataclasses.replace(request, methods=(entry,)), None
    if other_base:
        raise RequestError("`--other-base` is said of an adapter: name it with `--adapter`.")
    if recipe is None:
        request = make_request(method, tasks, options, is_run=True)
        return _with_base(dataclasses.replace(request, variants=parse_variants(variants, request.methods)), base), None
    from mmpt_bench.records.recipe_file import read_recipe
    from mmpt_bench.runs.request import from_recipe

    wanted = read_recipe(Path(recipe))
    return from_recipe(wanted, make_request(FROZEN, tasks, options, is_run=True)), wanted


def _with_base(request: Request, base: bool) -> Request:
    if not base or any(entry.name == FROZEN for entry in request.methods):
        return request
    return dataclasses.replace(request, methods=(method_catalog.named_method(FROZEN), *request.methods))
