"""Prompts in towers that have all images in one sequence, against loops over images and windows written by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import transformers as tf
from torch import Tensor, nn

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.models.anatomy import find_anatomy
from mmpt_bench.engine.prompts.as_keys import prompts_as_keys
from mmpt_bench.engine.prompts.bank import PromptBank
from mmpt_bench.engine.prompts.hooks import check_plan, register_hooks
from mmpt_bench.engine.prompts.interaction import STATES, through_connector
from mmpt_bench.engine.prompts.plan import PromptPlan

torch.set_num_threads(1)
WIDTH, HEADS, PATCH, MERGE, WINDOW, DEPTH, ROWS = 16, 2, 4, 2, 16, 4, 3
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64,
}  # fmt: skip
GRIDS = [(6, 8), (4, 10)]
"""Patches of two images, high and wide: windows of four patches a side do not divide either evenly."""


def qwen(full: list[int], window: int = WINDOW) -> Any:
    """Returns a Qwen2.5-VL; blocks that are not `full` attend within windows of so many pixels a side."""
    vision = {
        "depth": DEPTH, "hidden_size": WIDTH, "intermediate_size": 32, "num_heads": HEADS, "patch_size": PATCH,
        "spatial_merge_size": MERGE, "temporal_patch_size": 2, "out_hidden_size": 32, "window_size": window,
        "fullatt_block_indexes": full,
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = tf.Qwen2_5_VLConfig(
        vision_config=vision, text_config={**TEXT, "rope_parameters": rope}, image_token_id=4, video_token_id=5,
        vision_start_token_id=6, vision_end_token_id=7,
    )  # fmt: skip
    torch.manual_seed(0)
    return tf.Qwen2_5_VLForConditionalGeneration(config).eval()


def prompted(model: Any, interaction: Any = "none") -> PromptBank:
    anatomy, plan = find_anatomy(model), PromptPlan(visual=ROWS, interaction=interaction)
    check_plan(model, anatomy, plan)
    bank = PromptBank(anatomy, plan, 0, model.get_input_embeddings().weight)
    nn.init.normal_(bank.mmpt_visual, generator=torch.Generator().manual_seed(1))
    register_hooks(model, anatomy, bank)
    return bank


def turned(values: Tensor, angles: Tensor) -> Tensor:
    """Returns queries or keys, (heads, rows, width), rotated by angles, (rows, width / 2)."""
    half = values.shape[-1] // 2
    cosine, sine = (torch.cat([one, one], -1) for one in (angles.cos(), angles.sin()))
    return values * cosine + torch.cat([-values[..., half:], values[..., :half]], -1) * sine


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Returns (rows, heads * width): everything sees everything."""
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    return (weights @ value).transpose(0, 1).flatten(1)


