"""Answers that share work are those of the plain way, alone and whole; and the work is shared: counts, no clocks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt_bench.common.errors import RequestError, RunFailed
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.engine.inference import predict as predict_module
from mmpt_bench.engine.inference import shared
from mmpt_bench.engine.inference.plain import one_by_one
from mmpt_bench.engine.inference.predict import InferenceOptions, predict, prediction
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.methods import method_catalog
from mmpt_bench.mmpt import MMPT
from support.synthetic import task
from support.tiny import pictures, tiny_backbone

QUESTIONS = ("is there a red circle ?", "how many ?", "what colour is there in a circle ?", "is there a red circle ?")
CHOICES = (("yes", "no"), ("one", "two circle", "three red square ?"), ("blue", "red"), ("yes", "no"))
TASK = task(parse=lambda reply, choices: None, max_new_tokens=5)
METHODS: dict[str, Any] = {
    name: method_catalog.load_method(method_catalog.method_entries()[name])()
    for name in ("frozen", "lora", "prefix", "projector", "vpt", "full", "mmpt")
}
METHODS |= {
    "released": MMPT(visual_length=3, text_length=2, visual_states="parameters"),
    "text": MMPT(visual_length=0, interaction=False),
    "shallow": MMPT(visual_length=3, text_length=2, visual_deep=False, text_deep=False),
}


SETTINGS: dict[str, Any] = {
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "encoder_repetition_penalty": 3.0,
    "suppress_tokens": list(range(5, 20)),
    "begin_suppress_tokens": list(range(5, 25)),
    "bad_words_ids": [[i] for i in range(5, 20)],
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 2,
    "min_length": 200,
    "min_new_tokens": 3,
    "sequence_bias": [[[9], 50.0]],
    "exponential_decay_length_penalty": [1, 9.0],
    "typical_p": 0.2,
    "epsilon_cutoff": 0.5,
    "eta_cutoff": 0.5,
    "min_p": 0.9,
    "guidance_scale": 3.0,
    "renormalize_logits": True,
    "num_beams": 3,
    "length_penalty": 4.0,
    "early_stopping": True,
    "cache_implementation": "static",
    "prompt_lookup_num_tokens": 2,
    "penalty_alpha": 0.6,
    "stop_strings": ["yes", "is"],
    "max_time": 1e-6,
}
SAMPLING = {"do_sample": True, "temperature": 9.0, "top_k": 3, "top_p": 0.5, "max_length": 12, "use_cache": False}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Returns a folder without settings of generation, and what it answers."""
    folder = tmp_path_factory.mktemp("clean")
    backbone = tiny_backbone(folder)
    return folder, (asked(backbone, samples(2)), plain(backbone, samples(2)))


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    torch.set_num_threads(1)
    return tiny_backbone(tmp_path)


def samples(count: int = 3) -> list[Sample]:
    """Returns four questions about each image, the last of which repeats the first."""
    made = []
    for i, image in enumerate(pictures(count)):
        for j, (question, choices) in enumerate(zip(QUESTIONS, CHOICES, strict=True)):
            shown = LazyImage(f"p{i}", lambda image=image: image)  # type: ignore[misc]
            made.append(Sample(f"{i}/{j}", shown, question, choices, choices[0]))
    return made


def asked(backbone: Backbone, of: list[Sample], **options: Any) -> dict[str, Prediction]:
    return {p.id: p for batch in predict(backbone, TASK, of, InferenceOptions(**options)) for p in batch}


def plain(backbone: Backbone, of: list[Sample]) -> dict[str, Prediction]:
    return {sample.id: prediction(TASK, sample, made) for sample, made in one_by_one(backbone, TASK, of)}


