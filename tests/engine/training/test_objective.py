"""Terms of the loss: against closed forms, squared gradients of single examples, and torch's own divergence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from mmpt_bench.data.examples import Corpus, joined
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.loss import Losses
from mmpt_bench.engine.training.objective import Ewc, Lwf, fisher
from mmpt_bench.engine.training.train import TrainingConfig, train
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.budget import Budget

CONFIG = TrainingConfig(Budget(steps=3, batch_size=4), 1e-2, 0)


@pytest.fixture
def handle(backbone: Backbone) -> Iterator[Handle]:
    (entry,) = method_catalog.find_methods("projector")
    made = method_catalog.method_of(entry, {}).attach(backbone, 0)
    yield made
    made.remove()


def test_ewc_is_its_closed_form_on_two_parameters() -> None:
    parameters = {"a": nn.Parameter(torch.tensor([2.0])), "b": nn.Parameter(torch.tensor([-1.0]))}
    stages = [
        ({"a": torch.tensor([1.0]), "b": torch.tensor([0.0])}, {"a": torch.tensor([3.0]), "b": torch.tensor([0.5])}),
        ({"a": torch.tensor([2.0]), "b": torch.tensor([1.0])}, {"a": torch.tensor([7.0]), "b": torch.tensor([2.0])}),
    ]
    penalty = Ewc(10.0, stages).of_parameters(parameters)
    # 10 / 2 * (3 * 1 + .5 * 1 + 7 * 0 + 2 * 4)
    assert penalty.item() == pytest.approx(5 * 11.5)
    penalty.backward()
    assert parameters["a"].grad is not None
    assert parameters["b"].grad is not None
    # 10 * sum of F (p - p_s)
    assert parameters["a"].grad.item() == pytest.approx(10 * 3 * 1)
    assert parameters["b"].grad.item() == pytest.approx(10 * (0.5 * -1 + 2 * -2))


def test_fisher_is_the_mean_of_squared_gradients_of_single_examples(
    backbone: Backbone, corpus: Corpus, handle: Handle
) -> None:
    found = fisher(backbone, handle, corpus, seed=5, max_length=1024, n=6)
    (examples,) = corpus.batches(5, 1, 6)
    total = {name: torch.zeros_like(p) for name, p in handle.trainable.items()}
    losses = Losses(backbone, "by itself", 1024)
    for example in examples:
        for parameter in handle.trainable.values():
            parameter.grad = None
        loss, _ = losses.sum_of(losses.ready([example]), [0])
        loss.backward()
        for name, parameter in handle.trainable.items():
            assert parameter.grad is not None
            total[name] += parameter.grad**2 / 6
            parameter.grad = None
    losses.close()
    for name in total:
        assert torch.allclose(found[name], total[name], rtol=1e-5, atol=1e-12)
        assert found[name].max() > 0


def test_lwf_is_torchs_divergence_and_leaves_the_model_as_it_was(
    backbone: Backbone, corpus: Corpus, handle: Handle
) -> None:
    before = {name: value + 0.01 for name, value in handle.state().items()}
    now, term = handle.state(), Lwf(0.5, handle, before)
    losses = Losses(backbone, "by itself", 1024)
    (examples,) = corpus.batches(0, 1, 3)
    ready = losses.ready(examples)
    with torch.no_grad():
        given = term.before(losses, ready, [0, 1, 2])
        logits, _ = losses.answers(ready, [0, 1, 2])
        assert all(torch.equal(value, handle.state()[name]) for name, value in now.items())
        found = term.of_tokens(logits, given)
        handle.load(before)
        teacher, _ = losses.answers(ready, [0, 1, 2])
        handle.load(now)
    losses.close()
    p, q = teacher.softmax(-1), logits.softmax(-1)
    assert found.item() == pytest.approx(0.5 * (p * (p / q).log()).sum().item(), rel=1e-4)
    assert term.of_tokens(teacher, given).item() == pytest.approx(0, abs=1e-5)


def test_terms_are_added_to_the_gradient_and_told_of_beside_the_loss(
    backbone: Backbone, corpus: Corpus, handle: Handle
) -> None:
    start = handle.state()
    ones = {name: torch.ones_like(value) for name, value in start.items()}
    steps: list = []
    train(backbone, handle, corpus, CONFIG, on_step=steps.append)
    free = sum((value - start[name]).square().sum().item() for name, value in handle.state().items())
    handle.load(start)
    bound: list = []
    train(backbone, handle, corpus, CONFIG, on_step=bound.append, terms=[Ewc(1e4, [(start, ones)])])
    held = sum((value - start[name]).square().sum().item() for name, value in handle.state().items())
    assert held < free
    assert (bound[0].loss, bound[0].terms) == (steps[0].loss, {"ewc": 0.0})
    assert bound[-1].terms["ewc"] > 0
    assert "terms" not in steps[0].row
    assert bound[-1].row["terms"] == bound[-1].terms


def test_replay_draws_exactly_its_share_fixed_by_the_seed(corpus: Corpus) -> None:
    earlier = [corpus.part(0.01), corpus.part(0.02)]
    mixed = corpus.with_replay(earlier, 0.3)
    drawn = [[example.image.key for example in batch] for batch in mixed.batches(3, 20, 10)]
    again = [[example.image.key for example in batch] for batch in mixed.batches(3, 20, 10)]
    other = [[example.image.key for example in batch] for batch in mixed.batches(4, 20, 10)]
    resumed = [[example.image.key for example in batch] for batch in mixed.batches(3, 20, 10, first=7)]
    assert drawn == again
    assert drawn != other
    assert resumed == drawn[7:]
    places = mixed._places(3, 200)
    assert [places.count(k) for k in range(3)] == [140, 30, 30]
    own = {f"embedded/train/{i}" for i in range(round(0.02 * corpus.size))}
    assert sum(key in own for batch in drawn for key in batch) >= 60
    assert mixed.fingerprint not in (corpus.fingerprint, corpus.with_replay(earlier, 0.2).fingerprint)
    assert corpus.with_replay([], 0.3) is corpus


def test_joint_training_data_hold_every_example_once(corpus: Corpus) -> None:
    both = joined([corpus.part(0.0005), corpus.part(0.001)])
    assert both.size == 10 + 20
    keys = [both.example(index).image.key for index in range(both.size)]
    assert sorted(keys) == sorted(
        [f"embedded/train/{i}" for i in range(10)] + [f"embedded/train/{i}" for i in range(20)]
    )
    with pytest.raises(IndexError):
        both.example(30)
