"""One interface for every way to adapt a model: attach to a backbone, train what comes back, save it, take it off.

An `Adapter` is a frozen dataclass of hyperparameters. `attach` changes a loaded backbone and returns a `Handle`;
`Handle.remove` restores the backbone bit for bit. What every method is given alike is the `Budget` (recipe.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmpt_bench.anatomy import Anatomy
    from mmpt_bench.backbone import Backbone


@dataclass
class Handle:
    """An attached adapter."""

    trainable: dict[str, nn.Parameter]
    """Every parameter that training changes, once each, by a name that does not depend on what else is attached."""
    remove: Callable[[], None]
    """Restores the backbone: structure, values (bit for bit) and `requires_grad` flags."""
    save: Callable[[Any], None]
    """Writes the adapter to a folder (a `Path`) as safetensors plus adapter_config.json."""

    given: int = 0
    """Parameters of an adapter that was trained elsewhere, which training does not change."""

    @property
    def size(self) -> int:
        """Returns the number of parameters that differ from the base's, or may."""
        return self.given + sum(parameter.numel() for parameter in self.trainable.values())

    def state(self) -> dict[str, Tensor]:
        """Returns a detached copy of every trainable parameter, by name, on the CPU."""
        return {name: p.detach().to("cpu", copy=True) for name, p in self.trainable.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Writes values back; refuses a state with other names or shapes (ValueError, naming them)."""
        import torch

        missing, extra = self.trainable.keys() - state.keys(), state.keys() - self.trainable.keys()
        if missing or extra:
            raise ValueError(
                f"adapter state does not fit: missing {sorted(missing)[:3]}, unexpected {sorted(extra)[:3]}"
            )
        for name, parameter in self.trainable.items():
            if parameter.shape != state[name].shape:
                raise ValueError(
                    f"`{name}` has shape {tuple(state[name].shape)} in the state and {tuple(parameter.shape)} here"
                )
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(state[name])


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


def params(adapter: Any) -> dict[str, Any]:
    """Returns an adapter's hyperparameters as plain JSON values."""
    return dataclasses.asdict(adapter)
