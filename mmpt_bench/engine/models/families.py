"""The families of image-text models: one line each, with what cannot be read off a model itself.

A family is a `model_type` of transformers. Everything else about a model (where its decoder is, how many blocks, how
wide) is found in `anatomy`. Imports without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["batched", "packed"]


@dataclass(frozen=True)
class Family:
    """What cannot be found structurally in one family of models."""

    title: str
    """As people call it."""
    vision: str
    """The vision tower, inside the core model."""
    projector: str
    """What carries vision features to the width of the text, inside the core model."""
    feature_layer: str | None = None
    """Field of the configuration that says which hidden state of the tower is read; None: the last one."""
    layout: Layout = "batched"
    """Patches of a picture as a row of a batch, or of all pictures behind one another."""
    mixes_patches: str = ""
    """Why a row behind the patches cannot pass the projector as a token of its own; empty where it can."""
    windows: bool = False
    """Some vision blocks attend within windows, whose order is not that of the patches."""
    masks_pictures: bool = False
    """The tower hides what a picture was filled up with."""
    projects_states: bool = False
    """The projector takes the tower's states as they are, a tile at a time, and what it makes of them is the text's."""
    one_size: bool = False
    """Every picture becomes the same number of pixels and tokens, and its tensor stacks."""
    type_ids: tuple[str, Literal["picture", "answer"]] | None = None
    """Input that marks tokens with 1, and which ones."""
    prompt: str | None = None
    """Prompt of a processor that has no chat template."""
    video_processor: str = ""
    """Class of a processor that has a part for videos, which is left out."""
    core_builds_masks: bool = False
    """The core model turns a mask of tokens into a mask of pairs before the decoder sees it."""


_GRID = "its projector joins neighbouring patches of a square grid"
_TILES = "its tiles are put together as a grid behind the projector"

FAMILIES: dict[str, Family] = {
    "llava": Family(
        "LLaVA", "vision_tower", "multi_modal_projector", "vision_feature_layer", projects_states=True, one_size=True
    ),
    "llava_next": Family(
        "LLaVA-NeXT", "vision_tower", "multi_modal_projector", "vision_feature_layer", mixes_patches=_TILES
    ),
    "qwen2_vl": Family(
        "Qwen2-VL",
        "visual",
        "visual.merger",
        layout="packed",
        mixes_patches=_GRID,
        type_ids=("mm_token_type_ids", "picture"),
        video_processor="Qwen2VLProcessor",
    ),
    "qwen2_5_vl": Family(
        "Qwen2.5-VL",
        "visual",
        "visual.merger",
        layout="packed",
        mixes_patches=_GRID,
        windows=True,
        type_ids=("mm_token_type_ids", "picture"),
        video_processor="Qwen2_5_VLProcessor",
    ),
    "paligemma": Family(
        "PaliGemma 1 and 2",
        "vision_tower",
        "multi_modal_projector",
        type_ids=("token_type_ids", "answer"),
        # PaliGemmaProcessor puts these around a bare question; the models know no other form.
        prompt="{image}{bos}{question}\n",
        core_builds_masks=True,
    ),
    "idefics3": Family(
        "Idefics3", "vision_model", "connector", mixes_patches=_GRID, masks_pictures=True, projects_states=True
    ),
    "smolvlm": Family(
        "SmolVLM",
        "vision_model",
        "connector",
        mixes_patches=_GRID,
        masks_pictures=True,
        projects_states=True,
        video_processor="SmolVLMProcessor",
    ),
    "internvl": Family(
        "InternVL",
        "vision_tower",
        "multi_modal_projector",
        "vision_feature_layer",
        mixes_patches=_GRID,
        video_processor="InternVLProcessor",
    ),
    "gemma3": Family(
        "Gemma 3",
        "vision_tower",
        "multi_modal_projector",
        mixes_patches=_GRID,
        type_ids=("token_type_ids", "picture"),
        core_builds_masks=True,
    ),
}
"""By `config.model_type`."""
