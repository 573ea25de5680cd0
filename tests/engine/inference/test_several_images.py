"""Questions about several images: the inputs are those of the model's own processor, and a batch changes no reply."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample, Shot
from mmpt_bench.engine.forward.prepared_images import PreparedImages
from mmpt_bench.engine.inference.plain import Question, one_by_one, prompt_of
from mmpt_bench.engine.inference.predict import InferenceOptions, predict
from mmpt_bench.engine.inference.shared import Shared
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.models.encoding import BETWEEN, together
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


def said_beside_each_alone(backbone: Backbone, method: Any, samples: list[Sample]) -> list[str]:
    """Holds answers in batches against those of each alone; returns what is said of questions that share less."""
    said, handle = list[str](), method.attach(backbone, 0)
    try:
        batches = predict(backbone, TASK, samples, InferenceOptions(batch_size=4, say=said.append))
        found = {each.id: each for batch in batches for each in batch}
        alone = {sample.id: answer for sample, answer in one_by_one(backbone, TASK, samples)}
    finally:
        handle.remove()
    assert {key: each.reply for key, each in found.items()} == {key: reply for key, (reply, _) in alone.items()}
    for key, (_, logprobs) in alone.items():
        assert found[key].logprobs == pytest.approx(logprobs, abs=1e-4)
    return said


@pytest.mark.parametrize("name", ["frozen", "lora", "prefix", "vpt", "mmpt"])
def test_a_batch_of_several_images_answers_as_each_alone(backbone: Backbone, name: str) -> None:
    if backbone.anatomy.family == "qwen2_vl" and name in ("vpt", "mmpt"):
        pytest.skip("all images of Qwen2-VL stand in one sequence of its tower")
    made = method_catalog.load_method(method_catalog.method_entries()[name])
    method: Any = MMPT(visual_length=3, text_length=2, interaction=False) if name == "mmpt" else made()
    samples = [sample for sample in SAMPLES if not sample.system or backbone.anatomy.family != "qwen2_vl"]
    assert not said_beside_each_alone(backbone, method, samples)  # questions share what they have in common


def _solved(texts_alone: bool) -> list[Sample]:
    """Returns three questions about one image and one about another, after two solved examples."""
    shown: list[tuple[LazyImage, ...]] = [(), ()] if texts_alone else [(IMAGES[2],), (IMAGES[3],)]
    shots = tuple(Shot(f"s{i}", images, f"how many {i} ?", "no") for i, images in enumerate(shown))
    asked_of = [asked(0), asked(0, question="how many ?"), asked(0, question="a cat ?"), asked(1)]
    return [dataclasses.replace(one, shots=shots) for one in asked_of]


@pytest.mark.parametrize("texts_alone", [False, True])
@pytest.mark.parametrize("name", ["frozen", "lora", "prefix", "vpt", "both-plain", "mmpt", "dynamic"])
def test_what_questions_share_changes_no_reply_behind_solved_examples(
    backbone: Backbone, name: str, texts_alone: bool
) -> None:
    one_image = name in ("mmpt", "dynamic")
    if one_image and not texts_alone:
        pytest.skip("takes one image a question")
    if backbone.anatomy.family == "qwen2_vl" and name in ("vpt", "both-plain", "mmpt", "dynamic"):
        pytest.skip("all images of Qwen2-VL stand in one sequence of its tower")
    small: dict[str, Any] = {"mmpt": {"visual_length": 4, "text_length": 2}, "both-plain": {"interaction": False}}
    known = method_catalog.method_entries()["mmpt" if name == "both-plain" else name]
    method: Any = method_catalog.load_method(known)(**small.get(name, {}))
    said = said_beside_each_alone(backbone, method, _solved(texts_alone))
    assert bool(said) == (name == "dynamic")  # its prompts depend on the question


@pytest.mark.parametrize("texts_alone", [False, True])
def test_solved_examples_are_read_once(backbone: Backbone, texts_alone: bool) -> None:
    questions = [Question(prompt_of(backbone, one), [one]) for one in _solved(texts_alone)]
    layer, rows = backbone.model.get_submodule(backbone.anatomy.decoder_layers[0]), list[int]()
    with torch.no_grad(), closing(PreparedImages(backbone)) as images:
        shared = Shared(backbone, 1, images)
        for _ in range(2):
            read = list[int]()
            hook = layer.register_forward_pre_hook(
                lambda module, args, read=read: read.append(args[0].shape[:2].numel())
            )
            shared.answer(questions)
            hook.remove()
            rows.append(sum(read))
        shown = images.processed([one.first for one in questions])
    ids = backbone.tokens([questions[0].prompt], image_texts=[shown[0].text])[0].ids
    one_image = together(shown[-1:]).text.split(BETWEEN)[-1].count(backbone.processor.image_token)
    own = [i for i, token in enumerate(ids) if token == backbone.model.config.image_token_id][-one_image]
    # Qwen2-VL counts positions over the whole prompt: each image's examples are read with it.
    assert rows[0] - rows[1] == (0 if backbone.anatomy.family == "qwen2_vl" else own)


def test_examples_with_the_same_words_and_other_images_are_read_anew(backbone: Backbone) -> None:
    samples = _solved(texts_alone=False)
    others = [
        dataclasses.replace(
            one, id=f"{one.id} other", shots=tuple(dataclasses.replace(s, images=(IMAGES[1],)) for s in one.shots)
        )
        for one in samples
    ]
    everyone = [*samples, *others]
    made = predict(backbone, TASK, everyone, InferenceOptions(batch_size=1))
    shared = {each.id: each for batch in made for each in batch}
    for sample, (_, logprobs) in one_by_one(backbone, TASK, everyone):
        assert shared[sample.id].logprobs == pytest.approx(logprobs, abs=1e-4)


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
