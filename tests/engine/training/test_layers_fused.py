"""Norms and rotation as one autograd step each: the model's own values and gradients to rounding, or hands off."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.layers_fused import Norm, Rotation, layers_fused
from support.tiny import tiny_backbone

LLAMA = sys.modules[LlamaRMSNorm.__module__]


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    torch.set_num_threads(1)
    return tiny_backbone(tmp_path)


def norms(backbone: Backbone) -> list[Any]:
    return [module for module in backbone.model.modules() if isinstance(module, LlamaRMSNorm)]


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_a_norm_and_its_gradients_are_those_of_autograd(scale: float) -> None:
    torch.manual_seed(0)
    x = (torch.randn(2, 5, 8, dtype=torch.float64) * scale).requires_grad_()
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    theirs = weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
    ours = Norm.apply(x, weight, 1e-6)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    mix = torch.randn(2, 5, 8, dtype=torch.float64)
    wanted = torch.autograd.grad((theirs * mix).sum(), [x, weight])
    found = torch.autograd.grad((ours * mix).sum(), [x, weight])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-15)


def test_a_norm_of_frozen_values_or_a_frozen_weight_has_the_other_gradient_alone() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(3, 8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    for one, other in ((x.clone().requires_grad_(), weight), (x, weight.clone().requires_grad_())):
        assert torch.autograd.gradcheck(lambda a, b: Norm.apply(a, b, 1e-6), (one, other))


def test_a_rotation_and_its_gradient_are_those_of_transformers() -> None:
    torch.manual_seed(0)
    # As attention hands them over: heads moved to the front, so not contiguous.
    query, key = (torch.randn(2, 5, heads, 8, dtype=torch.float64).transpose(1, 2) for heads in (4, 2))
    # Transformers' halves have the same angles; the gradient does not lean on that.
    angles = torch.randn(2, 5, 8, dtype=torch.float64)
    theirs = apply_rotary_pos_emb(query.requires_grad_(), key.requires_grad_(), angles.cos(), angles.sin())
    ours = [Rotation.apply(x, angles.cos()[:, None], angles.sin()[:, None]) for x in (query, key)]
    for x, one, other in zip((query, key), ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        mix = torch.randn(one.shape, dtype=torch.float64)
        wanted = torch.autograd.grad((other * mix).sum(), x)
        torch.testing.assert_close(torch.autograd.grad((one * mix).sum(), x), wanted, rtol=1e-12, atol=1e-12)


def test_inside_a_whole_model_computes_the_same_and_afterwards_it_is_as_before(backbone: Backbone) -> None:
    ids = torch.randint(5, 20, (2, 9))
    own, weights = LLAMA.apply_rotary_pos_emb, list(backbone.model.get_decoder().parameters())

    def loss_and_gradients() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        loss = backbone.model(input_ids=ids, labels=ids).loss
        return loss.detach(), torch.autograd.grad(loss, weights, allow_unused=True)

    state = torch.get_rng_state()
    wanted = loss_and_gradients()
    with layers_fused(backbone):
        assert LLAMA.apply_rotary_pos_emb is not own
        assert all("forward" in vars(norm) for norm in norms(backbone))
        found = loss_and_gradients()
    assert LLAMA.apply_rotary_pos_emb is own
    assert not any("forward" in vars(norm) for norm in norms(backbone))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(found[0], wanted[0])
    for one, other in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_another_norm_rotation_or_precision_is_left_alone(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    class CentredRMSNorm(LlamaRMSNorm):
        """As Gemma's: the weight counts from 1."""

        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden_states) + hidden_states

    def turned_in_pairs(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> Any:
        return q * cos.unsqueeze(1), k * cos.unsqueeze(1)

    first, second = norms(backbone)[:2]
    first.__class__ = CentredRMSNorm
    monkeypatch.setattr(LLAMA, "apply_rotary_pos_emb", turned_in_pairs)
    with layers_fused(backbone):
        assert "forward" not in vars(first)
        assert "forward" in vars(second)
        assert LLAMA.apply_rotary_pos_emb is turned_in_pairs
    monkeypatch.setattr(backbone, "dtype", "bfloat16")
    with layers_fused(backbone):
        assert "forward" not in vars(second)


def test_what_a_model_brings_comes_back_after_an_error(backbone: Backbone) -> None:
    own = LLAMA.apply_rotary_pos_emb
    with pytest.raises(KeyError), layers_fused(backbone):
        raise KeyError
    assert LLAMA.apply_rotary_pos_emb is own
    assert not any("forward" in vars(norm) for norm in norms(backbone))
