"""Image tokens that are left out: which ones stay, where they stand, and that the shared way answers as the plain one.

The references are plain transformers: its own attentions, and the whole sequence with a mask that hides what is left
out, under which every other token keeps its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from mmpt_bench.common.errors import Interrupted, RequestError
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.engine.forward.prepared_images import PreparedImages
from mmpt_bench.engine.inference.plain import one_by_one
from mmpt_bench.engine.inference.predict import InferenceOptions, predict, prediction
from mmpt_bench.engine.inference.pruning import Kept, Pruner, prefill_seconds
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.prompts.masks import PromptRows, extend_positions
from mmpt_bench.evaluation.pruning import KINDS, Pruning, random_order
from mmpt_bench.methods import method_catalog
from mmpt_bench.mmpt import MMPT
from support.synthetic import task
from support.tiny import pictures, tiny_backbone

QUESTIONS = ("is there a red circle ?", "how many ?", "what colour is there in a circle ?")
CHOICES = (("yes", "no"), ("one", "two circle", "three red square ?"), ("blue", "red"))
TASK = task(parse=lambda reply, choices: None, max_new_tokens=5)
TOKENS = 16
METHODS: dict[str, Any] = {
    name: method_catalog.load_method(method_catalog.method_entries()[name])()
    for name in ("frozen", "lora", "prefix", "vpt", "full", "mmpt", "dynamic")
}
METHODS |= {"front": MMPT(visual_length=3, text_length=2, interaction_place="front")}


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    torch.set_num_threads(1)
    return tiny_backbone(tmp_path)


def samples(count: int = 2) -> list[Sample]:
    """Returns three questions about each image."""
    made = []
    for i, image in enumerate(pictures(count)):
        for j, (question, choices) in enumerate(zip(QUESTIONS, CHOICES, strict=True)):
            shown = LazyImage(f"p{i}", lambda image=image: image)  # type: ignore[misc]
            made.append(Sample(f"{i}/{j}", shown, question, choices, choices[0]))
    return made


def moved(handle: Any) -> None:
    """Moves trained values from where they begin, at which some methods change nothing."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in handle.trainable.values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def shared(backbone: Backbone, pruning: Pruning | None, said: list[str], **options: Any) -> dict[str, Prediction]:
    given = InferenceOptions(pruning=pruning, say=said.append, **options)
    return {p.id: p for batch in predict(backbone, TASK, samples(), given) for p in batch}


def plain(backbone: Backbone, pruning: Pruning | None) -> dict[str, Prediction]:
    pruner = None if pruning is None else Pruner(backbone, pruning, PreparedImages(backbone))
    return {s.id: prediction(TASK, s, made) for s, made in one_by_one(backbone, TASK, samples(), pruner)}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_shared_way_answers_as_the_plain_one_under_every_pruning(method: str, backbone: Backbone) -> None:
    moved(METHODS[method].attach(backbone, 0))
    whole = plain(backbone, None)
    for kind in KINDS:
        said: list[str] = []
        expected, found = plain(backbone, Pruning(kind, 0.25)), shared(backbone, Pruning(kind, 0.25), said)
        # Prompts that depend on the question are asked the plain way, pruned or not.
        assert bool(said) == (method == "dynamic")
        for name, one in expected.items():
            assert (found[name].reply, found[name].ranked) == (one.reply, one.ranked)
            assert found[name].logprobs == pytest.approx(one.logprobs, abs=2e-4)
        # Four tokens of sixteen are not the whole image.
        assert any(abs(expected[n].logprobs[0] - whole[n].logprobs[0]) > 1e-3 for n in whole)


@pytest.mark.parametrize("method", ["frozen", "mmpt"])
def test_a_share_that_leaves_every_token_changes_no_bit(method: str, backbone: Backbone) -> None:
    moved(METHODS[method].attach(backbone, 0))
    for kind in KINDS:
        every = Pruning(kind, 0.99)
        assert every.count(TOKENS) == TOKENS
        if kind != "attention":
            # There a question has a prefill of its own, which sums in another order.
            assert shared(backbone, every, [], images="a") == shared(backbone, None, [], images="a")
        assert plain(backbone, every) == plain(backbone, None)


