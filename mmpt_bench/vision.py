"""What the vision tower makes of pictures: computed once where nothing that is trained reaches it, blocks above the one
that is read never.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mmpt_bench.encoded import Encoded, collated
from mmpt_bench.families import FAMILIES

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from mmpt_bench.backbone import Backbone

CACHE_BYTES = 2**30
"""Memory for kept features, by default."""
PICTURE_BYTES = 2**29
"""Memory for pictures as a processor makes them."""
ALONE_TOKENS = 256
"""A tower with as many tokens a picture runs in training on one picture at a time, whose features any later step may
use; a smaller one runs on a step's pictures together. Either way a picture's features never depend on what else is in
memory, down to the last bit: a resumed run must find what an uninterrupted one found."""

Key = tuple[str, ...]


class FeatureCache:
    """Tensors or pictures up to a size, by (owner, key); an owner is a state of the vision side and a set of pictures.

    What is there stays, as the pictures of an epoch come round in a circle and the oldest is the next one wanted. Only
    other owners' tensors make room. What a method finds that an earlier one made is booked in `spared`: a board's costs
    must not depend on which method ran first.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit, self.bytes = limit, 0
        self.spared = 0.0
        """Seconds, since `begin`, that it took to make what was found and not made since then."""
        self._kept: dict[str, dict[Key, tuple[Any, float]]] = {}
        self._own: set[tuple[str, Key]] = set()

    def begin(self) -> None:
        """Begins the account of another training or evaluation."""
        self.spared, self._own = 0.0, set()

    def get(self, owner: str, key: Key) -> Any:
        """Returns what is kept, in main memory."""
        found = self._kept.get(owner, {}).get(key)
        if found is None:
            return None
        if (owner, key) not in self._own:
            self._own.add((owner, key))
            self.spared += found[1]
        return found[0]

    def put(self, owner: str, key: Key, value: Tensor | Encoded, seconds: float) -> None:
        """Keeps a copy where there is room for it, and how long it took to make."""
        self._own.add((owner, key))
        size = _size(value)
        while self.bytes + size > self.limit:
            other = next((name for name in self._kept if name != owner), None)
            if other is None:
                return
            self.bytes -= sum(_size(kept) for kept, _ in self._kept.pop(other).values())
        mine = self._kept.setdefault(owner, {})
        if key not in mine:
            copied = value.to_keep() if isinstance(value, Encoded) else value.detach().to("cpu", copy=True)
            mine[key] = (copied, seconds)
            self.bytes += size


def is_frozen(backbone: Backbone) -> bool:
    """Returns whether pictures meet nothing of an adapter in the tower: no trained parameter, hook or replaced method.

    Dropout in the tower makes its features differ from call to call, so they cannot be kept either.
    """
    if not FAMILIES[backbone.anatomy.family].projects_states or backbone.anatomy.vision is None:
        return False
    tower, core = _tower(backbone), backbone.model.get_submodule(backbone.anatomy.core)
    if any(p.requires_grad for p in tower.parameters()) or "get_image_features" in vars(core):
        return False
    vision = backbone.model.config.vision_config.to_dict()
    if any("dropout" in name and value for name, value in vision.items()):
        return False
    unread = {id(block) for block in _unread(backbone)}
    for module in tower.modules():
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        if any(hook.__module__ != "transformers.utils.output_capturing" for hook in hooks):
            return False
        if "forward" in vars(module) and id(module) not in unread:
            return False
    return True


def fingerprint(backbone: Backbone) -> str:
    """Returns a digest of what decides a frozen tower's features: parts, values, what is read, the processor."""
    tower, config = _tower(backbone), backbone.model.config
    fields = ("vision_feature_layer", "vision_feature_select_strategy")
    read = [*[getattr(config, field, None) for field in fields], backbone.device, backbone.dtype]
    digest = hashlib.blake2b(repr([str(tower), read]).encode(), digest_size=16)
    digest.update(str(backbone.processor.image_processor.to_json_string()).encode())
    for name, value in tower.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(_bytes()).numpy().data)
    return digest.hexdigest()


