"""Every built-in method passes the conformance checks, on towers read at -1 and -2, CLIP and SigLIP."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.engine.adapters.attachment import Attachment, Group
from mmpt_bench.engine.adapters.check_method import check_method
from mmpt_bench.engine.adapters.saved import CONFIG_FILE, read_adapter
from mmpt_bench.engine.adapters.trial import attached
from mmpt_bench.mmpt import MMPT
from support.methods import METHODS, VARIANTS, method
from support.tiny import ANSWERS, QUESTIONS, pictures, tiny_backbone

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    place = tmp_path_factory.mktemp("backbones")
    settings = {"clip-1": (-1, False), "clip-2": (-2, False), "siglip-1": (-1, True), "siglip-2": (-2, True)}
    return {key: tiny_backbone(place / key, *values) for key, values in settings.items()}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("tower", [pytest.param("clip-1", marks=pytest.mark.slow), "clip-2"])
def test_method_passes_every_check(backbones: dict[Any, Any], tower: str, name: str) -> None:
    if (tower, name) == ("clip-1", "mmpt-code"):
        pytest.skip("refused: no block's output is discarded")
    failed = [result for result in check_method(VARIANTS[name](), backbones[tower]) if not result.ok]
    assert not failed


@pytest.mark.parametrize(("layer", "name"), [(1, "mmpt"), (1, "mmpt-code-front"), (2, "mmpt-code"), (1, "prefix")])
def test_method_passes_every_check_on_siglip(backbones: dict[Any, Any], layer: int, name: str) -> None:
    failed = [result for result in check_method(VARIANTS[name](), backbones[f"siglip-{layer}"]) if not result.ok]
    assert not failed


@dataclasses.dataclass(frozen=True)
class Unread(VARIANTS["full-vision"]()):  # type: ignore[misc]
    """Opens the whole tower, the block that is not read with it."""

    def attach(self, backbone: Any, seed: int) -> Any:
        attachment = Attachment(backbone)
        attachment.open(backbone.anatomy.vision)
        return attachment.handle(self)

    def count(self, anatomy: Any) -> int:
        return 1


def test_checks_catch_a_wrong_count_and_a_weight_that_never_learns(backbones: dict[Any, Any]) -> None:
    failed = {result.name for result in check_method(Unread, backbones["clip-2"]) if not result.ok}
    assert failed == {"the parameter count equals the closed form", "every trainable parameter gets a gradient"}


@dataclasses.dataclass(frozen=True)
class Untidy(MMPT):
    """Leaves its work behind, and draws from the global generator."""

    def attach(self, backbone: Any, seed: int) -> Any:
        attachment = Attachment(backbone)
        attachment.open(backbone.anatomy.projector)
        with torch.no_grad():
            backbone.model.get_submodule(backbone.anatomy.lm_head).weight.add_(torch.rand(()))
        return attachment.handle(self)


def test_checks_catch_a_method_that_changes_the_base(backbones: dict[Any, Any]) -> None:
    failed = {result.name for result in check_method(Untidy, backbones["clip-2"]) if not result.ok}
    assert {"remove restores the base bit for bit", "the same seed gives the same start"} <= failed


@dataclasses.dataclass(frozen=True)
class Odd(VARIANTS["projector"]()):  # type: ignore[misc]
    """Adds a term that is not finite."""

    def objective(self, batch: Any, outputs: Any, context: Any) -> dict[str, Any]:
        return {"odd": outputs.logits.sum() * 0 + float("nan")}


@dataclasses.dataclass(frozen=True)
class Nothing(VARIANTS["projector"]()):  # type: ignore[misc]
    """Names a group of no parameter."""

    def groups(self, anatomy: Any) -> tuple[Group, ...]:
        return (Group("nothing."),)


def test_checks_catch_a_term_that_is_no_number_and_a_group_of_nothing(backbones: dict[Any, Any]) -> None:
    failed = [{r.name for r in check_method(of, backbones["clip-2"]) if not r.ok} for of in (Odd, Nothing)]
    groups = "groups with settings of their own hold trained parameters"
    assert "terms that it adds to the loss are finite and keep their names" in failed[0]
    assert groups not in failed[0]
    assert groups in failed[1]


def test_checks_leave_the_backbone_as_it_was(backbones: dict[Any, Any]) -> None:
    model = backbones["clip-2"].model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_method(Untidy, backbones["clip-2"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_colours_tell_methods_apart() -> None:
    colours = [method(name).color for name in METHODS] + [MMPT.color]
    assert len(set(colours)) == len(colours)


def test_every_method_has_the_projector_switch() -> None:
    assert all("train_projector" in {f.name for f in dataclasses.fields(method(name))} for name in METHODS)


def test_saved_lora_loads_in_peft_with_the_same_answers(backbones: dict[Any, Any], tmp_path: Path) -> None:
    backbone = backbones["clip-2"]
    base = copy.deepcopy(backbone.model)
    batch = backbone.batch(pictures(3), [backbone.prompt_text(q) for q in QUESTIONS], ANSWERS)
    with torch.no_grad(), attached(method("lora")(), backbone) as handle:
        for parameter in handle.trainable.values():
            parameter.add_(0.05)
        wanted = backbone.model(**batch).logits
        handle.save(tmp_path)
    with torch.no_grad():
        found = PeftModel.from_pretrained(base, str(tmp_path))(**batch).logits
    assert torch.allclose(found, wanted, atol=1e-5)


def test_saved_adapter_names_its_backbone_and_no_folder(backbones: dict[Any, Any], tmp_path: Path) -> None:
    with attached(MMPT(), backbones["clip-2"]) as handle:
        handle.save(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert config["base_model_name_or_path"] == "clip-2"
    assert config["visual_length"] == 20


def test_adapter_of_another_backbone_is_refused(backbones: dict[Any, Any], tmp_path: Path) -> None:
    with attached(method("projector")(), backbones["clip-1"]) as handle:
        handle.save(tmp_path)
    with pytest.raises(RequestError, match=r"clip-1.*clip-2"):
        read_adapter(tmp_path, backbones["clip-2"])


def test_damaged_adapter_is_refused(backbones: dict[Any, Any], tmp_path: Path) -> None:
    with attached(method("projector")(), backbones["clip-1"]) as handle:
        handle.save(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(UntrustedRecord):
        read_adapter(tmp_path)


def test_second_prompt_bank_is_refused_and_changes_nothing(backbones: dict[Any, Any]) -> None:
    backbone = backbones["clip-2"]
    with attached(MMPT(), backbone):
        flags = [p.requires_grad for p in backbone.model.parameters()]
        with pytest.raises(RequestError, match="already carries prompts"):
            method("vpt")().attach(backbone, 0)
        assert flags == [p.requires_grad for p in backbone.model.parameters()]


@pytest.mark.parametrize(
    "values",
    [
        {"visual_length": -1},
        {"visual_length": 0, "text_length": 0},
        {"visual_length": 0},
        {"visual_states": "raw"},
        {"interaction_place": "behind"},
        {"interaction_place": "front", "interaction": False},
        {"placement": "visual-first"},
    ],
)
def test_impossible_hyperparameters_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        MMPT(**values)


def test_text_prompts_start_alike_whatever_the_visual_length(backbones: dict[Any, Any]) -> None:
    states = []
    for length in (5, 20):
        with attached(MMPT(visual_length=length), backbones["clip-2"], seed=3) as handle:
            states.append(handle.state()["prompt_bank.mmpt_text"])
    assert torch.equal(*states)
