"""Protocols of papers: what they ask, how they read, and MMAvg worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.protocols import (
    FILES,
    PROTOCOLS,
    TEMPLATES,
    Item,
    asked_as,
    exact_match,
    mmavg,
    own_items,
    verdict_key,
    written,
)
from support.tasks import task

IMAGE = LazyImage("i", lambda: (_ for _ in ()).throw(AssertionError("no image is opened")))
ACCURACIES = {
    "text_vqa": 0.5, "visual_spatial_reasoning": 0.6, "snli_ve_classification": 0.4, "cifar_10": 0.9,
    "cifar_100": 0.3, "mnist": 0.8, "pope_rand": 0.9, "pope_pop": 0.8, "pope_adv": 0.7,
}  # fmt: skip


def test_mmavg_is_the_mean_of_seven_with_pope_counted_once() -> None:
    # 0.5 + 0.6 + 0.4 + 0.9 + 0.3 + 0.8 + (0.9 + 0.8 + 0.7) / 3 = 4.3
    assert mmavg(ACCURACIES) == pytest.approx(4.3 / 7)
    arrays = {name: np.array([value, 1.0]) for name, value in ACCURACIES.items()}
    assert mmavg(arrays) == pytest.approx([4.3 / 7, 1.0])


@pytest.mark.parametrize("lacking", ACCURACIES)
def test_mmavg_is_not_there_where_a_file_is_missing(lacking: str) -> None:
    assert mmavg({name: value for name, value in ACCURACIES.items() if name != lacking}) is None


@pytest.mark.parametrize(
    ("reply", "target", "right"),
    [("Yes.", "yes", True), (" not sure\n", "Not sure", True), ("yes, it is", "yes", False), ("", "yes", False),
     ("a.b", "a b", False)],
)  # fmt: skip
def test_exact_match_ignores_case_outer_blanks_and_full_stops(reply: str, target: str, right: bool) -> None:
    assert exact_match(reply, target) is right


def test_templates_are_llavas_word_for_word() -> None:
    assert written(TEMPLATES["vicuna_v1"], "<image>", "Is it red?\n[Options]: yes||||no") == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: <image>\nIs it red?\nOptions: yes||||no ASSISTANT:"
    )
    assert "curious human" in TEMPLATES["llava_v1"]
    assert "the human's questions" in TEMPLATES["llava_v1"]


def test_protocols_differ_in_template_temperature_and_length() -> None:
    def told(name: str, file: str) -> tuple[bool, float, int]:
        made = PROTOCOLS[name].decoding(file, 3)
        assert (made["seed"], made["top_k"]) == (3, 50)
        return made["template"] == TEMPLATES["vicuna_v1"], made["temperature"], made["new_tokens"]

    assert [told("m2pt", file) for file in ("mme", "mnist")] == [(True, 0.2, 128), (False, 0.2, 50)]
    assert [told("mixlora", file) for file in ("mme", "mnist")] == [(False, 0.2, 1024)] * 2
    assert [told("mrt", file) for file in ("mme", "mnist")] == [(True, 0.4, 8), (False, 0.2, 50)]
    assert len(FILES) == 10


def test_made_items_ask_vsr_as_yes_or_no_and_shuffle_options_the_same_way_each_time() -> None:
    form = asked_as("visual_spatial_reasoning")
    assert form is not None
    of = task("vsr").asking(form)
    rows = [
        {
            "image": b"x",
            "image_link": f"a/{n}.jpg",
            "caption": "The cat is on the mat.",
            "label": n % 2,
            "relation": "on",
        }
        for n in range(20)
    ]
    samples = [of.sample(row, n, ("false", "true")) for n, row in enumerate(rows)]
    items = own_items("visual_spatial_reasoning", samples)
    assert [item.target for item in items[:2]] == ["no", "yes"]
    ends = {item.prompt.rpartition("[Options]: ")[2] for item in items}
    assert ends == {"yes||||no", "no||||yes"}
    assert items == own_items("visual_spatial_reasoning", samples)
    assert items[0].prompt.startswith("The cat is on the mat. Is this true of the image?\n\n[Options]: ")


def test_made_items_of_pope_are_those_of_one_strategy() -> None:
    samples = [Sample(g, IMAGE, "Is there a cat?", ("yes", "no"), "yes", g) for g in ("random", "popular")]
    assert [item.id for item in own_items("pope_pop", samples)] == ["popular"]
    assert own_items("pope_pop", samples)[0].prompt == "Is there a cat?"


def test_a_verdict_is_on_an_item_and_a_reply() -> None:
    item = Item("1", IMAGE, "i", "Is it red?", "yes")
    keys = {verdict_key("mnist", item, "yes"), verdict_key("mnist", item, "no"), verdict_key("pope_pop", item, "yes")}
    assert len(keys) == 3
    assert verdict_key("mnist", item, "yes") in keys
