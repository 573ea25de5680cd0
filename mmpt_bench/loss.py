"""The loss of one step's examples: tokens and pictures made ready once, then computed a micro-batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmpt_bench.buckets import cut, overhead_tokens
from mmpt_bench.corpus import Example

if TYPE_CHECKING:
    from torch import Tensor

    from mmpt_bench.backbone import Backbone, Encoded


@dataclass(frozen=True)
class Ready:
    """Examples as the model will read them."""

    rows: list[Encoded]
    vision: Tensor
    """Their pixel values (examples, channels, height, width), or a frozen tower's states (examples, tokens, dim)."""

    @property
    def frozen(self) -> bool:
        """Returns whether `vision` holds states and not pixels."""
        return self.vision.dim() == 3


class Losses:
    """The loss of examples under an attached adapter."""

    def __init__(self, backbone: Backbone, pictures: str, max_length: int) -> None:
        """`pictures` names the set that the examples' pictures are from; see `TowerFeatures`."""
        from mmpt_bench import vision

        self.backbone, self.max_length = backbone, max_length
        self._tower = vision.TowerFeatures(backbone, pictures) if vision.is_frozen(backbone) else None
        self._overhead = overhead_tokens(backbone.anatomy, backbone.device)

    def ready(self, examples: Sequence[Example]) -> Ready:
        """Returns examples made ready; raises RequestError for one longer than `max_length`."""
        import torch

        images = [example.image for example in examples]
        if self._tower is not None:
            seen, count = self._tower(images), None
        else:
            pixels = self.backbone.pixels([image.open() for image in images])
            seen, count = pixels.to(self.backbone.device, getattr(torch, self.backbone.dtype)), pixels
        prompts = [self.backbone.prompt_text(example.prompt) for example in examples]
        n_tokens = self.backbone.image_tokens(count) if count is not None else seen.shape[1]
        targets = [example.target for example in examples]
        return Ready(self.backbone.encode(prompts, targets, n_tokens, self.max_length), seen)

    def cut(self, ready: Ready, limit: int) -> list[list[int]]:
        """Returns the micro-batches, at most `limit` examples each, as indices of examples."""
        return cut([len(row.ids) for row in ready.rows], limit, self._overhead)

    def sum_of(self, ready: Ready, chosen: list[int]) -> tuple[Tensor, int]:
        """Returns (sum of the answer tokens' cross-entropy, number of those tokens) of a micro-batch."""
        import torch

        from mmpt_bench import vision

        backbone = self.backbone
        batch: dict[str, Any] = backbone.pad([ready.rows[i] for i in chosen], "right")
        labels = batch.pop("labels")[:, 1:]
        known = labels != -100
        seen = ready.vision[chosen]
        if ready.frozen:
            batch["mm_encoder_outputs"] = vision.projected(backbone, seen)
        else:
            batch["pixel_values"] = seen
        head = backbone.model.get_submodule(backbone.anatomy.lm_head)
        # Only labelled positions reach the head, in any version of transformers and whatever stands behind the head.
        hook = head.register_forward_pre_hook(lambda module, args: (args[0][:, :-1][known],))
        try:
            logits = backbone.model(**batch, use_cache=False).logits
        finally:
            hook.remove()
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[known], reduction="sum")
        return loss, int(known.sum())
