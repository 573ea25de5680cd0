"""Prompt forms: what they write, in which order of the labels, and that `plain` is the task's own question."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from mmpt_bench.embedded import prompts
from mmpt_bench.evaluation.check_task import check_task
from mmpt_bench.evaluation.forms import PromptForm, in_words
from support.tasks import task

PICTURE = Image.new("RGB", (1, 1))
ROWS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "snli_ve": (
        {"image": PICTURE, "filename": "1.jpg", "hypothesis": "A dog runs.", "label": 0},
        ("entailment", "neutral", "contradiction"),
    ),
    "vsr": (
        {"image": PICTURE, "image_link": "a/1.jpg", "caption": "The cat is on the mat.", "label": 1, "relation": "on"},
        ("false", "true"),
    ),
    "pope": (
        {"image": PICTURE, "image_source": "1", "question_id": "1", "question": "Is there a cat?", "answer": "yes",
         "category": "random"},
        (),
    ),
    "mme": (
        {"image": PICTURE, "question_id": "1.png", "question": "Is it red? Please answer yes or no.", "answer": "Yes",
         "category": "color"},
        (),
    ),
    "cifar10": ({"img": PICTURE, "label": 3}, task("cifar10").data.classes),
    "mnist": ({"image": PICTURE, "label": 7}, tuple("0123456789")),
}  # fmt: skip
"""A row of each task, and the names of its classes."""


@pytest.mark.parametrize("name", ROWS)
def test_plain_in_its_own_order_is_the_tasks_own_question(name: str) -> None:
    row, names = ROWS[name]
    of = task(name)
    own, plain = of.sample(row, 0, names), of.asking(of.forms["plain"]).sample(row, 0, names)
    assert next(iter(of.forms)) == "plain"
    assert plain.image.key == own.image.key
    assert replace(plain, image=own.image) == replace(own, wording="")


@pytest.mark.parametrize("name", ROWS)
def test_every_form_of_a_task_can_be_written_and_ends_its_own_way(name: str) -> None:
    row, names = ROWS[name]
    of = task(name)
    written = [of.asking(form, first=first).sample(row, 0, names).question
               for form in of.forms.values() for first in (False, True)[: 2 if form.first else 1]]  # fmt: skip
    assert len(set(written)) == len(written)
    assert not any("{" in text or "  " in text for text in written)
    assert of.forms["steps"].first


def test_labels_are_rotated_evenly_so_that_each_stands_once_at_each_place() -> None:
    form = PromptForm("{options}")
    three = [form.labels(("a", "b", "c"), order, 3) for order in range(3)]
    assert three == [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")]
    assert [form.labels(tuple("abcdefghij"), order, 3)[0] for order in range(3)] == ["a", "d", "g"]
    assert PromptForm("", options=("true", "false")).labels(("false", "true")) == ("true", "false")


def test_conditions_follow_the_order_of_the_labels() -> None:
    form = PromptForm("{each} {caption} {options}?", each={"yes": "If so, yes.", "no": "If not, no."}, without=" Now.")
    row = {"caption": "It rains. Now."}
    assert form.written(form.ask, row, ("no", "yes")) == "If not, no. If so, yes. It rains. no or yes?"
    assert in_words(("a", "b", "c")) == "a, b or c"
    assert in_words(("a",)) == "a"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (PromptForm("{hypothesis} {premise}"), "names `premise`, and the row has no such column"),
        (PromptForm("{each}", each={"entailment": "Yes."}), "says nothing of the label `neutral`"),
    ],
)
def test_a_form_that_cannot_be_written_says_why_and_fails_the_check_of_its_task(form: PromptForm, message: str) -> None:
    row, names = ROWS["snli_ve"]
    of = replace(task("snli_ve"), forms={"odd": form})
    with pytest.raises(ValueError, match=message):
        of.asking(form).sample(row, 0, names)
    (found,) = [each for each in check_task(of, [row], names) if "forms" in each.name]
    assert not found.ok
    assert message in found.detail


def test_forms_of_the_embedded_suite_use_known_words_alone_and_write_no_free_text() -> None:
    from mmpt_bench.engine.pretraining.model import build_tokenizer

    tokenizer = build_tokenizer()
    texts = [text for forms in prompts.FORMS.values() for form in forms.values()
             for text in (form.ask, *form.each.values(), *form.options)]  # fmt: skip
    for text in texts:
        words = re.sub(r"{\w+}", "image", text)
        assert tokenizer.unk_token_id not in tokenizer(words)["input_ids"], text
    assert not any(form.first for forms in prompts.FORMS.values() for form in forms.values())
