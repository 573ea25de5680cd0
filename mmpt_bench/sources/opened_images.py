"""Which images open and how large they are, found before anything runs; what took long is kept for the next time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import MachineError
from mmpt_bench.common.files import write_atomic
from mmpt_bench.common.hashing import content_key
from mmpt_bench.data.images import UNREADABLE, BadImage, LazyImage, distinct_images

KEEP_SECONDS = 5.0
"""What took less is found anew each time."""


@dataclass(frozen=True)
class OpenedImages:
    """What was found of some images, by their keys."""

    sizes: dict[str, tuple[int, int]]
    """Width and height, in pixels, of those that open."""
    faults: dict[str, str]
    """Why the others do not."""
    stamp: str
    """Names the images by their files' sizes and times of change, or by their bytes; empty where they have neither."""


def open_images(images: Iterable[LazyImage], anew: bool = False) -> OpenedImages:
    """Opens every image once, on all cores; 640 x 480 pixels take about 3 ms of one core.

    Args:
        anew: also those of which an earlier result is kept.
    """
    import PIL

    by_key = distinct_images(images)
    stamp = _stamp(by_key)

    def look() -> dict[str, Any]:
        flat = [(key, image) for key, each in by_key.items() for image in each]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda pair: _look(pair[1]), flat))
        sizes: dict[str, tuple[int, int]] = {}
        faults: dict[str, str] = {}
        for (key, _), one in zip(flat, found, strict=True):
            if isinstance(one, str):
                faults.setdefault(key, one)
            else:
                sizes[key] = one
        return {"sizes": sizes, "faults": faults}

    found = kept(stamp and content_key([stamp, PIL.__version__]), look, anew)
    sizes = {key: (size[0], size[1]) for key, size in found["sizes"].items() if key not in found["faults"]}
    return OpenedImages(sizes, found["faults"], stamp)


def kept(key: str, find: Callable[[], dict[str, Any]], anew: bool = False) -> dict[str, Any]:
    """Returns what `find` returns, JSON values; from the user's cache where it took long before.

    Args:
        key: names everything that it depends on; with an empty one nothing is kept.
        anew: finds it again in any case.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "mmpt-bench" / "checked" / f"{key}.json"
    if key and not anew and path.is_file():
        with contextlib.suppress(OSError, ValueError, RecursionError):
            known = json.loads(path.read_bytes())
            if isinstance(known, dict):
                return known
    began = time.perf_counter()
    found = find()
    if key and (anew or time.perf_counter() - began > KEEP_SECONDS):
        # It saves time alone: without a cache that can be written to, it is found again.
        with contextlib.suppress(MachineError):
            write_atomic(path, json.dumps(found).encode())
    return found


def _look(image: LazyImage) -> tuple[int, int] | str:
    try:
        return image.open().size
    except BadImage as error:
        return str(error)
    except UNREADABLE as error:
        return f"Image `{image.key}` does not open ({type(error).__name__}: {str(error)[:100]})."


def _stamp(by_key: dict[str, list[LazyImage]]) -> str:
    parts: list[list[Any]] = []
    for key, images in by_key.items():
        for source in (image.source for image in images):
            if isinstance(source, bytes):
                parts.append([key, hashlib.sha256(source).hexdigest()])
            elif isinstance(source, Path):
                try:
                    status = source.stat()
                except OSError:
                    return ""
                parts.append([key, str(source.absolute()), status.st_size, status.st_mtime_ns])
            else:
                return ""
    return content_key(parts, 64)
