"""Rows of a block that nothing reads are not computed: those without a label, and prompts that the next block replaces.

Keys and values are needed of all rows, since the rows that are read attend to them. Queries, what follows attention and
the feed-forward part treat each row by itself, and are made of the rows alone that are read. What the others hold
behind such a block is no hidden state, and nothing may look at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor, nn

    from mmpt_bench.backbone import Backbone

_PARTS = (("self_attn.q_proj",), ("self_attn.o_proj", "self_attn.out_proj"), ("mlp",))
"""What treats each row by itself, by the names it may have."""


def row_wise(block: nn.Module) -> list[nn.Module]:
    """Returns the parts of a block that treat each row by itself; none where the block is built otherwise."""
    known = dict(block.named_modules())
    found = [next((known[name] for name in names if name in known), None) for names in _PARTS]
    return [] if None in found else [part for part in found if part is not None]


@contextmanager
def rows_read(backbone: Backbone, read: Bool[Tensor, "batch tokens"]) -> Iterator[None]:
    """Inside, the last decoder layer computes the rows of a batch whose output is read; the others hold no state.

    Args:
        backbone: of any family; where its layers are built otherwise, all rows are computed.
        read: which positions; of a longer sequence, as with prompts in front, the last ones. Rows may differ in number.
    """
    layer = backbone.model.get_submodule(backbone.anatomy.decoder_layers[-1])
    hooks: list[Any] = []
    # A layer that is recomputed in the backward pass would be so without the hooks.
    if not getattr(layer, "gradient_checkpointing", False):
        rows, positions = read.nonzero(as_tuple=True)
        for part in row_wise(layer):
            hooks += _hook(part, rows, positions - read.shape[1])
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Unread:
    """Rows at one end of a block's input that nothing reads behind it: prompts which the next block replaces.

    Their number is set before every call of the block, and holds for that call alone.
    """

    def __init__(self, in_front: bool) -> None:
        self.rows, self.in_front = 0, in_front

    def hook(self, block: nn.Module) -> list[Any]:
        """Leaves the rows out of what treats each row by itself; returns the hooks' handles."""
        parts = row_wise(block)
        return [part.register_forward_pre_hook(self._leave_out) for part in parts] + [
            part.register_forward_hook(self._fill_up) for part in parts
        ]

    def _leave_out(self, module: nn.Module, args: tuple) -> tuple:
        if not self.rows:
            return args
        hidden = args[0]
        return (hidden[:, self.rows :] if self.in_front else hidden[:, : -self.rows], *args[1:])

    def _fill_up(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        import torch

        if not self.rows:
            return output
        return torch.nn.functional.pad(output, (0, 0, self.rows, 0) if self.in_front else (0, 0, 0, self.rows))


def _hook(module: nn.Module, rows: Int[Tensor, " chosen"], positions: Int[Tensor, " chosen"]) -> list[Any]:
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

    # Inside all others: what an adapter hooks to these modules keeps seeing whole batches.
    return [module.register_forward_pre_hook(choose), module.register_forward_hook(put_back, prepend=True)]
