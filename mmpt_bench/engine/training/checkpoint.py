"""Checkpoints of a training: a file's name holds its step and its checksum, so that one rename makes all of it true.

<folder>/step-<step>-<sha256>.pt    the newest, and the one before it
<folder>/unfinished.part            one that is being written, or whose writer was killed
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import time
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from mmpt_bench.common.files import make_folder, raise_unwritten, scrub, sync
from mmpt_bench.common.hashing import file_sha256

log = logging.getLogger(__name__)
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 20.0, 0.02
"""Least seconds between two checkpoints, and the share of a training's time that writing them may take."""
FORM = 2
"""Of a checkpoint's content; one of another form is left alone."""
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{64})\.pt")


class Checkpoints:
    """The checkpoints of one training, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._verified: Path | None = None
        self._since, self._cost = time.perf_counter(), 0.0

    @property
    def is_due(self) -> bool:
        """Returns whether enough time has passed since the last one, by what writing that took."""
        wait = max(CHECKPOINT_SECONDS, self._cost / CHECKPOINT_SHARE)
        return time.perf_counter() - self._since > wait

    def last(self) -> dict[str, Any] | None:
        """Returns the last state whose bytes are those that were written; None where there is none.

        Partial and damaged checkpoints are ignored, and named in the log.
        """
        if self._part.exists():
            log.warning("The checkpoint `%s` was not finished; it is ignored.", self._said(self._part))
        for path, _, sha256 in self._found():
            if file_sha256(path) != sha256:
                log.warning("The checkpoint `%s` is damaged; it is ignored.", self._said(path))
                continue
            state: dict[str, Any] = torch.load(path, weights_only=True)
            if state.get("form") == FORM:
                self._verified = path
                return state
            log.warning("The checkpoint `%s` is of another version; it is ignored.", self._said(path))
        return None

    def write(self, step: int, state: dict[str, Any]) -> None:
        """Writes a checkpoint; until it is on the disk and read back, the last verified one stays.

        Raises:
            MachineError: it cannot be written (disk full, read-only); the last verified one is whole.
        """
        written, began = _Hashed(), time.perf_counter()
        try:
            make_folder(self.folder)
            # There is never more than one beside the one that is written: it may be as large as the model.
            for path, _, _ in self._found():
                if path != self._verified:
                    path.unlink()
            with self._part.open("wb") as written.stream:
                torch.save({"form": FORM, **state}, cast(IO[bytes], written))
                written.finish()
            if file_sha256(self._part) != written.sha256:
                raise OSError(errno.EIO, "what was read back is not what was written")
            path = self.folder / f"step-{step}-{written.sha256}.pt"
            os.replace(self._part, path)
            sync(self.folder)
        except OSError as error:
            if self.folder.is_dir():
                self._part.unlink(missing_ok=True)
            raise_unwritten(error, self.folder, written.size)
        self._verified = path
        self._since = time.perf_counter()
        self._cost = self._since - began

    @property
    def _part(self) -> Path:
        return self.folder / "unfinished.part"

    def _found(self) -> list[tuple[Path, int, str]]:
        """Returns (file, step, what its name says is its checksum), the newest first."""
        names = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [(path, match) for path in names if (match := _NAME.fullmatch(path.name))]
        return sorted(((path, int(m[1]), m[2]) for path, m in found), key=lambda each: (-each[1], each[2]))

    def _said(self, path: Path) -> str:
        return scrub(str(path.relative_to(self.folder.parents[1])))


class _Hashed:
    """A file that is hashed while it is written.

    torch turns a failed write into an error of its own that does not say why, so that the first one is kept until
    `finish`.
    """

    stream: BinaryIO

    def __init__(self) -> None:
        self._hash, self.size = hashlib.sha256(), 0
        self._failed: OSError | None = None

    @property
    def sha256(self) -> str:
        """Returns the checksum of what was written."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        """Writes, unless an earlier write failed."""
        self._hash.update(data)
        self.size += len(data)
        if self._failed is None:
            try:
                self.stream.write(data)
            except OSError as error:
                self._failed = error
        return len(data)

    def flush(self) -> None:
        """Does nothing: `finish` does."""

    def finish(self) -> None:
        """Puts everything on the disk; raises the OSError that kept any of it from being written."""
        if self._failed is not None:
            raise self._failed
        self.stream.flush()
        os.fsync(self.stream.fileno())
