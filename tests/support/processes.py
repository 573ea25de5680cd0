"""Python programs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import Any

from support.paths import ROOT


def python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def in_child(work: Callable[[], Any]) -> Callable[[], int]:
    """Starts work in a forked child; the result waits for it and returns its status, 0 where nothing was raised."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return lambda: os.waitpid(child, 0)[1]


class Done:
    """An engine's task that is done when it is asked about."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self.work()
