"""Where the parts of an image-text model are, and how large: found structurally, checked, never guessed.

Module paths change between versions of transformers; what stays is that there is a decoder (`get_decoder()`), a stack
of vision blocks outside it, and a projector that carries one width to the other. The rest is a line of `families`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmpt_bench.engine.models.families import Family, Layout, kind_of
from mmpt_bench.engine.models.families import family as known_family
from mmpt_bench.engine.models.parts import (
    builds_masks,
    decoder_of,
    depth_of,
    head_of,
    layout_of,
    linear_widths,
    marks_of,
    merge_of,
    name_of,
    patches_of,
    projector_of,
    reads_last_output,
    require,
    stack_of,
    tower_of,
    width_of,
    words_needed,
)

if TYPE_CHECKING:
    from torch import nn

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj")
"""Last names of the linear maps of a decoder layer's attention, in any family; LFM2's end in `out_proj`."""
MLP = ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3")
"""The same of its MLP: GLM-4V has one map for two, LFM2 names them w1 to w3."""


@dataclass(frozen=True)
class Linear:
    """One linear map inside the decoder's layers."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Anatomy:
    """Names (as in `model.named_modules()`), widths and sizes of a model's parts."""

    family: str
    title: str
    core: str
    """The module that joins image features and text embeddings."""
    decoder: str
    decoder_layers: tuple[str, ...]
    text_dim: int
    key_dim: int
    """Width of one layer's keys, and of its values: key-value heads x head width."""
    head_dim: int
    decoder_linears: tuple[Linear, ...] = field(repr=False)
    """Every linear map inside `decoder_layers`."""
    vision: str
    vision_layers: tuple[str, ...]
    vision_used: int
    """Leading vision blocks whose output reaches the projector: 23 of 24 where LLaVA reads hidden state -2."""
    vision_read: tuple[int, ...]
    """Blocks after which the hidden states stand that the projector reads; the last is `vision_used` - 1."""
    vision_dim: int
    projector: str
    lm_head: str
    layout: Layout
    drops_first: bool
    """The first token of the tower is cut off before the projector."""
    window: int | None
    """Tokens that some decoder layer sees at most, out of which a prefix would slide; None: all of them."""
    vision_used_names: tuple[str, ...] = field(repr=False)
    """Parameters of the tower that its read hidden state depends on."""
    language_parameters: int
    """Decoder and lm_head, shared weights once."""
    lm_head_parameters: int
    projector_parameters: int
    vision_used_parameters: int
    total_parameters: int
    marks: tuple[str, str] | None = None
    """Input that marks tokens with 1, and which: those of the "picture" or of the "answer"."""
    builds_masks: bool = False
    """The core model turns a mask of tokens into a mask of pairs before the decoder sees it."""
    recurrent: bool = False
    """Some decoder layer passes states from token to token, through padding too."""
    reads_output: bool = True
    """The projector reads the tower's output, after its last norm."""
    tile_patches: int = 0
    """Patches of one tile; 0 where images have no one size."""
    merge: int = 1
    """Patches on a side of the square that becomes one token."""
    no_interaction: str = ""
    """Why visual prompts cannot enter the decoder; empty where they can."""
    no_visual: str = ""
    """Why rows cannot be put into the tower's blocks; empty where they can."""
    no_prompts: str = ""
    """Why rows cannot be put into the decoder's sequence; empty where they can."""
    no_deep: str = ""
    """Why a decoder layer's own rows would reach no answer; empty where each layer's would."""

    @property
    def reads_several(self) -> bool:
        """Whether the projector reads several hidden states of the tower."""
        return len(self.vision_read) > 1

    @property
    def parts_states(self) -> bool:
        """Whether prompts' states are parted from the patches before the projector sees them."""
        return self.merge > 1 or self.layout == "row"

    def in_decoder(self, leaves: Iterable[str]) -> str:
        """Returns a pattern, as PEFT takes one for targets, of the decoder's modules with these last names."""
        return rf"{re.escape(self.decoder)}\..*\.({'|'.join(leaves)})"


_BEHIND = "its last layer is a convolution over neighbouring tokens, which sees no prompt in front"


def _size(*modules: nn.Module) -> int:
    """Returns the number of parameters in modules, each counted once."""
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


def find_anatomy(model: Any) -> Anatomy:
    """Returns the anatomy of a Hugging Face image-text model, also of one on the meta device.

    Raises RequestError where no model of its type can be a backbone, or a part is not where or not as wide as its
    neighbours say.
    """
    config = model.config
    family = known_family(kind_of(config))
    require(not config.is_encoder_decoder, "its text is encoded and decoded by two models, of which prompts know one.")
    require(getattr(config, "vision_config", None) is not None, "its configuration has no `vision_config`.")
    core, head, decoder = model.base_model, head_of(model), decoder_of(model)
    tower = tower_of(core, decoder, family)
    projector = projector_of(core, decoder, tower, family, config.get_text_config().hidden_size)
    anatomy = Anatomy(
        family=kind_of(config),
        title=family.title,
        core=name_of(model, core),
        projector=name_of(model, projector),
        lm_head=name_of(model, head),
        drops_first=getattr(config, "vision_feature_select_strategy", "full") == "default",
        builds_masks=builds_masks(core),
        marks=marks_of(core, family),
        no_prompts=family.no_prompts or words_needed(config.get_text_config()),
        no_deep=_BEHIND if "conv" in (_kinds(config.get_text_config()) or [""])[-1] else "",
        language_parameters=_size(decoder, head),
        lm_head_parameters=_size(head),
        projector_parameters=_size(projector),
        total_parameters=_size(model),
        **_decoder_parts(model, decoder),
        **_vision_parts(model, family, tower, projector),
    )
    return anatomy


