"""What cannot be read off a family of image-text models: a few entries; everything else is found in the model.

A family is a `model_type` of transformers. One without an entry is as well supported as its structure says: `parts`
finds the tower, the projector and how patches become tokens. Imports without torch.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mmpt_bench.common.entries import load_module, own_entry, own_fingerprint
from mmpt_bench.common.errors import RequestError
from mmpt_bench.sources.weights import OWN_FAMILIES, kind_of_types

Layout = Literal["batched", "packed", "row"]
"""How images come to a vision block: a batch; one sequence, with bounds; one row of a batch, with a mask."""


@dataclass(frozen=True)
class Family:
    """What of a family is not found structurally; an empty field is found in the model."""

    title: str = ""
    """As people call it; empty: by the name of its class."""
    vision: str = ""
    """The vision tower, inside the core model."""
    projector: str = ""
    """What carries vision features to the width of the text, inside the core model."""
    mixes_patches: str = ""
    """Why a row after the patches cannot become a token of its own; empty where it can."""
    no_prompts: str = ""
    """Why rows cannot be put into the decoder's sequence; empty where they can."""
    no_visual: str = ""
    """Why rows cannot be put into the tower's blocks; empty where they can."""
    projects_states: bool = False
    """The projector takes the tower's states as they are, a tile at a time, and what it makes of them is the text's."""
    several_images: bool = False
    """Questions about several images were tried: replies are those of the model's own processor."""
    one_size: bool = False
    """Every image becomes the same number of pixels and tokens, and its tensor stacks."""
    type_ids: tuple[str, Literal["picture", "answer"]] | None = None
    """Input that marks tokens with 1, and which ones; None: as the model's class takes it."""
    prompt: str | None = None
    """Prompt of a processor that has no chat template."""
    refused: str = ""
    """Why no model of this family can be a backbone."""


FAMILIES: dict[str, Family] = {
    "llava": Family("LLaVA", projects_states=True, several_images=True, one_size=True),
    "llava_next": Family("LLaVA-NeXT"),
    "qwen2_vl": Family("Qwen2-VL", several_images=True),
    "qwen2_5_vl": Family("Qwen2.5-VL"),
    "paligemma": Family(
        "PaliGemma 1 and 2",
        type_ids=("token_type_ids", "answer"),
        # PaliGemmaProcessor puts these around a bare question; the models know no other form.
        prompt="{image}{bos}{question}\n",
    ),
    "idefics3": Family("Idefics3", projects_states=True),
    "smolvlm": Family("SmolVLM", projects_states=True),
    "internvl": Family("InternVL"),
    "gemma3": Family("Gemma 3"),
    **{
        name: Family(title)
        for name, title in {
            "aya_vision": "Aya Vision",
            "cohere2_vision": "Cohere2 Vision",
            "deepseek_vl": "DeepSeek-VL",
            "gemma4": "Gemma 4",
            "glm4v": "GLM-4V",
            "idefics2": "Idefics2",
            "janus": "Janus",
            "kimi_k25": "Kimi K2.5",
            "lfm2_vl": "LFM2-VL",
            "llama4": "Llama 4",
            "llava_onevision": "LLaVA-OneVision",
            "mistral3": "Mistral 3",
            "ovis2": "Ovis2",
            "pixtral": "Pixtral",
            "qwen2_5_omni_thinker": "Qwen2.5-Omni",
            "qwen3_5": "Qwen3.5",
            "qwen3_vl": "Qwen3-VL",
            "qwen3_vl_moe": "Qwen3-VL-MoE",
            "vipllava": "VipLLaVA",
        }.items()
    },
    "mllama": Family(
        "Llama 3.2 Vision (Mllama)",
        refused="its decoder looks at the image by cross-attention, through a mask that every text needs for itself",
    ),
    "blip-2": Family("BLIP-2", refused="its processor puts the image before a text's first token"),
    **{
        name: Family(title, refused="its connector reads the question too, so that no image is encoded by itself")
        for name, title in {"instructblip": "InstructBLIP", "instructblipvideo": "InstructBLIP for video"}.items()
    },
    **{
        name: Family(title, refused="its processor lays all images of a batch in one row of pixels")
        for name, title in {
            "minicpmv4_6": "MiniCPM-V 4.6",
            "minicpmv4_7": "MiniCPM-V 4.7",
            "minicpm_ocr": "MiniCPM-OCR",
        }.items()
    },
    "gemma3n": Family("Gemma 3n", refused="its vision tower is a MobileNet, which is no stack of like blocks"),
    "qwen2_5_omni": Family(
        "Qwen2.5-Omni with its talker", refused="it is several models: save its `thinker` to a folder of its own"
    ),
}
"""By `kind_of` a configuration. Not a list of what is supported."""


def kind_of(config: Any) -> str:
    """Returns the type of a model: `config.model_type`, but for the LLaVA whose tower takes images of any size."""
    return kind_of_types(config.model_type, getattr(getattr(config, "vision_config", None), "model_type", ""))


@functools.cache
def class_name(model_type: str) -> str:
    """Returns the class of transformers that models of a type are; empty where none is an image-text model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return str(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(model_type, ""))


def family(model_type: str) -> Family:
    """Returns the entry of a type of models, or an empty one for a type that has none.

    Raises RequestError for a type that cannot be a backbone, with the reason: its configuration is enough to know.
    """
    known = FAMILIES.get(model_type)
    if known is None:
        name = class_name(model_type)
        if not name:
            raise RequestError(
                f"Models of type `{model_type}` are no image-text models of the installed transformers. "
                "Give another backbone, or install a transformers that has them."
            )
        known = Family(name.removesuffix("ForConditionalGeneration"))
    if known.refused:
        raise RequestError(f"{known.title} cannot be a backbone: {known.refused}.")
    return known


def is_family(path: Path) -> bool:
    """Returns whether a file assigns `FAMILIES`, read without importing it."""
    return (
        path.suffix == ".py" and re.search(r"^FAMILIES\b", path.read_text(encoding="utf-8"), re.MULTILINE) is not None
    )


def register_file(path: Path) -> None:
    """Adds the entries of a user's file, `FAMILIES`, to those that are known, for this process alone.

    The file's content becomes part of the fingerprint of every backbone of these types.

    Raises:
        RequestError: there is no such file, it has no `FAMILIES`, or an entry is none.
    """
    entry = own_entry("family", str(path), {})
    found = getattr(load_module(entry, "family"), "FAMILIES", None)
    if not isinstance(found, dict) or not found:
        raise RequestError(f"`{path}` exports no family: write `FAMILIES = {{'model_type': Family(...)}}` in it.")
    for name, made in found.items():
        if not isinstance(name, str) or not isinstance(made, Family):
            raise RequestError(f"`FAMILIES` in `{path}` holds {name!r}, which is no `model_type` with its `Family`.")
        title = made.title or class_name(name).removesuffix("ForConditionalGeneration") or name
        FAMILIES[name] = replace(made, title=title)
        OWN_FAMILIES[name] = own_fingerprint(entry), entry.path
