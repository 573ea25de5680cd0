"""The prompt engine against the paper's loops written out by hand, and under everything that once broke it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from mmpt_bench.engine.prompts.hooks import attach_prompts
from mmpt_bench.engine.prompts.plan import PromptPlan
from support.tiny import ANSWERS, QUESTIONS, pictures, tiny_backbone

torch.set_num_threads(1)
PLANS = {
    "mmpt": PromptPlan(visual=3, text=2, interaction="output"),
    "front": PromptPlan(visual=3, text=2, interaction="output", interaction_place="front"),
    "visual first": PromptPlan(visual=3, text=2, interaction="output", interaction_place="front", text_first=False),
    "released": PromptPlan(visual=3, text=2, interaction="parameters"),
    "parameters in front": PromptPlan(visual=3, text=2, interaction="parameters", interaction_place="front"),
    "shallow": PromptPlan(visual=3, visual_deep=False, text=2, text_deep=False, interaction="output"),
    "vpt": PromptPlan(visual=3),
    "vpt-shallow": PromptPlan(visual=3, visual_deep=False),
    "text": PromptPlan(text=2),
    "prefix": PromptPlan(keys=2),
}


@pytest.fixture(scope="module", params=[-1, -2])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_backbone(tmp_path_factory.mktemp("tiny"), request.param)


@contextmanager
def attached(backbone: Any, plan: PromptPlan, seed: int = 0) -> Iterator[Any]:
    """Yields the prompts of a plan, and takes them off."""
    attachment = attach_prompts(backbone, plan, seed)
    try:
        yield backbone.model.prompt_bank
    finally:
        attachment.remove()


@pytest.fixture(params=PLANS)
def prompted(request: pytest.FixtureRequest, backbone: Any) -> Iterator[Any]:
    """Yields a backbone with strong prompts of one plan."""
    if request.param == "released" and backbone.model.config.vision_feature_layer == -1:
        pytest.skip("refused: no block's output is discarded")
    with attached(backbone, PLANS[request.param]) as bank:
        for parameter in bank.parameters():
            parameter.detach().mul_(3)
        yield backbone


def examples(backbone: Any) -> dict[str, Tensor]:
    return backbone.batch(pictures(3), [backbone.prompt_text(q) for q in QUESTIONS], ANSWERS)


def by_hand(backbone: Any, batch: dict[str, Tensor]) -> Tensor:
    """Returns the logits of the caller's tokens for one example, every block and layer called in a plain loop."""
    bank, core = backbone.model.prompt_bank, backbone.model.model
    plan, tower, text = bank.plan, core.vision_tower, core.language_model
    hidden = tower.pre_layrnorm(tower.embeddings(batch["pixel_values"]))
    patches = hidden.shape[1]
    for i, block in enumerate(tower.encoder.layers[: backbone.anatomy.vision_used]):
        if plan.visual and (plan.visual_deep or i == 0):
            hidden = torch.cat([hidden[:, :patches], bank.mmpt_visual[i][None]], dim=1)
        hidden = block(hidden, None)
    states = hidden[:, patches:]
    if plan.interaction == "parameters":
        raw = bank.mmpt_visual[-1][None]
        states = torch.cat([raw[:, 1:] if plan.interaction_place == "image" else raw, hidden[:, :1]], dim=1)
    picture = core.multi_modal_projector(hidden[:, 1:patches])
    embeds = text.embed_tokens(batch["input_ids"])
    is_image = batch["input_ids"] == backbone.model.config.image_token_id
    embeds[is_image] = picture[0]
    entering = [core.multi_modal_projector(states)] if plan.interaction != "none" else []
    front = entering if plan.interaction_place == "front" else []
    inside = entering[0].shape[1] if entering and not front else 0
    place = int(is_image[0].int().argmax())
    if inside:
        embeds = torch.cat([embeds[:, :place], entering[0], embeds[:, place:]], dim=1)
    length = plan.text + plan.keys + (front[0].shape[1] if front else 0)
    ahead = [torch.zeros(1, plan.text + plan.keys, embeds.shape[-1]), *front]
    first = 0 if plan.text_first else front[0].shape[1]
    hidden = torch.cat([*(ahead if plan.text_first else ahead[::-1]), embeds], dim=1)
    positions = torch.arange(hidden.shape[1])[None]
    rotary = text.rotary_emb(hidden, positions)
    mask = torch.full((hidden.shape[1],) * 2, torch.finfo(torch.float32).min).triu(1)[None, None]
    for i, layer in enumerate(text.layers):
        if plan.text and (plan.text_deep or i == 0):
            hidden = torch.cat([hidden[:, :first], bank.mmpt_text[i][None], hidden[:, first + plan.text :]], dim=1)
        hidden = llama_layer(layer, hidden, rotary, mask, bank, i)
    logits = backbone.model.lm_head(text.norm(hidden))[:, length:]
    return torch.cat([logits[:, :place], logits[:, place + inside :]], dim=1)


