"""Half precision trains every method as float32 does: the same values move, to the same loss, with float32 moments."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.examples import Corpus
from mmpt_bench.engine.adapters.saved import read_adapter
from mmpt_bench.engine.adapters.trial import attached, logits_of
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.training.masters import Masters
from mmpt_bench.engine.training.train import Trained, TrainingConfig, train
from mmpt_bench.methods import method_catalog
from mmpt_bench.methods.peft_any import REFUSED
from mmpt_bench.mmpt import MMPT
from mmpt_bench.records import keys
from mmpt_bench.records.budget import Budget
from mmpt_bench.sources.corpora import load_corpus
from support.methods import VARIANTS
from support.tiny import save_tiny

torch.set_num_threads(1)
STEPS = 10
LOOSE = {"peft:DELORA": 0.1}
"""It divides by norms of its matrices, which are small at first, and so enlarges what rounding does."""
QUICK = ("mmpt", "projector", "lora", "full", "peft:IA3")
OF_PEFT = [f"peft:{kind.value}" for kind in PEFT_TYPE_TO_CONFIG_MAPPING if kind.value not in REFUSED]
ALL = sorted({*VARIANTS, *OF_PEFT, "dora"} - {"frozen", *QUICK})
CASES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in ALL)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def backbones(folder: Path) -> Any:
    return functools.cache(lambda dtype: load_backbone(str(folder), dtype, "cpu", offline=True))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus("embedded")


def made(name: str) -> Any:
    """Returns a method with its own hyperparameters: of baselines/, of a variant of it, or of PEFT."""
    if name in VARIANTS:
        return VARIANTS[name]()()
    named, overrides = ("peft:LORA", {"use_dora": "true", "r": "4"}) if name == "dora" else (name, {})
    (entry,) = method_catalog.find_methods(named)
    return method_catalog.method_of(entry, overrides)


def trained(backbone: Backbone, method: Any, corpus: Corpus) -> tuple[float, float, dict[str, Any], Trained]:
    """Returns (share of values that moved, mean loss of the last half of the steps, state, what it cost)."""
    with attached(method, backbone, seed=1) as handle:
        before, losses = handle.state(), []
        budget = Budget(steps=STEPS, batch_size=2, schedule="constant")
        done = train(
            backbone, handle, corpus, TrainingConfig(budget, method.learning_rate, 0), None, lambda s: losses.append(s)
        )
        after = handle.state()
    moved = sum(int((after[name] != before[name].float()).sum()) for name in after)
    return (
        moved / sum(value.numel() for value in after.values()),
        sum(s.loss for s in losses[STEPS // 2 :]) / (STEPS // 2),
        after,
        done,
    )


@pytest.mark.parametrize("name", CASES)
def test_half_precision_moves_what_float32_moves_to_the_loss_of_float32(
    name: str, backbones: Any, corpus: Corpus
) -> None:
    try:
        whole, half = (trained(backbones(dtype), made(name), corpus) for dtype in ("float32", "bfloat16"))
    except RequestError as error:
        pytest.skip(f"its defaults are for larger models: {error}")
    assert half[0] == pytest.approx(whole[0], abs=0.02)
    assert half[1] == pytest.approx(whole[1], rel=LOOSE.get(name, 0.03))
    assert {value.dtype for value in half[2].values()} == {torch.float32}
    assert half[3].optimizer_state == whole[3].optimizer_state == "float32"


def test_full_fine_tuning_at_its_low_rate_moves_the_values_that_rounding_would_hold(
    backbones: Any, corpus: Corpus
) -> None:
    # Near 1, bfloat16 has steps of .0078: without masters, a step of 2e-5 would move next to nothing.
    full = dataclasses.replace(made("full"), learning_rate=2e-5)
    whole, half = (trained(backbones(dtype), full, corpus)[0] for dtype in ("float32", "bfloat16"))
    assert half >= 0.95 * whole  # values without a gradient move in neither


def test_a_step_below_the_rounding_of_bfloat16_is_kept_and_adds_up() -> None:
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    handle: Any = type("Handle", (), {"trainable": {"w": weight}, "masters": {}})()
    masters = Masters(handle)
    for _ in range(8):
        with torch.no_grad():
            masters.by_name["w"].add_(0.001)
        masters.write()
    assert handle.masters["w"].tolist() == pytest.approx([1.008] * 4)
    # Between 1 and 2, bfloat16 has steps of 1/128: 1.008 is nearest to 1.0078125, which eight steps alone never reach.
    assert weight.tolist() == [1.0078125] * 4
    (weight * 3).sum().backward()
    (weight * 0.01).sum().backward()
    assert weight.grad is None
    assert masters.by_name["w"].grad.tolist() == pytest.approx([3.01] * 4, rel=1e-3)  # 3.01 is not in bfloat16.


@pytest.mark.parametrize("name", ["mmpt", "lora", "full", "peft:IA3"])
def test_a_saved_adapter_is_float32_and_answers_as_the_trained_one(
    name: str, backbones: Any, corpus: Corpus, tmp_path: Path
) -> None:
    backbone, method = backbones("bfloat16"), made(name)
    base = logits_of(backbone)
    with attached(method, backbone) as handle:
        train(backbone, handle, corpus, TrainingConfig(Budget(steps=3, batch_size=2), 1e-2, 0))
        handle.save(tmp_path)
        trained_logits = logits_of(backbone)
        handle.let_go()
        assert torch.equal(trained_logits, logits_of(backbone))
    saved = read_adapter(tmp_path, backbone)
    assert {value.dtype for value in saved.values()} == {torch.float32}
    with attached(method, backbone) as handle:
        handle.load(saved)
        assert torch.equal(trained_logits, logits_of(backbone))
    assert torch.equal(base, logits_of(backbone))
    assert not torch.equal(base, trained_logits)


def test_half_precision_has_keys_of_its_own_and_float32_keeps_its_keys() -> None:
    assert keys.precision("float32") == "float32"
    assert keys.precision("bfloat16") == "bfloat16-mixed"
    assert [keys.option(one) for one in ("float32", "bfloat16", "bfloat16-mixed", "float16-mixed")] == [
        "float32",
        "bfloat16",
        "bfloat16",
        "float16",
    ]
    old, new = (keys.setting_key("b", "c", {}, dtype, "real", {}) for dtype in ("bfloat16", keys.precision("bfloat16")))
    assert old != new


def test_prompts_of_mmpt_are_trained_in_float32(backbones: Any) -> None:
    with attached(MMPT(), backbones("bfloat16")) as handle:
        kinds = {name.startswith("prompt_bank."): value.dtype for name, value in handle.trainable.items()}
        assert kinds == {True: torch.float32, False: torch.bfloat16}
        assert {value.dtype for value in Masters(handle).by_name.values()} == {torch.float32}
