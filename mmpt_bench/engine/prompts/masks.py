"""Masks and positions of a sequence that grew by prompt rows on its left.

The caller's tokens keep their order and their own counting: the first real token has position 0, wherever padding puts
it, and stands at position `rows` once the prompts are in front.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Mask4D = Float[Tensor, "batch heads queries keys"] | Bool[Tensor, "batch heads queries keys"]


def extend_mask(mask: Any, rows: int, seen: int, length: int) -> Any:
    """Returns an attention mask with `rows` visible columns on the left, and with the prompts' own rows at prefill.

    Args:
        mask: None, (batch, keys), (batch or 1, heads or 1, queries, keys) boolean or additive, or a dict of such masks.
        rows: prompt rows in front of the sequence.
        seen: columns in the cache, prompts included; 0 at prefill.
        length: the caller's tokens in this call.

    Raises:
        ValueError: the mask covers neither the caller's tokens nor those and the prompts.
    """
    if mask is None:
        return None
    if isinstance(mask, dict):
        return {kind: extend_mask(one, rows, seen, length) for kind, one in mask.items()}
    own = length + max(seen - rows, 0)
    keys = mask.shape[-1]
    if seen and keys == seen + length:
        return mask
    if keys != own or mask.dim() not in (2, 4):
        raise ValueError(f"an attention mask of shape {tuple(mask.shape)} does not cover {own} tokens")
    if mask.dim() == 2:
        return torch.cat([mask.new_ones(mask.shape[0], rows), mask], dim=-1)
    return _extend_4d(mask, rows, at_prefill=seen == 0)


def _extend_4d(mask: Mask4D, rows: int, at_prefill: bool) -> Mask4D:
    """Returns a 4D mask with the prompts visible to every row, and causal prompt rows on top at prefill."""
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"a 4D attention mask must be boolean or additive, not {mask.dtype}")
    boolean = mask.dtype == torch.bool
    visible, hidden = (1.0, 0.0) if boolean else (0.0, torch.finfo(mask.dtype).min)
    batch, heads, queries, keys = mask.shape
    grown = torch.cat([mask.new_full((batch, heads, queries, rows), visible), mask], dim=-1)
    if not at_prefill:
        return grown
    later = torch.ones(rows, rows + keys, dtype=torch.bool, device=mask.device).triu(1)
    own = mask.new_full((rows, rows + keys), visible).masked_fill(later, hidden)
    return torch.cat([own.expand(batch, heads, -1, -1), grown], dim=-2)


def extend_mask_right(mask: Mask4D, rows: int) -> Mask4D:
    """Returns a 4D mask without order for `rows` more at the end: they see what the first row sees, all see them."""
    visible = True if mask.dtype == torch.bool else 0.0
    own = mask[:, :, :1].expand(-1, -1, rows, -1)
    grown = torch.cat([mask, own], dim=-2)
    return torch.cat([grown, grown.new_full((*grown.shape[:-1], rows), visible)], dim=-1)


def extend_positions(positions: Any, mask: Any, rows: int, seen: int, length: int) -> Any:
    """Returns position ids for the prompts (0 to rows - 1, at prefill only) and the caller's tokens, moved by `rows`.

    Without position ids, a 2D mask counts them: the distance between prompts and text must not depend on padding.
    With neither, None comes back, and the decoder counts from the cache, in which the prompts already are.

    Raises:
        ValueError: positions restart without a mask, which transformers reads as several packed sequences of which only
            the first would see the prompts.
    """
    if positions is None:
        if mask is None or isinstance(mask, dict) or mask.dim() != 2:
            return None
        counted = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
        moved = counted if seen and mask.shape[-1] == seen + length else counted + rows
    else:
        # Positions in several dimensions (M-RoPE) stand still within a picture; transformers looks at the text's alone.
        text = positions[0] if positions.dim() == 3 else positions
        plain = positions.dim() == 2 or len(positions) == 4
        if not seen and mask is None and plain and bool((text.diff(dim=-1) != 1).any()):
            raise ValueError("positions restart inside a row: packed sequences need a 4D attention mask with prompts")
        moved = positions + rows
    if seen:
        return moved
    first = torch.arange(rows, dtype=moved.dtype, device=moved.device)
    return torch.cat([first.expand(*moved.shape[:-1], rows), moved], dim=-1)
