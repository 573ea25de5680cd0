"""Random tiny models of further families, as families.py makes them; each of them is found by its structure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import pre_tokenizers

from mmpt_bench.engine.models.loading import pictures_only
from support import families
from support.families import ID, IMAGE, ROPE, TEMPLATE, TEXT, VISION, WORDS, save, tokenizer

QWEN_MARKS = {
    "image_token_id": ID,
    "video_token_id": WORDS.index("<video>"),
    "vision_start_token_id": WORDS.index("<begin>"),
    "vision_end_token_id": WORDS.index("<end>"),
}
QWEN_WORDS = {
    "image_token": IMAGE,
    "video_token": "<video>",
    "vision_start_token": "<begin>",
    "vision_end_token": "<end>",
}
QWEN_VISION = {
    "depth": 4,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
}


def _qwen3(folder: Path, name: str, text: dict[str, Any], vision: dict[str, Any], words: Any = None) -> Path:
    config = getattr(tf, f"{name}Config")(
        vision_config=QWEN_VISION | vision, text_config=TEXT | text, **QWEN_MARKS, tie_word_embeddings=False
    )
    if words is not None:
        for field, word in QWEN_WORDS.items():
            setattr(config, f"{field}_id", words.convert_tokens_to_ids(word))
    images = tf.Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 128, "longest_edge": 1024}
    )
    made = pictures_only("Qwen3VLProcessor")(images, words or tokenizer(**QWEN_WORDS))
    made.chat_template = TEMPLATE.replace("IMAGE", f"<begin>{IMAGE}<end>")
    torch.manual_seed(0)
    return save(folder, getattr(tf, f"{name}ForConditionalGeneration")(config), made)


MROPE = {"rope_parameters": {**ROPE, "mrope_section": [2, 1, 1], "mrope_interleaved": True}}


def qwen3_vl(folder: Path) -> Path:
    """Writes a Qwen3-VL: what the tower sees in between is added after the decoder's first layers (DeepStack)."""
    return _qwen3(folder, "Qwen3VL", {**MROPE, "head_dim": 8}, {"deepstack_visual_indexes": [1, 2]})


