"""Samples' pictures as pixels and as features: processed once, and encoded once for methods that do not reach them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench import vision
from mmpt_bench.task import Sample

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from mmpt_bench.backbone import Backbone


class Pictures:
    """The pictures of one task under one adapter."""

    def __init__(self, backbone: Backbone, name: str | None = None) -> None:
        """`name` is that of a set in which equal keys are equal pictures; without one, nothing is kept for others."""
        self.backbone = backbone
        # A name that nobody else can have: what is kept under it is of use to this object alone.
        self.name = name or uuid.uuid4().hex
        self._owner = f"{vision.fingerprint(backbone)} {self.name} each" if vision.is_frozen(backbone) else None

    def pixels(self, samples: Sequence[Sample]) -> Float[Tensor, "samples channels height width"]:
        """Returns the samples' pixel values, in main memory."""
        import torch

        kept, owner = self.backbone.kept_pixels, self.name
        found = {s.image.key: kept.get(owner, (s.image.key,)) for s in samples}
        need = {s.image.key: s for s in samples if found[s.image.key] is None}
        if need:
            made = self.backbone.pixels([s.image.open() for s in need.values()])
            for key, row in zip(need, made, strict=True):
                kept.put(owner, (key,), row)
                found[key] = row
        return torch.stack([found[s.image.key] for s in samples])

    def encoded(self, samples: Sequence[Sample]) -> tuple[dict[str, Any], int]:
        """Returns (the model's `mm_encoder_outputs`, image tokens a picture) of samples with a picture each."""
        import torch

        backbone = self.backbone
        if self._owner is None:
            pixels = self.pixels(samples)
            values = pixels.to(backbone.device, getattr(torch, backbone.dtype))
            core = backbone.model.get_submodule(backbone.anatomy.core)
            return {"image": core.get_image_features(values, return_dict=True)}, backbone.image_tokens(pixels)
        kept, keys = backbone.features, [(s.image.key,) for s in samples]
        found = [kept.get(self._owner, key) for key in keys]
        need = [i for i, one in enumerate(found) if one is None]
        if need:
            made = vision.states(backbone, self.pixels([samples[i] for i in need]))
            for i, one in zip(need, made, strict=True):
                kept.put(self._owner, keys[i], one)
                found[i] = one
        rows = torch.stack([one.to(backbone.device) for one in found if one is not None])
        return vision.projected(backbone, rows), rows.shape[1]
