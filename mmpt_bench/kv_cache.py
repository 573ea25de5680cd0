"""The decoder's cache by its name in the installed transformers: `cache` from 5.24 on, `past_key_values` before."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any


@functools.cache
def cache_name() -> str:
    """Returns what a model's `forward` calls the cache, and its output too."""
    from transformers import LlavaForConditionalGeneration

    known = inspect.signature(LlavaForConditionalGeneration.forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def cache_in(kwargs: Mapping[str, Any]) -> Any:
    """Returns the cache among a call's arguments, under either name, or None."""
    found = kwargs.get("cache")
    return kwargs.get("past_key_values") if found is None else found
