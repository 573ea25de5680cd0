"""Training entries as one form: LLaVA's, ShareGPT's, `messages` of TRL and OpenAI, and LLaMA-Factory's columns.

An entry is its images and its turns; which of them can be trained on is decided in conversations.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError, shown, unknown_name
from mmpt_bench.common.files import loads
from mmpt_bench.data.file_forms import read_file
from mmpt_bench.data.split_files import split_files
from mmpt_bench.data.text_files import json_rows, text_of

IMAGE = "<image>"
"""Stands in a text for an image."""
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {"human": USER, "user": USER, "gpt": ASSISTANT, "assistant": ASSISTANT, "model": ASSISTANT, "bot": ASSISTANT,
         "chatgpt": ASSISTANT, "system": SYSTEM}  # fmt: skip
LAST_ONLY = ("mask_history", "train_on_last", "last_turn_only")
"""Fields of an entry by which the last reply alone is learnt."""
UNREAD = ("video", "videos", "audio", "audios", "tools", "chosen", "rejected")
"""Fields of an entry without which it would be another one: refused where they hold anything."""
UNREAD_IN_TURNS = ("reasoning_content", "thinking", "tool_calls", "function_call")
_OTHER_MARKS = r"<(?:\|(?:image|video|audio)[a-z_]*\||image_placeholder|image-placeholder|imagehere|image|video|audio)>"
"""What other forms put where an image stands; of `<image>` another spelling alone is meant."""
INFO = "dataset_info.json"
"""LLaMA-Factory's: file -> how its columns and tags are called."""
_LLAMA_FACTORY = {"prompt": "instruction", "query": "input", "response": "output"}
"""Its words for columns, where they are not the columns' own."""

Row = tuple[int, dict[str, Any]]
"""Its number in the file, and what it holds."""


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: str
    text: str
    """With `IMAGE` where an image stands."""
    learnt: bool = True


@dataclass(frozen=True)
class Entry:
    """A conversation and its images."""

    images: tuple[Any, ...]
    """Names of files, or images as `data.rows.read_image` takes them."""
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class TrainingRows:
    """The rows of training data, and the file that they are of."""

    file: Path
    rows: list[Row]
    told: Mapping[str, Any]
    """What is known of its columns and tags, beside the file; empty where nothing is."""


def training_rows(path: Path, columns: Sequence[tuple[str, str]] = ()) -> TrainingRows:
    """Returns the rows of a file of any form, or of the training split of a folder.

    Args:
        columns: (column, its name in the file).

    Raises:
        RequestError: no such file, a folder of several data sets, a broken file, or a column that there is not.
    """
    file = _file_of(path) if path.is_dir() else path
    if file.name.lower().endswith((".json", ".jsonl", ".json.gz", ".jsonl.gz")):
        rows, torn = json_rows(text_of(file), file)
        if torn:
            raise RequestError(f"`{file.name}` is cut short: its last line was not finished. Fetch it again.")
    else:
        rows = list(enumerate(read_file(file).to_pylist(), start=1))
    told = _info(file.parent).get(file.name, {})
    if columns:
        names = list(dict.fromkeys(name for _, row in rows for name in row))
        for wanted, own in columns:
            if own not in names:
                raise unknown_name("column", own[:100], names, f"`--columns train.{wanted}={own[:100]}` names one.")
        wanted_of = {own: wanted for wanted, own in columns}
        rows = [(number, {wanted_of.get(name, name): value for name, value in row.items()}) for number, row in rows]
        told = dict(told) | {"renamed": [list(pair) for pair in columns]}
    return TrainingRows(file, rows, told)


def _file_of(folder: Path) -> Path:
    known = _info(folder)
    if len(known) == 1:
        return folder / next(iter(known))
    if known:
        raise RequestError(
            f"`{INFO}` of `{folder.name}` names several files: {', '.join(list(known)[:10])}. Name one of them: "
            "`--train-data FOLDER/FILE`."
        )
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    found = split_files(names, text, None, "train", f"folder `{folder.name}`")
    if len(found) > 1 or found[0].endswith("/"):
        raise RequestError(
            f"The training split of `{folder.name}` is {len(found)} files, or images without conversations: name one "
            "file with `--train-data`."
        )
    return folder / found[0]