def hidden_by_a_mask(backbone: Backbone, sample: Sample, places: list[int]) -> torch.Tensor:
    """Returns the logits after the whole prompt, in which a mask hides the other image tokens from all."""
    inputs = backbone.batch([sample.image.open()], [backbone.prompt_text(sample.question)])
    image = (inputs["input_ids"][0] == 4).nonzero()[:, 0]
    assert len(image) == TOKENS
    gone = [place for place in range(TOKENS) if place not in places]
    inputs["attention_mask"][0, image[gone]] = 0
    positions = torch.arange(inputs["input_ids"].shape[1])[None]
    with torch.no_grad():
        return backbone.model(**inputs, position_ids=positions).logits[0, -1]


@pytest.mark.parametrize("method", ["frozen", "lora", "prefix", "mmpt", "front"])
@pytest.mark.parametrize("places", [[0, 3, 4, 15], [0]])
def test_left_out_is_what_a_mask_hides_from_all(method: str, places: list[int], backbone: Backbone) -> None:
    moved(METHODS[method].attach(backbone, 0))
    sample = samples(1)[2]
    kept = Kept(backbone, torch.tensor([places]), TOKENS)
    with torch.no_grad(), kept.cut():
        inputs = kept.batch(backbone.encode([sample.image.open()]), [backbone.prompt_text(sample.question)])
        found = backbone.model(**inputs).logits[0, -1]
    assert int((inputs["input_ids"] == 4).sum()) == len(places)
    assert torch.allclose(found, hidden_by_a_mask(backbone, sample, places), atol=2e-5)
    assert "get_image_features" not in vars(backbone.model.model)


def test_positions_are_those_of_the_whole_prompt_whatever_padding() -> None:
    class Model:
        class config:
            image_token_id = 4

    backbone: Any = type("B", (), {"model": Model})
    kept = Kept(backbone, torch.tensor([[2, 5], [0, 1]]), tokens=6)
    # Padding, two words, two of six image tokens, three words; and one word more in front in place of the padding.
    ids = torch.tensor([[0, 1, 7, 4, 4, 8, 8, 8], [1, 7, 7, 4, 4, 8, 8, 8]])
    found = kept.positions(ids, torch.tensor([[0] + [1] * 7, [1] * 8]))
    assert found[0, 1:].tolist() == [0, 1, 4, 7, 8, 9, 10]
    assert found[1].tolist() == [0, 1, 2, 3, 4, 9, 10, 11]


def test_interaction_stands_where_the_image_begins_though_its_first_tokens_are_gone() -> None:
    # A word, two image tokens that were the third and the sixth, a word; two rows before the image, one in front.
    positions = torch.tensor([[0, 3, 6, 7]])
    rows = PromptRows(front=1, inside=2, places=(1,))
    grown = extend_positions(positions, torch.ones(1, 4), rows, 0, 4)
    assert grown.tolist() == [[0, 1, 2, 3, 6, 9, 10]]


def eager(folder: Path) -> Any:
    """Returns the model as transformers loads it, with the attention that it returns."""
    return LlavaForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()


def highest(scores: torch.Tensor, count: int) -> list[int]:
    return sorted(scores.topk(count).indices.tolist())


def test_cls_keeps_what_the_towers_first_token_attends_to_in_the_layer_that_is_read(tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path)
    pruner, model = Pruner(backbone, Pruning("cls", 0.25), PreparedImages(backbone)), eager(tmp_path)
    for sample in samples(3):
        values = backbone.batch([sample.image.open()], [backbone.prompt_text("how many ?")])["pixel_values"]
        # FasterVLM's code: `attentions[select_layer]` beside `hidden_states[select_layer]`, row 0, columns from 1 on.
        weights = model.model.vision_tower(values, output_attentions=True).attentions[-2]
        assert pruner.chosen(sample, "") == highest(weights.mean(dim=1)[0, 0, 1:], 4)