def llama_layer(layer: Any, hidden: Tensor, rotary: Any, mask: Tensor, bank: Any, index: int) -> Tensor:
    """Returns a decoder layer's output by its published formula, with trained keys and values where planned."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    tokens, width = hidden.shape[1], attention.head_dim
    query, key, value = (getattr(attention, f"{x}_proj").forward(normed) for x in "qkv")
    if bank.plan.keys:
        key = torch.cat([bank.mmpt_key[index][None], key[:, bank.plan.keys :]], dim=1)
        value = torch.cat([bank.mmpt_value[index][None], value[:, bank.plan.keys :]], dim=1)
    query, key, value = (x.view(1, tokens, -1, width).transpose(1, 2) for x in (query, key, value))
    query, key = apply_rotary_pos_emb(query, key, *rotary)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    weights = (query @ key.transpose(2, 3) / width**0.5 + mask).softmax(-1)
    hidden = hidden + attention.o_proj((weights @ value).transpose(1, 2).reshape(1, tokens, -1))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def test_engine_equals_the_loops_written_by_hand(prompted: Any) -> None:
    batch = prompted.batch(pictures(1), [prompted.prompt_text(QUESTIONS[0])])
    engine = prompted.model(**batch).logits
    weights = {p: h for p, h in copy.deepcopy(prompted.model)._modules.items() if p != "prompt_bank"}
    plain = copy.copy(prompted)
    plain.model = Unhooked(prompted, weights)
    assert torch.allclose(by_hand(plain, batch), engine, atol=2e-5)


class Unhooked:
    """The same weights with no hook on any module."""

    def __init__(self, backbone: Any, parts: dict[str, Any]) -> None:
        for part in parts.values():
            for module in part.modules():
                module._forward_hooks.clear()
                module._forward_pre_hooks.clear()
        self.model, self.lm_head = parts["model"], parts["lm_head"]
        self.prompt_bank, self.config = backbone.model.prompt_bank, backbone.model.config


def test_prompts_start_as_they_are_told_to(backbone: Any) -> None:
    found = {}
    for init in ("xavier", "normal", "words"):
        with attached(backbone, PromptPlan(visual=40, text=40, init=init), seed=3) as bank:  # type: ignore[arg-type]
            found[init] = {name: p.detach().clone() for name, p in bank.named_parameters()}
    for name, dim in (("mmpt_visual", backbone.anatomy.vision_dim), ("mmpt_text", backbone.anatomy.text_dim)):
        # Uniform within sqrt(6 / ((n + 1) D)).
        assert found["xavier"][name].abs().max() <= (6 / (41 * dim)) ** 0.5
        assert found["normal"][name].std().item() == pytest.approx(0.02, rel=0.1)
    words = backbone.model.get_input_embeddings().weight
    rows = found["words"]["mmpt_text"].flatten(0, 1)
    assert all((words == row).all(dim=1).any() for row in rows)
    assert len(rows.unique(dim=0)) > 10
    assert torch.equal(found["words"]["mmpt_visual"], found["xavier"]["mmpt_visual"])


def test_prompts_change_the_answer(prompted: Any, tmp_path: Path) -> None:
    bare = tiny_backbone(tmp_path, prompted.model.config.vision_feature_layer)
    assert not torch.allclose(bare.model(**examples(prompted)).logits, prompted.model(**examples(prompted)).logits)


def test_padding_on_either_side_changes_no_logit(prompted: Any) -> None:
    prompts = [prompted.prompt_text(q) for q in QUESTIONS]
    for side in ("left", "right"):
        rows = prompted.tokens(prompts, ANSWERS)
        batch = prompted.pad(rows, side) | prompted.inputs(prompted.encode(pictures(3)))
        logits = prompted.model(**batch).logits
        for i in range(3):
            one = prompted.batch(pictures(3)[i : i + 1], prompts[i : i + 1], ANSWERS[i : i + 1])
            alone = prompted.model(**one).logits[0]
            assert torch.allclose(logits[i][batch["attention_mask"][i].bool()], alone, atol=2e-5)


def four_dimensional(mask: Tensor, boolean: bool) -> Tensor:
    """Returns the causal form of a 2D mask."""
    length = mask.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool).tril()[None, None] & mask.bool()[:, None, None, :]
    return seen if boolean else torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)


# Eager attention adds its mask: transformers supports no boolean one there.
@pytest.mark.parametrize(("attention", "boolean"), [("eager", False), ("sdpa", False), ("sdpa", True)])
def test_mask_of_four_dimensions_equals_that_of_two(prompted: Any, attention: str, boolean: bool) -> None:
    batch = examples(prompted)
    real = batch["attention_mask"].bool()
    # Both under one implementation: on some processors `sdpa` rounds its exponentials to 20 bits.
    prompted.model.set_attn_implementation(attention)
    try:
        wanted = prompted.model(**batch).logits
        batch["attention_mask"] = four_dimensional(batch["attention_mask"], boolean)
        found = prompted.model(**batch).logits
    finally:
        prompted.model.set_attn_implementation("sdpa")
    assert found.shape == wanted.shape
    assert torch.allclose(found[real], wanted[real], atol=2e-5)


def test_packed_questions_answer_like_single_ones(prompted: Any) -> None:
    """Two questions after one image, each blind to the other, at restarted positions, in one row under a 4D mask."""
    image = pictures(1)
    texts = [prompted.prompt_text(q) for q in QUESTIONS[:2]]
    single = [prompted.batch(image, [text]) for text in texts]
    rows = [one["input_ids"][0].tolist() for one in single]
    shared = next(i for i, (a, b) in enumerate(zip(*rows, strict=False)) if a != b)
    tails = [row[shared:] for row in rows]
    ids = torch.tensor([rows[0][:shared] + tails[0] + tails[1]])
    first, length = len(tails[0]), ids.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    seen[shared + first :, shared : shared + first] = False
    positions = torch.tensor([[*range(shared + first), *range(shared, shared + len(tails[1]))]])
    mask = torch.zeros(1, 1, length, length).masked_fill(~seen, torch.finfo(torch.float32).min)
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
    logits = prompted.model(**inputs, pixel_values=single[0]["pixel_values"]).logits[0]
    alone = [prompted.model(**one).logits[0] for one in single]
    assert torch.allclose(logits[: shared + first], alone[0], atol=2e-5)
    assert torch.allclose(logits[shared + first :], alone[1][shared:], atol=2e-5)


def test_cache_filled_once_serves_several_questions(prompted: Any) -> None:
    batch = prompted.batch(pictures(1), [prompted.prompt_text(QUESTIONS[0])])
    whole = prompted.model(**batch).logits
    split = 20
    for positions in (None, torch.arange(whole.shape[1])[None]):
        cache = DynamicCache(config=prompted.model.config.get_text_config())
        head = {"input_ids": batch["input_ids"][:, :split], "pixel_values": batch["pixel_values"]}
        prompted.model(**head, past_key_values=cache, use_cache=True)
        tail = {"input_ids": batch["input_ids"][:, split:], "attention_mask": batch["attention_mask"]}
        if positions is not None:
            tail["position_ids"] = positions[:, split:]
        logits = prompted.model(**tail, past_key_values=cache, use_cache=True).logits
        assert torch.allclose(logits, whole[:, split:], atol=2e-5)


def test_features_encoded_once_answer_the_same(prompted: Any) -> None:
    batch = examples(prompted)
    wanted = prompted.model(**batch).logits
    features = prompted.model.get_image_features(batch.pop("pixel_values"))
    for _ in range(2):
        assert torch.equal(prompted.model(**batch, mm_encoder_outputs={"image": features}).logits, wanted)


def test_generation_with_and_without_cache_agrees_under_eager_attention(prompted: Any) -> None:
    batch = prompted.batch(pictures(3), [prompted.prompt_text(q) for q in QUESTIONS])
    prompted.model.set_attn_implementation("eager")
    settings = {"do_sample": False, "min_new_tokens": 8, "max_new_tokens": 8, "suppress_tokens": [4]}
    try:
        cached = prompted.model.generate(**batch, **settings)
        plain = prompted.model.generate(**batch, **settings, use_cache=False)
    finally:
        prompted.model.set_attn_implementation("sdpa")
    assert torch.equal(cached, plain)


def test_gradients_under_checkpointing_are_the_same(prompted: Any) -> None:
    model, batch = prompted.model, examples(prompted)
    gradients = []
    for checkpointed in (False, True):
        model.train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        model(**batch, use_cache=False).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.prompt_bank.named_parameters()})
        model.gradient_checkpointing_disable()
        model.eval()
    assert all((g != 0).any() for g in gradients[0].values())
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_reentrant_checkpointing_is_refused(backbone: Any) -> None:
    backbone.model.train()
    backbone.model.gradient_checkpointing_enable({"use_reentrant": True})
    try:
        with attached(backbone, PLANS["mmpt"]), pytest.raises(ValueError, match="reentrant"):
            backbone.model(**examples(backbone))
    finally:
        backbone.model.gradient_checkpointing_disable()
        backbone.model.eval()


def test_a_copy_has_prompts_of_its_own(prompted: Any) -> None:
    batch = examples(prompted)
    wanted, twin = prompted.model(**batch).logits, copy.deepcopy(prompted.model)
    assert torch.equal(twin(**batch).logits, wanted)
    with torch.no_grad():
        for parameter in twin.prompt_bank.parameters():
            parameter.add_(1.0)
    assert not torch.equal(twin(**batch).logits, wanted)
    assert torch.equal(prompted.model(**batch).logits, wanted)


def test_hidden_states_have_the_callers_length(prompted: Any) -> None:
    batch = examples(prompted)
    output = prompted.model(**batch, output_hidden_states=True)
    assert {state.shape[1] for state in output.hidden_states} == {batch["input_ids"].shape[1]}


def test_cache_of_fixed_size_is_refused(backbone: Any) -> None:
    cache = StaticCache(config=backbone.model.config.get_text_config(), max_cache_len=64)
    with attached(backbone, PLANS["text"]), pytest.raises(ValueError, match="fixed size"):
        backbone.model(**examples(backbone), past_key_values=cache)


def test_interaction_without_a_picture_is_refused(backbone: Any) -> None:
    with attached(backbone, PLANS["mmpt"]), pytest.raises(ValueError, match="one image a sequence"):
        backbone.model(input_ids=torch.tensor([[1, 7, 8]]))


def test_features_without_prompts_are_refused_under_interaction(backbone: Any) -> None:
    batch = examples(backbone)
    features = backbone.model.get_image_features(batch.pop("pixel_values"))
    with attached(backbone, PLANS["mmpt"]), pytest.raises(ValueError, match="do not match"):
        backbone.model(**batch, mm_encoder_outputs={"image": features})


def test_beam_search_with_interaction_is_refused(backbone: Any) -> None:
    batch = backbone.batch(pictures(1), [backbone.prompt_text(QUESTIONS[0])])
    with attached(backbone, PLANS["mmpt"]), pytest.raises(ValueError, match="beam search"):
        backbone.model.generate(**batch, num_beams=2, do_sample=False, max_new_tokens=2)
