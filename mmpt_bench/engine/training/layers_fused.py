"""A decoder layer's norms and rotation in fewer passes over memory, in training.

Between its matrix products a layer of Llama's kind makes a tensor of every square, product, negated half and sum, and
another of each one's gradient. Here a norm is one autograd step, and so is a rotation, each working where its values
already are. The arithmetic is the same to rounding. Only in float32, and only where the model's own norm and rotation
give the same on values tried first; elsewhere they are left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmpt_bench.engine.prompts.as_keys import TEXT_MODELS

if TYPE_CHECKING:
    from mmpt_bench.engine.models.backbone import Backbone

_ROTATE = "apply_rotary_pos_emb"


class Norm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + epsilon) * weight, of (..., dim) and (dim,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Returns the shape of `x`."""
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        inverse = squares.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Returns the gradients of `x` and `weight`, where they are wanted."""
        x, weight, inverse = ctx.saved_tensors
        (grad,) = grads
        of_x = of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (grad * x).mul_(inverse).flatten(0, -2).sum(0)
        if ctx.needs_input_grad[0]:
            of_x = grad * weight
            along = (of_x * x).sum(-1, keepdim=True).mul_(inverse.pow(3)).div_(x.shape[-1])
            of_x = of_x.mul_(inverse).addcmul_(x, along, value=-1)
        return of_x, of_weight, None


class Rotation(torch.autograd.Function):
    """Queries or keys turned by their positions, (batch, heads, tokens, width)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Returns the shape of `x`."""
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Returns the gradient of `x`: turned back."""
        cos, sin = ctx.saved_tensors
        # What a half was given of the other goes back to that one, at the angle that it was turned by.
        return _turned(grads[0], cos, sin.roll(sin.shape[-1] // 2, -1), -1), None, None


@contextmanager
def layers_fused(backbone: Backbone) -> Iterator[None]:
    """Inside, the norms and the rotation of a decoder of Llama's kind are one autograd step each."""
    decoder = backbone.model.get_submodule(backbone.anatomy.decoder)
    plain = decoder.config.model_type in TEXT_MODELS and backbone.dtype == "float32"
    norms = [module for module in decoder.modules() if plain and _is_norm(module)]
    # The attention of a decoder finds it by this name in its module, with no place to put another on the model.
    attention = backbone.model.get_submodule(backbone.anatomy.decoder_layers[0])
    module = sys.modules[type(attention).__module__]
    rotate = getattr(module, _ROTATE, None)
    try:
        for norm in norms:
            norm.forward = partial(_normed, norm)  # type: ignore[method-assign]
        if plain and rotate is not None and _turns_alike(rotate, backbone.anatomy.head_dim):
            setattr(module, _ROTATE, _rotated)
        yield
    finally:
        for norm in norms:
            del norm.forward
        if rotate is not None:
            setattr(module, _ROTATE, rotate)


def _is_norm(module: Any) -> bool:
    """Returns whether a module is an RMS norm of float32, hooked or not, whose output is `Norm`'s."""
    epsilon, weight = getattr(module, "variance_epsilon", None), getattr(module, "weight", None)
    named = type(module).__name__.endswith("RMSNorm") and "forward" not in vars(module)
    if not named or epsilon is None or weight is None or weight.dtype != torch.float32:
        return False
    tried = _values(3, len(weight)).to(weight.device)
    with torch.no_grad():
        return torch.allclose(type(module).forward(module, tried), Norm.apply(tried, weight, epsilon), 1e-5, 1e-6)


def _turns_alike(rotate: Callable[..., Any], width: int) -> bool:
    """Returns whether a model's rotation of queries and keys of this width is `_rotated`."""
    query, key = _values(1, 2, 3, width), _values(1, 1, 3, width)
    angles = _values(1, 3, width // 2).repeat(1, 1, 2)
    try:
        wanted = rotate(query, key, angles.cos(), angles.sin())
    except (TypeError, RuntimeError):
        return False
    found = _rotated(query, key, angles.cos(), angles.sin())
    return all(torch.allclose(one, other, 1e-5, 1e-6) for one, other in zip(wanted, found, strict=True))


def _values(*shape: int) -> Tensor:
    """Returns normal values that leave the random state of torch alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _normed(norm: Any, hidden_states: Tensor) -> Tensor:
    made: Tensor = Norm.apply(hidden_states, norm.weight, norm.variance_epsilon)
    return made


def _rotated(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return Rotation.apply(q, cos, sin), Rotation.apply(k, cos, sin)


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """Returns x cos + sign * (x with its halves swapped, the second negated) sin."""
    half = x.shape[-1] // 2
    made = x * cos
    made[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-sign)
    made[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return made