def qwen_by_hand(visual: Any, pixels: Tensor, grid: tuple[int, int], prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (the merger's output, the prompts' states after the last block) of one image by itself."""
    high, wide = (side // MERGE for side in grid)
    places = [(i * MERGE + a, j * MERGE + b) for i in range(high) for j in range(wide)
              for a in range(MERGE) for b in range(MERGE)]  # fmt: skip
    side = visual.config.window_size // PATCH
    windows = [(row // side, column // side) for row, column in places]
    frequencies = 1 / 10000 ** (torch.arange(0, WIDTH // HEADS // 2, 2) / (WIDTH // HEADS // 2))
    angles = torch.stack([torch.cat([row * frequencies, column * frequencies]) for row, column in places])
    still = torch.zeros(ROWS, angles.shape[1])
    patches, states = visual.patch_embed(pixels), torch.zeros(0)
    for number, block in enumerate(visual.blocks):
        group = [0] * len(places) if number in visual.config.fullatt_block_indexes else windows
        made = torch.empty_like(patches)
        for one in sorted(set(group)):
            mine = [i for i, other in enumerate(group) if other == one]
            rows, angle = torch.cat([patches[mine], prompts[number]]), torch.cat([angles[mine], still])
            query, key, value = block.attn.qkv(block.norm1(rows)).unflatten(1, (3, HEADS, -1)).permute(1, 2, 0, 3)
            rows = rows + block.attn.proj(attended(turned(query, angle), turned(key, angle), value))
            rows = rows + block.mlp(block.norm2(rows))
            made[mine], states = rows[:-ROWS], rows[-ROWS:]
        patches = made
    return visual.merger(patches), states


@pytest.mark.parametrize("full", [[1, 3], [3], [0, 1, 2, 3], [0]])
@torch.no_grad()
def test_every_window_and_image_of_a_qwen_sees_its_own_copy_of_the_prompts(full: list[int]) -> None:
    model = qwen(full)
    plain = qwen(full)
    bank = prompted(model)
    pixels = [torch.randn(high * wide, 3 * 2 * PATCH**2) for high, wide in GRIDS]
    grid = torch.tensor([[1, *one] for one in GRIDS])
    out = model.model.visual(torch.cat(pixels), grid_thw=grid)
    wanted = [qwen_by_hand(plain.model.visual, *each, bank.mmpt_visual) for each in zip(pixels, GRIDS, strict=True)]
    torch.testing.assert_close(out.pooler_output, torch.cat([one for one, _ in wanted]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("interaction", ["none", "output"])
@torch.no_grad()
def test_prompts_as_keys_and_values_are_the_same_sums(interaction: str) -> None:
    model, plain = qwen([1, 3]), qwen([1, 3])
    bank = prompted(model, interaction)
    model.add_module("prompt_bank", bank)
    pixels = [torch.randn(high * wide, 3 * 2 * PATCH**2) for high, wide in GRIDS]
    lengths: list[int] = []
    mlp = model.model.visual.blocks[0].mlp
    mlp.register_forward_pre_hook(lambda module, args: lengths.append(len(args[0])))
    with prompts_as_keys(cast(Any, SimpleNamespace(model=model))):
        assert bank.as_keys == {"vision"}
        out = model.model.visual(torch.cat(pixels), grid_thw=torch.tensor([[1, *one] for one in GRIDS]))
    assert lengths == [sum(high * wide for high, wide in GRIDS)]
    wanted = [qwen_by_hand(plain.model.visual, *each, bank.mmpt_visual) for each in zip(pixels, GRIDS, strict=True)]
    torch.testing.assert_close(out.pooler_output, torch.cat([one for one, _ in wanted]), atol=1e-5, rtol=1e-4)
    if interaction == "output":
        square = torch.stack([one[[0, 1, 2, 0]] for _, one in wanted])
        torch.testing.assert_close(out[STATES], square, atol=1e-5, rtol=1e-4)
    # Outside, they are rows again.
    model.model.visual(torch.cat(pixels), grid_thw=torch.tensor([[1, *one] for one in GRIDS]))
    assert lengths[1] > lengths[0]


@torch.no_grad()
def test_behind_a_last_block_that_sees_whole_images_a_qwen_has_one_set_of_states_an_image() -> None:
    model, plain = qwen([1, 3]), qwen([1, 3])
    bank = prompted(model, "output")
    pixels = [torch.randn(high * wide, 3 * 2 * PATCH**2) for high, wide in GRIDS]
    out = model.model.visual(torch.cat(pixels), grid_thw=torch.tensor([[1, *one] for one in GRIDS]))
    wanted = [qwen_by_hand(plain.model.visual, *each, bank.mmpt_visual) for each in zip(pixels, GRIDS, strict=True)]
    torch.testing.assert_close(out.pooler_output, torch.cat([one for one, _ in wanted]), atol=1e-5, rtol=1e-4)
    # Three states fill a square of four, the last place by the first again.
    square = torch.stack([one[[0, 1, 2, 0]] for _, one in wanted])
    torch.testing.assert_close(out[STATES], square, atol=1e-5, rtol=1e-4)


def test_states_of_a_last_block_with_windows_are_refused_for_the_language_model() -> None:
    model = qwen([1, 2])
    with pytest.raises(RequestError, match="its last vision block attends within windows"):
        prompted(model, "output")
    assert prompted(model).plan.visual == ROWS


def pixtral(merge: int) -> Any:
    """Returns a Mistral 3, or a LLaVA with Pixtral's tower, whose connector makes a token of each patch."""
    vision = tf.PixtralVisionConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=DEPTH, num_attention_heads=HEADS, head_dim=8,
        image_size=64, patch_size=PATCH,
    )  # fmt: skip
    text = tf.MistralConfig(**TEXT, head_dim=8, sliding_window=None)
    torch.manual_seed(0)
    if merge == 1:
        config = tf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, vision_feature_layer=-1,
                                vision_feature_select_strategy="full")  # fmt: skip
        return tf.LlavaForConditionalGeneration(config).eval()
    config = tf.Mistral3Config(vision_config=vision, text_config=text, image_token_index=4, spatial_merge_size=merge)
    return tf.Mistral3ForConditionalGeneration(config).eval()


