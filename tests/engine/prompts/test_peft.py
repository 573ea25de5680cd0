"""MMPT, VPT and the prefix are methods of PEFT: made, saved, loaded, switched and removed as PEFT's own are."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModel, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.trial import attached
from mmpt_bench.mmpt import MMPT, KVPrefixConfig, MMPTConfig, VPTConfig
from support.methods import method
from support.paths import ROOT
from support.tiny import ANSWERS, QUESTIONS, pictures, tiny_backbone

torch.set_num_threads(1)
CONFIGS = {"mmpt": MMPTConfig, "vpt": VPTConfig, "prefix": KVPrefixConfig}
OURS = {"mmpt": MMPT, "vpt": method("vpt"), "prefix": method("prefix")}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_backbone(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def batch(backbone: Any) -> dict[str, Any]:
    return backbone.batch(pictures(3), [backbone.prompt_text(q) for q in QUESTIONS], ANSWERS)


@pytest.fixture
def base(backbone: Any) -> Any:
    """Returns a model of its own for each test."""
    return copy.deepcopy(backbone.model)


def logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits


def stir(model: Any) -> None:
    """Moves every trainable parameter, so that an adapter does something."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.detach().add_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.mark.parametrize("name", CONFIGS)
def test_peft_model_answers_as_our_own_attachment(backbone: Any, base: Any, batch: Any, name: str) -> None:
    with attached(OURS[name](), backbone) as handle:
        wanted, trained = logits(backbone.model, batch), handle.size
    model = get_peft_model(base, CONFIGS[name]())
    assert torch.equal(logits(model, batch), wanted)
    assert model.get_nb_trainable_parameters()[0] == trained


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_model_loads_with_the_same_answers(base: Any, batch: Any, name: str, tmp_path: Path) -> None:
    own = copy.deepcopy(base)
    model = get_peft_model(base, CONFIGS[name]())
    stir(model)
    wanted = logits(model, batch)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(own, str(tmp_path))
    assert torch.equal(logits(again, batch), wanted)
    assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_adapter_folder_of_a_run_loads_in_peft(backbone: Any, base: Any, batch: Any, name: str, tmp_path: Path) -> None:
    with attached(OURS[name](), backbone) as handle:
        stir(backbone.model)
        wanted = logits(backbone.model, batch)
        handle.save(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(base, str(tmp_path)), batch), wanted)


def test_configuration_of_an_earlier_version_stands_in_front(base: Any, batch: Any, tmp_path: Path) -> None:
    model = get_peft_model(copy.deepcopy(base), MMPTConfig(interaction_place="front"))
    stir(model)
    wanted = logits(model, batch)
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    assert config.pop("interaction_place") == "front"
    path.write_text(json.dumps(config))
    assert torch.equal(logits(PeftModel.from_pretrained(base, str(tmp_path)), batch), wanted)
    assert MMPTConfig().interaction_place == "image"


def test_order_in_front_is_refused_where_nothing_else_stands_there(base: Any) -> None:
    with pytest.raises(RequestError, match="`interaction_place` `front`"):
        get_peft_model(base, MMPTConfig(placement="visual-first"))


def test_every_value_is_trained_by_peft(base: Any, batch: Any) -> None:
    model = get_peft_model(base, MMPTConfig())
    for _ in range(2):
        model(**batch).loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters() if p.requires_grad)


def test_disabled_adapter_is_the_base(base: Any, batch: Any) -> None:
    wanted = logits(base, batch)
    model = get_peft_model(base, MMPTConfig())
    stir(model)
    tuned = logits(model, batch)
    with model.disable_adapter():
        assert torch.equal(logits(model, batch), wanted)
    assert torch.equal(logits(model, batch), tuned)
    assert not torch.equal(tuned, wanted)


def test_adapters_of_different_lengths_take_turns_on_one_base(base: Any, batch: Any) -> None:
    model = get_peft_model(base, MMPTConfig())
    stir(model)
    first = logits(model, batch)
    model.add_adapter("other", MMPTConfig(visual_length=3, text_length=2, init_seed=5))
    assert torch.equal(logits(model, batch), first)
    model.set_adapter("other")
    second = logits(model, batch)
    assert not torch.equal(first, second)
    model.set_adapter("default")
    assert torch.equal(logits(model, batch), first)
    model.delete_adapter("default")
    assert torch.equal(logits(model, batch), second)


