"""Answers of a model to a task's samples: the greedy reply, and the probability of each legal answer.

A question about a picture is answered once, however often the task asks it; pictures are processed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmpt_bench.encoded import Encoded
from mmpt_bench.errors import RunFailed
from mmpt_bench.task import Prediction, Sample, Task

if TYPE_CHECKING:
    from mmpt_bench.backbone import Backbone

PIXEL_CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class _Asked:
    """A distinct question, and the samples that ask it."""

    prompt: str
    first: Sample
    samples: list[Sample]


def predict(
    backbone: Backbone, task: Task, samples: Sequence[Sample], batch_size: int = 64
) -> Iterator[list[Prediction]]:
    """Yields predictions, a batch at a time; a sample's do not depend on what else is in its batch.

    Raises:
        RunFailed: log-probabilities are not finite, or memory runs out with one question a batch.
    """
    import torch

    asked: dict[tuple[str, str, tuple[str, ...]], _Asked] = {}
    for sample in samples:
        key = (sample.image.key, sample.question, sample.choices)
        known = asked.get(key)
        if known is None:
            asked[key] = _Asked(backbone.prompt_text(sample.question), sample, [sample])
        else:
            known.samples.append(sample)
    todo = sorted(asked.values(), key=lambda a: (len(a.prompt), a.first.image.key))
    pixels = _Pixels(backbone)
    while todo:
        batch = todo[:batch_size]
        try:
            with torch.no_grad():
                answers = _answer(backbone, task, batch, pixels)
        except (torch.OutOfMemoryError, MemoryError) as error:
            if batch_size == 1:
                raise RunFailed(f"out of memory with one question: {str(error).splitlines()[0]}") from error
            batch_size = (batch_size + 1) // 2
            continue
        todo = todo[len(batch) :]
        yield [
            _prediction(task, sample, reply, logprobs)
            for one, (reply, logprobs) in zip(batch, answers, strict=True)
            for sample in one.samples
        ]


class _Pixels:
    """Processed pictures by key, as many as fit into the cache."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.kept: dict[str, Encoded] = {}
        self.bytes = 0

    def __call__(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Returns the samples' pictures as the model takes them."""
        need = {s.image.key: s for s in samples if s.image.key not in self.kept}
        fresh: dict[str, Encoded] = {}
        if need:
            made = self.backbone.encode([s.image.open() for s in need.values()])
            fresh = dict(zip(need, made, strict=True))
        rows = [self.kept[s.image.key] if s.image.key in self.kept else fresh[s.image.key] for s in samples]
        for key, one in fresh.items():
            if self.bytes + one.n_bytes <= PIXEL_CACHE_BYTES:
                # A view of a batch's tensor would keep the whole batch.
                self.kept[key] = Encoded({name: value.clone() for name, value in one.tensors.items()}, one.text)
                self.bytes += one.n_bytes
        return rows


def _answer(
    backbone: Backbone, task: Task, batch: Sequence[_Asked], pixels: _Pixels
) -> list[tuple[str, tuple[float, ...]]]:
    """Returns (reply, log-probability of each choice) of each question."""
    pictures = pixels([one.first for one in batch])
    inputs = backbone.batch(pictures, [one.prompt for one in batch])
    out = backbone.model.generate(
        **inputs,
        max_new_tokens=task.max_new_tokens,
        do_sample=False,
        num_beams=1,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=_pad(backbone),
    )
    new = out.sequences[:, inputs["input_ids"].shape[1] :]
    replies = backbone.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
    first = out.logits[0].float().log_softmax(-1)
    encoded = [_choice_ids(backbone, one) for one in batch]
    if all(len(ids) == 1 for row in encoded for ids in row):
        ranks = [tuple(first[i, ids[0]].item() for ids in row) for i, row in enumerate(encoded)]
    else:
        ranks = _score(backbone, batch, pictures)
    return list(zip(replies, ranks, strict=True))


def _pad(backbone: Backbone) -> int:
    tokenizer = backbone.processor.tokenizer
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def _choice_ids(backbone: Backbone, one: _Asked) -> list[list[int]]:
    """Returns the tokens that each legal answer adds to the prompt."""
    batch = backbone.tokenize([one.prompt] * len(one.first.choices), list(one.first.choices), n_image_tokens=1)
    rows: list[list[int]] = []
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        rows.append(ids[labels != -100].tolist()[:-1])
    return rows


def _score(backbone: Backbone, batch: Sequence[_Asked], pictures: list[Encoded]) -> list[tuple[float, ...]]:
    """Returns the summed log-probability of each choice's tokens, for answers of more than one token."""
    import torch

    ranks: list[list[float]] = [[] for _ in batch]
    for column in range(max(len(one.first.choices) for one in batch)):
        rows = [i for i, one in enumerate(batch) if column < len(one.first.choices)]
        prompts = [batch[i].prompt for i in rows]
        targets = [batch[i].first.choices[column] for i in rows]
        inputs: dict[str, Any] = backbone.batch([pictures[i] for i in rows], prompts, targets)
        labels = inputs.pop("labels")[:, 1:]
        logits = backbone.model(**inputs, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        known = labels != -100
        # The end-of-sequence token is not part of the answer: a longer answer is not to pay for a shorter one's end.
        known &= known.flip(1).cumsum(1).flip(1) > 1
        picked = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        for i, total in zip(rows, torch.where(known, picked, 0.0).sum(1).tolist(), strict=True):
            ranks[i].append(total)
    return [tuple(row) for row in ranks]


def _prediction(task: Task, sample: Sample, reply: str, logprobs: tuple[float, ...]) -> Prediction:
    if not all(value == value and value > float("-inf") for value in logprobs):
        raise RunFailed(f"log-probabilities of sample `{sample.id}` are not finite")
    best = max(range(len(logprobs)), key=lambda i: logprobs[i])
    return Prediction(sample.id, reply, task.parse(reply, sample.choices), sample.choices[best], logprobs)
