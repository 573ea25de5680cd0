"""No training: the base as it is. Every gain is measured from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmpt_bench import Method, RequestError
from mmpt_bench.engine.adapters.attachment import Attachment, Handle
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone


@dataclass(frozen=True)
class Frozen(Method):
    """Trains nothing; scores are those of the base."""

    name: ClassVar[str] = "frozen"
    color: ClassVar[str] = "#000000"
    lr_range: ClassVar[tuple[float, float]] = (0.0, 0.0)

    learning_rate: float = 0.0
    train_projector: bool = False

    def __post_init__(self) -> None:
        """Raises RequestError where training is asked for."""
        if self.train_projector or self.learning_rate:
            raise RequestError("`frozen` trains nothing. The projector alone is the method `projector`.")

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Freezes every parameter and changes nothing."""
        return Attachment(backbone).handle(self)

    def count(self, anatomy: Anatomy) -> int:
        """Returns 0."""
        return 0


METHOD = Frozen
