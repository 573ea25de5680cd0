"""One process a run: a claim that the kernel lets go of when its process dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from mmpt_bench.common.errors import Interrupted, MachineError
from mmpt_bench.common.files import loads, make_folder, scrub

log = logging.getLogger(__name__)
POLL_SECONDS = 0.1
LONGEST_WAIT = 24 * 3600.0
"""Seconds that a run or search which another process is doing is waited for."""
T = TypeVar("T")


class Held(MachineError):
    """Another process holds the lock."""

    told = ""
    """What is waited for, and who holds it."""


@contextlib.contextmanager
def held(
    path: Path, run: str, wait_seconds: float = 0.0, stopping: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Holds the lock file `path` of a run while the block runs.

    Raises:
        Held: another process still holds it after `wait_seconds`.
        Interrupted: `stopping` said so while it waited.
        MachineError: locks do not work there.
    """
    try:
        make_folder(path.parent)
        stream = path.open("a+b", buffering=0)
    except OSError as error:
        raise MachineError(f"`{scrub(str(path))}` cannot be written: {error.strerror}.") from error
    with stream:
        _claim(stream, run, wait_seconds, stopping)  # type: ignore[arg-type]
        try:
            yield
        finally:
            # The file stays: were it removed, a third process could lock a new file while a second waits on this.
            stream.truncate(0)


def in_turn(
    items: Iterable[T],
    lock: Callable[[T], AbstractContextManager[None]],
    wait_seconds: float,
    ready: Callable[[T], bool] = lambda item: True,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[T, AbstractContextManager[Any]]]:
    """Yields each item with its lock, which is held until the caller leaves it.

    Items that others hold, or that are not ready, are walked past and come back to, as often as it takes.

    Args:
        items: what is to be done.
        lock: item -> its lock, as `held` makes it; it does not wait.
        wait_seconds: how long those that are left are waited for while none of them can be done.
        ready: whether an item can be done now.
        stopping: asked while others are waited for.

    Raises:
        Held: another process still holds one.
        Interrupted: `stopping` said so.
    """
    left, until, told = list(items), time.monotonic() + wait_seconds, ""
    while left:
        later: list[T] = []
        fault: Held | None = None
        for item in left:
            stack = contextlib.ExitStack()
            try:
                if ready(item):
                    stack.enter_context(lock(item))
                    yield item, stack
                    continue
            except Held as error:
                fault = error
            later.append(item)
        if len(later) < len(left):
            until = time.monotonic() + wait_seconds
        else:
            told = _waited(fault, until, told, stopping)
        left = later


def _waited(fault: Held | None, until: float, told: str, stopping: Callable[[], bool]) -> str:
    """Waits a moment for what others hold and returns who that is, which is logged where it is not `told` yet."""
    if fault is None:
        raise AssertionError("what is left waits for something that nobody does")
    if time.monotonic() >= until:
        raise fault
    if stopping():
        raise Interrupted(f"waiting for {fault.told}")
    if fault.told != told:
        log.warning("Waiting for %s.", fault.told)
    time.sleep(POLL_SECONDS)
    return fault.told


TRY = """
import fcntl, sys
with open(sys.argv[1], "a+b") as stream:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(7)
"""
"""What another process does that wants a lock: it ends with 7 where it does not get it."""


def excludes(folder: Path) -> bool:
    """Returns whether a lock in a folder keeps another process of this machine out, and is free again afterwards.

    Raises:
        MachineError: locks do not work there, or nothing can be written.
    """
    path = folder / f".lock-{os.getpid()}.tmp"

    def tried() -> int:
        return subprocess.run([sys.executable, "-c", TRY, str(path)], check=False, timeout=60).returncode

    try:
        with held(path, str(path)):
            is_kept_out = tried() == 7
        return is_kept_out and tried() == 0
    finally:
        path.unlink(missing_ok=True)


def _claim(stream: BinaryIO, run: str, wait_seconds: float, stopping: Callable[[], bool]) -> None:
    """Takes the lock and signs it; logs whose claim was left behind."""
    until, told = time.monotonic() + wait_seconds, False
    while not _locked(stream, run):
        holder = _holder(stream)
        if time.monotonic() >= until:
            fault = Held(
                f"`{run}` is being done by {holder}. Wait for it, or end that process and run the command again."
            )
            fault.told = f"`{run}`, which is held by {holder}"
            raise fault
        if not told:
            log.warning("Waiting for `%s`, which is held by %s.", run, holder)
        told = True
        if stopping():
            raise Interrupted(f"waiting for `{run}`, which is held by {holder}")
        time.sleep(POLL_SECONDS)
    if os.fstat(stream.fileno()).st_size:
        log.warning("Taking over `%s` from %s, which ended without letting go of it.", run, _holder(stream))
    stream.truncate(0)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    claim = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "worker_of": _command()}
    stream.write(json.dumps(claim).encode())


def _command() -> int | None:
    """Returns the process that this one is a worker of."""
    command = parent_process()
    return None if command is None else command.pid


def _locked(stream: BinaryIO, run: str) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise MachineError(f"The lock of `{run}` does not work on this file system: {error.strerror}.") from error
    return True


def _holder(stream: BinaryIO) -> str:
    stream.seek(0)
    try:
        claim = loads(stream.read(4096))
        if claim.get("worker_of") is not None and (claim["worker_of"], claim["host"]) == (
            _command(),
            socket.gethostname(),
        ):
            return f"another worker of this command, process {claim['pid']}"
        return f"process {claim['pid']} on {claim['host']} since {claim['since']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "a process that has not signed yet"
