"""Maps against hand-worked values and closed forms; a model that reads one place is seen to read it."""

import dataclasses
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmpt_bench.common.errors import MachineError
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.explain import maps
from mmpt_bench.engine.explain.explained import _curves, explain, permuted
from mmpt_bench.engine.explain.maps import image_rows, integrated_gradients, maps_of, overwritten, relevancy, rollout
from mmpt_bench.engine.explain.prompt_attention import prompt_attention
from mmpt_bench.engine.explain.question import Asked, ask
from mmpt_bench.engine.forward.attention import attention_returned
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.methods.method_catalog import load_method, named_method
from mmpt_bench.stats.saliency import area
from support.tiny import QUESTIONS, pictures, tiny_backbone

torch.set_num_threads(1)
HAS_CAPTUM = importlib.util.find_spec("captum") is not None
NEEDS_CAPTUM = pytest.mark.skipif(not HAS_CAPTUM, reason="needs captum: pip install 'mmpt-bench[explain]'")
NAMES = ("rollout", "relevancy", "grad", "grad-input", "loo", "attention", "random")
SHORT: dict[str, Any] = {"mmpt": {"visual_length": 3, "text_length": 2}, "prefix": {}, "vpt": {}}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tiny_backbone(tmp_path_factory.mktemp("tiny"))


def sample(number: int = 0) -> Sample:
    picture = pictures(number + 1)[number]
    return Sample(str(number), LazyImage(f"{number}.png", lambda: picture), QUESTIONS[0], ("yes", "no"), "yes")


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@contextmanager
def attached(backbone: Backbone, name: str, **changes: Any) -> Iterator[Any]:
    handle = dataclasses.replace(load_method(named_method(name))(), **changes).attach(backbone, 0)
    try:
        yield handle
    finally:
        handle.remove()


def test_rollout_is_the_product_of_layers_with_half_of_each_row_kept() -> None:
    first, second = tensor([1, 0], [0.5, 0.5]), tensor([1, 0], [0.25, 0.75])
    # (A + I) / 2 are [[1, 0], [.25, .75]] and [[1, 0], [.125, .875]]; their product's last row:
    # .125 x [1, 0] + .875 x [.25, .75].
    assert rollout([first[None], second[None]]).tolist() == [0.34375, 0.65625]


def test_rollout_takes_the_mean_over_heads() -> None:
    heads = torch.stack([tensor([1, 0], [1, 0]), tensor([1, 0], [0, 1])])
    assert rollout([heads]).tolist() == [0.25, 0.75]


def test_what_a_layer_makes_of_a_row_that_the_next_overwrites_goes_nowhere() -> None:
    # Row 0 is a prompt: it reads row 1 in the first layer, and the last row reads it in the second.
    first, second = tensor([0, 1, 0], [0, 1, 0], [0, 0, 1]), tensor([1, 0, 0], [0, 1, 0], [1, 0, 0])
    assert rollout([first[None], second[None]]).tolist() == [0.25, 0.25, 0.5]
    assert rollout([first[None], second[None]], slice(0, 1)).tolist() == [0.5, 0, 0.5]


def test_relevancy_adds_up_what_speaks_for_the_answer() -> None:
    weights = torch.stack([tensor([1, 0], [0.6, 0.4]), tensor([1, 0], [0.2, 0.8])])
    gradient = torch.stack([tensor([0, 0], [1, -1]), tensor([0, 0], [2, 1])])
    # Last row: [0, 1] + mean of [.6, 0] and [.4, .8].
    assert relevancy([weights], [gradient]).tolist() == pytest.approx([0.5, 1.4])


@NEEDS_CAPTUM
def test_integrated_gradients_of_squares_are_the_differences_of_squares() -> None:
    tokens, blank = tensor([1, 2], [3, 0], [0, -1]), tensor([1, 1], [1, 1], [1, 1])
    found = integrated_gradients(lambda x: (x**2).sum(dim=(1, 2)), tokens, blank)
    assert found.tolist() == pytest.approx([3, 7, -1])


