"""Answers of a model to a task's samples: the greedy reply, and the probability of each legal answer.

A question about an image is answered once, however often the task asks it; images are processed and encoded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpt_bench.common.errors import RunFailed
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.engine.forward.prepared_images import ImagePrefetcher, PreparedImages
from mmpt_bench.engine.forward.tower import unread_blocks_skipped
from mmpt_bench.engine.inference.plain import Answer, Question, answer, prompt_of
from mmpt_bench.engine.inference.prefixes import NotShared
from mmpt_bench.engine.inference.pruning import Pruner
from mmpt_bench.engine.inference.shared import Shared, unfit
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.memory import first_here, halved, shortage
from mmpt_bench.evaluation.pruning import Pruning
from mmpt_bench.evaluation.task import Task

MARGIN = {"float16": 0.02, "bfloat16": 0.15}
"""Lead, in nats, below which rounding may decide between two words: some units in the last place of a logit near 16."""


@dataclass(frozen=True)
class InferenceOptions:
    """How questions are asked; but for `pruning`, it is to change no reply."""

    batch_size: int = 64
    images: str | None = None
    """Name of a set in which equal keys are equal images; features of a frozen tower are kept under it."""
    guard: bool = True
    """In half precision, ask again the plain way, alone, where two words are as good as equal."""
    say: Callable[[str], None] = lambda text: None
    """Told how many answers were asked for again."""
    pruning: Pruning | None = None
    """How many image tokens are shown, and which; None: all of them."""
    stopping: Callable[[], bool] = lambda: False
    """Asked while image tokens are chosen; `Interrupted` is raised when it says so."""
    note: Callable[[str], None] | None = None
    """Told once where nothing can be shared between questions, whatever the task; by default `say` is."""


USUAL = InferenceOptions()
_FAULTS = (MemoryError, RuntimeError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a model's own code raises that is called in a way it does not know."""


def predict(
    backbone: Backbone, task: Task, samples: Sequence[Sample], options: InferenceOptions = USUAL
) -> Iterator[list[Prediction]]:
    """Yields predictions, a batch at a time; a sample's do not depend on what else is in its batch.

    Raises:
        RunFailed: memory runs out with one question a batch, or log-probabilities are not finite.
    """
    for batch in answers(backbone, task.title, task.max_new_tokens, distinct(backbone, samples), options):
        yield [prediction(task, sample, made) for one, made in batch for sample in one.samples]


def answers(
    backbone: Backbone,
    title: str,
    max_new_tokens: int,
    asked: Sequence[Question],
    options: InferenceOptions = USUAL,
) -> Iterator[list[tuple[Question, Answer]]]:
    """Yields every question with its answer, a batch at a time, in an order of its own.

    Args:
        title: what the questions are from, for messages.

    Raises:
        RunFailed: memory runs out with one question a batch.
    """
    first_here()
    todo, batch_size, again = _in_order(asked), options.batch_size, 0
    with closing(PreparedImages(backbone, options.images)) as images:
        way = _Way(backbone, max_new_tokens, images, options)
        way.share(todo)
        while todo:
            batch = todo[:batch_size]
            images.soon([one.first for one in todo[batch_size : 2 * batch_size]])
            try:
                made, n = way.answer(batch)
            except (MemoryError, RuntimeError) as error:
                batch_size = halved(batch_size, error, "one question")
                continue
            todo, again = todo[len(batch) :], again + n
            yield list(zip(batch, made, strict=True))
    if again:
        close = f"{again:,} of {len(asked):,} answers were close calls in {backbone.dtype}"
        options.say(f"{title}: {close} and asked for again")


def distinct(backbone: Backbone, samples: Sequence[Sample]) -> list[Question]:
    """Returns the distinct questions, each with the samples that ask it."""
    asked: dict[tuple[object, ...], Question] = {}
    prompts: dict[tuple[object, ...], str] = {}
    for sample in samples:
        shown = tuple(image.key for image in sample.images)
        before = tuple(shot.id for shot in sample.shots)
        what = (sample.system, before, sample.question, len(shown))
        if what not in prompts:
            prompts[what] = prompt_of(backbone, sample)
        key = (shown, before, sample.system, sample.question, sample.choices)
        asked.setdefault(key, Question(prompts[what], [])).samples.append(sample)
    return list(asked.values())


def prediction(task: Task, sample: Sample, made: Answer) -> Prediction:
    """Returns a sample's answer as its task reads it; raises RunFailed for a log-probability that is not finite."""
    reply, logprobs = made
    check_finite(sample, logprobs)
    best = sample.choices[logprobs.index(max(logprobs))] if sample.choices else None
    return Prediction(sample.id, reply, task.read(reply, sample.choices), best, logprobs)


