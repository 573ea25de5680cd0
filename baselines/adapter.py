"""Bottleneck adapters: small maps after attention and feed-forward parts (Houlsby et al. 2019, arXiv:1902.00751).

Three placements: `houlsby` after attention and MLP of every block, `pfeiffer` after the MLP alone (Pfeiffer et al.
2021, arXiv:2005.00247), `parallel` beside the MLP, from what the MLP reads (He et al. 2022, arXiv:2110.04366). Each
adds `scale * up(activation(down(x)))` to the part's output, before the block's own residual sum. The papers' models
norm after that sum, where Pfeiffer's adapter reads, and Houlsby's trains the norms; here norms stand before each part
and stay as they are. `up` starts at 0, so an untrained adapter leaves the base as it is, bit for bit. Zhou et al. 2024
(arXiv:2406.05130) find adapters the best of four methods on multimodal language models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mmpt_bench import Method, RequestError
from mmpt_bench.common.hashing import derive
from mmpt_bench.engine.adapters.attachment import Attachment, Group, Handle, uniform
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

_PARTS = {"attention": ("self_attn", "attn", "attention"), "mlp": ("mlp", "feed_forward")}
"""What a block calls its two parts, in every family."""


@dataclass(frozen=True)
class Adapter(Method):
    """Bottlenecks with biases in the blocks of the language model, of the vision tower, or of both."""

    name: ClassVar[str] = "adapter"
    color: ClassVar[str] = "#882255"
    lr_range: ClassVar[tuple[float, float]] = (1e-5, 1e-2)
    structures = ({}, {"size": 32}, {"size": 16})

    kind: Literal["houlsby", "pfeiffer", "parallel"] = "houlsby"
    """After attention and MLP, after the MLP, or beside it."""
    size: int = 64
    """Width of the bottleneck: the one fixed size that Houlsby et al. report (they try 2 to 256)."""
    scale: float = 1.0
    """What the bottleneck's output is multiplied by; He et al. take 4 for `parallel`."""
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    placement: Literal["decoder", "tower", "both"] = "decoder"
    """Which blocks get bottlenecks; of the tower, those whose output is read."""
    train_projector: bool = True
    projector_rate: float = 1.0
    """Learning rate of the projector, as a factor of the method's: LLaVA-1.5's recipe for LoRA has 0.1."""
    learning_rate: float = 1e-4
    """AdapterHub's recommendation for bottleneck adapters (Pfeiffer et al. 2020, arXiv:2007.07779)."""

    def __post_init__(self) -> None:
        """Raises RequestError for a size or a scale that trains nothing, and for what has no effect."""
        if self.size < 1 or not self.scale > 0 or not self.projector_rate > 0:
            raise RequestError(
                f"`size` {self.size} must be at least 1, `scale` {self.scale:g} and `projector_rate` "
                f"{self.projector_rate:g} above 0."
            )
        self.check_choices()
        if not self.train_projector and self.projector_rate != 1.0:
            raise RequestError("`projector_rate` has no effect where the projector is not trained: leave it out.")

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Puts a bottleneck on every part: `down` is uniform in +-1/sqrt(width) from `seed`, the rest is 0."""
        from torch import nn

        attachment, model, bank = Attachment(backbone), backbone.model, nn.Module()
        try:
            for name, width in self._places(backbone.anatomy):
                part = self._part_of(model, name)
                one = self._bottleneck(width, derive(seed, name)).to(next(model.parameters()).device)
                bank.add_module(name.replace(".", "_"), one)
                attachment.undo_with(part.register_forward_hook(self._hook(one)).remove)
        except RequestError:
            attachment.remove()
            raise
        model.add_module("bottlenecks", bank)
        attachment.undo_with(delattr, model, "bottlenecks")
        for name, parameter in bank.named_parameters():
            attachment.add(f"bottlenecks.{name}", parameter)
        if self.train_projector:
            attachment.open(backbone.anatomy.projector)
        return attachment.handle(self)

    def groups(self, anatomy: Anatomy) -> tuple[Group, ...]:
        """Returns the projector, where its learning rate is another one."""
        own = self.train_projector and self.projector_rate != 1.0
        return (Group(anatomy.projector, self.projector_rate),) if own else ()

    def count(self, anatomy: Anatomy) -> int:
        """Returns 2 x size x width + size + width over all bottlenecks, and the projector."""
        own = sum(2 * self.size * width + self.size + width for _, width in self._places(anatomy))
        return own + self.projector_count(anatomy)

    def _places(self, anatomy: Anatomy) -> Iterator[tuple[str, int]]:
        """Yields (`block:part`, width) of every bottleneck."""
        parts = ("attention", "mlp") if self.kind == "houlsby" else ("mlp",)
        blocks = []
        if self.placement != "tower":
            blocks += [(name, anatomy.text_dim) for name in anatomy.decoder_layers]
        if self.placement != "decoder":
            blocks += [(name, anatomy.vision_dim) for name in anatomy.vision_layers[: anatomy.vision_used]]
        for block, width in blocks:
            for part in parts:
                yield f"{block}:{part}", width

    def _part_of(self, model: nn.Module, name: str) -> nn.Module:
        block, _, part = name.partition(":")
        children = dict(model.get_submodule(block).named_children())
        for called in _PARTS[part]:
            if called in children:
                return children[called]
        raise RequestError(f"`{block}` has no {part} part that `adapter` knows: its parts are {', '.join(children)}.")

    def _bottleneck(self, width: int, seed: int) -> nn.Module:
        """Returns down (size, width) and up (width, size) with their biases, in float32."""
        import torch
        from torch import nn

        one = nn.Module()
        one.down = nn.Parameter(uniform((self.size, width), 1 / math.sqrt(width), seed))
        one.up = nn.Parameter(torch.zeros(width, self.size))
        one.down_bias, one.up_bias = nn.Parameter(torch.zeros(self.size)), nn.Parameter(torch.zeros(width))
        return one

    def _hook(self, one: Any) -> Callable[..., Any]:
        """Returns the hook after a part; it keeps nothing, so a recomputed forward does the same."""
        from torch.nn import functional

        act = getattr(functional, self.activation)

        def change(read: Tensor, made: Tensor) -> Tensor:
            inner = act(functional.linear(read, one.down.to(read), one.down_bias.to(read)))
            return made + self.scale * functional.linear(inner, one.up.to(read), one.up_bias.to(read))

        def behind(module: nn.Module, args: tuple, output: Any) -> Any:
            made = output[0] if isinstance(output, tuple) else output
            made = change(args[0] if self.kind == "parallel" else made, made)
            return (made, *output[1:]) if isinstance(output, tuple) else made

        return behind


METHOD = Adapter
