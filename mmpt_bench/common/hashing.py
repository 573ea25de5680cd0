"""Content keys: the same request has the same key on every machine, in every process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """Returns JSON with sorted keys and no blanks; refuses NaN, and anything JSON cannot hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_key(value: Any, length: int = 16) -> str:
    """Returns the first `length` hex digits of the SHA-256 of `value`'s canonical JSON."""
    import hashlib  # it costs a start of the command line a tenth of its time

    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


SAMPLE = 16 * 1024
"""Bytes of each sample of `sampled_sha256`."""


def sampled_sha256(data: Path | bytes) -> str:
    """Returns the SHA-256 of a file's size and content: of the whole up to 48 KiB, of beginning, middle and end beyond.

    For many images at once: 36 GB are not read whole each time that a command begins.
    """
    import hashlib
    import io

    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as file:
        if size <= 3 * SAMPLE:
            found.update(file.read())
        else:
            for start in (0, size // 2, size - SAMPLE):
                file.seek(start)
                found.update(file.read(SAMPLE))
    return found.hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, as hex."""
    import hashlib

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def bytes_sha256(data: bytes) -> str:
    """Returns the SHA-256 of bytes, as hex."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def files_sha256(paths: Iterable[Path], sha256: Callable[[Path], str] = file_sha256) -> str:
    """Returns one SHA-256 over several files' names and bytes, in the order of their names."""
    return content_key([[path.name, sha256(path)] for path in sorted(paths, key=lambda path: path.name)], 64)


def derive(seed: int, purpose: str) -> int:
    """Returns the seed of one stream of randomness of a run, in [0, 2**63).

    One integer names a run; every method at that seed sees the same examples in the same order, because
    `derive(seed, "data")` does not depend on how much randomness initialisation or dropout drew.
    """
    import hashlib

    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "big") >> 1
