"""What our class makes of single requests of lmms-eval: settings, odd questions, the loss of choices."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.models.backbone import load_backbone
from mmpt_bench.mmpt import MMPT
from support.tiny import QUESTIONS, pictures, save_tiny

if TYPE_CHECKING:
    from mmpt_bench.interop.lmms_eval import AdaptedModel

pytestmark = [
    pytest.mark.lmms,
    pytest.mark.skipif(
        importlib.util.find_spec("lmms_eval") is None,
        reason="lmms-eval is not installed: `bash .ci/lmms` installs it",
    ),
]
GREEDY = {"max_new_tokens": 6, "temperature": 0, "do_sample": False, "top_p": 1.0, "num_beams": 1}
"""As most of lmms-eval's tasks say it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def model(folder: Path) -> AdaptedModel:
    """The tiny LLaVA, batches of four, and a task `t` whose three images are asked three questions each."""
    from mmpt_bench.interop.lmms_eval import AdaptedModel

    made = AdaptedModel(str(folder), offline=True, device="cpu", batch_size=4)
    docs = [{"image": image, "question": question} for image in pictures(3) for question in QUESTIONS]
    made.task_dict["t"] = {"test": docs}
    return made


def shown(doc: Mapping[str, Any]) -> list[Any]:
    return [doc["image"]]


def request(kind: str, *arguments: Any) -> Any:
    from lmms_eval.api.instance import Instance

    return Instance(kind, arguments, 0, {"task": "t", "doc_id": arguments[3], "repeats": 1})


def said(model: AdaptedModel, settings: Mapping[str, Any], mark: str = "", see: Any = shown) -> list[str]:
    """Returns the replies to all questions of the task."""
    docs = model.task_dict["t"]["test"]
    asked = [(mark + doc["question"], dict(settings), see, i, "t", "test") for i, doc in enumerate(docs)]
    return model.generate_until([request("generate_until", *arguments) for arguments in asked])


def alone(model: AdaptedModel, text: str, image: Any) -> dict[str, torch.Tensor]:
    """Returns inputs as the processor makes them of one text and image, without any of our code."""
    return dict(model.backbone.processor(text=[text], images=[image], return_tensors="pt"))


def generated(model: AdaptedModel, number: int, **settings: Any) -> str:
    """Returns what `generate` says to one question, asked alone."""
    doc = model.task_dict["t"]["test"][number]
    inputs = alone(model, f"USER: <image>\n{doc['question']} ASSISTANT:", doc["image"])
    out = model.backbone.model.generate(**inputs, **settings)
    made: str = model.backbone.processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], True)
    return made


def test_a_greedy_reply_is_what_generate_says_to_the_question_alone(model: AdaptedModel) -> None:
    found = said(model, GREEDY)
    assert found == [generated(model, i, max_new_tokens=6, do_sample=False) for i in range(9)]
    assert len(set(found)) > 5


def test_beams_are_those_of_generate_whatever_else_is_in_the_batch(model: AdaptedModel) -> None:
    found = said(model, GREEDY | {"num_beams": 3})
    assert found == [generated(model, i, max_new_tokens=6, do_sample=False, num_beams=3) for i in range(9)]
    assert found != said(model, GREEDY)


def test_sampling_among_one_token_is_greedy_and_among_all_is_not(model: AdaptedModel) -> None:
    sampled = {"max_new_tokens": 6, "do_sample": True, "temperature": 1.0}
    assert said(model, sampled | {"top_k": 1}) == said(model, GREEDY)
    torch.manual_seed(0)
    assert said(model, sampled | {"top_k": 0, "temperature": 50.0}) != said(model, GREEDY)


def test_temperature_zero_is_greedy_whatever_do_sample_says(model: AdaptedModel) -> None:
    assert said(model, GREEDY | {"do_sample": True}) == said(model, GREEDY)


def test_a_reply_ends_before_the_first_of_its_ends(model: AdaptedModel) -> None:
    whole = said(model, GREEDY)
    end = whole[0].split()[2]
    assert said(model, GREEDY | {"until": [end, "never said"]}) == [reply.split(end)[0] for reply in whole]
    assert said(model, GREEDY | {"until": end}) == [reply.split(end)[0] for reply in whole]


def test_a_mark_for_the_picture_in_the_context_changes_nothing(model: AdaptedModel) -> None:
    assert said(model, GREEDY, mark="<image>\n") == said(model, GREEDY)


