"""How the examples of one step are cut into micro-batches of like length, so that little padding is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mmpt_bench.data.examples import Example
from mmpt_bench.engine.forward import tower
from mmpt_bench.engine.forward.last_layer import rows_read
from mmpt_bench.engine.forward.prepared_images import PreparedImages, TowerStates, is_large
from mmpt_bench.engine.models import chat
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


def cut(
    lengths: Sequence[int], limit: int, overhead: float, images: Sequence[tuple[int, float]] = ()
) -> list[list[int]]:
    """Returns the cheapest cut into groups, as indices into `lengths`, short examples first.

    A group costs its overhead, its padded area and its images, each once; examples next to each other by length share
    a group, which no other cut can beat where no two examples show one image. Equal lengths keep their order, so that
    the same step is always cut in the same way.

    Args:
        lengths: tokens of each example.
        limit: most examples in a group.
        overhead: what a group costs beside its tokens, in tokens.
        images: of each example, which image it shows and what that costs a group, in tokens; by default nothing.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    best, came = [0.0], [0]
    for end in range(1, len(order) + 1):
        longest, costs = lengths[order[end - 1]], []
        shown: dict[int, float] = {}
        for start in reversed(range(max(0, end - limit), end)):
            shown |= [images[order[start]]] if images else []
            costs.append((best[start] + (end - start) * longest + sum(shown.values()), start))
        cost, first = min(costs)
        best.append(cost + overhead)
        came.append(first)
    groups, end = [], len(order)
    while end:
        groups.append(order[came[end] : end])
        end = came[end]
    return groups[::-1]


