"""The embedded model before training: configuration, tokenizer, processor and chat template, in Hugging Face form.

The vocabulary is every word of the language, of the tasks' own wordings and of the real data sets' class names. It is
written down here, not collected at run time: the order of the words is part of the weights.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from mmpt_bench.embedded import statements, wordings, world

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>")
PAD, _UNKNOWN, BEGIN, END, IMAGE = range(len(SPECIAL))
PATCH = 8
"""Pixels a side of what one image token stands for: a quarter of a cell of the scenes."""
IMAGE_TOKENS = (world.SIDE // PATCH) ** 2
"""Of one image."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
INSTRUCTIONS = (
    "please look at this image and answer the following question .",
    "given the photo , decide : is the statement true or false ?",
    "based on what is shown in the picture , which of these is correct ?",
    "in this photo you can see an object ; say its category .",
    "the caption of an image can be right or wrong ; which one is it here ?",
    "which digit , 0 to 9 , is handwritten in the image ? answer with one digit .",
    "hypothesis and premise : does the image entail it , contradict it , or neither ?",
    "choose one option from the list ; use a single word or number .",
    "what category does the main object belong to ? the options are many .",
    'is the text in the image " b c " or not ? is the answer to the arithmetic question in the image 3 ?',
    "how are the objects related ? is there any on the left or right side of it ?",
    "at the top of the photo , at the bottom , by the side , with a total of two : any kind of thing , please .",
    "would you think so ? please check what it shows and says .",
    "is the relation between image and hypothesis entailment ? the sentence describes the scene correctly .",
    "does this image contain the thing ? can it be found among the things in this image ?",
    "exactly how many are there altogether ? the correct count , please .",
    "concerning position : which one stands where ? can it be placed ?",
    "the image contains what you see ; list all things that appear in it .",
    "would you spell what it reads ? what is the correct reading of the letters ?",
    "what does it equal ? the result equals the sum ; it should be answered with a number .",
    "is anything present , is anything visible , anywhere in the image ?",
    "judge whether the image makes the sentence true or false .",
    "according to the image , verify the sentence : is it true or is it false ?",
    "judge the hypothesis against the image . label it , given the image .",
    "verify it with the image and answer : does the label fit ? which label fits ?",
    "classify what the image has got in it ; pick or select the category that fits .",
    "identify the number from 0 to 9 that was drawn ; select the correct label for it .",
    "is it correct about this image ? is it part of it ? call it what it is called .",
)
"""Sentences whose words evaluation may use. Pre-training puts them before its questions, so that none is a stranger."""
REAL_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""CIFAR-10's: known to the tokenizer, so that the real task can be asked at all; the base never saw one."""
PUNCTUATION = (*".,?:;+()-=!", "'", '"')


def words() -> list[str]:
    """Returns the vocabulary's words, sorted."""
    texts = [*INSTRUCTIONS, *statements.UNSEEN["pretrain"], *statements.RELATIONS, *wordings.SENTENCES.values()]
    texts += [*wordings.SHORT_CUES, *wordings.HEADS, *wordings.TAILS, *wordings.SYNONYMS]
    for forms in (wordings.YES_NO, wordings.TRUE_FALSE, wordings.ENTAIL):
        texts += [wording for part in forms.values() for wording in part]
    for part in (*wordings.QUESTIONS.values(), *wordings.DIRECT.values()):
        texts += [wording for group in part.values() for wording in group]
    texts += [*statements.NUMBERS, *world.SHAPES, *map(statements.plural, world.SHAPES), *world.COLOR_NAMES]
    texts += [
        *world.SIZES,
        *world.TEXTURES,
        *world.GLYPHS,
        *map(str, range(19)),
        *world.CELLS,
        *REAL_CLASSES,
        *PUNCTUATION,
    ]
    texts += ["user : assistant : a an no yes nothing question answer there is are"]
    found = {word for text in texts for word in text.split() if "{" not in word}
    return sorted(found)


def build_tokenizer() -> Any:
    """Returns the word-level tokenizer: lower case, blanks and punctuation separate, `<s>` in front."""
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *words()))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BEGIN)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def build_processor() -> LlavaProcessor:
    """Returns the processor: 48 x 48 pixels, 36 image tokens, the chat template."""
    side = {"height": world.SIDE, "width": world.SIDE}
    images = CLIPImageProcessorPil(
        size=side, crop_size=side, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.25] * 3
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    )


def build_model(seed: int) -> LlavaForConditionalGeneration:
    """Returns the model with random weights: a CLIP tower, a two-layer projector, a Llama, 4.2 M parameters."""
    vision = CLIPVisionConfig(
        hidden_size=224,
        intermediate_size=896,
        num_hidden_layers=4,
        num_attention_heads=7,
        image_size=world.SIDE,
        patch_size=PATCH,
        projection_dim=224,
    )
    text = LlamaConfig(
        initializer_range=0.06,
        rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
        vocab_size=8 * ((len(SPECIAL) + len(words()) + 7) // 8),
        hidden_size=160,
        intermediate_size=448,
        num_hidden_layers=5,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=BEGIN,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    torch.manual_seed(seed)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    # What a word attends to, at first, is the like of it: an image's patches are named in the words' own vectors.
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model


def take_over(model: LlavaForConditionalGeneration, folder: Path) -> list[str]:
    """Copies from an earlier base all tensors whose shape is the same, and of the vocabulary the rows of its words.

    Returns the names of the tensors that stay as they are; words that the earlier base did not know stay so too.
    """
    earlier: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    old = earlier.state_dict()
    knew = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    knows: dict[str, int] = build_tokenizer().get_vocab()
    both = [(knows[word], row) for word, row in knew.items() if word in knows]
    here, there = torch.tensor(both).T
    fresh = []
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("embed_tokens.weight", "lm_head.weight")):
                tensor[here] = old[name][there]
            elif old[name].shape == tensor.shape:
                tensor.copy_(old[name])
            else:
                fresh.append(name)
    return fresh


def save(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Writes the model as float16 safetensors, with tokenizer, processor and chat template, in Hugging Face form."""
    half: Any = copy.deepcopy(model)
    half.to(torch.float16)
    half.save_pretrained(folder)
    build_processor().save_pretrained(folder)
