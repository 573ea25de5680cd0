"""Which files of a folder are a split: those that a README names, or that are called like it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.file_forms import ARROW, FORMS, HUB, IMAGES, METADATA, TAR

NO_ROWS = ("state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", *METADATA)
"""What `datasets` writes beside rows."""


def split_files(names: Sequence[str], readme: str, config: str | None, split: str, origin: str) -> list[str]:
    """Returns the files that hold a split, in order; a name that ends in `/` is a folder of images.

    The README's `configs` decide, as on the hub; where they do not name the split, `<config>/<split>-*`,
    `data/<split>-*`, `<split>.jsonl` and `*_<split>.jsonl` are looked for, then files of any form called like it.

    Args:
        names: every file of the data set, relative, with `/`.
        readme: text of its README.md, empty where there is none.
        config: None: the default one.
        origin: where this is, for messages.

    Raises:
        RequestError: there is no file for it, one of its shards is not there or there twice, it is there in two forms,
            or the README's head is no YAML.
    """
    tables = sorted(name for name in names if is_table(name))
    fallback = [f"{config}/{split}-*"] if config else []
    # SNLI-VE and VSR call their validation file `dev`.
    called = (split, "dev", "val", "valid") if split == "validation" else (split,)
    for name in called[:2]:
        fallback += [f"data/{name}-*", f"{name}-*", f"{name}.jsonl", f"*_{name}.jsonl"]
    told = _patterns(readme, config, split, origin)
    hub = [name for name in tables if name.endswith(HUB)]
    for patterns in (told, *([pattern] for pattern in fallback)):
        found = [name for name in (tables if patterns is told else hub) if _fits(name, patterns)]
        if found:
            also = [name for name in tables if name not in found and _is_split(name, split)]
            if also and patterns is not told and all(_is_split(name, split) for name in found):
                raise _two_generations(found[0], also[0], origin)
            return _checked(found, origin, patterns is not told and patterns[0].startswith("*"))
    for form in FORMS:
        for name in called:
            for pattern in (f"{name}.*", f"{name}-*", f"{name}_*", f"{name}/*", f"*[-_]{name}.*"):
                found = [file for file in tables if file.endswith(form) and _fits(file, [pattern, f"data/{pattern}"])]
                if found:
                    return _checked(found, origin, pattern.startswith("*"))
    for folder in called:
        if any(name.startswith(f"{folder}/") and name.lower().endswith(IMAGES) for name in names):
            return [f"{folder}/"]
    if found := _of_no_split(tables, names) if split == "test" else []:
        return found
    what = f"split `{split}`" + (f" of config `{config}`" if config else "")
    there = ", ".join(name[:100] for name in tables[:10]) or "no file of rows (.parquet, .jsonl, .csv, ...)"
    raise RequestError(f"There is no {what} in {origin}. It holds {there}.")


def is_table(name: str) -> bool:
    """Returns whether a file may hold rows, by its name."""
    own = name.rsplit("/", 1)[-1]
    return name.endswith(tuple(ending for form in FORMS for ending in form)) and own not in NO_ROWS


def called_like(names: Sequence[str], split: str, read: Sequence[str]) -> list[str]:
    """Returns the tables of any folder that are called like a split, and are none of the files that were read."""
    own = [name for name in names if is_table(name) and name not in read]
    patterns = (f"{split}.*", f"{split}-*", f"*[-_]{split}.*")
    return sorted(name for name in own if _fits(name.rsplit("/", 1)[-1], patterns))


def names_split(files: Sequence[str], split: str) -> bool:
    """Returns whether the names of a split's files say which it is: what says nothing is scored, never trained on."""
    words = {word for name in files for word in re.split(r"[^a-z]+", name.lower())}
    return bool(words & {split, "dev", "val", "valid"})


def _of_no_split(tables: Sequence[str], names: Sequence[str]) -> list[str]:
    """Returns the one file of a folder, the files of a saved data set, or the folder itself where it holds classes."""
    if "state.json" in names:
        return [name for name in tables if name.endswith(ARROW) and "/" not in name]
    splits = {"train", "training", "val", "valid", "validation", "dev"}
    if len(tables) == 1:
        return [] if splits & set(re.split(r"[^a-z]+", tables[0].lower())) else list(tables)
    images = [name for name in names if name.lower().endswith(IMAGES)]
    is_folder = any(name in METADATA for name in names) or any(name.count("/") == 1 for name in images)
    tops = {name.split("/")[0] for name in images}
    # A lone `images/` holds the images of rows that are not there, and is no class.
    if not tables and is_folder and not splits & tops and tops != {"images"}:
        return ["./"]
    return []


