"""Files that survive: whole or not there, appended a line at a time, without secrets, and inside their folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from mmpt_bench.common.errors import MachineError, RequestError, UntrustedRecord
from mmpt_bench.common.hashing import canonical_json

log = logging.getLogger(__name__)
MAX_NAME = 200
"""Characters of a name; file systems take 255 bytes, and temporary names are longer than the name."""
BLOCK = 2**16
"""Bytes that are read at once when the end of a file is looked for."""
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|ACCESS_?KEY|CREDENTIAL|AUTH(?!OR)", re.IGNORECASE)
SECRET_VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[opsu]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|sk-[\w-]{16,})|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
"""Tokens of the hub, of GitHub and of model providers by their published prefixes; name and password in an address."""
HIDDEN = "***"


def check_can_write(folder: Path) -> None:
    """Refuses a folder that cannot be written to or made (RequestError); makes nothing."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if there.is_file():
        raise RequestError(f"`{there}` is a file. Name a folder with `--out`.")
    # The folders of /proc say that they can be written to, and cannot.
    if not (there.is_dir() and os.access(there, os.W_OK)) or there.is_relative_to("/proc"):
        raise RequestError(f"`{folder}` cannot be written to. Name another folder with `--out`.")


def check_name(name: str) -> str:
    """Returns a name that can stand for one file or folder; refuses every other one (RequestError)."""
    fault = ""
    if not name or len(name.encode("utf-8", "replace")) > MAX_NAME:
        fault = f"it has {len(name)} characters; 1 to {MAX_NAME} are allowed"
    elif not name.isprintable():
        fault = "it holds a character that cannot be printed"
    elif "/" in name or "\\" in name:
        fault = "it holds a path separator"
    elif name[0] in ".-~":
        fault = f"it begins with `{name[0]}`"
    if fault:
        shown = name.encode("unicode_escape", "replace").decode()[:60]
        raise RequestError(f"`{shown}` cannot be a name in the results folder: {fault}.")
    return name


def is_name(name: str) -> bool:
    """Returns whether `check_name` takes a name."""
    try:
        return bool(check_name(name))
    except RequestError:
        return False


def path_inside(root: Path, *names: str) -> Path:
    """Returns the path of a file or folder below a results folder; nothing is made.

    Raises:
        RequestError: a name that is none (`..`, `/x`, too long), or a link that leads out of the folder.
    """
    path = root.joinpath(*(check_name(name) for name in names))
    if not path.resolve().is_relative_to(root.resolve()):
        raise RequestError(f"`{'/'.join(names)}` is a link that leads out of `{scrub(str(root))}`: remove it.")
    return path


def scrub(text: str) -> str:
    """Returns text with the home directory as `~` and with secrets as `***`.

    A secret is the value of an environment variable whose name says so, or what looks like a token.
    """
    return str(scrubbed(text))


def scrubbed(value: Any) -> Any:
    """Returns a JSON value with every text in it scrubbed, keys included."""
    return _scrubbed(value, _hidden())


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file that is, at every moment and after a crash, either the old one or the new one, whole.

    Raises:
        MachineError: it cannot be written (disk full, read-only); the old file is untouched.
    """
    partial = path.with_name(f".{path.name}.tmp")
    try:
        make_folder(path.parent)
        with _claimed(partial) as stream:
            try:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(partial, path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # Nor can it be removed where nothing can be written.
            partial.unlink(missing_ok=True)
        raise_unwritten(error, path, len(data))


def jsonl(*rows: Mapping[str, Any]) -> bytes:
    """Returns scrubbed rows, a line each; ValueError where a row holds NaN, infinity, or what JSON cannot hold."""
    return b"".join(canonical_json(scrubbed(row)).encode() + b"\n" for row in rows)


def append_jsonl(path: Path, *rows: Mapping[str, Any]) -> None:
    """Appends scrubbed rows, a line each, on the disk when this returns; a torn last line is cut off first.

    Raises:
        ValueError: a row holds NaN or infinity, or what JSON cannot hold.
        MachineError: they cannot be written; the lines before them are as they were.
    """
    lines = jsonl(*rows)
    try:
        make_folder(path.parent)
        is_new = not path.exists()
        with path.open("x+b" if is_new else "r+b", buffering=0) as stream:
            end = _cut_torn_line(stream, path)
            try:
                _write_all(stream, end, lines)
            except OSError:
                stream.truncate(end)
                raise
        if is_new:
            sync(path.parent)
    except OSError as error:
        raise_unwritten(error, path, len(lines))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a JSON-lines file; empty where there is no file.

    A last line that was not finished is left out and logged: the process that wrote it was stopped.

    Raises:
        UntrustedRecord: any other line is no JSON object, or holds NaN (with the line's number); or it is a folder.
        MachineError: it cannot be read.
    """
    if not path.exists():
        return []
    if path.is_dir():
        raise UntrustedRecord(f"`{scrub(str(path))}` is a folder, where a file should be. Move it away.")
    rows = []
    try:
        lines = path.open("rb")
    except OSError as error:
        raise MachineError(f"`{scrub(str(path))}` cannot be read: {error.strerror or error}.") from error
    with lines:
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n") or _is_whole(line):
                rows.append(_row(line, path, number))
            else:
                log.warning("The last line of `%s` (%d) was not finished; it is left out.", scrub(str(path)), number)
    return rows


