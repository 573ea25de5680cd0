"""A stranger's file as rows: JSON lines, a JSON array, a table with tabs or commas, a workbook, or Parquet."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import MachineError, RequestError
from mmpt_bench.common.files import check_no_pointer, loads, scrub

MAX_BYTES = 512 * 2**20
"""Largest file that is read, unpacked; 9,000 replies of a kilobyte are 9 MB."""


MAX_WORKBOOK = 64 * 2**20
"""Largest workbook that is read, unpacked."""


def text_of(path: Path) -> str:
    """Returns a file's text without a byte-order mark, unpacked where it is gzip; RequestError where it is no text."""
    shown = scrub(str(path))
    check_no_pointer(path)
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise RequestError(f"`{shown}` cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if len(data) > MAX_BYTES:
        raise RequestError(f"`{shown}` is larger than {MAX_BYTES >> 20} MiB: it cannot be a file of answers.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RequestError(f"`{shown}` is not UTF-8, first in line {line}. Save it as UTF-8.") from error


def json_rows(text: str, path: Path) -> tuple[list[tuple[int, dict[str, Any]]], tuple[str, ...]]:
    """Returns (line, object) of JSON lines, a JSON array or one object over several lines, and what was left out.

    Raises:
        RequestError: anything else, by line.
    """
    if text.lstrip()[:1] == "[":
        try:
            rows = loads(text, unique=True)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"`{path.name}` is no JSON array: {error}.") from error
        entries = enumerate(rows, start=1)
        return [(number, _object(row, f"entry {number} of `{path.name}`")) for number, row in entries], ()
    if text.split("\n", 1)[0].strip() == "{":
        with contextlib.suppress(ValueError, RecursionError):
            return [(1, _object(loads(text, unique=True), f"`{path.name}`"))], ()
    found: list[tuple[int, dict[str, Any]]] = []
    # Not splitlines(): a reply may hold other line separators of Unicode.
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for number, line in lines:
        try:
            found.append((number, _object(loads(line, unique=True), f"line {number} of `{path.name}`")))
        except (ValueError, RecursionError) as error:
            if found and number == lines[-1][0] and not text.endswith("\n"):
                return found, (f"the last line of `{path.name}` ({number}) was not finished; it is left out",)
            why = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            if not found and not line.lstrip().startswith(("{", "[")):
                raise RequestError(
                    f"`{path.name}` holds no rows: line {number} is plain text. Rows come as JSON lines, a JSON array, "
                    "CSV, TSV, Parquet or a folder of these: see docs/data.md."
                ) from error
            raise RequestError(f"Line {number} of `{path.name}` is no JSON: {why}.") from error
    return found, ()


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RequestError(f"There is no JSON object in {where}.")
    return row


def csv_rows(text: str, delimiter: str, path: Path) -> list[dict[str, Any]]:
    """Returns a table's rows as text by column; RequestError where it is none."""
    limit = csv.field_size_limit(MAX_BYTES)
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = list(table.fieldnames or ())
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise RequestError(f"`{path.name}` has the column `{twice[:100]}` twice: leave one of them.")
        rows: Iterable[dict[Any, Any]] = table
        found = []
        for number, row in enumerate(rows, start=2):
            if None in row or None in row.values():
                raise RequestError(f"Row {number} of `{path.name}` has not as many columns as the first.")
            found.append(row)
        return found
    except csv.Error as error:
        raise RequestError(f"`{path.name}` cannot be read as a table: {error}.") from error
    finally:
        csv.field_size_limit(limit)


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a Parquet file by column; RequestError where it is none, or too large."""
    import pyarrow as pa
    from pyarrow import parquet

    shown = scrub(str(path))
    check_no_pointer(path)
    try:
        with parquet.ParquetFile(path) as file:
            parts = [file.metadata.row_group(number).total_byte_size for number in range(file.metadata.num_row_groups)]
            if sum(parts) > MAX_BYTES:
                raise RequestError(f"`{shown}` unpacks to more than {MAX_BYTES >> 20} MiB: it is not read.")
            rows: list[dict[str, Any]] = file.read().to_pylist()
    except (pa.ArrowException, ValueError, OSError) as error:
        told = getattr(error, "strerror", None) or str(error)[:100]
        raise RequestError(f"`{shown}` cannot be read as Parquet: {told}.") from error
    return rows


def excel_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a workbook's first sheet by column; an empty cell is empty text.

    Raises:
        RequestError: no such file, or no workbook.
        MachineError: the package that reads it is not installed.
    """
    if not path.is_file():
        raise RequestError(f"There is no file `{scrub(str(path))}`.")
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise MachineError(
            "Reading .xlsx needs the package openpyxl: `pip install openpyxl`, or save the file as .tsv."
        ) from error
    try:
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > MAX_WORKBOOK:
                raise RequestError(f"`{path.name}` unpacks to more than {MAX_WORKBOOK >> 20} MiB: it is not read.")
            if any(b"<!DOCTYPE" in parts.read(name) or b"<!ENTITY" in parts.read(name) for name in parts.namelist()
                   if name.endswith((".xml", ".rels"))):  # fmt: skip
                raise RequestError(f"`{path.name}` declares entities of its own, as no workbook does: it is not read.")
        sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
        rows = sheet.iter_rows(values_only=True)
        names = [str(name) for name in next(rows, ())]
        found = [{n: "" if v is None else v for n, v in zip(names, row, strict=True)} for row in rows if any(row)]
    except (OSError, ValueError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise RequestError(f"`{path.name}` cannot be read as a workbook: {error}.") from error
    return found
