"""The command line, run as a user would, in a process of its own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support.paths import ROOT

SECONDS = 300
"""Of a command, before it is stopped."""
SERVER = ROOT / "tests" / "support" / "forks.py"


def bench(*words: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a user would, and checks its exit code."""
    return _forked("support.ready", words, cwd, code)


def bench_without_torch(*words: str | Path, cwd: Path, code: int = 2) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a user would, and checks its exit code and that it does not import torch."""
    return _forked("support.light", words, cwd, code)


def environment() -> dict[str, str]:
    """Returns the environment variables of a command."""
    known = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    # Set by pytest-xdist; with it, text is wrapped.
    return {name: value for name, value in known.items() if name != "COLUMNS"}


def _forked(ready: str, words: tuple[str | Path, ...], cwd: Path, code: int) -> subprocess.CompletedProcess[str]:
    server = _server(ready)
    assert server.stdin is not None
    assert server.stdout is not None
    given = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        asked = {"words": given, "cwd": str(cwd), "environment": environment(), "seconds": SECONDS}
        print(json.dumps({**asked, "files": [str(file) for file in files]}), file=server.stdin, flush=True)
        ended = int(server.stdout.readline())
        out, err = (file.read_text() for file in files)
    assert ended == code, err + out
    return subprocess.CompletedProcess(["mmpt-bench", *given], code, out, err)


@functools.cache
def _server(ready: str) -> subprocess.Popen[str]:
    """Starts the process that commands are forked from; it ends with this one, at the end of its standard input."""
    found = {**environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, str(SERVER), ready]
    return subprocess.Popen(command, env=found, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
