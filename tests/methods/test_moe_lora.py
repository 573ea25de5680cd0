"""Experts of low rank: against PEFT's LoRA where all weigh alike, and by hand where a router weighs them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.trial import attached, logits_of
from support.methods import method
from support.tiny import tiny_backbone

torch.set_num_threads(1)
MAP = "model.language_model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_backbone(tmp_path_factory.mktemp("experts"))


def drawn(shape: Any, seed: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


@pytest.mark.parametrize("routing", ["token", "uniform"])
def test_untrained_experts_leave_the_base_bit_for_bit(backbone: Any, routing: str) -> None:
    plain = logits_of(backbone)
    with attached(method("moe_lora")(routing=routing), backbone) as handle:
        assert torch.equal(logits_of(backbone), plain)
        assert handle.size == method("moe_lora")(routing=routing).count(backbone.anatomy)
        for parameter in handle.trainable.values():
            parameter.detach().add_(0.1)
        assert not torch.allclose(logits_of(backbone), plain)
    assert torch.equal(logits_of(backbone), plain)


@pytest.mark.parametrize("placement", ["mlp", "all"])
def test_experts_that_weigh_alike_are_one_lora_of_pefts(backbone: Any, placement: str) -> None:
    experts = method("moe_lora")(experts=3, r=2, alpha=4, routing="uniform", placement=placement)
    values: dict[str, Any] = {}
    with attached(experts, backbone) as handle:
        for number, (name, parameter) in enumerate(handle.trainable.items()):
            if name.startswith("experts."):
                parameter.detach().copy_(drawn(parameter.shape, number))
                values[name] = parameter.detach().clone()
        found = logits_of(backbone)
    with attached(method("lora")(r=6, alpha=4, placement=placement), backbone) as handle:
        for name, parameter in handle.trainable.items():
            if "lora_" in name:
                place, _, part = name.partition(".lora_")
                own = place.removeprefix("base_model.model.").replace(".", "_")
                parameter.detach().copy_(values[f"experts.{own}.{part[0].lower()}"])
        wanted = logits_of(backbone)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_a_router_weighs_the_experts_of_each_token(backbone: Any) -> None:
    seen: list[Any] = []
    with attached(method("moe_lora")(experts=2, r=1, alpha=3), backbone) as handle:
        own = {n.rsplit(".", 1)[1]: p for n, p in handle.trainable.items() if MAP.replace(".", "_") in n}
        for number, parameter in enumerate(own.values()):
            parameter.detach().copy_(drawn(parameter.shape, number))
        hook = backbone.model.get_submodule(MAP).register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
        logits_of(backbone)
        hook.remove()
    (read, made), *_ = seen
    weight = backbone.model.get_submodule(MAP).weight.double()
    read, a, b, router = (value.detach().double() for value in (read, own["a"], own["b"], own["router"]))
    for token in read.flatten(0, -2)[:3]:
        gate = torch.exp(router @ token) / torch.exp(router @ token).sum()
        update = sum(3 / 1 * gate[e] * (a[e] @ token) * b[:, e] for e in range(2))
        row = (read.flatten(0, -2) == token).all(-1).nonzero()[0, 0]
        assert torch.allclose(made.flatten(0, -2)[row].double(), weight @ token + update, atol=1e-5)


@pytest.mark.parametrize(
    "values", [{"experts": 1}, {"r": 0}, {"alpha": 0}, {"routing": "top1"}, {"placement": "tower"}]
)
def test_what_would_be_no_mixture_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(values))):
        method("moe_lora")(**values)
