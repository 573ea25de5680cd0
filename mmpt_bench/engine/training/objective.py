"""What is added to the loss of answer tokens: penalties on parameters, divergence from an earlier state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt_bench.data.examples import Corpus
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.loss import Losses, Ready

FISHER_EXAMPLES = 200
"""Examples whose gradients make a Fisher information."""
State = Mapping[str, Tensor]


class Term:
    """A summand of the loss beside the cross-entropy of the answers; by default it adds nothing."""

    name = ""

    def before(self, losses: Losses, ready: Ready, chosen: list[int]) -> Any:
        """Returns what `of_tokens` needs of a micro-batch, before the model computes it with gradients."""

    def of_tokens(self, logits: Tensor, given: Any) -> Tensor | None:
        """Returns the term of a micro-batch, summed over its answer tokens, in nats.

        Args:
            logits: of the answer tokens, (tokens, words).
            given: what `before` returned.
        """

    def of_parameters(self, parameters: Mapping[str, nn.Parameter]) -> Tensor | None:
        """Returns the term of the trainable parameters, added once a step."""


class Ewc(Term):
    """Elastic weight consolidation: weight / 2 * sum over stages s and parameters i of F_si (p_i - p_si)^2.

    p_s are the values behind stage s, and F_s their diagonal Fisher information there (Kirkpatrick et al. 2017,
    arXiv:1612.00796).
    """

    name = "ewc"

    def __init__(self, weight: float, stages: Sequence[tuple[State, State]]) -> None:
        """`stages` are the values and the Fisher information of each."""
        self._weight, self._stages = weight, stages

    def of_parameters(self, parameters: Mapping[str, nn.Parameter]) -> Tensor:
        """Returns the penalty."""
        total = torch.zeros((), device=next(iter(parameters.values())).device)
        for values, fisher in self._stages:
            for name, parameter in parameters.items():
                apart = parameter - values[name].to(parameter)
                total = total + (fisher[name].to(parameter) * apart.square()).sum()
        return self._weight / 2 * total


class Lwf(Term):
    """Learning without forgetting: weight * KL(before || now) of each answer token, on the new data.

    "before" is the model behind the last stage (Li and Hoiem 2016, arXiv:1606.09282, with KL for their distillation
    loss and at temperature 1).
    """

    name = "lwf"

    def __init__(self, weight: float, handle: Handle, values: State) -> None:
        """`values` are those of the adapter behind the last stage."""
        self._weight, self._handle = weight, handle
        self._values = {name: values[name].to(parameter) for name, parameter in handle.trainable.items()}

    def before(self, losses: Losses, ready: Ready, chosen: list[int]) -> Tensor:
        """Returns the log-probabilities before, (tokens, words); the adapter's values are then what they were."""
        model = losses.backbone.model
        training = model.training
        now = {name: parameter.detach().clone() for name, parameter in self._handle.trainable.items()}
        model.eval()
        try:
            with torch.no_grad():
                self._write(self._values)
                logits, _ = losses.answers(ready, chosen)
        finally:
            self._write(now)
            model.train(training)
        return functional.log_softmax(logits, dim=-1)

    def of_tokens(self, logits: Tensor, given: Tensor) -> Tensor:
        """Returns the divergence."""
        now = functional.log_softmax(logits, dim=-1)
        return self._weight * functional.kl_div(now, given, reduction="sum", log_target=True)

    def _write(self, values: State) -> None:
        for name, parameter in self._handle.trainable.items():
            parameter.detach().copy_(values[name])


def fisher(
    backbone: Backbone,
    handle: Handle,
    corpus: Corpus,
    seed: int,
    max_length: int,
    n: int,
) -> dict[str, Tensor]:
    """Returns the diagonal Fisher information of an adapter's values: mean of squared gradients of single examples.

    The gradient is that of the log-probability of an example's whole reply, as it is in the data (the empirical
    Fisher). The first `n` examples of a training at `seed` are taken.
    """
    parameters = handle.trainable
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    (examples,) = corpus.batches(seed, 1, min(n, corpus.size))
    losses = Losses(backbone, corpus.fingerprint, max_length)
    try:
        for example in examples:
            loss, _ = losses.sum_of(losses.ready([example]), [0])
            made = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for mean, gradient in zip(total.values(), made, strict=True):
                if gradient is not None:
                    mean += gradient.detach().float().square() / len(examples)
    finally:
        losses.close()
    return {name: mean.cpu() for name, mean in total.items()}