def qwen3_vl_moe(folder: Path) -> Path:
    """Writes a Qwen3-VL with a mixture of experts."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    return _qwen3(folder, "Qwen3VLMoe", MROPE | experts, {"deepstack_visual_indexes": [1, 2]})


def qwen3_5(folder: Path) -> Path:
    """Writes a Qwen3.5: layers of linear attention between those of full attention."""
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8}
    kinds = {"layer_types": ["linear_attention", "linear_attention", "full_attention"], "head_dim": 16}
    rope = {"rope_parameters": MROPE["rope_parameters"] | {"partial_rotary_factor": 0.5}}
    return _qwen3(
        folder,
        "Qwen3_5",
        {"vocab_size": 320} | rope | linear | kinds | {"linear_value_head_dim": 8},
        {},
        _bytes_of_qwen3_5(),
    )


def _bytes_of_qwen3_5() -> Any:
    """Returns Qwen3.5's own tokenizer, which transformers asks for whatever a folder says, of bytes as words."""
    marks = ["<pad>", "<s>", "</s>", IMAGE, "<begin>", "<end>", "<video>"]
    vocab = {word: i for i, word in enumerate([*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<pad>"}
    return tf.Qwen3_5Tokenizer(
        vocab, [], **special, additional_special_tokens=marks[3:], extra_special_tokens=QWEN_WORDS
    )


def llava_onevision(folder: Path) -> Path:
    """Writes a LLaVA-OneVision: tiles by the image's shape, SigLIP, Qwen2."""
    grid = [[16, 32], [32, 16], [32, 32]]
    config = tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(**VISION, image_size=16, vision_use_head=False),
        text_config=tf.Qwen2Config(**TEXT),
        image_grid_pinpoints=grid,
        image_token_index=ID,
        image_token_id=ID,
        video_token_id=WORDS.index("<video>"),
        video_token_index=WORDS.index("<video>"),
        tie_word_embeddings=False,
    )
    images = tf.LlavaOnevisionImageProcessor(size={"height": 16, "width": 16}, image_grid_pinpoints=grid)
    made = pictures_only("LlavaOnevisionProcessor")(
        images,
        tokenizer(image_token=IMAGE, video_token="<video>"),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
    )
    made.chat_template = TEMPLATE.replace("IMAGE", f"{IMAGE} ")
    return save(folder, tf.LlavaOnevisionForConditionalGeneration(config), made)


WIDE = {**TEXT, "vocab_size": 128}
"""Room for a family's own marks."""
SIGLIP = {**VISION, "image_size": 16, "vision_use_head": False}


def glm4v(folder: Path) -> Path:
    """Writes a GLM-4V: packed patches, joined by a convolution."""
    vision = {"depth": 4, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4, "image_size": 16}
    config = tf.Glm4vConfig(
        vision_config=vision | {"out_hidden_size": 32, "spatial_merge_size": 2, "temporal_patch_size": 2},
        text_config={**TEXT, "rope_parameters": {**ROPE, "mrope_section": [2, 1, 1], "partial_rotary_factor": 1.0}},
        image_token_id=ID,
        video_token_id=WORDS.index("<video>"),
        image_start_token_id=WORDS.index("<begin>"),
        image_end_token_id=WORDS.index("<end>"),
        tie_word_embeddings=False,
    )
    images = tf.Glm4vImageProcessor(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 128, "longest_edge": 2048}
    )
    made = pictures_only("Glm4vProcessor")(images, tokenizer(image_token=IMAGE, video_token="<video>"))
    made.chat_template = TEMPLATE.replace("IMAGE", f"<begin>{IMAGE}<end>")
    return save(folder, tf.Glm4vForConditionalGeneration(config), made)


def aya_vision(folder: Path) -> Path:
    """Writes an Aya Vision: tiles, and patches joined four by four within the projector."""
    marks = [
        "<|START_OF_IMG|>",
        "<|END_OF_IMG|>",
        "<|IMG_PATCH|>",
        "TILE_GLOBAL",
        "TILE_1",
        "TILE_2",
        "TILE_3",
        "TILE_4",
        "TILE",
    ]
    words = tokenizer(*marks)
    words.add_tokens(marks, special_tokens=True)
    config = tf.AyaVisionConfig(
        vision_config=tf.SiglipVisionConfig(**SIGLIP),
        text_config=tf.Cohere2Config(**{**WIDE, "sliding_window": 256, "tie_word_embeddings": True}, head_dim=8),
        image_token_index=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
    )
    images = tf.GotOcr2ImageProcessor(
        size={"height": 16, "width": 16}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = tf.AyaVisionProcessor(
        images, words, patch_size=4, img_size=16, image_token=IMAGE, downsample_factor=2,
        chat_template=TEMPLATE.replace("IMAGE", f"{IMAGE} "),
    )  # fmt: skip
    return save(folder, tf.AyaVisionForConditionalGeneration(config), processor)


def idefics2(folder: Path) -> Path:
    """Writes an Idefics2: learnt queries read the image."""
    perceiver = {"resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8}
    config = tf.Idefics2Config(
        vision_config={**VISION, "image_size": 32},
        perceiver_config=perceiver | {"hidden_size": 32, "num_key_value_heads": 1},
        text_config=tf.MistralConfig(**TEXT, sliding_window=None),
        image_token_id=ID,
    )
    images = tf.Idefics2ImageProcessor(do_image_splitting=False, size={"longest_edge": 32, "shortest_edge": 16})
    processor = tf.Idefics2Processor(
        images, tokenizer(), image_seq_len=4, chat_template=TEMPLATE.replace("IMAGE", IMAGE)
    )
    return save(folder, tf.Idefics2ForConditionalGeneration(config), processor)


def deepseek_vl(folder: Path) -> Path:
    """Writes a DeepSeek-VL: a token a patch, all images of one size."""
    config = tf.DeepseekVLConfig(
        vision_config=tf.SiglipVisionConfig(**SIGLIP),
        text_config=tf.LlamaConfig(**TEXT),
        image_token_id=ID,
        tie_word_embeddings=False,
    )
    images = tf.DeepseekVLImageProcessor(size={"height": 16, "width": 16}, min_size=4)
    processor = tf.DeepseekVLProcessor(
        images, tokenizer(image_token=IMAGE), num_image_tokens=16, chat_template=TEMPLATE.replace("IMAGE", f"{IMAGE} ")
    )
    return save(folder, tf.DeepseekVLForConditionalGeneration(config), processor)


def granite_vision(folder: Path) -> Path:
    """Writes a Granite Vision: LLaVA-NeXT whose projector reads several hidden states of a SigLIP tower."""
    grid = [[16, 32], [32, 16], [32, 32]]
    config = tf.LlavaNextConfig(
        vision_config=tf.SiglipVisionConfig(**SIGLIP),
        text_config=tf.GraniteConfig(**TEXT),
        image_grid_pinpoints=grid,
        image_token_index=ID,
        vision_feature_layer=[-4, -3, -1],
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    processor = tf.LlavaNextProcessor(
        tf.LlavaNextImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=grid
        ),
        tokenizer(image_token=IMAGE),
        patch_size=4,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=TEMPLATE.replace("IMAGE", f"{IMAGE} "),
    )
    return save(folder, tf.LlavaNextForConditionalGeneration(config), processor)


def vipllava(folder: Path) -> Path:
    """Writes a VipLLaVA: LLaVA whose projector reads several hidden states."""
    config = tf.VipLlavaConfig(
        vision_config=tf.CLIPVisionConfig(**VISION, image_size=16),
        text_config=tf.LlamaConfig(**TEXT),
        image_token_index=ID,
        vision_feature_layers=[-2, -3, 1],
        tie_word_embeddings=False,
    )
    processor = tf.LlavaProcessor(
        tf.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer(image_token=IMAGE),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", f"{IMAGE} "),
    )
    return save(folder, tf.VipLlavaForConditionalGeneration(config), processor)


def ovis2(folder: Path) -> Path:
    """Writes an Ovis2: patches become a mixture of learnt visual words."""
    marks = ["<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
    words = tokenizer(*marks)
    words.add_tokens(marks, special_tokens=True)
    ids = words.convert_tokens_to_ids(marks)
    config = tf.Ovis2Config(
        vision_config={**VISION, "image_size": 16, "vocab_size": 24, "num_visual_indicator_tokens": 5},
        text_config=tf.Qwen2Config(**WIDE, tie_word_embeddings=False),
        image_token_id=ids[0],
        visual_indicator_token_ids=ids[1:],
        vocab_size=128,
        hidden_size=32,
        tie_word_embeddings=False,
    )
    images = tf.Ovis2ImageProcessor(
        size={"height": 16, "width": 16}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = tf.Ovis2Processor(
        images, words, image_seq_length=16, chat_template=TEMPLATE.replace("IMAGE", f"{IMAGE} ")
    )
    return save(folder, tf.Ovis2ForConditionalGeneration(config), processor)


def gemma4(folder: Path) -> Path:
    """Writes a Gemma 4: patches in their own shape, pooled, and embeddings for every layer."""
    marks = {"image_token": IMAGE, "boi_token": "<begin>", "eoi_token": "<end>", "audio_token": "<|audio|>"}
    marks |= {"boa_token": "<|boa|>", "eoa_token": "<|eoa|>"}
    text = {
        **WIDE,
        "head_dim": 8,
        "sliding_window": 256,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 128,
    }
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    config = tf.Gemma4Config(
        vision_config={
            **VISION,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "pooling_kernel_size": 2,
            "position_embedding_size": 128,
        },
        text_config=tf.Gemma4TextConfig(**text, layer_types=kinds, global_head_dim=8),
        audio_config=None,
        image_token_id=ID,
        boi_token_id=WORDS.index("<begin>"),
        eoi_token_id=WORDS.index("<end>"),
        tie_word_embeddings=False,
    )
    images = tf.Gemma4ImageProcessor(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70)
    processor = pictures_only("Gemma4Processor")(
        tf.Gemma4AudioFeatureExtractor(),
        images,
        tokenizer("<|video|>", "<|audio|>", "<|boa|>", "<|eoa|>", **marks),
        None,
        image_seq_length=70,
    )
    processor.chat_template = TEMPLATE.replace("IMAGE", f"{IMAGE} ")
    return save(folder, tf.Gemma4ForConditionalGeneration(config), processor)


NEWER: dict[str, Callable[[Path], Path]] = {
    "Qwen3-VL": qwen3_vl,
    "Qwen3-VL-MoE": qwen3_vl_moe,
    "LLaVA-OneVision": llava_onevision,
    "Qwen3.5": qwen3_5,
    "Gemma 4": gemma4,
    "GLM-4V": glm4v,
    "Aya Vision": aya_vision,
    "Idefics2": idefics2,
    "DeepSeek-VL": deepseek_vl,
    "Granite Vision": granite_vision,
    "VipLLaVA": vipllava,
    "Ovis2": ovis2,
}
BUILDERS = {**families.BUILDERS, **NEWER}