def check_finite(sample: Sample, logprobs: Sequence[float]) -> None:
    """Raises RunFailed for a log-probability that is not finite."""
    if not all(map(math.isfinite, logprobs)):
        raise RunFailed(f"log-probabilities of sample `{sample.id}` are not finite")


def _in_order(asked: Sequence[Question]) -> list[Question]:
    """Returns questions about an image next to each other, images by the length of their longest question."""
    longest: dict[str, int] = {}
    for one in asked:
        longest[one.first.image.key] = max(longest.get(one.first.image.key, 0), len(one.prompt))
    return sorted(asked, key=lambda one: (longest[one.first.image.key], one.first.image.key, len(one.prompt)))


class _Way:
    """The way that questions are answered: sharing what they have in common while that holds, then the plain one."""

    def __init__(
        self, backbone: Backbone, max_new_tokens: int, images: PreparedImages, options: InferenceOptions
    ) -> None:
        self.backbone, self.max_new_tokens = backbone, max_new_tokens
        self.images, self.options = images, options
        self.pruner = None if options.pruning is None else Pruner(backbone, options.pruning, images, options.stopping)
        self._shared: Shared | None = None

    def share(self, todo: Sequence[Question]) -> None:
        """Takes the shared way, where the model allows it and it answers the first questions as the plain one does."""
        why = unfit(self.backbone)
        if not why and self.pruner is not None and any(len(one.first.images) > 1 for one in todo):
            why = "image tokens are chosen, and some questions have several images"
        if not why and todo:
            try:
                with torch.no_grad(), self.backbone.computing():
                    shared = Shared(self.backbone, self.max_new_tokens, self.images, self.pruner)
                    shared.check(todo)
                self._shared = shared
            except NotShared as error:
                why = str(error)
            except _FAULTS as error:
                if shortage(error) is None:
                    # A family whose code shares otherwise; what is wrong with a method, the plain way says too.
                    fault = str(error).partition("\n")[0][:100]
                    why = f"the shared way does not run on this model ({type(error).__name__}: {fault})"
                else:
                    why = "memory ran out while the shared way was compared with the plain one"
        if why:
            self._say_plain(why)

    def answer(self, batch: Sequence[Question]) -> tuple[list[Answer], int]:
        """Returns the answers to a batch, and how many of them were close calls that were asked for again."""
        with torch.no_grad(), self.backbone.computing():
            if self._shared is not None:
                try:
                    with unread_blocks_skipped(self.backbone):
                        made = self._shared.answer(batch)
                    return self._guarded(batch, made, self._shared.margins)
                except NotShared as error:
                    self._shared = None
                    self._say_plain(str(error))
            return self._plain(batch), 0

    def _guarded(
        self, batch: Sequence[Question], made: list[Answer], leads: Sequence[float]
    ) -> tuple[list[Answer], int]:
        """Returns the answers with close calls asked again, and how many there were."""
        least = MARGIN.get(self.backbone.dtype, 0.0) if self.options.guard else 0.0
        close = [i for i, lead in enumerate(leads) if lead < least]
        for i in close:
            made[i] = self._plain([batch[i]])[0]
        return made, len(close)

    def _plain(self, batch: Sequence[Question]) -> list[Answer]:
        images = self.images.processed([one.first for one in batch])
        return answer(self.backbone, self.max_new_tokens, batch, images, self.pruner)

    def _say_plain(self, why: str) -> None:
        note = self.options.note or self.options.say
        note(f"No key/value cache is shared between questions, which is slower, because {why}")


def pooled_features(
    backbone: Backbone,
    asked: Sequence[tuple[LazyImage, str]],
    batch: int = 32,
    stopping: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Returns the mean of the decoder's last hidden states over image and question, (questions, width), in float32.

    Stops early, with fewer rows, where `stopping` says so.
    """
    found = []
    with torch.no_grad(), closing(ImagePrefetcher(backbone)) as images, backbone.computing():
        for first in range(0, len(asked), batch):
            if stopping():
                break
            some = asked[first : first + batch]
            encoded = images.take([image for image, _ in some])
            made = backbone.batch(encoded, [backbone.prompt_text(question) for _, question in some])
            states = backbone.model(**made, use_cache=False, output_hidden_states=True).hidden_states[-1].float()
            mask = made["attention_mask"][..., None].to(states)
            found.append(((states * mask).sum(1) / mask.sum(1)).cpu())
    return torch.cat(found) if found else torch.empty(0)
