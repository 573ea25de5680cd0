"""Models of seven families, some 45 million parameters each, with random weights, for timing; no download.

A CLIP tower (width 320, 12 blocks, 196 patches of 224 pixels) and a Llama (width 384, 15 layers, 8,000 words): the
tower is about a third of the work of one question. So that replies are as short as those of a trained model,
two directions of its embeddings are set: after `ASSISTANT :` one of the answer words is the most likely, which one
depends on image and question, and after an answer word the end of the sequence is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from layouts import ANSWERS, WORDS
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
VOCABULARY, SIDE, PATCH = 8000, 224, 16
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
TOWER = {"hidden_size": 320, "intermediate_size": 1280, "num_hidden_layers": 12, "num_attention_heads": 5}
QWEN_TEXT = {
    "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 15, "num_attention_heads": 6,
    "num_key_value_heads": 6, "vocab_size": VOCABULARY, "max_position_embeddings": 2048, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip


def tokenizer(marks: list[str] | None = None, **named: str) -> PreTrainedTokenizerFast:
    """Returns a word-level tokenizer that begins a text with <s> and knows further marks, some as its attributes."""
    special = [*SPECIAL, *(marks or [])]
    words = [*special, "USER", "ASSISTANT", ":", "?", ".", ",", *dict.fromkeys([*ANSWERS, *WORDS])]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    # Said to the inner tokenizer: transformers takes either a list of marks or marks with names, not both.
    inner.add_special_tokens(special)
    usual = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, extra_special_tokens=named, **usual)


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaVA: (width, inner width, blocks, heads) of tower and language model, pixels of image and patch."""

    vision: tuple[int, int, int, int] = (320, 1280, 12, 5)
    text: tuple[int, int, int, int] = (384, 1024, 15, 6)
    side: int = SIDE
    patch: int = PATCH


SHAPES = {
    "midsize": Shape(),
    "7b": Shape((1024, 4096, 24, 16), (4096, 11008, 32, 32), 336, 14),
    "tiny": Shape((32, 64, 3, 2), (64, 128, 2, 2), 32, 8),
}
"""`7b`: that of LLaVA-1.5-7B, but for the vocabulary."""


def config(shape: Shape = SHAPES["midsize"]) -> LlavaConfig:
    """Returns the model's configuration."""
    width, inner, blocks, heads = shape.vision
    vision = CLIPVisionConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=blocks, num_attention_heads=heads,
        image_size=shape.side, patch_size=shape.patch,
    )  # fmt: skip
    width, inner, layers, heads = shape.text
    text = LlamaConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, vocab_size=VOCABULARY, max_position_embeddings=1024, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    return LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=4, image_token_id=4, vision_feature_layer=-2,
        vision_feature_select_strategy="default", tie_word_embeddings=False,
    )  # fmt: skip


def save_llava(folder: Path, seed: int = 0, size: str = "midsize", dtype: str = "float32") -> Path:
    """Writes model, tokenizer, processor and chat template; `size` is one of `SHAPES`."""
    torch.manual_seed(seed)
    shape = SHAPES[size]
    model, words = LlavaForConditionalGeneration(config(shape)).to(getattr(torch, dtype)), tokenizer()
    _answer_shortly(model, words)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 2
    model.save_pretrained(folder)
    crop = {"height": shape.side, "width": shape.side}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": shape.side}, crop_size=crop),
        tokenizer=words,
        patch_size=shape.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def save_smolvlm(folder: Path, seed: int = 0) -> Path:
    """Writes a SmolVLM: tiles of 256 pixels, 256 patches and 16 tokens each; five of them for an image of 640 x 480.

    A SigLIP tower (width 320, 12 blocks) and a Llama (width 384, 15 layers): as in SmolVLM-256M, most of the work is
    the tower's.
    """
    import transformers as tf

    torch.manual_seed(seed)
    marks = ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    marks += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    words = tokenizer(marks, image_token="<image>", fake_image_token=marks[0], global_image_token=marks[1])
    config = tf.SmolVLMConfig(
        vision_config={
            **TOWER, "image_size": 256, "patch_size": 16,
        },
        text_config=LlamaConfig(
            hidden_size=384, intermediate_size=1024, num_hidden_layers=15, num_attention_heads=6,
            vocab_size=VOCABULARY, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        ),
        image_token_id=words.convert_tokens_to_ids("<image>"), scale_factor=4, tie_word_embeddings=False,
    )  # fmt: skip
    model = tf.SmolVLMForConditionalGeneration(config)
    images = tf.SmolVLMImageProcessor(size={"longest_edge": 512}, max_image_size={"longest_edge": 256})
    return _saved(folder, model, words, "SmolVLMProcessor", images, "<image>", None, image_seq_len=16)


