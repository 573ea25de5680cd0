"""Training data of a user's own: LLaVA's form, decontaminated mixtures, a task's training split, the held-out part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmpt_bench.common.errors import MachineError, RequestError
from mmpt_bench.data.conversations import is_evaluated, read_conversations
from mmpt_bench.data.examples import Exchange
from mmpt_bench.sources.corpora import TrainData, check_train_data, load_corpus
from support.paths import DATA, needs_data


def entry(number: int, **changes: Any) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": f"<image>\nWhat is in image {number}?"},
        {"from": "gpt", "value": f"Thing {number}."},
    ]
    row = {"id": str(number), "image": f"a/{number}.png", "task_name": "AID+scene", "conversations": turns}
    return row | changes


def mixture(folder: Path, rows: list[dict[str, Any]], draw: bool = True) -> Path:
    for row in rows:
        if draw and isinstance(row.get("image"), str):
            path = folder / row["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2), "blue").save(path)
    (folder / "mixture.json").write_text(json.dumps(rows))
    return folder / "mixture.json"


def test_an_entry_is_a_question_a_reply_and_a_picture(tmp_path: Path) -> None:
    corpus = load_corpus(TrainData(str(mixture(tmp_path, [entry(i) for i in range(100)]))))
    assert (corpus.name, corpus.size, corpus.validation_size, corpus.notes) == ("mixture", 98, 2, ())
    example = corpus.example(0)
    assert (example.prompt, example.target) == ("What is in image 0?", "Thing 0.")
    assert example.image.open().getpixel((0, 0)) == (0, 0, 255)


def test_the_held_out_part_shares_no_picture_with_the_rest_and_is_the_same_every_time(tmp_path: Path) -> None:
    rows = [entry(i, image=f"{i % 40}.png") for i in range(400)]
    file = str(mixture(tmp_path, rows))
    corpus = load_corpus(TrainData(file))
    trained = {corpus.example(i).image.key for i in range(corpus.size)}
    held_out = {corpus.validation(i).image.key for i in range(corpus.validation_size)}
    assert (corpus.size + corpus.validation_size, len(held_out)) == (400, 1)
    assert not trained & held_out
    (tmp_path / "reversed").mkdir()
    other = load_corpus(TrainData(str(mixture(tmp_path / "reversed", rows[::-1]))))
    assert {other.validation(i).image.key for i in range(other.validation_size)} == held_out
    assert other.fingerprint != corpus.fingerprint


def test_a_conversation_is_one_example_with_all_its_exchanges(tmp_path: Path) -> None:
    long = entry(1)
    long["conversations"] = long["conversations"] + [
        {"from": "human", "value": "And behind it?"},
        {"from": "gpt", "value": "Nothing."},
    ]
    read = read_conversations(mixture(tmp_path, [entry(0), long]), tmp_path)
    assert [one.exchanges for one in read.conversations] == [
        (Exchange("What is in image 0?", "Thing 0."),),
        (Exchange("What is in image 1?", "Thing 1."), Exchange("And behind it?", "Nothing.")),
    ]
    assert read.notes == ("1 conversation has several exchanges, 2 in all",)
    corpus = load_corpus(TrainData(str(mixture(tmp_path, [entry(0), long, long]))))
    assert (corpus.size + corpus.validation_size, corpus.most_exchanges) == (3, 2)
    assert corpus.example(0).exchanges in [one.exchanges for one in read.conversations]


def test_another_image_of_the_same_size_is_other_training_data(tmp_path: Path) -> None:
    file = mixture(tmp_path, [entry(i) for i in range(3)])
    before = read_conversations(file, tmp_path).fingerprint
    image = tmp_path / "a/1.png"
    for place in (0, 50_000, 99_999):
        image.write_bytes(bytes(100_000))
        plain = read_conversations(file, tmp_path).fingerprint
        data = bytearray(100_000)
        # In the samples of beginning, middle and end.
        data[place] = 1
        image.write_bytes(bytes(data))
        assert read_conversations(file, tmp_path).fingerprint not in (plain, before)


def test_what_cannot_be_trained_on_is_left_out_and_counted(tmp_path: Path) -> None:
    late, silent = entry(5), entry(6)
    late["conversations"] = late["conversations"] + [
        {"from": "human", "value": "And in <image>?"},
        {"from": "gpt", "value": "Nothing."},
    ]
    silent["conversations"] = [silent["conversations"][0], {"from": "gpt", "value": " "}]
    rows = [entry(0), entry(2, image=None), {k: v for k, v in entry(3).items() if k != "image"}]
    rows += [entry(4, image=["a/0.png", "a/1.png"]), late, silent]
    read = read_conversations(mixture(tmp_path, rows), tmp_path)
    assert len(read.conversations) == 1
    assert read.notes == (
        "2 conversations about no image are left out",
        "1 conversations about several images are left out",
        "1 conversations that show their image late are left out",
        "1 conversations with an empty reply are left out",
    )


def test_a_second_mark_of_one_image_is_left_out_and_counted(tmp_path: Path) -> None:
    twice, beside = entry(1), entry(2)
    twice["conversations"] = [{"from": "human", "value": "<image><image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    beside["conversations"] = [
        {"from": "human", "value": "In <image> and <image>?"},
        {"from": "gpt", "value": "A cat."},
    ]
    read = read_conversations(mixture(tmp_path, [entry(0), twice, beside]), tmp_path)
    assert len(read.conversations) == 1
    assert read.notes == ("2 conversations with more `<image>` than images are left out",)


@pytest.mark.parametrize("column", [None, ["a/0.png"], ["a/0.png", "a/0.png"]])
def test_equal_image_parts_are_as_many_images(tmp_path: Path, column: list[str] | None) -> None:
    image = {"type": "image", "image": "a/0.png"}

    def row(n: int) -> dict[str, Any]:
        content = [*[image] * n, {"type": "text", "text": "What?"}]
        said = [{"role": "user", "content": content}, {"role": "assistant", "content": "A cat."}]
        return {"messages": said} | ({"images": column} if column else {})

    read = read_conversations(mixture(tmp_path, [entry(0), row(2)]), tmp_path)
    assert len(read.conversations) == 1
    assert read.notes == ("1 conversations about several images are left out",)
    if column != ["a/0.png", "a/0.png"]:
        assert len(read_conversations(mixture(tmp_path, [entry(0), row(1)]), tmp_path).conversations) == 2


def test_a_decontaminated_mixture_drops_tasks_whose_pictures_are_evaluated(tmp_path: Path) -> None:
    names = ["AID+scene", "CINIC-10+object_presence_animal", "MNIST_M+number", "Flickr30k", "COCO+x", "STL-10+y"]
    rows = [entry(i, task_name=name) for i, name in enumerate(names * 2)]
    read = read_conversations(mixture(tmp_path, rows), tmp_path, decontaminated=True)
    assert len(read.conversations) == 2
    assert read.notes[-1].startswith(
        "decontaminated: 10 examples of 5 tasks dropped: CINIC-10+object_presence_animal (2)"
    )
    whole = read_conversations(tmp_path / "mixture.json", tmp_path)
    assert (len(whole.conversations), whole.fingerprint != read.fingerprint) == (12, True)
    without = [{k: v for k, v in row.items() if k != "task_name"} for row in rows]
    with pytest.raises(RequestError, match=r"Entry 1 of `mixture.json` names no task"):
        read_conversations(mixture(tmp_path, without), tmp_path, decontaminated=True)


SHARED = [
    "MNIST-M+number_recognition", "STL-10+Image_Classification", "cinic-10+image_classification_animal",
    "cinic-10+image_classification_shipping", "cinic-10+image_classification_transport",
    "cinic-10+object_presence_animal", "cinic-10+object_presence_shipping", "FLICKR30K+caption_image",
    "LOC_NARRATIVES+flickr30k_images_caption", "LOC_NARRATIVES+coco_images_caption", "coco+image_classification_animal",
    "coco+image_classification_appliance", "coco+image_classification_furniture", "coco+image_classification_kitchen",
    "coco+image_classification_sports", "coco+image_classification_vehicle", "image_caption", "image_text_selection",
    "ITM", "question_image_match", "VQA", "VQAv2", "VQA_color", "VQA_attribute", "VQA_counting",
    "VQA_activity_recognition", "VQA_object_presence", "VQA_object_recognition", "VQA_positional_reasoning",
    "VQA_scene_recognition", "VQA_sentiment_understanding", "VQA_sport_recognition", "VQA_utility_affordance",
    "VQA-E+image_captioning", "VQA-E+visual_question_answering", "ok_vqa", "A-OKVQA+answer_rationales_matching",
    "A-OKVQA+rationales_generation", "A-OKVQA+visual_question_answering", "visdial+answer_question_2",
    "visdial+answer_question_4", "visdial+answer_question_6", "visdial+answer_question_9", "VQG+caption_generation",
    "VQG+question_generation", "GQA", "visualgenome_vqa", "SentiCap+image_sentiment_captioning",
    "STVQA+image_question_answer", "ExDark+object_recognition", "VisDA-2017+image_classification",
    "VisDA-2017+object_classification_validation",
]  # fmt: skip
OWN = [
    "VQARAD+question_answer", "FlickrLogos-27+logo_detection", "vizwiz+question_answer",
    "infographicvqa+question_answer", "DOCVQA+question_answer", "LOC_NARRATIVES+ade20k_images_caption",
    "LOC_NARRATIVES+open_images_caption", "NOCAPS+image_caption", "VisDA-2017+object_classification_train",
    "image_quality", "multimodal_factual_checking", "KVQA+image_question_answer", "CLEVR+question_answer",
    "VOC2007+object_detection", "HICO+object_classification", "textcaps+caption_generation",
]  # fmt: skip


@pytest.mark.parametrize("name", [*SHARED, "CIFAR10", "RefCOCO", "snli_ve"])
def test_tasks_on_pictures_of_the_evaluated_ones_are_known_by_name(name: str) -> None:
    assert is_evaluated(name)


@pytest.mark.parametrize("name", OWN)
def test_tasks_on_pictures_of_their_own_are_kept(name: str) -> None:
    assert not is_evaluated(name)


def test_missing_training_pictures_are_listed_by_count_and_first_names(tmp_path: Path) -> None:
    file = mixture(tmp_path, [entry(i) for i in range(30)], draw=False)
    with pytest.raises(RequestError, match=r"30 images are missing: `a/0.png`.*and 20 more.*--train-images DIR"):
        load_corpus(TrainData(str(file)))
    mixture(tmp_path, [entry(0, image="../../secret.png")], draw=False)
    with pytest.raises(RequestError, match="1 image is missing"):
        read_conversations(file, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": 3}, "`image` is `3`, not a file name"),
        ({"image": [1]}, r"`image` is `\[1\]`, not a file name"),
        ({"conversations": []}, "no list of questions with replies"),
        ({"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]}, "not `human`"),
        ({"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "b"}]}, "is empty"),
    ],
)
def test_an_entry_of_another_form_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=f"1 entry is no conversation: entry 2: .*{message}"):
        load_corpus(TrainData(str(mixture(tmp_path, [entry(0), entry(1, **change)]))))


def test_a_mixture_of_which_nothing_is_left_says_why(tmp_path: Path) -> None:
    rows = [entry(0, image=None), entry(1, image=["a/0.png", "a/1.png"]), entry(2, image="")]
    wanted = r"no conversation about one image in `mixture.json`: 2 conversations about no image; 1 .*several"
    with pytest.raises(RequestError, match=wanted):
        read_conversations(mixture(tmp_path, rows, draw=False), tmp_path)
    with pytest.raises(RequestError, match="nothing is left of it"):
        read_conversations(mixture(tmp_path, [entry(0, task_name="GQA")]), tmp_path, decontaminated=True)


def test_a_mixture_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    file = mixture(tmp_path, [entry(0), entry(1)])
    file.write_text(file.read_text()[:-5])
    with pytest.raises(RequestError, match="no JSON array"):
        load_corpus(TrainData(str(file)))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (TrainData("vision-flam"), "Did you mean `vision-flan`"),
        (TrainData("vision-flan"), "36 GB"),
        (TrainData("task:vsr", decontaminated=True), "not for `task:vsr`"),
        (TrainData(images=Path()), "not for `embedded`"),
        (TrainData("task:all"), "names 6 tasks"),
        (TrainData("task:cifar10,mnist"), "names 2 tasks"),
        (TrainData("task:mnst"), "Did you mean `mnist`"),
    ],
)
def test_what_can_be_no_training_data_is_refused_before_anything_is_read(wanted: TrainData, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        check_train_data(wanted)


def test_vision_flan_that_is_not_in_the_cache_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a socket was opened"))
    with pytest.raises(MachineError, match=r"annotation_191-task_1k.json` of `Vision-Flan/.*--train-data FILE"):
        load_corpus(TrainData("vision-flan", images=tmp_path, offline=True))


@needs_data
def test_a_tasks_training_split_asks_its_own_question(tmp_path: Path) -> None:
    (tmp_path / "vsr_zeroshot" / "images").mkdir(parents=True)
    lines = (DATA / "vsr_zeroshot" / "raw" / "train.jsonl").read_text().splitlines()[:40]
    (tmp_path / "vsr_zeroshot" / "train.jsonl").write_text("\n".join(lines))
    for line in lines:
        Image.new("RGB", (2, 2)).save(tmp_path / "vsr_zeroshot" / "images" / json.loads(line)["image"])
    corpus = load_corpus(TrainData("task:vsr", data=tmp_path))
    assert corpus.name == "vsr train"
    assert corpus.size + corpus.validation_size == 40
    assert corpus.example(0).prompt.endswith("Is the statement true or false?")
    assert corpus.example(0).target in ("true", "false")


@needs_data
def test_a_task_without_a_training_split_is_refused_and_its_test_split_never_taken() -> None:
    with pytest.raises(RequestError, match="no split `train`"):
        load_corpus(TrainData("task:pope", data=DATA))