def test_a_setting_that_is_not_known_is_refused(model: AdaptedModel) -> None:
    with pytest.raises(RequestError, match=r"`max_new_token`.*`max_new_tokens`"):
        said(model, {"max_new_token": 6})


@pytest.mark.parametrize("see", [lambda doc: [], lambda doc: None, lambda doc: [doc["image"]] * 2])
def test_questions_without_exactly_one_picture_are_refused_and_named(model: AdaptedModel, see: Any) -> None:
    with pytest.raises(RequestError, match=r"9 of 9 questions have not exactly one image.*: 0 of `t`, 1 of `t`"):
        said(model, GREEDY, see=see)


@pytest.mark.parametrize("choice", ["yes", "two circle", "three red square ?"])
def test_the_loss_of_a_choice_is_the_mean_over_its_tokens(model: AdaptedModel, choice: str) -> None:
    docs = model.task_dict["t"]["test"]
    asked = [(doc["question"], choice, shown, i, "t", "test") for i, doc in enumerate(docs)]
    found = model.loglikelihood([request("loglikelihood", *arguments) for arguments in asked])
    n = len(choice.split())
    for (loss, greedy), doc in zip(found, docs, strict=True):
        inputs = alone(model, f"USER: <image>\n{doc['question']} ASSISTANT: {choice}", doc["image"])
        with torch.no_grad():
            logits = model.backbone.model(**inputs).logits[0, -n - 1 : -1]
        wanted = torch.nn.functional.cross_entropy(logits, inputs["input_ids"][0, -n:]).item()
        assert loss == pytest.approx(wanted, abs=1e-4)
        assert greedy == bool((logits.argmax(-1) == inputs["input_ids"][0, -n:]).all())


def test_only_the_word_that_the_model_says_itself_is_greedy(model: AdaptedModel) -> None:
    docs = model.task_dict["t"]["test"]
    # Not every token of the random model is a word.
    said_first = {i: word for i, word in enumerate(said(model, GREEDY | {"max_new_tokens": 1})) if word}
    assert said_first
    for i, word in said_first.items():
        asked = [(docs[i]["question"], choice, shown, i, "t", "test") for choice in (word, "yes no")]
        found = model.loglikelihood([request("loglikelihood", *arguments) for arguments in asked])
        assert [greedy for _, greedy in found] == [True, False]


def test_choices_without_a_picture_and_several_rounds_are_refused(model: AdaptedModel) -> None:
    from lmms_eval.api.instance import Instance

    bare = Instance("loglikelihood", ("", "yes"), 0, {"task": "t", "doc_id": 0, "repeats": 1})
    with pytest.raises(RequestError, match="acc_mutual_info"):
        model.loglikelihood([bare])
    with pytest.raises(RequestError, match="one round"):
        model.generate_until_multi_round([])


def test_a_runs_adapter_is_put_on_and_comes_off_when_the_model_is_cleaned(folder: Path, tmp_path: Path) -> None:
    from mmpt_bench.interop.lmms_eval import AdaptedModel

    handle = MMPT(visual_length=3, text_length=2).attach(load_backbone(str(folder), device="cpu", offline=True), 0)
    handle.save(tmp_path / "adapter")
    (tmp_path / "recipe.yaml").write_text("method: mmpt\n")
    model = AdaptedModel(str(folder), str(tmp_path), offline=True, device="cpu")
    inputs = alone(model, f"USER: <image>\n{QUESTIONS[0]} ASSISTANT:", pictures(1)[0])
    inner = model.backbone.model
    with torch.no_grad():
        adapted = inner(**inputs).logits
        model.clean()
        bare = inner(**inputs).logits
        base = load_backbone(str(folder), device="cpu", offline=True).model(**inputs).logits
    assert torch.equal(bare, base)
    assert not torch.allclose(adapted, base, atol=1e-3)


def test_a_run_that_trained_nothing_has_no_adapter(folder: Path, tmp_path: Path) -> None:
    from mmpt_bench.interop.lmms_eval import AdaptedModel

    (tmp_path / "recipe.yaml").write_text("method: frozen\n")
    with pytest.raises(RequestError, match="has no adapter"):
        AdaptedModel(str(folder), str(tmp_path), offline=True, device="cpu")
