"""Prompts in a vision tower whose images lie one after another in one sequence (Qwen2-VL, Qwen2.5-VL; Pixtral).

Hidden states are (patches of all images, width), `cu_seqlens` says where an image (or a window of one) begins, and
patches are rotated to their place. Each image, or window where a block attends within windows, gets its own copy of
the block's prompts after its patches; prompts are not rotated, since they have no place. In Pixtral the sequence is
the one row of a batch, and a mask of pairs says which patches are of one image.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.prompts.bank import PromptBank, hidden_in, with_hidden, with_output
from mmpt_bench.engine.prompts.interaction import squares
from mmpt_bench.engine.prompts.prompt_keys import share, take_back

Packed = Float[Tensor, "rows dim"]


def enter_block(bank: PromptBank, block: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Before a block: puts the block's prompts after the rows of every segment."""
    if _as_keys(bank, block):
        share(module, bank.prompts("mmpt_visual", block))
        return args, kwargs
    kwargs = dict(kwargs)
    if len(args) > 1:
        kwargs["attention_mask"], args = args[1], (args[0], *args[2:])
    bounds = _bounds(kwargs)
    hidden, prompts = hidden_in(args, kwargs), bank.prompts("mmpt_visual", block)
    rows = len(prompts)
    cosine, sine = kwargs["position_embeddings"]
    still = (cosine.new_ones(rows, cosine.shape[-1]), sine.new_zeros(rows, sine.shape[-1]))
    kwargs["position_embeddings"] = (_behind(cosine, bounds, still[0]), _behind(sine, bounds, still[1]))
    grown = bounds + rows * torch.arange(len(bounds), dtype=bounds.dtype, device=bounds.device)
    if bank.anatomy.layout == "row":
        kwargs["attention_mask"] = _blocks(kwargs["attention_mask"], grown)
        return with_hidden(args, kwargs, _behind(hidden[0], bounds, prompts.to(hidden))[None])
    kwargs["cu_seqlens"] = grown
    if kwargs.get("max_seqlen") is not None:
        kwargs["max_seqlen"] = kwargs["max_seqlen"] + rows
    return with_hidden(args, kwargs, _behind(hidden, bounds, prompts.to(hidden)))


def leave_block(bank: PromptBank, block: int, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
    """After a block: cuts the prompts off every segment; after the last, with interaction, leaves them at the end."""
    if _as_keys(bank, block):
        take_back(module)
        return output
    rows, lengths = bank.plan.visual, _lengths(_bounds(kwargs))
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

    if bank.anatomy.layout == "row":
        return with_output(output, lambda hidden: cut(hidden[0])[None])
    return with_output(output, cut)


def _as_keys(bank: PromptBank, block: int) -> bool:
    """Returns whether a block's prompts are keys and values for now, as nothing reads what it makes of them."""
    return "vision" in bank.as_keys and bank.is_cut_behind(block)


def _bounds(kwargs: dict) -> Int[Tensor, " segments+1"]:
    """Returns where each image, or window, begins, and where the last one ends."""
    if "cu_seqlens" in kwargs:
        return kwargs["cu_seqlens"]
    mask = kwargs.get("attention_mask")
    if mask is None:
        raise RequestError("Visual prompts in this vision tower need a mask: give `--attn-implementation sdpa`.")
    # A patch does not see the one before it where that is another image's.
    begins = (mask[0, 0].diagonal(-1) != 0).nonzero()[:, 0] + 1
    return torch.cat([begins.new_zeros(1), begins, begins.new_full((1,), mask.shape[-1])])


def _blocks(mask: Tensor, bounds: Int[Tensor, " segments+1"]) -> Tensor:
    """Returns an additive mask like another, (1, 1, rows, rows), in which a segment sees itself alone."""
    segment = torch.arange(len(bounds) - 1, device=mask.device).repeat_interleave(bounds.diff())
    hidden = segment[:, None] != segment
    return mask.new_zeros(1, 1, *hidden.shape).masked_fill(hidden, torch.finfo(mask.dtype).min)


def _lengths(bounds: Int[Tensor, " segments+1"]) -> list[int]:
    return bounds.diff().tolist()


def _behind(values: Packed, bounds: Int[Tensor, " segments+1"], rows: Packed) -> Packed:
    """Returns `values` with `rows` after each segment."""
    return torch.cat([piece for segment in values.split(_lengths(bounds)) for piece in (segment, rows)])