@NEEDS_CAPTUM
def test_integrated_gradients_of_a_model_add_up_to_what_the_tokens_change(backbone: Backbone) -> None:
    with attention_returned(backbone):
        asked = ask(backbone, sample())
        blank = asked.tokens.mean(dim=0).expand_as(asked.tokens)
        found = maps_of(asked, blank, ["ig"], 0)["ig"]
        with torch.no_grad():
            whole = float(asked.odds(asked.tokens[None]) - asked.odds(blank[None]))
    assert found.sum() == pytest.approx(whole, rel=0.02, abs=0.01)


def test_without_captum_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None)))
    with pytest.raises(MachineError, match=r"mmpt-bench\[explain\]"):
        maps.check_captum()


class Sum(Asked):
    """A question whose log-odds are a weighted sum of its tokens, which have one value each."""

    def logits(self, tokens: Tensor) -> Tensor:
        weights = torch.tensor([3.0, 1.0, -1.0, 0.0])
        own = (tokens[:, :, 0] * weights).sum(dim=1)
        return torch.stack([own, torch.zeros_like(own)], dim=1)


@pytest.fixture
def linear() -> Asked:
    call = {"inputs_embeds": torch.ones(1, 4, 1)}
    return Sum(SimpleNamespace(), call, torch.arange(4), torch.tensor([5, 6]), 0)  # type: ignore[arg-type]


def test_deletion_and_insertion_of_a_sum_are_those_worked_out_by_hand(linear: Asked) -> None:
    values = np.array([3.0, 1.0, -1.0, 0.0])
    deletion, insertion = (curves["own"] for curves in _curves(linear, torch.zeros(4, 1), {"own": values}))
    # Highest first: 3, 1, 0, -1. What is left adds up to 3, 0, -1, -1, 0.
    assert deletion.counts == (0, 1, 2, 3, 4)
    assert deletion.probability == pytest.approx([0.952574, 0.5, 0.268941, 0.268941, 0.5], abs=1e-6)
    assert area(deletion.counts, deletion.probability) == pytest.approx(0.441042, abs=1e-6)
    # What is put back adds up to 0, 3, 4, 4, 3; with none of them both answers are equal, and the first is taken.
    assert insertion.probability == pytest.approx([0.5, 0.952574, 0.982014, 0.982014, 0.952574], abs=1e-6)
    assert insertion.same == (True, True, True, True, True)
    assert deletion.same == (True, True, False, False, True)


def test_gradient_input_and_leaving_out_of_a_sum_are_its_terms(linear: Asked) -> None:
    found = maps_of(linear, torch.zeros(4, 1), ["grad", "grad-input", "loo"], 0)
    assert found["grad"].tolist() == [3, 1, 1, 0]
    assert found["grad-input"].tolist() == [3, 1, -1, 0]
    assert found["loo"].tolist() == pytest.approx([3, 1, -1, 0])