def test_second_adapter_is_loaded_beside_the_first(base: Any, batch: Any, tmp_path: Path) -> None:
    model = get_peft_model(copy.deepcopy(base), MMPTConfig(init_seed=3))
    stir(model)
    wanted = logits(model, batch)
    model.save_pretrained(tmp_path)
    other = get_peft_model(base, MMPTConfig())
    before = logits(other, batch)
    other.load_adapter(str(tmp_path), "loaded")
    assert torch.equal(logits(other, batch), before)
    other.set_adapter("loaded")
    assert torch.equal(logits(other, batch), wanted)


def test_unloaded_model_is_the_base(base: Any, batch: Any) -> None:
    wanted, names = logits(base, batch), list(base.state_dict())
    model = get_peft_model(base, MMPTConfig())
    stir(model)
    plain = model.unload()
    assert torch.equal(logits(plain, batch), wanted)
    assert list(plain.state_dict()) == names


def test_prompts_cannot_be_merged(base: Any) -> None:
    with pytest.raises(ValueError, match="cannot be merged"):
        get_peft_model(base, MMPTConfig()).merge_and_unload()


def test_two_active_prompt_adapters_are_refused(base: Any) -> None:
    model = get_peft_model(base, MMPTConfig(train_projector=False))
    model.add_adapter("other", MMPTConfig(train_projector=False))
    with pytest.raises(ValueError, match="one adapter at a time"):
        model.base_model.set_adapter(["default", "other"])


def test_prompts_of_no_length_are_refused(base: Any) -> None:
    with pytest.raises(RequestError, match="length 0"):
        get_peft_model(base, VPTConfig(visual_length=0))


def test_generation_through_peft_answers_as_our_own(backbone: Any, base: Any) -> None:
    asked = backbone.batch(pictures(3), [backbone.prompt_text(q) for q in QUESTIONS])
    named: dict[str, Any] = {"do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5, "suppress_tokens": [4]}
    with attached(MMPT(), backbone):
        wanted = backbone.model.generate(**asked, **named)
    assert torch.equal(get_peft_model(base, MMPTConfig()).generate(**asked, **named), wanted)


@pytest.mark.parametrize("order", ["peft, mmpt_bench.peft", "mmpt_bench.peft, peft"])
def test_importing_our_module_is_enough_for_peft(base: Any, tmp_path: Path, order: str) -> None:
    get_peft_model(base, MMPTConfig(visual_length=2)).save_pretrained(tmp_path)
    program = (
        f"import {order}\n"
        f"config = peft.PeftConfig.from_pretrained({str(tmp_path)!r})\n"
        "assert type(config).__name__ == 'MMPTConfig' and config.visual_length == 2"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_auto_model_finds_base_and_adapter(backbone: Any, base: Any, batch: Any, tmp_path: Path) -> None:
    model = get_peft_model(base, MMPTConfig())
    stir(model)
    wanted = logits(model, batch)
    model.peft_config["default"].base_model_name_or_path = backbone.name
    model.save_pretrained(tmp_path)
    assert torch.allclose(logits(AutoPeftModel.from_pretrained(str(tmp_path)), batch), wanted, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_finds_the_base_and_every_tensor_of_the_adapter(
    backbone: Any, base: Any, batch: Any, name: str, tmp_path: Path
) -> None:
    model = get_peft_model(base, CONFIGS[name]())
    stir(model)
    wanted = logits(model, batch)
    model.peft_config["default"].base_model_name_or_path = backbone.name
    model.save_pretrained(tmp_path)
    assert torch.allclose(logits(AutoModelForImageTextToText.from_pretrained(tmp_path), batch), wanted, atol=1e-5)


def test_saved_configuration_names_what_is_trained_whole(backbone: Any, tmp_path: Path) -> None:
    with attached(MMPT(train_lm_head=True), backbone) as handle:
        handle.save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "MMPT"
    assert config["modules_to_save"] == ["multi_modal_projector", "lm_head"]
