"""Bottleneck adapters: what they compute, by hand; what they count; and that an untrained one changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.trial import attached, logits_of
from mmpt_bench.engine.models.loading import anatomy_of
from support.methods import method
from support.paths import ROOT
from support.tiny import tiny_backbone

torch.set_num_threads(1)
LAYER = "model.language_model.layers.1"
BLOCK = "model.vision_tower.encoder.layers.0"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_backbone(tmp_path_factory.mktemp("adapter"))


@pytest.mark.parametrize("kind", ["houlsby", "pfeiffer", "parallel"])
@pytest.mark.parametrize("placement", ["decoder", "tower", "both"])
def test_zero_output_leaves_the_base_bit_for_bit(backbone: Any, kind: str, placement: str) -> None:
    plain = logits_of(backbone)
    with attached(method("adapter")(kind=kind, placement=placement, size=3), backbone) as handle:
        assert torch.equal(logits_of(backbone), plain)
        for parameter in handle.trainable.values():
            parameter.detach().add_(0.1)
        assert not torch.allclose(logits_of(backbone), plain)
    assert torch.equal(logits_of(backbone), plain)


def seen(backbone: Any, name: str) -> tuple[Any, Any]:
    """Returns what a part of the model reads, and what it hands on with every hook on it."""
    found: list[Any] = []
    module = backbone.model.get_submodule(name)
    hook = module.register_forward_hook(
        lambda module, args, kwargs, out: found.append(((args or (kwargs.get("hidden_states"),))[0], out)),
        with_kwargs=True,
    )
    logits_of(backbone)
    hook.remove()
    read, made = found[0]
    return read, made[0] if isinstance(made, tuple) else made


@pytest.mark.parametrize(
    ("kind", "part", "placement"),
    [
        ("houlsby", f"{LAYER}.self_attn", "decoder"),
        ("houlsby", f"{LAYER}.mlp", "decoder"),
        ("pfeiffer", f"{LAYER}.mlp", "decoder"),
        ("parallel", f"{LAYER}.mlp", "decoder"),
        ("pfeiffer", f"{BLOCK}.mlp", "tower"),
        ("parallel", f"{BLOCK}.mlp", "tower"),
    ],
)
def test_bottleneck_adds_what_its_formula_says(backbone: Any, kind: str, part: str, placement: str) -> None:
    adapter = method("adapter")(kind=kind, size=2, scale=0.5, activation="relu", placement=placement)
    with attached(adapter, backbone) as handle:
        which = "attention" if part.endswith("self_attn") else "mlp"
        name = f"bottlenecks.{part.rpartition('.')[0].replace('.', '_')}:{which}"
        values = {key: handle.trainable[f"{name}.{key}"] for key in ("down", "down_bias", "up", "up_bias")}
        read, plain = seen(backbone, part)
        with torch.no_grad():
            for i, value in enumerate(values.values()):
                value.copy_(torch.linspace(-1, 1, value.numel()).view(value.shape) + 0.1 * i)
        _, found = seen(backbone, part)
        of = read if kind == "parallel" else plain
        inner = functional.relu(of @ values["down"].T + values["down_bias"])
        assert torch.allclose(found, plain + 0.5 * (inner @ values["up"].T + values["up_bias"]), atol=1e-5)
        assert not torch.allclose(found, plain)


def test_counts_at_llava_7b_are_those_worked_out_by_hand() -> None:
    anatomy, _, _ = anatomy_of(str(ROOT / "examples" / "llava-7b-linear"))
    text, vision = 2 * 64 * 4096 + 64 + 4096, 2 * 64 * 1024 + 64 + 1024
    count = {
        ("houlsby", "decoder"): 32 * 2 * text,
        ("pfeiffer", "decoder"): 32 * text,
        ("parallel", "tower"): 23 * vision,
        ("houlsby", "both"): 64 * text + 46 * vision,
    }
    adapter = method("adapter")
    for (kind, placement), wanted in count.items():
        assert adapter(kind=kind, placement=placement, train_projector=False).count(anatomy) == wanted
    assert adapter().count(anatomy) == 64 * text + 4_198_400


IDLE: dict[str, Any] = {"train_projector": False, "projector_rate": 0.1}


@pytest.mark.parametrize("values", [{"size": 0}, {"scale": 0.0}, {"kind": "serial"}, {"activation": "sin"}, IDLE])
def test_values_that_train_nothing_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        method("adapter")(**values)


def test_block_without_the_part_is_named_and_the_base_stays(backbone: Any) -> None:
    layer = backbone.model.get_submodule(LAYER)
    layer.other, plain = layer.mlp, dict(layer.named_children())
    del layer.mlp
    try:
        flags = [p.requires_grad for p in backbone.model.parameters()]
        with pytest.raises(RequestError, match="has no mlp part"):
            method("adapter")().attach(backbone, 0)
        assert flags == [p.requires_grad for p in backbone.model.parameters()]
    finally:
        layer.mlp = plain["mlp"]
        del layer.other
