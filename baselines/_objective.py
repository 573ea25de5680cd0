"""Objective: say here what the loss has beside the answers, and where that was published.

As it stands, it trains the gains of the decoder's norms and the projector, and adds two terms to the loss: the entropy
of the answers, which keeps them from being too sure (Pereyra et al. 2017, arXiv:1701.06548), and the squared distance
of the gains from 1. Each term is logged and drawn under its name; `mmpt-bench check FILE` trains with both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mmpt_bench import Method, RequestError
from mmpt_bench.engine.adapters.attachment import Attachment, Group, Handle
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone

if TYPE_CHECKING:
    from torch import Tensor

    from mmpt_bench.engine.training.objective import Batch, Context, Outputs


@dataclass(frozen=True)
class Objective(Method):
    """Trains the norms of the language model with two more terms in the loss."""

    name: ClassVar[str] = "objective"
    color: ClassVar[str] = "#F0E442"
    lr_range: ClassVar[tuple[float, float]] = (1e-5, 1e-2)

    entropy: float = 0.01
    """Weight of the entropy, which is taken off the loss."""
    distance: float = 0.01
    """Weight of the squared distance of the norms' gains from 1."""
    train_projector: bool = True
    projector_rate: float = 0.1
    """Learning rate of the projector, as a factor of the method's."""
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        """Raises RequestError for weights and a rate that cannot be."""
        if min(self.entropy, self.distance) < 0 or not self.projector_rate > 0:
            raise RequestError("`entropy` and `distance` are 0 or more, and `projector_rate` is above 0.")

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Opens the norms, and the projector; nothing is drawn."""
        attachment = Attachment(backbone)
        decoder = backbone.model.get_submodule(backbone.anatomy.decoder)
        attachment.open(
            *[f"{backbone.anatomy.decoder}.{name}" for name, p in decoder.named_parameters() if p.dim() == 1]
        )
        if self.train_projector:
            attachment.open(backbone.anatomy.projector)
        return attachment.handle(self)

    def objective(self, batch: Batch, outputs: Outputs, context: Context) -> Mapping[str, Tensor]:
        """Returns each term as a sum over the answer tokens, in nats, with its weight in it."""
        log_p = outputs.logits.float().log_softmax(-1)
        norms = [p for name, p in context.parameters.items() if not name.startswith(context.backbone.anatomy.projector)]
        away = log_p.new_zeros(())
        for gains in norms:
            away = away + (gains.float() - 1).square().sum()
        # A penalty on parameters is multiplied by the number of tokens, and so counts once a step.
        return {
            "entropy": self.entropy * (log_p.exp() * log_p).sum(),
            "distance": self.distance * away * len(batch.labels),
        }

    def groups(self, anatomy: Anatomy) -> tuple[Group, ...]:
        """Returns the projector, whose learning rate is another one."""
        return (Group(anatomy.projector, rate=self.projector_rate),) if self.train_projector else ()

    def count(self, anatomy: Anatomy) -> int:
        """Returns two norms a layer and one at the end, each as wide as the text, and the projector."""
        return (2 * len(anatomy.decoder_layers) + 1) * anatomy.text_dim + self.projector_count(anatomy)


METHOD = Objective
