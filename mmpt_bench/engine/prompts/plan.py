"""Which prompts go where: what a prompt method's hyperparameters say, before any model is there. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from mmpt_bench.engine.models.anatomy import Anatomy

Interaction = Literal["none", "output", "parameters"]
Place = Literal["image", "front"]
Init = Literal["xavier", "normal", "words"]
Features = Literal["both", "image", "question"]


@dataclass(frozen=True)
class PromptPlan:
    """Which prompts go where; a length of 0 leaves a side out."""

    visual: int = 0
    """Rows in each vision block that is read."""
    visual_deep: bool = True
    """A new set before every block; else one set before the first, which flows through all."""
    text: int = 0
    """Rows in front of the decoder's sequence."""
    text_deep: bool = True
    """A new set before every layer; else one set before the first."""
    interaction: Interaction = "none"
    """What of the visual prompts reaches the decoder: their output states, or raw parameters (`raw_sets`)."""
    interaction_place: Place = "image"
    """Where: before the first image token, or in front of the sequence."""
    keys: int = 0
    """Rows whose keys and values are parameters, in every decoder layer (prefix tuning); excludes `text`."""
    init: Init = "xavier"
    """What parameters start as: xavier-uniform as in MMPT's code, normal, or, for textual prompts, the embeddings of
    words drawn at random (Lester et al. 2021, arXiv:2104.08691, section 3.2: sampled vocabulary)."""
    text_first: bool = True
    """Where both stand in front, textual prompts stand before the interaction tokens; else after them."""

    @property
    def decoder_rows(self) -> int:
        """Rows by which the decoder's sequence grows, but for a class token that raw parameters may bring along."""
        return self.text + self.keys + (self.visual if self.interaction != "none" else 0)

    @property
    def raw_sets(self) -> int:
        """Sets of visual prompts that no block reads: the released code's, of the block after those that are read."""
        return int(self.interaction == "parameters" and self.interaction_place == "image")

    def shapes(self, anatomy: Anatomy) -> dict[str, tuple[int, int, int]]:
        """Returns the shape of each parameter by its name: (sets, length, dim)."""
        layers = len(anatomy.decoder_layers)
        blocks = min(anatomy.vision_used + self.raw_sets, len(anatomy.vision_layers))
        shapes = {
            "mmpt_visual": (blocks if self.visual_deep else 1, self.visual, anatomy.vision_dim),
            "mmpt_text": (layers if self.text_deep else 1, self.text, anatomy.text_dim),
            "mmpt_key": (layers, self.keys, anatomy.key_dim),
            "mmpt_value": (layers, self.keys, anatomy.key_dim),
        }
        return {name: shape for name, shape in shapes.items() if shape[1]}

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of values in all prompts."""
        return sum(math.prod(shape) for shape in self.shapes(anatomy).values())


@dataclass(frozen=True)
class GeneratorPlan:
    """How a generator of shifts is built (conditioned.py)."""

    size: int
    """Width of the bottleneck."""
    each: bool
    """A shift of its own for every prompt of a set (IDPG), else one for all of them (CoCoOp)."""
    features: Features
    """What textual prompts look at."""
    shuffled: bool
    """In training, an item gets the features of another one of its micro-batch, drawn at random."""

    def shapes(self, plan: PromptPlan, anatomy: Anatomy) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each parameter by its name."""
        shapes: dict[str, tuple[int, ...]] = {}
        for side, length, width in (("text", plan.text, anatomy.text_dim), ("visual", plan.visual, anatomy.vision_dim)):
            if length:
                sets = plan.shapes(anatomy)[f"mmpt_{side}"][0]
                read = width * (2 if side == "text" and self.features == "both" else 1)
                shapes[f"{side}_down"], shapes[f"{side}_down_bias"] = (self.size, read), (self.size,)
                shapes[f"{side}_up"] = (sets, length if self.each else 1, width, self.size)
        return shapes

    def count(self, plan: PromptPlan, anatomy: Anatomy) -> int:
        """Returns the number of values in the generator."""
        return sum(math.prod(shape) for shape in self.shapes(plan, anatomy).values())

    def as_static(self, plan: PromptPlan, anatomy: Anatomy) -> PromptPlan:
        """Returns static prompts of about as many values: each side's, to half a prompt of every set."""
        shapes, lengths = self.shapes(plan, anatomy), {}
        for side, length in (("text", plan.text), ("visual", plan.visual)):
            own = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(side))
            sets, _, width = plan.shapes(anatomy).get(f"mmpt_{side}", (1, 0, 1))
            lengths[side] = length + round(own / (sets * width))
        return replace(plan, text=lengths["text"], visual=lengths["visual"])


def plan_of(method: Any) -> PromptPlan:
    """Returns the prompts that a prompt method's hyperparameters, or those of PEFT's configuration of it, ask for.

    Fields are found by their names; one that a method does not have leaves its part out.
    """
    fields = vars(method)
    return PromptPlan(
        visual=fields.get("visual_length", 0),
        visual_deep=fields.get("visual_deep", True),
        text=fields.get("text_length", 0),
        text_deep=fields.get("text_deep", True),
        interaction=fields["visual_states"] if fields.get("interaction") else "none",
        interaction_place=fields.get("interaction_place", "image"),
        keys=fields.get("length", 0),
        init=fields["init"],
        text_first=fields.get("placement", "text-first") == "text-first",
    )