def states(backbone: Backbone, inputs: Mapping[str, Tensor]) -> Float[Tensor, "tiles tokens dim"]:
    """Returns the hidden states that the projector reads, without gradient, of pictures as the processor makes them."""
    import torch

    kept: list[Any] = []
    tower, core = _tower(backbone), backbone.model.get_submodule(backbone.anatomy.core)
    anatomy, config = backbone.anatomy, backbone.model.config
    moved = {name: value.to(backbone.device) for name, value in inputs.items()}
    moved["pixel_values"] = moved["pixel_values"].to(getattr(torch, backbone.dtype))
    if anatomy.family == "llava":
        with torch.no_grad():
            out = tower(moved["pixel_values"], output_hidden_states=True, return_dict=True)
        hidden = out.hidden_states[config.vision_feature_layer]
        return hidden[:, 1:] if anatomy.drops_first else hidden
    # Tiles that only fill a batch up are left out by the model itself, which then asks its projector.
    hook = core.get_submodule(FAMILIES[anatomy.family].projector).register_forward_pre_hook(
        lambda module, args: kept.append(args[0])
    )
    try:
        with torch.no_grad():
            core.get_image_features(**moved, return_dict=True)
    finally:
        hook.remove()
    return kept[0]


def projected(backbone: Backbone, pictures: Sequence[Float[Tensor, "tiles tokens dim"]]) -> dict[str, Any]:
    """Returns the model's `mm_encoder_outputs` for pictures' states: what `get_image_features` makes of them."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    projector = backbone.model.get_submodule(backbone.anatomy.projector)
    made = projector(torch.cat(list(pictures)))
    # One entry a picture, as transformers' own; it concatenates them again.
    features: Any = [one.flatten(0, 1) for one in made.split([len(picture) for picture in pictures])]
    return {"image": BaseModelOutputWithPooling(pooler_output=features)}


@contextmanager
def unread_blocks_skipped(backbone: Backbone) -> Iterator[None]:
    """Inside, vision blocks above the hidden state that is read hand on their input; their number stays the same."""
    blocks = [block for block in _unread(backbone) if "forward" not in vars(block)]
    for block in blocks:
        block.forward = _hand_on  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def clock() -> float:
    """Returns the time in seconds, with everything done that an accelerator was given to do."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class TowerFeatures:
    """A frozen tower's states of a training set, kept in the backbone's cache for later steps and methods."""

    def __init__(self, backbone: Backbone, pictures: str) -> None:
        """`pictures` names the set within which equal keys are equal pictures."""
        self.backbone, self.owner = backbone, f"{fingerprint(backbone)} {pictures}"

    def __call__(self, images: Sequence[Any]) -> list[Encoded]:
        """Returns pictures (task.Picture) as states, each (tiles, tokens, dim), with what stands for it in a text."""
        one_size = FAMILIES[self.backbone.anatomy.family].one_size
        alone = not one_size or self.backbone.image_tokens() >= ALONE_TOKENS
        groups = [[image] for image in images] if alone else [list(images)]
        return [one for group in groups for one in self._group(group)]

    def _group(self, images: list[Any]) -> list[Encoded]:
        key = tuple(image.key for image in images)
        found = self.backbone.features.get(self.owner, key)
        if found is None:
            began = clock()
            made = self.backbone.encode([image.open() for image in images])
            hidden = states(self.backbone, collated([one.tensors for one in made]))
            # Pictures that share a group have a tile each.
            found = Encoded({"states": hidden}, made[0].text)
            self.backbone.features.put(self.owner, key, found, clock() - began)
        hidden = found.tensors["states"].to(self.backbone.device)
        if len(images) == 1:
            return [Encoded({"states": hidden}, found.text)]
        return [Encoded({"states": one[None]}, found.text) for one in hidden]


def _size(value: Tensor | Encoded) -> int:
    return value.n_bytes if isinstance(value, Encoded) else value.numel() * value.element_size()


def _tower(backbone: Backbone) -> nn.Module:
    return backbone.model.get_submodule(backbone.anatomy.vision)


def _unread(backbone: Backbone) -> list[nn.Module]:
    anatomy = backbone.anatomy
    return [backbone.model.get_submodule(name) for name in anatomy.vision_layers[anatomy.vision_used :]]


def _hand_on(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden_states


def _bytes() -> Any:
    import torch

    return torch.uint8
