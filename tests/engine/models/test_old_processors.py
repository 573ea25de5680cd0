"""Processors as older transformers saved them: what they left to the model is taken from it, and said once."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt_bench.common.errors import MachineError, RequestError, UntrustedRecord
from mmpt_bench.engine.models.backbone import check_processor, load_backbone
from mmpt_bench.engine.models.loading import read_processor
from support import families
from support.tiny import pictures, save_tiny

LACKING = [
    ("patch_size",),
    ("num_additional_image_tokens",),
    ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"),
]


def without(folder: Path, *names: str) -> Path:
    path = folder / "processor_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in names}))
    return folder


@pytest.mark.parametrize("siglip", [False, True], ids=["CLIP", "SigLIP"])
@pytest.mark.parametrize("names", LACKING, ids=len)
def test_an_old_processor_answers_as_the_new_one(
    tmp_path: Path, names: tuple[str, ...], siglip: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_tiny(tmp_path / f"tiny{siglip}{len(names)}", siglip=siglip)

    def logits() -> Any:
        backbone = load_backbone(str(folder), device="cpu", offline=True)
        batch = backbone.batch(pictures(1), [backbone.prompt_text("how many ?")])
        with torch.no_grad():
            return backbone.model(**batch).logits

    wanted = logits()
    without(folder, *names)
    with caplog.at_level(logging.WARNING):
        found = logits()
        read_processor(folder, "llava")
    assert torch.equal(found, wanted)
    told = [record.getMessage() for record in caplog.records if "older transformers" in record.getMessage()]
    assert len(told) == 1
    assert all(f"`{name}`" in told[0] for name in names)


def test_a_pointer_in_place_of_a_backbones_file_is_named(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
        with pytest.raises(RequestError, match=rf"{name}` is a pointer of git-LFS.*`git lfs pull`"):
            load_backbone(str(folder), device="cpu", offline=True)
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("file", "changed"),
    [("processor_config.json", {"patch_size": 7}),
     ("processor_config.json", {"vision_feature_select_strategy": "full"}),
     ("config.json", {"image_token_index": 9999, "image_token_id": 9999})],
)  # fmt: skip
def test_a_processor_that_makes_other_tokens_than_the_model_is_refused_when_loaded(
    tmp_path: Path, file: str, changed: dict[str, Any]
) -> None:
    folder = save_tiny(tmp_path / "tiny")
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(RequestError, match=r"does not go with its model: .* tokens: \d+, features: \d+"):
        load_backbone(str(folder), device="cpu", offline=True)


@pytest.mark.parametrize("family", ["PaliGemma", "Qwen2-VL", "LLaVA-1.5"])
def test_a_processor_with_images_or_patches_of_another_size_is_refused_in_a_sentence(
    tmp_path: Path, family: str
) -> None:
    """Models raise for it "The size of tensor a (64) must match" (RuntimeError), "Input image size" and others."""
    folder = families.BUILDERS[family](tmp_path / "tiny")
    for path in (folder / "preprocessor_config.json", folder / "processor_config.json"):
        if path.is_file():
            text = re.sub(r'"(height|width|shortest_edge|patch_size)": (\d+)', _doubled, path.read_text())
            path.write_text(text)
    with pytest.raises(RequestError, match=r"does not go with its model: [^.]+\. Its size, patch_size") as raised:
        load_backbone(str(folder), device="cpu", offline=True)
    assert "\n" not in str(raised.value)


def test_memory_that_runs_out_is_no_fault_of_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    loaded = load_backbone(str(save_tiny(tmp_path / "tiny")), device="cpu", offline=True)
    monkeypatch.setattr(type(loaded.model), "forward", out_of_memory)
    with pytest.raises(MachineError, match="out of memory while its processor was tried"):
        check_processor(loaded)


def _doubled(found: re.Match[str]) -> str:
    return f'"{found[1]}": {int(found[2]) * 2}'


def test_weights_of_other_shapes_than_the_configuration_says_are_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vision_feature_layer": [-1, -2]}))
    with pytest.raises(UntrustedRecord, match="have other shapes than its config"):
        load_backbone(str(folder), device="cpu", offline=True)


@pytest.mark.parametrize("template", ["{{ ''.__class__.__mro__ }}", "{% if %}", "{{ raise_exception('no images') }}"])
def test_a_template_that_does_not_run_is_one_sentence(tmp_path: Path, template: str) -> None:
    folder = save_tiny(tmp_path / "tiny")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(RequestError, match=r"chat template \(chat_template.jinja\) does not run: "):
        load_backbone(str(folder), device="cpu", offline=True).prompt_text("how many ?")
