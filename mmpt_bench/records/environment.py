"""What a run happened on: recorded beside every figure, never part of a key."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "numpy", "datasets", "tokenizers", "safetensors")


@functools.cache
def environment() -> dict[str, Any]:
    """Returns versions, commit and processor; no name, path or address of the machine."""
    from mmpt_bench.common.version import VERSION

    versions = {"mmpt-bench": VERSION, "python": platform.python_version()}
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
    top = Path(__file__).resolve().parents[2]
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
