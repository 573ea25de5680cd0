"""How the states of visual prompts become tokens of the language model: through the connector, where image meets text.

Where a connector takes one patch at a time, the states stay after the patches, pass it with them, and are parted from
them here; an image's tiles are put together as a grid without them. Where it makes one token of s x s patches, the
tower's output is parted first, and s^2 states take the places of one square of patches in a tile of their own;
docs/decisions/0037 has the rule.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmpt_bench.engine.prompts.bank import PromptBank
from mmpt_bench.engine.prompts.masks import image_counts, image_places

STATES = "prompt_states"
"""Field of a tower's output: prompts' states, (tiles, rows, vision_dim)."""
Rows = Float[Tensor, "tiles rows dim"]
_ASKED = ("vision_feature_layer", "vision_feature_select_strategy", "image_sizes")


def squares(states: Rows, area: int) -> Rows:
    """Returns prompts' states filled up to whole squares: the last one's own again, from its first on."""
    rows = states.shape[1]
    last = (rows - 1) // area * area
    order = [i if i < rows else last + (i - rows) % (rows - last) for i in range(math.ceil(rows / area) * area)]
    return states[:, order]


def leave_tower(bank: PromptBank, module: Any, args: tuple, kwargs: dict, output: Any) -> Any:
    """After the tower of a merging family: parts the prompts' states from its output, and keeps them in it."""
    left = bank.left
    if bank.anatomy.layout == "packed":
        return _leave_packed(bank, kwargs, output)
    if bank.anatomy.layout == "row":
        return _leave_row(bank, module, kwargs, output)
    read = output.last_hidden_state if bank.anatomy.reads_output else output.hidden_states[bank.anatomy.vision_used]
    length = read.shape[1]
    if output.hidden_states is not None:
        output.hidden_states = tuple(
            one if one is None or one.shape[1] != length else one[:, :-left] for one in output.hidden_states
        )
    if output.last_hidden_state.shape[1] == length:
        output.last_hidden_state = output.last_hidden_state[:, :-left]
    output[STATES] = read[:, -left:]
    return output


