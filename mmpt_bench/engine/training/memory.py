"""Memory and time: the allocator's settings, what a training costs, and smaller batches where memory runs out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from mmpt_bench.common.errors import BenchError, MachineError, RunFailed

RUN_OUT = re.compile(
    r"can't allocate memory|cannot allocate memory|out of memory|bad_alloc|_ALLOC_FAILED", re.IGNORECASE
)
"""What torch's allocators and libraries say in errors of no type of their own."""
WANTED = re.compile(r"(?:tried|unable) to allocate ([\d.]+ ?\w+)", re.IGNORECASE)


def steady_malloc() -> None:
    """Makes glibc keep freed memory instead of giving it back between steps, which costs more than the step itself."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


@dataclass(frozen=True)
class ProcessCosts:
    """What a training cost its process, beside its seconds and its peak; see `Record` for the fields."""

    own_process: bool
    resident_bytes: int
    cpu_seconds: float
    others_cpu_seconds: float | None


class _Process:
    """What this process has done so far."""

    has_computed = False


def first_here() -> bool:
    """Returns whether this process computes for the first time; asked at the beginning of trainings and evaluations.

    Memory that an earlier one has freed is used again without being seen, or was the peak of another method.
    """
    is_first, _Process.has_computed = not _Process.has_computed, True
    return is_first


class CpuClock:
    """Seconds of the processor since its creation: of this process, and of all others of the machine."""

    def __init__(self) -> None:
        self._own, self._all = time.process_time(), _busy_seconds()

    def own(self) -> float:
        """Returns those of this process, over all its threads."""
        return time.process_time() - self._own

    def others(self) -> float | None:
        """Returns those of all other processes; None where the system's count lacks even our own."""
        busy, own = _busy_seconds() - self._all, self.own()
        # The system counts in hundredths of a second, on each core.
        return max(0.0, busy - own) if busy >= 0.9 * own - 0.1 else None


def _busy_seconds() -> float:
    spent = psutil.cpu_times()
    return float(spent.user + spent.system + getattr(spent, "nice", 0.0))


class PeakMemory:
    """Peak memory from its creation on: of the accelerators where the model is on them, else of the process.

    Of several accelerators it is the sum of their peaks. Linux alone can forget an earlier peak of a process; elsewhere
    the largest value seen by `note` counts.
    """

    def __init__(self, device: str) -> None:
        self._on_accelerator, self._seen = device.startswith("cuda"), 0
        reset = Path("/proc/self/clear_refs")
        if self._on_accelerator:
            for i in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(i)
        elif reset.exists() and os.access(reset, os.W_OK):
            reset.write_text("5")
        self.resident = _on_all(torch.cuda.memory_allocated) if self._on_accelerator else _resident()
        """Bytes that were held at its creation."""
        self.note()

    def note(self) -> int:
        """Returns the peak so far, in bytes."""
        if self._on_accelerator:
            return _on_all(torch.cuda.max_memory_allocated)
        status = Path("/proc/self/status")
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8")) if status.exists() else None
        if found:
            return int(found.group(1)) * 1024
        self._seen = max(self._seen, _resident())
        return self._seen


def _on_all(measure: Callable[[int], int]) -> int:
    return sum(measure(i) for i in range(torch.cuda.device_count()))


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def shortage(error: Exception) -> str | None:
    """Returns what could not be had, where an error says that memory ran out; None for any other error."""
    text = str(error)
    if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not RUN_OUT.search(text):
        return None
    wanted = WANTED.search(text)
    return f"{wanted[1]} could not be had" if wanted else text.partition("\n")[0][:200] or "the system had none left"


@contextlib.contextmanager
def told_of_memory(when: str, error_type: type[BenchError] = MachineError) -> Iterator[None]:
    """Raises an error of a type, with `when`, where memory runs out inside: "while the backbone was loaded"."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if (why := shortage(error)) is None:
            raise
        raise error_type(f"out of memory {when}: {why}; what is recorded is kept") from error


def halved(size: int, error: Exception, one: str) -> int:
    """Returns the size of the batch to try next after an error.

    Args:
        size: of the batch for which memory ran out.
        error: raised again where it says anything else.
        one: what a batch of one is, for the message.

    Raises:
        RunFailed: the batch was one already.
    """
    why = shortage(error)
    if why is None:
        raise error
    if size == 1:
        raise RunFailed(f"out of memory with {one}: {why}") from error
    return (size + 1) // 2