def _is_split(name: str, split: str) -> bool:
    """Returns whether a file's name says that it holds a split, whatever the config."""
    return _fits(name, (f"data/{split}-*", f"{split}-*", f"{split}.*"))


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _checked(found: list[str], origin: str, loosely_named: bool) -> list[str]:
    """Returns files that are one split; RequestError where shards lack, or rows would be there twice."""
    _check_shards(found, origin)
    if len(found) > 1 and (loosely_named or len({name.removesuffix(".gz").rsplit(".", 1)[-1] for name in found}) > 1):
        raise _two_generations(found[0], found[1], origin)
    return found


def _check_shards(found: Sequence[str], origin: str) -> None:
    """Refuses files `...-00000-of-00003.parquet` that are not one whole set: rows would be missing, or there twice."""
    by_split: dict[tuple[str, str], dict[int, str]] = {}
    others = []
    for name in found:
        shard = re.search(r"^(.*)-(\d{5})-of-(\d{5})(?!\d)", name)
        if shard is None:
            others.append(name)
            continue
        there = by_split.setdefault((shard[1], shard[3]), {})
        if int(shard[2]) in there:
            raise _two_generations(there[int(shard[2])], name, origin)
        there[int(shard[2])] = name
    firsts: dict[str, str] = {}
    for (name, _), there in by_split.items():
        first = there[min(there)]
        if (other := firsts.setdefault(name, first)) != first or others:
            raise _two_generations(other, others[0] if others else first, origin)
    _check_numbers(others, origin)
    for (name, of), there in by_split.items():
        absent = sorted(set(range(int(of))) - set(there))
        if absent:
            raise RequestError(
                f"{len(absent)} of the {int(of)} files of `{name}` are not in {origin}, first "
                f"`{name}-{absent[0]:05}-of-{of}`. Fetch them too."
            )


def _check_numbers(found: Sequence[str], origin: str) -> None:
    """Refuses shards numbered without their total (`train-000000.tar`) of which one is missing before the last."""
    numbered: dict[tuple[str, int, str], set[int]] = {}
    for name in found:
        if shard := re.search(r"^(.*[-_])(\d{3,})(\.[a-z.]+)$", name):
            numbered.setdefault((shard[1], len(shard[2]), shard[3]), set()).add(int(shard[2]))
    for (start, digits, end), there in numbered.items():
        first = min({1} | there) if end in TAR else min(there)
        if absent := sorted(set(range(first, max(there))) - there):
            lacking, last = (f"`{start}{number:0{digits}}{end}`" for number in (absent[0], max(there)))
            raise RequestError(f"{lacking} is not in {origin}, where there is {last}. Fetch it too.")


def _two_generations(one: str, other: str, origin: str) -> RequestError:
    return RequestError(
        f"`{one}` and `{other}` of {origin} are files of one split from two downloads: rows would count twice. "
        "Remove the older ones."
    )


def _patterns(readme: str, config: str | None, split: str, origin: str) -> list[str]:
    """Returns the file patterns that a README's `configs` give for a split; empty where they give none."""
    configs = readme_head(readme, origin).get("configs") or []
    for entry in configs:
        default = entry.get("default") or entry.get("config_name") == "default" or len(configs) == 1
        if entry.get("config_name") == config or (config is None and default):
            files = entry.get("data_files") or []
            paths = [file["path"] for file in files if isinstance(file, dict) and file.get("split") == split]
            return [path for each in paths for path in ([each] if isinstance(each, str) else each)]
    return []


def readme_head(readme: str, origin: str) -> dict[str, Any]:
    """Returns the YAML that a README begins with; empty where there is none."""
    import yaml

    if not readme.startswith("---"):
        return {}
    try:
        head = yaml.safe_load(readme.split("\n---", 1)[0].removeprefix("---"))
    except yaml.YAMLError as error:
        raise RequestError(f"The head of README.md in {origin} is no YAML: {str(error).splitlines()[0]}.") from error
    return head if isinstance(head, dict) else {}
