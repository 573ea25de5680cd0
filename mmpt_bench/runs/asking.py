"""Whether solved examples and a turn of the system (`--few-shot`, `--system`) can be asked; found without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.samples import Sample
from mmpt_bench.sources.context import prompt_rows
from mmpt_bench.sources.prepared import PreparedTask

if TYPE_CHECKING:
    from mmpt_bench.engine.models.backbone import Backbone


def check_asking(
    tasks: Mapping[str, PreparedTask], methods: Sequence[tuple[str, Any]], reader: Callable[[], Backbone]
) -> None:
    """Refuses what stands before questions where a backbone or a method cannot be asked so (RequestError).

    Args:
        tasks: with their questions as they will be asked.
        methods: name and method.
        reader: returns the backbone without weights; called where something stands before questions.
    """
    asked = [item for item in tasks.values() if item.asked_with]
    if not asked:
        return
    backbone = reader()
    for item in asked:
        _check_images(item, methods, backbone)
        _check_written(item.samples[0], backbone)
        _check_room(item, methods, backbone)


def _check_images(item: PreparedTask, methods: Sequence[tuple[str, Any]], backbone: Backbone) -> None:
    from mmpt_bench.engine.models.families import family

    if not any(shot.images for shot in item.shots):
        return
    what, known = f"`--few-shot {len(item.shots)}` shows several images", family(backbone.anatomy.family)
    if not known.several_images:
        raise RequestError(
            f"{what}, and {known.title} was not tried with them: take another backbone, or leave it out."
        )
    for name, method in methods:
        if method.one_image:
            raise RequestError(f"{what}, and `{name}` takes one: {method.one_image}.")


def _check_written(sample: Sample, backbone: Backbone) -> None:
    from mmpt_bench.engine.inference.plain import prompt_of

    for option, alone in (("--system", replace(sample, shots=())), ("--few-shot", replace(sample, system=""))):
        if alone.system or alone.shots:
            try:
                prompt_of(backbone, alone)
            except RequestError as error:
                raise RequestError(f"`{option}` does not fit `{backbone.name}`: {error}") from error


def _check_room(item: PreparedTask, methods: Sequence[tuple[str, Any]], backbone: Backbone) -> None:
    """Refuses prompts that are longer than the context beside a method's own rows and the longest reply."""
    config = backbone.model.config
    context = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
    if context is None:
        return
    name, method = max(methods, key=lambda each: prompt_rows(each[1]))
    room, k = context - prompt_rows(method) - item.task.max_new_tokens, len(item.shots)
    length = _lengths(item, backbone)
    if (n := length(k)) <= room:
        return
    fitting = [m for m in range(k) if length(m) <= room]
    beside = f"a reply of {item.task.max_new_tokens}" + (f" and `{name}`" if prompt_rows(method) else "")
    told = f"{item.task.title} has prompts of {n:,} tokens, and {room:,} are left beside {beside}"
    if not fitting:
        raise RequestError(f"`--system` does not fit `{backbone.name}`: {told}. Write less, or leave it out.")
    raise RequestError(f"`--few-shot {k}` does not fit `{backbone.name}`: {told}. The most is {fitting[-1]}.")


def _lengths(item: PreparedTask, backbone: Backbone) -> Callable[[int], int]:
    """Returns what tells the tokens of the longest prompt after so many solved examples."""
    from mmpt_bench.engine.inference.plain import prompt_of
    from mmpt_bench.engine.models.encoding import BETWEEN

    some = sorted(item.samples, key=lambda one: (len(one.more_images), len(one.question)))[-LONG_QUESTIONS:]
    texts, longest = _image_texts(item, backbone)

    def length(k: int) -> int:
        asked = [replace(sample, shots=sample.shots[:k]) for sample in some]
        own = [BETWEEN.join(texts.get(image.key, longest) for image in sample.images) for sample in asked]
        rows = backbone.tokens([prompt_of(backbone, sample) for sample in asked], image_texts=own)
        return max(len(row.ids) for row in rows)

    return length


def _image_texts(item: PreparedTask, backbone: Backbone) -> tuple[dict[str, str], str]:
    """Returns (image key -> what stands for it in a prompt, of solved examples; the longest such of the questions)."""
    from mmpt_bench.engine.models.families import family
    from mmpt_bench.engine.models.reading import image_texts

    if family(backbone.anatomy.family).one_size:
        return {}, backbone.processor.image_token * backbone.image_tokens()
    sizes = {image.key: image.open().size for shot in item.shots for image in shot.images}
    own = set() if item.opened is None else set(item.opened.sizes.values())
    texts, refused = image_texts(backbone, {*sizes.values(), *own})
    for key, size in sizes.items():
        if size in refused:
            raise RequestError(f"`--few-shot {len(item.shots)}`: the image of `{key}` {refused[size]}.")
    longest = max((texts[size] for size in own if size in texts), key=len, default="")
    return {key: texts[size] for key, size in sizes.items()}, longest


LONG_QUESTIONS = 20
"""So many of the longest are counted in tokens."""
