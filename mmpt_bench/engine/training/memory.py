"""Memory of a training: the allocator's settings, and the peak."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

import psutil
import torch


def steady_malloc() -> None:
    """Makes glibc keep freed memory instead of giving it back between steps, which costs more than the step itself."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


class PeakMemory:
    """Peak memory from its creation on: of the accelerator where the model is on one, else of the process.

    Linux alone can forget an earlier peak of a process; elsewhere the largest value seen by `note` counts.
    """

    def __init__(self, device: str) -> None:
        self._on_accelerator, self._seen = device.startswith("cuda"), 0
        reset = Path("/proc/self/clear_refs")
        if self._on_accelerator:
            torch.cuda.reset_peak_memory_stats()
        elif reset.exists() and os.access(reset, os.W_OK):
            reset.write_text("5")
        self.note()

    def note(self) -> int:
        """Returns the peak so far, in bytes."""
        if self._on_accelerator:
            return int(torch.cuda.max_memory_allocated())
        status = Path("/proc/self/status")
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8")) if status.exists() else None
        if found:
            return int(found.group(1)) * 1024
        self._seen = max(self._seen, psutil.Process().memory_info().rss)
        return self._seen