def pixtral_by_hand(tower: Any, pixels: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (patches, the prompts' states) after the last block, of one image, (3, height, width), by itself."""
    embedded = tower.patch_conv(pixels[None])[0]
    places = [(i, j) for i in range(embedded.shape[1]) for j in range(embedded.shape[2])]
    theta = 10000.0 ** (-torch.arange(0, 8, 2) / 8)
    # Every second frequency turns by the row, the others by the column.
    angles = torch.stack([torch.cat([row * theta[::2], column * theta[1::2]]) for row, column in places])
    angle = torch.cat([angles, torch.zeros(ROWS, angles.shape[1])])
    rows = tower.ln_pre(embedded.flatten(1).T)
    states = torch.zeros(0)
    for block, own in zip(tower.transformer.layers, prompts, strict=True):
        rows = torch.cat([rows, own])
        normed, attention = block.attention_norm(rows), block.attention
        query, key, value = (
            part(normed).unflatten(1, (HEADS, -1)).transpose(0, 1)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        rows = rows + attention.o_proj(attended(turned(query, angle), turned(key, angle), value))
        rows = rows + block.feed_forward(block.ffn_norm(rows))
        rows, states = rows[:-ROWS], rows[-ROWS:]
    return rows, states


@pytest.mark.parametrize("merge", [1, 2])
@pytest.mark.parametrize("interaction", ["none", "output"])
@torch.no_grad()
def test_every_image_in_pixtrals_row_sees_its_own_copy_of_the_prompts(merge: int, interaction: str) -> None:
    model, plain = pixtral(merge), pixtral(merge)
    bank = prompted(model, interaction)
    images = [torch.randn(3, high * PATCH, wide * PATCH) for high, wide in GRIDS]
    sizes = [tuple(one.shape[1:]) for one in images]
    filled = torch.zeros(2, 3, 24, 40)
    for place, one in zip(filled, images, strict=True):
        place[:, : one.shape[1], : one.shape[2]] = one
    out = model.model.vision_tower(filled, image_sizes=sizes, output_hidden_states=True, return_dict=True)
    wanted = [pixtral_by_hand(plain.model.vision_tower, one, bank.mmpt_visual) for one in images]
    patches = torch.cat([one for one, _ in wanted])[None]
    for found in (out.last_hidden_state, out.hidden_states[-1]):
        torch.testing.assert_close(found, patches, atol=1e-5, rtol=1e-4)
    if interaction == "none":
        assert STATES not in out
        return
    area = merge**2
    full = torch.stack([one[[0, 1, 2, 0]] if area == 4 else one for _, one in wanted])
    torch.testing.assert_close(out[STATES], full, atol=1e-5, rtol=1e-4)
    tokens = through_connector(bank, model.model, out[STATES])
    projector = plain.model.multi_modal_projector
    for found, states in zip(tokens, full, strict=True):
        read = states
        if merge == 2:
            # A square's four states, channel by channel, are one row of the merging map.
            read = projector.patch_merger.merging_layer(projector.norm(states).T.flatten())[None]
        made = projector.linear_2(projector.act(projector.linear_1(read)))
        torch.testing.assert_close(found, made, atol=1e-5, rtol=1e-4)
