"""A teacher's word on each answer token as a term of the loss (Hinton et al. 2015, arXiv:1503.02531).

The term is weight * T^2 * D, with D between teacher and student at temperature T, summed over the answer tokens: the
factor T^2 keeps its gradient's size as T grows (section 2 there). The cross-entropy of the answers keeps its own weight
of 1. `forward` is KL(teacher || student), `reverse` KL(student || teacher), `jsd` the mean of both to their mixture.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mmpt_bench.common.errors import RequestError, RunFailed
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.loss import Losses, Ready
from mmpt_bench.engine.training.objective import Term

Divergence = Literal["forward", "reverse", "jsd"]


class Distill(Term):
    """Divergence from a teacher, whose logits are computed anew for every micro-batch."""

    name = "kd"

    def __init__(
        self, weight: float, temperature: float, divergence: Divergence, teacher: Backbone, max_length: int
    ) -> None:
        """`teacher` is a backbone with its adapter on, apart from the student's."""
        self._weight, self._temperature, self._divergence = weight, temperature, divergence
        teacher.model.requires_grad_(False).eval()
        self._losses = Losses(teacher, f"teacher {teacher.fingerprint}", max_length)

    def before(self, losses: Losses, ready: Ready, chosen: list[int]) -> Float[Tensor, "tokens words"]:
        """Returns the teacher's logits; RunFailed where it reads other answer tokens, or has other words."""
        examples = [ready.examples[i] for i in chosen]
        with torch.no_grad():
            logits, labels = self._losses.answers(self._losses.ready(examples), list(range(len(examples))))
        own = [
            token for i in chosen for first, last in ready.rows[i].replies for token in ready.rows[i].ids[first:last]
        ]
        if labels.tolist() != own:
            raise RunFailed("the teacher's processor writes an answer in other tokens than the student's")
        return logits

    def of_tokens(self, logits: Tensor, given: Tensor) -> Tensor:
        """Returns the term."""
        if given.shape != logits.shape:
            raise RunFailed(f"the teacher has {given.shape[-1]} words and the student {logits.shape[-1]}")
        found = divergence(given / self._temperature, logits / self._temperature, self._divergence)
        return (self._weight * self._temperature**2 * found).to(logits.dtype)

    def close(self) -> None:
        """Ends the thread that makes the teacher's images ready."""
        self._losses.close()


def divergence(teacher: Float[Tensor, "tokens words"], student: Float[Tensor, "tokens words"], kind: str) -> Tensor:
    """Returns the divergence between two models' logits, summed over tokens, in nats.

    It is computed in float64 where the device has it: at a high temperature the terms of the sum cancel.
    """
    wide = torch.float32 if student.device.type == "mps" else torch.float64
    theirs, own = (functional.log_softmax(logits.to(wide), dim=-1) for logits in (teacher, student))
    if kind == "forward":
        return _kl(theirs, own)
    if kind == "reverse":
        return _kl(own, theirs)
    mixed = torch.logaddexp(theirs, own) - math.log(2)
    return (_kl(theirs, mixed) + _kl(own, mixed)) / 2


def _kl(of: Tensor, to: Tensor) -> Tensor:
    """Returns KL(of || to) of log-probabilities, summed."""
    return functional.kl_div(to, of, reduction="sum", log_target=True)


def check_tokenizers(student: Backbone, teacher: Backbone) -> None:
    """Raises RequestError where a teacher has other words than its student."""
    if student.processor.tokenizer.get_vocab() != teacher.processor.tokenizer.get_vocab():
        raise RequestError(
            f"The teacher `{teacher.name}` has another tokenizer than `{student.name}`: choose one of the same."
        )


def steps_at_equal_compute(steps: int, parameters: int, trained: int, of_teacher: int) -> int:
    """Returns how many steps cost as much as `steps` without a teacher, its forward passes counted; at least 1.

    A token costs two operations a parameter forward, two more backward, and two more for the gradient of one that is
    trained (Kaplan et al. 2020, arXiv:2001.08361, section 2.1); the teacher goes forward alone.

    Args:
        parameters: the student's.
        trained: those of them that are trained.
        of_teacher: the teacher's.
    """
    alone = 4 * parameters + 2 * trained
    return max(1, round(steps * alone / (alone + 2 * of_teacher)))
