"""LoRA's update added to the frozen layer's output in one autograd step, in training.

PEFT makes a tensor of the update, of the scaled update and of the sum; here the update is added where the output
already is. The arithmetic is the same to rounding. A layer that does more than plain LoRA is left to PEFT.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmpt_bench.engine.models.backbone import Backbone


class WithUpdate(torch.autograd.Function):
    """x W' + b + scale (x A') B', of (rows, in), (out, in), (out,) or None, (r, in) and (out, r)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        """Returns (rows, out), in the precision of `weight`; `down` and `up` may be float32 in half precision."""
        x, down, up = (one.to(weight.dtype) for one in (x, down, up))
        low = x @ down.T
        ctx.save_for_backward(x, weight, down, up, low)
        ctx.scale = scale
        return nn.functional.linear(x, weight, bias).addmm_(low, up.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Returns the gradients of `x`, `down` and `up`; weight and bias have none."""
        x, weight, down, up, low = ctx.saved_tensors
        grad = grads[0].to(weight.dtype)
        of_low = (grad @ up).mul_(ctx.scale)
        of_x = (grad @ weight).addmm_(of_low, down) if ctx.needs_input_grad[0] else None
        of_down = of_low.T @ x if ctx.needs_input_grad[3] else None
        of_up = (grad.T @ low).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
        # Autograd gives each back in its input's precision.
        return of_x, None, None, of_down, of_up, None


@contextmanager
def updates_fused(backbone: Backbone) -> Iterator[None]:
    """Inside, plain LoRA layers of PEFT compute base and update in one step; others are left as they are."""
    layers = [layer for layer in backbone.model.modules() if hasattr(layer, "lora_A") and _is_plain(layer)]
    for layer in layers:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(layer: Any) -> bool:
    """Returns whether a layer is a frozen `nn.Linear` with one active update, without dropout, and nothing else."""
    from peft.tuners.lora.layer import Linear

    if type(layer) is not Linear or type(layer.base_layer) is not nn.Linear or "forward" in vars(layer):
        return False
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(active) != 1 or layer.disable_adapters or layer.merged or layer.lora_variant:
        return False
    base, down, up = layer.base_layer, layer.lora_A[active[0]], layer.lora_B[active[0]]
    if base.weight.requires_grad or (base.bias is not None and base.bias.requires_grad):
        return False
    same_dtype = down.weight.dtype == up.weight.dtype and down.weight.dtype in (base.weight.dtype, torch.float32)
    without_bias = down.bias is None and up.bias is None
    return same_dtype and without_bias and isinstance(layer.lora_dropout[active[0]], nn.Identity)


def _forward(layer: Any, x: Tensor) -> Tensor:
    (name,) = [name for name in layer.active_adapters if name in layer.lora_A]
    base: nn.Linear = layer.base_layer
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    made: Tensor = WithUpdate.apply(x.flatten(0, -2), base.weight, base.bias, down, up, layer.scaling[name])
    return made.view(*x.shape[:-1], made.shape[-1])
