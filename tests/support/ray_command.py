"""The command line on few images, with Ray's tasks that note each step of a training and can be held in one.

Beside the results folder OUT: `OUT.steps` has {"run", "pid", "step", "time"} of each step before it is taken, and
{"run", "pid", "waits", "time"} where a task walks past a run that another one holds. Where `OUT.hold` is, the first
task that comes to the third step of a training writes its process to `OUT.held`, and waits until `OUT.hold` is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench.cli.main import main
from mmpt_bench.common.locks import Held
from mmpt_bench.engine.training.train import _Training
from mmpt_bench.records.run_folder import RunFolder
from mmpt_bench.runs import execute
from mmpt_bench.runs.workers import engines
from support.small import make_small

LONGEST = 120.0
_NOW: dict[str, Any] = {}
_REAL = (engines.do, _Training.step, execute.train_run, RunFolder.lock)


def command(*words: str) -> None:
    """Runs the command line; tasks of Ray do `watched`."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        patch.setattr(engines, "do", watched)
        sys.argv = ["mmpt-bench", *words]
        main()


def watched(message: engines.Message) -> Any:
    """Does what `engines.do` does, in a process of Ray."""
    if not _NOW:
        patch = pytest.MonkeyPatch()
        make_small(patch)
        patch.setattr(_Training, "step", _step)
        patch.setattr(execute, "train_run", _train_run)
        patch.setattr(RunFolder, "lock", _lock)
    _NOW.update(out=message.out)
    return _REAL[0](message)


def _train_run(session: Any, job: Any, *rest: Any) -> Any:
    _NOW.update(run=job.recipe.run_name)
    return _REAL[2](session, job, *rest)


def _step(self: _Training, *rest: Any) -> Any:
    if self.done == 2 and _beside("hold").exists():
        with contextlib.suppress(FileExistsError), _beside("held").open("x") as stream:
            stream.write(f"{os.getpid()} {_NOW['run']}\n")
            stream.flush()
            until = time.monotonic() + LONGEST
            while _beside("hold").exists() and time.monotonic() < until:
                time.sleep(0.1)
    _note(run=_NOW["run"], step=self.done + 1)
    return _REAL[1](self, *rest)


@contextlib.contextmanager
def _lock(self: RunFolder, *rest: Any) -> Iterator[None]:
    try:
        with _REAL[3](self, *rest):
            yield
    except Held:
        _note(run=self.name, waits=True)
        raise


def _note(**what: Any) -> None:
    with _beside("steps").open("a") as stream:
        stream.write(json.dumps({**what, "pid": os.getpid(), "time": time.monotonic()}) + "\n")


def _beside(name: str) -> Path:
    out: Path = _NOW["out"]
    return out.with_suffix(f".{name}")
