"""The interface of a method: attach to a backbone, train what comes back, save it, take it off.

A method is a frozen dataclass of hyperparameters that derives from `Method`. `attach` changes a loaded backbone and
returns a `Handle`; `Handle.remove` restores the backbone bit for bit. What every method is given alike is the `Budget`
(records/recipe.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.attachment import Group, Handle
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.records.budget import Budget

if TYPE_CHECKING:
    from torch import Tensor

    from mmpt_bench.engine.training.objective import Batch, Context, Outputs


class Method:
    """A way to adapt a backbone: hyperparameters, and what they do to a model."""

    name: ClassVar[str]
    """What `--method` calls it."""
    color: ClassVar[str]
    """Hex colour of the method in every figure."""
    lr_range: ClassVar[tuple[float, float]]
    """Learning rates that its documentation recommends, around the default; (0, 0) for a method that does not train. A
    search looks at the same rates for every method."""
    structures: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """Values of its structural numbers that `tune --structures` searches, the first the method as it is; empty where it
    has none. All methods that have some declare as many."""
    learning_rate: float
    train_projector: bool

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Puts the method on the backbone, its values drawn from `seed` alone; everything else is frozen."""
        raise NotImplementedError(f"`{type(self).__name__}` has no `attach`")

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of trainable parameters in closed form, without building anything."""
        raise NotImplementedError(f"`{type(self).__name__}` has no `count`")

    @property
    def one_image(self) -> str:
        """Returns why it takes questions about one image alone; empty where it takes several."""
        return ""

    def objective(self, batch: Batch, outputs: Outputs, context: Context) -> Mapping[str, Tensor]:
        """Returns what the method adds to the loss of a micro-batch, by name; its weights are hyperparameters of it.

        Each term is a tensor of one number: a sum over the answer tokens, in nats, with its weight in it. A penalty on
        `context.parameters` is multiplied by the number of `batch.labels`, and so counts once a step.
        """
        return {}

    def groups(self, anatomy: Anatomy) -> tuple[Group, ...]:
        """Returns the parameters that have a learning rate or weight decay of their own; by default none have."""
        return ()

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Returns the hyperparameters that the method has where nothing is set."""
        return dataclasses.asdict(cls())  # type: ignore[call-overload,no-any-return]

    def projector_count(self, anatomy: Anatomy) -> int:
        """Returns the projector's part of `count`: its parameters where it is trained."""
        return anatomy.projector_parameters if self.train_projector else 0

    def check_choices(self) -> None:
        """Raises RequestError for a value that the `Literal` of its field does not name."""
        for name, hint in get_type_hints(type(self)).items():
            legal, value = get_args(hint), getattr(self, name, None)
            if get_origin(hint) is Literal and value not in legal:
                first = ", ".join(f"`{option}`" for option in legal[:-1])
                raise RequestError(f"`{name}` is {first} or `{legal[-1]}`, not `{value}`.")

    def trained_under(self, corpus: str, fingerprint: str, budget: Budget, dtype: str) -> tuple[str, str, Budget]:
        """Returns (training data, its fingerprint, budget) that results belong to: those that the request gives."""
        return corpus, fingerprint, budget

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        return self.lr_range[1] > 0

    @property
    def decoder_rows(self) -> int:
        """Rows that stand in front of the decoder's sequence."""
        return 0

    def paper_count(self, anatomy: Anatomy) -> int | None:
        """Returns the number of trainable parameters as a paper counts them; None where that is `count`."""
        return None

    @classmethod
    def folded(cls, overrides: Mapping[str, str]) -> Mapping[str, str]:
        """Returns overrides by the names of the dataclass's own fields."""
        return overrides
