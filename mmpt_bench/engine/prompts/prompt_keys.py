"""Deep prompts as keys and values, without their rows: the same sums, and nothing computed that is thrown away.

What a block makes of its prompts is cut off after it, for the next block brings its own: of a prompt only the key and
the value are of use. They are what the block's frozen norm and projections make of it, alike for every sequence of a
batch, so they are computed once and put beside the sequence's own where attention is taken. Queries, attention's output
and the feed-forward part of prompts are not computed at all, and no gradient is below the first block.

Only for models whose blocks are built as CLIP's and Llama's, under `sdpa`, without a cache; elsewhere they stay rows.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "prompts_as_keys"
"""Name of the attention function in transformers' registry: `sdpa` with what a block was given beside its sequence."""
_GIVEN, _SHARED = "prompt_keys_and_values", "shared_prompt_keys_and_values"
KeysValues = tuple[Float[Tensor, "1 heads rows width"], Float[Tensor, "1 heads rows width"]]


def give(block: nn.Module, keys: Tensor, values: Tensor, rotary: tuple[Tensor, Tensor] | None = None) -> None:
    """Gives a block's attention keys and values, (rows, heads * width), for its next call.

    `rotary` is cosine and sine of the rows' positions, where the block rotates its keys.
    """
    attention: Any = block.self_attn
    key, value = (one.view(len(one), -1, attention.head_dim) for one in (keys, values))
    if hasattr(attention, "k_norm"):
        key = attention.k_norm(key.to(attention.k_norm.weight.device))
    key, value = (one.transpose(0, 1)[None] for one in (key, value))
    if rotary is not None:
        rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
        key = rotate(key, key, *(one.to(key.device) for one in rotary))[1]
    vars(attention)[_GIVEN] = (key, value)


def projected(block: nn.Module, norm: str, prompts: Float[Tensor, "rows dim"]) -> tuple[Tensor, Tensor]:
    """Returns the keys and values, (rows, heads * width), that a block makes of prompts."""
    attention: Any = block.self_attn
    weight = attention.k_proj.weight
    normed = block.get_submodule(norm)(prompts.to(weight.device, weight.dtype))
    return attention.k_proj(normed), attention.v_proj(normed)


def share(block: Any, prompts: Float[Tensor, "rows dim"]) -> None:
    """Gives a block of a packed tower keys and values of prompts, which have no place, for every segment of a call."""
    attention: Any = block.attn
    weight = attention.qkv.weight
    made = attention.qkv(block.norm1(prompts.to(weight.device, weight.dtype)))
    _, key, value = made.unflatten(1, (3, attention.num_heads, -1)).permute(1, 2, 0, 3)
    vars(attention)[_SHARED] = (key[None], value[None])


def take_back(block: Any) -> None:
    """Ends what `share` began."""
    vars(block.attn).pop(_SHARED, None)


def register() -> None:
    """Makes the attention function known to transformers; its masks are those of `sdpa`."""
    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Returns `sdpa` attention to the sequence, and to what the block was given."""
    given: KeysValues | None = vars(module).pop(_GIVEN, None) or vars(module).get(_SHARED)
    if given is not None:
        rows = given[0].shape[2]
        key, value = (
            torch.cat([own.to(other).expand(len(other), -1, -1, -1), other], dim=2)
            for own, other in zip(given, (key, value), strict=True)
        )
        if attention_mask is not None:
            visible = True if attention_mask.dtype == torch.bool else 0.0
            attention_mask = nn.functional.pad(attention_mask, (rows, 0), value=visible)
        elif module.is_causal:
            attention_mask = query.new_ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(rows)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