def save_qwen(folder: Path, name: str = "Qwen2VL", seed: int = 0) -> Path:
    """Writes a Qwen2-VL, Qwen2.5-VL or Qwen3-VL: images of at most 128 tokens in their own shape; replies are short.

    A tower of packed patches (width 320, 12 blocks) and a Qwen (width 384, 15 layers). In Qwen2.5-VL, three blocks of
    four see windows of 112 pixels; in Qwen3-VL three blocks' states are added in the decoder's first layers.

    Args:
        name: how the family's classes begin: "Qwen2VL", "Qwen2_5_VL", "Qwen3VL".
    """
    import transformers as tf

    torch.manual_seed(seed)
    patch = 16 if name == "Qwen3VL" else 14
    vision = {"depth": 12, "num_heads": 5, "patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2}
    vision |= {
        "Qwen2VL": {"embed_dim": 320, "hidden_size": 384, "mlp_ratio": 4},
        "Qwen2_5_VL": {"hidden_size": 320, "intermediate_size": 1280, "out_hidden_size": 384, "window_size": 112,
                       "fullatt_block_indexes": [2, 5, 8, 11]},
        "Qwen3VL": {"hidden_size": 320, "intermediate_size": 1280, "out_hidden_size": 384,
                    "num_position_embeddings": 1024, "deepstack_visual_indexes": [3, 6, 9]},
    }[name]  # fmt: skip
    marks = ["<begin>", "<end>", "<video>"]
    words = tokenizer(marks, image_token="<image>", video_token="<video>", vision_start_token="<begin>",
                      vision_end_token="<end>")  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]}
    begin, end, video = words.convert_tokens_to_ids(marks)
    config = getattr(tf, f"{name}Config")(
        vision_config=vision,
        text_config={**QWEN_TEXT, "rope_parameters": rope, "use_sliding_window": False, "head_dim": 64},
        image_token_id=words.convert_tokens_to_ids("<image>"), video_token_id=video, vision_start_token_id=begin,
        vision_end_token_id=end, tie_word_embeddings=False,
    )  # fmt: skip
    model = getattr(tf, f"{name}ForConditionalGeneration")(config)
    square = (2 * patch) ** 2
    images = tf.Qwen2VLImageProcessor(
        patch_size=patch, size={"shortest_edge": 4 * square, "longest_edge": 128 * square}
    )
    return _saved(folder, model, words, f"{name}Processor", images, "<begin><image><end>")


def save_internvl(folder: Path, seed: int = 0) -> Path:
    """Writes an InternVL: tiles of 224 pixels, 196 patches and 49 tokens each; five of them at 640 x 480."""
    import transformers as tf

    torch.manual_seed(seed)
    named = {"start_image_token": "<begin>", "end_image_token": "<end>", "context_image_token": "<image>"}
    words = tokenizer(["<begin>", "<end>", "<video>"], **named, video_token="<video>")
    config = tf.InternVLConfig(
        vision_config=tf.InternVLVisionConfig(
            **TOWER, image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH], norm_type="layer_norm"
        ),
        text_config=tf.Qwen2Config(**QWEN_TEXT), image_token_id=words.convert_tokens_to_ids("<image>"),
        downsample_ratio=0.5, tie_word_embeddings=False,
    )  # fmt: skip
    images = tf.GotOcr2ImageProcessor(
        size={"height": SIDE, "width": SIDE}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    model = tf.InternVLForConditionalGeneration(config)
    return _saved(folder, model, words, "InternVLProcessor", images, "<image> ", None, image_seq_length=49)


def save_llava_onevision(folder: Path, seed: int = 0) -> Path:
    """Writes a LLaVA-OneVision: an image and its tiles, 196 patches each, put together by the image's shape."""
    import transformers as tf

    torch.manual_seed(seed)
    words = tokenizer(["<video>"], image_token="<image>", video_token="<video>")
    grid = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    image, video = words.convert_tokens_to_ids(["<image>", "<video>"])
    config = tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(**TOWER, image_size=SIDE, patch_size=PATCH, vision_use_head=False),
        text_config=tf.Qwen2Config(**QWEN_TEXT), image_grid_pinpoints=grid, image_token_index=image,
        image_token_id=image, video_token_id=video, video_token_index=video, tie_word_embeddings=False,
    )  # fmt: skip
    images = tf.LlavaOnevisionImageProcessor(size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=grid)
    own = {"num_image_tokens": 196, "vision_feature_select_strategy": "full"}
    model = tf.LlavaOnevisionForConditionalGeneration(config)
    return _saved(folder, model, words, "LlavaOnevisionProcessor", images, "<image> ", **own)


def _saved(
    folder: Path, model: Any, words: Any, processor: str, images: Any, mark: str, *more: Any, **own: Any
) -> Path:
    """Writes a model that answers shortly, and its processor, whose chat template puts `mark` in an image's place."""
    from mmpt_bench.engine.models.loading import pictures_only

    _answer_shortly(model, words)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 2
    model.save_pretrained(folder)
    made = pictures_only(processor)(images, words, *more, **own)
    made.chat_template = TEMPLATE.replace("<image>\n", mark)
    made.save_pretrained(folder)
    return folder


def _answer_shortly(model: Any, words: PreTrainedTokenizerFast) -> None:
    """Makes answer words follow the prompt's last token, and the end of the sequence an answer word."""
    generator = torch.Generator().manual_seed(1)
    dim = model.config.text_config.hidden_size
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "embed" not in name:
            torch.nn.init.normal_(parameter, std=1 / parameter.shape[-1] ** 0.5, generator=generator)
    ask, end = torch.linalg.qr(torch.randn(dim, 2, generator=generator))[0].T
    answers = words.convert_tokens_to_ids(list(ANSWERS))
    (last,) = words(":", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        embeddings.normal_(std=0.1, generator=generator)
        head.normal_(std=0.05, generator=generator)
        embeddings[last] += 12 * ask
        embeddings[answers] += 80 * end
        head[answers] += 0.5 * ask + 0.05 * torch.randn(len(answers), dim, generator=generator)
        head[2] += 2.0 * end


MADE: dict[str, Callable[[Path], Path]] = {
    "midsize": save_llava,
    "smolvlm": save_smolvlm,
    "qwen2_vl": save_qwen,
    "qwen2_5_vl": partial(save_qwen, name="Qwen2_5_VL"),
    "qwen3_vl": partial(save_qwen, name="Qwen3VL"),
    "internvl": save_internvl,
    "llava_onevision": save_llava_onevision,
}
"""What `--backbone` of the benchmarks can name: each writes a model to a folder, and returns that."""
