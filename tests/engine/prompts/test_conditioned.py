"""Prompts that depend on the item: what they are made of, by hand; that no answer leaks; and what may be shared."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from mmpt_bench.common.errors import RequestError, RunFailed
from mmpt_bench.engine.adapters.trial import attached, logits_of
from mmpt_bench.engine.inference.shared import unfit
from mmpt_bench.engine.models.loading import anatomy_of
from mmpt_bench.engine.prompts.conditioned import before_frame, frame_behind
from mmpt_bench.engine.training.loss import Losses, Ready, in_order
from mmpt_bench.mmpt import MMPT
from support.methods import method
from support.paths import ROOT
from support.tiny import ANSWERS, QUESTIONS, pictures, tiny_backbone

torch.set_num_threads(1)
IMAGE = 4
STATIC = {"visual_length": 3, "text_length": 2}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_backbone(tmp_path_factory.mktemp("conditioned"))


def batch(backbone: Any, answers: list[str] | None = None) -> dict[str, Any]:
    made = backbone.batch(pictures(3), [backbone.prompt_text(question) for question in QUESTIONS], answers)
    made.pop("labels", None)
    return made


def told(handle: Any, seed: int = 3) -> None:
    """Gives the generator values that are not 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in handle.trainable.items():
        if name.endswith("_up"):
            parameter.detach().copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


@pytest.mark.parametrize("changes", [{}, {"each": True}, {"text_deep": False}, {"features": "image"}])
def test_generator_of_zeros_is_static_prompts_bit_for_bit(backbone: Any, changes: dict[str, Any]) -> None:
    deep = changes.get("text_deep", True)
    with attached(MMPT(**STATIC, interaction=False, text_deep=deep), backbone, seed=2):
        wanted = logits_of(backbone)
    with attached(method("dynamic")(**STATIC, **changes), backbone, seed=2) as handle:
        assert torch.equal(logits_of(backbone), wanted)
        told(handle)
        assert not torch.allclose(logits_of(backbone), wanted, atol=1e-3)


def test_textual_prompts_are_what_the_formula_makes_of_image_and_question(backbone: Any) -> None:
    inputs, found = batch(backbone), []
    adapter = method("dynamic")(visual_length=0, text_length=2, size=3)
    with attached(adapter, backbone, seed=1) as handle, torch.no_grad():
        told(handle)
        core = backbone.model.get_submodule(backbone.anatomy.core)
        embeds = core.get_input_embeddings()(inputs["input_ids"])
        features = torch.stack(list(core.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output))
        layer = backbone.model.get_submodule(backbone.anatomy.decoder_layers[1])
        hook = layer.register_forward_pre_hook(lambda module, args: found.append(args[0][:, :2]))
        backbone.model(**inputs)
        hook.remove()
        values = {name.partition(".")[2]: value for name, value in handle.trainable.items()}
    frame = [backbone.processor.tokenizer.convert_tokens_to_ids(word) for word in ("ASSISTANT", ":")]
    for i, ids in enumerate(inputs["input_ids"].tolist()):
        end = next(at for at in range(len(ids)) if ids[at : at + 2] == frame)
        asked = [at for at in range(end) if ids[at] not in (IMAGE, 0)]
        means = [features[i].mean(0), embeds[i, asked].mean(0)]
        read = torch.cat([(mean - mean.mean()) / (mean.var(unbiased=False) + 1e-5).sqrt() for mean in means])
        code = functional.relu(values["text_down"] @ read + values["text_down_bias"])
        wanted = values["mmpt_text"][1] + values["text_up"][1, 0] @ code
        assert torch.allclose(found[0][i], wanted, atol=1e-5)


def test_visual_prompts_look_at_the_patches_that_enter_their_block(backbone: Any) -> None:
    inputs, found = batch(backbone), []
    adapter = method("dynamic")(visual_length=2, text_length=0, size=3)
    with attached(adapter, backbone, seed=1) as handle, torch.no_grad():
        told(handle)
        block = backbone.model.get_submodule(backbone.anatomy.vision_layers[1])
        hook = block.register_forward_pre_hook(lambda module, args: found.append(args[0]))
        backbone.model(**inputs)
        hook.remove()
        values = {name.partition(".")[2]: value for name, value in handle.trainable.items()}
    mean = found[0][:, :-2].mean(1)
    read = functional.layer_norm(mean, mean.shape[-1:])
    code = functional.relu(read @ values["visual_down"].T + values["visual_down_bias"])
    shift = code @ values["visual_up"][1, 0].T
    assert torch.allclose(found[0][:, -2:], values["mmpt_visual"][1] + shift[:, None], atol=1e-5)