def loads(text: str | bytes, unique: bool = False) -> Any:
    """Returns parsed JSON, a byte-order mark aside.

    Raises:
        ValueError: it holds NaN or infinity, or, where `unique`, a field twice.
    """

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"it holds {name}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"it holds the field `{next(n for n in names if names.count(n) > 1)}` twice")
        return made

    text = text.removeprefix("\ufeff") if isinstance(text, str) else text
    return json.loads(text, parse_constant=refuse, object_pairs_hook=once if unique else None)


POINTER = b"version https://git-lfs.github.com/spec/"
"""Begins the small text that git-LFS leaves in place of a file that was not fetched."""


def pointer_told(path: Path) -> str:
    """Returns what is said of a file of which git fetched the pointer alone; empty for any other file, or none."""
    try:
        with path.open("rb") as stream:
            is_pointer = stream.read(len(POINTER)) == POINTER
    except OSError:
        return ""
    told = f"`{scrub(str(path))}` is a pointer of git-LFS, not the file: fetch that with `git lfs pull`."
    return told if is_pointer else ""


def check_no_pointer(path: Path) -> None:
    """Refuses a git-LFS pointer in place of a file (RequestError); a missing file passes."""
    if told := pointer_told(path):
        raise RequestError(told)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it that are not there; their names are on the disk when this returns."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
    for folder in reversed(new):
        sync(folder.parent)


def sync(path: Path) -> None:
    """Puts a file's bytes, or a folder's names, on the disk; a crash may lose a file whose name is not there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def raise_unwritten(error: OSError, path: Path, needed: int) -> NoReturn:
    """Raises the MachineError for a failed write: where, why, and how much was needed and is free."""
    where = scrub(str(path))
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(next(parent for parent in path.absolute().parents if parent.exists())).free
        why = "the file would pass the size limit" if error.errno == errno.EFBIG else "the disk or the quota is full"
        raise MachineError(
            f"`{where}` cannot be written: {why}; {needed:,} bytes are needed, {free:,} are free there. "
            "What was recorded earlier is whole. Make room and run the same command again."
        ) from error
    raise MachineError(f"`{where}` cannot be written: {error.strerror or error}. What was there is whole.") from error


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[BinaryIO]:
    """Yields the empty file `path` as this writer's own; the kernel lets go of it when its writer dies.

    So a killed writer leaves one file, which the next one takes over, and two writers never share one.
    """
    while True:
        # A link there could lead out of the folder.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                stream.truncate(0)
                yield stream
                return
            # Another writer has renamed it while this one waited.


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _hidden() -> list[tuple[re.Pattern[str], str]]:
    """Returns what no file may hold, and what stands for it."""
    secrets = {value for name, value in os.environ.items() if len(value) >= 8 and SECRET_NAME.search(name)}
    # SSH_AUTH_SOCK and the like hold paths, which are no secrets and may be part of any path.
    values = sorted((each for each in secrets if not each.startswith("/")), key=lambda each: (-len(each), each))
    homes = {str(home) for home in (Path.home(), Path.home().resolve()) if len(home.parts) > 1}
    return [
        *((re.compile(re.escape(value)), HIDDEN) for value in values),
        (SECRET_VALUE, HIDDEN),
        *((re.compile(rf"(?<![\w.-]){re.escape(home)}(?!\.?[\w-])"), "~") for home in sorted(homes, key=len)[::-1]),
    ]


def _scrubbed(value: Any, hidden: list[tuple[re.Pattern[str], str]]) -> Any:
    if isinstance(value, str):
        for pattern, stand_in in hidden:
            value = pattern.sub(stand_in, value)
        return value
    if isinstance(value, Mapping):
        return {_scrubbed(str(key), hidden): _scrubbed(each, hidden) for key, each in value.items()}
    return [_scrubbed(each, hidden) for each in value] if isinstance(value, list | tuple) else value


def _row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = loads(line)
    except UnicodeDecodeError as error:
        raise UntrustedRecord(f"Line {number} of `{scrub(str(path))}` is damaged: it is not UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise UntrustedRecord(f"Line {number} of `{scrub(str(path))}` is damaged: {error}.") from error
    if not isinstance(row, dict):
        raise UntrustedRecord(f"Line {number} of `{scrub(str(path))}` is damaged: it is no JSON object.")
    return row


def _is_whole(line: bytes) -> bool:
    """Returns whether a line without its newline is complete: an object that closes cannot be the start of another."""
    try:
        return isinstance(loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _cut_torn_line(stream: BinaryIO | Any, path: Path) -> int:
    """Returns where the next line begins, after cutting off a last line that was not finished."""
    size = start = stream.seek(0, os.SEEK_END)
    tail = b""
    while start and b"\n" not in tail:
        step = min(BLOCK, start)
        start -= step
        stream.seek(start)
        tail = stream.read(step) + tail
    last = tail.rpartition(b"\n")[2]
    if last and _is_whole(last):
        _write_all(stream, size, b"\n")
        return size + 1
    if last:
        log.warning("The last line of `%s` was not finished; it is cut off.", scrub(str(path)))
        stream.truncate(size - len(last))
    return int(size - len(last))


def _write_all(stream: BinaryIO | Any, start: int, data: bytes) -> None:
    stream.seek(start)
    done = 0
    while done < len(data):
        done += stream.write(data[done:]) or 0
    os.fsync(stream.fileno())
