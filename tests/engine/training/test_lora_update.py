"""LoRA's update added in place: PEFT's own forward and gradients to rounding, and hands off what is not plain LoRA."""

from typing import Any

import pytest
import torch

from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.lora_update import updates_fused
from mmpt_bench.methods import method_catalog
from support.tiny import tiny_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    torch.set_num_threads(1)
    return tiny_backbone(tmp_path_factory.mktemp("tiny"))


def attached(backbone: Backbone, **config: Any) -> list[Any]:
    """Puts PEFT's LoRA of a configuration on the language model, with updates that are not 0; returns its layers."""
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    pattern = r".*language_model.*(q_proj|down_proj)"
    inject_adapter_in_model(LoraConfig(target_modules=pattern, init_lora_weights=False, **config), backbone.model)
    return [layer for layer in backbone.model.modules() if hasattr(layer, "lora_A")]


def take_out(backbone: Backbone) -> None:
    for name, layer in [(n, m) for n, m in backbone.model.named_modules() if hasattr(m, "lora_A")]:
        parent, _, leaf = name.rpartition(".")
        setattr(backbone.model.get_submodule(parent), leaf, layer.base_layer)
    del backbone.model.peft_config


@pytest.mark.parametrize("config", [{"r": 4, "lora_alpha": 12}, {"r": 3, "lora_alpha": 5, "use_rslora": True}])
def test_output_and_gradients_are_those_of_peft_in_double_precision(backbone: Backbone, config: dict) -> None:
    layers = attached(backbone, **config)
    try:
        layer = layers[0].double()
        x = torch.randn(2, 7, layer.in_features, dtype=torch.float64, requires_grad=True)
        inputs = [x, layer.lora_A["default"].weight, layer.lora_B["default"].weight]
        weight = torch.randn(2, 7, layer.out_features, dtype=torch.float64)
        theirs = layer(x)
        wanted = torch.autograd.grad((theirs * weight).sum(), inputs)
        with updates_fused(backbone):
            assert "forward" in vars(layer)
            ours = layer(x)
            found = torch.autograd.grad((ours * weight).sum(), inputs)
        assert "forward" not in vars(layer)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    finally:
        for layer in layers:
            layer.float()
        take_out(backbone)


@pytest.mark.parametrize(
    ("config", "change"),
    [
        ({"use_dora": True}, lambda layer: None),
        ({"lora_dropout": 0.1}, lambda layer: None),
        ({"lora_bias": True}, lambda layer: None),
        ({}, lambda layer: layer.merge()),
        ({}, lambda layer: layer.enable_adapters(False)),
        ({}, lambda layer: layer.base_layer.weight.requires_grad_(True)),
        ({}, lambda layer: layer.lora_A.half()),
    ],
    ids=["dora", "dropout", "bias", "merged", "disabled", "base-trained", "other-precision"],
)
def test_a_layer_that_does_more_than_plain_lora_is_left_to_peft(backbone: Backbone, config: dict, change: Any) -> None:
    layers = attached(backbone, r=2, **config)
    try:
        change(layers[0])
        with updates_fused(backbone):
            assert "forward" not in vars(layers[0])
    finally:
        if layers[0].merged:
            layers[0].unmerge()
        layers[0].base_layer.weight.requires_grad_(False)
        take_out(backbone)


def test_without_peft_in_the_model_nothing_changes(backbone: Backbone) -> None:
    handle = method_catalog.load_method(method_catalog.method_entries()["projector"])().attach(backbone, 0)
    with updates_fused(backbone):
        assert not [module for module in backbone.model.modules() if "forward" in vars(module)]
    handle.remove()


@pytest.mark.parametrize("trained", [0, 1])
def test_one_factor_alone_has_its_gradient_and_the_frozen_one_none(trained: int, backbone: Backbone) -> None:
    layers = attached(backbone, r=4)
    try:
        layer = layers[0]
        factors = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
        factors[1 - trained].requires_grad_(False)
        x = torch.randn(2, 7, layer.in_features)
        (wanted,) = torch.autograd.grad(layer(x).square().sum(), [factors[trained]])
        with updates_fused(backbone):
            layer(x).square().sum().backward()
        torch.testing.assert_close(factors[trained].grad, wanted, rtol=1e-4, atol=1e-4)
        assert factors[1 - trained].grad is None
    finally:
        take_out(backbone)
