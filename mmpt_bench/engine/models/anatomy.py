"""Where the parts of an image-text model are, and how large: found structurally, checked, never guessed.

Module paths change between versions of transformers; what stays is that there is a decoder (`get_decoder()`), a stack
of vision blocks outside it, and a projector that carries one width to the other. The rest is a line of `families`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.models.families import FAMILIES, Family, Layout

if TYPE_CHECKING:
    from torch import nn


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

    def in_decoder(self, leaves: Iterable[str]) -> str:
        """Returns a pattern, as PEFT takes one for targets, of the decoder's modules with these last names."""
        return rf"{re.escape(self.decoder)}\..*\.({'|'.join(leaves)})"


def _size(*modules: nn.Module) -> int:
    """Returns the number of parameters in modules, each counted once."""
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)


def _longest_stack(owner: nn.Module, what: str) -> tuple[str, nn.ModuleList]:
    """Returns the name (inside `owner`) and the module of its longest ModuleList."""
    from torch import nn

    stacks = [(name, module) for name, module in owner.named_modules() if isinstance(module, nn.ModuleList)]
    if not stacks:
        raise RequestError(f"The model's {what} (`{type(owner).__name__}`) has no stack of blocks.")
    return max(stacks, key=lambda item: len(item[1]))


def _require(claim: bool, message: str) -> None:
    if not claim:
        raise RequestError(f"The model is not built as expected: {message}")


def find_anatomy(model: Any) -> Anatomy:
    """Returns the anatomy of a Hugging Face image-text model, also of one on the meta device.

    Raises RequestError where the family is unknown, or a part is not where or not as wide as its neighbours say.
    """
    config = model.config
    family = _family_of(config)
    core, head = model.base_model, model.get_output_embeddings()
    parts = dict(core.named_modules())
    _require({family.vision, family.projector} <= parts.keys(), f"no `{family.vision}` or no `{family.projector}`.")
    tower, projector = parts[family.vision], parts[family.projector]
    anatomy = Anatomy(
        family=config.model_type,
        core=_name_of(model, core),
        projector=_name_of(model, projector),
        lm_head=_name_of(model, head),
        layout=family.layout,
        drops_first=getattr(config, "vision_feature_select_strategy", "full") == "default",
        language_parameters=_size(model.get_decoder(), head),
        lm_head_parameters=_size(head),
        projector_parameters=_size(projector),
        total_parameters=_size(model),
        **_decoder_parts(model),
        **_vision_parts(model, family, tower, projector),
    )
    _check_widths(projector, anatomy.vision_dim, anatomy.text_dim)
    return anatomy


