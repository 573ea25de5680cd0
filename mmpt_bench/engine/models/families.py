"""The families of image-text models: one entry each, with what cannot be read off a model itself.

A family is a `model_type` of transformers. Everything else about a model (where its decoder is, how many blocks, how
wide) is found in `anatomy`. Imports without torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    """Patches of an image as a row of a batch, or of all images behind one another."""
    mixes_patches: str = ""
    """Why a row behind the patches cannot pass the projector as a token of its own; empty where it can."""
    masks_pictures: bool = False
    """The tower hides what an image was filled up with."""
    projects_states: bool = False
    """The projector takes the tower's states as they are, a tile at a time, and what it makes of them is the text's."""
    one_size: bool = False
    """Every image becomes the same number of pixels and tokens, and its tensor stacks."""
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

_TOWER, _PROJECTOR, _LAYER = "vision_tower", "multi_modal_projector", "vision_feature_layer"

_QWEN2_VL = Family(
    "Qwen2-VL",
    "visual",
    "visual.merger",
    layout="packed",
    mixes_patches=_GRID,
    type_ids=("mm_token_type_ids", "picture"),
    video_processor="Qwen2VLProcessor",
)
_IDEFICS3 = Family(
    "Idefics3", "vision_model", "connector", mixes_patches=_GRID, masks_pictures=True, projects_states=True
)
FAMILIES: dict[str, Family] = {
    "llava": Family("LLaVA", _TOWER, _PROJECTOR, _LAYER, projects_states=True, one_size=True),
    "llava_next": Family("LLaVA-NeXT", _TOWER, _PROJECTOR, _LAYER, mixes_patches=_TILES),
    "qwen2_vl": _QWEN2_VL,
    "qwen2_5_vl": replace(_QWEN2_VL, title="Qwen2.5-VL", video_processor="Qwen2_5_VLProcessor"),
    "paligemma": Family(
        "PaliGemma 1 and 2",
        _TOWER,
        _PROJECTOR,
        type_ids=("token_type_ids", "answer"),
        # PaliGemmaProcessor puts these around a bare question; the models know no other form.
        prompt="{image}{bos}{question}\n",
        core_builds_masks=True,
    ),
    "idefics3": _IDEFICS3,
    "smolvlm": replace(_IDEFICS3, title="SmolVLM", video_processor="SmolVLMProcessor"),
    "internvl": Family(
        "InternVL", _TOWER, _PROJECTOR, _LAYER, mixes_patches=_GRID, video_processor="InternVLProcessor"
    ),
    "gemma3": Family(
        "Gemma 3",
        _TOWER,
        _PROJECTOR,
        mixes_patches=_GRID,
        type_ids=("token_type_ids", "picture"),
        core_builds_masks=True,
    ),
}
"""By `config.model_type`."""
