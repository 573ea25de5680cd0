"""Gradient checkpointing: layers keep their input alone and are computed again on the way back (Chen et al. 2016).

It is transformers' own, without reentry: values that are no input of a layer, as prompts, get their gradients too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.examples import Example
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.loss import Losses, differing
from mmpt_bench.engine.training.parallel import ALONE, Ranks


@contextmanager
def layers_recomputed(backbone: Backbone, is_on: bool) -> Iterator[None]:
    """Inside, layers of the model are computed again on the way back, where `is_on`.

    Raises RequestError for a model of transformers that cannot.
    """
    if not is_on:
        yield
        return
    _enable(backbone.model)
    try:
        yield
    finally:
        _disable(backbone.model)


def check_recomputed(
    losses: Losses, examples: Sequence[Example], trainable: Mapping[str, Tensor], ranks: Ranks = ALONE
) -> None:
    """Refuses a method whose gradients on some examples are others when layers are computed again (RequestError).

    Called inside `layers_recomputed`; where that is off, nothing is done. One that does something else at every call of
    a layer is such a method.
    """
    model = losses.backbone.model
    if not any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        return
    _disable(model)
    try:
        wanted = _probed(losses, examples, trainable, ranks)
    finally:
        _enable(model)
    try:
        is_other = differing(_probed(losses, examples, trainable, ranks), wanted, losses.backbone.dtype)
    except CheckpointError:
        is_other = "layers"
    if ranks.any(bool(is_other))[0]:
        raise RequestError(
            "With `--gradient-checkpointing` the gradients of this method are others: it does not do the same where a "
            "layer is computed twice. Leave the option out."
        )


def _probed(losses: Losses, examples: Sequence[Example], trainable: Mapping[str, Any], ranks: Ranks) -> Any:
    """Returns loss and gradients; dropout draws what it would, and the random state stays."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if ranks.way != "fsdp2":
            return losses.probe(examples, trainable)
        loss, tokens = ranks.within(partial(losses.sum_of, losses.ready(examples), list(range(len(examples)))))
        loss.backward()
    # Each rank compares its own part of them.
    made = {name: p.grad.to_local() for name, p in trainable.items() if p.grad is not None}
    for parameter in trainable.values():
        parameter.grad = None
    return loss.item() / tokens, made


def _enable(model: Any) -> None:
    try:
        _switch(model, "enable")({"use_reentrant": False})
    except ValueError as error:
        raise RequestError(f"`--gradient-checkpointing`: transformers has none for {type(model).__name__}.") from error
    # It also makes embeddings of text and patches need gradients, which reentry alone needs, and leaves them so.
    if hasattr(model, "_require_grads_hook"):
        model.disable_input_require_grads()


def _disable(model: Any) -> None:
    _switch(model, "disable")()


def _switch(model: Any, to: str) -> Callable[..., None]:
    """Returns the model's method, under its newer name where transformers has that."""
    newer = f"activation_checkpointing_{to}"
    found: Callable[..., None] = getattr(model, newer if hasattr(model, newer) else f"gradient_checkpointing_{to}")
    return found
