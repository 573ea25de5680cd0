"""What reaches the terminal: in any encoding, without the escape sequences of other people's files.

Standard error carries messages, and never ends a run: what it does not take is dropped. What standard output does not
take is an error. Both are opened where the caller has closed them, so that no file takes their number and gets what a
library writes there.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import MachineError
from mmpt_bench.common.escaping import without_escapes

if TYPE_CHECKING:
    from rich.console import Console


ASCII = str.maketrans("–—−…†×≥≤±“”’", '---.*x><~""\'')
"""What stands for the signs of tables in ASCII, a character for each, so that columns stay."""


class Stream(io.TextIOWrapper):
    """Standard output or error; a character that its encoding lacks is written as `\\u2013`."""

    def __init__(self, stream: io.TextIOWrapper, is_data: bool, escapes: bool = False) -> None:
        """Writes where `stream` does.

        Args:
            stream: what Python opened, or another of these.
            is_data: what cannot be written is an error.
            escapes: escape sequences are passed on, as rich makes them; texts must be without.
        """
        self._ascii = codecs.lookup(stream.encoding).name == "ascii" or getattr(stream, "_ascii", False)
        # click takes ASCII for a mistake and writes UTF-8.
        encoding = "latin-1" if self._ascii else stream.encoding
        super().__init__(stream.buffer, encoding, "backslashreplace", write_through=True)
        self._is_data, self._escapes, self._is_lost = is_data, escapes, False

    def write(self, text: str) -> int:
        """Writes a text; raises MachineError where standard output does not take it."""
        if not isinstance(text, str):
            raise TypeError("text is written here, not bytes")  # click tries both
        if not text:
            return 0  # /dev/full refuses even nothing
        shown = text if self._escapes else without_escapes(text)
        shown = shown.translate(ASCII).encode("ascii", "backslashreplace").decode() if self._ascii else shown
        self._try(lambda: super(Stream, self).write(shown))
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Hands on what was written; raises as `write` does."""
        self._try(super().flush)

    def close(self) -> None:
        """Closes nothing: others write there too."""
        self.flush()

    def _try(self, action: Any) -> None:
        if self._is_lost or self.closed:
            return
        try:
            action()
        except OSError as error:
            if self._is_data and error.errno == errno.EPIPE:
                raise
            self._is_lost = True
            if self._is_data:
                raise MachineError(
                    f"Standard output cannot be written to: {error.strerror}. What is recorded is kept; the same "
                    "command prints it again."
                ) from error


def open_streams() -> None:
    """Puts `Stream`s in the place of standard output and error."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, is_data in (("stdout", True), ("stderr", False)):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if type(stream) is io.TextIOWrapper:
            setattr(sys, name, Stream(stream, is_data))


def console(stderr: bool = False) -> Console:
    """Returns rich's console on standard output or error; what is printed there must be without escapes."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=Stream(stream, not stderr, escapes=True) if isinstance(stream, Stream) else None, stderr=stderr)


def echo(text: str, err: bool = False, indent: str = "  ") -> None:
    """Prints a text, wrapped at words on a terminal, and on standard output where `COLUMNS` says how wide it is.

    Args:
        text: of one line or several.
        err: on standard error.
        indent: of the lines after a line's first.
    """
    import shutil
    import textwrap

    import click

    stream = sys.stderr if err else sys.stdout
    if not stream.isatty() and (err or not os.environ.get("COLUMNS", "").isdigit()):
        click.echo(text, err=err)
        return
    width = max(20, shutil.get_terminal_size().columns)
    for line in text.split("\n"):
        click.echo(
            textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
                          replace_whitespace=False, drop_whitespace=True), err=err,
        )  # fmt: skip
