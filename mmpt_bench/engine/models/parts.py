"""The parts of an image-text model, found by what they are: which module is the tower, what its blocks take, how
patches become tokens. Nothing here knows a family by its name.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError

if TYPE_CHECKING:
    from torch import nn

    from mmpt_bench.engine.models.families import Family, Layout

_TILES = "its tiles are put together as a grid after the projector"
_LEARNT_QUERIES = "its connector reads the image by learnt queries"
_WORDS = "patches become a mixture of learnt visual words"
_WORD_A_LAYER = "each of its layers reads an embedding of every token's word, and a prompt has no word"
_UNEVEN = "its connector is no map of squares of patches"
_JOINED = "its tower joins squares of patches itself, before its projector sees them"
_PLACED = "patches of images of any size are joined by their places"
_WINDOWS = "its last vision block attends within windows, of which each has states of its own"
_TURNED = "its vision blocks take the place of each patch in another form than those that are known"


def require(claim: bool, message: str) -> None:
    """Raises RequestError where a model is built otherwise than what is found in it supposes."""
    if not claim:
        raise RequestError(f"The model is not built as expected: {message}")


def name_of(model: nn.Module, wanted: nn.Module) -> str:
    """Returns the name of a module inside a model."""
    return next(name for name, module in model.named_modules() if module is wanted)


def stack_of(owner: nn.Module, depth: int | None, what: str) -> tuple[str, nn.ModuleList]:
    """Returns the name (inside `owner`) and the module of its stack of `depth` blocks; by default the longest."""
    from torch import nn

    stacks = [(name, module) for name, module in owner.named_modules() if isinstance(module, nn.ModuleList)]
    if not stacks:
        raise RequestError(f"The model's {what} (`{type(owner).__name__}`) has no stack of blocks.")
    longest = max(stacks, key=lambda item: len(item[1]))
    found = next((item for item in stacks if len(item[1]) == depth), longest)
    require(depth is None or len(found[1]) == depth, f"{len(found[1])} blocks in the {what}.")
    return found


def decoder_of(model: Any) -> Any:
    """Returns the stack of decoder layers with its embeddings, without a head."""
    decoder = model.get_decoder()
    # Llama 4 has a whole language model in the decoder's place.
    return decoder.model if hasattr(decoder, "lm_head") else decoder


def head_of(model: Any) -> Any:
    """Returns the map from the decoder's output to words."""
    head = model.get_output_embeddings() or model.get_decoder().get_output_embeddings()
    require(head is not None, "it has no head over words.")
    return head


def tower_of(core: Any, decoder: nn.Module, family: Family) -> Any:
    """Returns the module that sees images: the one with the configuration's `vision_config`."""
    if family.vision:
        parts = dict(core.named_modules())
        require(family.vision in parts, f"no `{family.vision}`.")
        return parts[family.vision]
    require(getattr(core.config, "vision_config", None) is not None, "its configuration has no `vision_config`.")
    wanted = type(core.config.vision_config)
    own = set(map(id, decoder.modules()))
    for module in core.modules():
        if module is not core and id(module) not in own and isinstance(getattr(module, "config", None), wanted):
            return module
    raise RequestError("The model is not built as expected: no module has its `vision_config`.")


def projector_of(core: Any, decoder: nn.Module, tower: nn.Module, family: Family, width: int) -> Any:
    """Returns what carries vision features to the text's `width`: beside the tower, or else its last part."""
    if family.projector:
        parts = dict(core.named_modules())
        require(family.projector in parts, f"no `{family.projector}`.")
        return parts[family.projector]
    inner = set(map(id, decoder.modules()))
    # What hears stands beside the tower too, and writes for the text.
    hears = type(getattr(core.config, "audio_config", None))
    beside = [
        part
        for part in core.children()
        if part is not tower and not inner & set(map(id, part.modules()))
        if not isinstance(getattr(part, "config", ""), hears)
    ]
    blocks = stack_of(tower, depth_of(core.config.vision_config), "vision tower")[1]
    within = [part for part in tower.children() if not any(one is blocks for one in part.modules())]
    for part in [*beside, *within]:
        if _writes(part, width):
            return part
    raise RequestError(f"The model is not built as expected: no `multi_modal_projector` or the like maps to {width}.")


def _writes(part: nn.Module, width: int) -> bool:
    """Returns whether what a module makes last is of a width, and it is one map and no list of such."""
    from torch import nn

    shapes = [p.shape for p in part.parameters() if p.dim() == 2]
    return bool(shapes) and width in shapes[-1] and not isinstance(part, nn.ModuleList)


def width_of(vision: Any) -> int:
    """Returns the width of a tower's blocks."""
    # Qwen2-VL calls the width of the projector's output `hidden_size`.
    return getattr(vision, "embed_dim", None) or vision.hidden_size


