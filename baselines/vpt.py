"""VPT: prompts in the vision tower only (Jia et al. 2022, arXiv:2203.12119), deep by default, shallow by a switch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt_bench import RequestError
from mmpt_bench.methods.prompt_method import PromptMethod


@dataclass(frozen=True)
class VPT(PromptMethod):
    """Visual prompts in every vision block that is read; none of them enters the language model.

    Like every method of the field it trains the projector too by default, so that methods differ in what they add.
    """

    name: ClassVar[str] = "vpt"
    color: ClassVar[str] = "#56B4E9"
    lr_range: ClassVar[tuple[float, float]] = (1e-4, 3e-2)
    structures = ({}, {"visual_length": 10}, {"visual_length": 5})
    config_class: ClassVar[str] = "VPTConfig"

    visual_length: int = 20
    """Prompts a block: MMPT's own length."""
    visual_deep: bool = True
    """VPT-deep; else VPT-shallow, one set in front of the first block."""
    init: Literal["xavier", "normal"] = "xavier"
    """What prompts start as: xavier-uniform, or normal with a deviation of 0.02."""
    train_projector: bool = True
    learning_rate: float = 7e-4
    """MMPT's, as a starting value."""

    def __post_init__(self) -> None:
        """Raises RequestError for a length that adds no prompt."""
        if self.visual_length < 1:
            raise RequestError(f"`visual_length` must be at least 1, not {self.visual_length}.")
        self.check_choices()


METHOD = VPT
