"""Test questions and training examples that cannot be used: found before anything runs, then refused or left out.

What is left out is left out for all methods alike, and what remains has another fingerprint: results with and without
some items never share a setting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.hashing import content_key
from mmpt_bench.common.words import counted
from mmpt_bench.data.examples import Corpus
from mmpt_bench.data.rows import LEFT_OUT, is_generated
from mmpt_bench.data.samples import Sample
from mmpt_bench.data.tables import bad_rows, first_of
from mmpt_bench.sources.opened_images import OpenedImages, kept, open_images
from mmpt_bench.sources.prepared import LEAVE_OUT, PreparedTask
from mmpt_bench.sources.task_rows import check_countable

if TYPE_CHECKING:
    from mmpt_bench.engine.models.backbone import Backbone

Reader = Callable[[], "Backbone | None"]
FAIL, SKIP = "fail", "skip"
"""What is done about bad items, as `--on-bad-item` has it."""


def with_opened_images(item: PreparedTask) -> PreparedTask:
    """Returns a task with what was found of its images; generated ones of the embedded suite are not looked at."""
    if is_generated(item.rows.suite) and not item.own:
        return item
    return dataclasses.replace(item, opened=open_images(image for sample in item.samples for image in sample.images))


def checked_task(item: PreparedTask, reader: Reader, skip: bool) -> PreparedTask:
    """Returns a task with its bad questions as faults, or without them.

    Args:
        item: from `with_opened_images`.
        reader: returns the backbone that reads images and texts, None where that is not known.
        skip: leaves out the questions that cannot be asked, and the others on the same images, so that pairs stay
            whole.
    """
    opened = item.opened
    if opened is None:
        return item
    bad = {key: fault.rstrip(".") for key, fault in opened.faults.items()}
    if (backbone := reader()) is not None:
        from mmpt_bench.engine.models.reading import image_texts, question_fault

        _, refused = image_texts(backbone, opened.sizes.values())
        bad |= {key: f"image `{key}` {refused[size]}" for key, size in opened.sizes.items() if size in refused}
        for sample in item.samples:
            fault = question_fault(backbone, sample)
            if fault:
                bad.setdefault(sample.image.key, f"question `{sample.id}`: {fault.rstrip('.')}")
    bad |= _uncountable(item, set(bad)) if skip else {}
    if not bad:
        return dataclasses.replace(item, faults=())
    images = {sample.cluster for sample in item.samples if _is_bad(sample, bad)} - {""}
    left = [each for each in item.samples if not _is_bad(each, bad) and each.cluster not in images]
    if not skip or not left:
        return dataclasses.replace(item, faults=tuple(bad.values()))
    check_countable(item.task, left, item.rows.origin)
    kept_ids = {sample.id for sample in left}
    out, rows = [sample.id for sample in item.samples if sample.id not in kept_ids], item.rows
    told = f"{len(out):,} of {len(item.samples):,} {LEFT_OUT}"
    rows = dataclasses.replace(
        rows,
        fingerprint=content_key([rows.fingerprint, "without", sorted(out)], 64),
        origin=f"{rows.origin}, {told}",
        notes=(*rows.notes, f"{told}: {first_of(list(bad.values()))}"),
    )
    return dataclasses.replace(item, rows=rows, samples=left, faults=())


def _uncountable(item: PreparedTask, bad: set[str]) -> dict[str, str]:
    """Returns fault by image key of the images whose questions the metric cannot count, as MME's with one question."""
    by_image: dict[str, list[Sample]] = {}
    for sample in item.samples:
        by_image.setdefault(sample.cluster, []).append(sample)
    found: dict[str, str] = {}
    for of_image in by_image.values():
        try:
            item.task.metric.coded(of_image)
        except ValueError as error:
            found |= {sample.image.key: str(error).rstrip(".") for sample in of_image if sample.image.key not in bad}
    return found


def _is_bad(sample: Sample, bad: Collection[str]) -> bool:
    return any(image.key in bad for image in sample.images)


FEW = 200
"""Examples of generated training data that are read to tell whether all are to be."""


def checked_corpus(corpus: Corpus, reader: Reader, max_length: int, skip: bool, is_generated: bool = False) -> Corpus:
    """Returns training data with their bad examples as faults, or without them; every image is opened.

    Args:
        reader: returns the backbone that reads images and texts, None where that is not known.
        max_length: longest example, in tokens.
        skip: leaves the bad examples out.
        is_generated: the package draws the images, all of one size: the first stands for them.

    Raises:
        RequestError: no example is left.
    """
    # Generated texts differ by less than a factor of two: mostly, a few of them tell that none is too long.
    if is_generated and corpus.size > FEW:
        some = dataclasses.replace(corpus, size=FEW, validation_size=0)
        if not checked_corpus(some, reader, max_length // 2, False, True).faults:
            return corpus
    examples = [corpus.example(i) for i in range(corpus.size)]
    examples += [corpus.validation(i) for i in range(corpus.validation_size)]
    if is_generated:
        size = examples[0].image.open().size
        opened = OpenedImages({example.image.key: size for example in examples}, {}, corpus.fingerprint)
    else:
        opened = open_images(example.image for example in examples)
    bad = {i: opened.faults[each.image.key] for i, each in enumerate(examples) if each.image.key in opened.faults}
    if (backbone := reader()) is not None:

        def find() -> dict[str, Any]:
            from mmpt_bench.engine.models.reading import example_faults, image_texts

            texts, refused = image_texts(backbone, opened.sizes.values())
            by_key = {key: texts[size] for key, size in opened.sizes.items() if size in texts}
            found = example_faults(backbone, examples, by_key, max_length)
            of_size = {i: refused.get(opened.sizes.get(each.image.key, (0, 0))) for i, each in enumerate(examples)}
            return {str(i): fault for i, fault in (of_size | found).items() if fault}

        parts = [opened.stamp, corpus.fingerprint, backbone.fingerprint, max_length, len(examples)]
        bad |= {int(i): fault for i, fault in kept(opened.stamp and content_key(parts), find).items()}
    if not bad:
        return corpus
    names = {i: examples[i].name for i in sorted(bad)}
    faults = [bad[i] if name in bad[i] else f"{name}: {bad[i]}" for i, name in names.items()]
    faults = [fault.rstrip(".") for fault in faults]
    if not skip:
        return dataclasses.replace(corpus, faults=tuple(faults))
    train = {i for i in bad if i < corpus.size}
    kept_ones = corpus.without(train, {i - corpus.size for i in bad} - {i - corpus.size for i in train})
    note = f"{len(bad):,} of {counted(len(examples), 'example')} left out: {first_of(faults)}"
    return dataclasses.replace(kept_ones, notes=(*corpus.notes, note))


def check_examples(corpus: Corpus) -> None:
    """Refuses to train on examples that cannot be used (RequestError: first ten and count)."""
    if corpus.faults:
        raise bad_rows(
            f"training data `{corpus.name}`", "example cannot|examples cannot be used", corpus.faults, LEAVE_OUT
        )
