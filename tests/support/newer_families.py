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
    """Writes a Qwen3-VL: what the tower sees in between is added behind the decoder's first layers (DeepStack)."""
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
    return _qwen3(folder, "Qwen3_5", {"vocab_size": 320} | rope | linear | kinds | {"linear_value_head_dim": 8}, {}, _bytes_of_qwen3_5())


def _bytes_of_qwen3_5() -> Any:
    """Returns Qwen3.5's own tokenizer, which transformers asks for whatever a folder says, of bytes as words."""
    marks = ["<pad>", "<s>", "</s>", IMAGE, "<begin>", "<end>", "<video>"]
    vocab = {word: i for i, word in enumerate([*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<pad>"}
    return tf.Qwen3_5Tokenizer(vocab, [], **special, additional_special_tokens=marks[3:], extra_special_tokens=QWEN_WORDS)


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


NEWER: dict[str, Callable[[Path], Path]] = {
    "Qwen3-VL": qwen3_vl,
    "Qwen3-VL-MoE": qwen3_vl_moe,
    "LLaVA-OneVision": llava_onevision,
    "Qwen3.5": qwen3_5,
}
BUILDERS = {**families.BUILDERS, **NEWER}
"""Every family that is tested."""
