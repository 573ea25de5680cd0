"""The loss of one step's examples: tokens and pictures made ready once, then computed a micro-batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmpt_bench.buckets import cut, overhead_tokens
from mmpt_bench.corpus import Example

if TYPE_CHECKING:
    from torch import Tensor

    from mmpt_bench.backbone import Backbone
    from mmpt_bench.encoded import Encoded, Tokens


@dataclass(frozen=True)
class Ready:
    """Examples as the model will read them."""

    rows: list[Tokens]
    pictures: list[Encoded]
    """As the processor makes them, or a frozen tower's states of them."""
    encoded: bool
    """The tower has seen the pictures."""


class Losses:
    """The loss of examples under an attached adapter."""

    def __init__(self, backbone: Backbone, pictures: str, max_length: int) -> None:
        """`pictures` names the set that the examples' pictures are from; see `TowerFeatures`."""
        from mmpt_bench import vision
        from mmpt_bench.pictures import Pictures, TowerFeatures

        self.backbone, self.max_length = backbone, max_length
        self.left_out = 0
        """Exchanges of the examples made ready so far that stood behind `max_length`."""
        self._tower = TowerFeatures(backbone, pictures) if vision.is_frozen(backbone) else None
        self._pictures = Pictures(backbone, pictures) if self._tower is None else None
        self._overhead = overhead_tokens(backbone.anatomy, backbone.device)

    def soon(self, examples: Sequence[Example]) -> None:
        """Begins to make ready the pictures of the examples that come next."""
        if self._tower is not None:
            self._tower.soon([example.image for example in examples])
        if self._pictures is not None:
            self._pictures.soon(examples)

    def close(self) -> None:
        """Ends the thread that makes pictures ready."""
        for made_by in (self._tower, self._pictures):
            if made_by is not None:
                made_by.close()

    def ready(self, examples: Sequence[Example]) -> Ready:
        """Returns examples made ready; raises RequestError for one whose first exchange is longer than `max_length`."""
        backbone = self.backbone
        prompts = [backbone.prompt_text(example.prompt) for example in examples]
        targets = [backbone.target(example.exchanges) for example in examples]
        if self._tower is not None:
            made = self._tower([example.image for example in examples])
        else:
            made = self._pictures.processed(examples) if self._pictures is not None else []
        rows = backbone.tokens(prompts, targets, None, self.max_length, [picture.text for picture in made])
        self.left_out += sum(row.left_out for row in rows)
        return Ready(rows, made, encoded=self._tower is not None)

    def cut(self, ready: Ready, limit: int) -> list[list[int]]:
        """Returns the micro-batches, at most `limit` examples each, as indices of examples."""
        return cut([len(row.ids) for row in ready.rows], limit, self._overhead)

    def sum_of(self, ready: Ready, chosen: list[int]) -> tuple[Tensor, int]:
        """Returns (sum of the answer tokens' cross-entropy, number of those tokens) of a micro-batch."""
        import torch

        from mmpt_bench import vision
        from mmpt_bench.prompt_keys import prompts_as_keys
        from mmpt_bench.read_rows import rows_read

        backbone = self.backbone
        batch: dict[str, Any] = backbone.pad([ready.rows[i] for i in chosen], "right")
        labels = batch.pop("labels")[:, 1:]
        known = labels != -100
        pictures = [ready.pictures[i] for i in chosen]
        if ready.encoded:
            batch["mm_encoder_outputs"] = vision.projected(backbone, [one.tensors["states"] for one in pictures])
        else:
            batch |= backbone.inputs(pictures)
        head = backbone.model.get_submodule(backbone.anatomy.lm_head)
        # Only labelled positions reach the head, in any version of transformers and whatever stands behind the head.
        hook = head.register_forward_pre_hook(lambda module, args: (args[0][:, :-1][known],))
        try:
            with prompts_as_keys(backbone), rows_read(backbone, torch.nn.functional.pad(known, (0, 1))):
                logits = backbone.model(**batch, use_cache=False).logits
        finally:
            hook.remove()
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[known], reduction="sum")
        return loss, int(known.sum())
