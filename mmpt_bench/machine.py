"""What a run happened on: recorded beside every figure, never part of a key."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "numpy", "datasets", "tokenizers", "safetensors")


@functools.cache
def environment() -> dict[str, Any]:
    """Returns versions, commit and processor; no name, path or address of the machine."""
    from mmpt_bench import __version__

    versions = {"mmpt-bench": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "versions": versions,
        "commit": commit(),
        "system": platform.system(),
        "processor": processor(),
        "cores": os.cpu_count(),
    }


def commit() -> str:
    """Returns the checkout's commit, with `+changes` where files differ from it; empty for an installed package."""
    top = Path(__file__).resolve().parent.parent
    if not (top / ".git").exists():
        return ""
    command = ["git", "-C", str(top), "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def processor() -> str:
    """Returns the processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def steady_malloc() -> None:
    """Makes glibc keep freed memory instead of giving it back between steps, which costs more than the step itself."""
    import ctypes

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
        self.device, self._seen = device, 0
        if device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            reset = Path("/proc/self/clear_refs")
            if reset.exists() and os.access(reset, os.W_OK):
                reset.write_text("5")
        self.note()

    def note(self) -> int:
        """Returns the peak so far, in bytes."""
        if self.device.startswith("cuda"):
            import torch

            return int(torch.cuda.max_memory_allocated())
        status = Path("/proc/self/status")
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8")) if status.exists() else None
        if found:
            return int(found.group(1)) * 1024
        import psutil

        self._seen = max(self._seen, psutil.Process().memory_info().rss)
        return self._seen
