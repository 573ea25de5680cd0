"""A random LLaVA small enough for tests, saved to a folder in Hugging Face form, without any download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from mmpt_bench.engine.models.backbone import Backbone, load_backbone

TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SPOKEN = "USER : ASSISTANT is there a red blue circle square how many what colour yes no one two three ? ."
SIDE, PATCH = 16, 4


def tokenizer() -> PreTrainedTokenizerFast:
    """Returns a word-level tokenizer that begins a text with <s>."""
    from tokenizers.processors import TemplateProcessing

    words = ["<pad>", "<s>", "</s>", "<unk>", "<image>", *SPOKEN.split()]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, additional_special_tokens=["<image>"], **special)


def config(feature_layer: int = -2, siglip: bool = False, words: int = 64, wider: int = 1) -> LlavaConfig:
    """Returns the configuration: 4 vision blocks of width 16, 3 decoder layers of width 32 with grouped queries.

    Args:
        wider: times as wide.
    """
    size: dict[str, Any] = {
        "hidden_size": 16 * wider,
        "intermediate_size": 32 * wider,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
    }
    size |= {"image_size": SIDE, "patch_size": PATCH}
    text = LlamaConfig(
        hidden_size=32 * wider,
        intermediate_size=48 * wider,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=words,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    return LlavaConfig(
        vision_config=SiglipVisionConfig(**size) if siglip else CLIPVisionConfig(**size),
        text_config=text,
        image_token_index=4,
        image_token_id=4,
        vision_feature_layer=feature_layer,
        vision_feature_select_strategy="full" if siglip else "default",
        tie_word_embeddings=False,
    )


def save_tiny(folder: Path, feature_layer: int = -2, siglip: bool = False, seed: int = 0, wider: int = 1) -> Path:
    """Writes model, tokenizer, processor and chat template; weights are large enough for answers to differ."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config(feature_layer, siglip, wider=wider))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    if siglip:
        images: Any = SiglipImageProcessor(size=size)
    else:
        images = CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
    LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="full" if siglip else "default",
        num_additional_image_tokens=0 if siglip else 1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def tiny_backbone(folder: Path, feature_layer: int = -2, siglip: bool = False) -> Backbone:
    """Returns a loaded tiny backbone on the CPU in float32."""
    return load_backbone(str(save_tiny(folder, feature_layer, siglip)), device="cpu", offline=True)


def pictures(count: int) -> list[Image.Image]:
    """Returns `count` images of noise, each its own."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.randint(0, 256, (count, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(one.numpy()) for one in noise]


QUESTIONS = ["is there a red circle ?", "how many ?", "what colour is there ?"]
ANSWERS = ["yes", "two", "blue ."]
