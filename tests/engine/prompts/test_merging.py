"""Interaction through connectors that merge patches, written out with plain transformers beside the prompt engine.

The rule is that of docs/decisions/0037. Blocks of a plain copy are called segment by segment with prompts after their
patches; squares of prompts' states are joined, or averaged, by hand and go through the projector's weights; the tokens
then stand in a longer sequence, before the image's, and the family's own `forward` answers it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmpt_bench.engine.adapters.trial import noise_pictures
from mmpt_bench.engine.models.backbone import load_backbone
from mmpt_bench.engine.prompts.hooks import attach_prompts
from mmpt_bench.engine.prompts.interaction import squares
from mmpt_bench.engine.prompts.plan import PromptPlan
from support.newer_families import BUILDERS
from support.tiny import QUESTIONS

torch.set_num_threads(1)
N = 6
"""Prompts: a whole square of four, and one of two, each twice."""
ORDER = torch.tensor([[0, 1, 2, 3], [4, 5, 4, 5]])


def joined(module: Any) -> Callable[[Tensor], Tensor]:
    return lambda four: module(four.flatten(1))


def qwen(merger: Any) -> Callable[[Tensor], Tensor]:
    return lambda four: merger.mlp(merger.ln_q(four).flatten(1))


def qwen3(merger: Any) -> Callable[[Tensor], Tensor]:
    return lambda four: merger.linear_fc2(torch.nn.functional.gelu(merger.linear_fc1(merger.norm(four).flatten(1))))


def alone(projector: Any) -> Callable[[Tensor], Tensor]:
    return lambda one: projector(one[:, 0])


def averaged(projector: Any) -> Callable[[Tensor], Tensor]:
    return lambda four: projector.mm_soft_emb_norm(four.mean(1)) @ projector.mm_input_projection_weight


CONNECTORS: dict[str, Callable[[Any], tuple[Any, Callable[[Tensor], Tensor]]]] = {
    "SmolVLM": lambda m: (m.vision_model.post_layernorm, joined(m.connector.modality_projection)),
    "Idefics3": lambda m: (m.vision_model.post_layernorm, joined(m.connector.modality_projection)),
    "InternVL": lambda m: (m.vision_tower.layernorm, joined(m.multi_modal_projector)),
    "Gemma 3": lambda m: (m.vision_tower.post_layernorm, averaged(m.multi_modal_projector)),
    **{
        name: lambda m: (torch.nn.Identity(), alone(m.multi_modal_projector))
        for name in ("LLaVA-NeXT", "LLaVA-OneVision", "Granite Vision", "VipLLaVA")
    },
    "Qwen2-VL": lambda m: (torch.nn.Identity(), qwen(m.visual.merger)),
    "Qwen2.5-VL": lambda m: (torch.nn.Identity(), qwen(m.visual.merger)),
    "Qwen3-VL": lambda m: (torch.nn.Identity(), qwen3(m.visual.merger)),
    "Qwen3-VL-MoE": lambda m: (torch.nn.Identity(), qwen3(m.visual.merger)),
    "Qwen3.5": lambda m: (torch.nn.Identity(), qwen3(m.visual.merger)),
}
"""By family: the tower's last norm; what its projector makes of squares, (squares, 4, dim), or rows, (rows, 1, dim)."""
ALONE = {"LLaVA-NeXT": [-2], "LLaVA-OneVision": [-1], "Granite Vision": [-4, -3, -1], "VipLLaVA": [-2, -3, 1]}
"""Families without squares, and which hidden states their projector reads; 0 is the first block's input."""


