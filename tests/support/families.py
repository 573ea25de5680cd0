"""A random tiny model of every supported family, saved to a folder in Hugging Face form, without any download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import nn

from mmpt_bench.engine.models.loading import pictures_only
from support.tiny import SPOKEN, save_tiny

IMAGE = "<image>"
TILES = [f"<row_{row}_col_{column}>" for row in (1, 2, 3, 4) for column in (1, 2, 3, 4)]
MARKS = [
    IMAGE,
    "<fake_token_around_image>",
    "<end_of_utterance>",
    "<global-img>",
    "<begin>",
    "<end>",
    "<video>",
    *TILES,
]
WORDS = ["<pad>", "<s>", "</s>", "<unk>", *MARKS, *SPOKEN.split()]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }} : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT :{% endif %}"
)
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "patch_size": 4,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
ID = WORDS.index(IMAGE)


def tokenizer(*own: str, **named: str) -> Any:
    """Returns a word-level tokenizer that knows every family's marks, and further ones; some are attributes of it."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*WORDS, *own])}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=inner, additional_special_tokens=[*MARKS, *own], extra_special_tokens=named, **special
    )


def llava(folder: Path) -> Path:
    """Writes the LLaVA of the other tests."""
    return save_tiny(folder)


def llava_linear(folder: Path) -> Path:
    """Writes a LLaVA of the first version: one linear map from image to text."""
    import json

    from safetensors.torch import load_file, save_file

    save_tiny(folder)
    config = json.loads((folder / "config.json").read_text()) | {"mm_projector_type": "linear"}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    names = {name for name in tensors if "multi_modal_projector" in name}
    prefix = min(names).split("linear_1")[0]
    kept = {name: value for name, value in tensors.items() if name not in names}
    generator = torch.Generator().manual_seed(3)
    kept |= {f"{prefix}weight": torch.randn(32, 16, generator=generator), f"{prefix}bias": torch.zeros(32)}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


def llava_next(folder: Path) -> Path:
    """Writes a LLaVA-NeXT: tiles by the image's shape."""
    grid = [[16, 32], [32, 16], [32, 32]]
    config = tf.LlavaNextConfig(
        vision_config=tf.CLIPVisionConfig(**VISION, image_size=16),
        text_config=tf.LlamaConfig(**TEXT),
        image_grid_pinpoints=grid,
        image_token_index=ID,
        image_token_id=ID,
        tie_word_embeddings=False,
    )
    images = tf.LlavaNextImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=grid
    )
    processor = tf.LlavaNextProcessor(
        images,
        tokenizer(image_token=IMAGE),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", f"{IMAGE} "),
    )
    return save(folder, tf.LlavaNextForConditionalGeneration(config), processor)


def _qwen(folder: Path, config: Any, model: type, processor: str) -> Path:
    images = tf.Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 128, "longest_edge": 1024}
    )
    made = pictures_only(processor)(images, tokenizer(image_token=IMAGE, video_token="<video>"))
    made.chat_template = TEMPLATE.replace("IMAGE", f"<begin>{IMAGE}<end>")
    return save(folder, model(config), made)


def qwen_text(sections: list[int]) -> dict[str, Any]:
    """Returns the text part of a Qwen whose positions have three dimensions."""
    rope = {"rope_parameters": {**ROPE, "mrope_section": sections}}
    return {**TEXT, **rope, "use_sliding_window": False, "tie_word_embeddings": False}