def _decoder_parts(model: Any, decoder: Any) -> dict[str, Any]:
    """Returns the fields of an anatomy that describe the decoder."""
    from torch import nn

    text = model.config.get_text_config()
    name, (stack, layers) = name_of(model, decoder), stack_of(decoder, text.num_hidden_layers, "decoder")
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    linears = [
        Linear(f"{name}.{stack}.{part}", module.in_features, module.out_features)
        for part, module in layers.named_modules()
        if isinstance(module, nn.Linear)
    ]
    key_dim = (getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * head_dim
    keys = [one for one in linears if one.name.endswith("k_proj")]
    if keys:
        require(keys[0].outputs == key_dim, f"`k_proj` writes {keys[0].outputs} values.")
    return {
        "decoder": name,
        "decoder_layers": tuple(f"{name}.{stack}.{i}" for i in range(len(layers))),
        "text_dim": text.hidden_size,
        "key_dim": key_dim,
        "head_dim": head_dim,
        "decoder_linears": tuple(linears),
        "window": _window(text),
        "recurrent": any(
            "full" not in kind and "sliding" not in kind and "chunked" not in kind for kind in _kinds(text)
        ),
    }


def _vision_parts(model: Any, family: Family, tower: nn.Module, projector: nn.Module) -> dict[str, Any]:
    """Returns the fields of an anatomy that describe the vision tower, of which the projector may be a part."""
    config, vision = model.config, model.config.vision_config
    name, (stack, blocks) = name_of(model, tower), stack_of(tower, depth_of(vision), "vision tower")
    read_layers = _read_layers(config, len(blocks))
    used = max(read_layers)
    projected = {id(p) for p in projector.parameters()}
    own = {part: p for part, p in tower.named_parameters() if id(p) not in projected}
    whole = _reads_output(model.base_model, read_layers, len(blocks))
    read = _read_names(list(own), None if whole else f"{stack}.{used - 1}.")
    layout, turned = layout_of(blocks[0], tower)
    merge, mixes = merge_of(model.base_model, projector, layout, read_layers)
    _check_widths(tower, projector, width_of(vision) * len(read_layers), config.get_text_config().hidden_size)
    return {
        "vision": name,
        "vision_layers": tuple(f"{name}.{stack}.{i}" for i in range(len(blocks))),
        "vision_used": used,
        "vision_read": tuple(sorted({layer - 1 for layer in read_layers})),
        "vision_dim": width_of(vision),
        "vision_used_names": tuple(f"{name}.{part}" for part in read),
        "vision_used_parameters": sum(own[part].numel() for part in read),
        "layout": layout,
        "merge": merge,
        "reads_output": whole,
        "tile_patches": patches_of(vision) or 0,
        "no_visual": family.no_visual or turned,
        "no_interaction": family.mixes_patches or mixes,
    }


def _read_layers(config: Any, depth: int) -> list[int]:
    """Returns how many leading vision blocks lie below each hidden state that is read."""
    given = getattr(config, "vision_feature_layer", None)
    layers = [-1] if given is None else [given] if isinstance(given, int) else list(given)
    used = [layer if layer >= 0 else depth + 1 + layer for layer in layers]
    require(bool(used) and 0 < min(used) <= max(used) <= depth, f"`vision_feature_layer: {given}` with {depth} blocks.")
    return used


def _read_names(names: list[str], last_block: str | None) -> list[str]:
    """Returns the parameters of a tower that what is read depends on; towers register their parts as they run them.

    `last_block` is what the names in the last block begin with; None where the tower's output is read, with its norm.
    """
    if last_block is not None:
        names = names[: max(i for i, name in enumerate(names) if name.startswith(last_block)) + 1]
    # SigLIP's pooling head stands after all patches.
    return [name for name in names if not name.startswith("head.") and ".head." not in name]


def _reads_output(core: Any, layers: list[int], depth: int) -> bool:
    """Returns whether the projector reads the tower's output after its last norm."""
    if getattr(core.config, "vision_feature_layer", None) is None:
        return True
    # InternVL takes the output where it says -1, LLaVA the state before the norm.
    return layers == [depth] and core.config.vision_feature_layer == -1 and reads_last_output(core)


def _kinds(config: Any) -> list[str]:
    """Returns what kind each decoder layer is, where the configuration says it."""
    return list(getattr(config, "layer_types", None) or [])


def _window(config: Any) -> int | None:
    """Returns how many tokens the decoder's layers see that see the fewest; None where each sees all."""
    kinds = _kinds(config)
    if any("chunked" in kind for kind in kinds):
        return getattr(config, "attention_chunk_size", None)
    slides = any("sliding" in kind for kind in kinds) if kinds else getattr(config, "use_sliding_window", True)
    return (getattr(config, "sliding_window", None) or None) if slides else None


def _check_widths(tower: nn.Module, projector: nn.Module, vision_dim: int, text_dim: int) -> None:
    """Raises RequestError unless a projector reads `vision_dim`, of one patch or several, and writes `text_dim`."""
    from torch import nn

    inputs, outputs = linear_widths(projector)
    # Ovis2 has a table of visual words, of which a patch is a mixture. Llama 4's tower ends with maps to another width.
    table = any(isinstance(one, nn.Embedding) for one in projector.modules())
    widened = linear_widths(tower)[1] == inputs and vision_dim % inputs != 0
    require(
        (table or widened or inputs % vision_dim == 0) and outputs == text_dim,
        f"the projector maps {inputs} to {outputs}, but what it reads is {vision_dim} wide and the decoder {text_dim}.",
    )