def _info(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns file name -> what LLaMA-Factory's file says of it; empty where there is no such file."""
    path = folder / INFO
    if not path.is_file():
        return {}
    try:
        known = loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"`{INFO}` of `{folder.name}` is no JSON: {str(error)[:100]}.") from error
    if not isinstance(known, dict):
        raise RequestError(f"`{INFO}` of `{folder.name}` is no JSON object, so that it names no file. Remove it.")
    entries = known.values()
    # The file of that name that `datasets` writes names no files.
    named = [each for each in entries if isinstance(each, dict) and isinstance(each.get("file_name"), str)]
    inside = [each for each in named if "/" not in each["file_name"] and (folder / each["file_name"]).is_file()]
    return {each["file_name"]: each for each in inside}


def entry_of(row: Mapping[str, Any], told: Mapping[str, Any]) -> Entry:
    """Returns an entry in whichever form it is; ValueError says what it lacks."""
    row = _own_columns(row, told)
    if unread := [name for name in UNREAD if row.get(name)]:
        raise ValueError(f"`{unread[0]}` is not read: conversations about images alone can be learnt")
    if isinstance(row.get("label", row.get("kto_tag")), bool):
        raise ValueError("a `label` that says whether a reply is wanted (KTO) is not read: keep the wanted ones alone")
    tags: dict[str, Any] = told["tags"] if isinstance(told.get("tags"), dict) else {}
    for one, other in (("messages", "conversations"), ("image", "images")):
        if row.get(one) and row.get(other) and row[one] not in (row[other], [row[other]]) and [row[one]] != row[other]:
            raise ValueError(f"`{one}` and `{other}` say different things: leave one of them")
    given = row.get("messages") if row.get("messages") is not None else row.get("conversations")
    if given is None and "instruction" in row:
        given = _alpaca(row)
    elif given is None and isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list):
        given = [*row["prompt"], *row["completion"]]
    elif given is None and isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        given = [{"role": USER, "content": row["prompt"]}, {"role": ASSISTANT, "content": row["completion"]}]
    if not isinstance(given, list) or len(given) < 2:
        raise ValueError("`conversations` is no list of questions with replies")
    in_parts: list[Any] = []
    turns = [_turn(turn, tags, in_parts) for turn in given]
    images = [*_images(row), *_beside(_images(row), in_parts)]
    if isinstance(row.get("system"), str) and row["system"].strip() and turns[0].role != SYSTEM:
        turns.insert(0, Turn(SYSTEM, row["system"]))
    if any(_is_on(row, name) for name in LAST_ONLY):
        turns = [replace(turn, learnt=False) for turn in turns[:-1]] + turns[-1:]
    if not _is_learnt(row, ("weight", "loss_weight")):
        turns = [replace(turn, learnt=turn.role != ASSISTANT) for turn in turns]
    return Entry(tuple(images), tuple(turns))


def _is_on(row: Mapping[str, Any], name: str) -> bool:
    """Returns whether a switch is on; ValueError where that cannot be told."""
    value = row.get(name)
    plain = value.strip().lower() if isinstance(value, str) else value
    if plain not in (None, "", "true", "false", 0, 1):
        raise ValueError(f"`{name}` is {shown(value)}, not true or false")
    return plain in ("true", 1)


