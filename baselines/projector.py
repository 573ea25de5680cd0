"""Projector-only tuning: the control. 70 % of MMPT's parameters at LLaVA-7B are the projector's, 4,198,400 of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmpt_bench import Method, RequestError
from mmpt_bench.engine.adapters.attachment import Attachment, Handle
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone


@dataclass(frozen=True)
class Projector(Method):
    """Trains the map from image features to text embeddings, and nothing else."""

    name: ClassVar[str] = "projector"
    color: ClassVar[str] = "#E69F00"
    lr_range: ClassVar[tuple[float, float]] = (1e-5, 1e-2)

    learning_rate: float = 1e-3
    """What LLaVA-1.5 trains its projector at in the alignment stage (arXiv:2310.03744)."""
    train_projector: bool = True

    def __post_init__(self) -> None:
        """Raises RequestError where nothing would be trained."""
        if not self.train_projector:
            raise RequestError("`projector` without `train_projector` trains nothing: that is the method `frozen`.")

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Opens the projector; nothing is drawn, training starts from the aligned values."""
        attachment = Attachment(backbone)
        attachment.open(backbone.anatomy.projector)
        return attachment.handle(self)

    def count(self, anatomy: Anatomy) -> int:
        """Returns the projector's size."""
        return anatomy.projector_parameters


METHOD = Projector
