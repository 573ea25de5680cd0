"""Prompts that are other ones for each item: a small generator adds to them what it makes of image and question.

Textual prompts: the mean of the image's tokens and the mean of the question's, as the decoder reads them, pass through
a bottleneck to a shift of every set's prompts. The question ends where the chat frame goes on after it, so an answer
that stands in the sequence, as in training, is never looked at. Visual prompts: the mean of the patches that enter a
block does the same for the block's prompts. Means are normalised and take no gradient. With `up` at 0 the prompts are
the static ones, bit for bit.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mmpt_bench.common.errors import RequestError, RunFailed
from mmpt_bench.common.hashing import derive
from mmpt_bench.engine.adapters.attachment import uniform
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.kv_cache import cache_in, tokens_in
from mmpt_bench.engine.prompts.bank import PromptBank, hidden_in, with_hidden
from mmpt_bench.engine.prompts.masks import PromptRows
from mmpt_bench.engine.prompts.plan import GeneratorPlan, PromptPlan

_PROBES = ("yes", "no", "a red circle", "?", ".", "is it 1", "what colour")
"""Questions that end in different tokens, so that what their prompts end with alike is the chat frame's."""


class ConditionedBank(PromptBank):
    """A bank whose prompts are shifted by what a generator makes of each item."""

    def __init__(self, anatomy: Anatomy, plan: PromptPlan, seed: int, words: Tensor, made: GeneratorPlan) -> None:
        """Draws the static prompts as `PromptBank` does, and `down` uniform in +-1/sqrt(inputs); the rest is 0."""
        super().__init__(anatomy, plan, seed, words)
        self.made, self.image_token, self.items = made, -1, 0
        self.pairs_items = made.shuffled
        """In training, examples of a micro-batch get each other's features, so that who is in it matters."""
        self.frame: tuple[int, ...] = ()
        self.reads_question = bool(plan.text) and made.features != "image"
        for name, shape in made.shapes(plan, anatomy).items():
            drawn = torch.zeros(shape)
            if name.endswith("_down"):
                drawn = uniform(shape, 1 / math.sqrt(shape[1]), derive(seed, name))
            self.register_parameter(name, nn.Parameter(drawn))

    of_item = True

    def shift(self, side: str, index: int, code: Float[Tensor, "batch size"]) -> Float[Tensor, "batch rows dim"]:
        """Returns what is added to one set of prompts: one row for all, or a row each."""
        return torch.einsum("bs,rds->brd", code, self.get_parameter(f"{side}_up")[index].to(code))

    def code(self, side: str, means: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch size"]:
        """Returns the bottleneck's values; with `shuffled`, in training, another item's.

        Raises RunFailed where there is no other item, or the rows are not items.
        """
        if self.pairs_items and self.training:
            if not len(means) == self.items > 1:
                raise RunFailed(
                    "`condition=shuffled` gives an example another one's features: it needs two examples or more in a "
                    "micro-batch (`--micro-batch`), and images that are not cut into tiles."
                )
            means = means.roll(1, dims=0)
        down, bias = (self.get_parameter(f"{side}_down{end}").to(means) for end in ("", "_bias"))
        return functional.relu(functional.linear(means, down, bias))

    # Vision side

    def append(self, block: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before a vision block: appends the block's prompts, shifted by the mean of the patches that enter it."""
        patches = hidden_in(args, kwargs)
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        code = self.code("visual", mean_of(patches, _visible(mask, patches)))
        args, kwargs = super().append(block, module, args, kwargs)
        hidden, n = hidden_in(args, kwargs), self.plan.visual
        shifted = hidden[:, -n:] + self.shift("visual", block, code)
        return with_hidden(args, kwargs, torch.cat([hidden[:, :-n], shifted], dim=1))

    # Text side

    def note_question(self, module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before the core: says which tokens are the image's and which the question's, for the decoder."""
        ids = kwargs.get("input_ids", args[0] if args else None)
        if tokens_in(cache_in(kwargs)):
            return args, kwargs
        if ids is None:
            raise ValueError("prompts that depend on the item need `input_ids`")
        self.items = len(ids)
        mask = kwargs.get("attention_mask")
        visible = mask.bool() if isinstance(mask, Tensor) and mask.shape == ids.shape else torch.ones_like(ids).bool()
        image = (ids == self.image_token) & visible
        question = visible & ~image
        if self.made.features != "image":
            question &= before_frame(ids, image, self.frame)
        return args, {**kwargs, "prompt_condition": (image, question)}

    def enter_decoder(self, module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before the decoder: puts the rows in front, shifted, and hands the bottleneck's values to the layers."""
        kwargs = dict(kwargs)
        condition, embeds = kwargs.pop("prompt_condition", None), kwargs["inputs_embeds"]
        args, kwargs = super().enter_decoder(module, args, kwargs)
        rows: PromptRows | None = kwargs.get("prompt_rows")
        if rows is None:
            return args, kwargs
        image, question = condition
        parts = {"image": image, "question": question}
        chosen = [part for name, part in parts.items() if self.made.features in (name, "both")]
        code = self.code("text", torch.cat([mean_of(embeds, part) for part in chosen], dim=-1))
        kwargs["inputs_embeds"] = rows.added(kwargs["inputs_embeds"], self.shift("text", 0, code), self.plan.text)
        return args, {**kwargs, "prompt_code": code}

    def enter_layer(self, layer: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before a decoder layer: overwrites the textual prompts' rows with the layer's own, shifted."""
        code, rows = kwargs.get("prompt_code"), kwargs.get("prompt_rows")
        if code is None or rows is None:
            return super().enter_layer(layer, module, args, kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name != "prompt_code"}
        args, kwargs = super().enter_layer(layer, module, args, kwargs)
        if layer == 0 or not self.plan.text_deep:
            return args, kwargs
        return with_hidden(
            args, kwargs, rows.added(hidden_in(args, kwargs), self.shift("text", layer, code), self.plan.text)
        )


def mean_of(states: Float[Tensor, "batch tokens dim"], chosen: Bool[Tensor, "batch tokens"]) -> Tensor:
    """Returns the mean state of the chosen tokens, normalised to mean 0 and deviation 1, without gradient."""
    part = chosen[..., None].to(states)
    mean = (states.detach() * part).sum(1) / part.sum(1).clamp(min=1)
    return functional.layer_norm(mean, mean.shape[-1:])


def _visible(mask: Tensor | None, patches: Tensor) -> Bool[Tensor, "batch tokens"]:
    """Returns which patches are no filling, told from a mask of tokens or of pairs, boolean or additive."""
    if mask is None:
        return torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
    seen = mask if mask.dim() == 2 else mask.expand(len(patches), -1, -1, -1)[:, 0].amax(dim=1)
    return seen if seen.dtype == torch.bool else seen >= 0 if mask.dim() == 4 else seen.bool()


def before_frame(
    ids: Int[Tensor, "batch tokens"], image: Bool[Tensor, "batch tokens"], frame: tuple[int, ...]
) -> Bool[Tensor, "batch tokens"]:
    """Returns which tokens stand before the first place after the image where the chat frame goes on.

    Raises ValueError where that is in none of a sequence's places.
    """
    wanted = torch.tensor(frame, device=ids.device)
    length, places = ids.shape[1], torch.arange(ids.shape[1], device=ids.device)
    behind = length - image.flip(1).int().argmax(dim=1)
    found = torch.zeros_like(image)
    if length >= len(frame):
        found[:, : length - len(frame) + 1] = (ids.unfold(1, len(frame), 1) == wanted).all(-1)
    found &= places >= behind[:, None]
    if not found.any(dim=1).all():
        raise ValueError("the prompt does not go on after its question as the chat frame does")
    return places < found.int().argmax(dim=1)[:, None]


def frame_behind(backbone: Backbone) -> tuple[int, ...]:
    """Returns the tokens that every prompt ends with after its question.

    Raises RequestError where there are none, so that nothing would tell a question from its answer.
    """
    prompts = [backbone.prompt_text(question) for question in _PROBES]
    image = backbone.processor.image_token
    rows = [row.ids[::-1] for row in backbone.tokens(prompts, image_texts=[image] * len(prompts))]
    alike = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False))
    frame = tuple(tokens[0] for tokens in alike)[::-1]
    if not frame:
        raise RequestError(
            "The backbone's chat frame writes nothing after a question, so that nothing tells it from its answer: "
            "set `features` to `image`."
        )
    return frame