def patches_of(vision: Any) -> int | None:
    """Returns how many patches a square tile has; None where images have no one size."""
    sides = [getattr(vision, name, None) for name in ("image_size", "patch_size")]
    size, patch = (side[0] if isinstance(side, list | tuple) else side for side in sides)
    return (size // patch) ** 2 if size and patch else None


def depth_of(vision: Any) -> int | None:
    """Returns how many blocks a vision configuration says there are."""
    names = ("num_hidden_layers", "depth")
    return next((found for name in names if isinstance(found := getattr(vision, name, None), int)), None)


def linear_widths(projector: nn.Module) -> tuple[int, int]:
    """Returns what a projector's first map reads and what its last writes; RequestError where it has none."""
    from torch import nn

    maps = [(one.in_features, one.out_features) for one in projector.modules() if isinstance(one, nn.Linear)]
    # Gemma 3 multiplies by a bare parameter, (inputs, outputs).
    maps = maps or [(p.shape[0], p.shape[1]) for p in projector.parameters() if p.dim() == 2]
    require(bool(maps), "the projector has no linear map.")
    return maps[0][0], maps[-1][1]


def layout_of(block: nn.Module, tower: nn.Module) -> tuple[Layout, str]:
    """Returns how patches come to a tower's block, and why prompts cannot stand beside them; empty where they can."""
    takes = inspect.signature(inspect.unwrap(type(block).forward)).parameters
    if "cu_seqlens" in takes:
        return "packed", ""
    if "generate_block_attention_mask" in inspect.unwrap(type(tower).forward).__code__.co_names:
        return "row", ""
    rotated = {"position_embeddings", "freqs_cis", "rotary_pos_emb"} & takes.keys()
    return "batched", _TURNED if rotated else ""


def merge_of(core: Any, projector: nn.Module, layout: Layout, read: list[int]) -> tuple[int, str]:
    """Returns the side of the square of patches that become a token, and why a prompt cannot; empty where it can.

    Args:
        layout: of `layout_of`.
        read: blocks below each hidden state that is read.
    """
    vision = core.config.vision_config
    if hasattr(core, "pack_image_features") and not packs_tiles(core):
        return 1, _TILES
    names = {type(part).__name__.lower() for part in projector.modules()}
    if any("resampler" in name or "qformer" in name for name in names):
        return 1, _LEARNT_QUERIES
    if any("table" in name for name in names):
        return 1, _WORDS
    whole = getattr(vision, "fullatt_block_indexes", None)
    if whole is not None and max(read) - 1 not in whole:
        return 1, _WINDOWS
    patches, packed = patches_of(vision), layout == "packed"
    if packed and getattr(vision, "spatial_merge_size", None):
        return vision.spatial_merge_size, ""
    tokens = getattr(core.config, "mm_tokens_per_image", None)
    # Several hidden states that are read are joined, as a square of patches is.
    read_width, width = linear_widths(projector)[0], width_of(vision) * len(read)
    if not tokens and read_width % width:
        return 1, _JOINED
    joined = (patches or 0) // tokens if tokens else read_width / width
    side = math.isqrt(int(joined))
    if not side or side * side != joined:
        return 1, _UNEVEN
    return (1, _PLACED) if side > 1 and (packed or not patches) else (side, "")


def packs_tiles(core: Any) -> bool:
    """Returns whether the core model puts an image's tiles together as a grid after its projector (LLaVA-NeXT)."""
    pack = getattr(core, "pack_image_features", None)
    return pack is not None and "image_features" in inspect.signature(pack).parameters


def builds_masks(core: Any) -> bool:
    """Returns whether the core model turns a mask of tokens into a mask of pairs before the decoder sees it."""
    used = inspect.unwrap(type(core).forward).__code__.co_names
    return any(name.startswith("create_") and "mask" in name for name in used)


def reads_last_output(core: Any) -> bool:
    """Returns whether the tower's output, after its last norm, is what is read where the configuration says -1."""
    return "last_hidden_state" in inspect.unwrap(type(core).get_image_features).__code__.co_names


def words_needed(text: Any) -> str:
    """Returns why rows cannot stand in a decoder that asks every token for its word; empty where it does not."""
    return _WORD_A_LAYER if getattr(text, "hidden_size_per_layer_input", 0) else ""


def marks_of(core: Any, family: Family) -> Any:
    """Returns the input that marks tokens, and which; None where the model takes none."""
    if family.type_ids is not None:
        return family.type_ids
    takes = inspect.signature(inspect.unwrap(type(core).forward)).parameters
    found = next((name for name in ("mm_token_type_ids", "token_type_ids") if name in takes), None)
    return found and (found, "picture")