def _own_columns(row: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    columns = told.get("columns")
    if not isinstance(columns, dict):
        return dict(row)
    found = dict(row)
    for theirs, own in columns.items():
        if isinstance(own, str) and own in row:
            found[_LLAMA_FACTORY.get(str(theirs), str(theirs))] = row[own]
    return found


def _alpaca(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the turns of `instruction`, `input`, `output`, and of `history`, pairs that come before them."""
    history = row.get("history") or []
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history):
        raise ValueError("`history` is no list of pairs of question and reply")
    for name in ("instruction", "input"):
        if not isinstance(row.get(name), str | None):
            raise ValueError(f"`{name}` is {shown(row[name])}, not text")
    texts = [text for pair in history for text in pair]
    asked = [text for text in (row.get("instruction"), row.get("input")) if isinstance(text, str) and text]
    texts += ["\n".join(asked), row.get("output")]
    return [{"role": (USER, ASSISTANT)[i % 2], "content": text} for i, text in enumerate(texts)]


def _images(row: Mapping[str, Any]) -> Sequence[Any]:
    """Returns the images of an entry; ValueError where they are neither file names nor images."""
    column = "image" if row.get("image") is not None else "images"
    value = row.get(column)
    if value is None or (isinstance(value, str | list) and not value):
        return []
    values = value if isinstance(value, list) else [value]
    if not all((isinstance(each, str | bytes) and each) or isinstance(each, dict) for each in values):
        raise ValueError(f"`{column}` is {shown(value)}, not a file name")
    return values


def _beside(images: Sequence[Any], in_parts: Sequence[Any]) -> list[Any]:
    """Returns the images of parts that an entry's `images` do not name: each stands for one part."""
    left = list(images)
    found = []
    for value in in_parts:
        if value in left:
            left.remove(value)
        else:
            found.append(value)
    return found


def _turn(turn: Any, tags: Mapping[str, Any], images: list[Any]) -> Turn:
    """Returns a turn; images among its parts are added to `images`."""
    if not isinstance(turn, dict):
        raise ValueError("`conversations` holds a turn that is no object")
    role = turn.get(tags.get("role_tag", ""), turn.get("from", turn.get("role")))
    named = {
        tags[f"{each}_tag"]: each for each in (USER, ASSISTANT, SYSTEM) if isinstance(tags.get(f"{each}_tag"), str)
    }
    known = named.get(role) or ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise ValueError(f"`conversations` holds a turn that is not `human` or `gpt`, but of {shown(role)}")
    if {ROLES.get(str(turn[name]), turn[name]) for name in ("from", "role") if name in turn} - {known, role}:
        raise ValueError(f"`from` is {shown(turn['from'])} and `role` is {shown(turn['role'])} in one turn")
    if "value" in turn and "content" in turn and turn["value"] != turn["content"]:
        raise ValueError("`value` and `content` of a turn differ")
    if unread := [name for name in UNREAD_IN_TURNS if turn.get(name)]:
        raise ValueError(f"`{unread[0]}` of a turn is not read: put it into the text, or leave it out")
    content = turn.get(tags.get("content_tag", ""), turn.get("value", turn.get("content")))
    if isinstance(content, list):
        content = "".join(_part(part, images) for part in content)
    if not isinstance(content, str):
        raise ValueError(f"`conversations` holds a turn of `{role}` that is not `{known}` with a text `value`")
    if not is_unicode(content):
        raise ValueError(f"`conversations` holds a turn of `{role}` whose text is no Unicode: half a surrogate pair")
    if mark := next((each for each in re.findall(_OTHER_MARKS, content, re.IGNORECASE) if each != IMAGE), None):
        raise ValueError(f"`conversations` holds `{mark}`: an image stands in a text as `{IMAGE}`")
    return Turn(known, content, known != ASSISTANT or _is_learnt(turn))


def _part(part: Any, images: list[Any]) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind not in ("image", "image_url"):
        raise ValueError(f"`content` holds a part of type {shown(kind)}; text and images are read")
    # A part without an image of its own stands for the next one of the entry's `images`.
    value = next((part[name] for name in ("image", "url", "path", "image_url") if part.get(name) is not None), None)
    value = value.get("url", value) if isinstance(value, dict) and "bytes" not in value else value
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        raise ValueError("an image is an address of the web: fetch it and name the file")
    if value is not None:
        images.append(value)
    return IMAGE


def _is_learnt(of: Mapping[str, Any], fields: Sequence[str] = ("weight", "train", "loss", "loss_weight")) -> bool:
    """Returns whether a reply (or all replies of an entry) is learnt; ValueError for a weight beside 0 and 1."""
    given = {name: of[name] for name in fields if of.get(name) is not None}
    for name, value in given.items():
        if value not in (0, 1):
            raise ValueError(f"`{name}` is {shown(value)}: a reply is learnt (1) or not (0)")
    if len({bool(value) for value in given.values()}) > 1:
        raise ValueError(f"{' and '.join(f'`{name}`' for name in given)} of one reply contradict each other")
    return all(given.values())


def is_unicode(text: str) -> bool:
    """Returns whether a text can be written at all: JSON can hold halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
