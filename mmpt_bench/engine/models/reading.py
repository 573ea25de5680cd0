"""What a backbone makes of images and examples, told by its processor alone: no weight is read."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from PIL import Image
from transformers import GenerationConfig

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.examples import PLAIN, Example, opening_of
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.models import chat
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.families import kind_of
from mmpt_bench.engine.models.loading import read_processor, refuse_unfit
from mmpt_bench.sources.weights import backbone_folder, loading_of

Size = tuple[int, int]
"""Width and height of an image, in pixels."""


@functools.lru_cache(maxsize=4)
def read_without_weights(name: str, fingerprint: str, offline: bool) -> Backbone:
    """Returns a backbone that encodes images and texts and answers nothing.

    Args:
        fingerprint: of its files, which are read once a process.

    Raises:
        RequestError, MachineError: its configuration or processor cannot be read, or no such model is a backbone.
    """
    folder = backbone_folder(name, offline)
    config = refuse_unfit(folder)
    if (folder / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
    else:
        generation = GenerationConfig.from_model_config(config)
    model, anatomy = SimpleNamespace(config=config, generation_config=generation), SimpleNamespace()
    anatomy.family = kind_of(config)
    processor = read_processor(folder, config.model_type, loading_of(name)[1])
    return Backbone(name, model, processor, anatomy, fingerprint, "cpu", "float32")  # type: ignore[arg-type]


def image_texts(backbone: Backbone, sizes: Iterable[Size]) -> tuple[dict[Size, str], dict[Size, str]]:
    """Returns what stands for an image of each size in a text, and why sizes fail that the processor does not take.

    A processor looks at the size of an RGB image to tell whether it can take it: one image is tried for each.
    """
    asked = sorted(set(sizes))

    def text_of(size: Size) -> tuple[str, str]:
        try:
            return backbone.encode([Image.new("RGB", size)])[0].text, ""
        except PROCESSOR_FAULTS as error:
            return "", processor_fault(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(asked, pool.map(text_of, asked), strict=True))
    texts = {size: text for size, (text, fault) in found.items() if not fault}
    return texts, {size: fault for size, (_, fault) in found.items() if fault}


PROCESSOR_FAULTS = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError, OSError)
"""What processors of transformers raise on an image that they cannot take."""


def processor_fault(error: BaseException) -> str:
    """Returns what is said of an image that the processor does not take; raises errors of memory on."""
    if isinstance(error, MemoryError) or "memory" in str(error) or "alloc" in str(error):
        raise error
    said = (str(error).splitlines() or [""])[0][:150]
    return f"is refused by the backbone's processor ({type(error).__name__}: {said})"


def question_fault(backbone: Backbone, sample: Sample) -> str:
    """Returns why a question cannot be asked, by itself; empty where it can."""
    opening = opening_of(dataclasses.replace(sample, shots=()))
    if backbone.processor.image_token not in sample.question and opening == PLAIN:
        return ""
    try:
        backbone.prompt_text(sample.question, (), opening)
    except RequestError as error:
        return str(error)
    return ""


def example_fault(backbone: Backbone, example: Example, image_text: str, max_length: int) -> str:
    """Returns why an example cannot be trained on; empty where it can.

    Args:
        image_text: what its image's token is replaced by.
        max_length: longest example in tokens; of a conversation, the first reply that is learnt must fit.
    """
    try:
        prompt = backbone.prompt_text(example.prompt, (), example.opening)
        target = backbone.target(example.exchanges, example.opening)
        (row,) = backbone.tokens([prompt], [target], image_texts=[image_text])
    except (RequestError, ValueError) as error:
        return str(error)
    first = chat.learnt(row, example.exchanges).replies[0][1]
    return f"has {first:,} tokens and {max_length:,} are allowed" if first > max_length else ""


def example_faults(
    backbone: Backbone, examples: Iterable[Example], texts: Mapping[str, str], max_length: int
) -> dict[int, str]:
    """Returns number -> fault of the examples that cannot be trained on; those whose image has no text are left out."""
    found: dict[int, str] = {}
    for number, example in enumerate(examples):
        text: Any = texts.get(example.image.key)
        if text is not None and (fault := example_fault(backbone, example, text, max_length)):
            found[number] = fault
    return found
