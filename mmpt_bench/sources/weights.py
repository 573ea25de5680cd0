"""Where a backbone's files are, what they are fingerprinted by, and whether they are whole. Imports without torch."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError, UntrustedRecord, unknown_name
from mmpt_bench.common.files import check_no_pointer
from mmpt_bench.common.hashing import file_sha256, files_sha256
from mmpt_bench.sources import hub

EMBEDDED = "embedded"
CHECKSUM_FILE = "checksums.json"
DTYPES = ("float32", "bfloat16", "float16")
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""Files that decide what a backbone answers: weights, configuration, tokenizer, processor, chat template."""

ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")
QUANTIZED = {"int8": "torchao", "int4": "bitsandbytes"}
"""Precisions of frozen weights, and the package that makes each."""
SPREAD = ("auto",)
"""Ways of transformers to spread a model over accelerators."""
HOW: dict[str, Any] = {
    **{"attn_implementation": ATTENTION, "device_map": SPREAD},
    **{"max_pixels": int, "min_pixels": int, "quantize": QUANTIZED},
}
"""How a backbone is loaded, where not as it is saved; and what may be said of each."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?")


def backbone_folder(name: str, offline: bool = False, weights: bool = True) -> Path:
    """Returns the folder of a backbone's files, after fetching them where the name is one of the hub.

    Args:
        name: "embedded", a folder, or `owner/model` on the Hugging Face hub, with `@revision` where one is meant; and
            how it is loaded, as `with_loading` writes it.
        offline: opens no socket; a hub model must then be in the local cache.
        weights: else its configuration is enough, and no weights are fetched.

    Raises:
        RequestError: there is no such folder, or the name is none of the three, or a file is a pointer of git-LFS.
        MachineError: the hub cannot be reached, or does not have the model.
    """
    name, _ = loading_of(name)
    if name == EMBEDDED:
        folder = Path(__file__).parent.parent / "embedded" / "weights"
    elif Path(name).is_dir():
        folder = Path(name)
    elif _HUB_NAME.fullmatch(name):
        repository, _, revision = name.partition("@")
        with hub.asking(f"backbone `{name}`", "Give a folder, or check network and name.", offline):
            folder = hub.snapshot(repository, PATTERNS if weights else PATTERNS[1:], offline, revision or None)
    else:
        raise RequestError(f"There is no backbone folder `{name}`. Give a folder, `owner/model`, or `{EMBEDDED}`.")
    for file in _files(folder):
        check_no_pointer(file)
    if not (folder / "config.json").is_file():
        raise RequestError(f"`{folder}` is not a backbone: it has no config.json.")
    if weights and not list(folder.glob("*.safetensors")):
        raise RequestError(f"`{folder}` has no .safetensors file; other formats are not loaded.")
    return folder


def check_backbone(name: str) -> None:
    """Raises RequestError for a name that can be none: neither embedded, nor a folder, nor of the hub's form."""
    name, how = loading_of(name)
    if not name:
        raise RequestError(f"No backbone is named: write a folder, `owner/model`, or `{EMBEDDED}`.")
    if name != EMBEDDED and not Path(name).is_dir() and not _HUB_NAME.fullmatch(name):
        raise unknown_name("backbone", name, [EMBEDDED], "A folder, or `owner/model` of the hub, is one too.")
    if how and name == EMBEDDED:
        raise RequestError(f"`{next(iter(how))}` is for backbones in Hugging Face form: `{EMBEDDED}` has none.")


def with_loading(name: str, how: Mapping[str, object]) -> str:
    """Returns a backbone's name with how it is loaded: "owner/model?max_pixels=200704&quantize=int8".

    Args:
        how: values by name of `HOW`; None where it is loaded as it is saved.

    Raises:
        RequestError: a value that cannot be, or one that the name has already.
    """
    plain, known = loading_of(name)
    given = {key: value for key, value in how.items() if value is not None}
    if both := known.keys() & given.keys():
        raise RequestError(f"`--backbone {name[:100]}` says `{min(both)}` already: leave out the option.")
    texts = "&".join(f"{key}={value}" for key, value in sorted((known | given).items()))
    made = f"{plain}?{texts}" if given else name
    check_backbone(made)
    return made


