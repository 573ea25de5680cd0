"""Prompts in a vision tower whose images lie behind one another in one sequence (Qwen2-VL, Qwen2.5-VL).

Hidden states are (patches of all images, width), `cu_seqlens` says where an image (or a window of one) begins, and
patches are rotated to their place. Each image, or window where a block attends within windows, gets its own copy of
the block's prompts behind its patches; prompts are not rotated, since they have no place.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmpt_bench.engine.prompts.bank import PromptBank, hidden_in, with_hidden, with_output
from mmpt_bench.engine.prompts.interaction import squares

Packed = Float[Tensor, "rows dim"]


def enter_block(bank: PromptBank, block: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Before a block: puts the block's prompts behind the rows of every segment."""
    bounds, kwargs = kwargs["cu_seqlens"], dict(kwargs)
    hidden, prompts = hidden_in(args, kwargs), bank.prompts("mmpt_visual", block)
    rows = len(prompts)
    cosine, sine = kwargs["position_embeddings"]
    still = (cosine.new_ones(rows, cosine.shape[-1]), sine.new_zeros(rows, sine.shape[-1]))
    kwargs["position_embeddings"] = (_behind(cosine, bounds, still[0]), _behind(sine, bounds, still[1]))
    kwargs["cu_seqlens"] = bounds + rows * torch.arange(len(bounds), dtype=bounds.dtype, device=bounds.device)
    if kwargs.get("max_seqlen") is not None:
        kwargs["max_seqlen"] = kwargs["max_seqlen"] + rows
    return with_hidden(args, kwargs, _behind(hidden, bounds, prompts.to(hidden)))


def leave_block(bank: PromptBank, block: int, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
    """Behind a block: cuts the prompts off every segment; behind the last, with interaction, leaves them at the end."""
    rows, lengths = bank.plan.visual, _lengths(kwargs["cu_seqlens"])
    leaves = bank.left and block == bank.anatomy.vision_used - 1

    def cut(hidden: Packed) -> Packed:
        segments = hidden.split(lengths)
        patches = [one[:-rows] for one in segments]
        if not leaves:
            return torch.cat(patches)
        states = torch.stack([one[-rows:] for one in segments])
        if bank.plan.interaction == "parameters":
            states = bank.spread("mmpt_visual", -1, states)
        return torch.cat([*patches, squares(states, bank.anatomy.merge**2).flatten(0, 1)])

    return with_output(output, cut)


def _lengths(bounds: Int[Tensor, " segments+1"]) -> list[int]:
    return bounds.diff().tolist()


def _behind(values: Packed, bounds: Int[Tensor, " segments+1"], rows: Packed) -> Packed:
    """Returns `values` with `rows` behind each segment."""
    return torch.cat([piece for segment in values.split(_lengths(bounds)) for piece in (segment, rows)])
