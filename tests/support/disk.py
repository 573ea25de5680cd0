"""A disk that loses, when the power fails, what was not put on it: contents without fsync, names whose folder had none.

The model is POSIX at its strictest: a file comes back with the bytes of its last fsync, or empty; a folder with the
names of its last fsync, and with those that it had before. A folder whose name is lost is lost with all that is in it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """What is sure to be on the disk of a folder, from the time that this is made on."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._root, self._fsync = root, os.fsync
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._folders: dict[int, dict[str, int]] = {}
        self._held: list[int] = []
        for path in [root, *root.rglob("*")]:
            self._put(path)
        patch.setattr(os, "fsync", self._synced)

    def fail(self) -> None:
        """Leaves in the folder what a power failure would have left."""
        for folder, inner, files in os.walk(self._root):
            known = self._folders.get(os.stat(folder).st_ino, {})
            for name in list(inner):
                if known.get(name) != (Path(folder) / name).stat().st_ino:
                    shutil.rmtree(Path(folder) / name)
                    inner.remove(name)
            for name in files:
                (Path(folder) / name).unlink()
            for name, inode in self._names.get(os.stat(folder).st_ino, {}).items():
                (Path(folder) / name).write_bytes(self._bytes.get(inode, b""))

    def close(self) -> None:
        """Lets go of the files."""
        for descriptor in self._held:
            os.close(descriptor)

    def _synced(self, descriptor: int) -> Any:
        self._put(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        return self._fsync(descriptor)

    def _put(self, path: Path) -> None:
        # Held open, so that nothing else gets its number.
        self._held.append(os.open(path, os.O_RDONLY))
        inode = os.fstat(self._held[-1]).st_ino
        if path.is_dir():
            entries = [entry for entry in os.scandir(path) if entry.is_file(follow_symlinks=False)]
            self._names[inode] = {entry.name: entry.inode() for entry in entries}
            self._folders[inode] = {entry.name: entry.inode() for entry in os.scandir(path) if entry.is_dir()}
        else:
            self._bytes[inode] = path.read_bytes()
