"""The decoder's last layer, computed for the rows alone whose output is read.

Its keys and values are needed of all rows, since the rows that are read attend to them; its queries, what follows its
attention and its feed-forward part are not. After it nothing mixes rows, so the rows that are read do not change; what
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
    with ExitStack() as inside:
        # A layer that is recomputed in the backward pass would be so for all rows.
        if known.keys() >= set(_PARTS) and not getattr(layer, "gradient_checkpointing", False):
            rows, positions = read.nonzero(as_tuple=True)
            for part in _PARTS:
                inside.enter_context(_chosen(known[part], rows, positions - read.shape[1]))
        yield


@contextmanager
def _chosen(module: nn.Module, rows: Int[Tensor, " chosen"], positions: Int[Tensor, " chosen"]) -> Iterator[None]:
    """Makes a module that treats rows alike compute the chosen ones, and puts what it makes of them where they stood.

    Positions are counted from the end, because prompts stand in front of the sequence. Its forward is wrapped, so that
    what a method hooks to the module reads and sees whole batches.
    """
    computed, had_own = module.forward, "forward" in vars(module)

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        own, at = rows.to(hidden.device), (hidden.shape[1] + positions).to(hidden.device)
        made = computed(hidden[own, at][None], *args, **kwargs)
        whole: Tensor = made.new_zeros(*hidden.shape[:2], made.shape[-1])
        return whole.index_put((own, at), made[0])

    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward
        if had_own:
            module.forward = computed  # type: ignore[method-assign]
