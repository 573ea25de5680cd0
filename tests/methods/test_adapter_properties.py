"""Whatever is done to an adapter's file: its logits are those of plain PEFT, or it is refused; the base stays."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.trial import attached, logits_of
from mmpt_bench.engine.models.backbone import load_backbone
from mmpt_bench.methods.method_catalog import method_of
from mmpt_bench.methods.trained_adapter import adapter_entry
from support.families import BUILDERS

torch.set_num_threads(1)
QUICK = ("LLaVA-1.5", "Qwen2-VL")
ALL = [name for name in BUILDERS if name != "SmolVLM"]
CONFIGS: dict[str, Callable[[], Any]] = {
    "lora": lambda: LoraConfig(r=2, target_modules=["q_proj", "v_proj"]),
    "dora and lm_head": lambda: LoraConfig(r=2, use_dora=True, target_modules=["up_proj"], modules_to_save=["lm_head"]),
    "pissa": lambda: LoraConfig(r=2, target_modules=["o_proj"], init_lora_weights="pissa"),
    "rslora": lambda: LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "up_proj"]),
    "dora": lambda: LoraConfig(r=2, use_dora=True, target_modules=["q_proj", "down_proj"]),
    "olora": lambda: LoraConfig(r=2, target_modules=["o_proj"], init_lora_weights="olora"),
    "embeddings": lambda: LoraConfig(r=2, target_modules=["embed_tokens", "v_proj"]),
    "biases": lambda: LoraConfig(r=2, target_modules=["k_proj"], bias="all"),
    "ia3": lambda: IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
}
PREFIX = "base_model.model."
Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Case:
    """A tiny model, its answers, and an adapter of it as PEFT saved it."""

    backbone: Any
    state: Tensors
    answers: torch.Tensor
    folder: Path
    tensors: Tensors
    wanted: torch.Tensor
    """PEFT's answers with the file as it was saved."""


@functools.cache
def place() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@functools.cache
def tiny(family: str) -> Any:
    return load_backbone(
        str(BUILDERS[family](Path(place().name) / family.replace(" ", "-"))), device="cpu", offline=True
    )


@functools.cache
def case(family: str, config: str) -> Case:
    backbone, folder = tiny(family), Path(place().name) / f"{family}-{config}".replace(" ", "-")
    torch.manual_seed(0)
    model = get_peft_model(copy.deepcopy(backbone.model), CONFIGS[config]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder)
    state = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    tensors = load_file(folder / "adapter_model.safetensors")
    return Case(backbone, state, logits_of(backbone), folder, tensors, peft_answers(backbone, folder))


def peft_answers(backbone: Any, folder: Path) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(copy.deepcopy(backbone.model), str(folder)).eval()
    return logits_of(dataclasses.replace(backbone, model=model))


def exchanged(tensors: Tensors, name: str, other: str) -> Tensors:
    """Returns tensors of which two have each other's names."""
    return {**tensors, name: tensors[other], other: tensors[name]}


def moved(tensors: Tensors, name: str, new: str) -> Tensors:
    """Returns tensors of which one has another name."""
    return {(new if key == name else key): value for key, value in tensors.items()}


