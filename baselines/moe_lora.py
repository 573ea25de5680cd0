"""LoRA experts on the language model's MLPs, weighed token by token (LoRAMoE, Dou et al. 2023, arXiv:2312.09979).

Each linear map has `experts` updates of rank `r` and a router. A token's update is their sum, weighed by the softmax of
the router's logits for that token; all experts are computed, so all parameters are active. With `routing=uniform` every
expert weighs the same and there is no router: the control, one LoRA of rank experts x r, without which a gain of the
routing proves nothing (routers are parameters, too: a tenth more than the control has on LLaVA-7B). LoRAMoE's term that
keeps some experts for world knowledge is left out: it needs training data sorted by hand. PEFT has no such method: its
X-LoRA mixes adapters that are trained already.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mmpt_bench import Method, RequestError
from mmpt_bench.common.hashing import derive
from mmpt_bench.engine.adapters.attachment import Attachment, Handle, uniform
from mmpt_bench.engine.models.anatomy import ATTENTION, MLP, Anatomy, Linear
from mmpt_bench.engine.models.backbone import Backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

_TARGETS = {"all": ATTENTION + MLP, "mlp": MLP}


@dataclass(frozen=True)
class MoELoRA(Method):
    """Experts of low rank with a router each, in every layer of the language model."""

    name: ClassVar[str] = "moe_lora"
    color: ClassVar[str] = "#332288"
    lr_range: ClassVar[tuple[float, float]] = (1e-5, 1e-2)
    structures = ({}, {"experts": 2}, {"experts": 8, "r": 2})

    experts: int = 4
    r: int = 4
    """Rank of each expert; experts x r is 16, the rank of `lora`, by default."""
    alpha: int = 8
    """Updates are scaled by alpha / r, and weights sum to 1: with equal weights alpha / (experts x r), as in `lora`."""
    routing: Literal["token", "uniform"] = "token"
    """By a router for each token, or all experts alike."""
    placement: Literal["mlp", "all"] = "mlp"
    """Which linear maps of the decoder's layers have experts: LoRAMoE's are the MLP's."""
    train_projector: bool = True
    learning_rate: float = 2e-4
    """That of `lora`; not searched."""

    def __post_init__(self) -> None:
        """Raises RequestError for numbers that would train nothing, and for a mixture of one."""
        if self.experts < 2 or self.r < 1 or self.alpha < 1:
            raise RequestError(
                f"`experts` {self.experts} must be at least 2 (one is `lora`), `r` {self.r} and `alpha` {self.alpha} "
                "at least 1."
            )
        self.check_choices()

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Puts experts on every map: `a` is uniform in +-1/sqrt(inputs) from `seed`, `b` and the router are 0."""
        from torch import nn

        anatomy = backbone.anatomy
        if not self._targets(anatomy):
            raise RequestError(f"The decoder of `{anatomy.family}` has none of {', '.join(_TARGETS[self.placement])}.")
        attachment, model, bank = Attachment(backbone), backbone.model, nn.Module()
        for linear in self._targets(anatomy):
            one = self._experts(linear, derive(seed, linear.name)).to(next(model.parameters()).device)
            bank.add_module(linear.name.replace(".", "_"), one)
            hook = model.get_submodule(linear.name).register_forward_hook(self._hook(one))
            attachment.undo_with(hook.remove)
        model.add_module("experts", bank)
        attachment.undo_with(delattr, model, "experts")
        for name, parameter in bank.named_parameters():
            attachment.add(f"experts.{name}", parameter)
        if self.train_projector:
            attachment.open(anatomy.projector)
        return attachment.handle(self)

    def count(self, anatomy: Anatomy) -> int:
        """Returns experts x r x (inputs + outputs) + experts x inputs over all targets, and the projector."""
        routers = self.experts if self.routing == "token" else 0
        own = sum(
            self.experts * self.r * (linear.inputs + linear.outputs) + routers * linear.inputs
            for linear in self._targets(anatomy)
        )
        return own + self.projector_count(anatomy)

    def _targets(self, anatomy: Anatomy) -> list[Linear]:
        wanted = _TARGETS[self.placement]
        return [linear for linear in anatomy.decoder_linears if linear.name.rsplit(".", 1)[-1] in wanted]

    def _experts(self, linear: Linear, seed: int) -> nn.Module:
        """Returns a (experts x r, inputs), b (outputs, experts x r) and router (experts, inputs), in float32."""
        import torch
        from torch import nn

        one, rank = nn.Module(), self.experts * self.r
        one.a = nn.Parameter(uniform((rank, linear.inputs), 1 / math.sqrt(linear.inputs), seed))
        one.b = nn.Parameter(torch.zeros(linear.outputs, rank))
        if self.routing == "token":
            one.router = nn.Parameter(torch.zeros(self.experts, linear.inputs))
        return one

    def _hook(self, one: Any) -> Callable[..., Any]:
        """Returns the hook after a linear map; it keeps nothing, so a recomputed forward does the same."""
        from torch.nn import functional

        def behind(module: nn.Module, args: tuple, made: Tensor) -> Tensor:
            read = args[0]
            inner = functional.linear(read, one.a.to(read))
            if self.routing == "token":
                weights = functional.linear(read, one.router.to(read)).float().softmax(-1).to(read)
                inner = (inner.unflatten(-1, (self.experts, self.r)) * weights[..., None]).flatten(-2)
            else:
                inner = inner / self.experts
            return made + self.alpha / self.r * functional.linear(inner, one.b.to(read))

        return behind


METHOD = MoELoRA
