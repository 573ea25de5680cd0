"""The decoder's cache: what the installed transformers calls it, and one with room for what comes.

Its name is `cache` from transformers 5.24 on, `past_key_values` before. A cache of transformers joins old and new keys
at every call, which for a short question after a long prefix costs as much as the question; here tokens are written
where they belong, and nothing is copied to grow.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, LlavaForConditionalGeneration
from transformers.cache_utils import DynamicLayer


@functools.cache
def cache_name() -> str:
    """Returns what a model's `forward` calls the cache, and its output too."""
    known = inspect.signature(LlavaForConditionalGeneration.forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def cache_in(kwargs: Mapping[str, Any]) -> Any:
    """Returns the cache among a call's arguments, under either name, or None."""
    found = kwargs.get("cache")
    return kwargs.get("past_key_values") if found is None else found


def tokens_in(cache: Any) -> int:
    """Returns how many tokens a cache holds; 0 where there is none."""
    return 0 if cache is None else int(cache.get_seq_length())


Heads = Float[Tensor, "batch heads tokens dim"]


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer, with room after them."""

    def __init__(self, keys: Heads, values: Heads, rows: Int[Tensor, " rows"], room: int) -> None:
        """Takes `rows` of another layer's keys and values, and leaves room for so many more tokens."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._room = [_preallocated(one, rows, room) for one in (keys, values)]
        self._tokens = keys.shape[2]
        self._show()

    def update(self, key_states: Heads, value_states: Heads, *args: Any, **kwargs: Any) -> tuple[Heads, Heads]:
        """Writes new tokens after those that are there, and returns all of them."""
        end = self._tokens + key_states.shape[2]
        if end > self._room[0].shape[2]:
            raise ValueError(f"room for {self._room[0].shape[2]} tokens does not hold {end}")
        for whole, new in zip(self._room, (key_states, value_states), strict=True):
            whole[:, :, self._tokens : end] = new
        self._tokens = end
        return self._show()

    def _show(self) -> tuple[Heads, Heads]:
        keys, values = (whole[:, :, : self._tokens] for whole in self._room)
        self.keys, self.values = keys, values
        return keys, values


def rows_of(cache: Any, rows: Sequence[int], room: int) -> DynamicCache:
    """Returns a cache of its own with these rows of another, in this order and as often as they are named."""
    taken = DynamicCache()
    chosen = torch.tensor(list(rows))
    # Layers may lie on several devices.
    own = {layer.keys.device: chosen.to(layer.keys.device) for layer in cache.layers}
    taken.layers = [PreallocatedLayer(one.keys, one.values, own[one.keys.device], room) for one in cache.layers]
    return taken


def _preallocated(values: Heads, rows: Int[Tensor, " rows"], room: int) -> Heads:
    """Returns these rows with room for so many tokens after them, which is written before it is read."""
    batch, heads, tokens, dim = len(rows), *values.shape[1:]
    whole = values.new_empty(batch, heads, tokens + room, dim)
    # Read once and written once: what `values[rows]` makes is as large again.
    torch.index_select(values, 0, rows, out=whole[:, :, :tokens])
    return whole
