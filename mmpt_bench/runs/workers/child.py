"""How a worker process begins: it imports nothing heavy before it watches whether its command still lives."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

from mmpt_bench.common.errors import BenchError, Interrupted

LEAVE_SECONDS = 30.0
"""How long a worker whose command was killed may take to end its step and write what it has."""

NOT_BEGUN = "before anything was begun"


class Sent:
    """A value for another process, which is unpickled when it is asked for: with it come the modules that it needs."""

    def __init__(self, value: Any) -> None:
        self.value: Callable[[], Any] = lambda: value

    def __getstate__(self) -> bytes:
        """Returns the value pickled."""
        return pickle.dumps(self.value())

    def __setstate__(self, state: bytes) -> None:
        """Keeps the pickled value, which is the command's own: multiprocessing unpickles all that it sends."""
        self.value = lambda: pickle.loads(state)


def begin(connection: Connection, sent: Sent, flags: Any) -> None:
    """Works, and tells of it; stops where the command says so, or is no more.

    Until the work first asks whether to stop, it has nothing to keep, and is ended at once.

    Args:
        connection: to the command, which sends nothing but that workers are to stop.
        sent: (work, its first argument, what makes of the flags what was tried).
        flags: in memory that all workers share.
    """
    told, asks = threading.Event(), threading.Event()

    def tell(*event: Any) -> None:
        with contextlib.suppress(OSError):  # The command is no more: `stopping` says so, too.
            connection.send(event)

    def stop(*_: Any) -> None:
        told.set()
        if not asks.is_set():
            tell("ended", Interrupted(NOT_BEGUN))
            os._exit(0)

    def stopping() -> bool:
        asks.set()
        return told.is_set() or connection.poll()

    # Ctrl-C in a terminal reaches every process; the command tells its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=_watch, args=(connection, stop), daemon=True).start()
    try:
        work, given, tried = sent.value()
        work(given, tell, stopping, tried(flags))
    except (BenchError, Interrupted) as error:
        tell("ended", error)
    except Exception as error:
        tell("ended", RuntimeError("".join(traceback.format_exception(error))))
    else:
        tell("ended")
    connection.close()


def _watch(connection: Connection, stop: Callable[[], None]) -> None:
    """Stops the work when the command says so or is no more, and ends this process where that takes too long."""
    wait([connection])
    stop()
    command = parent_process()
    assert command is not None
    wait([command.sentinel])
    time.sleep(LEAVE_SECONDS)
    os._exit(1)
