"""Checkpoints of a training: a file's name holds its step and its checksum, so that one rename makes all of it true.

<folder>/step-<step>-<sha256>.pt    the newest, and the one before it
<folder>/step-<step>.shards/        beside it where ranks hold a part of each tensor: a file of each rank, written by
                                    `torch.distributed.checkpoint`; the .pt holds their checksums
<folder>/unfinished.part            one that is being written, or whose writer was killed
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import pickle
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map

from mmpt_bench.common.errors import MachineError, UntrustedRecord
from mmpt_bench.common.files import make_folder, raise_unwritten, scrub, sync
from mmpt_bench.common.hashing import file_sha256
from mmpt_bench.engine.training.parallel import ALONE, Ranks
from mmpt_bench.engine.training.sharded import read_shards, shard_classes, write_shards

log = logging.getLogger(__name__)
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 20.0, 0.02
"""Least seconds between two checkpoints, and the share of a training's time that writing them may take."""
FORM, SHARDED = 2, 3
"""Of a checkpoint's content, with all tensors in it, and with shards beside it; one of another form is left alone."""
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{64})\.pt")


class Checkpoints:
    """The checkpoints of one training, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._verified: tuple[Path, int] | None = None
        self._since, self._cost = time.perf_counter(), 0.0

    @property
    def is_due(self) -> bool:
        """Returns whether enough time has passed since the last one, by what writing that took."""
        wait = max(CHECKPOINT_SECONDS, self._cost / CHECKPOINT_SHARE)
        return time.perf_counter() - self._since > wait

    def last(self, ranks: Ranks = ALONE) -> dict[str, Any] | None:
        """Returns the last state whose bytes are those that were written; None where there is none.

        Partial and damaged checkpoints are ignored, and named in the log. All ranks ask; each verifies its share of the
        shards, for which the state has None until `fill`.

        Raises:
            MachineError: ranks find unlike ones.
        """
        found = self._found()
        if not ranks.same([path.name for path, *_ in found]):
            raise MachineError("Ranks find other checkpoints: give all of them one results folder.")
        known = {self._shards(step) for _, step, _ in found}
        for path in {self._part, *self.folder.glob("*.shards")} - known:
            if path.exists():
                log.warning("The checkpoint `%s` was not finished; it is ignored.", self._said(path))
        for path, step, sha256 in found:
            state = self._verified_state(path, step, sha256, ranks)
            if ranks.any(state is None)[0] or state is None:
                log.warning("The checkpoint `%s` is damaged; it is ignored.", self._said(path))
            elif state.get("form") in (FORM, SHARDED):
                self._verified = path, step
                return state
            else:
                log.warning("The checkpoint `%s` is of another version; it is ignored.", self._said(path))
        return None

    def fill(self, state: Mapping[str, Any], places: Mapping[str, Any]) -> None:
        """Reads shards of the state that `last` returned, each rank what it holds, however many ranks wrote them.

        Args:
            places: tensors in the state's order of names, to be overwritten where the state has None.

        Raises:
            UntrustedRecord: they have other names or shapes.
        """
        if self._verified is None or state["form"] != SHARDED:
            return
        known, folder = _named(state), self._shards(self._verified[1])
        wanted = {name: place for name, place in _named(places).items() if known[name] is None}
        try:
            read_shards(folder, wanted, state["metadata"])
        except ValueError as error:
            raise UntrustedRecord(f"The checkpoint `{self._said(folder)}` does not fit: {error}.") from error

    def write(self, step: int, state: Mapping[str, Any], ranks: Ranks = ALONE) -> None:
        """Writes a checkpoint; until it is on the disk and read back, the last verified one stays.

        All ranks call this; each writes its shards of sharded tensors, and the first one all else.

        Raises:
            MachineError: it cannot be written (disk full, read-only); the last verified one is whole.
        """
        began = time.perf_counter()
        ranks.together(lambda: self._make_room() if ranks.is_first else None)
        shards = {name: value for name, value in _named(state).items() if hasattr(value, "full_tensor")}
        content = {"form": FORM, **state}
        if shards:
            content = tree_map(lambda value: None if hasattr(value, "full_tensor") else value, content)
            content |= {"form": SHARDED, **self._write_shards(step, shards, ranks)}
        ranks.together(lambda: self._write_first(step, content) if ranks.is_first else None)
        self._since = time.perf_counter()
        self._cost = self._since - began

    def _make_room(self) -> None:
        """Leaves the verified one alone: there is never more beside the one that is written, as large as the model."""
        with self._told(lambda: 0):
            make_folder(self.folder)
            for path, *_ in self._found():
                if self._verified is None or path != self._verified[0]:
                    path.unlink()
            for folder in self.folder.glob("*.shards"):
                if self._verified is None or folder != self._shards(self._verified[1]):
                    shutil.rmtree(folder)

    def _write_shards(self, step: int, shards: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
        """Returns the checksums of all ranks' files, and what torch must know of them."""
        folder, own = self._shards(step), dict[str, str]()
        size = sum(value.to_local().nbytes for value in shards.values())
        with self._told(lambda: size):
            try:
                metadata = write_shards(folder, shards)
            except OSError:
                # On all ranks alike.
                if ranks.is_first:
                    shutil.rmtree(folder, ignore_errors=True)
                raise

        def verified() -> None:
            with self._told(lambda: size):
                for path in sorted(folder.glob(f"__{ranks.rank}_*")):
                    sync(path)
                    own[path.name] = file_sha256(path)
                sync(folder)

        ranks.together(verified)
        files = {name: sha256 for of in ranks.gathered(own) for name, sha256 in of.items()}
        return {"files": files, "metadata": metadata}

    def _write_first(self, step: int, content: Mapping[str, Any]) -> None:
        """Writes the file whose name makes all of it true."""
        written = _Hashed()
        with self._told(lambda: written.size):
            with self._part.open("wb") as written.stream:
                torch.save(content, cast(IO[bytes], written))
                written.finish()
            if file_sha256(self._part) != written.sha256:
                raise OSError(errno.EIO, "what was read back is not what was written")
            path = self.folder / f"step-{step}-{written.sha256}.pt"
            os.replace(self._part, path)
            sync(self.folder)
        self._verified = path, step

    def _verified_state(self, path: Path, step: int, sha256: str, ranks: Ranks) -> dict[str, Any] | None:
        """Returns a state; None where its file is damaged, or a shard that this rank looks at; {} of another torch."""
        if file_sha256(path) != sha256:
            return None
        is_sharded = self._shards(step).exists()
        with torch.serialization.safe_globals(shard_classes() if is_sharded else []):
            try:
                state: dict[str, Any] = torch.load(path, weights_only=True)
            except pickle.UnpicklingError:
                # It holds classes of another torch, or of shards that are gone.
                return {} if is_sharded else None
        for name, known in sorted(state.get("files", {}).items())[ranks.rank :: ranks.count]:
            shard = self._shards(step) / name
            if not shard.exists() or file_sha256(shard) != known:
                return None
        return state

    @contextmanager
    def _told(self, size: Callable[[], int]) -> Iterator[None]:
        """Raises MachineError for an OSError inside, which says how much was to be written."""
        try:
            yield
        except OSError as error:
            if self.folder.is_dir():
                self._part.unlink(missing_ok=True)
            raise_unwritten(error, self.folder, size())

    def _shards(self, step: int) -> Path:
        return self.folder / f"step-{step}.shards"

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


def _named(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what may be sharded, by name."""
    tree = {name: state[name] for name in ("adapter", "optimizer") if name in state}
    return {keystr(path): value for path, value in tree_flatten_with_path(tree)[0]}


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
