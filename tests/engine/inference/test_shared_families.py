"""What every family shares between questions: answers are the plain way's, an image is seen once, limits are said."""

from __future__ import annotations

import dataclasses
import importlib.util
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import mmpt_bench.engine.inference.predict as predict_module
from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.engine.adapters.trial import answers_shared_and_alone, attached, noise_pictures
from mmpt_bench.engine.forward.prepared_images import PreparedImages
from mmpt_bench.engine.inference.plain import Question, one_by_one
from mmpt_bench.engine.inference.predict import InferenceOptions, predict, prediction
from mmpt_bench.engine.inference.prefixes import NotShared
from mmpt_bench.engine.inference.shared import Shared
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from support.families_table import METHODS
from support.methods import VARIANTS
from support.newer_families import BUILDERS
from support.synthetic import task

NEEDS = pytest.mark.skipif(
    importlib.util.find_spec("num2words") is None, reason="SmolVLM's processor needs the package num2words"
)
FAMILIES = [pytest.param(name, marks=NEEDS) if name == "SmolVLM" else name for name in BUILDERS]
TASK = task(parse=lambda reply, choices: None, max_new_tokens=5)
ASKED = (
    ("is there a red circle ?", ("yes", "no")),
    ("how many ?", ("one", "two circle", "three red square ?")),
    ("what colour is there in a circle ?", ("blue", "red")),
)


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return of_family(request.param, tmp_path_factory.mktemp("family"))


def of_family(name: str, place: Path) -> Backbone:
    torch.set_num_threads(1)
    return load_backbone(str(BUILDERS[name](place)), device="cpu", offline=True)


def samples(backbone: Backbone) -> list[Sample]:
    """Returns three questions about each of two images, and one about another; where it may be, of other shapes."""
    made = []
    for i, image in enumerate(noise_pictures(backbone)):
        shown = LazyImage(f"p{i}", lambda image=image: image)  # type: ignore[misc]
        some = ASKED[:1] if i == 1 else ASKED
        made += [Sample(f"{i}/{j}", shown, *one, one[1][0]) for j, one in enumerate(some)]
    return made


def answered(backbone: Backbone, size: int, said: list[str]) -> dict[str, Prediction]:
    options = InferenceOptions(batch_size=size, say=said.append)
    return {p.id: p for batch in predict(backbone, TASK, samples(backbone), options) for p in batch}


def assert_as_alone(backbone: Backbone) -> list[str]:
    """Compares the answers of batches of two sizes with each sample asked alone; returns what was said."""
    said: list[str] = []
    wanted = {s.id: prediction(TASK, s, made) for s, made in one_by_one(backbone, TASK, samples(backbone))}
    for size in (64, 4):
        found = answered(backbone, size, said)
        for name, one in wanted.items():
            assert (found[name].reply, found[name].ranked) == (one.reply, one.ranked)
            assert found[name].logprobs == pytest.approx(one.logprobs, abs=1e-4)
    return said


@pytest.mark.parametrize("family", ["LLaVA-NeXT", "Qwen2-VL", "PaliGemma", "InternVL", "Gemma 3"])
def test_questions_share_images_of_any_shape(family: str, tmp_path: Path) -> None:
    assert assert_as_alone(of_family(family, tmp_path)) == []


@pytest.mark.parametrize(("family", "method"), [("Qwen2-VL", "mmpt"), ("Qwen3.5", "dynamic-text")])
def test_prompts_stand_in_a_batch_as_alone_whatever_the_images_shapes(
    family: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen2-VL: an image's prompts are one row, however large it is. Qwen3.5: they stand after the padding."""
    monkeypatch.setattr(predict_module, "unfit", lambda backbone: "it is to be asked in plain batches")
    backbone = of_family(family, tmp_path)
    with attached(VARIANTS[method]()(), backbone) as handle:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for value in handle.trainable.values():
                value += 0.1 * torch.randn(value.shape, generator=generator)
        assert len(assert_as_alone(backbone)) == 2


@pytest.mark.parametrize("family", ["Qwen2-VL", "PaliGemma"])
def test_the_tower_sees_an_image_once(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = of_family(family, tmp_path)
    monkeypatch.setattr(Shared, "check", lambda *args: None)
    block = backbone.model.get_submodule(backbone.anatomy.vision_layers[0])
    seen: list[int] = []

    def note(module: Any, args: tuple, kwargs: dict) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"])[..., 0].numel())

    block.register_forward_pre_hook(note, with_kwargs=True)
    answered(backbone, 64, [])
    shared, seen[:] = sum(seen), []
    for one in samples(backbone):
        if one.id.endswith("/0"):
            list(one_by_one(backbone, TASK, [Sample("", one.image, one.question, ("yes",), "yes")]))
    assert shared == sum(seen)


def test_what_cannot_be_shared_is_said(tmp_path: Path) -> None:
    (said, _) = assert_as_alone(of_family("Qwen3.5", tmp_path))
    assert said.endswith("because some layers of its decoder pass states from token to token, padding too")


def test_a_batch_longer_than_the_window_is_asked_the_plain_way(tmp_path: Path) -> None:
    whole = of_family("Gemma 3", tmp_path)
    backbone = dataclasses.replace(whole, anatomy=dataclasses.replace(whole.anatomy, window=20))
    assert ["longer than the 20 that some layers see" in text for text in assert_as_alone(backbone)] == [True, True]


def test_the_longest_of_one_question_an_image_must_fit_the_window(tmp_path: Path) -> None:
    whole = of_family("Gemma 3", tmp_path)
    asked = [Question(whole.prompt_text(one.question), [one]) for one in (samples(whole)[0], samples(whole)[3])]
    asked[1] = dataclasses.replace(asked[1], prompt=asked[1].prompt.replace("circle", "circle " * 9))
    texts = [encoded.text for one in asked for encoded in whole.encode([one.first.image.open()])]
    lengths = [len(row.ids) for row in whole.tokens([one.prompt for one in asked], image_texts=texts)]
    assert lengths[1] > lengths[0] + 5
    for window, fits in ((lengths[1] + 6, True), (lengths[1] + 1, False)):
        backbone = dataclasses.replace(whole, anatomy=dataclasses.replace(whole.anatomy, window=window))
        way = Shared(backbone, 5, PreparedImages(backbone, "set"))
        with torch.no_grad(), nullcontext() if fits else pytest.raises(NotShared, match="longer than the"):
            way._prefill(asked)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_shares_or_says_why_not(backbone: Backbone, method: str) -> None:
    try:
        with attached(VARIANTS[method]()(), backbone) as handle:
            generator = torch.Generator().manual_seed(5)
            with torch.no_grad():
                for value in handle.trainable.values():
                    value += 0.1 * torch.randn(value.shape, generator=generator)
            said, checked = assert_as_alone(backbone), answers_shared_and_alone(backbone)
    except RequestError:
        return
    if backbone.anatomy.recurrent or method in ("dynamic", "dynamic-text"):
        assert len(said) == 2
        assert checked.startswith("not applicable")
    else:
        assert not said
        assert "replies agree" in checked
