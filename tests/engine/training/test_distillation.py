"""Distillation: against torch's own divergences, a teacher that is the student, and one that differs."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt_bench.common.errors import RunFailed
from mmpt_bench.data.examples import Corpus
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.distillation import Distill, divergence, steps_at_equal_compute
from mmpt_bench.engine.training.loss import Losses
from mmpt_bench.engine.training.objective import Batch, Context, OfMethod, Outputs
from mmpt_bench.engine.training.train import TrainingConfig, train
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.budget import Budget
from mmpt_bench.runs.gpus import asking_operations, training_operations

CONFIG = TrainingConfig(Budget(steps=3, batch_size=4), 1e-2, 0)
TEACHER = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
STUDENT = torch.tensor([[0.0, 1.0, -1.0], [0.5, 2.0, 1.0]])


def attached(backbone: Backbone) -> Any:
    (entry,) = method_catalog.find_methods("projector")
    return method_catalog.method_of(entry, {}).attach(backbone, 0)


def test_divergences_are_torchs() -> None:
    p, q = (torch.distributions.Categorical(logits=logits) for logits in (TEACHER, STUDENT))
    mixed = torch.distributions.Categorical(probs=(p.probs + q.probs) / 2)
    kl = torch.distributions.kl_divergence
    assert divergence(TEACHER, STUDENT, "forward").item() == pytest.approx(kl(p, q).sum().item(), rel=1e-5)
    assert divergence(TEACHER, STUDENT, "reverse").item() == pytest.approx(kl(q, p).sum().item(), rel=1e-5)
    jsd = (kl(p, mixed) + kl(q, mixed)).sum() / 2
    assert divergence(TEACHER, STUDENT, "jsd").item() == pytest.approx(jsd.item(), rel=1e-5)
    assert divergence(TEACHER, STUDENT, "jsd").item() < 2 * math.log(2)


@pytest.mark.parametrize("temperature", [50.0, 1000.0, 1e5])
@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd"])
def test_at_a_high_temperature_the_term_is_that_of_variances(kind: str, temperature: float, backbone: Backbone) -> None:
    """T^2 D goes to the variance of the difference of logits over equal words, by 1/2 (jsd: by 1/8)."""
    teacher, student = (torch.randn(6, 500, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    term = Distill(1.0, temperature, kind, copied(backbone), 1024)  # type: ignore[arg-type]
    wanted = (teacher - student).double().var(dim=-1, correction=0).sum() / (8 if kind == "jsd" else 2)
    assert term.of_tokens(student, teacher).item() == pytest.approx(wanted.item(), rel=3 / temperature + 1e-4)
    assert abs(term.of_tokens(student, student).item()) < 1e-4
    term.close()


def test_term_is_weight_times_squared_temperature_times_torchs_kl(backbone: Backbone) -> None:
    term = Distill(0.5, 2.0, "forward", copied(backbone), 1024)
    wanted = nn.KLDivLoss(reduction="sum")(functional.log_softmax(STUDENT / 2, -1), functional.softmax(TEACHER / 2, -1))
    assert term.of_tokens(STUDENT, TEACHER).item() == pytest.approx(0.5 * 4 * wanted.item(), rel=1e-5)
    with pytest.raises(RunFailed, match="3 words and the student 2"):
        term.of_tokens(STUDENT[:, :2], TEACHER)
    term.close()


def copied(backbone: Backbone) -> Backbone:
    return dataclasses.replace(backbone, model=copy.deepcopy(backbone.model))


def test_teacher_of_the_students_own_weights_adds_nothing_and_another_one_does(
    backbone: Backbone, corpus: Corpus
) -> None:
    handle, teacher = attached(backbone), copied(backbone)
    start, found = handle.state(), {}
    for moved in (0.0, 0.3):
        for parameter in teacher.model.get_submodule(backbone.anatomy.lm_head).parameters():
            parameter.data += moved * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
        handle.load(start)
        steps: list = []
        terms = [Distill(1.0, 1.0, "forward", teacher, 1024)]
        train(backbone, handle, corpus, CONFIG, on_step=steps.append, terms=terms)
        found[moved] = steps[0].terms["kd"]
        assert len(steps) == 3
    handle.remove()
    assert found[0.0] == pytest.approx(0, abs=1e-5)
    assert found[0.3] > 1e-3


def test_teachers_logits_are_its_own_of_the_same_answer_tokens(backbone: Backbone, corpus: Corpus) -> None:
    handle, teacher = attached(backbone), copied(backbone)
    for parameter in teacher.model.get_submodule(backbone.anatomy.lm_head).parameters():
        parameter.data += 0.1
    (examples,) = corpus.batches(0, 1, 3)
    term, losses = Distill(2.0, 1.0, "reverse", teacher, 1024), Losses(backbone, "by itself", 1024)
    ready = losses.ready(examples)
    given = term.before(losses, ready, [0, 1, 2])
    logits, _ = losses.answers(ready, [0, 1, 2])
    with torch.no_grad():
        wanted, _ = Losses(teacher, "theirs", 1024).answers(losses.ready(examples), [0, 1, 2])
    assert torch.allclose(given, wanted, atol=1e-4)
    assert term.of_tokens(logits, given).requires_grad
    losses.close()
    term.close()
    handle.remove()


def test_equal_compute_counts_the_teachers_pass() -> None:
    # Of passes of a model of the same size: all is trained, 3 and 1; next to nothing is, 2 and 1.
    assert steps_at_equal_compute(400, 1000, 1000, 1000) == 300
    assert steps_at_equal_compute(400, 1000, 0, 1000) == 267
    assert steps_at_equal_compute(400, 1000, 1000, 3000) == 200
    assert steps_at_equal_compute(1, 1, 0, 10**9) == 1


def test_equal_compute_is_equal_by_what_plans_count() -> None:
    for trained in (10**3, 10**6):
        steps = steps_at_equal_compute(10**6, 10**6, trained, 10**6)
        cost = training_operations(steps, 1, 10**6, trained) + asking_operations(steps, 1, 10**6)
        assert cost == pytest.approx(training_operations(10**6, 1, 10**6, trained), rel=1e-5)


class WithTerms:
    """A method that adds two terms: half the squared logits, and a penalty on its parameters."""

    name = "with-terms"

    def objective(self, batch: Batch, outputs: Outputs, context: Context) -> Mapping[str, Tensor]:
        norm = sum(parameter.square().sum() for parameter in context.parameters.values())
        assert len(batch.rows) == len(batch.labels) == len(outputs.logits)
        return {"logits": outputs.logits.square().mean(-1).sum() / 2, "norm": 0.01 * norm * len(batch.labels)}


def test_terms_of_a_method_are_added_logged_and_counted_once_a_step(backbone: Backbone, corpus: Corpus) -> None:
    handle = attached(backbone)
    norm = sum(value.square().sum().item() for value in handle.state().values())
    steps: list = []
    train(backbone, handle, corpus, CONFIG, on_step=steps.append, terms=[OfMethod(WithTerms())])
    handle.remove()
    assert set(steps[0].terms) == {"logits", "norm"}
    assert steps[0].terms["norm"] == pytest.approx(0.01 * norm, rel=1e-4)
    assert steps[0].terms["logits"] > 0
    assert steps[0].row["terms"] == steps[0].terms


def test_a_term_that_is_no_number_is_refused() -> None:
    class Vector:
        name = "vector"

        def objective(self, *told: Any) -> dict[str, Tensor]:
            return {"each": torch.zeros(3)}

    batch = Batch(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    with pytest.raises(RunFailed, match="`each` is no tensor of one number"):
        OfMethod(Vector()).objective(batch, Outputs(TEACHER), Context(None, {}))  # type: ignore[arg-type]
