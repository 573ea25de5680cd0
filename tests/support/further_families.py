"""Random tiny models of further families, as newer_families.py makes them; most processors need torchvision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers as tf

from mmpt_bench.engine.models.loading import pictures_only
from support import newer_families
from support.families import ID, IMAGE, TEMPLATE, TEXT, VISION, WORDS, qwen_text, save, tokenizer
from support.newer_families import SIGLIP, WIDE


def mistral3(folder: Path) -> Path:
    """Writes a Mistral 3: Pixtral's tower, whose images lie one after another, and squares of patches merged."""
    config = tf.Mistral3Config(
        vision_config=tf.PixtralVisionConfig(**VISION, image_size=32, head_dim=8),
        text_config=tf.MistralConfig(**WIDE, head_dim=8, sliding_window=None),
        image_token_index=ID,
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    return save(folder, tf.Mistral3ForConditionalGeneration(config), _pixtral(2))


def pixtral(folder: Path) -> Path:
    """Writes a Pixtral: a LLaVA with Pixtral's tower, a token a patch."""
    config = tf.LlavaConfig(
        vision_config=tf.PixtralVisionConfig(**VISION, image_size=32, head_dim=8),
        text_config=tf.MistralConfig(**WIDE, head_dim=8, sliding_window=None),
        image_token_index=ID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    return save(folder, tf.LlavaForConditionalGeneration(config), _pixtral(1))


def _pixtral(merge: int) -> Any:
    marks = {"image_token": IMAGE, "image_break_token": "<begin>", "image_end_token": "<end>"}
    return tf.PixtralProcessor(
        tf.PixtralImageProcessor(patch_size=4, size={"longest_edge": 32}),
        tokenizer(**marks),
        patch_size=4,
        spatial_merge_size=merge,
        chat_template=TEMPLATE.replace("IMAGE", f"{IMAGE} "),
        **marks,
    )


def llama4(folder: Path) -> Path:
    """Writes a Llama 4: tiles, patches joined four by four in the tower, experts, and layers that attend in chunks."""
    words = _llama4_words()
    processor = tf.Llama4Processor(
        tf.Llama4ImageProcessor(size={"height": 16, "width": 16}, max_patches=4),
        words,
        patch_size=4,
        chat_template=TEMPLATE.replace("IMAGE", "<|image|> "),
    )
    return save(folder, llama4_model(), processor)


def _llama4_words() -> Any:
    marks = ["<|image|>", "<|image_start|>", "<|image_end|>", "<|patch|>"]
    marks += ["<|tile_x_separator|>", "<|tile_y_separator|>"]
    words = tokenizer(*marks)
    words.add_tokens(marks, special_tokens=True)
    return words


def llama4_model() -> Any:
    """Returns a tiny Llama 4, of 4 x 4 patches a tile."""
    words = _llama4_words()
    vision = {**VISION, "image_size": 16, "vision_output_dim": 24, "projector_input_dim": 24}
    config = tf.Llama4Config(
        # Its connector reads what the blocks' widening says: 2 x 2 patches of 16.
        vision_config=vision | {"projector_output_dim": 24, "intermediate_size": 64},
        text_config={
            **WIDE,
            "head_dim": 8,
            "num_hidden_layers": 4,
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "attention_chunk_size": 512,
            "interleave_moe_layer_step": 2,
        },
        image_token_index=words.convert_tokens_to_ids("<|patch|>"),
        boi_token_index=words.convert_tokens_to_ids("<|image_start|>"),
        eoi_token_index=words.convert_tokens_to_ids("<|image_end|>"),
    )
    return tf.Llama4ForConditionalGeneration(config)


def lfm2_vl(folder: Path) -> Path:
    """Writes an LFM2-VL: images of any shape padded to one another, squares of patches joined, short convolutions."""
    marks = ["<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"]
    marks += [f"<|img_row_{row}_col_{column}|>" for row in (1, 2) for column in (1, 2)]
    words = tokenizer(*marks, image_token=IMAGE)
    words.add_tokens(marks, special_tokens=True)
    config = tf.Lfm2VlConfig(
        vision_config=tf.Siglip2VisionConfig(**VISION, num_patches=64, vision_use_head=False),
        text_config=tf.Lfm2Config(
            **WIDE, layer_types=["conv", "full_attention", "conv"], block_auto_adjust_ff_dim=False
        ),
        image_token_id=ID,
        projector_hidden_size=24,
        downsample_factor=2,
        tie_word_embeddings=False,
    )
    images = tf.Lfm2VlImageProcessor(
        encoder_patch_size=4, tile_size=16, min_image_tokens=2, max_image_tokens=16, max_num_patches=64,
        min_tiles=2, max_tiles=4, do_image_splitting=False,
    )  # fmt: skip
    processor = tf.Lfm2VlProcessor(images, words, chat_template=TEMPLATE.replace("IMAGE", f"{IMAGE} "))
    return save(folder, tf.Lfm2VlForConditionalGeneration(config), processor)


def cohere2_vision(folder: Path) -> Path:
    """Writes a Cohere2 Vision: tiles, and patches joined four by four within the projector."""
    config = tf.Cohere2VisionConfig(
        vision_config=tf.SiglipVisionConfig(**SIGLIP),
        text_config=tf.Cohere2Config(**{**WIDE, "sliding_window": 256, "tie_word_embeddings": True}, head_dim=8),
        image_token_id=ID,
        downsample_factor=2,
        alignment_intermediate_size=48,
    )
    marks = {"image_token": IMAGE, "boi_token": "<begin>", "eoi_token": "<end>", "img_line_break_token": "<video>"}
    # Its processor writes patch_size^2 tokens a tile: 16 in the released models, whose tiles have 32 x 32 patches.
    images = tf.Cohere2VisionImageProcessor(size={"height": 16, "width": 16}, patch_size=2, max_patches=4)
    processor = tf.Cohere2VisionProcessor(
        images, tokenizer(**marks), chat_template=TEMPLATE.replace("IMAGE", f"{IMAGE} ")
    )
    return save(folder, tf.Cohere2VisionForConditionalGeneration(config), processor)


def kimi_k25(folder: Path) -> Path:
    """Writes a Kimi K2.5 VL: packed patches joined four by four, and DeepSeek V3's latent attention."""
    text = {key: value for key, value in WIDE.items() if key != "num_key_value_heads"}
    config = tf.Kimi_K25Config(
        vision_config={**VISION, "pos_emb_height": 8, "pos_emb_width": 8},
        text_config=tf.DeepseekV3Config(
            **text, num_key_value_heads=4, kv_lora_rank=8, q_lora_rank=12, qk_rope_head_dim=4, qk_nope_head_dim=8,
            v_head_dim=8, n_routed_experts=4, num_experts_per_tok=2, n_group=2, topk_group=1, first_k_dense_replace=1,
            moe_intermediate_size=16, n_shared_experts=1, num_mtp_layers=0,
        ),
        projection_hidden_size=16,
        image_token_id=ID,
        video_token_id=WORDS.index("<video>"),
        vision_start_token_id=WORDS.index("<begin>"),
        vision_end_token_id=WORDS.index("<end>"),
        tie_word_embeddings=False,
    )  # fmt: skip
    images = tf.Kimi_K25ImageProcessor(patch_size=4, merge_size=2, max_patches=64)
    made = pictures_only("Kimi_K25Processor")(images, tokenizer(image_token=IMAGE, video_token="<video>"))
    made.chat_template = TEMPLATE.replace("IMAGE", f"<begin>{IMAGE}<end>")
    return save(folder, tf.Kimi_K25ForConditionalGeneration(config), made)


def janus(folder: Path) -> Path:
    """Writes a Janus: a token a patch, and beside it what draws images."""
    config = tf.JanusConfig(
        vision_config={**VISION, "image_size": 16, "projection_dim": 32, "num_image_tokens": 16, "mlp_ratio": 2.0},
        text_config=tf.LlamaConfig(**TEXT),
        vq_config={
            "base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "num_embeddings": 8,
            "latent_channels": 8, "projection_dim": 32, "image_token_embed_dim": 32,
        },
        image_token_id=ID,
        tie_word_embeddings=False,
    )  # fmt: skip
    words = tokenizer(image_token=IMAGE, boi_token="<begin>", eoi_token="<end>")
    images = tf.JanusImageProcessorPil(size={"height": 16, "width": 16}, min_size=4)
    processor = tf.JanusProcessor(
        images, words, num_image_tokens=16, chat_template=TEMPLATE.replace("IMAGE", f"{IMAGE} ")
    )
    return save(folder, tf.JanusForConditionalGeneration(config), processor)


def qwen2_5_omni(folder: Path) -> Path:
    """Writes the thinker of a Qwen2.5-Omni: Qwen2.5-VL with ears."""
    vision = {"depth": 4, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4}
    vision |= {"out_hidden_size": 32, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16}
    config = tf.Qwen2_5OmniThinkerConfig(
        audio_config={"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16,
                      "output_dim": 32, "num_mel_bins": 8, "n_window": 4},
        vision_config=vision | {"fullatt_block_indexes": [1, 3]},
        text_config=qwen_text([2, 1, 1]),
        image_token_index=ID,
        video_token_index=WORDS.index("<video>"),
        audio_token_index=WORDS.index("<global-img>"),
        # As the released configuration has it.
        vision_start_token_id=WORDS.index("<begin>"),
    )  # fmt: skip
    marks = {"image_token": IMAGE, "video_token": "<video>", "audio_token": "<global-img>",
             "vision_bos_token": "<begin>", "vision_eos_token": "<end>", "audio_bos_token": "<begin>",
             "audio_eos_token": "<end>"}  # fmt: skip
    images = tf.Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 128, "longest_edge": 1024}
    )
    made = pictures_only("Qwen2_5OmniProcessor")(
        images, None, tf.WhisperFeatureExtractor(feature_size=8), tokenizer(**marks)
    )
    made.chat_template = TEMPLATE.replace("IMAGE", f"<begin>{IMAGE}<end>")
    return save(folder, tf.Qwen2_5OmniThinkerForConditionalGeneration(config), made)


FURTHER: dict[str, Callable[[Path], Path]] = {"Janus": janus, "Qwen2.5-Omni": qwen2_5_omni}
BUILDERS = {**newer_families.BUILDERS, **FURTHER}
"""Families whose processors need nothing that the tests do not have."""
NEEDS_TORCHVISION: dict[str, Callable[[Path], Path]] = {
    "Mistral 3": mistral3,
    "Pixtral": pixtral,
    "Llama 4": llama4,
    "LFM2-VL": lfm2_vl,
    "Cohere2 Vision": cohere2_vision,
    "Kimi K2.5": kimi_k25,
}
"""Families whose processors need torchvision, which the package does not."""
