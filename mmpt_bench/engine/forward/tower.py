"""What the vision tower makes of images: once where nothing trained reaches it; blocks that are not read, never."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.devices import only_moves
from mmpt_bench.engine.models.families import family
from mmpt_bench.engine.models.quantized import stored


def is_frozen(backbone: Backbone) -> bool:
    """Returns whether images meet nothing of a method in the tower: no trained parameter, hook or replaced method.

    Dropout in the tower makes its features differ from call to call, so they cannot be kept either.
    """
    if not family(backbone.anatomy.family).projects_states:
        return False
    tower, core = _tower(backbone), backbone.model.get_submodule(backbone.anatomy.core)
    if any(p.requires_grad for p in tower.parameters()) or "get_image_features" in vars(core):
        return False
    vision = backbone.model.config.vision_config.to_dict()
    if any("dropout" in name and value for name, value in vision.items()):
        return False
    if called_through(backbone):
        return False
    unread = {id(block) for block in _unread(backbone)}
    for module in tower.modules():
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        if any(_where(hook) != "transformers.utils.output_capturing" for hook in hooks):
            return False
        if not only_moves(module) and id(module) not in unread:
            return False
    return True


def called_through(backbone: Backbone) -> bool:
    """Returns whether a method sees or changes what the model is called with, and so may read the pixels.

    It does by a hook on, or another `forward` of, the model or a part of it that holds the tower.
    """
    parts = backbone.anatomy.vision.split(".")[:-1]
    for i in range(len(parts) + 1):
        module = backbone.model.get_submodule(".".join(parts[:i]))
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        if not only_moves(module) or any(not _where(hook).startswith(_HARMLESS) for hook in hooks):
            return True
    return False


_HARMLESS = ("transformers.utils.output_capturing", "mmpt_bench.engine.prompts")
"""Whose hooks on the whole model read no pixels: those that capture states, and our prompts'."""


def _where(hook: Any) -> str:
    """Returns the module that a hook is of, also of one with arguments bound to it."""
    return str((hook.func if isinstance(hook, partial) else hook).__module__)


def fingerprint(backbone: Backbone) -> str:
    """Returns a digest of what decides a frozen tower's features: parts, values, what is read, the processor."""
    tower, config = _tower(backbone), backbone.model.config
    fields = ("vision_feature_layer", "vision_feature_select_strategy")
    read = [*[getattr(config, field, None) for field in fields], backbone.device, backbone.dtype]
    read += [config._attn_implementation]
    digest = hashlib.blake2b(repr([str(tower), read]).encode(), digest_size=16)
    digest.update(str(backbone.processor.image_processor.to_json_string()).encode())
    for name, value in tower.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        for part in stored(value):
            digest.update(part.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def states(backbone: Backbone, inputs: Mapping[str, Tensor]) -> Float[Tensor, "tiles tokens dim"]:
    """Returns the hidden states that the projector reads, without gradient, of images as the processor makes them."""
    model, anatomy = backbone.model, backbone.anatomy
    moved = {name: value.to(backbone.device) for name, value in inputs.items()}
    moved["pixel_values"] = moved["pixel_values"].to(getattr(torch, backbone.dtype))
    if anatomy.family == "llava":
        with torch.no_grad():
            out = _tower(backbone)(moved["pixel_values"], output_hidden_states=True, return_dict=True)
        hidden = out.hidden_states[model.config.vision_feature_layer]
        return hidden[:, 1:] if anatomy.drops_first else hidden
    # Tiles that only fill a batch up are left out by the model itself, which then asks its projector.
    asked: list[Tensor] = []
    projector = model.get_submodule(anatomy.projector)
    with torch.no_grad(), projector.register_forward_pre_hook(lambda module, args: asked.append(args[0])):
        model.get_submodule(anatomy.core).get_image_features(**moved, return_dict=True)
    return asked[0]


def projected(backbone: Backbone, pictures: Sequence[Float[Tensor, "tiles tokens dim"]]) -> dict[str, Any]:
    """Returns the model's `mm_encoder_outputs` for images' states: what `get_image_features` makes of them."""
    projector = backbone.model.get_submodule(backbone.anatomy.projector)
    made = projector(torch.cat(list(pictures)))
    # One entry an image, as transformers' own; it concatenates them again.
    features: Any = [one.flatten(0, 1) for one in made.split([len(picture) for picture in pictures])]
    return {"image": BaseModelOutputWithPooling(pooler_output=features)}


@contextmanager
def unread_blocks_skipped(backbone: Backbone) -> Iterator[None]:
    """Inside, vision blocks above the hidden state that is read hand on their input; their number stays the same."""
    blocks = [(block, vars(block).get("forward")) for block in _unread(backbone) if only_moves(block)]
    for block, _ in blocks:
        block.forward = _hand_on  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        for block, own in blocks:
            del block.forward
            if own is not None:
                block.forward = own  # type: ignore[method-assign]


def clock() -> float:
    """Returns the time in seconds, with everything done that an accelerator was given to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _tower(backbone: Backbone) -> nn.Module:
    return backbone.model.get_submodule(backbone.anatomy.vision)


def _unread(backbone: Backbone) -> list[nn.Module]:
    anatomy = backbone.anatomy
    return [backbone.model.get_submodule(name) for name in anatomy.vision_layers[anatomy.vision_used :]]


def _hand_on(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden_states
