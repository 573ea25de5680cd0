"""Attention weights of a model's blocks as they run: computed in the plain way, which returns them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mmpt_bench.engine.models.backbone import Backbone

Weights = Float[Tensor, "heads queries keys"]


@contextmanager
def attention_returned(backbone: Backbone) -> Iterator[None]:
    """Inside, attention is computed in the plain way, which returns its weights; no parameter has a gradient."""
    modules = list(backbone.model.modules())
    configs = {id(one.config): one.config for one in modules if hasattr(one, "config")}.values()
    own = [(config, config._attn_implementation) for config in configs]
    wanted = [p for p in backbone.model.parameters() if p.requires_grad]
    for config in configs:
        config._attn_implementation = "eager"
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        with backbone.computing():
            yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for config, implementation in own:
            config._attn_implementation = implementation


@contextmanager
def attention_of(backbone: Backbone, blocks: tuple[str, ...]) -> Iterator[list[Any]]:
    """Yields a list that attention weights, (rows, heads, queries, keys), of these blocks are put into as they run."""
    found: list[Any] = []

    def put(module: Any, args: Any, output: Any) -> None:
        found.append(output[1] if isinstance(output, tuple) and len(output) > 1 else None)

    modules = [backbone.model.get_submodule(name) for name in blocks]
    hooks = [module.self_attn.register_forward_hook(put) for module in modules if hasattr(module, "self_attn")]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