def _decoder_parts(model: Any) -> dict[str, Any]:
    """Returns the fields of an anatomy that describe the decoder."""
    from torch import nn

    decoder, text = model.get_decoder(), model.config.get_text_config()
    name, (stack, layers) = _name_of(model, decoder), _longest_stack(decoder, "decoder")
    _require(len(layers) == text.num_hidden_layers, f"{len(layers)} decoder layers.")
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    linears = [
        Linear(f"{name}.{stack}.{part}", module.in_features, module.out_features)
        for part, module in layers.named_modules()
        if isinstance(module, nn.Linear)
    ]
    key_dim = (getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * head_dim
    keys = [one for one in linears if one.name.endswith("k_proj")]
    if keys:
        _require(keys[0].outputs == key_dim, f"`k_proj` writes {keys[0].outputs} values.")
    return {
        "decoder": name,
        "decoder_layers": tuple(f"{name}.{stack}.{i}" for i in range(len(layers))),
        "text_dim": text.hidden_size,
        "key_dim": key_dim,
        "head_dim": head_dim,
        "decoder_linears": tuple(linears),
        "window": _window(text),
    }


def _vision_parts(model: Any, family: Family, tower: nn.Module, projector: nn.Module) -> dict[str, Any]:
    """Returns the fields of an anatomy that describe the vision tower, of which the projector may be a part."""
    config, vision = model.config, model.config.vision_config
    name, (stack, blocks) = _name_of(model, tower), _longest_stack(tower, "vision tower")
    _require(len(blocks) == vision.num_hidden_layers, f"{len(blocks)} vision blocks.")
    used = _used_blocks(config, family, len(blocks))
    projected = {id(p) for p in projector.parameters()}
    own = {part: p for part, p in tower.named_parameters() if id(p) not in projected}
    read = _read_names(list(own), None if _reads_output(config, family) else f"{stack}.{used - 1}.")
    return {
        "vision": name,
        "vision_layers": tuple(f"{name}.{stack}.{i}" for i in range(len(blocks))),
        "vision_used": used,
        # Qwen2-VL calls the width of the projector's output `hidden_size`.
        "vision_dim": getattr(vision, "embed_dim", None) or vision.hidden_size,
        "vision_used_names": tuple(f"{name}.{part}" for part in read),
        "vision_used_parameters": sum(own[part].numel() for part in read),
    }


def _used_blocks(config: Any, family: Family, depth: int) -> int:
    """Returns how many leading vision blocks lie below the hidden state that is read."""
    layer = getattr(config, family.feature_layer) if family.feature_layer else -1
    if not isinstance(layer, int):
        raise RequestError(f"`{family.feature_layer}: {layer}` reads several hidden states; only one is supported.")
    used = layer if layer >= 0 else depth + 1 + layer
    _require(0 < used <= depth, f"`{family.feature_layer}: {layer}` with {depth} vision blocks.")
    return used


def _read_names(names: list[str], last_block: str | None) -> list[str]:
    """Returns the parameters of a tower that what is read depends on; towers register their parts as they run them.

    `last_block` is what the names in the last block begin with; None where the tower's output is read, with its norm.
    """
    if last_block is not None:
        names = names[: max(i for i, name in enumerate(names) if name.startswith(last_block)) + 1]
    # SigLIP's pooling head stands behind all patches.
    return [name for name in names if not name.startswith("head.") and ".head." not in name]


def _reads_output(config: Any, family: Family) -> bool:
    """Returns whether the projector reads the tower's output behind its last norm."""
    # InternVL takes the output where it says -1, LLaVA the state before the norm.
    return family.feature_layer is None or (
        config.model_type == "internvl" and getattr(config, family.feature_layer) == -1
    )


def _window(config: Any) -> int | None:
    """Returns how many tokens the decoder's layers see that see the fewest; None where each sees all."""
    kinds = getattr(config, "layer_types", None)
    slides = any("sliding" in kind for kind in kinds) if kinds else getattr(config, "use_sliding_window", True)
    return (getattr(config, "sliding_window", None) or None) if slides else None


def _check_widths(projector: nn.Module, vision_dim: int, text_dim: int) -> None:
    """Raises RequestError unless the projector reads `vision_dim`, of one patch or several, and writes `text_dim`."""
    from torch import nn

    maps = [
        (module.in_features, module.out_features) for module in projector.modules() if isinstance(module, nn.Linear)
    ]
    # Gemma 3 multiplies by a bare parameter, (inputs, outputs).
    maps = maps or [(p.shape[0], p.shape[1]) for p in projector.parameters() if p.dim() == 2]
    _require(bool(maps), "the projector has no linear map.")
    inputs, outputs = maps[0][0], maps[-1][1]
    _require(
        inputs % vision_dim == 0 and outputs == text_dim,
        f"the projector maps {inputs} to {outputs}, but the tower is {vision_dim} wide and the decoder {text_dim}.",
    )


def _family_of(config: Any) -> Family:
    """Returns the family of a configuration; raises RequestError for one that is not supported."""
    if config.model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise RequestError(f"No anatomy for models of type `{config.model_type}`. Supported: {known}.")
    return FAMILIES[config.model_type]
