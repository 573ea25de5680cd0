"""Methods of the installed PEFT run from their own configuration; trained adapters are evaluated as they are."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from peft import PeftModel, VeraConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file

from mmpt_bench.cli.main import cli
from mmpt_bench.common import entries
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.engine.adapters import injection
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.adapters.check_method import check_method
from mmpt_bench.engine.adapters.trial import attached
from mmpt_bench.methods import method_catalog
from mmpt_bench.methods.method_catalog import method_of
from mmpt_bench.methods.peft_any import REFUSED
from mmpt_bench.methods.trained_adapter import adapter_entry
from mmpt_bench.mmpt import MMPT, MMPTConfig
from mmpt_bench.records.store import Store
from support.methods import method
from support.tiny import ANSWERS, QUESTIONS, pictures, tiny_backbone

torch.set_num_threads(1)
RUN = sorted(str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING if kind.value not in REFUSED)
QUICK = ("OSF", "VERA", "IA3")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_backbone(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def fresh(tmp_path: Path) -> Any:
    """Returns a backbone that no other test has put anything into."""
    return tiny_backbone(tmp_path)


@pytest.fixture(scope="module")
def batch(backbone: Any) -> dict[str, Any]:
    return backbone.batch(pictures(3), [backbone.prompt_text(q) for q in QUESTIONS], ANSWERS)


def logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits


def stir(handle: Handle) -> None:
    """Moves every trained value, so that an adapter does something."""
    for parameter in handle.trainable.values():
        parameter.detach().add_(0.05)


def peft_entry(text: str) -> entries.Entry:
    (entry,) = method_catalog.find_methods(text)
    return entry


@pytest.mark.parametrize("kind", QUICK)
def test_method_of_peft_passes_every_check(backbone: Any, kind: str) -> None:
    made = method_catalog.load_method(peft_entry(f"peft:{kind}"))
    assert not [result for result in check_method(made, backbone) if not result.ok]


def test_saved_peft_baseline_loads_in_peft(backbone: Any, batch: Any, tmp_path: Path) -> None:
    base = copy.deepcopy(backbone.model)
    with attached(method_of(peft_entry("peft:VERA"), {}), backbone) as handle:
        stir(handle)
        wanted = logits(backbone.model, batch)
        handle.save(tmp_path)
    assert torch.allclose(logits(PeftModel.from_pretrained(base, str(tmp_path)), batch), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "LILY", "MMPT"])
def test_method_that_does_not_fit_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(RequestError, match=r"is not run here: .{20}"):
        method_catalog.load_method(peft_entry(f"peft:{kind}"))


def test_poly_of_one_task_answers_as_in_peft_with_that_task(backbone: Any, batch: Any, tmp_path: Path) -> None:
    base = copy.deepcopy(backbone.model)
    with attached(method_of(peft_entry("peft:POLY"), {"r": "2", "n_skills": "3"}), backbone) as handle:
        stir(handle)
        wanted = logits(backbone.model, batch)
        handle.save(tmp_path)
    loaded = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    tasks = torch.zeros(len(batch["input_ids"]), dtype=torch.long)
    assert torch.allclose(logits(loaded.base_model, {**batch, "task_ids": tasks}), wanted, atol=1e-5)
    with pytest.raises(RequestError, match="`n_tasks` of POLY is 1 here"):
        method_of(peft_entry("peft:POLY"), {"n_tasks": "2"})


def test_unknown_method_of_peft_is_refused_with_a_guess() -> None:
    with pytest.raises(RequestError, match="VERA"):
        method_catalog.load_method(peft_entry("peft:VERAA"))


def test_configuration_file_is_a_method(tmp_path: Path) -> None:
    VeraConfig(r=3, target_modules=["q_proj"]).save_pretrained(tmp_path)
    entry = peft_entry(str(tmp_path / "adapter_config.json"))
    assert entry.name == "peft-vera"
    assert method_of(entry, {}).peft_config().r == 3


def test_fields_of_peft_are_set_by_name() -> None:
    entry = peft_entry("peft:VERA")
    assert method_of(entry, {"r": "5", "learning_rate": "0.01"}).peft_config().r == 5
    with pytest.raises(RequestError, match="field"):
        method_of(entry, {"rr": "5"})


def test_recipe_name_and_parameters_make_the_same_method() -> None:
    made = method_of(peft_entry("peft:VERA"), {"r": "5"})
    again = method_of(peft_entry(made.name), {"config": made.config})
    assert again.peft_config().r == 5


def test_count_without_weights_is_what_is_trained(backbone: Any) -> None:
    made = method_of(peft_entry("peft:LOHA"), {"r": "2"})
    with attached(made, backbone) as handle:
        assert made.count(backbone.anatomy) == handle.size


def test_what_is_refused_after_injection_leaves_nothing_behind(
    backbone: Any, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UntrustedRecord("the base changed")

    wanted, modules = logits(backbone.model, batch), [name for name, _ in backbone.model.named_modules()]
    monkeypatch.setattr(injection, "_check_reached", refuse)
    with pytest.raises(UntrustedRecord):
        method_of(peft_entry("peft:VERA"), {}).attach(backbone, 0)
    assert [name for name, _ in backbone.model.named_modules()] == modules
    assert torch.equal(logits(backbone.model, batch), wanted)


def test_changing_the_base_is_refused_before_it_is_changed(backbone: Any, batch: Any) -> None:
    wanted = logits(backbone.model, batch)
    with pytest.raises(RequestError, match="changes the base"):
        method_of(peft_entry("peft:LORA"), {"init_lora_weights": "pissa"}).attach(backbone, 0)
    assert torch.equal(logits(backbone.model, batch), wanted)


def test_all_linear_is_refused(backbone: Any) -> None:
    with pytest.raises(RequestError, match="vision tower"):
        method_of(peft_entry("peft:LORA"), {"target_modules": "all-linear"}).attach(backbone, 0)


def test_target_that_is_never_read_is_refused(backbone: Any) -> None:
    with pytest.raises(RequestError, match="never reaches the loss"):
        method_of(peft_entry("peft:LORA"), {"target_modules": '["q_proj"]'}).attach(backbone, 0)


def evaluated(backbone: Any, folder: Path, batch: Any) -> tuple[torch.Tensor, int]:
    """Returns (logits, size) of a trained adapter on a backbone, which is left as it was."""
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    with attached(method_of(adapter_entry(str(folder), True), {}), backbone) as handle:
        assert not handle.trainable
        assert not any(p.requires_grad for p in backbone.model.parameters())
        found, size = logits(backbone.model, batch), handle.size
    assert all(torch.equal(value, before[name]) for name, value in backbone.model.state_dict().items())
    return found, size


@pytest.mark.parametrize("name", ["mmpt", "projector", "lora"])
def test_own_adapter_is_evaluated_from_its_folder(backbone: Any, batch: Any, tmp_path: Path, name: str) -> None:
    made = MMPT if name == "mmpt" else method(name)
    with attached(made(), backbone) as handle:
        stir(handle)
        wanted, size = logits(backbone.model, batch), handle.size
        handle.save(tmp_path)
    found, given = evaluated(backbone, tmp_path, batch)
    assert torch.equal(found, wanted)
    assert given == size


@pytest.mark.parametrize("config", [VeraConfig(r=4, target_modules=r".*language_model.*q_proj"), MMPTConfig()])
def test_adapter_that_peft_saved_is_evaluated(backbone: Any, batch: Any, tmp_path: Path, config: Any) -> None:
    model = get_peft_model(copy.deepcopy(backbone.model), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    wanted = logits(model, batch)
    model.save_pretrained(tmp_path)
    found, _ = evaluated(backbone, tmp_path, batch)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_adapter_of_another_shape_is_refused(backbone: Any, tmp_path: Path) -> None:
    get_peft_model(copy.deepcopy(backbone.model), MMPTConfig()).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: value[..., :-1].contiguous() for name, value in tensors.items()}, file, {"format": "pt"})
    with pytest.raises(RequestError, match="does not fit"):
        method_of(adapter_entry(str(tmp_path), True), {}).attach(backbone, 0)


def test_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(RequestError, match="Pickled"):
        adapter_entry(str(tmp_path), True)


def test_model_card_says_how_to_load(backbone: Any, tmp_path: Path) -> None:
    with attached(MMPT(), backbone) as handle:
        handle.save(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: peft\n")
    assert "import mmpt_bench.peft" in card
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "MMPT"


def test_command_line_trains_a_method_of_peft_and_evaluates_its_adapter(tmp_path: Path) -> None:
    common = ["--tasks", "mnist", "--limit", "3", "--out", str(tmp_path), "--json"]
    train = [
        "run",
        "--no-base",
        "--method",
        "peft:VERA",
        "--set",
        "peft-vera.r=4",
        "--steps",
        "2",
        "--batch-size",
        "2",
        *common,
    ]
    assert CliRunner().invoke(cli, train, catch_exceptions=False).exit_code == 0
    (folder,) = tmp_path.glob("runs/*/adapter")
    result = CliRunner().invoke(cli, ["run", "--adapter", str(folder), *common], catch_exceptions=False)
    assert result.exit_code == 0
    second, first = sorted(Store(tmp_path).records(), key=lambda record: record.method)
    assert (first.method, second.method.split("-peft")[0]) == ("peft-vera", "adapter")
    assert (first.ranked_choices, first.trainable) == (second.ranked_choices, second.trainable)
    assert second.train_seconds == 0


def test_adapter_and_method_do_not_go_together(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["run", "--adapter", str(tmp_path), "--method", "lora"])
    assert isinstance(result.exception, RequestError)
    assert "--method" in str(result.exception)


def test_what_is_put_into_a_model_for_evaluation_is_in_evaluation_too(fresh: Any) -> None:
    made = method_catalog.load_method(peft_entry("peft:LORA"))(config='{"lora_dropout": 0.5}')
    assert not fresh.model.training
    with attached(made, fresh):
        assert not [name for name, module in fresh.model.named_modules() if module.training]


UNCOUNTED = {"ADAMSS", "BOFT", "FROD", "LN_TUNING", "UNILORA"}
"""What runs, and cannot be counted without weights: PEFT builds it from values, or not on linear maps."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUN)
def test_every_other_method_of_peft_passes_every_check_or_says_why(fresh: Any, kind: str) -> None:
    made = method_catalog.load_method(peft_entry(f"peft:{kind}"))
    try:
        made().attach(fresh, 0).remove()
    except RequestError as error:
        pytest.skip(str(error))
    failed = [result for result in check_method(made, fresh) if not result.ok]
    assert not [result for result in failed if "cannot be counted on its own" not in result.detail]
    assert bool(failed) == (kind in UNCOUNTED)
