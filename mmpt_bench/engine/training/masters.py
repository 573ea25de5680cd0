"""Float32 masters of parameters that the model holds in half precision: what the optimizer moves and an adapter saves.

In bfloat16, a step smaller than 1/256 of a weight is rounded away: a learning rate that trains float32 moves nothing.
So the optimizer works on a float32 copy, gradients are summed there in float32, and the model's own parameter is the
copy, rounded, at every step: what autocast would make of it for each product, at half its memory. A parameter that is
float32 already is its own master.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmpt_bench.engine.adapters.attachment import Handle


class Masters:
    """The masters of an attached adapter, by name, while it trains; those in float32 of half precision are the handle's
    (`Handle.masters`)."""

    def __init__(self, handle: Handle) -> None:
        """Makes a float32 copy of each trainable parameter in half precision; gradients go to the copies from now."""
        self._rounded = {name: p for name, p in handle.trainable.items() if p.dtype in (torch.float16, torch.bfloat16)}
        handle.masters = {name: nn.Parameter(p.detach().float()) for name, p in self._rounded.items()}
        self.by_name: dict[str, nn.Parameter] = {**handle.trainable, **handle.masters}
        self._hooks: list[Any] = [
            parameter.register_post_accumulate_grad_hook(_moves_gradient_to(handle.masters[name]))
            for name, parameter in self._rounded.items()
        ]

    def write(self) -> None:
        """Writes the masters into the model, rounded."""
        for name, parameter in self._rounded.items():
            parameter.detach().copy_(self.by_name[name])

    def close(self) -> None:
        """Ends a training: no gradient is left; the masters stay the handle's, until it is saved."""
        for hook in self._hooks:
            hook.remove()
        self.zero_gradients()

    def zero_gradients(self) -> None:
        """Frees all gradients, also those that a backward pass cut short left half-made."""
        for parameter in (*self.by_name.values(), *self._rounded.values()):
            parameter.grad = None


def state_dtype(state: Mapping[Any, Mapping[str, Tensor]]) -> str:
    """Returns in what precision an optimizer's moments are, from its `state`: "float32"; empty before a first step."""
    kinds = {one.dtype for of in state.values() for name, one in of.items() if name != "step"}
    return ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))


def _moves_gradient_to(master: nn.Parameter) -> Any:
    """Returns a hook that adds a parameter's gradient to its master's, and leaves the parameter none."""

    def move(parameter: Tensor) -> None:
        if parameter.grad is None:
            return
        given = parameter.grad.float()
        master.grad = given if master.grad is None else master.grad.add_(given)
        parameter.grad = None

    return move
