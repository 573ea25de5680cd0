"""VPT: prompts in the vision tower only (Jia et al. 2022, arXiv:2203.12119), deep by default, shallow by a switch."""

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
class VPT(Method):
    """Visual prompts in every vision block that is read; none of them enters the language model.

    Like every method of the field it trains the projector too by default, so that methods differ in what they add.
    """

    name: ClassVar[str] = "vpt"
    color: ClassVar[str] = "#56B4E9"
    lr_range: ClassVar[tuple[float, float]] = (1e-4, 3e-2)

    visual_length: int = 20
    """Prompts a block: MMPT's own length."""
    visual_deep: bool = True
    """VPT-deep; else VPT-shallow, one set in front of the first block."""
    init: Literal["xavier", "normal"] = "xavier"
    """What prompts start as: xavier-uniform, or normal with a deviation of 0.02."""
    train_projector: bool = True
    learning_rate: float = 7e-4
    """MMPT's, as a starting value."""

    def __post_init__(self) -> None:
        """Raises RequestError for a length that adds no prompt."""
        if self.visual_length < 1:
            raise RequestError(f"`visual_length` must be at least 1, not {self.visual_length}.")
        if self.init not in ("xavier", "normal"):
            raise RequestError(f"`init` is `xavier` or `normal`, not `{self.init}`.")

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Puts the prompts on the vision tower, drawn from `seed` alone."""
        from mmpt_bench.engine.adapters.attachment import Attachment
        from mmpt_bench.engine.prompts.bank import PromptPlan
        from mmpt_bench.engine.prompts.hooks import attach_prompts, check_plan
        from mmpt_bench.engine.prompts.peft import peft_config

        plan = PromptPlan(visual=self.visual_length, visual_deep=self.visual_deep, init=self.init)
        check_plan(backbone.model, backbone.anatomy, plan)
        attachment = Attachment(backbone)
        attach_prompts(attachment, plan, seed)
        if self.train_projector:
            attachment.open(backbone.anatomy.projector)
        opened = [backbone.anatomy.projector] * self.train_projector
        return attachment.handle(self, lambda: peft_config("VPTConfig", dataclasses.asdict(self), opened))

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of trainable parameters."""
        prompts = self.visual_length * anatomy.vision_dim * (anatomy.vision_used if self.visual_deep else 1)
        return prompts + (anatomy.projector_parameters if self.train_projector else 0)


METHOD = VPT