def test_attention_keeps_what_the_prompts_last_token_attends_to_in_the_second_layer(tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path)
    pruner, model = Pruner(backbone, Pruning("attention", 0.25), PreparedImages(backbone)), eager(tmp_path)
    chosen = []
    for sample in samples(2):
        prompt = backbone.prompt_text(sample.question)
        inputs = backbone.batch([sample.image.open()], [prompt])
        image = (inputs["input_ids"][0] == 4).nonzero()[:, 0]
        # FastV's code: `layer_outputs[1]` of the layer before K = 2, mean over heads, row -1, the image's columns.
        weights = model(**inputs, output_attentions=True).attentions[1]
        chosen.append(pruner.chosen(sample, prompt))
        assert chosen[-1] == highest(weights.mean(dim=1)[0, -1, image], 4)
    assert len(set(map(tuple, chosen[:3]))) > 1
    assert backbone.model.config._attn_implementation == "sdpa"


def test_attention_finds_the_image_behind_prompts_of_every_kind(tmp_path: Path) -> None:
    plain = tiny_backbone(tmp_path)
    sample = samples(1)[0]
    prompt = plain.prompt_text(sample.question)
    for method in ("prefix", "mmpt", "front"):
        backbone = load_backbone(str(tmp_path), device="cpu", offline=True)
        handle = METHODS[method].attach(backbone, 0)
        seen: list[Any] = []
        layer = backbone.model.get_submodule(backbone.anatomy.decoder_layers[1])
        hook = layer.self_attn.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output[1]))
        found = Pruner(backbone, Pruning("attention", 0.25), PreparedImages(backbone)).chosen(sample, prompt)
        hook.remove()
        rows = backbone.model.prompt_bank.rows
        ids = backbone.tokens([prompt])[0].ids
        # Rows of prompts stand in front, and before the image's first token: both before it.
        image = torch.tensor([place + rows.total for place, token in enumerate(ids) if token == 4])
        weights = seen[0].mean(dim=1)[0, -1]
        assert len(weights) == len(ids) + rows.total
        assert found == highest(weights[image], 4)
        handle.remove()


def test_random_is_of_the_image_alone_and_smaller_shares_are_among_larger_ones(backbone: Backbone) -> None:
    first, second = samples()[0], samples()[3]
    half, quarter = (
        Pruner(backbone, Pruning("random", share), PreparedImages(backbone)).chosen(first, "") for share in (0.5, 0.25)
    )
    assert set(quarter) < set(half)
    assert half == sorted(random_order("p0", TOKENS)[:8])
    assert random_order(first.image.key, TOKENS) != random_order(second.image.key, TOKENS)


def test_a_model_without_attention_to_return_says_so(backbone: Backbone) -> None:
    for name in backbone.anatomy.decoder_layers:
        layer = backbone.model.get_submodule(name)
        layer.self_attn.register_forward_hook(lambda module, args, output: (output[0], None))
    pruner = Pruner(backbone, Pruning("attention", 0.5), PreparedImages(backbone))
    with pytest.raises(RequestError, match="does not return its attention: leave `attention` out"):
        pruner.chosen(samples()[0], backbone.prompt_text("how many ?"))


def test_choosing_and_measuring_stop_when_they_are_asked_to(backbone: Backbone) -> None:
    way, pruning = InferenceOptions(pruning=Pruning("cls", 0.5), stopping=lambda: True), Pruning("random", 0.5)
    with pytest.raises(Interrupted, match="not all chosen"):
        list(predict(backbone, TASK, samples(), way))
    asked = [(sample, backbone.prompt_text(sample.question)) for sample in samples()]
    with pytest.raises(Interrupted, match="not measured yet"):
        prefill_seconds(backbone, pruning, asked, "set", lambda: True)


def test_prefill_is_measured_with_and_without_pruning(backbone: Backbone) -> None:
    asked = [(sample, backbone.prompt_text(sample.question)) for sample in samples()]
    for pruning in (None, Pruning("random", 0.5), Pruning("cls", 0.5), Pruning("attention", 0.5)):
        choose, read = prefill_seconds(backbone, pruning, asked, "timed")
        assert 0 < read < 5
        assert 0 <= choose < 5


def test_what_images_are_read_by_is_put_back(backbone: Backbone) -> None:
    core: Any = backbone.model.get_submodule(backbone.anatomy.core)
    own = core.get_image_features
    kept = Kept(backbone, torch.tensor([[0]]), TOKENS)
    with kept.cut():
        assert core.get_image_features is not own
    assert "get_image_features" not in vars(core)
    core.get_image_features = other = lambda *args: own(*args)
    with kept.cut():
        assert core.get_image_features is not other
    assert core.get_image_features is other
