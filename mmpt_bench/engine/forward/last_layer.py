"""The decoder's last layer, computed for the rows alone whose output is read.

Its keys and values are needed of all rows, since the rows that are read attend to them; its queries, what follows its
attention and its feed-forward part are not. Behind it nothing mixes rows, so the rows that are read do not change; what
the others hold there is no hidden state, and nothing may look at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor, nn

from mmpt_bench.engine.models.backbone import Backbone

_PARTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp")


@contextmanager
def rows_read(backbone: Backbone, read: Bool[Tensor, "batch tokens"]) -> Iterator[None]:
    """Inside, the last decoder layer computes the rows of a batch whose output is read; the others hold no state.

    Where a decoder's layers are built otherwise, all rows are computed. Of a sequence that is longer than `read`, as
    with prompts in front, it speaks of the last positions. Rows may differ in how many are read.
    """
    layer = backbone.model.get_submodule(backbone.anatomy.decoder_layers[-1])
    known = dict(layer.named_modules())
    with ExitStack() as hooks:
        # A layer that is recomputed in the backward pass would be so without the hooks.
        if known.keys() >= set(_PARTS) and not getattr(layer, "gradient_checkpointing", False):
            rows, positions = read.nonzero(as_tuple=True)
            for part in _PARTS:
                for hook in _hooked(known[part], rows, positions - read.shape[1]):
                    hooks.enter_context(hook)
        yield


def _hooked(module: nn.Module, rows: Int[Tensor, " chosen"], positions: Int[Tensor, " chosen"]) -> list[Any]:
    """Makes a module that treats rows alike see the chosen ones, and puts what it makes of them where they stood.

    Positions are counted from the end, because prompts stand in front of the sequence.
    """
    shapes: list[tuple[int, int]] = []

    def choose(module: nn.Module, args: tuple) -> tuple:
        hidden = args[0]
        shapes.append((hidden.shape[0], hidden.shape[1]))
        return (hidden[rows, hidden.shape[1] + positions][None], *args[1:])

    def put_back(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        batch, tokens = shapes.pop()
        whole = output.new_zeros(batch, tokens, output.shape[-1])
        return whole.index_put((rows, tokens + positions), output[0])

    # Inside all others: what a method hooks to these modules keeps seeing whole batches.
    return [module.register_forward_pre_hook(choose), module.register_forward_hook(put_back, prepend=True)]
