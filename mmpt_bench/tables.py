"""A split's files as rows: which files a README names, what is in them, and whether it can be evaluated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from mmpt_bench.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

NAMED = 10
"""Bad rows that an error names; the rest it counts."""


class TableRows(Sequence[Mapping[str, Any]]):
    """The rows of a table as dicts, each made when it is asked for; file names of pictures become paths."""

    def __init__(self, table: pa.Table, image_column: str, files: Mapping[str, Path]) -> None:
        """Wraps `table`; `files` holds the path of every picture that is a file."""
        self._columns = {name: table.column(name) for name in table.column_names}
        self._length, self._image_column, self._files = table.num_rows, image_column, files

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._length

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        """Returns one row, or a list of rows for a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._length))]
        row = {name: column[index].as_py() for name, column in self._columns.items()}
        name = file_name(row.get(self._image_column))
        return row if name is None else row | {self._image_column: self._files[name]}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yields the rows in order."""
        return (self[number] for number in range(self._length))


def split_files(names: Sequence[str], readme: str, config: str | None, split: str, origin: str) -> list[str]:
    """Returns the files that hold a split, in order.

    The README's `configs` decide, as on the hub; where they do not name the split, `<config>/<split>-*`,
    `data/<split>-*` and `<split>.jsonl` are looked for.

    Args:
        names: every file of the data set, relative, with `/`.
        readme: text of its README.md, empty where there is none.
        config: the configuration; None: the default one.
        split: the split.
        origin: where this is, for messages.

    Raises:
        RequestError: there is no file for it, or the README's head is no YAML.
    """
    tables = sorted(name for name in names if name.endswith((".parquet", ".jsonl")))
    fallback = [f"{config}/{split}-*"] if config else []
    fallback += [f"data/{split}-*", f"{split}-*", f"{split}.jsonl", f"*_{split}.jsonl"]
    for patterns in (_patterns(readme, config, split, origin), *([pattern] for pattern in fallback)):
        found = [name for name in tables if any(fnmatchcase(name, pattern) for pattern in patterns)]
        if found:
            return found
    what = f"split `{split}`" + (f" of config `{config}`" if config else "")
    there = ", ".join(tables[:NAMED]) or "no .parquet or .jsonl file"
    raise RequestError(f"There is no {what} in {origin}. It holds {there}.")


def read_tables(files: Sequence[Path]) -> pa.Table:
    """Returns the rows of Parquet and JSON-lines files, one after the other; RequestError names a broken file."""
    import pyarrow as pa
    from pyarrow import json as pa_json
    from pyarrow import parquet

    tables = []
    for file in files:
        try:
            is_parquet = file.suffix == ".parquet"
            tables.append(parquet.ParquetFile(file).read() if is_parquet else pa_json.read_json(file))
        except (pa.ArrowInvalid, OSError) as error:
            raise RequestError(f"`{file.name}` cannot be read: {str(error).splitlines()[0]} Fetch it again.") from error
    return pa.concat_tables(tables)


def class_names(table: pa.Table, column: str | None) -> tuple[str, ...]:
    """Returns the names of a label column's classes as `datasets` stores them in Parquet; empty where it names none."""
    stored = (table.schema.metadata or {}).get(b"huggingface")
    if stored is None or column is None:
        return ()
    feature = json.loads(stored).get("info", {}).get("features", {}).get(column, {})
    return tuple(feature.get("names") or ())


def check_columns(table: pa.Table, columns: Sequence[str], origin: str) -> None:
    """Refuses a table that lacks a column (RequestError, naming what it has)."""
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise RequestError(
            f"There is no column {', '.join(f'`{name}`' for name in missing)} in {origin}. "
            f"It has {', '.join(table.column_names)}."
        )


def check_labels(table: pa.Table, column: str, names: Sequence[str], origin: str) -> None:
    """Refuses classes that are no integers, or that no name belongs to (RequestError: first ten rows and count)."""
    legal = range(len(names)) if names else range(2)
    values = table.column(column).to_pylist()
    bad = [f"row {i}: `{column}` is {v!r}" for i, v in enumerate(values) if type(v) is not int or v not in legal]
    if bad:
        raise bad_rows(origin, f"rows have no class from 0 to {len(legal) - 1}", bad)