CHANGES: dict[str, Callable[[Tensors, str, str], Tensors]] = {
    "exchange": exchanged,
    "drop": lambda t, name, _: {key: value for key, value in t.items() if key != name},
    "drop a layer": lambda t, name, _: {
        k: v for k, v in t.items() if k.rpartition(".lora")[0] != name.rpartition(".lora")[0]
    },
    "double": lambda t, name, _: {**t, name.replace(PREFIX, PREFIX + "model."): t[name]},
    "add": lambda t, name, _: {**t, f"{name}.more": torch.ones(2)},
    "lose the beginning": lambda t, name, _: moved(t, name, name.removeprefix(PREFIX)),
    "lose a model": lambda t, name, _: moved(t, name, name.replace(f"{PREFIX}model.", PREFIX)),
    "gain a model": lambda t, name, _: moved(t, name, name.replace(PREFIX, f"{PREFIX}model.")),
    "another layer": lambda t, name, _: moved(t, name, name.replace("layers.0.", "layers.9.")),
    "another kind": lambda t, name, _: moved(t, name, name.replace("lora_A", "lora_C").replace("ia3_l", "ia3_m")),
    "another adapter": lambda t, name, _: moved(t, name, name.replace(".weight", ".other.weight")),
    "named default": lambda t, name, _: moved(t, name, name.replace(".weight", ".default.weight")),
    "the base's": lambda t, name, _: moved(t, name, f"{name.rpartition('.lora')[0]}.base_layer.weight"),
    "cut": lambda t, name, _: {**t, name: t[name][..., :-1].contiguous()},
    "flat": lambda t, name, _: {**t, name: t[name].flatten()},
    "turn": lambda t, name, _: {**t, name: t[name].T.contiguous()},
    "lift": lambda t, name, _: {**t, name: t[name][None]},
    "lower": lambda t, name, _: {**t, name: t[name].half()},
    "none": lambda t, name, _: t,
}
ALL_NAMES: dict[str, Callable[[str], str]] = {
    "as they are": lambda name: name,
    "of a text model": lambda name: name.replace("model.language_model.", "model."),
    "of transformers 4.51": lambda name: name.replace(
        f"{PREFIX}model.language_model.", f"{PREFIX}language_model.model."
    ),
    "of the inner model": lambda name: name.replace(f"{PREFIX}model.", PREFIX),
    "without a beginning": lambda name: name.removeprefix(PREFIX),
}
FAITHFUL = {"none", "lower", "exchange"}
"""Changes after which an adapter is whole."""


def check(one: Case, changes: list[tuple[str, int, int]], naming: str) -> None:
    """Puts a changed file in, and holds what came of it to the claim."""
    tensors = dict(one.tensors)
    for change, first, second in changes:
        names = sorted(tensors)
        if names:
            tensors = CHANGES[change](tensors, names[first % len(names)], names[second % len(names)])
    kept = all(value.shape == one.tensors[name].shape for name, value in tensors.items() if name in one.tensors)
    tensors = {ALL_NAMES[naming](name): value for name, value in tensors.items()}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "adapter_config.json").write_bytes((one.folder / "adapter_config.json").read_bytes())
        own = {name: value.clone() for name, value in tensors.items()}
        save_file(own, Path(folder) / "adapter_model.safetensors", {"format": "pt"})
        found = None
        with contextlib.suppress(RequestError), attached(method_of(adapter_entry(folder, True), {}), one.backbone):
            found = logits_of(one.backbone)
        if found is None:
            is_faithful = {change for change, *_ in changes} <= FAITHFUL
            assert not (is_faithful and kept and naming in ("as they are", "without a beginning"))
        elif naming == "as they are":
            assert len(tensors) == len(one.tensors)
            assert torch.equal(found, peft_answers(one.backbone, Path(folder)))
        elif not changes:
            assert torch.equal(found, one.wanted)
    state = one.backbone.model.state_dict()
    assert list(state) == list(one.state)
    assert all(torch.equal(value, one.state[name]) for name, value in state.items())
    assert torch.equal(logits_of(one.backbone), one.answers)


CHANGED = st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 99), st.integers(0, 99)), max_size=3)
NAMING = st.sampled_from(["as they are", *ALL_NAMES])
PLAIN: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@settings(max_examples=25, derandomize=True, **PLAIN)
@given(family=st.sampled_from(QUICK), config=st.sampled_from(sorted(CONFIGS)), changes=CHANGED, naming=NAMING)
def test_adapter_answers_as_in_peft_or_is_refused(family: str, config: str, changes: Any, naming: str) -> None:
    check(case(family, config), changes, naming)


@pytest.mark.slow
@pytest.mark.parametrize("family", ALL)
@settings(max_examples=60, **PLAIN)
@given(config=st.sampled_from(sorted(CONFIGS)), changes=CHANGED, naming=NAMING)
def test_adapter_of_every_family_answers_as_in_peft_or_is_refused(
    family: str, config: str, changes: Any, naming: str
) -> None:
    check(case(family, config), changes, naming)


@pytest.mark.slow
@pytest.mark.parametrize("config", sorted(CONFIGS))
@pytest.mark.parametrize("family", ALL)
def test_adapter_as_peft_saved_it_has_the_logits_of_plain_peft(family: str, config: str) -> None:
    one = case(family, config)
    assert not torch.equal(one.wanted, one.answers)
    check(one, [], "as they are")
