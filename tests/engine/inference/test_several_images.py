"""Questions about several images: the inputs are those of the model's own processor, and a batch changes no reply."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample, Shot
from mmpt_bench.engine.inference.plain import one_by_one, prompt_of
from mmpt_bench.engine.inference.predict import InferenceOptions, predict
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.models.encoding import together
from mmpt_bench.methods import method_catalog
from mmpt_bench.mmpt import MMPT
from support import families
from support.synthetic import task
from support.tiny import pictures, save_tiny

TASK = task(parse=lambda reply, choices: None, max_new_tokens=5)
IMAGES = [LazyImage(f"p{i}", lambda image=image: image) for i, image in enumerate(pictures(4))]
CHOICES = ("yes", "no")


def asked(*images: int, question: str = "is there a red circle ?", system: str = "") -> Sample:
    first, *more = (IMAGES[i] for i in images)
    name = "-".join(map(str, images)) + question + system
    return Sample(name, first, question, CHOICES, "yes", more_images=tuple(more), system=system)


SAMPLES = [
    asked(0, 1),
    asked(1, 0),
    asked(2),
    asked(0, 1, 2),
    asked(3, 1, question="how many ?"),
    asked(0, 1, system="no"),
    dataclasses.replace(asked(2), id="shots", shots=(Shot("a", (IMAGES[0],), "how many ?", "no"),)),
    dataclasses.replace(asked(2), id="texts", shots=(Shot("b", (), "how many ?", "no"),)),
]


@pytest.fixture(scope="module", params=["llava", "qwen2_vl", "embedded"])
def backbone(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        return load_backbone("embedded", device="cpu")
    return load_backbone(
        str(save_tiny(folder) if request.param == "llava" else families.qwen2_vl(folder)), device="cpu"
    )


def test_inputs_are_those_of_the_models_own_processor(backbone: Backbone) -> None:
    sample = SAMPLES[3]
    opened = [image.open() for image in sample.images]
    prompt = prompt_of(backbone, sample)
    ours = backbone.batch([together(backbone.encode(opened))], [prompt])
    theirs = backbone.processor(text=[prompt], images=[opened], return_tensors="pt")
    assert prompt.count(backbone.processor.image_token) == 3
    for name in ("input_ids", "pixel_values", "image_grid_thw"):
        if name in theirs:
            assert torch.equal(ours[name].cpu(), theirs[name]), name


@pytest.mark.parametrize("name", ["frozen", "lora", "prefix", "vpt", "mmpt"])
def test_a_batch_of_several_images_answers_as_each_alone(backbone: Backbone, name: str) -> None:
    if backbone.anatomy.family == "qwen2_vl" and name in ("vpt", "mmpt"):
        pytest.skip("all images of Qwen2-VL stand in one sequence of its tower")
    made = method_catalog.load_method(method_catalog.method_entries()[name])
    method: Any = MMPT(visual_length=3, text_length=2, interaction=False) if name == "mmpt" else made()
    samples = [sample for sample in SAMPLES if not sample.system or backbone.anatomy.family != "qwen2_vl"]
    handle = method.attach(backbone, 0)
    said: list[str] = []
    try:
        batches = predict(backbone, TASK, samples, InferenceOptions(batch_size=4, say=said.append))
        together_ = {each.id: each for batch in batches for each in batch}
        alone = {sample.id: answer for sample, answer in one_by_one(backbone, TASK, samples)}
    finally:
        handle.remove()
    assert {key: each.reply for key, each in together_.items()} == {key: reply for key, (reply, _) in alone.items()}
    for key, (_, logprobs) in alone.items():
        assert together_[key].logprobs == pytest.approx(logprobs, abs=1e-4)
    assert any("several images" in text for text in said)


def test_the_order_of_images_matters(backbone: Backbone) -> None:
    first, second = (answer for _, answer in one_by_one(backbone, TASK, SAMPLES[:2]))
    assert first[1] != second[1]


def test_a_family_that_was_not_tried_is_refused(tmp_path: Path) -> None:
    backbone = load_backbone(str(families.llava_next(tmp_path)), device="cpu")
    with pytest.raises(RequestError, match="was not tried with several images"):
        prompt_of(backbone, SAMPLES[0])


def test_methods_of_one_image_say_so() -> None:
    entries = method_catalog.method_entries()
    assert {name: bool(method_catalog.load_method(entries[name])().one_image) for name in entries} == {
        name: name in ("mmpt", "dynamic") for name in entries
    }
    assert not dataclasses.replace(MMPT(), interaction=False).one_image
