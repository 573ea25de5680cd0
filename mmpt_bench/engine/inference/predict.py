"""Answers of a model to a task's samples: the greedy reply, and the probability of each legal answer.

A question about a picture is answered once, however often the task asks it; pictures are processed and encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from mmpt_bench.common.errors import RunFailed
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.engine.inference.plain import Answer, Question, answer
from mmpt_bench.evaluation.task import Task

if TYPE_CHECKING:
    from mmpt_bench.engine.forward.prepared_images import PreparedImages
    from mmpt_bench.engine.inference.shared import Shared
    from mmpt_bench.engine.models.backbone import Backbone

MARGIN = {"float16": 0.02, "bfloat16": 0.15}
"""Lead, in nats, below which rounding may decide between two words: some units in the last place of a logit near 16."""


def predict(
    backbone: Backbone,
    task: Task,
    samples: Sequence[Sample],
    batch_size: int = 64,
    pictures: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    guard: bool = True,
    share: bool = True,
) -> Iterator[list[Prediction]]:
    """Yields predictions, a batch at a time; a sample's do not depend on what else is in its batch.

    See `answers`, whose arguments and errors these are.

    Raises:
        RunFailed: log-probabilities are not finite.
    """
    asked = distinct(backbone, samples)
    given = answers(backbone, task.title, task.max_new_tokens, asked, batch_size, pictures, say, guard, share)
    for batch in given:
        yield [_prediction(task, sample, reply, logprobs) for one, (reply, logprobs) in batch for sample in one.samples]


def answers(
    backbone: Backbone,
    title: str,
    max_new_tokens: int,
    asked: Sequence[Question],
    batch_size: int = 64,
    pictures: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    guard: bool = True,
    share: bool = True,
) -> Iterator[list[tuple[Question, Answer]]]:
    """Yields every question with its answer, a batch at a time, in an order of its own.

    Args:
        title: what the questions are from, for messages.
        pictures: name of a set in which equal keys are equal pictures; features of a frozen tower are kept under it.
        say: told once where nothing can be shared between questions, and how many answers were asked for again.
        guard: in half precision, ask again the plain way, alone, where two words are as good as equal.
        share: off for the plain way throughout.

    Raises:
        RunFailed: memory runs out with one question a batch.
    """
    from mmpt_bench.engine.forward.prepared_images import PreparedImages

    with closing(PreparedImages(backbone, pictures)) as shown:
        yield from _answered(backbone, title, max_new_tokens, asked, batch_size, shown, say, guard, share)


def _answered(
    backbone: Backbone,
    title: str,
    max_new_tokens: int,
    asked: Sequence[Question],
    batch_size: int,
    shown: PreparedImages,
    say: Callable[[str], None],
    guard: bool,
    share: bool,
) -> Iterator[list[tuple[Question, Answer]]]:
    """Yields questions with their answers; see `answers`."""
    import torch

    from mmpt_bench.engine.forward.tower import unread_blocks_skipped
    from mmpt_bench.engine.inference.shared import NotShared

    todo = _in_order(asked)
    n_asked, again = len(todo), 0
    with torch.no_grad():
        shared = _shared(backbone, title, max_new_tokens, todo, shown, say) if share else None
    while todo:
        batch = todo[:batch_size]
        shown.soon([one.first for one in todo[batch_size : 2 * batch_size]])
        try:
            with torch.no_grad(), unread_blocks_skipped(backbone):
                made, n = _answers(backbone, max_new_tokens, batch, shown, shared, guard)
        except (torch.OutOfMemoryError, MemoryError) as error:
            if batch_size == 1:
                raise RunFailed(f"out of memory with one question: {str(error).splitlines()[0]}") from error
            batch_size = (batch_size + 1) // 2
            continue
        except NotShared as error:
            shared = None
            say(_unshared(title, str(error)))
            continue
        todo, again = todo[len(batch) :], again + n
        yield list(zip(batch, made, strict=True))
    if again:
        say(f"{title}: {again:,} of {n_asked:,} answers were close calls in {backbone.dtype} and asked for again")


def distinct(backbone: Backbone, samples: Sequence[Sample]) -> list[Question]:
    """Returns the distinct questions, each with the samples that ask it."""
    asked: dict[tuple[str, str, tuple[str, ...]], Question] = {}
    prompts: dict[str, str] = {}
    for sample in samples:
        key = (sample.image.key, sample.question, sample.choices)
        known = asked.get(key)
        if known is not None:
            known.samples.append(sample)
            continue
        if sample.question not in prompts:
            prompts[sample.question] = backbone.prompt_text(sample.question)
        asked[key] = Question(prompts[sample.question], sample, [sample])
    return list(asked.values())


def _in_order(asked: Sequence[Question]) -> list[Question]:
    """Returns questions about a picture next to each other, pictures by the length of their longest question."""
    longest: dict[str, int] = {}
    for one in asked:
        longest[one.first.image.key] = max(longest.get(one.first.image.key, 0), len(one.prompt))
    return sorted(asked, key=lambda one: (longest[one.first.image.key], one.first.image.key, len(one.prompt)))


def _shared(
    backbone: Backbone,
    title: str,
    max_new_tokens: int,
    todo: list[Question],
    shown: PreparedImages,
    say: Callable[[str], None],
) -> Shared | None:
    """Returns the way that shares what questions have in common, or None after saying why there is none."""
    import torch

    from mmpt_bench.engine.inference import shared

    why = shared.unfit(backbone)
    if not why and todo:
        way = shared.Shared(backbone, max_new_tokens, shown)
        try:
            way.check(todo)
            return way
        except shared.NotShared as error:
            why = str(error)
        except (torch.OutOfMemoryError, MemoryError):
            why = "memory ran out while the shared way was compared with the plain one"
    if why:
        say(_unshared(title, why))
    return None


def _unshared(title: str, why: str) -> str:
    return f"{title}: every question is asked on its own, because {why}"


def _answers(
    backbone: Backbone,
    max_new_tokens: int,
    batch: list[Question],
    shown: PreparedImages,
    shared: Shared | None,
    guard: bool,
) -> tuple[list[Answer], int]:
    """Returns the answers to a batch, and how many of them were close calls that were asked for again."""
    if shared is None:
        return answer(backbone, max_new_tokens, batch, shown.processed), 0
    made = shared.answer(batch)
    if not guard or backbone.dtype not in MARGIN:
        return made, 0
    close = [i for i, lead in enumerate(shared.margins) if lead < MARGIN[backbone.dtype]]
    for i in close:
        made[i] = answer(backbone, max_new_tokens, [batch[i]], shown.processed)[0]
    return made, len(close)


def _prediction(task: Task, sample: Sample, reply: str, logprobs: tuple[float, ...]) -> Prediction:
    if not all(value == value and value > float("-inf") for value in logprobs):
        raise RunFailed(f"log-probabilities of sample `{sample.id}` are not finite")
    best = max(range(len(logprobs)), key=lambda i: logprobs[i])
    return Prediction(sample.id, reply, task.parse(reply, sample.choices), sample.choices[best], logprobs)
