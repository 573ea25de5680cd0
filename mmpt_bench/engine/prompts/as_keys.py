"""Where deep prompts may enter as keys and values instead of rows, and for how long."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.prompts.bank import PromptBank
from mmpt_bench.engine.prompts.prompt_keys import ATTENTION, register

TEXT_MODELS = ("llama", "qwen2", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text")
"""Decoders that norm keys after `k_proj`, where they have a `k_norm`, and rotate them, and nothing else happens."""


@contextmanager
def prompts_as_keys(backbone: Backbone) -> Iterator[None]:
    """Inside, deep prompts enter the blocks that allow it as keys and values; the decoder's where nothing is cached."""
    bank = getattr(backbone.model, "prompt_bank", None)
    if not isinstance(bank, PromptBank) or bank.of_item or not (sides := _sides(backbone.model, bank)):
        yield
        return
    register()
    try:
        for config in sides.values():
            config._attn_implementation = ATTENTION
        bank.as_keys = frozenset(sides)
        yield
    finally:
        bank.as_keys = frozenset()
        for config in sides.values():
            config._attn_implementation = "sdpa"


def _sides(model: Any, bank: PromptBank) -> dict[str, Any]:
    """Returns the configuration of each side, "vision" or "text", whose deep prompts may be keys and values."""
    anatomy, plan, sides = bank.anatomy, bank.plan, {}
    if plan.visual and plan.visual_deep:
        blocks: list[Any] = [model.get_submodule(name) for name in anatomy.vision_layers[: anatomy.vision_used]]
        if anatomy.layout == "batched" and all(_built(block, "layer_norm1", "out_proj") for block in blocks):
            sides["vision"] = blocks[0].self_attn.config
        if anatomy.layout == "packed" and all(map(_built_packed, blocks)):
            sides["vision"] = blocks[0].attn.config
    # Keys stand in front of everything: rows that must stand after the interaction's stay rows.
    if (plan.keys or (plan.text and plan.text_deep)) and (plan.text_first or not bank.flowing):
        decoder = model.get_submodule(anatomy.decoder)
        layers = [model.get_submodule(name) for name in anatomy.decoder_layers]
        rotates = hasattr(sys.modules[type(layers[0]).__module__], "apply_rotary_pos_emb")
        plain = decoder.config.model_type in TEXT_MODELS and anatomy.window is None and rotates
        if plain and all(_built(layer, "input_layernorm", "o_proj") for layer in layers):
            sides["text"] = decoder.config
    return sides


def _built(block: Any, norm: str, out: str) -> bool:
    """Returns whether a block is norm, attention of four maps under `sdpa`, and what follows; not recomputed."""
    attention = getattr(block, "self_attn", None)
    maps = {"q_proj", "k_proj", "v_proj", out}
    return (
        hasattr(block, norm)
        and attention is not None
        and {name for name, _ in attention.named_children()} - {"q_norm", "k_norm"} == maps
        and attention.config._attn_implementation == "sdpa"
        and not getattr(block, "gradient_checkpointing", False)
    )


def _built_packed(block: Any) -> bool:
    """Returns whether a block of a packed tower is norm, attention of two maps under `sdpa`, and what follows."""
    attention = getattr(block, "attn", None)
    return (
        hasattr(block, "norm1")
        and attention is not None
        and {name for name, _ in attention.named_children()} == {"qkv", "proj"}
        and attention.config._attn_implementation == "sdpa"
        and not getattr(block, "gradient_checkpointing", False)
    )
