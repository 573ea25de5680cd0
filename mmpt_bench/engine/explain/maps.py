"""Maps: how much each image token has to do with a model's answer, eight ways, one number a token.

rollout     Abnar and Zuidema 2020, arXiv:2005.00928
relevancy   Chefer, Gur and Wolf 2021, arXiv:2103.15679, section 3.1
grad        Euclidean norm of the gradient (Simonyan et al. 2014, arXiv:1312.6034)
grad-input  gradient times token (Shrikumar et al. 2016, arXiv:1605.01713)
ig          integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365), by captum
loo         what the answer loses when the token is blank (Zeiler and Fergus 2014, arXiv:1311.2901)
attention   the last layer's attention, as it is usually drawn
random      noise, which every other must beat
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmpt_bench.common.errors import MachineError, RequestError
from mmpt_bench.engine.explain.question import Asked, Tokens
from mmpt_bench.engine.forward.attention import Weights, attention_of
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.prompts.bank import PromptBank

STEPS = 16
"""Points of the path that integrated gradients are summed over (Gauss-Legendre)."""
OF_ATTENTION = frozenset({"rollout", "relevancy", "attention"})

Values = Float[np.ndarray, " tokens"]


def rollout(layers: Sequence[Weights], fresh: slice = slice(0)) -> Float[Tensor, " keys"]:
    """Returns how much of each row is in the last row after all layers.

    Args:
        layers: attention weights of each layer, rows summing to 1; queries and keys are the same rows.
        fresh: rows that every layer overwrites, as deep prompts are: what a layer made of them goes nowhere.
    """
    identity = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype, device=layers[0].device)
    found = identity
    for weights in layers:
        found = found.clone()
        found[fresh] = identity[fresh]
        found = (weights.mean(dim=0) + identity) / 2 @ found
    return found[-1]


def relevancy(
    layers: Sequence[Weights], gradients: Sequence[Weights], fresh: slice = slice(0)
) -> Float[Tensor, " keys"]:
    """Returns the relevance of each row for the last one: `rollout` with heads weighted by the answer's gradient.

    Args:
        layers, fresh: as of `rollout`.
        gradients: of the answer with respect to those weights.
    """
    identity = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype, device=layers[0].device)
    found = identity
    for weights, gradient in zip(layers, gradients, strict=True):
        found = found.clone()
        found[fresh] = identity[fresh]
        found = found + (weights * gradient).clamp(min=0).mean(dim=0) @ found
    return found[-1]


def integrated_gradients(
    answer: Callable[[Tensor], Tensor], tokens: Tokens, blank: Tokens, rows: int | None = None, steps: int = STEPS
) -> Float[Tensor, " tokens"]:
    """Returns what each token adds to the answer on the way from the blank ones; it sums to the whole difference.

    Args:
        answer: (rows, tokens, dim) -> (rows,).
        rows: that it is given together at most.
        steps: points of the path.

    Raises MachineError without captum.
    """
    check_captum()
    from captum.attr import IntegratedGradients

    made = IntegratedGradients(answer, multiply_by_inputs=True).attribute(
        tokens[None], baselines=blank[None], n_steps=steps, internal_batch_size=rows
    )
    values: Tensor = made[0].sum(dim=-1)
    return values


def has_captum() -> bool:
    """Returns whether captum is installed, which the map `ig` needs."""
    return importlib.util.find_spec("captum") is not None


def check_captum() -> None:
    """Raises MachineError where captum is not installed."""
    if not has_captum():
        raise MachineError(
            "The map `ig` needs captum: `pip install 'mmpt-bench[explain]'`. Or leave `ig` out of `--maps`."
        )


def maps_of(asked: Asked, blank: Tokens, names: Sequence[str], seed: int) -> dict[str, Values]:
    """Returns the maps of a question, by name.

    Args:
        blank: what stands for an image token that is taken away, one a token.
        seed: of the random map.
    """
    found: dict[str, Tensor] = {}
    if OF_ATTENTION & set(names):
        found |= _of_attention(asked, "relevancy" in names)
    tokens = asked.tokens.detach()
    if {"grad", "grad-input"} & set(names):
        found |= _of_gradient(asked, tokens)
    if "ig" in names:
        found["ig"] = integrated_gradients(asked.odds, tokens, blank, asked.rows)
    if "loo" in names:
        found["loo"] = _left_out(asked, tokens, blank)
    drawn = {name: value.detach().double().cpu().numpy() for name, value in found.items()}
    drawn["random"] = np.random.default_rng([seed, 35]).random(len(tokens))
    return {name: drawn[name] for name in names}


def _of_gradient(asked: Asked, tokens: Tokens) -> dict[str, Tensor]:
    """Returns the maps that are made of the gradient alone."""
    own = tokens.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(asked.odds(own[None]).sum(), own)
    return {"grad": gradient.norm(dim=-1), "grad-input": (gradient * tokens).sum(dim=-1)}


def _left_out(asked: Asked, tokens: Tokens, blank: Tokens) -> Tensor:
    """Returns by how much the answer's log-odds fall without each token."""
    n = len(tokens)
    rows = tokens.repeat(n, 1, 1)
    rows[range(n), range(n)] = blank.to(rows)
    with torch.no_grad():
        return asked.odds(tokens[None]) - asked.odds(rows)


def _of_attention(asked: Asked, with_gradient: bool) -> dict[str, Tensor]:
    """Returns the maps that are read off the decoder's attention."""
    backbone = asked.backbone
    tokens = asked.tokens.detach().clone().requires_grad_(with_gradient)
    with attention_of(backbone, backbone.anatomy.decoder_layers) as layers, torch.set_grad_enabled(with_gradient):
        odds = asked.odds(tokens[None])
    if len(layers) != len(backbone.anatomy.decoder_layers) or any(each is None for each in layers):
        raise RequestError("This decoder does not return its attention: leave `rollout,relevancy,attention` out.")
    rows, fresh = image_rows(asked), overwritten(backbone)
    weights = [each[0].detach().float() for each in layers]
    found = {"rollout": rollout(weights, fresh)[rows], "attention": weights[-1].mean(dim=0)[-1, rows]}
    if with_gradient:
        gradients = [each[0].float() for each in torch.autograd.grad(odds.sum(), layers)]
        found["relevancy"] = relevancy(weights, gradients, fresh)[rows]
    return found


def bank_of(backbone: Backbone) -> PromptBank | None:
    """Returns the prompts that a method has put into the model; None where it has put in none."""
    bank = getattr(backbone.model, "prompt_bank", None)
    return bank if isinstance(bank, PromptBank) else None


def image_rows(asked: Asked) -> Tensor:
    """Returns where the image tokens stand in the decoder's sequence, prompts included."""
    bank = bank_of(asked.backbone)
    return asked.places if bank is None else asked.places + bank.rows.total


def overwritten(backbone: Backbone) -> slice:
    """Returns the rows of the decoder's sequence that each layer overwrites with prompts of its own."""
    bank = bank_of(backbone)
    if bank is None or not (bank.plan.keys or (bank.plan.text and bank.plan.text_deep)):
        return slice(0)
    in_front = bank.flowing - bank.rows.inside
    first = 0 if bank.plan.text_first else in_front
    return slice(first, first + bank.plan.text + bank.plan.keys)
