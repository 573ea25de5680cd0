"""The plain way to an answer: whole prompts, every image through the whole tower, `generate`, nothing shared.

What faster ways are held to. With a batch of one it is how lmms-eval and others ask a LLaVA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from mmpt_bench.common.hashing import derive
from mmpt_bench.data.examples import exchanges_of, opening_of
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.forward.prepared_images import PreparedImages
from mmpt_bench.engine.inference.pruning import Kept, Pruner
from mmpt_bench.engine.models.backbone import IGNORED, Backbone
from mmpt_bench.engine.models.encoding import Encoded, together
from mmpt_bench.evaluation.task import Task

Answer = tuple[str, tuple[float, ...]]
"""The greedy reply, and the natural log-probability of each legal answer."""


@dataclass(frozen=True)
class Question:
    """A distinct question, and the samples that ask it."""

    prompt: str
    """In the chat frame, with one image token for each image."""
    samples: list[Sample]

    @property
    def first(self) -> Sample:
        """Returns the sample whose image and legal answers stand for those of all."""
        return self.samples[0]


def prompt_of(backbone: Backbone, sample: Sample) -> str:
    """Returns a sample's prompt: the system's turn, solved examples, a token for each image, and the question."""
    return backbone.prompt_text(sample.question, exchanges_of(sample), opening_of(sample))


def answer(
    backbone: Backbone,
    max_new_tokens: int,
    batch: Sequence[Question],
    images: Sequence[Encoded],
    pruner: Pruner | None = None,
) -> list[Answer]:
    """Returns the answer to each question about its image, which is as the processor makes it, or pruned."""
    prompts = [one.prompt for one in batch]
    kept = None if pruner is None else pruner.kept([one.first for one in batch], prompts)
    out, length = generated(backbone, max_new_tokens, images, prompts, kept)
    new = out.sequences[:, length:]
    replies = backbone.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
    first = out.logits[0].float().log_softmax(-1)
    encoded = [choice_ids(backbone, one) for one in batch]
    if all(len(ids) == 1 for row in encoded for ids in row):
        ranks = [tuple(first[i, ids[0]].item() for ids in row) for i, row in enumerate(encoded)]
    else:
        ranks = _score(backbone, batch, images, kept)
    return list(zip(replies, ranks, strict=True))


def generated(
    backbone: Backbone, max_new_tokens: int, images: Sequence[Encoded], prompts: Sequence[str], kept: Kept | None
) -> tuple[Any, int]:
    """Returns (what `generate` says greedily to prompts, with logits, how many tokens they have with padding)."""
    with kept.cut() if kept is not None else nullcontext():
        inputs = (backbone if kept is None else kept).batch(images, prompts)
        out = backbone.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=pad_token(backbone),
        )
    return out, inputs["input_ids"].shape[1]


def one_by_one(
    backbone: Backbone, task: Task, samples: Sequence[Sample], pruner: Pruner | None = None
) -> Iterator[tuple[Sample, Answer]]:
    """Yields each sample's answer, asked alone and anew, as lmms-eval asks: repeated questions and images too."""
    for sample in samples:
        asked = Question(prompt_of(backbone, sample), [sample])
        with torch.no_grad(), backbone.computing():
            images = together(backbone.encode([image.open() for image in sample.images]))
            (made,) = answer(backbone, task.max_new_tokens, [asked], [images], pruner)
        yield sample, made


def sampled(backbone: Backbone, asked: Sequence[Question], decoding: Mapping[str, Any]) -> Iterator[str]:
    """Yields the sampled reply to each question, in their order: no batch and no other question changes it.

    Args:
        decoding: temperature (0: greedy), top_k, new_tokens, seed; the seed of an item follows from it and its id.
    """
    heat = decoding["temperature"]
    given: dict[str, Any] = {
        "max_new_tokens": decoding["new_tokens"],
        "num_beams": 1,
        "pad_token_id": pad_token(backbone),
    }
    given |= {"do_sample": True, "temperature": heat, "top_k": decoding["top_k"]} if heat else {"do_sample": False}
    images = PreparedImages(backbone)
    devices = [torch.device(backbone.device)] if backbone.device.startswith("cuda") else []
    for one in asked:
        inputs = backbone.batch(images.processed([one.first]), [one.prompt])
        with torch.random.fork_rng(devices), torch.no_grad(), backbone.computing():
            torch.manual_seed(derive(decoding["seed"], one.first.id))
            out = backbone.model.generate(**inputs, **given)
        new = out[:, inputs["input_ids"].shape[1] :]
        (reply,) = backbone.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        yield reply.strip()


def choice_ids(backbone: Backbone, one: Question) -> list[list[int]]:
    """Returns the tokens that each legal answer adds to the prompt, without the end of the sequence."""
    choices = list(one.first.choices)
    if not choices:
        return []
    rows = backbone.tokens([one.prompt] * len(choices), choices, n_image_tokens=1)
    return [row.ids[slice(*row.replies[0])][:-1] for row in rows]


def pad_token(backbone: Backbone) -> int:
    """Returns the token that fills up a batch: the end-of-sequence token where the tokenizer has none of its own."""
    tokenizer = backbone.processor.tokenizer
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def _score(
    backbone: Backbone, batch: Sequence[Question], images: Sequence[Encoded], kept: Kept | None
) -> list[tuple[float, ...]]:
    """Returns the summed log-probability of each choice's tokens, for answers of more than one token."""
    ranks: list[list[float]] = [[] for _ in batch]
    for column in range(max(len(one.first.choices) for one in batch)):
        rows = [i for i, one in enumerate(batch) if column < len(one.first.choices)]
        prompts = [batch[i].prompt for i in rows]
        targets = [batch[i].first.choices[column] for i in rows]
        shown, own = [images[i] for i in rows], None if kept is None else kept.of(rows)
        for i, said in zip(rows, continued(backbone, shown, prompts, targets, own), strict=True):
            ranks[i].append(said.logprob)
    return [tuple(row) for row in ranks]


@dataclass(frozen=True)
class Continued:
    """How a model takes a text after a prompt."""

    logprob: float
    """Natural log-probability of its tokens, summed, without the end of the sequence."""
    n_tokens: int
    greedy: bool
    """Each of its tokens is the most probable one."""


def continued(
    backbone: Backbone,
    images: Sequence[Encoded],
    prompts: Sequence[str],
    targets: Sequence[str],
    kept: Kept | None = None,
) -> list[Continued]:
    """Returns how the model takes each target after its prompt, about images as the processor makes them, or cut."""
    with kept.cut() if kept is not None else nullcontext():
        inputs: dict[str, Any] = (backbone if kept is None else kept).batch(images, prompts, targets)
        labels = inputs.pop("labels")[:, 1:]
        logits = backbone.model(**inputs, use_cache=False).logits[:, :-1].float().log_softmax(-1)
    known = labels != IGNORED
    # The end-of-sequence token is not part of the answer: a longer answer is not to pay for a shorter one's end.
    known &= known.flip(1).cumsum(1).flip(1) > 1
    picked = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    sums = torch.where(known, picked, 0.0).sum(1).tolist()
    best = ((logits.argmax(-1) == labels) | ~known).all(1).tolist()
    return [Continued(*row) for row in zip(sums, known.sum(1).tolist(), best, strict=True)]