def _leave_packed(bank: PromptBank, kwargs: dict, output: Any) -> Any:
    """The same where images lie one after another: the last block left whole squares after all patches."""
    area = bank.anatomy.merge**2
    grid = kwargs["grid_thw"]
    patches, images, tokens = int(grid.prod(-1).sum()), int(grid[:, 0].sum()), bank.flowing
    hidden = output.last_hidden_state
    # GLM-4V has joined the patches already where its output is taken.
    own = patches if len(hidden) == patches + images * tokens * area else patches // area
    output[STATES] = hidden[own:].unflatten(0, (images, -1))
    output.last_hidden_state = hidden[:own]
    output.pooler_output = output.pooler_output[: patches // area]
    if getattr(output, "deepstack_features", None) is not None:
        output.deepstack_features = [one[: patches // area] for one in output.deepstack_features]
    return output


def _leave_row(bank: PromptBank, tower: Any, kwargs: dict, output: Any) -> Any:
    """The same where images lie one after another in one row of a batch."""
    grid = torch.as_tensor(kwargs["image_sizes"]) // tower.patch_size
    patches, images = int(grid.prod(-1).sum()), len(grid)
    read = output.last_hidden_state if bank.anatomy.reads_output else output.hidden_states[bank.anatomy.vision_used]
    output[STATES] = read[0, patches:].unflatten(0, (images, -1))
    if output.hidden_states is not None:
        output.hidden_states = tuple(one if one is None else one[:, :patches] for one in output.hidden_states)
    output.last_hidden_state = output.last_hidden_state[:, :patches]
    return output


class TilesPacked:
    """While it is there, a model puts an image's tiles together without the prompts' tokens; their mean follows."""

    def __init__(self, bank: PromptBank, core: Any):
        """Takes the place of the core model's `pack_image_features`."""
        self.core, self.flowing, self.plain = core, bank.flowing, core.pack_image_features
        core.pack_image_features = self.pack

    def pack(self, image_features: Sequence[Rows], *args: Any, **kwargs: Any) -> tuple[list[Tensor], Tensor]:
        """Returns (tokens of each image, how many): those of the model, then the prompts', (tokens + prompts, dim)."""
        patches = [one[:, : -self.flowing] for one in image_features]
        made, lengths = self.plain(patches, *args, **kwargs)
        tokens = [one[:, -self.flowing :].mean(dim=0) for one in image_features]
        return [torch.cat(pair) for pair in zip(made, tokens, strict=True)], lengths + self.flowing

    def remove(self) -> None:
        """Gives the model its own back."""
        del self.core.pack_image_features


def enter_core(bank: PromptBank, module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Before image and text meet: parts the prompts' tokens from the image's, and says where they are to stand."""
    if len(args) > 1:
        raise ValueError("with interaction, give images and masks by keyword")
    for ids in args:  # LLaVA-NeXT hands tokens on by place
        args, kwargs = (), {"input_ids": ids, **kwargs}
    encoded = (kwargs.get("mm_encoder_outputs") or {}).get("image")
    merging = bank.anatomy.parts_states
    if encoded is None:
        if kwargs.get("pixel_values") is None:
            return args, kwargs
        takes = inspect.signature(inspect.unwrap(type(module).get_image_features)).parameters
        chosen = [name for name in kwargs if name in takes and name != "return_dict"]
        encoded = module.get_image_features(**{k: kwargs[k] for k in chosen}, return_dict=True)
        kwargs = {k: v for k, v in kwargs.items() if k not in ("pixel_values", "pixel_attention_mask", *_ASKED)}
    if not len(encoded.pooler_output):
        raise ValueError("interaction does not support beam search: transformers loses the images' features")
    one_size = False
    if merging:
        states = _merged(bank, module, encoded, kwargs)
    else:
        # A new object: `generate` without a cache hands the same features in again at every step.
        patches: Any = [one[: -bank.flowing] for one in encoded.pooler_output]
        states = torch.stack([one[-bank.flowing :] for one in encoded.pooler_output])
        one_size = len({len(one) for one in patches}) == 1
        if isinstance(encoded.pooler_output, Tensor):
            patches = torch.stack(patches)
        encoded = BaseModelOutputWithPooling(pooler_output=patches)
    entering = {"prompt_states": states, "prompt_places": image_places(module, kwargs, len(states), one_size)}
    return args, {**kwargs, "mm_encoder_outputs": {"image": encoded}, **entering}


def _merged(bank: PromptBank, core: Any, encoded: Any, kwargs: dict) -> Float[Tensor, "images tokens dim"]:
    """Returns an image's interaction tokens: those of each of its tiles, averaged."""
    states = getattr(encoded, STATES, None)
    if states is None:
        raise ValueError("interaction needs the images' features as this model makes them with its prompts")
    tokens = through_connector(bank, core, states)
    # In tokens, an image is as large as its tiles are many; in a packed sequence, it is one whatever its size.
    counts = image_counts(core, kwargs)
    if bank.anatomy.layout != "batched":
        tiles = [1] * len(counts)
    else:
        tiles = [round(count * len(tokens) / sum(counts)) for count in counts]
    if sum(tiles) != len(tokens) or not all(tiles):
        raise ValueError(f"interaction needs one image a sequence: {len(tokens)} for {len(counts)} sequences")
    return torch.stack([own.mean(dim=0) for own in tokens.split(tiles)])


def through_connector(bank: PromptBank, core: Any, states: Rows) -> Float[Tensor, "tiles tokens dim"]:
    """Returns what the connector makes of prompts' states, s^2 of which take the places of one square of patches."""
    anatomy = bank.anatomy
    projector = core.get_submodule(anatomy.projector.removeprefix(f"{anatomy.core}."))
    if anatomy.layout == "packed":
        return projector(states.flatten(0, 1)).unflatten(0, (len(states), -1))
    if anatomy.layout == "row":
        return _through_row(bank, core, projector, states)
    side, s, n = math.isqrt(anatomy.tile_patches) // anatomy.merge, anatomy.merge, bank.flowing
    blocks = squares(states, s * s).unflatten(1, (n, s * s))
    # More prompts than one tile has places for go through as several.
    empty = -n % side**2
    blocks = torch.cat([blocks, blocks.new_zeros(len(blocks), empty, *blocks.shape[2:])], dim=1)
    grid = blocks.reshape(-1, side, side, s, s, blocks.shape[-1]).transpose(2, 3)
    tile = grid.reshape(len(grid), (side * s) ** 2, -1)
    if hasattr(core, "pixel_shuffle"):
        # InternVL joins patches before its projector.
        joined = core.pixel_shuffle(tile.unflatten(1, (side * s, -1)), scale_factor=core.config.downsample_ratio)
        tile = joined.flatten(1, 2)
    made = projector(tile)
    return made.reshape(len(states), n + empty, made.shape[-1])[:, :n]


def _through_row(bank: PromptBank, core: Any, projector: Any, states: Rows) -> Float[Tensor, "images tokens dim"]:
    """The same where a connector takes images of any size: each image's states are one, a square high."""
    if "image_sizes" not in inspect.signature(projector.forward).parameters:
        return projector(states)
    s, n, patch = bank.anatomy.merge, bank.flowing, core.config.vision_config.patch_size
    rows = states.unflatten(1, (n, s, s)).transpose(1, 2).flatten(0, 3)
    return projector(rows, [(s * patch, n * s * patch)] * len(states)).unflatten(0, (len(states), n))
