"""One interface for every way to adapt a model: attach to a backbone, train what comes back, save it, take it off.

An `Adapter` is a frozen dataclass of hyperparameters. `attach` changes a loaded backbone and returns a `Handle`;
`Handle.remove` restores the backbone bit for bit. What every method is given alike is the `Budget` (recipe.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from mmpt_bench.engine.adapters.attachment import Handle

if TYPE_CHECKING:
    from mmpt_bench.engine.models.anatomy import Anatomy
    from mmpt_bench.engine.models.backbone import Backbone


class Adapter(Protocol):
    """A way to adapt a backbone: hyperparameters, and what they do to a model."""

    name: ClassVar[str]
    """What `--method` calls it."""
    color: ClassVar[str]
    """Hex colour of the method in every figure."""
    lr_range: ClassVar[tuple[float, float]]
    """Learning rates that a search draws from (log-uniform); (0, 0) for a method that does not train."""
    learning_rate: float
    train_projector: bool

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Puts the adapter on the backbone, its values drawn from `seed` alone; everything else is frozen."""
        ...

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of trainable parameters in closed form, without building anything."""
        ...
