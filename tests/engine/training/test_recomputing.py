"""Gradient checkpointing: the same gradients, less kept on the way forward, and refused where it would be otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import mmpt_bench as mb
from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.examples import Corpus
from mmpt_bench.embedded import suite
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training import objective, train
from mmpt_bench.engine.training.loss import Losses
from mmpt_bench.engine.training.masters import Masters
from mmpt_bench.engine.training.recomputing import layers_recomputed
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.recipe_file import read_recipe

METHODS = ("lora", "mmpt", "prefix", "vpt", "dynamic", "adapter", "projector", "full")


def attached(backbone: Backbone, method: str) -> Handle:
    return method_catalog.load_method(method_catalog.method_entries()[method])().attach(backbone, 1)


@contextmanager
def kept_bytes(found: list[int]) -> Iterator[None]:
    """Inside, notes the size of what autograd keeps for the way back, without the parameters."""

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            found.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def computed(backbone: Backbone, corpus: Corpus, handle: Handle, is_on: bool) -> tuple[dict[str, Any], int, int]:
    """Returns (gradients of a batch, calls of a decoder layer, bytes kept on the way forward)."""
    model, calls, kept = backbone.model, list[int](), list[int]()
    layer = model.get_submodule(backbone.anatomy.decoder_layers[0])
    model.zero_grad(set_to_none=True)
    model.train()
    losses = Losses(backbone, corpus.fingerprint, 512)

    counter = layer.self_attn.register_forward_pre_hook(lambda module, args: calls.append(1))
    try:
        with layers_recomputed(backbone, is_on):
            ready = losses.ready(next(corpus.batches(0, 1, 4)))
            with kept_bytes(kept):
                losses.sum_of(ready, [0, 1, 2, 3])
            calls.clear()
            objective.backward(losses, ready, Masters(handle), 4)
    finally:
        counter.remove()
        losses.close()
        model.eval()
    return {key: p.grad.clone() for key, p in handle.trainable.items() if p.grad is not None}, sum(calls), sum(kept)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_the_same_and_less_is_kept(backbone: Backbone, corpus: Corpus, method: str) -> None:
    handle = attached(backbone, method)
    try:
        (plain, once, whole), (again, twice, less) = (computed(backbone, corpus, handle, on) for on in (False, True))
    finally:
        handle.remove()
    assert plain
    assert plain.keys() == again.keys()
    norm = torch.stack([g.norm() for g in plain.values()]).norm()
    for name, gradient in plain.items():
        assert (gradient - again[name]).norm() <= 1e-5 * max(gradient.norm(), 1e-3 * norm), name
    assert any((g != 0).any() for g in plain.values())
    # The layer is computed a second time on the way back.
    assert twice == 2 * once
    assert less < 0.7 * whole


def test_a_training_ends_where_it_would_without(backbone: Backbone, corpus: Corpus) -> None:
    found = {}
    for is_on in (False, True):
        handle, steps = attached(backbone, "lora"), list[train.Step]()
        config = train.TrainingConfig(Budget(steps=4, batch_size=4), 1e-2, 0, gradient_checkpointing=is_on)
        made = train.train(backbone, handle, corpus, config, on_step=steps.append)
        found[is_on] = (made.gradient_checkpointing, [step.loss for step in steps])
        handle.remove()
        for module in backbone.model.modules():
            assert not getattr(module, "gradient_checkpointing", False)
            # transformers leaves hooks on embeddings, which would train what is frozen.
            assert not any("require" in str(hook) for hook in module._forward_hooks.values())
    assert [found[is_on][0] for is_on in (False, True)] == [False, True]
    assert found[True][1] == pytest.approx(found[False][1], rel=1e-5)


def test_a_method_that_does_something_else_at_every_call_is_refused(backbone: Backbone, corpus: Corpus) -> None:
    handle, calls = attached(backbone, "lora"), [0]

    def scaled(module: Any, args: Any, output: Any) -> Any:
        # Within a pass and on the way back: another value each time, except where a layer is called once a pass.
        calls[0] += module.training
        return output * (1.0 + 0.5 * (calls[0] % 2))

    layers = [backbone.model.get_submodule(name) for name in backbone.anatomy.decoder_layers]
    hooks = [layers[0].mlp.register_forward_hook(scaled)]
    config = train.TrainingConfig(Budget(steps=1, batch_size=2), 1e-2, 0, gradient_checkpointing=True)
    try:
        with pytest.raises(RequestError, match=r"the gradients of this method are others.*Leave the option out"):
            train.train(backbone, handle, corpus, config)
    finally:
        hooks[0].remove()
        handle.remove()


def test_what_cannot_be_recomputed_is_refused(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(backbone.model), "supports_gradient_checkpointing", False)
    with pytest.raises(RequestError, match="transformers has none for"), layers_recomputed(backbone, True):
        pass


def test_it_is_the_same_run_and_its_record_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(suite.N_IMAGES, "mnist", 4)
    options: Any = {"steps": 1, "batch_size": 2, "out": tmp_path, "offline": True}
    (planned,) = mb.plan("projector", "mnist", **options).runs
    made = mb.run("projector", "mnist", gradient_checkpointing=True, **options)
    assert list(made.runs) == [planned["run"]]
    (record,) = made.made
    assert record.gradient_checkpointing
    assert record.row["gradient_checkpointing"] is True
    assert "gradient_checkpointing" not in {**read_recipe(tmp_path / "runs" / record.run / "recipe.yaml").__dict__}
    assert "gradient_checkpointing" not in type(record)(**{**vars(record), "gradient_checkpointing": False}).row
