"""The items of a protocol: from the authors' JSON lines, or made of a task's rows where those are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.hashing import file_sha256
from mmpt_bench.data.image_folders import is_file_inside
from mmpt_bench.data.rows import read_image
from mmpt_bench.data.tables import bad_rows
from mmpt_bench.data.text_files import json_rows, text_of
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.protocols import FILES, MME, OWN, Item, asked_as, items_fingerprint, own_items
from mmpt_bench.runs.request import Request
from mmpt_bench.sources.task_rows import samples

FIELDS = {"id": ("unique_id", "question_id"), "image": ("image_path", "image"), "prompt": ("prompt", "text"),
          "target": ("target",)}  # fmt: skip
"""What items call their parts: most of them, or those of MME."""


@dataclass(frozen=True)
class ItemFile:
    """The items of one file of a protocol."""

    file: str
    items: list[Item]
    fingerprint: str
    origin: str
    """For people; begins with "not the paper's items" where they were made."""


def item_files(folder: Path | None, wanted: Sequence[str], request: Request) -> list[ItemFile]:
    """Returns the items of each file: those in a folder, or, without one, made of the tasks' rows.

    Args:
        folder: of `<file>.jsonl`, with the images beside or in `images/`.
        wanted: names of files; those that are not there are left out.
        request: whose data and limit are taken where items are made.

    Raises:
        RequestError: no items at all, or items that cannot be used; and as `prepare_tasks` does.
    """
    if folder is None:
        return _made([file for file in wanted if file in OWN], request)
    if not folder.is_dir():
        raise RequestError(f"There is no folder `{folder}` of items.")
    there = [file for file in wanted if (folder / f"{file}.jsonl").is_file()]
    if not there:
        raise RequestError(f"`{folder}` has none of the files {', '.join(f'{file}.jsonl' for file in FILES)}.")
    return [_read(folder, file, request.limit) for file in there]


def _read(folder: Path, file: str, limit: int | None) -> ItemFile:
    path = folder / f"{file}.jsonl"
    rows, _ = json_rows(text_of(path), path)
    items, faults, images = [], [], dict[str, str]()
    for line, row in rows:
        try:
            item, image = _item(folder, file, row)
            items.append(item)
            images[item.image.key] = images.get(item.image.key) or file_sha256(image)
        except ValueError as error:
            faults.append(f"line {line}: {error}")
    seen = [item.id for item in items]
    faults += (
        [f"id `{name}` is there twice" for name in dict.fromkeys(seen) if seen.count(name) > 1]
        if len(set(seen)) < len(seen)
        else []
    )
    if faults or not items:
        raise bad_rows(f"`{path.name}`", "item cannot|items cannot be used", faults or ["there is none"])
    if limit is not None:
        kept = {item.cluster for item in items[:limit]}
        items = [item for item in items if item.cluster in kept]
    sha256 = file_sha256(path)
    origin = f"`{path.name}` as given (SHA-256 {sha256[:12]}; nobody has verified that it is the paper's)"
    named = [images[item.image.key] for item in items]
    return ItemFile(file, items, items_fingerprint(items, sha256 + "".join(named)), origin)


def _item(folder: Path, file: str, row: Mapping[str, Any]) -> tuple[Item, Path]:
    """Returns an item and where its image is; ValueError for one that cannot be used."""
    found = {}
    for part, names in FIELDS.items():
        value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
        if not isinstance(value, str | int):
            raise ValueError(f"it has no `{names[0]}`")
        found[part] = str(value)
    name = found["image"]
    path = next((p for p in (folder / name, folder / "images" / name) if is_file_inside(p, folder)), None)
    if path is None:
        raise ValueError(f"its image `{name}` is neither in the folder nor in its `images/`")
    group = str(row.get("category", "")) if file == MME else ""
    image = read_image(path, f"protocol/{file}/{name}", found["id"])
    # MME's two questions of an image are one id in the authors' file.
    own = f"{found['id']}#{found['prompt']}" if file == MME else found["id"]
    return Item(own, image, f"{group}/{name}" if group else name, found["prompt"], found["target"], group), path


def _made(wanted: Sequence[str], request: Request) -> list[ItemFile]:
    names = list(dict.fromkeys(OWN[file][0] for file in wanted))
    asked = replace(request, tasks=tuple(entry for name in names for entry in task_catalog.find_tasks(name)))
    made = []
    prepared = asked.prepare_tasks()
    for file in wanted:
        item, form = prepared[OWN[file][0]], asked_as(file)
        if item.faults:
            raise RequestError(f"{item.task.title}: {item.failure}")
        there = {sample.id for sample in item.samples}
        task = item.task if form is None else item.task.asking(form)
        found = own_items(file, [one for one in samples(task, item.rows, item.limit) if one.id in there])
        origin = f"not the paper's items: made of {item.rows.origin}"
        made.append(ItemFile(file, found, items_fingerprint(found, item.rows.fingerprint), origin))
    return made
