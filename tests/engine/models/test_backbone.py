"""A backbone's tensors are those of its processor; damaged or incomplete files never become a model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmpt_bench.common.errors import MachineError, RequestError, UntrustedRecord
from mmpt_bench.engine.models.backbone import IGNORED, load_backbone
from mmpt_bench.sources.weights import backbone_fingerprint, write_checksums
from support.paths import ROOT
from support.tiny import ANSWERS, QUESTIONS, pictures, save_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Any:
    return load_backbone(str(folder), device="cpu", offline=True)


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """Returns a copy of the folder that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


def head_name(tensors: dict[str, torch.Tensor]) -> str:
    """Returns the name under which this version of transformers saves the lm_head."""
    return next(name for name in tensors if name.endswith("lm_head.weight"))


def test_prompts_become_what_the_processor_makes_of_them(backbone: Any) -> None:
    prompts = [backbone.prompt_text(q) for q in QUESTIONS]
    wanted = backbone.processor(
        text=prompts, images=pictures(3), return_tensors="pt", padding=True, padding_side="left"
    )
    found = backbone.batch(pictures(3), prompts)
    assert all(torch.equal(found[key], wanted[key]) for key in ("input_ids", "attention_mask", "pixel_values"))


def test_labels_are_the_answer_and_the_end_alone(backbone: Any) -> None:
    batch = backbone.batch(pictures(3), [backbone.prompt_text(q) for q in QUESTIONS], ANSWERS)
    kept = [row[row != IGNORED] for row in batch["labels"]]
    assert [backbone.processor.tokenizer.decode(row) for row in kept] == ["yes </s>", "two </s>", "blue . </s>"]
    known = batch["labels"] != IGNORED
    assert torch.equal(batch["labels"][known], batch["input_ids"][known])


def test_training_prompt_is_the_generation_prompt(backbone: Any) -> None:
    prompts = [backbone.prompt_text(QUESTIONS[0])]
    (asked,), (taught,) = backbone.tokens(prompts), backbone.tokens(prompts, ["yes"])
    assert taught.ids[: len(asked.ids)] == asked.ids


def test_example_that_is_too_long_is_refused_not_cut(backbone: Any) -> None:
    prompts = [backbone.prompt_text(q) for q in QUESTIONS]
    rows = backbone.tokens(prompts, ANSWERS)
    length = max(len(row.ids) for row in rows)
    assert backbone.tokens(prompts, ANSWERS, max_length=length) == rows
    with pytest.raises(RequestError, match=f"has {length} tokens and {length - 1} are allowed"):
        backbone.tokens(prompts, ANSWERS, max_length=length - 1)


def test_empty_answer_is_refused(backbone: Any) -> None:
    with pytest.raises(ValueError, match="no boundary"):
        backbone.tokens([backbone.prompt_text("how many ?")], [""])


def test_question_with_an_image_token_is_refused(backbone: Any) -> None:
    with pytest.raises(RequestError, match="not 2"):
        backbone.prompt_text("is <image> red ?")


def test_half_precision_on_disk_runs_in_single(own: Path) -> None:
    weights = own / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    loaded = load_backbone(str(own), device="cpu", offline=True)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}


def test_truncated_weights_are_refused(own: Path) -> None:
    weights = own / "model.safetensors"
    for size in (weights.stat().st_size - 1, 500, 3):
        weights.write_bytes(weights.read_bytes()[:size])
        with pytest.raises(UntrustedRecord, match="cut short"):
            load_backbone(str(own), device="cpu")


def test_flipped_bit_is_refused(own: Path) -> None:
    write_checksums(own)
    weights = own / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(UntrustedRecord, match="SHA-256"):
        load_backbone(str(own), device="cpu")


@pytest.mark.parametrize("text", ["[]", "3", "{", "null"])
def test_checksums_that_are_no_json_object_are_refused(own: Path, text: str) -> None:
    (own / "checksums.json").write_text(text)
    with pytest.raises(UntrustedRecord, match=r"checksums.json` is no JSON"):
        load_backbone(str(own), device="cpu")


def test_damaged_header_is_refused(own: Path) -> None:
    weights = own / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[8] = 0xFF
    weights.write_bytes(bytes(data))
    with pytest.raises(UntrustedRecord, match="no readable header"):
        load_backbone(str(own), device="cpu")


