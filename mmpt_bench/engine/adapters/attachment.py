"""What every method does to a backbone: freeze it, open some parameters, and know how to put all of it back.

Adapters are saved in the layout of PEFT (adapter_config.json, adapter_model.safetensors, names that start with
`base_model.model.`); the header of the tensor file names the method and the backbone it belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.saved import save_adapter
from mmpt_bench.engine.models.backbone import Backbone

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class Handle:
    """A method on a backbone, with the values that are trained."""

    trainable: dict[str, nn.Parameter]
    """Every parameter that training changes, once each, by a name that does not depend on what else is attached."""
    remove: Callable[[], None]
    """Restores the backbone: structure, values (bit for bit) and `requires_grad` flags."""
    save: Callable[[Any], None]
    """Writes the adapter to a folder (a `Path`) as safetensors plus adapter_config.json."""
    given: int = 0
    """Parameters of an adapter that was trained elsewhere, which training does not change."""
    masters: dict[str, nn.Parameter] = field(default_factory=dict)
    """Float32 copies of the trainable parameters that the model holds in half precision, from training until
    `let_go`; the model's own are these, rounded."""
    notes: tuple[str, ...] = ()
    """What must be said beside every score of it, each a clause without a full stop."""

    @property
    def size(self) -> int:
        """Returns the number of parameters that differ from the base's, or may."""
        return self.given + sum(parameter.numel() for parameter in self.trainable.values())

    def state(self) -> dict[str, Tensor]:
        """Returns a detached copy of every trainable parameter, by name, on the CPU; of its master where it has one.

        Where ranks hold a part of each (`engine/training/parallel.py`), all must ask.
        """
        own = {**self.trainable, **self.masters}
        return {name: whole(p.detach()).to("cpu", copy=True) for name, p in own.items()}

    def let_go(self) -> None:
        """Frees the masters; the parameters keep what the masters were, rounded, as `load` would write them."""
        self.masters = {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Writes values back; refuses a state with other names or shapes (ValueError, naming them)."""
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
        for name, parameter in [*self.trainable.items(), *self.masters.items()]:
            parameter.detach().copy_(like(state[name], parameter))


def whole(value: Any) -> Tensor:
    """Returns a tensor of which ranks hold a part each as a whole one, which all must ask for; any other as it is."""
    found: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return found


def like(value: Tensor, place: Any) -> Tensor:
    """Returns a whole value as ranks hold `place`, a part each; as it is where they hold all, or shapes differ."""
    if not hasattr(place, "full_tensor") or value.shape != place.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    # Every rank has read the whole value: nothing is sent.
    return distribute_tensor(value.to(place.device), place.device_mesh, place.placements, src_data_rank=None)


@dataclass(frozen=True)
class Group:
    """Trained parameters with a learning rate or weight decay of their own."""

    prefix: str
    """What their names begin with; the first group that fits takes a parameter."""
    rate: float = 1.0
    """Factor of the method's learning rate, so that one search of rates still does for the whole method."""
    weight_decay: float | None = None
    """None: the budget's."""

    def __post_init__(self) -> None:
        """Raises ValueError for a factor or a weight decay that can be none."""
        if not (0 < self.rate < math.inf and 0 <= (self.weight_decay or 0) < math.inf):
            raise ValueError(
                f"the group `{self.prefix}` has a factor of the learning rate above 0 and a weight decay from 0, not "
                f"{self.rate} and {self.weight_decay}"
            )


class Attachment:
    """Changes that a method makes to a backbone, and how to undo each of them."""

    def __init__(self, backbone: Backbone) -> None:
        """Freezes every parameter of the backbone."""
        self.backbone = backbone
        self.trainable: dict[str, nn.Parameter] = {}
        self._undo = ExitStack()
        for parameter in backbone.model.parameters():
            self.undo_with(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)

    def undo_with(self, step: Callable[..., Any], *args: Any) -> None:
        """Adds a call that `remove` makes; it makes them in the reverse of the order in which they were added."""
        self._undo.callback(step, *args)

    def remove(self) -> None:
        """Restores the backbone; a second call does nothing."""
        self._undo.close()

    def add(self, name: str, parameter: nn.Parameter) -> None:
        """Makes a parameter trainable under `name`.

        It must be one of the model's: register it on a module of the backbone first, and take it off again by
        `undo_with`.
        """
        parameter.requires_grad_(True)
        self.trainable[name] = parameter

    def open(self, *modules: str) -> None:
        """Makes the backbone's own parameters at or below these names trainable; their values are kept for `remove`.

        The kept copies lie in main memory. Weights that two modules share are opened once.
        """
        from mmpt_bench.engine.models.quantized import is_quantized

        known = dict(self.backbone.model.named_parameters(remove_duplicate=False))
        first = {id(p): name for name, p in self.backbone.model.named_parameters()}
        for wanted in modules:
            found = [n for n in known if n == wanted or n.startswith(f"{wanted}.")]
            if not found:
                raise RequestError(f"The backbone has no parameter at `{wanted}`.")
            if any(is_quantized(known[name]) for name in found):
                raise RequestError(
                    f"`{wanted}` is quantized and cannot be trained: take a method that adds parameters, or leave out "
                    "`--quantize`."
                )
            for name in found:
                parameter = known[name]
                if first[id(parameter)] not in self.trainable:
                    self.undo_with(_restore, parameter, parameter.detach().to("cpu", copy=True))
                    self.add(first[id(parameter)], parameter)

    def handle(self, method: Any, config: Callable[[], dict[str, Any]] | None = None) -> Handle:
        """Returns the handle of a finished attachment; `config` makes its adapter_config.json when it is saved."""

        def save(folder: Path) -> None:
            save_adapter(Path(folder), method, self.backbone, result.state(), config() if config else None)

        result = Handle(trainable=self.trainable, remove=self.remove, save=save)
        return result


def _restore(parameter: nn.Parameter, original: Tensor) -> None:
    parameter.detach().copy_(original)
    parameter.grad = None


def uniform(shape: Iterable[int], bound: float, seed: int) -> Tensor:
    """Returns float32 values from U(-bound, bound), drawn on the CPU from `seed` alone."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(tuple(shape), generator=generator) * 2 - 1) * bound


def xavier(sets: int, length: int, dim: int, seed: int) -> Tensor:
    """Returns prompts (sets, length, dim), each set xavier-uniform over (1, length, dim) as in MMPT's released code."""
    return uniform((sets, length, dim), math.sqrt(6 / ((length + 1) * dim)), seed)


def normal(shape: Iterable[int], deviation: float, seed: int) -> Tensor:
    """Returns float32 values from N(0, deviation^2), drawn on the CPU from `seed` alone."""
    import torch

    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) * deviation
