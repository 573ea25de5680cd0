"""A method whose trained values are prompts: MMPT, VPT and the key-value prefix are their hyperparameters, and this."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.prompts.plan import plan_of
from mmpt_bench.methods.method import Method


@dataclass(frozen=True)
class PromptMethod(Method):
    """Prompts on a backbone, as a method's hyperparameters ask for; `plan_of` says by which names."""

    config_class: ClassVar[str]
    """Name of its configuration in PEFT (engine/prompts/peft.py)."""

    @property
    def decoder_rows(self) -> int:
        """Returns how many rows stand in front of the decoder's sequence."""
        return plan_of(self).decoder_rows

    def trained_whole(self, anatomy: Anatomy) -> list[str]:
        """Returns the modules that are trained beside the prompts."""
        return [anatomy.projector] if self.train_projector else []

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Puts the prompts on the backbone, drawn from `seed` alone; each side and kind draws independently."""
        from mmpt_bench.engine.prompts.hooks import attach_prompts
        from mmpt_bench.engine.prompts.peft import peft_config

        attachment = attach_prompts(backbone, plan_of(self), seed)
        whole = self.trained_whole(backbone.anatomy)
        attachment.open(*whole)
        return attachment.handle(self, lambda: peft_config(self.config_class, dataclasses.asdict(self), whole))

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of trainable parameters."""
        return plan_of(self).count(anatomy) + self.projector_count(anatomy)
