"""Copy this file to add a method: say here what it trains and where it was published.

As it stands, it trains the gains of the decoder's norms (LN-tuning, arXiv:2312.11420), and passes
`mmpt-bench check FILE`. A file is one method: its only class with an `attach`, named by `METHOD` at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmpt_bench import Method
from mmpt_bench.engine.adapters.attachment import Attachment, Handle
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone


@dataclass(frozen=True)
class NormTuning(Method):
    """Trains the norms of the language model."""

    name: ClassVar[str] = "norms"
    """What `--method` calls it: the file's name."""
    color: ClassVar[str] = "#F0E442"
    """Of its marks in every figure; one that the colour-blind can tell from the others."""
    lr_range: ClassVar[tuple[float, float]] = (1e-5, 1e-2)
    """Learning rates that suit it, around the default; a search looks at the same rates for every method."""

    # Hyperparameters are fields, and their defaults are part of the method; `--set field=value` changes them.
    train_projector: bool = True
    learning_rate: float = 1e-3

    # `open` trains parameters that the model has. New ones are registered on one of its modules (`register_parameter`),
    # then named to `Attachment.add`; what they do to the forward pass is a hook, taken off again by `undo_with`.
    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Opens the norms. What a method draws, it draws from `seed` alone (see `uniform` and `normal`)."""
        attachment = Attachment(backbone)
        attachment.open(*self._norms(backbone))
        if self.train_projector:
            attachment.open(backbone.anatomy.projector)
        return attachment.handle(self)

    def count(self, anatomy: Anatomy) -> int:
        """Returns two norms a layer and one at the end, each as wide as the text, and the projector."""
        norms = (2 * len(anatomy.decoder_layers) + 1) * anatomy.text_dim
        return norms + self.projector_count(anatomy)

    def _norms(self, backbone: Backbone) -> list[str]:
        decoder = backbone.model.get_submodule(backbone.anatomy.decoder)
        return [f"{backbone.anatomy.decoder}.{name}" for name, p in decoder.named_parameters() if p.dim() == 1]


METHOD = NormTuning
