"""How the examples of one step are cut into micro-batches of like length, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from mmpt_bench.data.examples import Example
from mmpt_bench.engine.forward import tower
from mmpt_bench.engine.forward.last_layer import rows_read
from mmpt_bench.engine.forward.prepared_images import PreparedImages, TowerStates
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import IGNORED, Backbone
from mmpt_bench.engine.models.encoding import Encoded, Tokens
from mmpt_bench.engine.prompts.as_keys import prompts_as_keys

CALL_FLOPS = {"cpu": 2.5e8, "cuda": 4e11}
"""Arithmetic that could be done in the time one decoder layer's calls take, forward and back, however few rows they
have: 4 ms at 66 GFLOP/s on one core (`benchmarks/training.py --fit` finds 1e8 to 4e8, by method), 1 ms at 400 TFLOP/s
on an accelerator, which is assumed. Constants and no stopwatch, because a resumed run must be cut as the one it goes on
from. Only the speed depends on them."""


def overhead_tokens(anatomy: Anatomy, device: str) -> float:
    """Returns the fixed cost of one more micro-batch, in tokens trained (6 operations a parameter and token)."""
    flops = CALL_FLOPS["cuda" if device.startswith("cuda") else "cpu"] * len(anatomy.decoder_layers)
    return flops / (6 * anatomy.language_parameters)


def cut(lengths: Sequence[int], limit: int, overhead: float) -> list[list[int]]:
    """Returns the cheapest cut into groups, as indices into `lengths`, short examples first.

    A group costs its overhead and its padded area; examples next to each other by length share a group, which no other
    cut can beat. Equal lengths keep their order, so that the same step is always cut in the same way.

    Args:
        lengths: tokens of each example.
        limit: most examples in a group.
        overhead: what a group costs beside its tokens, in tokens.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    best, came = [0.0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        costs = [best[start] + (end - start) * longest for start in range(max(0, end - limit), end)]
        cheapest = min(range(len(costs)), key=costs.__getitem__)
        best.append(costs[cheapest] + overhead)
        came.append(max(0, end - limit) + cheapest)
    groups, end = [], len(order)
    while end:
        groups.append(order[came[end] : end])
        end = came[end]
    return groups[::-1]


@dataclass(frozen=True)
class Ready:
    """Examples as the model will read them."""

    rows: list[Tokens]
    images: list[Encoded]
    """As the processor makes them, or a frozen tower's states of them."""

    @property
    def left_out(self) -> int:
        """Returns the number of exchanges that stand behind the longest text allowed."""
        return sum(row.left_out for row in self.rows)


class Losses:
    """The loss of examples under an attached adapter."""

    def __init__(self, backbone: Backbone, images: str, max_length: int) -> None:
        """`images` names the set that the examples' images are from; see `TowerStates`."""
        self.backbone, self.max_length = backbone, max_length
        source = TowerStates if tower.is_frozen(backbone) else PreparedImages
        self._images: TowerStates | PreparedImages = source(backbone, images)
        self._overhead = overhead_tokens(backbone.anatomy, backbone.device)

    def soon(self, examples: Sequence[Example]) -> None:
        """Begins to make ready the images of the examples that come next."""
        if isinstance(self._images, TowerStates):
            self._images.soon([example.image for example in examples])
        else:
            self._images.soon(examples)

    def close(self) -> None:
        """Ends the thread that makes images ready."""
        self._images.close()

    def ready(self, examples: Sequence[Example]) -> Ready:
        """Returns examples made ready; raises RequestError for one whose first exchange is longer than `max_length`."""
        with self.backbone.computing():
            return self._ready(examples)

    def _ready(self, examples: Sequence[Example]) -> Ready:
        prompts = [self.backbone.prompt_text(example.prompt) for example in examples]
        targets = [self.backbone.target(example.exchanges) for example in examples]
        if isinstance(self._images, TowerStates):
            images = self._images([example.image for example in examples])
        else:
            images = self._images.processed(examples)
        rows = self.backbone.tokens(prompts, targets, None, self.max_length, [image.text for image in images])
        return Ready(rows, images)

    def cut(self, ready: Ready, limit: int) -> list[list[int]]:
        """Returns the micro-batches, at most `limit` examples each, as indices of examples."""
        return cut([len(row.ids) for row in ready.rows], limit, self._overhead)

    def sum_of(self, ready: Ready, chosen: list[int]) -> tuple[Tensor, int]:
        """Returns (sum of the answer tokens' cross-entropy, number of those tokens) of a micro-batch."""
        with self.backbone.computing():
            return self._sum_of(ready, chosen)

    def _sum_of(self, ready: Ready, chosen: list[int]) -> tuple[Tensor, int]:
        backbone = self.backbone
        batch: dict[str, Any] = backbone.pad([ready.rows[i] for i in chosen], "right")
        labels = batch.pop("labels")[:, 1:]
        known = labels != IGNORED
        images = [ready.images[i] for i in chosen]
        if isinstance(self._images, TowerStates):
            batch["mm_encoder_outputs"] = tower.projected(backbone, [one.tensors["states"] for one in images])
        else:
            batch |= backbone.inputs(images)
        head = backbone.model.get_submodule(backbone.anatomy.lm_head)
        # Only labelled positions reach the head, in any version of transformers and whatever stands behind the head.
        hook = head.register_forward_pre_hook(lambda module, args: (args[0][:, :-1][known],))
        try:
            with prompts_as_keys(backbone), rows_read(backbone, functional.pad(known, (0, 1))):
                logits = backbone.model(**batch, use_cache=False).logits
        finally:
            hook.remove()
        loss = functional.cross_entropy(logits.float(), labels[known], reduction="sum")
        return loss, int(known.sum())
