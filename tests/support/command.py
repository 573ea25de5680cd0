"""The command line, run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.paths import ROOT


def bench(*words: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a user would, and checks its exit code."""
    command = [sys.executable, "-m", "mmpt_bench", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    # Set by pytest-xdist; with it, text is wrapped.
    env.pop("COLUMNS", None)
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr + done.stdout
    return done
