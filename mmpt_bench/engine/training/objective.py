"""What is added to the loss of answer tokens: penalties on parameters, divergence from another state, a method's own.

A term is what `objective(batch, outputs, context)` returns under its name, its weight in it, in nats summed over the
answer tokens of a micro-batch. A method's own has labels, logits and trained parameters. Terms of this package may
also look at the inputs first (`before`, as a teacher must) or at the parameters alone (`of_parameters`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mmpt_bench.common.errors import RunFailed
from mmpt_bench.data.examples import Corpus
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.loss import Losses, Ready
from mmpt_bench.engine.training.masters import Masters
from mmpt_bench.engine.training.memory import halved
from mmpt_bench.engine.training.parallel import ALONE, Ranks

FISHER_EXAMPLES = 200
"""Examples whose gradients make a Fisher information."""
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """The answer tokens of a micro-batch."""

    labels: Int[Tensor, " tokens"]
    rows: Int[Tensor, " tokens"]
    """Which example of the micro-batch each token is of."""


@dataclass(frozen=True)
class Outputs:
    """What the model made of a micro-batch."""

    logits: Float[Tensor, "tokens words"]
    """Of the answer tokens, in float32."""


@dataclass(frozen=True)
class Context:
    """What else a term may look at."""

    backbone: Backbone
    parameters: Mapping[str, nn.Parameter]
    """That are trained, by name. A penalty on them is multiplied by the number of tokens, to count once a step."""
    given: Any = None
    """What the term's `before` returned."""


class Term:
    """A summand of the loss beside the cross-entropy of the answers; by default it adds nothing."""

    name = ""

    def objective(self, batch: Batch, outputs: Outputs, context: Context) -> Mapping[str, Tensor]:
        """Returns what is added to the loss of a micro-batch, by name: a sum over its answer tokens, in nats."""
        found = self.of_tokens(outputs.logits, context.given)
        return {} if found is None else {self.name: found}

    def close(self) -> None:
        """Ends what the term holds beside the model; called when the training ends."""

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


TAKEN = ("kd", "ewc", "lwf")
"""Names of this package's terms."""


class OfMethod(Term):
    """The terms of a method that has an `objective`."""

    def __init__(self, method: Any) -> None:
        """`method` is a `Method`."""
        self._method = method

    def objective(self, batch: Batch, outputs: Outputs, context: Context) -> Mapping[str, Tensor]:
        """Returns the method's terms; RunFailed for one that is no single number or that nothing is learnt from."""
        found: Mapping[str, Tensor] = self._method.objective(batch, outputs, context)
        of = f"`objective` of `{self._method.name}`"
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise RunFailed(f"{of} returns {type(found).__name__}: return a dictionary of each term by its name")
        for name, value in found.items():
            if not isinstance(value, Tensor) or value.dim():
                raise RunFailed(f"{of}: `{name}` is no tensor of one number")
            if name in TAKEN:
                raise RunFailed(f"{of}: `{name}` is a term of this package: give yours another name")
            if not value.requires_grad and value.item() != 0:
                raise RunFailed(f"{of}: `{name}` depends on no trained parameter, so that nothing is learnt from it")
        return found


class Ewc(Term):
    """Elastic weight consolidation: weight / 2 * sum over stages s and parameters i of F_si (p_i - p_si)^2.

    p_s are the values after stage s, and F_s their diagonal Fisher information there (Kirkpatrick et al. 2017,
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
                total = total + (fisher[name].to(parameter) * apart.square()).sum().to(total.device)
        return self._weight / 2 * total


class Lwf(Term):
    """Learning without forgetting: weight * KL(before || now) of each answer token, on the new data.

    "before" is the model after the last stage (Li and Hoiem 2016, arXiv:1606.09282, with KL for their distillation
    loss and at temperature 1).
    """

    name = "lwf"

    def __init__(self, weight: float, handle: Handle, values: State) -> None:
        """`values` are those of the adapter after the last stage."""
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


def backward(
    losses: Losses, ready: Ready, masters: Masters, micro: int, terms: Sequence[Term] = (), ranks: Ranks = ALONE
) -> tuple[float, dict[str, float], int]:
    """Returns (mean loss, added terms, micro-batch), leaving the batch's gradients; too little memory halves it.

    The gradient is that of the whole batch's mean over answer tokens, however it is cut and shared out among ranks, and
    of the terms.
    """
    while True:
        sums, error = _Sums(terms), None
        try:
            for chosen, counts in ranks.passes(losses.cut(ready, micro)):
                work = partial(_loss, losses, ready, masters, terms, chosen, sums)
                loss = ranks.within(work if counts else partial(_nothing, losses, ready, chosen))
                loss.backward()
        except ranks.caught as found:
            error = found
        if (lacking := ranks.fault(error)) is not None:
            masters.zero_gradients()
            micro = halved(micro, lacking, "one example a step")
            continue
        ranks.reduced(masters)
        # A rank without a share of the batch has met none of a method's terms.
        names = list(dict.fromkeys(name for of in ranks.gathered(list(sums.added)) for name in of)) if terms else []
        total, tokens, *more = ranks.summed([sums.loss, sums.tokens, *(sums.added.get(name, 0.0) for name in names)])
        for parameter in masters.by_name.values():
            if parameter.grad is not None:
                parameter.grad /= tokens
        added = {name: value / tokens for name, value in zip(names, more, strict=True)}
        for term in terms:
            if (penalty := term.of_parameters(masters.by_name)) is not None:
                penalty.backward()
                added[term.name] += penalty.item()
        return total / tokens, added, micro


class _Sums:
    """What micro-batches add up to: loss and terms in nats, and answer tokens."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.loss, self.tokens = 0.0, 0
        self.added = {term.name: 0.0 for term in terms if term.name}


def _loss(
    losses: Losses, ready: Ready, masters: Masters, terms: Sequence[Term], chosen: list[int], sums: _Sums
) -> Tensor:
    """Returns the loss of a micro-batch with its terms, and adds what it is to the sums."""
    given = [term.before(losses, ready, chosen) for term in terms]
    logits, labels = losses.answers(ready, chosen)
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    sums.loss, sums.tokens = sums.loss + loss.item(), sums.tokens + len(labels)
    batch = Batch(labels, _rows(ready, chosen).to(labels.device))
    for term, known in zip(terms, given, strict=True):
        context = Context(losses.backbone, masters.by_name, known)
        for name, more in term.objective(batch, Outputs(logits), context).items():
            if not math.isfinite(value := more.item()):
                raise RunFailed(f"the term `{name}` of the loss is {value}")
            loss, sums.added[name] = loss + more, sums.added.get(name, 0.0) + value
    return loss


def _nothing(losses: Losses, ready: Ready, chosen: list[int]) -> Tensor:
    """Returns 0, after computing a micro-batch so that other ranks can compute theirs."""
    return losses.sum_of(ready, chosen)[0] * 0.0


def _rows(ready: Ready, chosen: Sequence[int]) -> Int[Tensor, " tokens"]:
    """Returns which of the chosen examples each answer token is of."""
    counts = [sum(last - first for first, last in ready.rows[i].replies) for i in chosen]
    return torch.arange(len(chosen)).repeat_interleave(torch.tensor(counts))