def moved(handle: Any) -> None:
    """Moves trained values from where they begin, at which some methods change nothing."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in handle.trainable.values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def assert_same(one: dict[str, Prediction], other: dict[str, Prediction]) -> None:
    assert one.keys() == other.keys()
    for name, expected in other.items():
        assert one[name].reply == expected.reply
        assert one[name].ranked == expected.ranked
        assert one[name].logprobs == pytest.approx(expected.logprobs, abs=2e-4)


@contextmanager
def counting(backbone: Backbone) -> Iterator[dict[str, list[tuple[int, int]]]]:
    """Yields the (rows, tokens) of every call of the first vision block and of the decoder."""
    calls: dict[str, list[tuple[int, int]]] = {"vision": [], "decoder": []}
    block = backbone.model.get_submodule(backbone.anatomy.vision_layers[0]).layer_norm1
    layer = backbone.model.get_submodule(backbone.anatomy.decoder_layers[0]).input_layernorm
    watched = {id(block): "vision", id(layer): "decoder"}

    def note(module: torch.nn.Module, args: tuple) -> None:
        # Prompts pass alone, as (prompts, dim), where they are made keys and values.
        if id(module) in watched and args[0].dim() == 3:
            calls[watched[id(module)]].append(tuple(args[0].shape[:2]))

    # A hook in the tower itself would make it one that an adapter reaches.
    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield calls
    finally:
        hook.remove()


@pytest.mark.parametrize("method", METHODS)
def test_shared_answers_are_those_of_the_plain_way(method: str, backbone: Backbone) -> None:
    handle = METHODS[method].attach(backbone, 0)
    moved(handle)
    said: list[str] = []
    expected = plain(backbone, samples())
    assert len({p.reply for p in expected.values()}) > 2
    assert_same(asked(backbone, samples(), say=said.append), expected)
    assert_same(asked(backbone, samples(), batch_size=5), expected)
    assert not said


@pytest.mark.parametrize("method", ["frozen", "mmpt"])
def test_one_question_a_picture_is_answered_as_the_plain_way_does(method: str, backbone: Backbone) -> None:
    METHODS[method].attach(backbone, 0)
    few = [sample for i, sample in enumerate(samples(6)) if i % 5 == 0]
    assert len({s.image.key for s in few}) == len(few)
    assert_same(asked(backbone, few), plain(backbone, few))


def test_a_picture_is_encoded_once_and_its_prefix_prefilled_once(backbone: Backbone) -> None:
    METHODS["frozen"].attach(backbone, 0)
    with counting(backbone) as calls:
        asked(backbone, samples())
    # Three images; and one for each of the two questions that are asked the plain way as well, as a check.
    assert sum(rows for rows, _ in calls["vision"]) == 3 + 2
    ids = backbone.tokens([backbone.prompt_text(QUESTIONS[0])])[0].ids
    prefix = len(ids) - ids[::-1].index(backbone.processor.image_token_id)
    # The comparison prefills its image once, and each of its two questions the plain way.
    assert [rows for rows, tokens in calls["decoder"] if tokens >= prefix] == [1, 1, 1, 3]
    assert (3, prefix) in calls["decoder"]


def test_features_of_a_frozen_tower_are_kept_for_the_next_method_and_those_of_prompts_are_not(
    backbone: Backbone,
) -> None:
    passes = {}
    for method in ("lora", "prefix", "vpt", "projector"):
        handle = METHODS[method].attach(backbone, 0)
        with counting(backbone) as calls:
            asked(backbone, samples(), images="set")
        passes[method] = sum(rows for rows, _ in calls["vision"])
        handle.remove()
    # Three images, and two for the check; where features are not kept, the check encodes its image once more.
    assert passes == {"lora": 3 + 2, "prefix": 2, "vpt": 3 + 2 + 1, "projector": 2}


def test_a_finished_reply_leaves_the_batch(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmpt_bench.engine.inference.shared.Shared.check", lambda *args: None)
    with torch.no_grad():
        inputs = [backbone.batch([s.image.open()], [backbone.prompt_text(s.question)]) for s in samples()]
        begins = [int(backbone.model(**one).logits[0, -1].argmax()) for one in inputs]
    assert len(set(begins)) > 1
    backbone.model.generation_config.eos_token_id = begins[0]
    with counting(backbone) as calls:
        answers = asked(backbone, samples())
    steps = [rows for rows, tokens in calls["decoder"] if tokens == 1]
    assert steps == sorted(steps, reverse=True)
    # Three images with three distinct questions each: those that begin with the end are not asked on.
    assert steps[0] == len({(i // 4, i % 4 % 3) for i, first in enumerate(begins) if first != begins[0]})
    assert_same(answers, plain(backbone, samples()))


def test_memory_that_runs_out_halves_the_batch_and_changes_no_reply(backbone: Backbone) -> None:
    expected = plain(backbone, samples())
    layer = backbone.model.get_submodule(backbone.anatomy.decoder_layers[1])

    def full(module: Any, args: tuple) -> None:
        if len(args[0]) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 40 bytes.")

    hook = layer.register_forward_pre_hook(full)
    try:
        assert_same(asked(backbone, samples()), expected)
    finally:
        hook.remove()


def test_memory_that_runs_out_in_the_comparison_itself_is_said_and_costs_no_reply(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise MemoryError("no room")

    expected = plain(backbone, samples())
    monkeypatch.setattr("mmpt_bench.engine.inference.shared.Shared.check", full)
    said: list[str] = []
    assert_same(asked(backbone, samples(), say=said.append), expected)
    assert ["memory ran out" in text for text in said] == [True]


def test_a_model_that_cannot_be_asked_so_is_asked_the_plain_way_and_that_is_said(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*args: Any) -> None:
        raise TypeError("unexpected keyword argument `logits_to_keep`")

    expected = plain(backbone, samples())
    monkeypatch.setattr("mmpt_bench.engine.inference.shared.Shared.check", unknown)
    said: list[str] = []
    assert_same(asked(backbone, samples(), say=said.append), expected)
    assert ["does not run on this model (TypeError: unexpected" in text for text in said] == [True]


def test_answers_that_go_wrong_from_the_second_word_on_are_found_before_they_are_given(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shared._positions

    def late(mask: Any, length: int, ahead: Any) -> Any:
        return whole(mask, length, ahead) + 3 * (length == 1)

    expected = plain(backbone, samples())
    monkeypatch.setattr(shared, "_positions", late)
    said: list[str] = []
    assert_same(asked(backbone, samples(), say=said.append), expected)
    assert ["logits differ" in text for text in said] == [True]


def test_text_before_the_picture_that_differs_is_asked_the_plain_way_and_said_once(backbone: Backbone) -> None:
    backbone.processor.chat_template = (
        "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'text' %}"
        "{{ part['text'] }}{% endif %}{% endfor %} <image> {% endfor %} : "
    )
    said: list[str] = []
    answers = asked(backbone, samples(), say=said.append)
    assert len(said) == 1
    assert "differ before the end of the image" in said[0]
    assert_same(answers, plain(backbone, samples()))


def test_a_picture_that_is_seen_with_its_question_is_asked_the_plain_way_and_said_once(backbone: Backbone) -> None:
    embeddings = backbone.model.get_input_embeddings()
    core = backbone.model.get_submodule(backbone.anatomy.core)
    length: list[int] = []
    hooks = [
        core.register_forward_pre_hook(
            lambda m, args, kwargs: length.append(kwargs["input_ids"].shape[1]), with_kwargs=True
        ),
        embeddings.register_forward_hook(lambda m, args, out: out * (1 + 0.01 * length[-1] * (length[-1] > 1))),
    ]
    said: list[str] = []
    try:
        answers = asked(backbone, samples(), say=said.append, batch_size=1)
        assert len(said) == 1
        assert "the method sees what the model is called with" in said[0]
        assert_same(answers, plain(backbone, samples()))
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("settings", [*({name: value} for name, value in SETTINGS.items()), SAMPLING], ids=str)
def test_settings_of_generation_in_the_folder_change_no_answer_and_are_named(
    settings: dict[str, Any], clean: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, wanted = clean
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    other = load_backbone(str(tmp_path), device="cpu", offline=True)
    assert other.left_out == (() if settings is SAMPLING else tuple(settings))
    assert (asked(other, samples(2)), plain(other, samples(2))) == wanted


def with_ends(folder: Path, to: Path, ends: Any) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    path = to / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": ends}))
    return to


def test_each_of_several_tokens_ends_a_reply_and_they_are_recorded(clean: tuple[Path, Any], tmp_path: Path) -> None:
    folder, (wanted, _) = clean
    one_end = load_backbone(str(folder), device="cpu", offline=True)
    assert (one_end.decoding, one_end.decoding_said) == ({}, [])
    # A word of a reply becomes an end: replies stop after it.
    longest = max((p.reply.split() for p in wanted.values()), key=len)
    word = longest[len(longest) // 2]
    token = one_end.processor.tokenizer.convert_tokens_to_ids(word)
    other = load_backbone(str(with_ends(folder, tmp_path, [2, token])), device="cpu", offline=True)
    answers = asked(other, samples(2))
    for name, uncut in wanted.items():
        words = uncut.reply.split()
        assert answers[name].reply.split() == (words[: words.index(word) + 1] if word in words else words)
    assert len(longest) > len(longest[: longest.index(word) + 1])
    assert_same(answers, plain(other, samples(2)))
    assert other.decoding == {"replies_end_at": ["</s>", word]}
    assert other.decoding_said == [
        f"By the backbone's generation_config, replies end at any of 2 tokens: `</s>`, `{word}`."
    ]
    assert other.fingerprint != one_end.fingerprint


@pytest.mark.parametrize("ends", [100_000, [2, -1], [2, "3"], [2, 3.5]], ids=str)
def test_an_end_that_is_no_token_is_refused(ends: Any, clean: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="`eos_token_id` of the model's generation_config"):
        load_backbone(str(with_ends(clean[0], tmp_path, ends)), device="cpu", offline=True)


def test_close_calls_in_half_precision_are_asked_again_and_counted(tmp_path: Path, backbone: Backbone) -> None:
    from mmpt_bench.engine.models.backbone import load_backbone

    half = load_backbone(str(tmp_path), "bfloat16", device="cpu", offline=True)
    with torch.no_grad():
        half.model.lm_head.weight[:] = half.model.lm_head.weight[:1]
    said: list[str] = []
    guarded = asked(half, samples(), say=said.append)
    assert "9 of 9 answers were close calls in bfloat16" in said[-1]
    assert {k: p.reply for k, p in guarded.items()} == {k: p.reply for k, p in plain(half, samples()).items()}
    said.clear()
    asked(half, samples(), say=said.append, guard=False)
    assert not said


def test_the_last_layer_computes_the_rows_that_are_read_alone(backbone: Backbone) -> None:
    METHODS["frozen"].attach(backbone, 0)
    layers = [backbone.model.get_submodule(name).mlp.down_proj for name in backbone.anatomy.decoder_layers]
    rows: dict[int, list[int]] = {0: [], 2: []}
    for index, seen in rows.items():
        layers[index].register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args[0][..., 0].numel()))
    one_question = [sample for i, sample in enumerate(samples()) if i % 4 == 0]
    asked(backbone, one_question)
    prompt = len(backbone.tokens([backbone.prompt_text(QUESTIONS[0])])[0].ids)
    # The third call is the prefill of the three questions; before it come the two sides of the comparison.
    assert 3 * prompt in rows[0]
    assert rows[2][rows[0].index(3 * prompt)] == 3


def summed(backbone: Backbone, sample: Sample) -> list[float]:
    """Returns the log-probability of each choice after the question, word by word, as the model alone gives it."""
    words = backbone.processor.tokenizer
    prompt = f"USER: <image>\n{sample.question} ASSISTANT:"
    found = []
    for choice in sample.choices:
        given = backbone.processor(images=sample.image.open(), text=prompt, return_tensors="pt")
        answer = words(choice, add_special_tokens=False, return_tensors="pt").input_ids
        known = len(given["input_ids"][0])
        ids = torch.cat([given["input_ids"], answer], dim=1)
        with torch.no_grad():
            logits = backbone.model(input_ids=ids, pixel_values=given["pixel_values"]).logits[0].log_softmax(-1)
        found.append(sum(logits[at - 1, ids[0, at]].item() for at in range(known, len(ids[0]))))
    return found


def test_a_legal_answer_counts_by_the_sum_of_its_tokens_log_probabilities(backbone: Backbone) -> None:
    of = samples(2)
    shared, alone = asked(backbone, of), plain(backbone, of)
    otherwise = 0
    for sample in of:
        sums = summed(backbone, sample)
        for made in (shared[sample.id], alone[sample.id]):
            assert made.logprobs == pytest.approx(sums, abs=1e-3)
            assert made.ranked == sample.choices[sums.index(max(sums))]
        means = [total / len(choice.split()) for total, choice in zip(sums, sample.choices, strict=True)]
        otherwise += means.index(max(means)) != sums.index(max(sums))
    assert otherwise, "divided by their lengths, sums would say the same here"


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_answers_of_several_tokens_count_alike_however_few_are_scored_at_once(
    rows: int, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = ("two circle", "three red square ?", "no circle")
    of = [dataclasses.replace(sample, choices=long, answer=long[0]) for sample in samples(2)]
    monkeypatch.setattr("mmpt_bench.engine.inference.shared.CHOICE_ROWS", rows)
    shared, alone = asked(backbone, of), plain(backbone, of)
    for sample in of:
        for made in (shared[sample.id], alone[sample.id]):
            assert made.logprobs == pytest.approx(summed(backbone, sample), abs=1e-3)


def test_log_probabilities_of_which_one_is_not_finite_fail_the_run() -> None:
    (sample, *_) = samples(1)
    for made in ((-1.0, float("nan")), (float("-inf"), -1.0)):
        with pytest.raises(RunFailed, match=rf"of sample `{sample.id}` are not finite"):
            prediction(TASK, sample, ("yes", made))


def test_what_rounding_explains_is_some_units_in_the_last_place() -> None:
    """Of a logit near 16 for the lead of a word, of the largest logit for the shared way."""
    for dtype in ("float16", "bfloat16"):
        eps = torch.finfo(getattr(torch, dtype)).eps
        assert 1 <= predict_module.MARGIN[dtype] / (16 * eps) < 2
        assert 8 <= shared.TOLERANCE[dtype] / eps < 24


def test_features_are_means_of_the_last_states_and_end_where_they_are_stopped(backbone: Backbone) -> None:
    asked = [(LazyImage(str(i), lambda image=image: image), "how many ?") for i, image in enumerate(pictures(3))]  # type: ignore[misc]
    found = predict_module.pooled_features(backbone, asked, batch=2)
    for (image, question), own in zip(asked, found, strict=True):
        given = backbone.batch([image.open()], [backbone.prompt_text(question)])
        with torch.no_grad():
            states = backbone.model(**given, output_hidden_states=True).hidden_states[-1]
        assert torch.allclose(own, states[0].mean(dim=0), atol=1e-5)
    calls = iter([False, True])
    assert len(predict_module.pooled_features(backbone, asked, batch=2, stopping=lambda: next(calls))) == 2
    assert len(predict_module.pooled_features(backbone, asked, stopping=lambda: True)) == 0


def test_a_lead_is_that_of_the_best_word_over_the_second() -> None:
    assert shared._lead(torch.tensor([[1.0, 4.0, 3.0, -9.0], [2.0, 2.0, 0.0, 1.5]])).tolist() == [1.0, 0.0]
