"""Samples' pictures, processed once; and their features, made once for all methods that leave the tower alone."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench import vision
from mmpt_bench.task import Sample

if TYPE_CHECKING:
    from mmpt_bench.backbone import Backbone
    from mmpt_bench.encoded import Encoded


class Pictures:
    """The pictures of one task under one adapter."""

    def __init__(self, backbone: Backbone, name: str | None = None) -> None:
        """`name` is that of a set in which equal keys are equal pictures; without one, nothing is kept for others."""
        self.backbone = backbone
        # A name that nobody else can have: what is kept under it is of use to this object alone.
        self.name = name or uuid.uuid4().hex
        self._owner = f"{vision.fingerprint(backbone)} {self.name} each" if vision.is_frozen(backbone) else None

    def processed(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Returns the samples' pictures as the processor makes them, in main memory."""
        kept, owner = self.backbone.kept_pictures, self.name
        found = {s.image.key: kept.get(owner, (s.image.key,)) for s in samples}
        need = {s.image.key: s for s in samples if found[s.image.key] is None}
        if need:
            began = vision.clock()
            made = self.backbone.encode([s.image.open() for s in need.values()])
            each = (vision.clock() - began) / len(need)
            for key, one in zip(need, made, strict=True):
                kept.put(owner, (key,), one, each)
                found[key] = one
        return [found[s.image.key] for s in samples]

    def features(self, samples: Sequence[Sample]) -> tuple[dict[str, Any], int]:
        """Returns (the model's `mm_encoder_outputs`, image tokens a picture) of samples with a picture each.

        Of families alone whose pictures have one size.
        """
        import torch

        from mmpt_bench.prompt_keys import prompts_as_keys

        backbone = self.backbone
        if self._owner is None:
            values = backbone.inputs(self.processed(samples))["pixel_values"]
            core = backbone.model.get_submodule(backbone.anatomy.core)
            with prompts_as_keys(backbone):
                seen = core.get_image_features(values, return_dict=True)
            return {"image": seen}, backbone.image_tokens(values)
        kept, keys = backbone.features, [(s.image.key,) for s in samples]
        found = [kept.get(self._owner, key) for key in keys]
        need = [i for i, one in enumerate(found) if one is None]
        if need:
            values = backbone.inputs(self.processed([samples[i] for i in need]))["pixel_values"]
            began = vision.clock()
            made = vision.states(backbone, {"pixel_values": values})
            each = (vision.clock() - began) / len(need)
            for i, one in zip(need, made, strict=True):
                kept.put(self._owner, keys[i], one, each)
                found[i] = one
        rows = torch.stack([one.to(backbone.device) for one in found if one is not None])
        return vision.projected(backbone, list(rows[:, None])), rows.shape[1]
