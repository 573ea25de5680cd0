"""Prefix tuning: trained keys and values in every decoder layer (Li & Liang 2021, arXiv:2101.00190).

There is no reparametrisation. A key is what the layer's own key projection would have written: the model rotates it to
its place, position 0 to `length` - 1, and the text follows from position `length` on. So training, generation with a
cache and without one, and every padding see the same distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt_bench import RequestError
from mmpt_bench.methods.prompt_method import PromptMethod


@dataclass(frozen=True)
class Prefix(PromptMethod):
    """A key-value prefix in the language model; with the projector by default, as every method of the field."""

    name: ClassVar[str] = "prefix"
    color: ClassVar[str] = "#CC79A7"
    lr_range: ClassVar[tuple[float, float]] = (1e-4, 1e-1)
    structures = ({}, {"length": 5}, {"length": 20})
    config_class: ClassVar[str] = "KVPrefixConfig"

    length: int = 10
    """Keys and values a layer: the length of MMPT's textual prompts."""
    init: Literal["xavier", "normal"] = "xavier"
    """What keys and values start as: xavier-uniform, or normal with a deviation of 0.02."""
    train_projector: bool = True
    learning_rate: float = 1e-2
    """A starting value; raw keys move little at the rates that suit weights."""

    def __post_init__(self) -> None:
        """Raises RequestError for a length that adds no prefix."""
        if self.length < 1:
            raise RequestError(f"`length` must be at least 1, not {self.length}.")
        self.check_choices()


METHOD = Prefix
