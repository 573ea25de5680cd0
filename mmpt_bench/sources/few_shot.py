"""Solved examples before every question of a task: drawn from its training split, the same for all methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.hashing import content_key, derive
from mmpt_bench.common.words import counted
from mmpt_bench.data.images import LazyImage, key_clashes
from mmpt_bench.data.rows import SHIFTED
from mmpt_bench.data.samples import Sample, Shot
from mmpt_bench.sources.prepared import PreparedTask
from mmpt_bench.sources.task_rows import Where, rows_of, samples

MOST = 100
"""Examples before a question."""
SEED = 0
"""Of the drawing: no run's own, so that its seeds differ in training alone."""


def checked_count(k: int) -> int:
    """Returns how many solved examples are asked for; RequestError for a number that can be none."""
    if not 0 <= k <= MOST:
        raise RequestError(f"`--few-shot` is {str(k)[:40]}: a number from 1 to {MOST}, or none.")
    return k


def with_examples(item: PreparedTask, k: int, where: Where) -> PreparedTask:
    """Returns a task whose every question stands after the same `k` solved examples.

    Args:
        where: the task's rows are from.

    Raises:
        RequestError: there is no training split apart from what is evaluated, fewer images in it, or one that is drawn
            cannot be read.
    """
    from mmpt_bench.embedded.suite import in_a_word

    task = item.task.on(item.task.data.training_split())
    try:
        rows = rows_of(task, dataclasses.replace(where, world=SHIFTED, is_dev=False))
    except RequestError as error:
        raise RequestError(f"`--few-shot {k}` needs the training split of {task.title}: {error}") from error
    if rows.fingerprint == item.rows.fingerprint:
        raise RequestError(f"`--few-shot {k}`: {task.title} has no training split apart from what is evaluated.")
    made = samples(task, rows)
    evaluated = item.samples if item.limit is None else samples(item.task, item.rows)
    drawn = list(_drawn(task.name, made, k, evaluated))
    if len(drawn) < k:
        raise RequestError(
            f"`--few-shot {k}`: the training split of {task.title} has "
            f"{counted(len(drawn), 'image that is', 'images that are')} not evaluated. "
            f"The most is {len(drawn):,}."
        )
    text_alone = task.examples_without_images
    shots = tuple(
        Shot(
            one.id,
            () if text_alone else tuple(_apart(image) for image in (one.image, *one.more_images)),
            one.question,
            one.answer if rows.suite == "real" else in_a_word(one.answer),
        )
        for one in drawn
    )
    told = content_key(
        ["few-shot", task.version, rows.fingerprint, text_alone, [[s.id, s.question, s.reply] for s in shots]]
    )
    before = [dataclasses.replace(sample, shots=shots) for sample in item.samples]
    return dataclasses.replace(item, samples=before, shots=shots, asked_with=(*item.asked_with, told))


def with_system(item: PreparedTask, text: str) -> PreparedTask:
    """Returns a task asked after a turn of the system; RequestError where questions have one of their own."""
    if any(sample.system for sample in item.samples):
        raise RequestError(f"`--system`: questions of {item.task.title} have a turn of the system of their own.")
    before = [dataclasses.replace(sample, system=text) for sample in item.samples]
    told = content_key(["system", text])
    return dataclasses.replace(item, samples=before, asked_with=(*item.asked_with, told))


def _drawn(name: str, made: list[Sample], k: int, evaluated: Iterable[Sample]) -> Iterator[Sample]:
    """Yields up to `k` samples, each of another image and of none that is evaluated."""
    shown, taken = _Shown(evaluated), set[str]()
    for at in np.random.default_rng(derive(SEED, f"few-shot {name}")).permutation(len(made)):
        if len(taken) == k:
            return
        one = made[at]
        image = one.cluster or one.image.key
        if image not in taken and not any(shown.holds(each) for each in one.images):
            taken.add(image)
            for each in one.images:
                each.open()  # raises BadImage, before anything runs
            yield one


def _apart(image: LazyImage) -> LazyImage:
    """Returns an image under a key that no evaluated one has: numbers of rows are keys in both splits."""
    return dataclasses.replace(image, key=f"example {image.key}")


class _Shown:
    """The evaluated images."""

    def __init__(self, evaluated: Iterable[Sample]) -> None:
        self._by_key: dict[str, LazyImage] = {}
        self._by_size: dict[int, list[LazyImage]] = {}
        for image in (image for sample in evaluated for image in sample.images):
            if image.key not in self._by_key:
                self._by_key[image.key] = image
                if (size := _size(image)) is not None:
                    self._by_size.setdefault(size, []).append(image)

    def holds(self, image: LazyImage) -> bool:
        """Returns whether an image is one of them: the same file, or under the same key the same pixels."""
        known = self._by_key.get(image.key)
        if known is not None and not key_clashes([("one", image), ("other", known)]):
            return True
        size = _size(image)
        return size is not None and any(_bytes(image) == _bytes(each) for each in self._by_size.get(size, ()))


def _size(image: LazyImage) -> int | None:
    """Returns the bytes that an encoded image has; None where it is not encoded, or cannot be read."""
    if isinstance(image.source, bytes):
        return len(image.source)
    try:
        return int(image.source.stat().st_size) if hasattr(image.source, "stat") else None
    except OSError:
        return None


def _bytes(image: LazyImage) -> bytes:
    found: bytes = image.source if isinstance(image.source, bytes) else image.source.read_bytes()
    return found