def test_no_answer_reaches_the_prompts(backbone: Any) -> None:
    """What is said before an answer does not depend on it, though it stands in the same sequence in training."""
    with attached(method("dynamic")(**STATIC, size=3), backbone) as handle, torch.no_grad():
        told(handle)
        n = [len(row.ids) for row in backbone.tokens([backbone.prompt_text(question) for question in QUESTIONS])]
        made = [backbone.model(**batch(backbone, answers)).logits for answers in (ANSWERS, ["no", "one", "red"])]
        alone = backbone.model(**batch(backbone)).logits
    for i, length in enumerate(n):
        assert torch.allclose(made[0][i, :length], made[1][i, :length], atol=1e-5)
        assert torch.allclose(made[0][i, length - 1], alone[i, -1], atol=1e-4)


def test_frame_is_what_stands_behind_every_question(backbone: Any) -> None:
    words = backbone.processor.tokenizer.convert_ids_to_tokens(frame_behind(backbone))
    assert words == ["ASSISTANT", ":"]


def test_question_ends_at_the_first_frame_behind_the_image() -> None:
    # 7 8 is the frame; it stands before the image too, and again after the answer.
    ids = torch.tensor([[1, 7, 8, 4, 4, 5, 7, 8, 9, 7, 8]])
    found = before_frame(ids, ids == 4, (7, 8))
    assert found.tolist() == [[True] * 6 + [False] * 5]
    with pytest.raises(ValueError, match="does not go on"):
        before_frame(torch.tensor([[1, 4, 5, 7, 9]]), torch.tensor([[0, 1, 0, 0, 0]]).bool(), (7, 8))


def test_questions_share_an_image_only_where_prompts_do_not_look_at_them(backbone: Any) -> None:
    for features, why in (("both", "depend on the question"), ("question", "depend on the question"), ("image", "")):
        with attached(method("dynamic")(**STATIC, features=features), backbone):
            assert why in unfit(backbone)
            assert bool(why) == bool(unfit(backbone))


def test_shuffled_features_are_another_items_in_training_alone(backbone: Any) -> None:
    means = torch.tensor([[1.0, 0], [0, 1], [2, 2]])
    codes = {}
    for condition in ("own", "shuffled"):
        adapter = method("dynamic")(**STATIC, condition=condition, features="image", size=3)
        with attached(adapter, backbone, seed=4):
            bank = backbone.model.prompt_bank
            assert not bank.training
            wide = torch.cat([means, torch.zeros(3, 30)], dim=1)
            codes[condition, "asked"] = bank.code("text", wide)
            bank.train()
            bank.items = 3
            codes[condition, "trained"] = bank.code("text", wide)
            # One alone has no other, and of five rows, as tiles are, nobody knows which are an item's.
            for items, rows in ((1, wide[:1]), (3, wide[[0, 0, 1, 1, 2]])) if condition == "shuffled" else ():
                bank.items = items
                with pytest.raises(RunFailed, match="another one's features"):
                    bank.code("text", rows)
    own = codes["own", "asked"]
    assert torch.equal(codes["shuffled", "asked"], own)
    assert torch.equal(codes["own", "trained"], own)
    assert torch.equal(codes["shuffled", "trained"], own[[2, 0, 1]])


def test_shuffled_features_are_of_an_example_drawn_next_whatever_its_length(backbone: Any) -> None:
    assert in_order(7, 3) == [[0, 1], [2, 3], [4, 5, 6]]
    rows = [SimpleNamespace(ids=[0] * n) for n in (9, 2, 8, 3)]
    for condition, groups in (("own", [[1, 3], [2, 0]]), ("shuffled", [[0, 1], [2, 3]])):
        with attached(method("dynamic")(**STATIC, condition=condition, size=3), backbone):
            losses = Losses(backbone, "none", 64)
            assert losses.cut(Ready(rows, []), 2) == groups  # type: ignore[arg-type]
            losses.close()


def test_static_control_has_as_many_parameters_to_half_a_prompt_a_set() -> None:
    anatomy, _, _ = anatomy_of(str(ROOT / "examples" / "llava-7b-linear"))
    dynamic = method("dynamic")()
    # A bottleneck of 16 of two means of 4,096, and of one of 1,024; a shift of each of 32 and 23 sets.
    generator = 16 * 8192 + 16 + 32 * 4096 * 16 + 16 * 1024 + 16 + 23 * 1024 * 16
    prompts = 32 * 10 * 4096 + 23 * 20 * 1024
    assert dynamic.count(anatomy) == prompts + generator + 4_198_400
    static = dataclasses.replace(dynamic, condition="static").count(anatomy)
    assert abs(static - dynamic.count(anatomy)) <= (32 * 4096 + 23 * 1024) / 2
    assert dataclasses.replace(dynamic, condition="shuffled").count(anatomy) == dynamic.count(anatomy)


@pytest.mark.parametrize(
    "changes",
    [
        {"text_length": 0, "features": "question"},
        {"text_length": 0, "text_deep": False},
        {"train_projector": False, "projector_rate": 0.1},
    ],
)
def test_what_has_no_effect_is_refused_by_its_name(changes: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=f"`{list(changes)[1]}` has no effect"):
        method("dynamic")(**changes)


def test_lengths_of_nothing_are_refused() -> None:
    with pytest.raises(RequestError, match="one is above 0"):
        method("dynamic")(visual_length=0, text_length=0)
