"""Groups with settings of their own: by how much AdamW's first step moves each parameter, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmpt_bench.common.errors import RunFailed
from mmpt_bench.data.examples import Corpus
from mmpt_bench.engine.adapters.attachment import Group
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.train import TrainingConfig, train
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.budget import Budget

BUDGET = Budget(steps=1, batch_size=4, schedule="constant", warmup=0.0, weight_decay=0.1)
RATE = 1e-3


def moved(backbone: Backbone, corpus: Corpus, groups: tuple[Group, ...]) -> tuple[dict[str, Any], Any, str]:
    """Returns how far a step without its weight decay moves each parameter, and what is recorded of the training."""
    (entry,) = method_catalog.find_methods("adapter")
    handle = method_catalog.method_of(entry, {"size": "2"}).attach(backbone, 0)
    try:
        before = handle.state()
        trained = train(backbone, handle, corpus, TrainingConfig(BUDGET, RATE, 0, groups))
        return {name: (before[name], value) for name, value in handle.state().items()}, trained, entry.name
    finally:
        handle.remove()


def test_rates_and_decays_of_groups_reach_the_optimizer(backbone: Backbone, corpus: Corpus) -> None:
    projector = backbone.anatomy.projector
    found, trained, _ = moved(backbone, corpus, (Group(projector, rate=0.1, weight_decay=0.5),))
    for name, (before, after) in found.items():
        own = name.startswith(projector)
        rate, decay = (0.1 * RATE, 0.5) if own else (RATE, 0.1)
        # AdamW: p - rate * decay * p - rate * m / sqrt(v), and m / sqrt(v) is the gradient's sign at the first step.
        step = (after - before * (1 - rate * decay)).abs().max().item()
        assert step == pytest.approx(rate, rel=0.02) or step == pytest.approx(0, abs=1e-9), name
    sizes = [sum(b.numel() for n, (b, _) in found.items() if n.startswith(projector) is own) for own in (False, True)]
    assert trained.groups == (
        {"parameters": sizes[0], "learning_rate": RATE, "weight_decay": 0.1},
        {"parameters": sizes[1], "learning_rate": pytest.approx(0.1 * RATE), "weight_decay": 0.5},
    )


def test_a_group_of_the_usual_settings_changes_no_bit(backbone: Backbone, corpus: Corpus) -> None:
    plain, _, _ = moved(backbone, corpus, ())
    same, _, _ = moved(backbone, corpus, (Group(backbone.anatomy.projector),))
    assert all(torch.equal(plain[name][1], same[name][1]) for name in plain)


def test_a_group_of_no_parameter_is_refused(backbone: Backbone, corpus: Corpus) -> None:
    with pytest.raises(RunFailed, match=r"`nothing\.` holds no parameter"):
        moved(backbone, corpus, (Group("nothing."),))


def test_a_method_says_its_groups(backbone: Backbone) -> None:
    (entry,) = method_catalog.find_methods("adapter")
    method = method_catalog.method_of(entry, {"projector_rate": "0.1"})
    assert method.groups(backbone.anatomy) == (Group(backbone.anatomy.projector, 0.1),)
    assert method_catalog.method_of(entry, {}).groups(backbone.anatomy) == ()
