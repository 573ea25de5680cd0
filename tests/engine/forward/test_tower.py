"""A frozen tower's features are kept and shared; anything that reaches the tower makes them not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt_bench.data.examples import Example
from mmpt_bench.data.images import LazyImage
from mmpt_bench.engine.adapters.trial import ANSWERS, QUESTIONS, attached, noise_pictures
from mmpt_bench.engine.forward import tower as tower_module
from mmpt_bench.engine.forward.prepared_images import TowerStates
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.models.encoding import Encoded
from mmpt_bench.engine.models.feature_cache import FeatureCache
from mmpt_bench.engine.training.loss import Losses
from mmpt_bench.engine.training.train import TrainingConfig, train
from mmpt_bench.records.budget import Budget
from mmpt_bench.sources.corpora import load_corpus
from support.families import BUILDERS
from support.further_families import BUILDERS as ALL
from support.methods import VARIANTS, method
from support.tiny import pictures, tiny_backbone


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    torch.set_num_threads(1)
    made = tiny_backbone(tmp_path)
    made.model.requires_grad_(False)
    return made


def images(count: int = 3) -> list[LazyImage]:
    return [LazyImage(f"p{i}", lambda one=one: one) for i, one in enumerate(pictures(count))]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "frozen"),
    [("lora", True), ("prefix", True), ("projector", True), ("frozen", True), ("vpt", False), ("mmpt", False)],
)
def test_a_tower_is_frozen_unless_the_method_reaches_it(name: str, frozen: bool, backbone: Backbone) -> None:
    with attached(VARIANTS[name]()(), backbone):
        assert tower_module.is_frozen(backbone) == frozen
    assert tower_module.is_frozen(backbone)


@pytest.mark.parametrize(("name", "shares"), [("mmpt", True), ("vpt", True), ("dynamic", False)])
def test_examples_share_an_image_only_where_it_becomes_the_same_each_time(
    name: str, shares: bool, backbone: Backbone
) -> None:
    with attached(VARIANTS[name]()(), backbone), closing(Losses(backbone, "set", 512)) as losses:
        assert tower_module.sees_once(backbone) == shares
        # A tiny tower's steps are cut as ever.
        assert not losses._sees_once
        backbone.model.get_submodule(backbone.anatomy.vision).add_module("drop", torch.nn.Dropout(0.1))
        assert not tower_module.sees_once(backbone)


def test_an_opened_parameter_or_dropout_in_the_tower_is_not_frozen(backbone: Backbone) -> None:
    backbone.model.config.vision_config.attention_dropout = 0.1
    assert not tower_module.is_frozen(backbone)
    backbone.model.config.vision_config.attention_dropout = 0.0
    next(backbone.model.get_submodule(backbone.anatomy.vision).parameters()).requires_grad_(True)
    assert not tower_module.is_frozen(backbone)


@pytest.mark.parametrize("siglip", [False, True])
@pytest.mark.parametrize("layer", [-2, -1])
def test_projected_states_are_the_models_own_picture_features(siglip: bool, layer: int, tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path / "other", layer, siglip)
    inputs = backbone.inputs(backbone.encode(pictures(3)))
    own = backbone.model.get_image_features(**inputs, return_dict=True).pooler_output
    with tower_module.unread_blocks_skipped(backbone):
        hidden = tower_module.states(backbone, inputs)
        made = tower_module.projected(backbone, list(hidden[:, None]))["image"].pooler_output
    torch.testing.assert_close(torch.stack(list(made)), torch.stack(list(own)))


def test_blocks_above_the_one_that_is_read_are_not_run(backbone: Backbone) -> None:
    ran: list[int] = []
    for i, name in enumerate(backbone.anatomy.vision_layers):
        attention = backbone.model.get_submodule(name).self_attn
        attention.register_forward_pre_hook(lambda module, args, i=i: ran.append(i))
    with tower_module.unread_blocks_skipped(backbone):
        tower_module.states(backbone, backbone.inputs(backbone.encode(pictures(1))))
    assert ran == [0, 1, 2]
    assert "forward" not in vars(backbone.model.get_submodule(backbone.anatomy.vision_layers[3]))


def test_features_are_computed_once_and_again_when_the_tower_or_the_set_of_pictures_changes(backbone: Backbone) -> None:
    tower = backbone.model.get_submodule(backbone.anatomy.vision)

    def passes(of: str) -> int:
        count = []
        features = TowerStates(backbone, of)
        hook = tower.embeddings.register_forward_pre_hook(lambda module, args: count.append(1))
        features(images())
        hook.remove()
        return len(count)

    assert [passes("a"), passes("a"), passes("b"), passes("b")] == [1, 0, 1, 0]
    with torch.no_grad():
        tower.embeddings.position_embedding.weight[0, 0] += 1
    assert [passes("b"), passes("b")] == [1, 0]


def test_the_cache_stays_below_its_limit_and_makes_room_for_a_new_owner_only() -> None:
    cache, one = FeatureCache(limit=80), Encoded({"states": torch.ones(10)}, "")
    for key in ("x", "y", "z"):
        cache.put("a", (key,), one, 0.0)
    assert cache.bytes == 80
    assert cache.get("a", ("z",)) is None
    cache.put("b", ("x",), one, 0.0)
    assert cache.get("a", ("x",)) is None
    assert cache.bytes == 40


def test_what_an_earlier_method_made_is_charged_once_to_the_one_that_finds_it() -> None:
    cache, one = FeatureCache(), Encoded({"states": torch.ones(10)}, "")
    cache.begin()
    cache.put("a", ("x",), one, 3.0)
    cache.put("a", ("y",), one, 4.0)
    assert cache.get("a", ("x",)) is not None
    assert cache.spared == 0.0  # its own work, which the clock has seen
    cache.begin()
    for key in ("x", "x", "z"):
        cache.get("a", (key,))
    assert cache.spared == 3.0


def test_a_training_costs_the_features_that_an_earlier_one_made(backbone: Backbone, monkeypatch: Any) -> None:
    now = [0.0]
    whole = tower_module.states

    def slow(*args: Any) -> torch.Tensor:
        now[0] += 1000.0
        return whole(*args)

    monkeypatch.setattr(tower_module, "clock", lambda: now[0])
    monkeypatch.setattr(tower_module, "states", slow)
    seconds, passes = [], []
    for _ in range(2):
        before = now[0]
        config = TrainingConfig(Budget(steps=2, batch_size=2), 1e-3, 0)
        with attached(method("projector")(), backbone) as handle:
            done = train(backbone, handle, load_corpus("embedded"), config)
        seconds.append(done.seconds)
        passes.append((now[0] - before) / 1000)
    assert passes == [2.0, 0.0]
    assert seconds[0] < 1000  # a stopped clock: the tower's time is on the real one alone
    assert seconds[1] > 2000


@pytest.mark.parametrize("family", ["Idefics3", "SmolVLM"])
@pytest.mark.parametrize("name", ["projector", "lora"])
def test_tiles_are_encoded_once_and_the_step_stays_that_of_the_model_itself(
    family: str, name: str, tmp_path: Path
) -> None:
    backbone = load_backbone(str(BUILDERS[family](tmp_path)), device="cpu", offline=True)
    handle = method(name)().attach(backbone, 0)
    small, large, third = pictures(3)
    shown = [small, large.resize((32, 16)), third.resize((32, 32))]
    examples = [
        Example(LazyImage(f"p{i}", lambda image=image: image), "is there a red circle ?", "yes")  # type: ignore[misc]
        for i, image in enumerate(shown)
    ]
    prompts = [backbone.prompt_text(example.prompt) for example in examples]
    own = backbone.model(**backbone.batch(shown, prompts, ["yes"] * 3), use_cache=False).loss
    own.backward()
    gradients = [p.grad.clone() for p in handle.trainable.values()]
    passes: list[int] = []
    layer = backbone.model.get_submodule(backbone.anatomy.vision_layers[0]).layer_norm1
    watched = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: passes.append(len(args[0])) if module is layer else None
    )
    try:
        for _ in range(2):
            backbone.model.zero_grad(set_to_none=True)
            losses = Losses(backbone, "set", 512)
            total, tokens = losses.sum_of(losses.ready(examples), [0, 1, 2])
            (total / tokens).backward()
            assert (total / tokens).item() == pytest.approx(own.item(), rel=1e-5)
            for parameter, expected in zip(handle.trainable.values(), gradients, strict=True):
                torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-3)
    finally:
        watched.remove()
    # An image at a time, with all its tiles, in the first of the two rounds alone.
    assert len(passes) == 3


@pytest.mark.parametrize(
    ("family", "read"), [("Qwen2.5-VL", 1), ("Qwen3-VL", 3), ("InternVL", 1), ("LLaVA-OneVision", 1)]
)
def test_a_trained_projector_sees_what_blocks_made_before(family: str, read: int, tmp_path: Path) -> None:
    backbone = load_backbone(str(ALL[family](tmp_path)), device="cpu", offline=True)
    shown = [LazyImage(f"n{i}", lambda one=one: one) for i, one in enumerate(noise_pictures(backbone))]  # type: ignore[misc]
    examples = [Example(*each) for each in zip(shown, QUESTIONS, ANSWERS, strict=True)]
    ran: list[int] = []
    with (
        attached(VARIANTS["projector"]()(), backbone) as handle,
        closing(Losses(backbone, "set", 1024)) as losses,
        closing(Losses(backbone, "set", 1024)) as plain,
    ):
        plain._take_plain_way()
        losses.probe(examples, {})
        kept = [name for one in losses._images(shown) for name in one.tensors if name.startswith(tower_module.STATES)]
        assert len(kept) == read * len(shown)
        for i, name in enumerate(backbone.anatomy.vision_layers):
            parts = backbone.model.get_submodule(name).modules()
            norm = next(part for part in parts if "Norm" in type(part).__name__)
            norm.register_forward_pre_hook(lambda module, args, i=i: ran.append(i))
        found, again = losses.probe(examples, handle.trainable), list(ran)
        wanted = plain.probe(examples, handle.trainable)
    assert not again
    assert set(ran) == set(range(backbone.anatomy.vision_used))
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *((family, "mmpt") for family in ("Qwen2.5-VL", "Qwen3-VL", "InternVL", "SmolVLM")),
        *(("LLaVA-OneVision", name) for name in ("mmpt", "vpt")),
        ("Qwen3-VL", "vpt"),
    ],
)
def test_an_image_of_several_examples_goes_through_a_trained_tower_once(family: str, name: str, tmp_path: Path) -> None:
    backbone = load_backbone(str(ALL[family](tmp_path)), device="cpu", offline=True)
    large, small = (LazyImage(f"n{i}", lambda one=one: one) for i, one in enumerate(noise_pictures(backbone)[:2]))  # type: ignore[misc]
    asked = zip([large, small, large], ("red ?", "is it a circle ?", "one"), ("no", "yes", "no"), strict=True)
    examples = [Example(*each) for each in asked]
    rows: list[int] = []
    with (
        attached(VARIANTS[name]()(), backbone) as handle,
        closing(Losses(backbone, "set", 1024)) as losses,
        closing(Losses(backbone, "set", 1024)) as plain,
    ):
        plain._take_plain_way()
        assert not losses.compare(examples[:2], handle.trainable)
        wanted = plain.probe(examples, handle.trainable)
        parts = backbone.model.get_submodule(backbone.anatomy.vision_layers[0]).modules()
        norm = next(part for part in parts if "Norm" in type(part).__name__)
        norm.register_forward_pre_hook(lambda module, args: rows.append(args[0][..., 0].numel()))
        losses.probe(examples[:2], {})
        two = sum(rows)
        found = losses.probe(examples, handle.trainable)
    assert sum(rows) == 2 * two
    assert found[0] == pytest.approx(wanted[0], rel=2e-6)
    assert found[1].keys() == wanted[1].keys()
    for one, gradient in wanted[1].items():
        apart = (found[1][one] - gradient).norm()
        assert apart <= 2e-5 * gradient.norm(), one


def test_features_of_distinct_images_are_handed_out_by_their_tokens() -> None:
    rows = torch.arange(6.0)[:, None]
    found = tower_module._spread({"pooler_output": rows}, [0, 1, 0], [2, 4])
    assert found["pooler_output"][:, 0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    # Three tiles of two tokens: one of the first image, two of the second.
    tiles = torch.arange(6.0).reshape(3, 2, 1)
    found = tower_module._spread({"pooler_output": tiles}, [1, 0, 1], [2, 4])
    assert found["pooler_output"].flatten().tolist() == [2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    for counts in ([4, 8], [2, 5], [3, 3]):  # other tokens than there are, or half a tile
        with pytest.raises(tower_module._Unlike):
            tower_module._spread({"pooler_output": tiles}, [0, 1, 0], counts)
    with pytest.raises(tower_module._Unlike):
        tower_module._spread({"last_hidden_state": tiles}, [0, 1, 0], [2, 4])


def test_states_that_do_not_join_are_not_kept(tmp_path: Path) -> None:
    # Idefics2 fills the images of a batch up to the largest one.
    backbone = load_backbone(str(ALL["Idefics2"](tmp_path)), device="cpu", offline=True)
    backbone.model.requires_grad_(False)
    assert tower_module.is_frozen(backbone)
    assert not tower_module.keeps_states(backbone)