def in_order(n: int, limit: int) -> list[list[int]]:
    """Returns the fewest groups of at most `limit` of `n` examples, of about one size, in the order of the examples.

    Examples are drawn at random, so that who shares a group is too; those of one length are often of one kind.
    """
    groups = -(-n // limit)
    return [list(range(n * k // groups, n * (k + 1) // groups)) for k in range(groups)]


@dataclass(frozen=True)
class Ready:
    """Examples as the model will read them."""

    rows: list[Tokens]
    images: list[Encoded]
    """As the processor makes them, or a frozen tower's states of them."""
    examples: tuple[Example, ...] = ()
    """What they were made of."""

    @property
    def left_out(self) -> int:
        """Returns the number of exchanges that stand after the longest text allowed."""
        return sum(row.left_out for row in self.rows)


def differing(found: tuple[float, Mapping[str, Tensor]], wanted: tuple[float, Mapping[str, Tensor]], dtype: str) -> str:
    """Returns how one way's loss and gradients differ from the plain way's; empty where rounding explains it."""
    of_loss, of_gradients = TOLERANCES[dtype]
    if not abs(found[0] - wanted[0]) <= of_loss * max(1.0, abs(wanted[0])):
        return f"the loss is {wanted[0]:.6g} of whole images and {found[0]:.6g} without them"
    norms = {name: grad.float().norm().cpu() for name, grad in wanted[1].items()}
    whole = sum((norm.square() for norm in norms.values()), torch.zeros(())).sqrt()
    for name, norm in norms.items():
        own = found[1].get(name)
        apart = norm if own is None else (own.float() - wanted[1][name].float()).norm().cpu()
        if apart > of_gradients * max(norm, 1e-3 * whole):
            return f"the gradient of `{name}` is another one without them"
    return ""


TOLERANCES = {"float32": (1e-4, 0.02), "float16": (2e-2, 0.3), "bfloat16": (5e-2, 0.5)}
"""How far the shared way's loss, and each gradient, may be from the plain way's, as a share of it."""


class Losses:
    """The loss of examples under an attached adapter."""

    def __init__(self, backbone: Backbone, images: str, max_length: int) -> None:
        """`images` names the set that the examples' images are from; see `TowerStates`."""
        self.backbone, self.max_length = backbone, max_length
        source = TowerStates if tower.keeps_states(backbone) else PreparedImages
        self._images: TowerStates | PreparedImages = source(backbone, images)
        self._set, self.is_plain = images, False
        """Whether every image and text goes through the whole model, as `compare` may find that it must."""
        self._overhead = overhead_tokens(backbone.anatomy, backbone.device)
        self._pairs_items = getattr(getattr(backbone.model, "prompt_bank", None), "pairs_items", False)
        sees_once = source is PreparedImages and is_large(backbone) and tower.sees_once(backbone)
        self._sees_once = sees_once and not self._pairs_items

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
        with self.backbone.computing(), self._skipped():
            return self._ready(examples)

    def _ready(self, examples: Sequence[Example]) -> Ready:
        prompts = [self.backbone.prompt_text(example.prompt, (), example.opening) for example in examples]
        targets = [self.backbone.target(example.exchanges, example.opening) for example in examples]
        if isinstance(self._images, TowerStates):
            images = self._images([example.image for example in examples])
        else:
            images = self._images.processed(examples)
        rows = self.backbone.tokens(prompts, targets, None, self.max_length, [image.text for image in images])
        learnt = [chat.learnt(row, one.exchanges) for row, one in zip(rows, examples, strict=True)]
        return Ready(learnt, images, tuple(examples))

    def compare(self, examples: Sequence[Example], trainable: Mapping[str, Tensor]) -> str:
        """Holds the shared way to the plain one on some examples, and takes the plain way from then on if they differ.

        A method may look where the shared way shows nothing, as at the pixels: what trains must be what the model does.

        Args:
            examples: of one step or less.
            trainable: parameters whose gradients must agree as well; none where gradients are off.

        Returns:
            Why the plain way is taken; empty where it is not.
        """
        if not examples:
            return ""
        if self._sees_once:
            # What the last one asks, of the first one's image.
            examples = [*examples, dataclasses.replace(examples[-1], image=examples[0].image)]
        plain = Losses(self.backbone, self._set, self.max_length)
        with closing(plain):
            plain._take_plain_way()
            model, training = self.backbone.model, self.backbone.model.training
            # Without dropout, and the random state stays.
            model.eval()
            try:
                why = differing(self.probe(examples, trainable), plain.probe(examples, trainable), self.backbone.dtype)
            finally:
                model.train(training)
        if why:
            self._take_plain_way()
        return why

    def probe(self, examples: Sequence[Example], trainable: Mapping[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
        """Returns the loss of examples, and the gradients that there are."""
        ready = self.ready(examples)
        loss, tokens = self.sum_of(ready, list(range(len(examples))))
        if not trainable or not loss.requires_grad:
            return loss.item() / tokens, {}
        made = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True)
        found = {name: grad for name, grad in zip(trainable, made, strict=True) if grad is not None}
        return loss.item() / tokens, found

    def _take_plain_way(self) -> None:
        self._images.close()
        self._images, self.is_plain, self._sees_once = PreparedImages(self.backbone, self._set), True, False

    @contextmanager
    def _given(self, images: list[Encoded]) -> Iterator[dict[str, Any]]:
        """Inside, the model takes images by the inputs that this yields."""
        if isinstance(self._images, TowerStates):
            with self._images.inputs(images) as given:
                yield given
            return
        with tower.repeated_seen_once(self.backbone, images) if self._sees_once else nullcontext():
            yield self.backbone.inputs(images)

    def _skipped(self) -> AbstractContextManager[None]:
        return nullcontext() if self.is_plain else tower.unread_blocks_skipped(self.backbone)

    def cut(self, ready: Ready, limit: int) -> list[list[int]]:
        """Returns the micro-batches, at most `limit` examples each, as indices of examples."""
        if self._pairs_items:
            return in_order(len(ready.rows), limit)
        images = [(id(image), self._tower_tokens(image)) for image in ready.images] if self._sees_once else []
        return cut([len(row.ids) for row in ready.rows], limit, self._overhead, images)

    def _tower_tokens(self, image: Encoded) -> float:
        """Returns what the tower costs on an image, in tokens of the language model."""
        anatomy = self.backbone.anatomy
        patches = tower.tokens_of(self.backbone, image) * anatomy.merge**2
        return patches * anatomy.vision_used_parameters / anatomy.language_parameters

    def sum_of(self, ready: Ready, chosen: list[int]) -> tuple[Tensor, int]:
        """Returns (sum of the answer tokens' cross-entropy, number of those tokens) of a micro-batch."""
        logits, labels = self.answers(ready, chosen)
        return functional.cross_entropy(logits, labels, reduction="sum"), len(labels)

    def answers(self, ready: Ready, chosen: list[int]) -> tuple[Tensor, Tensor]:
        """Returns (logits of the answer tokens of a micro-batch in float32, (tokens, words); the tokens themselves)."""
        with self.backbone.computing(), self._skipped():
            return self._answers(ready, chosen)

    def _answers(self, ready: Ready, chosen: list[int]) -> tuple[Tensor, Tensor]:
        backbone = self.backbone
        batch: dict[str, Any] = backbone.pad([ready.rows[i] for i in chosen], "right")
        labels = batch.pop("labels")[:, 1:]
        known = labels != IGNORED
        images = [ready.images[i] for i in chosen]
        if self.is_plain:
            batch |= backbone.inputs(images)
            return backbone.model(**batch, use_cache=False).logits[:, :-1][known].float(), labels[known]
        head, read = backbone.model.get_submodule(backbone.anatomy.lm_head), functional.pad(known, (0, 1))
        # Only labelled positions reach the head, in any version of transformers and whatever stands after the head.
        hook = head.register_forward_pre_hook(lambda module, args: (args[0][:, :-1][known.to(args[0].device)],))
        try:
            with self._given(images) as given, prompts_as_keys(backbone), rows_read(backbone, read):
                logits = backbone.model(**batch, **given, use_cache=False).logits
        finally:
            hook.remove()
        return logits.float(), labels[known]