def test_weights_that_are_not_finite_are_refused(own: Path) -> None:
    tensors = load_file(own / "model.safetensors")
    name = head_name(tensors)
    tensors[name] = tensors[name].clone().fill_(float("nan"))
    save_file(tensors, own / "model.safetensors", {"format": "pt"})
    with pytest.raises(UntrustedRecord, match="not finite"):
        load_backbone(str(own), device="cpu")


def test_missing_tensor_is_refused_and_never_drawn_at_random(own: Path) -> None:
    tensors = load_file(own / "model.safetensors")
    tensors.pop(head_name(tensors))
    save_file(tensors, own / "model.safetensors", {"format": "pt"})
    with pytest.raises(UntrustedRecord, match="lm_head"):
        load_backbone(str(own), device="cpu")


@pytest.mark.parametrize("name", ["no/such/folder", "/nowhere", "./nowhere", "one\0two", "../../x"])
def test_missing_folder_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="no backbone folder"):
        load_backbone(name, offline=True)


def test_hub_model_that_is_not_cached_is_not_fetched_offline() -> None:
    with pytest.raises(MachineError, match="--offline"):
        load_backbone("nobody/has-this-model", offline=True)


def test_pickled_weights_are_refused(own: Path) -> None:
    (own / "model.safetensors").rename(own / "pytorch_model.bin")
    with pytest.raises(RequestError, match="other formats are not loaded"):
        load_backbone(str(own))


def test_code_beside_a_model_is_refused_or_never_run(own: Path, tmp_path: Path) -> None:
    ran, config = tmp_path / "ran", json.loads((own / "config.json").read_text())
    code = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
    (own / "own.py").write_text(code + "from transformers import LlavaConfig as Own\nModel = Own\n")
    auto = {"AutoConfig": "own.Own", "AutoModelForImageTextToText": "own.Model", "AutoProcessor": "own.Own"}
    (own / "config.json").write_text(json.dumps(config | {"auto_map": auto}))
    assert load_backbone(str(own), device="cpu", offline=True).anatomy.family == "llava"
    (own / "config.json").write_text(json.dumps(config | {"auto_map": auto, "model_type": "own"}))
    with pytest.raises(RequestError, match="no readable configuration"):
        load_backbone(str(own), device="cpu", offline=True)
    assert not ran.exists()


@pytest.mark.parametrize("device", ["banana", "meta", "xpu:9"])
def test_a_device_that_is_not_there_is_one_sentence(folder: Path, device: str) -> None:
    with pytest.raises(MachineError, match=f"no device `{device}` here"):
        load_backbone(str(folder), device=device, offline=True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "the system had none left"),
        (RuntimeError("can't allocate memory: you tried to allocate 5 bytes."), "5 bytes could not be had"),
    ],
)
def test_memory_that_runs_out_while_a_backbone_loads_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def read(*_: Any) -> None:
        raise error

    monkeypatch.setattr("mmpt_bench.engine.models.loading.read_model", read)
    with pytest.raises(MachineError, match=f"out of memory while the backbone .* was loaded: {said}"):
        load_backbone(str(folder), device="cpu", offline=True)


def test_folder_of_another_kind_of_model_is_refused(own: Path) -> None:
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(RequestError, match="image-text"):
        load_backbone(str(own), device="cpu")


def test_unknown_dtype_is_refused_with_a_guess(folder: Path) -> None:
    with pytest.raises(RequestError, match="bfloat16"):
        load_backbone(str(folder), dtype="bfloat")


def test_fingerprint_moves_with_every_file_that_matters(own: Path, backbone: Any) -> None:
    seen = {backbone_fingerprint(str(own))}
    assert seen == {backbone.fingerprint}
    write_checksums(own)
    (own / "notes.md").write_text("nothing that the model reads")
    assert backbone_fingerprint(str(own)) in seen
    for path in (own / "chat_template.jinja", own / "config.json", own / "tokenizer.json"):
        path.write_bytes(path.read_bytes() + b"\n")
        seen.add(backbone_fingerprint(str(own)))
    assert len(seen) == 4


def test_fingerprint_needs_no_torch(folder: Path) -> None:
    program = (
        "import sys; from mmpt_bench.sources.weights import backbone_fingerprint as f; "
        f"print(f({str(folder)!r})); assert not {{'torch', 'transformers'}} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
