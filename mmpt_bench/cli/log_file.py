"""The log in the results folder: a line an event, bounded, without secrets; and what the package logs, on stderr."""

from __future__ import annotations

import logging
import logging.handlers
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmpt_bench.common.escaping import plain_text
from mmpt_bench.common.files import scrub

FILE = "mmpt-bench.log"
MOST_BYTES, KEPT = 1_000_000, 1
"""Of the file, and how many earlier ones are kept beside it."""
LONG = 4000
"""Characters of a line."""


PACKAGE, EVENTS = logging.getLogger("mmpt_bench"), logging.getLogger("mmpt_bench.events")


class Log:
    """Writes events; nothing is on the disk before `begin`."""

    def __init__(self, file: logging.FileHandler) -> None:
        """Takes the handler that writes."""
        self._file = file

    def begin(self, command: str) -> None:
        """Opens the file, where that is not done yet; `command` is its first line."""
        if self._file in PACKAGE.handlers:
            return
        Path(self._file.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        PACKAGE.addHandler(self._file)
        self.tell(command)

    def tell(self, text: str, level: int = logging.INFO, command: str = "") -> None:
        """Writes an event; the first one with a `command` opens the file."""
        if command:
            self.begin(command)
        EVENTS.log(level, "%s", text)


class _File(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Does nothing: a log that cannot be written ends no run."""


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Returns an event as one line, without secrets and escape sequences."""
        return plain_text(scrub(super().format(record)), LONG)


@contextmanager
def logged(out: Path, verbosity: int = 0) -> Iterator[Log]:
    """Yields the log of a results folder; how the command ends is its last line.

    Args:
        out: the results folder.
        verbosity: at 1 what the package logs is told on stderr too, below it warnings alone.
    """
    file = _File(out / FILE, maxBytes=MOST_BYTES, backupCount=KEPT, encoding="utf-8", delay=True)
    file.setFormatter(_Line("%(asctime)s %(levelname)s %(message)s"))
    screen = logging.StreamHandler()
    screen.setFormatter(_Line("%(message)s"))
    screen.setLevel(logging.INFO if verbosity > 0 else logging.WARNING)
    screen.addFilter(lambda record: record.name != EVENTS.name)
    before, log = PACKAGE.level, Log(file)
    PACKAGE.addHandler(screen)
    PACKAGE.setLevel(logging.INFO)
    try:
        yield log
    except BaseException as error:
        told = f"ended with code {error.code}" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        log.tell(told, logging.ERROR)
        raise
    else:
        log.tell("done")
    finally:
        PACKAGE.removeHandler(screen)
        PACKAGE.removeHandler(file)
        PACKAGE.setLevel(before)
        file.close()