def loading_of(name: str) -> tuple[str, dict[str, Any]]:
    """Returns what `with_loading` was given; raises RequestError for what it does not write."""
    plain, question, text = name.rpartition("?")
    if not question or Path(name).is_dir():
        return name, {}
    how: dict[str, Any] = {}
    for part in text.split("&"):
        key, _, value = part.partition("=")
        if key not in HOW or key in how:
            raise unknown_name("way to load a backbone", key[:40], HOW, "They stand after its `?`, each once.")
        if HOW[key] is not int and value not in HOW[key]:
            raise unknown_name(key, value[:40], HOW[key])
        if HOW[key] is int and (not value.isdecimal() or not 0 < int(value) < 2**31):
            raise RequestError(f"`{key}` is `{value[:40]}`: a number of pixels, 1 or more.")
        how[key] = int(value) if HOW[key] is int else value
    if how.get("min_pixels", 0) > how.get("max_pixels", 2**31):
        raise RequestError(f"`min_pixels` {how['min_pixels']:,} is above `max_pixels` {how['max_pixels']:,}.")
    return plain, how


def backbone_fingerprint(name: str, offline: bool = False) -> str:
    """Returns one SHA-256 over a backbone's weights, configuration, tokenizer and processor, and how it is loaded."""
    found, (_, how) = folder_fingerprint(backbone_folder(name, offline)), loading_of(name)
    return hashlib.sha256(f"{found} {json.dumps(how, sort_keys=True)}".encode()).hexdigest() if how else found


OWN_FAMILIES: dict[str, tuple[str, Path]] = {}
"""Types of models that a user's file describes (`--family`), the SHA-256 of that file, and the file."""


def folder_fingerprint(folder: Path) -> str:
    """Returns one SHA-256 over a folder's files; an unchanged one is read once a process.

    Where a user's file says where the parts of such models are, it is part of what is fingerprinted.
    """
    found = files_sha256(_files(folder), _sha256)
    own = OWN_FAMILIES.get(_kind(folder)) if OWN_FAMILIES else None
    return found if own is None else hashlib.sha256(f"{found} {own[0]}".encode()).hexdigest()


def kind_of_types(model_type: str, tower: str) -> str:
    """Returns what models are known by: their type, but for a LLaVA with Pixtral's tower."""
    return "pixtral" if (model_type, tower) == ("llava", "pixtral") else model_type


def _kind(folder: Path) -> str:
    """Returns what a folder's models are known by, of its configuration; empty where it does not say it."""
    try:
        known = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""
    if not isinstance(known, dict):
        return ""
    vision = known.get("vision_config")
    tower = vision.get("model_type") if isinstance(vision, dict) else ""
    return kind_of_types(str(known.get("model_type", "")), str(tower))


def _files(folder: Path) -> set[Path]:
    """Returns the files that a fingerprint and the checksums cover."""
    found = {path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    return found - {folder / CHECKSUM_FILE}


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_once(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256_once(path: Path, size: int, changed: int) -> str:
    return file_sha256(path)


def write_checksums(folder: Path) -> None:
    """Writes checksums.json, by which a flipped bit in the folder's files is found later."""
    sums = {path.name: file_sha256(path) for path in _files(folder)}
    (folder / CHECKSUM_FILE).write_text(json.dumps(sums, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def verify_folder(folder: Path) -> None:
    """Checks files against what is known of them: checksums.json, the hub cache's names, and safetensors' own lengths.

    Raises:
        UntrustedRecord: a file is missing, cut short, or not what its checksum says.
    """
    sums = folder / CHECKSUM_FILE
    try:
        known = json.loads(sums.read_bytes()) if sums.is_file() else {}
    except ValueError as error:
        raise _damaged(sums, "is no JSON") from error
    if not isinstance(known, dict):
        raise _damaged(sums, "is no JSON object")
    for file, wanted in known.items():
        if not (folder / file).is_file():
            raise _damaged(folder / file, "is missing")
        _check_sha256(folder / file, wanted)
    for path in folder.glob("*.safetensors"):
        _check_length(path)
        # The hub's cache names a large file by the SHA-256 of its content.
        blob = path.resolve().name
        if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob):
            _check_sha256(path, blob)


def _damaged(path: Path, fault: str) -> UntrustedRecord:
    return UntrustedRecord(f"`{path}` {fault}. Fetch or build the weights again.")


def _check_sha256(path: Path, wanted: str) -> None:
    found = _sha256(path)
    if found != wanted:
        raise _damaged(path, f"is damaged: its SHA-256 is {found[:12]}, not {wanted[:12]}")


def _check_length(path: Path) -> None:
    """Raises UntrustedRecord unless the file is as long as its header says (safetensors format, version 0.3)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise _damaged(path, f"is cut short: {size} bytes")
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise _damaged(path, "has no readable header") from error
    expected = 8 + length + max(ends, default=0)
    if expected != size:
        raise UntrustedRecord(f"`{path}` has {size} bytes, {expected} expected: cut short.")
