"""Training data in the forms that people keep them in: the same conversation is the same example in each."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.conversations import read_conversations
from mmpt_bench.data.examples import Exchange, Opening
from mmpt_bench.sources.corpora import TrainData, check_train_data, load_corpus

EXCHANGES = (Exchange("What is here?", "A cat."), Exchange("And behind it?", "A dog."))


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (3, 2), "blue").save(stream, "PNG")
    return stream.getvalue()


def llava(first: str = "<image>\nWhat is here?", **more: Any) -> dict[str, Any]:
    said = (("human", first), ("gpt", "A cat."), ("human", "And behind it?"), ("gpt", "A dog."))
    return {"image": "0.png", "conversations": [{"from": who, "value": text} for who, text in said]} | more


def messages(*, image: Any = None, key: str = "messages", **more: Any) -> dict[str, Any]:
    """Returns OpenAI's and TRL's form, the image as a part of the first message."""
    part = {"type": "image"} if image is None else {"type": "image", "image": image}
    first = [part, {"type": "text", "text": "What is here?"}]
    said = (("user", first), ("assistant", "A cat."), ("user", "And behind it?"), ("assistant", "A dog."))
    return {key: [{"role": who, "content": content} for who, content in said]} | more


def as_url() -> str:
    return f"data:image/png;base64,{base64.b64encode(png()).decode()}"


def openai() -> dict[str, Any]:
    row = messages()
    row["messages"][0]["content"][0] = {"type": "image_url", "image_url": {"url": as_url()}}
    return row


ALPACA = {
    "instruction": "And behind it?",
    "input": "",
    "output": "A dog.",
    "history": [["<image>What is here?", "A cat."]],
    "images": ["0.png"],
}
FORMS: dict[str, Callable[[], dict[str, Any]]] = {
    "LLaVA": llava,
    "ShareGPT, role and content": lambda: {
        "images": ["0.png"],
        "conversations": [
            {"role": {"human": "user", "gpt": "assistant"}[turn["from"]], "content": turn["value"]}
            for turn in llava()["conversations"]
        ],
    },
    "TRL, images beside": lambda: messages(images=["0.png"]),
    "TRL, the image in its part": lambda: messages(image="0.png"),
    "TRL, bytes": lambda: messages(images=[{"bytes": base64.b64encode(png()).decode(), "path": None}]),
    "OpenAI": openai,
    "LLaMA-Factory, alpaca": lambda: ALPACA,
    "prompt and completion": lambda: {
        "images": ["0.png"],
        "prompt": messages()["messages"][:3],
        "completion": messages()["messages"][3:],
    },
}


def data(folder: Path, *rows: dict[str, Any], name: str = "mine.json") -> Path:
    (folder / "0.png").write_bytes(png())
    (folder / name).write_text(json.dumps(rows))
    return folder / name


@pytest.mark.parametrize("form", FORMS)
def test_a_conversation_is_the_same_in_every_form(tmp_path: Path, form: str) -> None:
    file = data(tmp_path, FORMS[form]())
    read = read_conversations(file, tmp_path)
    (one,) = read.conversations
    assert (one.exchanges, one.opening) == (EXCHANGES, Opening())
    held = read.files[one.image]
    assert (held if isinstance(held, bytes) else held.read_bytes()) == png()


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.parquet", "train.json in a folder", "save_to_disk"])
def test_files_of_other_forms_are_training_data_too(tmp_path: Path, name: str) -> None:
    rows = [messages(images=[{"bytes": png() + bytes([i]), "path": None}]) for i in range(3)]
    for row in rows:
        row["messages"][0]["content"] = "<image>What is here?"
    path = tmp_path / name.split()[0]
    if name == "save_to_disk":
        import datasets

        datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(path)
    elif name == "mine.parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        plain = [row | {"images": [base64.b64encode(row["images"][0]["bytes"]).decode()]} for row in rows]
        text = "\n".join(map(json.dumps, plain)) if name == "mine.jsonl" else json.dumps(plain)
        path.write_text(text + "\n")
        path = tmp_path if "folder" in name else path
    wanted = TrainData(str(path))
    check_train_data(wanted)
    corpus = load_corpus(wanted)
    assert corpus.size + corpus.validation_size == 3
    assert corpus.example(0).exchanges == EXCHANGES
    assert corpus.example(0).image.open().getpixel((0, 0)) == (0, 0, 255)


def test_llama_factorys_file_says_how_columns_and_tags_are_called(tmp_path: Path) -> None:
    turns = [{"who": "u", "says": "<image>What is here?"}, {"who": "a", "says": "A cat."}]
    file = data(tmp_path, {"talk": turns, "pics": ["0.png"], "rules": "Be brief."})
    info = {
        "mine": {
            "file_name": "mine.json",
            "formatting": "sharegpt",
            "columns": {"messages": "talk", "images": "pics", "system": "rules"},
            "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "u", "assistant_tag": "a"},
        }
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    by_file, by_folder = (read_conversations(path, tmp_path) for path in (file, tmp_path))
    assert by_file == by_folder
    assert (by_file.conversations[0].exchanges, by_file.conversations[0].opening.system) == (EXCHANGES[:1], "Be brief.")
    alpaca = {"q": "<image>What is here?", "a": "A cat.", "pics": ["0.png"]}
    info["mine"] = {"file_name": "mine.json", "columns": {"prompt": "q", "response": "a", "images": "pics"}}
    data(tmp_path, alpaca)
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    assert read_conversations(tmp_path, tmp_path).conversations[0].exchanges == EXCHANGES[:1]
    (tmp_path / "other.json").write_text("[]")
    info["other"] = {"file_name": "other.json"}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(RequestError, match=r"names several files: mine.json, other.json"):
        read_conversations(tmp_path, tmp_path)


def test_other_columns_of_training_data_are_told(tmp_path: Path) -> None:
    row = {"pic": "0.png", "talk": llava()["conversations"]}
    file = data(tmp_path, row)
    columns = (("image", "pic"), ("conversations", "talk"))
    assert read_conversations(file, tmp_path, columns=columns).conversations[0].exchanges == EXCHANGES
    with pytest.raises(RequestError, match=r"no column `pik`. Did you mean `pic`\?"):
        read_conversations(file, tmp_path, columns=(("image", "pik"),))


def test_a_system_turn_is_kept_and_changes_the_fingerprint(tmp_path: Path) -> None:
    plain = read_conversations(data(tmp_path, llava()), tmp_path)
    row = llava()
    row["conversations"] = [{"from": "system", "value": "Be brief."}, *row["conversations"]]
    read = read_conversations(data(tmp_path, row), tmp_path)
    assert (read.conversations[0].exchanges, read.conversations[0].opening) == (EXCHANGES, Opening("Be brief."))
    assert read.fingerprint != plain.fingerprint


@pytest.mark.parametrize(
    ("first", "question", "at"),
    [
        ("<image>\nWhat is here?", "What is here?", 0),
        ("What is here?", "What is here?", 0),
        ("What is here?\n<image>", "What is here?\n", 14),
        ("What is in <image> here?", "What is in  here?", 11),
    ],
)
def test_the_image_stays_where_it_stands(tmp_path: Path, first: str, question: str, at: int) -> None:
    read = read_conversations(data(tmp_path, llava(first)), tmp_path)
    (one,) = read.conversations
    assert (one.exchanges[0].question, one.opening) == (question, Opening("", at))


@pytest.mark.parametrize(("name", "learnt"), [("weight", 0), ("weight", 0.0), ("train", False), ("loss", False)])
def test_replies_of_no_weight_are_not_learnt(tmp_path: Path, name: str, learnt: Any) -> None:
    row = llava()
    row["conversations"][1][name] = learnt
    read = read_conversations(data(tmp_path, row), tmp_path)
    assert [each.learnt for each in read.conversations[0].exchanges] == [False, True]
    assert "1 reply has no weight and is read without being learnt" in read.notes
    silent = llava()
    for turn in silent["conversations"]:
        turn[name] = learnt
    read = read_conversations(data(tmp_path, row, silent), tmp_path)
    assert "1 conversations without a reply that is learnt are left out" in read.notes


def test_an_entry_of_no_weight_is_not_learnt(tmp_path: Path) -> None:
    read = read_conversations(data(tmp_path, llava(), llava(weight=0)), tmp_path)
    assert "1 conversations without a reply that is learnt are left out" in read.notes


@pytest.mark.parametrize(
    ("given", "learnt"), [(True, False), (1, False), ("True", False), (False, True), (0, True), ("", True)]
)
def test_the_last_reply_alone_may_be_learnt(tmp_path: Path, given: Any, learnt: bool) -> None:
    read = read_conversations(data(tmp_path, llava(mask_history=given)), tmp_path)
    assert [each.learnt for each in read.conversations[0].exchanges] == [learnt, True]


def changed(position: int, **change: Any) -> dict[str, Any]:
    row = llava()
    row["conversations"][position] |= change
    return row


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (changed(1, weight=0.5), r"`weight` is `0.5`: a reply is learnt \(1\) or not \(0\)"),
        (llava(weight=0.5), r"`weight` is `0.5`: a reply is learnt"),
        (llava(mask_history="perhaps"), "`mask_history` is `'perhaps'`, not true or false"),
        (llava(videos=["a.mp4"]), "`videos` is not read"),
        (llava(tools="[{}]"), "`tools` is not read"),
        (llava(chosen={"from": "gpt", "value": "A cat."}), "`chosen` is not read"),
        (llava(label=False), r"`label` that says whether a reply is wanted \(KTO\) is not read"),
        (changed(1, reasoning_content="I see."), "`reasoning_content` of a turn is not read"),
        (llava("<IMAGE>\nWhat is here?"), "holds `<IMAGE>`: an image stands in a text as `<image>`"),
        (llava("<|image_pad|>\nWhat is here?"), r"holds `<\|image_pad\|>`"),
        (changed(1, **{"from": "tool"}), "not `human` or `gpt`, but of `'tool'`"),
        (changed(2, **{"from": "system"}), "turn of the system after the first question"),
        (changed(0, value=[{"type": "video"}]), "a part of type `'video'`"),
        (messages(image="https://x/1.png"), "an address of the web"),
        (llava(image="x" * 5000), "^In `mine.json`, 1 entry is no conversation: entry 1: 5,000 characters of text"),
        ({"text": "x" * 5000}, "no list of questions with replies"),
    ],
)
def test_an_entry_of_another_form_is_named_in_short(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read_conversations(data(tmp_path, row), tmp_path)
    assert len(str(caught.value)) < 300


def test_a_dataset_info_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("[]")
    (tmp_path / "talks.json").write_text(json.dumps([llava()]))
    with pytest.raises(RequestError, match=r"`dataset_info.json` of `.*` is no JSON object"):
        read_conversations(tmp_path / "talks.json", tmp_path)
