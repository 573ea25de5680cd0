"""Where a backbone's files are, what they are fingerprinted by, and whether they are whole. Imports without torch."""

from __future__ import annotations

import functools
import json
import re
import struct
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError, UntrustedRecord, unknown_name
from mmpt_bench.common.hashing import content_key, file_sha256
from mmpt_bench.sources import hub

EMBEDDED = "embedded"
CHECKSUM_FILE = "checksums.json"
DTYPES = ("float32", "bfloat16", "float16")
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""Files that decide what a backbone answers: weights, configuration, tokenizer, processor, chat template."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?")


def backbone_folder(name: str, offline: bool = False, weights: bool = True) -> Path:
    """Returns the folder of a backbone's files, after fetching them where the name is one of the hub.

    Args:
        name: "embedded", a folder, or `owner/model` on the Hugging Face hub, with `@revision` where one is meant.
        offline: opens no socket; a hub model must then be in the local cache.
        weights: else its configuration is enough, and no weights are fetched.

    Raises:
        RequestError: there is no such folder, or the name is none of the three.
        MachineError: the hub cannot be reached, or does not have the model.
    """
    if name == EMBEDDED:
        from mmpt_bench.embedded import weights_dir

        folder = Path(weights_dir())
    elif Path(name).is_dir():
        folder = Path(name)
    elif _HUB_NAME.fullmatch(name):
        repository, _, revision = name.partition("@")
        with hub.asking(f"backbone `{name}`", "Give a folder, or check network and name.", offline):
            folder = hub.snapshot(repository, PATTERNS if weights else PATTERNS[1:], offline, revision or None)
    else:
        raise RequestError(f"There is no backbone folder `{name}`. Give a folder, `owner/model`, or `{EMBEDDED}`.")
    if not (folder / "config.json").is_file():
        raise RequestError(f"`{folder}` is not a backbone: it has no config.json.")
    if weights and not list(folder.glob("*.safetensors")):
        raise RequestError(f"`{folder}` has no .safetensors file; other formats are not loaded.")
    return folder


def check_backbone(name: str) -> None:
    """Raises RequestError for a name that can be none: neither embedded, nor a folder, nor of the hub's form."""
    if name != EMBEDDED and not Path(name).is_dir() and not _HUB_NAME.fullmatch(name):
        raise unknown_name("backbone", name, [EMBEDDED], "A folder, or `owner/model` of the hub, is one too.")


def check_rows(adapter: Any, name: str, offline: bool = False, questions: tuple[str, ...] = ()) -> None:
    """Refuses prompts that leave a backbone no room for a picture, a question and a word, by its files alone.

    Args:
        adapter: a method with its hyperparameters.
        name: of the backbone.
        offline: open no socket.
        questions: that will be asked; the chat frame around them is not counted.

    Raises:
        RequestError: prompt rows, image tokens and the longest question fill the decoder's context.
    """
    rows = adapter.decoder_rows
    lengths = [v for n, v in vars(adapter).items() if n.endswith("length")]
    if not rows and not lengths:
        return
    folder = backbone_folder(name, offline)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    context = config.get("text_config", config).get("max_position_embeddings")
    if context is None:
        return
    vision = config.get("vision_config", {})
    size, patch = vision.get("image_size"), vision.get("patch_size")
    picture = (size // patch) ** 2 if isinstance(size, int) and isinstance(patch, int) else 0
    longest, question = max([rows, *lengths]), _longest(folder / "tokenizer.json", questions)
    most = context - picture - question - 1
    if longest > most:
        text = f" and {question:,} the longest question" if question else ""
        raise RequestError(
            f"`{adapter.name}` with prompts of {longest:,} rows does not fit `{name}`: its context holds {context:,} "
            f"tokens, {picture:,} of them the picture{text}. The most is {most:,}."
        )


@functools.cache
def _longest(file: Path, texts: tuple[str, ...]) -> int:
    """Returns how many tokens the longest of some texts has; 0 where a tokenizer is not in this form."""
    if not texts or not file.is_file():
        return 0
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return max(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)


def backbone_files(folder: Path) -> list[Path]:
    """Returns the files a fingerprint covers, by name."""
    found = {path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    return sorted(found - {folder / CHECKSUM_FILE}, key=lambda path: path.name)


def backbone_fingerprint(name: str, offline: bool = False) -> str:
    """Returns one SHA-256 over a backbone's weights, configuration, tokenizer and processor files."""
    return folder_fingerprint(backbone_folder(name, offline))


def folder_fingerprint(folder: Path) -> str:
    """Returns what `hashing.files_sha256` returns for the folder's files; an unchanged file is read once a process."""
    return content_key([[path.name, _sha256(path)] for path in backbone_files(folder)], 64)


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_once(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256_once(path: Path, size: int, changed: int) -> str:
    return file_sha256(path)


def write_checksums(folder: Path) -> None:
    """Writes checksums.json, by which a flipped bit in the folder's files is found later."""
    sums = {path.name: file_sha256(path) for path in backbone_files(folder)}
    (folder / CHECKSUM_FILE).write_text(json.dumps(sums, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def verify_folder(folder: Path) -> None:
    """Checks files against what is known of them: checksums.json, the hub cache's names, and safetensors' own lengths.

    Raises:
        UntrustedRecord: a file is missing, cut short, or not what its checksum says.
    """
    sums = folder / CHECKSUM_FILE
    for file, wanted in (json.loads(sums.read_text(encoding="utf-8")) if sums.is_file() else {}).items():
        if not (folder / file).is_file():
            raise UntrustedRecord(f"`{folder / file}` is missing. Fetch or build the weights again.")
        _compare(folder / file, wanted)
    for path in folder.glob("*.safetensors"):
        _check_length(path)
        # The hub's cache names a large file by the SHA-256 of its content.
        blob = path.resolve().name
        if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob):
            _compare(path, blob)


def _compare(path: Path, wanted: str) -> None:
    found = _sha256(path)
    if found != wanted:
        raise UntrustedRecord(
            f"`{path}` is damaged: its SHA-256 is {found[:12]}, not {wanted[:12]}. Fetch or build the weights again."
        )


def _check_length(path: Path) -> None:
    """Raises UntrustedRecord unless the file is as long as its header says (safetensors format, version 0.3)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise UntrustedRecord(f"`{path}` is cut short: {size} bytes. Fetch or build the weights again.")
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise UntrustedRecord(f"`{path}` has no readable header. Fetch or build the weights again.") from error
    if 8 + length + max(ends, default=0) != size:
        raise UntrustedRecord(f"`{path}` has {size} bytes, {8 + length + max(ends, default=0)} expected: cut short.")