def picture_files(table: pa.Table, column: str, folder: Path, origin: str) -> dict[str, Path]:
    """Returns where each picture that is given by name lies: in the folder, or in its `images/`.

    Raises:
        RequestError: pictures that are neither in the column nor where their names point (first ten and count).
    """
    files: dict[str, Path] = {}
    empty, absent = [], []
    for number, value in enumerate(_without_bytes(table.column(column))):
        name = file_name(value)
        if name is None and not (isinstance(value, Mapping) and value.get("bytes")):
            empty.append(f"row {number}: `{column}` is empty{_what_it_was(table, number)}")
        elif name is not None and name not in files:
            places = [folder / "images" / name, folder / name]
            found = next((place for place in places if _is_inside(place, folder) and place.is_file()), None)
            if found is None:
                absent.append(f"row {number}: `{name}`")
            else:
                files[name] = found
    if empty:
        advice = f"Write the pictures' bytes, or names of files in `images/`, to `{column}` and pass it with `--data`."
        raise bad_rows(origin, "rows have no picture", empty, advice)
    if absent:
        advice = "Put the files into the folder `images/` of a copy and pass that with `--data`."
        raise bad_rows(origin, "pictures are missing", absent, advice)
    return files


def file_name(value: Any) -> str | None:
    """Returns the file name that stands for a picture; None where the column holds the picture itself, or nothing."""
    if isinstance(value, Mapping):
        value = None if value.get("bytes") else value.get("path")
    return value if isinstance(value, str) and value else None


def bad_rows(origin: str, what: str, faults: Sequence[str], advice: str = "") -> RequestError:
    """Returns the error for rows that cannot be used: how many, and the first ten."""
    more = f"; and {len(faults) - NAMED:,} more" if len(faults) > NAMED else ""
    told = "; ".join(faults[:NAMED]) + more
    return RequestError(f"In {origin}, {len(faults):,} {what}: {told}.{' ' + advice if advice else ''}")


def _patterns(readme: str, config: str | None, split: str, origin: str) -> list[str]:
    """Returns the file patterns that a README's `configs` give for a split; empty where they give none."""
    import yaml

    if not readme.startswith("---"):
        return []
    try:
        head = yaml.safe_load(readme.split("\n---", 1)[0].removeprefix("---"))
    except yaml.YAMLError as error:
        raise RequestError(f"The head of README.md in {origin} is no YAML: {str(error).splitlines()[0]}.") from error
    configs = head.get("configs") or [] if isinstance(head, dict) else []
    for entry in configs:
        default = entry.get("default") or entry.get("config_name") == "default" or len(configs) == 1
        if entry.get("config_name") == config or (config is None and default):
            files = entry.get("data_files") or []
            paths = [file["path"] for file in files if isinstance(file, dict) and file.get("split") == split]
            return [path for each in paths for path in ([each] if isinstance(each, str) else each)]
    return []


def _without_bytes(column: pa.ChunkedArray) -> Iterator[Any]:
    """Yields a picture column's values with `bytes` as True or False, so that no gigabytes are copied."""
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_struct(column.type):
        yield from column.to_pylist()
        return
    has_bytes = compute.is_valid(compute.struct_field(column, "bytes")).to_pylist()
    for there, path in zip(has_bytes, compute.struct_field(column, "path").to_pylist(), strict=True):
        yield {"bytes": there, "path": path}


def _what_it_was(table: pa.Table, number: int) -> str:
    """Returns a row's name for its picture, where one of the hub's columns gives one."""
    for name in ("question_id", "image_source", "filename"):
        if name in table.column_names and not (name == "question_id" and "image_source" in table.column_names):
            return f" ({table.column(name)[number].as_py()})"
    return ""


def _is_inside(path: Path, folder: Path) -> bool:
    """Returns whether a path stays in a folder; the hub's cache keeps its files elsewhere and links to them."""
    return ".." not in path.parts and path.is_relative_to(folder)
