"""LoRA on every linear map of the language model, by PEFT (Hu et al. 2021, arXiv:2106.09685).

Targets are named outright: PEFT has no default for LLaVA, and its "all-linear" would also take the vision tower, the
projector, and the one vision block that never reaches the loss.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mmpt_bench import Method, RequestError

if TYPE_CHECKING:
    from mmpt_bench.engine.adapters.attachment import Handle
    from mmpt_bench.engine.models.anatomy import Anatomy
    from mmpt_bench.engine.models.backbone import Backbone

_ATTENTION, _MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
_TARGETS = {"all": _ATTENTION + _MLP, "attention": _ATTENTION, "mlp": _MLP}


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank updates of the decoder's linear maps, scaled by `alpha / r`, without dropout.

    The projector is trained too by default: LLaVA's own LoRA recipe does, and the published "0.63 %" counts it.
    """

    name: ClassVar[str] = "lora"
    color: ClassVar[str] = "#0072B2"
    lr_range: ClassVar[tuple[float, float]] = (1e-5, 1e-2)

    r: int = 16
    alpha: int = 32
    placement: Literal["all", "attention", "mlp"] = "all"
    """Which linear maps of the decoder's layers are updated."""
    train_projector: bool = True
    learning_rate: float = 2e-4
    """What LLaVA-1.5's LoRA recipe uses for the language model."""

    def __post_init__(self) -> None:
        """Raises RequestError for a rank or scale that would train nothing."""
        if self.r < 1 or self.alpha < 1:
            raise RequestError(f"`r` {self.r} and `alpha` {self.alpha} must be at least 1.")
        if self.placement not in _TARGETS:
            raise RequestError(f"`placement` is `all`, `attention` or `mlp`, not `{self.placement}`.")

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Injects the updates; A is uniform in +-1/sqrt(inputs) from `seed` and the layer's name alone, B is 0."""
        from mmpt_bench.engine.adapters.attachment import Attachment

        if hasattr(backbone.model, "peft_config"):
            raise RequestError("The backbone already carries an adapter of PEFT: remove it first.")
        targets = self._targets(backbone.anatomy)
        attachment = Attachment(backbone)
        config = self._inject(attachment, targets, seed)
        if self.train_projector:
            attachment.open(backbone.anatomy.projector)
            config["modules_to_save"] = [backbone.anatomy.projector.rsplit(".", 1)[-1]]
        return attachment.handle(self, config)

    def count(self, anatomy: Anatomy) -> int:
        """Returns r x (inputs + outputs) over all targets, and the projector."""
        wanted = _TARGETS[self.placement]
        pairs = [(m.inputs, m.outputs) for m in anatomy.decoder_linears if m.name.rsplit(".", 1)[-1] in wanted]
        projector = anatomy.projector_parameters if self.train_projector else 0
        return self.r * sum(inputs + outputs for inputs, outputs in pairs) + projector

    def _targets(self, anatomy: Anatomy) -> list[str]:
        wanted = _TARGETS[self.placement]
        names = [m.name for m in anatomy.decoder_linears if m.name.rsplit(".", 1)[-1] in wanted]
        if not names:
            raise RequestError(f"The decoder of `{anatomy.family}` has none of {', '.join(wanted)}.")
        return names

    def _inject(self, attachment: Any, targets: list[str], seed: int) -> dict[str, Any]:
        """Puts LoRA layers in the place of the targets and opens them; returns PEFT's configuration as plain values."""
        import torch
        from peft import LoraConfig, inject_adapter_in_model

        from mmpt_bench.common.hashing import derive
        from mmpt_bench.engine.adapters.attachment import uniform
        from mmpt_bench.engine.adapters.saved import plain_config

        model, decoder = attachment.backbone.model, attachment.backbone.anatomy.decoder
        pattern = rf"{re.escape(decoder)}\..*\.({'|'.join(_TARGETS[self.placement])})"
        config = LoraConfig(r=self.r, lora_alpha=self.alpha, lora_dropout=0.0, bias="none", target_modules=pattern)
        plain = plain_config(config)
        # PEFT draws its own values from the global generator, whose state is not ours to move.
        with torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(config, model)
        attachment.undo_with(lambda: _take_out(model, targets))
        for name in targets:
            for part in ("lora_A", "lora_B"):
                weight = model.get_submodule(f"{name}.{part}.default").weight
                if part == "lora_A":
                    values = uniform(weight.shape, 1 / math.sqrt(weight.shape[1]), derive(seed, name))
                    with torch.no_grad():
                        weight.copy_(values)
                attachment.add(f"{name}.{part}.weight", weight)
        return plain


def _take_out(model: Any, targets: list[str]) -> None:
    """Puts the base's own layers back, which injected updates never change."""
    for name in targets:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, model.get_submodule(name).base_layer)
    del model.peft_config


METHOD = LoRA
