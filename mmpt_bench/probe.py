"""What the checks do with an attached method: a small batch, some steps, replies, and a copy of the model's state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mmpt_bench.adapter import Handle

if TYPE_CHECKING:
    from torch import Tensor

    from mmpt_bench.backbone import Backbone

QUESTIONS = ("is there a circle ?", "how many red squares are there in this picture ?", "is it blue ?")
ANSWERS = ("yes", "no", "yes")
NEW_TOKENS = 6


@contextmanager
def attached(adapter: Any, backbone: Backbone, seed: int = 0) -> Iterator[Handle]:
    """Yields the handle of an attached method and takes it off, whatever happens."""
    handle = adapter.attach(backbone, seed)
    try:
        yield handle
    finally:
        handle.remove()


def batch_of(backbone: Backbone, targets: bool = True) -> dict[str, Tensor]:
    """Returns three examples of unequal length, with pictures of noise."""
    prompts = [backbone.prompt_text(question) for question in QUESTIONS]
    return backbone.batch(noise_pictures(backbone), prompts, ANSWERS if targets else None)


def noise_pictures(backbone: Backbone) -> list[Any]:
    """Returns one picture a question, of the tower's own size, always the same."""
    import numpy as np
    from PIL import Image

    size = backbone.model.config.vision_config.image_size
    noise = np.random.default_rng(0).integers(0, 256, (len(QUESTIONS), size, size, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in noise]


def train_briefly(adapter: Any, backbone: Backbone, handle: Handle, steps: int) -> list[float]:
    """Returns the loss before each step of AdamW on one batch, at the method's own rate, and after the last."""
    import torch

    batch, losses = batch_of(backbone), []
    optimiser = torch.optim.AdamW(handle.trainable.values(), lr=adapter.learning_rate, weight_decay=0.0)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = backbone.model(**batch).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    with torch.no_grad():
        return [*losses, backbone.model(**batch).loss.item()]


def logits_of(backbone: Backbone) -> Tensor:
    """Returns the model's logits for the batch, (examples, tokens, vocabulary)."""
    import torch

    with torch.no_grad():
        return backbone.model(**batch_of(backbone)).logits


def snapshot(backbone: Backbone) -> dict[str, Any]:
    """Returns everything that `remove` must restore."""
    model = backbone.model
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "hooks": {name: [len(getattr(m, kind)) for kind in kinds] for name, m in model.named_modules()},
        "modules": [(name, type(module)) for name, module in model.named_modules()],
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "flags": {name: p.requires_grad for name, p in model.named_parameters()},
        "training modes": {name: module.training for name, module in model.named_modules()},
    }


def replies(backbone: Backbone, pictures: list[Any], prompts: list[str], use_cache: bool = True) -> list[list[int]]:
    """Returns greedy replies as tokens, all of the same length."""
    import torch

    batch = backbone.batch(pictures, prompts)
    with torch.no_grad():
        tokens = backbone.model.generate(
            **batch,
            do_sample=False,
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            use_cache=use_cache,
            # A small model may well say "<image>", which without a cache would ask for another picture.
            suppress_tokens=[backbone.processor.image_token_id],
        )
    return tokens[:, batch["input_ids"].shape[1] :].tolist()
