"""Prefix tuning: trained keys and values in every decoder layer (Li & Liang 2021, arXiv:2101.00190).

There is no reparametrisation. A key is what the layer's own key projection would have written: the model rotates it to
its place, position 0 to `length` - 1, and the text follows from position `length` on. So training, generation with a
cache and without one, and every padding see the same distances.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from mmpt_bench import Method, RequestError

if TYPE_CHECKING:
    from mmpt_bench.engine.adapters.attachment import Handle
    from mmpt_bench.engine.models.anatomy import Anatomy
    from mmpt_bench.engine.models.backbone import Backbone


@dataclass(frozen=True)
class Prefix(Method):
    """A key-value prefix in the language model; with the projector by default, as every method of the field."""

    name: ClassVar[str] = "prefix"
    color: ClassVar[str] = "#CC79A7"
    lr_range: ClassVar[tuple[float, float]] = (1e-4, 1e-1)

    length: int = 10
    """Keys and values a layer: the length of MMPT's textual prompts."""
    init: Literal["xavier", "normal"] = "xavier"
    """What keys and values start as: xavier-uniform, or normal with a deviation of 0.02."""
    train_projector: bool = True
    learning_rate: float = 1e-2
    """A starting value; raw keys move little at the rates that suit weights."""

    def __post_init__(self) -> None:
        """Raises RequestError for a length that adds no prefix."""
        if self.length < 1:
            raise RequestError(f"`length` must be at least 1, not {self.length}.")
        if self.init not in ("xavier", "normal"):
            raise RequestError(f"`init` is `xavier` or `normal`, not `{self.init}`.")

    @property
    def decoder_rows(self) -> int:
        """Returns how many rows stand in front of the decoder's sequence."""
        return self.length

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Puts the prefix on the decoder, drawn from `seed` alone."""
        from mmpt_bench.engine.adapters.attachment import Attachment
        from mmpt_bench.engine.prompts.bank import PromptPlan
        from mmpt_bench.engine.prompts.hooks import attach_prompts, check_plan
        from mmpt_bench.engine.prompts.peft import peft_config

        plan = PromptPlan(keys=self.length, init=self.init)
        check_plan(backbone.model, backbone.anatomy, plan)
        attachment = Attachment(backbone)
        attach_prompts(attachment, plan, seed)
        if self.train_projector:
            attachment.open(backbone.anatomy.projector)
        opened = [backbone.anatomy.projector] * self.train_projector
        return attachment.handle(self, lambda: peft_config("KVPrefixConfig", dataclasses.asdict(self), opened))

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of trainable parameters."""
        prefix = 2 * self.length * anatomy.key_dim * len(anatomy.decoder_layers)
        return prefix + (anatomy.projector_parameters if self.train_projector else 0)


METHOD = Prefix