def prompted(block: Any, prompts: Tensor, last: list[Tensor]) -> Callable[..., Any]:
    """Returns a block's `forward` with prompts after the patches; their states are appended to `last`."""
    plain = block.forward

    def with_mask(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows = torch.cat([hidden, prompts.expand(len(hidden), -1, -1)], dim=1)
        mask = kwargs.pop("attention_mask", None)
        mask = args[0] if args and mask is None else mask
        if mask is not None:
            seen = (mask if mask.dtype == torch.bool else mask == 0)[:, 0, 0]
            seen = torch.cat([seen, torch.ones(len(seen), N, dtype=torch.bool)], dim=1)
            mask = seen[:, None, None].expand(-1, 1, rows.shape[1], -1)
        out = plain(rows, attention_mask=mask, **kwargs) if mask is not None else plain(rows, *args, **kwargs)
        first = out[0] if isinstance(out, tuple) else out
        last.append(first[:, -N:])
        return (first[:, :-N], *out[1:]) if isinstance(out, tuple) else first[:, :-N]

    def with_bounds(hidden: Tensor, cu_seqlens: Tensor, position_embeddings: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("max_seqlen", None)
        patches, states = [], []
        for start, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
            cosine, sine = (one[start:end] for one in position_embeddings)
            turned = (
                torch.cat([cosine, torch.ones(N, cosine.shape[1])]),
                torch.cat([sine, torch.zeros(N, sine.shape[1])]),
            )
            bounds = torch.tensor([0, end - start + N], dtype=torch.int32)
            out = plain(
                torch.cat([hidden[start:end], prompts]),
                cu_seqlens=bounds,
                max_seqlen=end - start + N,
                position_embeddings=turned,
                **kwargs,
            )
            patches.append(out[:-N])
            states.append(out[-N:])
        last.append(torch.stack(states))
        return torch.cat(patches)

    return with_bounds if hasattr(block, "norm1") and "Qwen" in type(block).__name__ else with_mask


def longer(values: Tensor, place: int, new: Tensor) -> Tensor:
    """Returns (..., tokens) with further values before one of them."""
    return torch.cat([values[..., :place], new, values[..., place:]], dim=-1)


def by_hand(plain: Any, family: str, batch: dict[str, Tensor], visual: Tensor) -> Tensor:
    """Returns the logits of one example's own tokens, (tokens, words)."""
    core, stack = plain.model, BLOCKS[family](plain.model)
    last: list[Tensor] = []
    blocks = [(block, block.forward) for block in stack]
    # A LLaVA does not read its last block.
    for block, prompts in zip(stack, visual, strict=False):
        block.forward = prompted(block, prompts, last)
    names = ("pixel_values", "pixel_attention_mask", "image_grid_thw", "image_sizes")
    features = core.get_image_features(**{n: batch[n] for n in names if n in batch}, return_dict=True)
    for block, forward in blocks:
        block.forward = forward
    norm, through = CONNECTORS[family](core)
    order = torch.arange(N)[:, None] if family in ALONE else ORDER
    states = [[None, *last][i if i > 0 else len(stack) + 1 + i] for i in ALONE.get(family, [-1])]
    tokens = torch.stack([through(norm(tile)[order]) for tile in torch.cat(states, dim=-1)]).mean(0)
    given = features.pooler_output
    image = torch.cat([one.reshape(-1, tokens.shape[-1]) for one in given])
    ids, token = batch["input_ids"], core.config.image_token_id
    place = int((ids[0] == token).int().argmax())
    texts = [name for name in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids") if name in batch]
    grown = {name: longer(batch[name], place, batch[name][:, place, None].expand(-1, len(tokens))) for name in texts}
    slot = torch.cat([tokens, image])
    encoded = BaseModelOutputWithPooling(pooler_output=[slot] if isinstance(given, list | tuple) else slot[None])
    if "image_grid_thw" in batch:
        positions, _ = core.get_rope_index(ids, batch["mm_token_type_ids"], batch["image_grid_thw"])
        counted = positions[..., place, None] + torch.arange(len(tokens))
        behind = positions.clone()
        behind[..., place:] += len(tokens)
        grown["position_ids"] = longer(behind, place, counted)
    if "deepstack_features" in features:
        nothing = torch.zeros_like(tokens)
        encoded["deepstack_features"] = [[torch.cat([nothing, *one])] for one in features.deepstack_features]
    logits = plain(**grown, mm_encoder_outputs={"image": encoded}).logits[0]
    return torch.cat([logits[:place], logits[place + len(tokens) :]])


BLOCKS: dict[str, Callable[[Any], Any]] = {
    "SmolVLM": lambda m: m.vision_model.encoder.layers,
    "Idefics3": lambda m: m.vision_model.encoder.layers,
    "InternVL": lambda m: m.vision_tower.encoder.layer,
    "Gemma 3": lambda m: m.vision_tower.encoder.layers,
    **{name: lambda m: m.vision_tower.encoder.layers for name in ALONE},
} | {name: lambda m: m.visual.blocks for name in CONNECTORS if name.startswith("Qwen")}


@pytest.mark.parametrize("family", CONNECTORS)
def test_tokens_are_those_of_squares_put_in_by_hand(tmp_path: Path, family: str) -> None:
    backbone = load_backbone(str(BUILDERS[family](tmp_path)), device="cpu", offline=True)
    plain = copy.deepcopy(backbone.model)
    prompts = [backbone.prompt_text(question) for question in QUESTIONS]
    pictures = noise_pictures(backbone)
    attachment = attach_prompts(backbone, PromptPlan(visual=N, interaction="output"), 0)
    visual = backbone.model.prompt_bank.mmpt_visual
    with torch.no_grad():
        visual.mul_(5)
        # Padding moves the plain Qwen3.5 too, by 1e-4: its states are carried through it.
        pairs = list(zip(pictures, prompts, strict=True))
        batch = backbone.batch(*([pictures[:1], prompts[:1]] if family == "Qwen3.5" else [pictures, prompts]))
        found = backbone.model(**batch).logits
        for i, (picture, prompt) in enumerate(pairs[: len(found)]):
            wanted = by_hand(plain, family, backbone.batch([picture], [prompt]), visual)
            own = found[i][batch["attention_mask"][i].bool()]
            assert torch.allclose(own, wanted, atol=2e-5 * wanted.abs().max().item())
            assert not torch.allclose(own, plain(**backbone.batch([picture], [prompt])).logits[0], atol=1e-2)
    attachment.remove()


@pytest.mark.parametrize(("rows", "area"), [(6, 4), (3, 4), (20, 9), (8, 4)])
def test_last_square_is_filled_with_its_own_prompts(rows: int, area: int) -> None:
    filled = squares(torch.arange(rows)[None, :, None].float(), area)[0, :, 0].tolist()
    assert len(filled) == math.ceil(rows / area) * area
    assert filled[:rows] == list(range(rows))
    assert all(value >= (rows - 1) // area * area for value in filled[rows:])
