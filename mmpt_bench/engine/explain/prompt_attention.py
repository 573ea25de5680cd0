"""How much attention goes to the prompts that a method has learnt, layer by layer, beside their share of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.explain.maps import bank_of
from mmpt_bench.engine.forward.attention import Weights, attention_of
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.prompts.bank import PromptBank


@dataclass(frozen=True)
class PromptShare:
    """Attention to one kind of prompts in one layer, for one question."""

    side: str
    """"vision tower": mean over the image's own rows; "language model": of the row that the answer is read from."""
    layer: int
    """From 1."""
    kind: str
    """"visual prompts", "textual prompts", "key-value prefix", or "interaction", visual prompts in the decoder."""
    attention: float
    """Mean over heads, 0..1."""
    even: float
    """What it would be if every row that is seen got as much."""


def prompt_attention(backbone: Backbone, sample: Sample) -> list[PromptShare]:
    """Returns the attention to each kind of prompts, under `attention_returned`; nothing where there are none."""
    bank = bank_of(backbone)
    if bank is None:
        return []
    inputs = backbone.batch([sample.image.open()], [backbone.prompt_text(sample.question)])
    first = int((inputs["input_ids"][0] == backbone.model.config.image_token_id).int().argmax())
    anatomy = backbone.anatomy
    in_tower = bank.plan.visual and anatomy.layout == "batched"
    blocks = anatomy.vision_layers[: anatomy.vision_used] if in_tower else ()
    with (
        torch.no_grad(),
        attention_of(backbone, blocks) as seen,
        attention_of(backbone, anatomy.decoder_layers) as read,
    ):
        backbone.model(**inputs, use_cache=False)
    return [*_in_tower(seen, bank.plan.visual), *_in_decoder(read, bank, first)]


def _in_tower(blocks: list[Weights], n: int) -> Iterator[PromptShare]:
    """Yields the shares in the vision tower, where prompts stand after an image's own rows."""
    for index, weights in enumerate(blocks, 1):
        own = weights.float().mean(dim=(0, 1))[:-n]
        yield PromptShare("vision tower", index, "visual prompts", _share(own[:, -n:]), n / own.shape[1])


def _in_decoder(layers: list[Weights], bank: PromptBank, image: int) -> Iterator[PromptShare]:
    """Yields the shares in the decoder; `image` is the place of the first image token among the caller's."""
    plan, rows = bank.plan, bank.rows
    in_front, n_text = bank.flowing - rows.inside, plan.text + plan.keys
    text = 0 if plan.text_first else in_front
    places = {"key-value prefix" if plan.keys else "textual prompts": slice(text, text + n_text)}
    at = rows.front + image if rows.inside else (n_text if plan.text_first else 0)
    places["interaction"] = slice(at, at + bank.flowing)
    for index, weights in enumerate(layers, 1):
        last = weights.float().mean(dim=(0, 1))[-1]
        for kind, place in places.items():
            if n := place.stop - place.start:
                yield PromptShare("language model", index, kind, float(last[place].sum()), n / len(last))


def _share(weights: torch.Tensor) -> float:
    return float(weights.sum(dim=-1).mean())
