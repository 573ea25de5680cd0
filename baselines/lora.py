"""LoRA on every linear map of the language model, by PEFT (Hu et al. 2021, arXiv:2106.09685).

Targets are named outright: PEFT has no default for LLaVA, and its "all-linear" would also take the vision tower, the
projector, and the one vision block that never reaches the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt_bench import Method, RequestError
from mmpt_bench.common.hashing import derive
from mmpt_bench.engine.adapters.attachment import Handle, uniform
from mmpt_bench.engine.models.anatomy import ATTENTION, MLP, Anatomy, Linear
from mmpt_bench.engine.models.backbone import Backbone

_TARGETS = {"all": ATTENTION + MLP, "attention": ATTENTION, "mlp": MLP}


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank updates of the decoder's linear maps, scaled by `alpha / r`, without dropout.

    The projector is trained too by default: LLaVA's own LoRA recipe does, and the published "0.63 %" counts it.
    """

    name: ClassVar[str] = "lora"
    color: ClassVar[str] = "#0072B2"
    lr_range: ClassVar[tuple[float, float]] = (1e-5, 1e-2)
    structures = ({}, {"r": 8, "alpha": 16}, {"r": 2, "alpha": 4})

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
        self.check_choices()

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Injects the updates; A is uniform in +-1/sqrt(inputs) from `seed` and the layer's name alone, B is 0."""
        from peft import LoraConfig

        from mmpt_bench.engine.adapters.injection import attach_peft

        anatomy, leaves = backbone.anatomy, _TARGETS[self.placement]
        if not self._targets(anatomy):
            raise RequestError(f"The decoder of `{anatomy.family}` has none of {', '.join(leaves)}.")
        targets = anatomy.in_decoder(leaves)
        config = LoraConfig(r=self.r, lora_alpha=self.alpha, lora_dropout=0.0, bias="none", target_modules=targets)
        handle = attach_peft(self, backbone, config, seed)
        state = handle.state()
        for name, value in state.items():
            layer, _, part = name.partition(".lora_A.")
            if part:
                state[name] = uniform(value.shape, 1 / math.sqrt(value.shape[1]), derive(seed, layer))
        handle.load(state)
        return handle

    def count(self, anatomy: Anatomy) -> int:
        """Returns r x (inputs + outputs) over all targets, and the projector."""
        updates = self.r * sum(linear.inputs + linear.outputs for linear in self._targets(anatomy))
        return updates + self.projector_count(anatomy)

    def _targets(self, anatomy: Anatomy) -> list[Linear]:
        wanted = _TARGETS[self.placement]
        return [linear for linear in anatomy.decoder_linears if linear.name.rsplit(".", 1)[-1] in wanted]


METHOD = LoRA
