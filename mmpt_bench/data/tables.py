"""A split's files as rows: which files a README names, what is in them, and whether it can be evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.hashing import content_key

if TYPE_CHECKING:
    import pyarrow as pa

NAMED = 10
"""Bad rows that an error names; the rest it counts."""


class TableRows(Sequence[Mapping[str, Any]]):
    """The rows of a table as dicts, each made when it is asked for."""

    def __init__(self, table: pa.Table, image_column: str, images: Sequence[Any]) -> None:
        """Wraps `table`; `images` has what stands in the image column, None where the table's own value does."""
        names = [name for name in table.column_names if name != image_column or None in images]
        self._columns = {name: table.column(name) for name in names}
        self._length, self._image_column, self._images = table.num_rows, image_column, images

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._length

    def __getitem__(self, index: Any) -> Any:
        """Returns one row, or a list of rows for a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._length))]
        row = {name: column[index].as_py() for name, column in self._columns.items()}
        image = self._images[index]
        return row if image is None else row | {self._image_column: image}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yields the rows in order."""
        return (self[number] for number in range(self._length))


def split_files(names: Sequence[str], readme: str, config: str | None, split: str, origin: str) -> list[str]:
    """Returns the files that hold a split, in order.

    The README's `configs` decide, as on the hub; where they do not name the split, `<config>/<split>-*`,
    `data/<split>-*`, `<split>.jsonl` and `*_<split>.jsonl` are looked for.

    Args:
        names: every file of the data set, relative, with `/`.
        readme: text of its README.md, empty where there is none.
        config: None: the default one.
        origin: where this is, for messages.

    Raises:
        RequestError: there is no file for it, one of its shards is not there or there twice, or the README's head is no
            YAML.
    """
    tables = sorted(name for name in names if name.endswith((".parquet", ".jsonl")))
    fallback = [f"{config}/{split}-*"] if config else []
    # SNLI-VE and VSR call their validation file `dev`.
    for name in (split, "dev") if split == "validation" else (split,):
        fallback += [f"data/{name}-*", f"{name}-*", f"{name}.jsonl", f"*_{name}.jsonl"]
    told = _patterns(readme, config, split, origin)
    for patterns in (told, *([pattern] for pattern in fallback)):
        found = [name for name in tables if any(fnmatchcase(name, pattern) for pattern in patterns)]
        if found:
            _check_shards(found, origin)
            if len(found) > 1 and patterns is not told and patterns[0].startswith("*"):
                raise _two_generations(found[0], found[1], origin)
            also = [name for name in tables if name not in found and _is_split(name, split)]
            if also and patterns is not told and all(_is_split(name, split) for name in found):
                raise _two_generations(found[0], also[0], origin)
            return found
    what = f"split `{split}`" + (f" of config `{config}`" if config else "")
    there = ", ".join(tables[:NAMED]) or "no .parquet or .jsonl file"
    raise RequestError(f"There is no {what} in {origin}. It holds {there}.")


def _is_split(name: str, split: str) -> bool:
    """Returns whether a file's name says that it holds a split, whatever the config."""
    return any(fnmatchcase(name, pattern) for pattern in (f"data/{split}-*", f"{split}-*", f"{split}.jsonl"))


def _check_shards(found: Sequence[str], origin: str) -> None:
    """Refuses files `...-00000-of-00003.parquet` that are not one whole set: rows would be missing, or there twice."""
    by_split: dict[tuple[str, str], dict[int, str]] = {}
    others = []
    for name in found:
        shard = re.search(r"^(.*)-(\d{5})-of-(\d{5})(?!\d)", name)
        if shard is None:
            others.append(name)
            continue
        there = by_split.setdefault((shard[1], shard[3]), {})
        if int(shard[2]) in there:
            raise _two_generations(there[int(shard[2])], name, origin)
        there[int(shard[2])] = name
    firsts: dict[str, str] = {}
    for (name, _), there in by_split.items():
        first = there[min(there)]
        if (other := firsts.setdefault(name, first)) != first or others:
            raise _two_generations(other, others[0] if others else first, origin)
    for (name, of), there in by_split.items():
        absent = sorted(set(range(int(of))) - set(there))
        if absent:
            raise RequestError(
                f"{len(absent)} of the {int(of)} files of `{name}` are not in {origin}, first "
                f"`{name}-{absent[0]:05}-of-{of}`. Fetch them too."
            )


