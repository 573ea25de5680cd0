"""Prompts in a vision tower whose pictures lie behind one another in one sequence (Qwen2-VL, Qwen2.5-VL).

Hidden states are (patches of all pictures, width), `cu_seqlens` says where a picture (or a window of one) begins, and
patches are rotated to their place. Each picture, or window where a block attends within windows, gets its own copy of
the block's prompts behind its patches; prompts are not rotated, since they have no place.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Packed = Float[Tensor, "rows dim"]


def enter_block(prompts: Packed, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Before a block: puts the prompts behind the rows of every segment."""
    bounds, kwargs = kwargs["cu_seqlens"], dict(kwargs)
    hidden = args[0] if args else kwargs["hidden_states"]
    rows = len(prompts)
    grown = _behind(hidden, bounds, prompts.to(hidden))
    cosine, sine = kwargs["position_embeddings"]
    still = (cosine.new_ones(rows, cosine.shape[-1]), sine.new_zeros(rows, sine.shape[-1]))
    kwargs["position_embeddings"] = (_behind(cosine, bounds, still[0]), _behind(sine, bounds, still[1]))
    kwargs["cu_seqlens"] = bounds + rows * torch.arange(len(bounds), dtype=bounds.dtype, device=bounds.device)
    if kwargs.get("max_seqlen") is not None:
        kwargs["max_seqlen"] = kwargs["max_seqlen"] + rows
    if args:
        return (grown, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": grown}


def leave_block(rows: int, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
    """Behind a block: cuts the prompts off every segment."""
    hidden = output[0] if isinstance(output, tuple) else output
    kept = torch.cat([segment[:-rows] for segment in hidden.split(_lengths(kwargs["cu_seqlens"]))])
    return (kept, *output[1:]) if isinstance(output, tuple) else kept


def _lengths(bounds: Int[Tensor, " segments+1"]) -> list[int]:
    return bounds.diff().tolist()


def _behind(values: Packed, bounds: Int[Tensor, " segments+1"], rows: Packed) -> Packed:
    """Returns `values` with `rows` behind each segment."""
    return torch.cat([piece for segment in values.split(_lengths(bounds)) for piece in (segment, rows)])
