"""Full fine-tuning of the language model and the projector; the vision tower too by a switch.

The paper's full fine-tuning leaves the vision tower frozen: 95.7 % of all parameters at LLaVA-7B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmpt_bench import Method
from mmpt_bench.engine.adapters.attachment import Attachment, Handle
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone


@dataclass(frozen=True)
class Full(Method):
    """Trains every weight of the language model; a copy of the base stays in main memory until `remove`."""

    name: ClassVar[str] = "full"
    color: ClassVar[str] = "#009E73"
    lr_range: ClassVar[tuple[float, float]] = (1e-6, 3e-3)

    train_projector: bool = True
    train_vision: bool = False
    """Opens the tower up to the last block that is read: after it no weight gets a gradient."""
    learning_rate: float = 2e-5
    """What LLaVA-1.5 trains at in the instruction stage (arXiv:2310.03744)."""

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Opens the weights; nothing is drawn."""
        anatomy = backbone.anatomy
        attachment = Attachment(backbone)
        attachment.open(anatomy.decoder, anatomy.lm_head)
        if self.train_projector:
            attachment.open(anatomy.projector)
        if self.train_vision:
            attachment.open(*anatomy.vision_used_names)
        return attachment.handle(self)

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of trainable parameters."""
        vision = anatomy.vision_used_parameters if self.train_vision else 0
        return anatomy.language_parameters + self.projector_count(anatomy) + vision


METHOD = Full