def _two_generations(one: str, other: str, origin: str) -> RequestError:
    return RequestError(
        f"`{one}` and `{other}` of {origin} are files of one split from two downloads: rows would count twice. "
        "Remove the older ones."
    )


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


def readme_class_names(readme: str, config: str | None, column: str | None, origin: str) -> tuple[str, ...]:
    """Returns the names of a label column's classes as a README's `dataset_info` has them; empty where it has none."""
    infos = _head(readme, origin).get("dataset_info") or []
    for info in infos if isinstance(infos, list) else [infos]:
        if config is not None and info.get("config_name", config) != config:
            continue
        for feature in info.get("features") or []:
            kind = feature.get("dtype")
            if feature.get("name") == column and isinstance(kind, dict):
                names = kind.get("class_label", {}).get("names") or {}
                return tuple(map(str, names.values() if isinstance(names, dict) else names))
    return ()


def in_official_classes(
    table: pa.Table, column: str, names: Sequence[str], official: Sequence[str], origin: str
) -> tuple[pa.Table, str]:
    """Returns a table whose class numbers are those of the official names, and what was changed for it.

    Names may differ in case, in spaces around them and in their order.

    Args:
        names: of the data's classes, in the order of their numbers.
        official: the task's, in the order of theirs.

    Raises:
        RequestError: the data has other classes.
    """
    import pyarrow as pa

    plain, wanted = ([name.strip().casefold() for name in each] for each in (names, official))
    if plain == wanted:
        return table, "" if list(names) == list(official) else f"classes are called {', '.join(official)} here"
    if sorted(plain) != sorted(wanted):
        raise RequestError(
            f"The classes of `{column}` in {origin} are {_listed(names)}; the task's are {_listed(official)}. They are "
            "the legal answers: write the task's into the data, or make a task of your own from tasks/_template.py."
        )
    number = [wanted.index(name) for name in plain]
    values = pa.array([number[value] for value in table.column(column).to_pylist()])
    table = table.set_column(table.column_names.index(column), column, values)
    return table, f"classes are numbered in the order {_listed(names)}, and were put into the task's own"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:20] for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def content_sha256(table: pa.Table, columns: Sequence[str]) -> str:
    """Returns the SHA-256 of what a table's columns say, row by row: the same for Parquet and for JSON lines."""
    return content_key(list(zip(*(table.column(name).to_pylist() for name in columns), strict=True)), 64)


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
    n = len(names) or 2
    values = table.column(column).to_pylist()
    bad = [f"row {row}: `{column}` is {value!r}" for row, value in enumerate(values) if not is_class_number(value, n)]
    if bad:
        raise bad_rows(origin, f"rows have no class from 0 to {n - 1}", bad)


def is_class_number(value: Any, n: int) -> TypeGuard[int]:
    """Returns whether a value numbers one of `n` classes; True and False do not."""
    return type(value) is int and 0 <= value < n


def bad_rows(origin: str, what: str, faults: Sequence[str], advice: str = "") -> RequestError:
    """Returns the error for rows that cannot be used: how many, and the first ten."""
    return RequestError(f"In {origin}, {len(faults):,} {what}: {first_of(faults)}.{' ' + advice if advice else ''}")


def first_of(faults: Sequence[str]) -> str:
    """Returns the first ten faults, and how many more there are."""
    more = f"; and {len(faults) - NAMED:,} more" if len(faults) > NAMED else ""
    return "; ".join(faults[:NAMED]) + more


def _patterns(readme: str, config: str | None, split: str, origin: str) -> list[str]:
    """Returns the file patterns that a README's `configs` give for a split; empty where they give none."""
    configs = _head(readme, origin).get("configs") or []
    for entry in configs:
        default = entry.get("default") or entry.get("config_name") == "default" or len(configs) == 1
        if entry.get("config_name") == config or (config is None and default):
            files = entry.get("data_files") or []
            paths = [file["path"] for file in files if isinstance(file, dict) and file.get("split") == split]
            return [path for each in paths for path in ([each] if isinstance(each, str) else each)]
    return []


def _head(readme: str, origin: str) -> dict[str, Any]:
    """Returns the YAML that a README begins with; empty where there is none."""
    import yaml

    if not readme.startswith("---"):
        return {}
    try:
        head = yaml.safe_load(readme.split("\n---", 1)[0].removeprefix("---"))
    except yaml.YAMLError as error:
        raise RequestError(f"The head of README.md in {origin} is no YAML: {str(error).splitlines()[0]}.") from error
    return head if isinstance(head, dict) else {}
