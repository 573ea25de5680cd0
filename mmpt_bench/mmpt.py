"""MMPT: deep prompts in the vision tower and in the language model, joined by the projector (arXiv:2409.15657).

Each vision block that is read gets `visual_length` prompts of its own, each decoder layer `text_length`. The visual
prompts' states pass through the projector, which is trained too, and enter the language model as further tokens, in the
image slot, before the image tokens. Where the paper and the authors' code differ, a switch chooses, and the default is
the paper's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.methods.prompt_method import PromptMethod


@dataclass(frozen=True)
class MMPT(PromptMethod):
    """Multimodal prompt tuning with the paper's best lengths.

    Parameters are built for what is read and nothing else: after the hidden state that LLaVA takes (-2), a set of
    prompts would count and never get a gradient. So `count` has `visual_length` x width x 23 at LLaVA-7B where the
    published arithmetic has 24; `paper_count` is that arithmetic, for comparison with printed figures. With
    `visual_states` `parameters` it is 24 in both, since the last set is what the language model gets.
    """

    name: ClassVar[str] = "mmpt"
    color: ClassVar[str] = "#D55E00"
    lr_range: ClassVar[tuple[float, float]] = (1e-4, 3e-2)
    structures = ({}, {"visual_length": 10, "text_length": 5}, {"visual_length": 5, "text_length": 5})
    config_class: ClassVar[str] = "MMPTConfig"

    visual_length: int = 20
    """Prompts in each vision block; 0 leaves the vision side alone (then switch `interaction` off)."""
    text_length: int = 10
    """Prompts in each decoder layer; 0 leaves the text side alone."""
    interaction: bool = True
    """The visual prompts reach the language model as tokens of their own."""
    interaction_place: Literal["image", "front"] = "image"
    """Where these stand: in the image slot of the user's turn, before the image tokens (paper and released code), or in
    front of the sequence, as in results of versions that had no such field."""
    visual_deep: bool = True
    """A new set before every block, as in the paper; else one set that flows through all."""
    text_deep: bool = True
    """A new set before every layer, as in the paper; else one set in front of the first."""
    visual_states: Literal["output", "parameters"] = "output"
    """What reaches the language model: the prompts' output states (paper), or raw parameters and the class token. In
    the image slot these are the released code's: all rows but the first of the set that belongs to the block after
    those that are read, then the class token. In front, what earlier versions took: the last set that is read."""
    init: Literal["xavier", "normal", "words"] = "xavier"
    """What prompts start as: xavier-uniform (released code), normal with a deviation of 0.02, or, for the textual ones,
    embeddings of words drawn at random."""
    placement: Literal["text-first", "visual-first"] = "text-first"
    """Whether the textual prompts stand before the visual ones, or after them, where both stand in front."""
    train_projector: bool = True
    train_lm_head: bool = False
    """The released code trains it, the paper does not."""
    learning_rate: float = 7e-4
    """The paper's, for 7 billion parameters; a starting value elsewhere."""

    def __post_init__(self) -> None:
        """Raises RequestError for values that no training could use."""
        if self.visual_length < 0 or self.text_length < 0 or self.visual_length + self.text_length == 0:
            raise RequestError(
                f"`visual_length` {self.visual_length} and `text_length` {self.text_length}: "
                "lengths are 0 or more, and one is above 0."
            )
        self.check_choices()
        if self.init == "words" and not self.text_length:
            raise RequestError("`init` `words` is for textual prompts: raise `text_length`.")
        if self.interaction_place == "front" and not self.interaction:
            raise RequestError("`interaction_place` `front` needs `interaction`.")
        if self.placement == "visual-first" and not (self.interaction_place == "front" and self.text_length):
            raise RequestError("`placement` `visual-first` needs textual prompts and `interaction_place` `front`.")
        if self.interaction and not self.visual_length:
            raise RequestError("`interaction` needs visual prompts: raise `visual_length` or switch it off.")

    @property
    def one_image(self) -> str:
        """Returns that interaction joins the prompts of one image with the text."""
        return "its interaction is of one image; `--set mmpt.interaction=false` switches it off" * self.interaction

    def trained_whole(self, anatomy: Anatomy) -> list[str]:
        """Returns the modules that are trained beside the prompts."""
        return super().trained_whole(anatomy) + [anatomy.lm_head] * self.train_lm_head

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of trainable parameters."""
        return super().count(anatomy) + (anatomy.lm_head_parameters if self.train_lm_head else 0)

    def paper_count(self, anatomy: Anatomy) -> int:
        """Returns the published arithmetic: prompts in every vision block, also in one that is never read.

        131,072 n_t + 24,576 n_v + 4,198,400 at LLaVA-7B with a linear projector: 6,000,640 at the default lengths,
        which the paper prints as 0.09 % of 7,045,793,792.
        """
        return self.count(dataclasses.replace(anatomy, vision_used=len(anatomy.vision_layers)))


METHOD = MMPT


def __getattr__(name: str) -> Any:
    """Returns `MMPTConfig`, `VPTConfig` and `KVPrefixConfig`, for which PEFT is imported when they are asked for."""
    if name in ("MMPTConfig", "VPTConfig", "KVPrefixConfig"):
        from mmpt_bench.engine.prompts import peft

        return getattr(peft, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
