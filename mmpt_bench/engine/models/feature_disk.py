"""What a frozen tower makes of pictures, kept in a folder for later runs, up to a size.

An entry is named by the tower's fingerprint (weights, configuration, processor, device, precision) and by a digest of
the picture as the tower reads it. It says both inside, and a checksum of its values: one that is damaged, or another's
under this name, is deleted and made anew. Old entries are deleted to make room, so the folder is one of its own, and a
file in it says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

HEADER = "mmpt_bench_features"

MARK = ".mmpt-bench-features"
"""Name of the empty file that says what a folder is for."""


def check_folder(folder: Path) -> None:
    """Raises RequestError for a folder that holds anything but features: what is in it may be deleted to make room."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise RequestError(
            f"`{folder}` holds other things, and old features are deleted to make room: name a new folder, or an "
            "empty one."
        )


class FeatureDisk:
    """A folder of tensors up to a size. What is there stays; only other towers' entries make room, the oldest first."""

    def __init__(self, folder: Path, limit: int) -> None:
        """`limit` is in bytes; what the folder holds already counts. Raises RequestError as `check_folder` does."""
        self.folder, self.limit = folder, limit
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).touch()
        self.bytes = _size(folder)

    def get(self, tower: str, picture: str) -> tuple[Tensor, float] | None:
        """Returns (states, seconds that it took to make them), or None."""
        from safetensors import SafetensorError, safe_open

        path = self._path(tower, picture)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as stream:
                said = json.loads((stream.metadata() or {}).get(HEADER, "{}"))
                values = stream.get_tensor("states")
        except (SafetensorError, OSError, ValueError):
            said, values = {}, None
        named = (said.get("tower"), said.get("picture"))
        if values is None or named != (tower, picture) or said.get("sha256") != _digest(values):
            self.bytes -= path.stat().st_size
            path.unlink()
            return None
        return values, float(said["seconds"])

    def put(self, tower: str, picture: str, states: Tensor, seconds: float) -> None:
        """Writes an entry where there is room for it."""
        from safetensors.torch import save

        values = states.detach().to("cpu").contiguous()
        said = {"tower": tower, "picture": picture, "sha256": _digest(values), "seconds": seconds}
        data = save({"states": values}, {HEADER: json.dumps(said, sort_keys=True)})
        path = self._path(tower, picture)
        if path.exists() or not self._has_room(tower, len(data)):
            return
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(data)
        os.replace(part, path)
        self.bytes += len(data)

    def _path(self, tower: str, picture: str) -> Path:
        return self.folder / tower / f"{picture}.safetensors"

    def _has_room(self, tower: str, size: int) -> bool:
        towers = [path for path in self.folder.iterdir() if path.is_dir() and path.name != tower]
        others = sorted(towers, key=lambda path: path.stat().st_mtime)
        while self.bytes + size > self.limit and others:
            oldest = others.pop(0)
            self.bytes -= _size(oldest)
            shutil.rmtree(oldest)
        return self.bytes + size <= self.limit


def _digest(values: Tensor) -> str:
    described = f"{tuple(values.shape)} {values.dtype}".encode()
    return hashlib.sha256(described + bytes(_bytes(values))).hexdigest()


def _bytes(values: Tensor) -> Any:
    import torch

    return values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
