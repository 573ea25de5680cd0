"""Conversations are written as the template writes them, and every answer in them is learnt."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.examples import Example, Exchange, Opening
from mmpt_bench.data.images import LazyImage
from mmpt_bench.engine.adapters.trial import noise_pictures
from mmpt_bench.engine.models.backbone import IGNORED, load_backbone
from mmpt_bench.engine.models.reading import example_fault
from mmpt_bench.engine.training.loss import Losses
from support.families import BUILDERS
from support.tiny import pictures, save_tiny

TALK = [Exchange("is there a red circle ?", "yes"), Exchange("how many ?", "two ."), Exchange("what colour ?", "blue")]
IDEFICS = (
    "<s>{% for message in messages %}{{ message['role'].capitalize() }} : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant :{% endif %}"
)
"""As Idefics3 writes it: a token of its own after every turn."""
HIDING = (
    "{% for message in messages %}{% if message['role'] == 'user' or loop.last %}{{ message['role'].upper() }} : "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} "
    "{% endif %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT :{% endif %}"
)
"""Leaves earlier replies out, as templates do with what a model thought."""


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_backbone(str(save_tiny(tmp_path_factory.mktemp("tiny"))), device="cpu", offline=True)


def idefics(folder: Path, stops: list[int], template: str = IDEFICS) -> Any:
    BUILDERS["Idefics3"](folder)
    (folder / "chat_template.jinja").write_text(template)
    config = json.loads((folder / "generation_config.json").read_text()) | {"eos_token_id": stops}
    (folder / "generation_config.json").write_text(json.dumps(config))
    return load_backbone(str(folder), device="cpu", offline=True)


def learnt(backbone: Any, batch: dict[str, torch.Tensor]) -> list[str]:
    """Returns the text of each run of labels in the first row."""
    runs: list[list[int]] = [[]]
    for token in batch["labels"][0].tolist():
        if token != IGNORED:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [backbone.processor.tokenizer.decode(run) for run in runs if run]


def test_llava_is_written_as_its_template_does_with_an_end_behind_every_answer(llava: Any) -> None:
    prompt = llava.prompt_text(TALK[0].question)
    assert prompt == "USER: <image>\nis there a red circle ? ASSISTANT:"
    assert llava.target(TALK) == (
        " yes",
        "</s>USER: how many ? ASSISTANT:",
        " two .",
        "</s>USER: what colour ? ASSISTANT:",
        " blue",
    )
    batch = llava.batch(pictures(1), [prompt], [llava.target(TALK)])
    assert llava.processor.tokenizer.decode(batch["input_ids"][0].tolist()) == (
        "<s> USER : " + "<image> " * 16 + "is there a red circle ? ASSISTANT : yes </s> "
        "USER : how many ? ASSISTANT : two . </s> USER : what colour ? ASSISTANT : blue </s>"
    )
    assert learnt(llava, batch) == ["yes </s>", "two . </s>", "blue </s>"]
    assert torch.equal(batch["labels"][batch["labels"] != IGNORED], batch["input_ids"][batch["labels"] != IGNORED])


def test_a_template_with_an_end_of_its_own_is_written_to_the_letter(tmp_path: Path) -> None:
    own = 6
    backbone = idefics(tmp_path / "idefics", [2, own])
    assert backbone.processor.tokenizer.convert_ids_to_tokens(own) == "<end_of_utterance>"
    prompt = backbone.prompt_text(TALK[0].question)
    target = backbone.target(TALK)
    assert prompt + "".join(target) == (
        "<s>User : <image>is there a red circle ?<end_of_utterance>\nAssistant : yes<end_of_utterance>\n"
        "User : how many ?<end_of_utterance>\nAssistant : two .<end_of_utterance>\n"
        "User : what colour ?<end_of_utterance>\nAssistant : blue"
    )
    batch = backbone.batch(noise_pictures(backbone)[:1], [prompt], [target])
    assert learnt(backbone, batch) == [f"{one.reply} <end_of_utterance>" for one in TALK]


def test_an_end_that_generation_does_not_stop_at_is_no_end(tmp_path: Path) -> None:
    backbone = idefics(tmp_path / "idefics", [2])
    target = backbone.target(TALK[:2])
    assert target[1] == "</s><end_of_utterance>\nUser : how many ?<end_of_utterance>\nAssistant :"


def test_a_single_exchange_ends_with_the_tokenizers_end_whatever_the_template_writes(tmp_path: Path) -> None:
    backbone = idefics(tmp_path / "idefics", [2, 6])
    assert backbone.target(TALK[:1]) == "yes"
    prompt = backbone.prompt_text(TALK[0].question)
    assert learnt(backbone, backbone.batch(noise_pictures(backbone)[:1], [prompt], ["yes"])) == ["yes </s>"]


def test_loss_of_a_conversation_is_the_mean_over_every_answers_tokens(llava: Any) -> None:
    example = Example(LazyImage("one", lambda: pictures(1)[0]), TALK[0].question, TALK[0].reply, tuple(TALK[1:]))
    losses = Losses(llava, "test", 200)
    ready = losses.ready([example])
    total, count = losses.sum_of(ready, [0])
    batch = llava.batch(pictures(1), [llava.prompt_text(TALK[0].question)], [llava.target(TALK)])
    assert count == 2 + 3 + 2
    assert total.item() / count == pytest.approx(llava.model(**batch).loss.item(), rel=1e-5)
    assert ready.left_out == 0


def test_a_conversation_that_is_too_long_ends_with_an_earlier_answer_and_is_counted(llava: Any) -> None:
    prompt, target = llava.prompt_text(TALK[0].question), llava.target(TALK)
    (whole,) = llava.tokens([prompt], [target])
    (row,) = llava.tokens([prompt], [target], max_length=len(whole.ids) - 1)
    assert (row.ids, row.replies, row.left_out) == (whole.ids[: whole.replies[1][1]], whole.replies[:2], 1)
    with pytest.raises(RequestError, match=f"has {whole.replies[0][1]} tokens and {whole.replies[0][1] - 1} are"):
        llava.tokens([prompt], [target], max_length=whole.replies[0][1] - 1)


def test_a_template_that_hides_earlier_answers_is_refused(tmp_path: Path) -> None:
    backbone = idefics(tmp_path / "idefics", [2], HIDING)
    with pytest.raises(RequestError, match="'yes' is not where it was"):
        backbone.target(TALK)


def test_a_family_without_a_template_has_no_form_for_conversations(tmp_path: Path) -> None:
    backbone = load_backbone(str(BUILDERS["PaliGemma"](tmp_path / "own")), device="cpu", offline=True)
    with pytest.raises(RequestError, match="PaliGemma 1 and 2 has no form for several exchanges"):
        backbone.target(TALK)


@pytest.mark.parametrize("family", [name for name in BUILDERS if name != "SmolVLM" and not name.startswith("Pali")])
def test_every_family_with_a_template_learns_every_answer(tmp_path: Path, family: str) -> None:
    backbone = load_backbone(str(BUILDERS[family](tmp_path / "own")), device="cpu", offline=True)
    prompt = backbone.prompt_text(TALK[0].question)
    batch = backbone.batch(noise_pictures(backbone)[:1], [prompt], [backbone.target(TALK)])
    assert learnt(backbone, batch) == ["yes </s>", "two . </s>", "blue </s>"]


def example_of(**more: Any) -> Example:
    first, *later = TALK
    image = LazyImage("x", lambda: pictures(1)[0])
    return Example(image, first.question, first.reply, tuple(later), **more)


def text_and_learnt(backbone: Any, example: Example) -> tuple[str, list[str]]:
    """Returns the text that training reads of an example, and the parts of it that are learnt."""
    losses = Losses(backbone, "test", 1024)
    ready = losses.ready([example])
    losses.close()
    batch = backbone.pad(ready.rows, "right")
    return backbone.processor.tokenizer.decode(batch["input_ids"][0].tolist()), learnt(backbone, batch)


def test_a_reply_of_no_weight_is_read_and_not_learnt(llava: Any) -> None:
    plain, all_learnt = text_and_learnt(llava, example_of())
    later = tuple(dataclasses.replace(one, learnt=i == 1) for i, one in enumerate(TALK[1:]))
    some = dataclasses.replace(example_of(learnt=False), later=later)
    assert (text_and_learnt(llava, some), all_learnt[2]) == ((plain, ["blue </s>"]), "blue </s>")


def test_without_a_learnt_reply_within_the_length_an_example_is_refused(llava: Any) -> None:
    prompt, target = llava.prompt_text(TALK[0].question), llava.target(TALK)
    (whole,) = llava.tokens([prompt], [target])
    example = example_of(learnt=False)
    fits = example_fault(llava, example, "<image>" * 16, whole.replies[1][1])
    assert fits == ""
    assert "tokens and" in example_fault(llava, example, "<image>" * 16, whole.replies[0][1])


def test_a_systems_turn_and_an_image_within_the_question_are_written_by_the_template(tmp_path: Path) -> None:
    backbone = idefics(tmp_path, [2])
    opening = Opening("be brief .", image_at=11)
    question = "is there a red circle ?"
    text = backbone.prompt_text(question, (), opening)
    assert text == (
        "<s>System : be brief .<end_of_utterance>\nUser : is there a <image>red circle ?<end_of_utterance>\nAssistant :"
    )
    assert backbone.prompt_text(question, (), Opening(image_at=len(question))).count("circle ?<image><end") == 1
    seen, said = text_and_learnt(backbone, example_of(opening=opening))
    assert "is there a <fake_token_around_image>" in seen
    assert len(said) == 3


def test_a_template_that_drops_the_systems_turn_is_not_trained_on_silently(tmp_path: Path) -> None:
    backbone = idefics(tmp_path, [2], "{% set messages = messages | selectattr('role', 'ne', 'system') %}" + IDEFICS)
    with pytest.raises(RequestError, match="The chat template writes no turn of the system"):
        backbone.prompt_text("how many ?", (), Opening("be brief ."))
    assert "chat template writes no turn" in example_fault(
        backbone, example_of(opening=Opening("be brief .")), "<image>", 1024
    )