def qwen2_vl(folder: Path) -> Path:
    """Writes a Qwen2-VL: packed patches, positions in three dimensions."""
    vision = {"depth": 4, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    config = tf.Qwen2VLConfig(
        vision_config=vision | {"spatial_merge_size": 2, "temporal_patch_size": 2},
        text_config=qwen_text([2, 1, 1]),
        image_token_id=ID,
        video_token_id=WORDS.index("<video>"),
        vision_start_token_id=WORDS.index("<begin>"),
        vision_end_token_id=WORDS.index("<end>"),
    )
    return _qwen(folder, config, tf.Qwen2VLForConditionalGeneration, "Qwen2VLProcessor")


def qwen2_5_vl(folder: Path) -> Path:
    """Writes a Qwen2.5-VL: the same with windows in the tower."""
    vision = {"depth": 4, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4}
    config = tf.Qwen2_5_VLConfig(
        vision_config=vision
        | {"out_hidden_size": 32, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16}
        | {"fullatt_block_indexes": [1, 3]},
        text_config=qwen_text([2, 1, 1]),
        image_token_id=ID,
        video_token_id=WORDS.index("<video>"),
        vision_start_token_id=WORDS.index("<begin>"),
        vision_end_token_id=WORDS.index("<end>"),
    )
    return _qwen(folder, config, tf.Qwen2_5_VLForConditionalGeneration, "Qwen2_5_VLProcessor")


def _paligemma(folder: Path, text: Any) -> Path:
    config = tf.PaliGemmaConfig(
        vision_config=tf.SiglipVisionConfig(**VISION, image_size=16, vision_use_head=False),
        text_config=text,
        image_token_id=ID,
        image_token_index=ID,
        projection_dim=32,
        hidden_size=32,
    )
    images = tf.SiglipImageProcessor(size={"height": 16, "width": 16})
    images.image_seq_length = 16
    processor = tf.PaliGemmaProcessor(images, tokenizer(image_token=IMAGE))
    return save(folder, tf.PaliGemmaForConditionalGeneration(config), processor)


def paligemma(folder: Path) -> Path:
    """Writes a PaliGemma: every row of the prompt sees the whole prompt."""
    return _paligemma(folder, tf.GemmaConfig(**TEXT, head_dim=8))


def paligemma2(folder: Path) -> Path:
    """Writes a PaliGemma 2: the same with windows in the decoder."""
    return _paligemma(folder, tf.Gemma2Config(**TEXT, head_dim=8, sliding_window=256))


def _idefics(folder: Path, name: str) -> Path:
    config = getattr(tf, f"{name}Config")(
        vision_config={**VISION, "image_size": 16},
        text_config=tf.LlamaConfig(**TEXT),
        image_token_id=ID,
        scale_factor=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    images = getattr(tf, f"{name}ImageProcessor")(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    template = TEMPLATE.replace("IMAGE", IMAGE)
    if name == "SmolVLM":
        words = tokenizer(image_token=IMAGE, fake_image_token=MARKS[1], global_image_token="<global-img>")
        processor = pictures_only("SmolVLMProcessor")(images, words, None, image_seq_len=4)
        processor.chat_template = template
    else:
        processor = tf.Idefics3Processor(images, tokenizer(), image_seq_len=4, chat_template=template)
    return save(folder, getattr(tf, f"{name}ForConditionalGeneration")(config), processor)


def idefics3(folder: Path) -> Path:
    """Writes an Idefics3: tiles of a large image and the whole of it."""
    return _idefics(folder, "Idefics3")


def smolvlm(folder: Path) -> Path:
    """Writes a SmolVLM."""
    return _idefics(folder, "SmolVLM")


def internvl(folder: Path) -> Path:
    """Writes an InternVL: tiles, and patches joined four by four."""
    vision = {**VISION, "image_size": [16, 16], "patch_size": [4, 4], "norm_type": "layer_norm"}
    config = tf.InternVLConfig(
        vision_config=tf.InternVLVisionConfig(**vision),
        text_config=tf.Qwen2Config(**TEXT, tie_word_embeddings=False),
        image_token_id=ID,
        downsample_ratio=0.5,
    )
    images = tf.GotOcr2ImageProcessor(
        size={"height": 16, "width": 16}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    marks = {"start_image_token": "<begin>", "end_image_token": "<end>", "context_image_token": IMAGE}
    processor = pictures_only("InternVLProcessor")(
        images, tokenizer(**marks, video_token="<video>"), None, image_seq_length=4
    )
    processor.chat_template = TEMPLATE.replace("IMAGE", f"{IMAGE} ")
    return save(folder, tf.InternVLForConditionalGeneration(config), processor)


def gemma3(folder: Path) -> Path:
    """Writes a Gemma 3: windows in the decoder, patches averaged four by four."""
    text = {**TEXT, "head_dim": 8, "sliding_window": 256, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]}
    config = tf.Gemma3Config(
        vision_config=tf.SiglipVisionConfig(**VISION, image_size=16, vision_use_head=False),
        text_config=tf.Gemma3TextConfig(**text),
        image_token_index=ID,
        image_token_id=ID,
        mm_tokens_per_image=4,
        boi_token_index=WORDS.index("<begin>"),
        eoi_token_index=WORDS.index("<end>"),
    )
    processor = tf.Gemma3Processor(
        tf.Gemma3ImageProcessor(size={"height": 16, "width": 16}),
        tokenizer(image_token=IMAGE, boi_token="<begin>", eoi_token="<end>"),
        image_seq_length=4,
        chat_template=TEMPLATE.replace("IMAGE", "<begin> "),
    )
    return save(folder, tf.Gemma3ForConditionalGeneration(config), processor)


def save(folder: Path, model: Any, processor: Any) -> Path:
    """Writes a model with weights large enough for answers to differ."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "embed" not in name:
            nn.init.normal_(parameter, std=0.25, generator=generator)
        elif parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.5, generator=generator)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "LLaVA-1.5": llava,
    "LLaVA-1.3 (linear projector)": llava_linear,
    "LLaVA-NeXT": llava_next,
    "Qwen2-VL": qwen2_vl,
    "Qwen2.5-VL": qwen2_5_vl,
    "PaliGemma": paligemma,
    "PaliGemma 2": paligemma2,
    "Idefics3": idefics3,
    "SmolVLM": smolvlm,
    "InternVL": internvl,
    "Gemma 3": gemma3,
}
