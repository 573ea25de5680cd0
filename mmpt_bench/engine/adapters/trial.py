"""What the checks do with an attached method: a small batch, some steps, replies, and a copy of the model's state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmpt_bench.common.checking import require
from mmpt_bench.data.examples import Corpus, Example
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.families import family
from mmpt_bench.records.budget import Budget

QUESTIONS = ("is there a circle ?", "how many red squares are there in this picture ?", "is it blue ?")
ANSWERS = ("yes", "no", "yes")
NEW_TOKENS = 6
CHOICES = ("yes", "no", "two circles", "three red squares")
"""Legal answers of one token and of several."""
CLOSE = 1e-4
"""Largest difference, in nats, of a log-probability computed in another order."""
NOISE_SIDE = 16
"""Pixels of a picture's side, for towers that have no size of their own."""


@contextmanager
def attached(method: Any, backbone: Backbone, seed: int = 0) -> Iterator[Handle]:
    """Yields the handle of an attached method and takes it off, whatever happens."""
    handle = method.attach(backbone, seed)
    try:
        yield handle
    finally:
        handle.remove()


def batch_of(backbone: Backbone) -> dict[str, Tensor]:
    """Returns three examples of unequal length, with pictures of noise."""
    prompts = [backbone.prompt_text(question) for question in QUESTIONS]
    return backbone.batch(noise_pictures(backbone), prompts, ANSWERS)


def noise_pictures(backbone: Backbone) -> list[Any]:
    """Returns one picture a question, always the same: of the tower's own size, or of shapes that differ."""
    size = getattr(backbone.model.config.vision_config, "image_size", None) or NOISE_SIDE
    side = size if isinstance(size, int) else size[0]
    # Families that take a picture in its own shape must cope with a batch of several.
    shapes = [(1, 1)] * 3 if family(backbone.anatomy.family).one_size else [(1, 1), (2, 1), (1, 2)]
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (high * side, wide * side, 3), dtype=np.uint8))
        for high, wide in shapes
    ]


def train_briefly(method: Any, backbone: Backbone, handle: Handle, steps: int) -> list[float]:
    """Returns the loss before each step of AdamW on one batch, at the method's own rate, and after the last.

    A method that trains nothing takes no step.
    """
    if not handle.trainable:
        return []
    batch, losses = batch_of(backbone), []
    optimiser = torch.optim.AdamW(handle.trainable.values(), lr=method.learning_rate, weight_decay=0.0)
    for _ in range(steps):
        optimiser.zero_grad()
        with backbone.computing():
            loss = backbone.model(**batch).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    with torch.no_grad(), backbone.computing():
        return [*losses, backbone.model(**batch).loss.item()]


def train_as_run(method: Any, backbone: Backbone, handle: Handle, steps: int) -> list[dict[str, float]]:
    """Trains on the batch's examples as `run` does, with the method's own terms, and returns these of each step.

    Raises RunFailed where a parameter gets no gradient.
    """
    from mmpt_bench.engine.training.objective import OfMethod
    from mmpt_bench.engine.training.train import TrainingConfig, train

    images = [LazyImage(f"noise {i}", lambda one=one: one) for i, one in enumerate(noise_pictures(backbone))]  # type: ignore[misc]
    examples = [Example(*each) for each in zip(images, QUESTIONS, ANSWERS, strict=True)]
    corpus = Corpus("check", "check", len(examples), examples.__getitem__, 0, examples.__getitem__)
    budget = Budget(steps=steps, batch_size=len(examples), schedule="constant")
    config = TrainingConfig(budget, method.learning_rate, 0, method.groups(backbone.anatomy))
    found: list[dict[str, float]] = []
    train(backbone, handle, corpus, config, on_step=lambda step: found.append(step.terms), terms=[OfMethod(method)])
    return found


def logits_of(backbone: Backbone) -> Tensor:
    """Returns the model's logits for the batch, (examples, tokens, vocabulary)."""
    with torch.no_grad(), backbone.computing():
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


def traces(backbone: Backbone) -> dict[str, Any]:
    """Returns what tells, at little cost, that a method left something behind: what caches add is not of it."""
    model, found = backbone.model, snapshot(backbone)
    kept = {name: value for name, value in model.state_dict().items() if type(value) is Tensor and not value.is_meta}
    wide = {name: torch.float32 if value.device.type == "mps" else torch.float64 for name, value in kept.items()}
    return {kind: found[kind] for kind in ("hooks", "modules", "flags")} | {
        "forwards": [name for name, module in model.named_modules() if "forward" in vars(module)],
        "sums": {name: str(value.sum(dtype=wide[name]).item()) for name, value in kept.items()},
    }


def answers_shared_and_alone(backbone: Backbone) -> str:
    """Returns how many answers, asked with what they share done once, are those of the plain way, asked alone.

    Raises:
        CheckFailed: replies differ, or log-probabilities by more than `CLOSE`.
    """
    from mmpt_bench.engine.forward.prepared_images import PreparedImages
    from mmpt_bench.engine.inference.plain import Question, answer
    from mmpt_bench.engine.inference.prefixes import NotShared
    from mmpt_bench.engine.inference.shared import Shared, unfit

    shown = [LazyImage(f"noise {i}", lambda one=one: one) for i, one in enumerate(noise_pictures(backbone))]  # type: ignore[misc]
    asked = []
    for image in shown:
        # Of one image once, so that the number of questions differs.
        for question in QUESTIONS[: 1 if image is shown[1] else None]:
            asked.append(Question(backbone.prompt_text(question), [Sample("", image, question, CHOICES, CHOICES[0])]))
    with closing(PreparedImages(backbone)) as images, torch.no_grad(), backbone.computing():
        try:
            if why := unfit(backbone):
                return f"not applicable: {why}"
            shared = Shared(backbone, NEW_TOKENS, images)
            shared.check(asked)
            together = shared.answer(asked)
        except NotShared as error:
            return f"not applicable: {error}"
        alone = [answer(backbone, NEW_TOKENS, [one], images.processed([one.first]))[0] for one in asked]
    require([reply for reply, _ in together] == [reply for reply, _ in alone], "replies differ")
    ours, wanted = (torch.tensor([ranks for _, ranks in made]) for made in (together, alone))
    apart = (ours - wanted).abs().max().item()
    require(backbone.dtype != "float32" or apart <= CLOSE, f"log-probabilities differ by {apart:.1e}")
    return f"{len(asked)} replies agree, log-probabilities within {CLOSE:.0e}"


def replies(backbone: Backbone, pictures: list[Any], prompts: list[str], use_cache: bool = True) -> list[list[int]]:
    """Returns greedy replies as tokens, all of the same length."""
    batch, config = backbone.batch(pictures, prompts), backbone.model.config
    # Ovis2 has words around an image that are visual ones too.
    marks = {config.image_token_id, *getattr(config, "visual_indicator_token_ids", ())}
    with torch.no_grad(), backbone.computing():
        tokens = backbone.model.generate(
            **batch,
            do_sample=False,
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            use_cache=use_cache,
            # A small model may well say "<image>", which without a cache would ask for another picture.
            suppress_tokens=sorted(marks),
        )
    return tokens[:, batch["input_ids"].shape[1] :].tolist()
