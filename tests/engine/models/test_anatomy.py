"""Parts are found where they are, and counts at 7 billion parameters agree with published ones to the last digit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageTextToText, LlavaConfig, LlavaForConditionalGeneration

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.models.anatomy import find_anatomy
from mmpt_bench.mmpt import MMPT
from support.methods import method
from support.paths import ROOT
from support.tiny import config, save_tiny


@pytest.fixture(scope="module")
def llava_7b() -> Any:
    """Vicuna-7B, CLIP ViT-L/14 at 224 pixels and the paper's linear projector, without memory for any weight."""
    settings = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
        },
        text_config={"model_type": "llama", "vocab_size": 32000},
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(settings)
        model.model.multi_modal_projector = nn.Linear(1024, 4096)
    return find_anatomy(model)


def test_llava_7b_has_the_published_size(llava_7b: Any) -> None:
    assert llava_7b.total_parameters == 7_045_793_792
    assert llava_7b.language_parameters == 6_738_415_616
    assert (llava_7b.vision_used, len(llava_7b.vision_layers)) == (23, 24)


def test_mmpt_counts_as_the_paper_says(llava_7b: Any) -> None:
    assert MMPT().paper_count(llava_7b) == 131_072 * 10 + 24_576 * 20 + 4_198_400 == 6_000_640
    assert f"{MMPT().paper_count(llava_7b) / llava_7b.total_parameters:.2%}" == "0.09%"
    assert MMPT(train_projector=False).paper_count(llava_7b) == 1_802_240


def test_mmpt_trains_no_prompts_that_are_never_read(llava_7b: Any) -> None:
    assert MMPT().count(llava_7b) == 6_000_640 - 20 * 1024


def test_lora_counts_as_published(llava_7b: Any) -> None:
    lora = method("lora")
    assert lora().count(llava_7b) == 44_175_360
    assert lora(r=1, train_projector=False).count(llava_7b) == 2_498_560
    assert lora(r=1).count(llava_7b) == 6_696_960


def test_projector_and_full_count_as_published(llava_7b: Any) -> None:
    assert method("projector")().count(llava_7b) == 4_198_400
    full = method("full")().count(llava_7b)
    assert full == 6_742_614_016
    assert f"{full / llava_7b.total_parameters:.1%}" == "95.7%"


def test_prefix_and_vpt_count_by_hand(llava_7b: Any) -> None:
    assert method("prefix")(train_projector=False).count(llava_7b) == 32 * 2 * 10 * 4096
    assert method("vpt")(train_projector=False).count(llava_7b) == 23 * 20 * 1024


@pytest.mark.parametrize(("layer", "used"), [(-1, 4), (-2, 3), (2, 2)])
def test_used_blocks_are_those_below_the_state_that_is_read(layer: int, used: int) -> None:
    assert find_anatomy(LlavaForConditionalGeneration(config(layer))).vision_used == used


@pytest.mark.parametrize("siglip", [False, True])
@pytest.mark.parametrize("layer", [-1, -2])
def test_exactly_the_used_vision_weights_reach_the_output(tmp_path: Path, layer: int, siglip: bool) -> None:
    model = AutoModelForImageTextToText.from_pretrained(save_tiny(tmp_path, layer, siglip))
    anatomy = find_anatomy(model)
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.cat(model.get_image_features(pixels).pooler_output).square().sum().backward()
    reached = {n for n, p in model.named_parameters() if n.startswith("model.vision_tower") and p.grad is not None}
    assert reached == set(anatomy.vision_used_names)


SHOWN = {
    "frozen": 0,
    "projector": 4_198_400,
    "mmpt": 6_000_640 - 20 * 1024,
    "vpt": 23 * 20 * 1024 + 4_198_400,
    "prefix": 32 * 2 * 10 * 4096 + 4_198_400,
    "lora": 44_175_360,
    "moe_lora": 32 * (16 * 3 * (4096 + 11008) + 4 * (4096 + 4096 + 11008)) + 4_198_400,
    "adapter": 64 * (2 * 64 * 4096 + 64 + 4096) + 4_198_400,
    "dynamic": 32 * 10 * 4096 + 23 * 20 * 1024 + 16 * (8192 + 1 + 32 * 4096 + 1024 + 1 + 23 * 1024) + 4_198_400,
    "full": 6_742_614_016,
}
"""By hand, from the widths: 131,072 a textual prompt, 24,576 a visual one in all blocks, a projector of 4,198,400."""


def test_configuration_of_the_papers_base_counts_as_published() -> None:
    from mmpt_bench.engine.models.loading import anatomy_of
    from mmpt_bench.methods.method_catalog import load_method, method_entries

    anatomy, total, patches = anatomy_of(str(ROOT / "examples" / "llava-7b-linear"))
    assert (total, patches) == (7_045_793_792, 256)
    assert {name: load_method(entry)().count(anatomy) for name, entry in method_entries().items()} == SHOWN
    assert f"{MMPT().paper_count(anatomy) / total:.4%}" == "0.0852%"
    assert f"{SHOWN['lora'] / total:.2%}" == "0.63%"


def test_show_prints_the_counts_without_weights() -> None:
    import json

    from click.testing import CliRunner

    from mmpt_bench.cli.main import cli

    folder = ROOT / "examples" / "llava-7b-linear"
    result = CliRunner().invoke(cli, ["show", "mmpt", "--backbone", str(folder), "--json"], catch_exceptions=False)
    shown = json.loads(result.stdout)
    assert shown["trainable_as_published"] == {"count": 6_000_640, "share": 6_000_640 / 7_045_793_792}
    assert shown["trainable"] == SHOWN["mmpt"]


def test_unknown_family_is_refused_by_name() -> None:
    model = LlavaForConditionalGeneration(config())
    model.config.model_type = "imaginary"
    with pytest.raises(RequestError, match="imaginary"):
        find_anatomy(model)


def test_several_feature_layers_need_a_projector_as_wide() -> None:
    model = LlavaForConditionalGeneration(config())
    model.config.vision_feature_layer = [-2, -1]
    with pytest.raises(RequestError, match="what it reads is 32 wide"):
        find_anatomy(model)


def test_projector_of_another_width_is_refused() -> None:
    model = LlavaForConditionalGeneration(config())
    model.model.multi_modal_projector = nn.Linear(17, 32)
    with pytest.raises(RequestError, match="17"):
        find_anatomy(model)


def test_missing_projector_is_refused() -> None:
    model = LlavaForConditionalGeneration(config())
    del model.model.multi_modal_projector
    with pytest.raises(RequestError, match="multi_modal_projector"):
        find_anatomy(model)
