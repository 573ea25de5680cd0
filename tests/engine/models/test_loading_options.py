"""How a backbone is loaded: what each way changes, that it is a setting of its own, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForImageTextToText

import mmpt_bench as mb
from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.saved import public_name
from mmpt_bench.engine.adapters.trial import attached
from mmpt_bench.engine.models import quantized
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.methods import method_catalog
from mmpt_bench.methods.trained_adapter import adapter_entry
from mmpt_bench.sources.weights import backbone_fingerprint, loading_of, with_loading
from support.newer_families import BUILDERS
from support.tiny import QUESTIONS, pictures, save_tiny


def loaded(folder: Path, **how: object) -> Backbone:
    return load_backbone(with_loading(str(folder), how), device="cpu", offline=True)


def logits(backbone: Backbone) -> torch.Tensor:
    batch = backbone.batch(pictures(2), [backbone.prompt_text(question) for question in QUESTIONS[:2]])
    with torch.no_grad():
        found: torch.Tensor = backbone.model(**batch).logits
    return found


def test_a_name_says_how_it_is_loaded_and_is_read_back(tmp_path: Path) -> None:
    how = {"quantize": "int8", "max_pixels": 4096, "min_pixels": None, "attn_implementation": "eager"}
    name = with_loading("owner/model@v1", how)
    assert name == "owner/model@v1?attn_implementation=eager&max_pixels=4096&quantize=int8"
    assert loading_of(name) == ("owner/model@v1", {name: value for name, value in how.items() if value is not None})
    assert with_loading("owner/model", {}) == "owner/model"
    assert with_loading("owner/model?quantize=int8", {"max_pixels": 9}) == "owner/model?max_pixels=9&quantize=int8"
    folder = tmp_path / "mine?quantize=int8"
    folder.mkdir()
    assert loading_of(str(folder)) == (str(folder), {})
    assert loading_of(f"{folder}?max_pixels=9") == (str(folder), {"max_pixels": 9})
    save_tiny(tmp_path / "tiny")
    assert public_name(with_loading(str(tmp_path / "tiny"), {"quantize": "int8"})) == "tiny?quantize=int8"


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("owner/model", {"quantize": "int3"}, "There is no quantize `int3`"),
        ("owner/model", {"attn_implementation": "fast"}, "There is no attn_implementation `fast`"),
        ("owner/model", {"max_pixels": 0}, "`max_pixels` is `0`: a number of pixels"),
        ("owner/model", {"max_pixels": -3}, "a number of pixels"),
        ("owner/model", {"min_pixels": 9, "max_pixels": 4}, "`min_pixels` 9 is above `max_pixels` 4"),
        ("owner/model?quantize=int8", {"quantize": "int4"}, "says `quantize` already"),
        ("owner/model?colour=red", {}, "There is no way to load a backbone `colour`"),
        ("owner/model?quantize=int8&quantize=int4", {}, "each once"),
        ("owner/model?", {}, "way to load a backbone"),
        ("embedded", {"quantize": "int8"}, "`quantize` is for backbones in Hugging Face form"),
        ("embedded?quantize=int8", {}, "`quantize` is for backbones in Hugging Face form"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(name: str, how: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        mb.plan("frozen", "mnist", backbone=name, **how)


def test_each_way_is_a_backbone_of_its_own(tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path))
    names = [folder, *(with_loading(folder, how) for how in ({"quantize": "int8"}, {"attn_implementation": "eager"}))]
    assert len({backbone_fingerprint(name) for name in names}) == 3
    assert load_backbone(names[2], device="cpu").fingerprint == backbone_fingerprint(names[2])


def test_attention_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    plain, eager = loaded(folder), loaded(folder, attn_implementation="eager")
    assert (plain.model.config._attn_implementation, eager.model.config._attn_implementation) == ("sdpa", "eager")
    wanted, found = logits(plain)[:, -1], logits(eager)[:, -1]
    assert torch.allclose(wanted, found, atol=1e-4)
    assert not torch.equal(wanted, found)


def test_pixels_are_limited_where_a_processor_can(tmp_path: Path) -> None:
    folder = BUILDERS["Qwen2-VL"](tmp_path / "qwen")
    (image,) = pictures(1)
    large = image.resize((64, 64))
    tokens = {}
    for most in (1024, 4096):
        (encoded,) = loaded(folder, max_pixels=most).encode([large])
        tokens[most] = int(encoded.tensors["image_grid_thw"].prod())
    side = 4  # pixels of a patch
    assert tokens == {most: most // side**2 for most in tokens}
    with pytest.raises(RequestError, match="Images of `llava` have no `max_pixels`"):
        loaded(save_tiny(tmp_path / "llava"), max_pixels=4096)
    with pytest.raises(RequestError, match="at least 128 pixels and at most 100"):
        loaded(folder, max_pixels=100)


STEP = {"int8": 0.5 / 127 + 1e-6, "int4": 0.16}


def dequantized(value: Any) -> torch.Tensor:
    """Returns what each package says that a weight stands for."""
    if hasattr(value, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(value.data, value.quant_state)
    made: torch.Tensor = value.dequantize()
    return made


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_weights_are_near_and_take_every_method_that_adds_parameters(tmp_path: Path, precision: str) -> None:
    if importlib.util.find_spec(quantized.QUANTIZED[precision]) is None:
        pytest.skip(f"{quantized.QUANTIZED[precision]} is not installed")
    folder = save_tiny(tmp_path, wider=4)
    plain, small = loaded(folder), loaded(folder, quantize=precision)
    assert small.anatomy.total_parameters == plain.anatomy.total_parameters
    assert sum(map(quantized.n_values, small.model.parameters())) == plain.anatomy.total_parameters
    projector = small.model.get_submodule(small.anatomy.projector)
    assert all(type(one) is nn.Parameter for one in projector.parameters())
    weights = dict(plain.model.named_parameters())
    with torch.no_grad():
        for name, value in small.model.named_parameters():
            if quantized.is_quantized(value):
                meant = dequantized(value)
                # A step between two codes of int8 is 1/127 of a row's largest value, of NF4 up to .31 of a block's.
                assert 0 < (meant - weights[name]).abs().max() / weights[name].abs().max() < STEP[precision]
                weights[name].copy_(meant)
    rows = torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    place = f"{plain.anatomy.decoder}.layers.0.self_attn.q_proj"
    made, meant = (one.model.get_submodule(place)(rows).detach() for one in (small, plain))
    # On the CPU, 4-bit weights are multiplied in bfloat16.
    assert (made - meant).abs().max() < (1e-4 if precision == "int8" else 0.02) * meant.abs().max()
    found = logits(small)
    assert sum(map(quantized.n_values, small.model.parameters())) == plain.anatomy.total_parameters
    method = method_catalog.load_method(method_catalog.named_method("lora"))
    with attached(method(r=2), small) as handle:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for value in handle.trainable.values():
                value += 0.05 * torch.randn(value.shape, generator=generator)
        ours = logits(small)
    assert torch.equal(logits(small), found)
    assert (ours - found).abs().max() > 1e-2
    with (
        pytest.raises(RequestError, match="is quantized and cannot be trained"),
        attached(method_catalog.load_method(method_catalog.named_method("full"))(), small),
    ):
        pass
    assert not any(
        parameter.requires_grad and quantized.is_quantized(parameter) for parameter in small.model.parameters()
    )
    assert torch.equal(logits(small), found)


def test_the_numbers_are_those_of_transformers_and_peft(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    folder = save_tiny(tmp_path, wider=4)
    ours = loaded(folder, quantize="int8")
    how = TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=["model.multi_modal_projector", "lm_head"])
    model = AutoModelForImageTextToText.from_pretrained(folder, quantization_config=how).eval()
    prompt = [ours.prompt_text(question) for question in QUESTIONS[:2]]
    batch = ours.batch(pictures(2), prompt)
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, ours.model(**batch).logits)
    config = LoraConfig(r=2, lora_alpha=32, target_modules=r".*language_model.*\.(q|v)_proj")
    theirs = get_peft_model(model, config)
    values = {}
    for name, value in theirs.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(value, std=0.2, generator=torch.Generator().manual_seed(len(values)))
            values[name] = value.detach()
    theirs.save_pretrained(tmp_path / "adapter")
    entry = adapter_entry(str(tmp_path / "adapter"), offline=True)
    with torch.no_grad():
        wanted = theirs(**batch).logits
    with attached(method_catalog.load_method(entry)(), ours) as handle, torch.no_grad():
        assert not [note for note in handle.notes if "another base" in note]
        assert torch.equal(ours.model(**batch).logits, wanted)
