"""What the vision tower makes of images: once where it is frozen, else once a micro-batch; blocks not read, never."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image as images
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.devices import only_moves
from mmpt_bench.engine.models.encoding import Encoded
from mmpt_bench.engine.models.families import family
from mmpt_bench.engine.models.quantized import stored
from mmpt_bench.engine.prompts.interaction import STATES as PROMPT_STATES


def is_frozen(backbone: Backbone) -> bool:
    """Returns whether images meet nothing of a method in the tower: no trained parameter, hook or replaced method.

    A projector that is the tower's last part may be trained. What drops out at random makes features differ from call
    to call, so they cannot be kept either.
    """
    if backbone.anatomy.reads_several:
        return False
    tower, core = _tower(backbone), backbone.model.get_submodule(backbone.anatomy.core)
    if any(p.requires_grad for _, p in _below_projector(backbone)) or "get_image_features" in vars(core):
        return False
    vision = backbone.model.config.vision_config.to_dict()
    if any("drop" in name and value for name, value in vision.items()):
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
    for name, value in _below_projector(backbone, tower.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        for part in stored(value):
            digest.update(part.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def keeps_states(backbone: Backbone) -> bool:
    """Returns whether a tower is frozen, and what it makes of an image can serve later steps."""
    return is_frozen(backbone) and (family(backbone.anatomy.family).projects_states or can_replay(backbone))


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


STATES = "states of block "
"""What the name of a block's states begins with, among an image's tensors; its number follows."""


def seen(backbone: Backbone, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns what is read of a frozen tower's blocks, by `STATES` and the block's number, of one image's inputs.

    Of a block that returns something else than a tensor, nothing.
    """
    found: dict[str, Tensor] = {}

    def note(name: str, module: Any, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            found[name] = output

    with ExitStack() as hooks:
        for i in _read(backbone):
            block = backbone.model.get_submodule(backbone.anatomy.vision_layers[i])
            hooks.callback(block.register_forward_hook(partial(note, f"{STATES}{i}")).remove)
        _features(backbone, inputs)
    return found


@contextmanager
def blocks_replayed(backbone: Backbone, states: Sequence[Mapping[str, Tensor]]) -> Iterator[list[bool]]:
    """Inside, the tower's blocks hand out what `seen` found of a batch's images, and compute nothing.

    What stands before and after them runs as ever, and so do blocks where the states are not as many and as wide as
    what they are called with. Yields a list, which holds whether they were handed out once the tower has run.
    """
    fits: list[bool] = []
    wanted = [f"{STATES}{i}" for i in _read(backbone)]
    shapes = [{one[name].shape[1:] if name in one else None for one in states} for name in wanted]
    if any(None in found or len(found) > 1 for found in shapes):
        yield fits
        return
    # Those that were kept lie in main memory.
    place = backbone.device
    made = {i: torch.cat([one[f"{STATES}{i}"].to(place) for one in states]) for i in _read(backbone)}

    def replay(i: int, computed: Any, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        if i == 0:
            fits[:] = [all(one.shape == hidden.shape for one in made.values())]
        if not fits[0]:
            return computed(*args, **kwargs)
        return made[i].to(hidden.device) if i in made else hidden

    names = backbone.anatomy.vision_layers[: backbone.anatomy.vision_used]
    blocks: list[Any] = [backbone.model.get_submodule(name) for name in names]
    own = [vars(block).get("forward") for block in blocks]
    for i, block in enumerate(blocks):
        block.forward = partial(replay, i, block.forward)
    try:
        yield fits
    finally:
        for block, forward in zip(blocks, own, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


def can_replay(backbone: Backbone) -> bool:
    """Returns whether a frozen tower's blocks can be replayed, tried on two grey images of unlike shapes."""
    pictures = [images.new("RGB", (width, 64), (128, 128, 128)) for width in (64, 128)]
    with torch.no_grad(), backbone.computing():
        encoded = backbone.encode(pictures)
        states = [seen(backbone, backbone.inputs([one])) for one in encoded]
        with blocks_replayed(backbone, states) as fits:
            _features(backbone, backbone.inputs(encoded))
    return fits == [True]


def sees_once(backbone: Backbone) -> bool:
    """Returns whether examples of a micro-batch that show one image may share what the tower makes of it.

    Not where it makes something else of it each time: nothing may drop out in it, no prompts be of an item alone, and
    no method look at what the model is called with.
    """
    anatomy, vision = backbone.anatomy, backbone.model.config.vision_config.to_dict()
    if "get_image_features" in vars(backbone.model.get_submodule(anatomy.core)) or called_through(backbone):
        return False
    if getattr(getattr(backbone.model, "prompt_bank", None), "of_item", False):
        return False
    drops = any(isinstance(module, nn.Dropout) and module.p for module in _tower(backbone).modules())
    return not drops and not any("drop" in name and value for name, value in vision.items())


def tokens_of(backbone: Backbone, image: Encoded) -> int:
    """Returns how many of a text's tokens stand for an image, as its processor writes it; 0 where it does not."""
    words = backbone.processor.tokenizer.convert_ids_to_tokens([backbone.model.config.image_token_id])
    return image.text.count(words[0]) if words[0] else 0


@contextmanager
def repeated_seen_once(backbone: Backbone, pictures: Sequence[Encoded]) -> Iterator[None]:
    """Inside, an image that stands several times in a micro-batch goes through tower and projector once.

    The model is called with all images as ever, and meets what `get_image_features` makes of each. Where its rows
    cannot be told apart by image, it is asked for all of them.
    """
    shown = list({id(one): one for one in pictures}.values())
    counts = [tokens_of(backbone, one) for one in shown]
    if len(shown) == len(pictures) or not all(counts):
        yield
        return
    places = [next(i for i, one in enumerate(shown) if one is picture) for picture in pictures]
    core, inputs = backbone.model.get_submodule(backbone.anatomy.core), backbone.inputs(shown)
    computed = core.get_image_features
    takes = list(inspect.signature(inspect.unwrap(type(core).get_image_features)).parameters)[1:]

    def once(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(takes, args, strict=False)) | kwargs
        found = computed(**{name: inputs.get(name, value) for name, value in given.items()})
        try:
            return _spread(found, places, counts)
        except _Unlike:
            return computed(**given)

    core.get_image_features = once  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del core.get_image_features


class _Unlike(Exception):
    """Rows of features are not as many for each image as its tokens say."""


def _spread(found: Any, places: Sequence[int], counts: Sequence[int]) -> Any:
    """Returns the features of distinct images, of so many tokens each, as those of images at `places`; or `_Unlike`."""

    made = found.get("pooler_output")
    if made is None:
        raise _Unlike
    tokens = made.shape[:-1].numel() if isinstance(made, Tensor) else sum(counts)

    def spread(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return [value[i] for i in places]
        # Rows are images, or their tiles or tokens, of which a larger image has more.
        if len(value) == len(counts):
            return value[list(places)]
        if tokens != sum(counts) or any(len(value) * count % tokens for count in counts):
            raise _Unlike
        sizes = [len(value) * count // tokens for count in counts]
        parts = value.split(sizes)
        return torch.cat([parts[i] for i in places])

    for name in ("pooler_output", PROMPT_STATES):
        if found.get(name) is not None:
            found[name] = spread(found[name])
    if found.get("deepstack_features") is not None:
        found["deepstack_features"] = [spread(one) for one in found["deepstack_features"]]
    return found


def _features(backbone: Backbone, inputs: Mapping[str, Tensor]) -> None:
    """Runs what makes features of images, without gradient."""
    core = backbone.model.get_submodule(backbone.anatomy.core)
    takes = inspect.signature(inspect.unwrap(type(core).get_image_features)).parameters
    with torch.no_grad():
        core.get_image_features(**{name: value for name, value in inputs.items() if name in takes}, return_dict=True)


def _read(backbone: Backbone) -> list[int]:
    """Returns the blocks whose output something later reads: the last, and those that Qwen3-VL adds in the decoder."""
    more = getattr(backbone.model.config.vision_config, "deepstack_visual_indexes", None) or ()
    return sorted({backbone.anatomy.vision_used - 1, *more})


def _below_projector(backbone: Backbone, named: Iterable[tuple[str, Any]] | None = None) -> Iterator[tuple[str, Any]]:
    """Yields what a tower holds, by default its parameters, but for a projector's inside it."""
    inside = backbone.anatomy.projector.removeprefix(f"{backbone.anatomy.vision}.")
    for name, value in _tower(backbone).named_parameters() if named is None else named:
        if not name.startswith(f"{inside}."):
            yield name, value


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
