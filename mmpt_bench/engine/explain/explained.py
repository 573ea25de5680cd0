"""All that is found out about questions and one model: its answers, their maps, and the curves without some tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from mmpt_bench.common.hashing import derive
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.explain.maps import Values, maps_of
from mmpt_bench.engine.explain.prompt_attention import PromptShare, prompt_attention
from mmpt_bench.engine.explain.question import Asked, Tokens, ask, right_word
from mmpt_bench.engine.forward.attention import attention_returned
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.stats.saliency import counts_along

CONTROLLED = 24
"""Questions that are asked again of the model with permuted weights."""
RANDOM = "random"


@dataclass(frozen=True)
class Curve:
    """What a model says as image tokens are put back (or taken away), the highest of a map first."""

    counts: tuple[int, ...]
    """Of tokens that are put back, or taken away."""
    probability: tuple[float, ...]
    """Of its own answer, among the legal ones."""
    same: tuple[bool, ...]
    """Its most probable answer is still its own."""


@dataclass(frozen=True)
class Explained:
    """One question, its answer and its maps."""

    sample: Sample
    answer: str
    """What the model's own answer begins with."""
    is_right: bool
    probability: float
    """Of its own answer, among the legal ones."""
    maps: dict[str, Values]
    deletion: dict[str, Curve]
    insertion: dict[str, Curve]
    grid: tuple[int, int] | None
    """Rows and columns that the image tokens stand in; None where they are no grid of the whole image."""
    image: np.ndarray
    """As the tower sees it where it is cut or stretched to one size, uint8, (height, width, 3)."""
    prompts: tuple[PromptShare, ...]
    control: dict[str, Values] = field(default_factory=dict)
    """Its maps under permuted weights; empty where the model was not asked."""


def explain(
    backbone: Backbone,
    samples: Sequence[Sample],
    maps: Sequence[str],
    stopping: Callable[[], bool] = lambda: False,
    told: Callable[[int], None] = lambda done: None,
) -> list[Explained]:
    """Returns every question with its maps and curves, the first of them with controls; fewer where `stopping` says so.

    Args:
        backbone: with the adapter that is explained, or without.
        maps: names, as `maps.py` lists them.
        told: how many questions are done.
    """
    made: list[Explained] = []
    first: list[Asked] = []
    with attention_returned(backbone):
        blank = blank_token(backbone, samples)
        for sample in samples:
            if stopping():
                return made
            asked = ask(backbone, sample)
            made.append(_explained(asked, sample, blank.expand_as(asked.tokens), maps))
            first += [asked] if len(first) < CONTROLLED else []
            told(len(made))
        names = [name for name in maps if name != RANDOM]
        with permuted(backbone):
            controls = [maps_of(asked, blank.expand_as(asked.tokens), names, 0) for asked in first]
    controlled = [replace(one, control=control) for one, control in zip(made, controls, strict=False)]
    return controlled + made[len(controlled) :]


def blank_token(backbone: Backbone, samples: Sequence[Sample]) -> Tokens:
    """Returns the mean image token of these questions' images, (1, dim): what stands for one that is taken away."""
    first = {sample.image.key: sample for sample in samples}
    means = [ask(backbone, sample).tokens.mean(dim=0) for sample in first.values()]
    return torch.stack(means).mean(dim=0, keepdim=True)


def _explained(asked: Asked, sample: Sample, blank: Tokens, names: Sequence[str]) -> Explained:
    backbone, seed = asked.backbone, derive(0, sample.id)
    found = maps_of(asked, blank, names, seed)
    deletion, insertion = _curves(asked, blank, found)
    image, grid = _shown(asked, sample)
    return Explained(
        sample=sample,
        answer=backbone.processor.tokenizer.decode([int(asked.words[asked.answer])]).strip(),
        is_right=right_word(asked, sample),
        probability=next(iter(deletion.values())).probability[0],
        maps=found,
        deletion=deletion,
        insertion=insertion,
        image=image,
        grid=grid,
        prompts=tuple(prompt_attention(backbone, sample)),
    )


@contextmanager
def permuted(backbone: Backbone, seed: int = 0) -> Iterator[None]:
    """Inside, rows and columns of every matrix in the decoder's layers are in random order; bit for bit back after.

    The control of Adebayo et al. 2018, arXiv:1810.03292. The answer that is explained stays the model's own under its
    own weights.
    """
    layers = [backbone.model.get_submodule(name) for name in backbone.anatomy.decoder_layers]
    matrices = list({id(p): p for layer in layers for p in layer.parameters() if p.dim() >= 2}.values())
    generator = torch.Generator().manual_seed(derive(seed, "permuted"))
    orders = [[torch.randperm(n, generator=generator) for n in p.shape[:2]] for p in matrices]

    def reorder(p: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> None:
        p.data = p.data[rows.to(p.device)][:, columns.to(p.device)]

    for p, (rows, columns) in zip(matrices, orders, strict=True):
        reorder(p, rows, columns)
    try:
        yield
    finally:
        for p, (rows, columns) in zip(matrices, orders, strict=True):
            reorder(p, rows.argsort(), columns.argsort())


def _curves(asked: Asked, blank: Tokens, maps: dict[str, Values]) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Returns each map's curves of deletion and of insertion; what two maps have in common is asked once."""
    own, n = asked.tokens.detach(), len(asked.tokens)
    counts = counts_along(n)
    kept: dict[bytes, int] = {}
    wanted: list[np.ndarray] = []

    def place(mask: np.ndarray) -> int:
        if mask.tobytes() not in kept:
            kept[mask.tobytes()] = len(wanted)
            wanted.append(mask)
        return kept[mask.tobytes()]

    places: dict[tuple[str, bool], list[int]] = {}
    for name, values in maps.items():
        rank = np.empty(n, dtype=int)
        rank[np.argsort(-values, kind="stable")] = np.arange(n)
        places[name, False] = [place(rank >= count) for count in counts]
        places[name, True] = [place(rank < count) for count in counts]
    with torch.no_grad():
        stays = torch.from_numpy(np.stack(wanted)).to(own.device)[:, :, None]
        logits = torch.cat([asked.logits(torch.where(some, own, blank)) for some in stays.split(asked.rows)])
    probability = logits.softmax(dim=-1)[:, asked.answer].tolist()
    same = (logits.argmax(dim=-1) == asked.answer).tolist()

    def curve(key: tuple[str, bool]) -> Curve:
        at = places[key]
        return Curve(tuple(counts), tuple(probability[i] for i in at), tuple(same[i] for i in at))

    return {name: curve((name, False)) for name in maps}, {name: curve((name, True)) for name in maps}


def _shown(asked: Asked, sample: Sample) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Returns a question's image, and the rows and columns of its tokens; None where they are no one grid."""
    backbone, n = asked.backbone, len(asked.places)
    picture = sample.image.open()
    tensors = backbone.encode([picture])[0].tensors
    plain, side = np.asarray(picture.convert("RGB")), round(n**0.5)
    if "image_grid_thw" in tensors:
        merge = int(backbone.model.config.vision_config.spatial_merge_size)
        _, height, width = (int(size) for size in tensors["image_grid_thw"][0])
        return plain, (height // merge, width // merge)
    if tensors["pixel_values"].dim() != 4 or len(tensors["pixel_values"]) > 1 or side**2 != n:
        return plain, None
    made, images = tensors["pixel_values"][0].float().numpy().transpose(1, 2, 0), backbone.processor.image_processor
    seen = made * np.asarray(images.image_std) + np.asarray(images.image_mean)
    return (seen.clip(0, 1) * 255).round().astype(np.uint8), (side, side)