@contextmanager
def reading_only(backbone: Backbone, place: int) -> Iterator[None]:
    """Inside, the decoder is given one image token as it is, and zeros in place of the others."""
    decoder = backbone.model.get_submodule(backbone.anatomy.decoder)

    def blind(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        embeds = kwargs["inputs_embeds"].clone()
        first = 3  # <s> USER : <image>
        others = [first + i for i in range(16) if i != place]
        embeds[:, others] = 0
        return args, {**kwargs, "inputs_embeds": embeds}

    hook = decoder.register_forward_pre_hook(blind, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("place", [0, 6, 15])
def test_of_a_model_that_reads_one_token_no_other_has_a_part_in_the_answer(backbone: Backbone, place: int) -> None:
    with reading_only(backbone, place), attention_returned(backbone):
        asked = ask(backbone, sample())
        assert asked.places.tolist() == list(range(3, 19))
        names = ["grad", "grad-input", "loo", *(["ig"] if HAS_CAPTUM else [])]
        found = maps_of(asked, torch.zeros_like(asked.tokens), names, 0)
    assert found["grad"].argmax() == place
    for name, values in found.items():
        assert np.flatnonzero(np.abs(values) > 1e-6).tolist() == [place], name


@pytest.mark.parametrize("name", SHORT)
def test_the_rows_of_images_and_prompts_are_where_they_are_said_to_be(backbone: Backbone, name: str) -> None:
    seen: list[Tensor] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    with attached(backbone, name, **SHORT[name]), attention_returned(backbone):
        asked = ask(backbone, sample())
        layers = [backbone.model.get_submodule(layer) for layer in backbone.anatomy.decoder_layers[:2]]
        hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
        with torch.no_grad():
            asked.logits(asked.tokens[None])
        for hook in hooks:
            hook.remove()
        first = seen[0][0]
        assert torch.equal(first[image_rows(asked)], asked.tokens)
        bank, fresh = backbone.model.prompt_bank, overwritten(backbone)
        assert len(range(*fresh.indices(len(first)))) == bank.plan.text + bank.plan.keys
        if bank.plan.text:
            assert torch.equal(first[fresh], bank.prompts("mmpt_text", 0))


@pytest.mark.parametrize("name", SHORT)
def test_attention_without_queries_is_even_and_so_are_the_shares_of_prompts(backbone: Backbone, name: str) -> None:
    with attached(backbone, name, **SHORT[name]), attention_returned(backbone):
        queries = [p for n, p in backbone.model.named_parameters() if ".q_proj." in n]
        own = [p.detach().clone() for p in queries]
        for p in queries:
            p.detach().zero_()
        shares = prompt_attention(backbone, sample())
        for p, value in zip(queries, own, strict=True):
            p.detach().copy_(value)
    kinds = {"mmpt": {"visual prompts", "textual prompts", "interaction"}, "prefix": {"key-value prefix"}}
    assert {share.kind for share in shares} == kinds.get(name, {"visual prompts"})
    assert [share.attention for share in shares] == pytest.approx([share.even for share in shares], rel=1e-4)


def test_without_prompts_there_is_no_attention_to_them(backbone: Backbone) -> None:
    with attention_returned(backbone):
        assert prompt_attention(backbone, sample()) == []


def test_explaining_leaves_the_model_as_it_was(backbone: Backbone) -> None:
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    flags = [p.requires_grad for p in backbone.model.parameters()]
    explain(backbone, [sample()], NAMES)
    assert backbone.model.config._attn_implementation == "sdpa"
    assert backbone.model.get_decoder().config._attn_implementation == "sdpa"
    assert [p.requires_grad for p in backbone.model.parameters()] == flags
    assert all(torch.equal(value, before[name]) for name, value in backbone.model.state_dict().items())


def test_permuted_weights_answer_otherwise_and_come_back_bit_for_bit(backbone: Backbone) -> None:
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    with attention_returned(backbone):
        asked = ask(backbone, sample())
        with torch.no_grad():
            own = asked.logits(asked.tokens[None])
            with permuted(backbone):
                other = asked.logits(asked.tokens[None])
            again = asked.logits(asked.tokens[None])
    assert not torch.allclose(own, other, atol=1e-2)
    assert torch.equal(own, again)
    assert all(torch.equal(value, before[name]) for name, value in backbone.model.state_dict().items())


def test_the_same_question_has_the_same_maps(backbone: Backbone) -> None:
    first, second = (explain(backbone, [sample(0), sample(1)], NAMES) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert set(one.maps) == set(NAMES)
        assert set(one.control) == set(NAMES) - {"random"}
        assert all(np.array_equal(one.maps[name], two.maps[name]) for name in NAMES)
        assert one.grid == (4, 4)
        assert one.image.shape == (16, 16, 3)


def test_the_image_that_is_shown_is_the_one_that_the_tower_sees(backbone: Backbone) -> None:
    (one,) = explain(backbone, [sample()], ["grad"])
    assert np.abs(one.image.astype(int) - np.asarray(sample().image.open())).max() <= 1
