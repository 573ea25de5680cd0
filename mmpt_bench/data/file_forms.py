"""Files of any form as one table: Parquet, Arrow, JSON, text tables, class folders, tar shards. Nothing of them is run.

What the hub keeps is read as it stands there. `read_files` is the one place where a form becomes rows; which files are
a split is told in tables.py.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.files import check_no_pointer, loads
from mmpt_bench.common.words import counted, plural
from mmpt_bench.data.text_files import csv_rows, json_rows, text_of

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
UNREAD_IMAGES = (".avif", ".heic", ".heif", ".svg", ".jxl", ".jp2", ".tga", ".ppm", ".eps", ".pdf")
"""Endings of images that are not read: a row would be missing."""
HUB, ARROW, TAR = (".parquet", ".jsonl"), (".arrow",), (".tar",)
TEXT = (".csv", ".tsv", ".json", ".csv.gz", ".tsv.gz", ".json.gz", ".jsonl.gz")
FORMS = (HUB, ARROW, TAR, TEXT)
"""Endings of files of rows, in the order in which they are looked for."""
METADATA = ("metadata.csv", "metadata.jsonl")
"""What says more of the images of a folder than their classes, by `file_name`, as `datasets` reads it."""
MAX_MEMBER, MAX_TEXT = 64 * 2**20, 2**20
"""Largest image, and largest text, of a tar shard, in bytes."""
MAX_SHARD = 8 * 2**30
"""Bytes of a tar shard's images and texts together: they are held in memory."""


def read_files(files: Sequence[Path]) -> pa.Table:
    """Returns the rows of some files, one file after the other.

    Columns of another order are put into that of the first file, and types into one that holds all.

    Raises:
        RequestError: a broken file, a git-LFS pointer, or files whose columns, types or class names do not go together.
    """
    return _joined([(file.name, read_file(file)) for file in files])


def read_file(file: Path) -> pa.Table:
    """Returns the rows of one file; RequestError names a broken one."""
    import pyarrow as pa
    from pyarrow import json as pa_json
    from pyarrow import parquet

    check_no_pointer(file)
    name = file.name.lower()
    try:
        if name.endswith(".parquet"):
            return parquet.ParquetFile(file).read()
        if name.endswith(".jsonl"):
            return pa_json.read_json(file)
        if name.endswith(ARROW):
            return _arrow(file)
        if name.endswith(TAR):
            return pa.Table.from_pylist(tar_rows(file))
        if rows := text_rows(file):
            return _as_table(rows)
        raise RequestError(f"There is no row in `{file.name}`.")
    except (pa.ArrowException, OSError, tarfile.TarError, EOFError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:150].rstrip(".")
        raise RequestError(f"`{file.name}` cannot be read: {said}. Fetch it again.") from error


def text_rows(file: Path) -> list[dict[str, Any]]:
    """Returns the rows of JSON lines, a JSON array, or a text table; RequestError names what is wrong."""
    name = file.name.lower().removesuffix(".gz")
    text = text_of(file)
    if name.endswith((".csv", ".tsv")):
        return csv_rows(text, "\t" if name.endswith(".tsv") else ",", file)
    numbered, torn = json_rows(text, file)
    if torn:
        raise RequestError(f"`{file.name}` is cut short: its last line was not finished. Fetch it again.")
    rows = [row for _, row in numbered]
    if len(rows) == 1:
        lists = [value for value in rows[0].values() if isinstance(value, list) and value]
        if len(lists) == 1 and all(isinstance(each, dict) for each in lists[0]) and len(rows[0]) <= 3:
            return lists[0]
    return rows


def _as_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Returns rows as a table with every column that any of them has, in order of appearance."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            # Numbers in some rows and text in others: text holds both.
            plain = [value if isinstance(value, str | None) else json.dumps(value) for value in values]
            columns[name] = pa.array(plain, pa.string())
    return pa.table(columns)


def _arrow(file: Path) -> pa.Table:
    """Returns a file that `datasets` wrote (a stream), or one in Arrow's file form."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        try:
            return pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_file(source).read_all()


def tar_rows(file: Path) -> list[dict[str, Any]]:
    """Returns a row for each key of a WebDataset shard: image and text members by their endings, JSON as columns.

    The image is the column `image`, `.cls` is `label`, `.json` is spread into columns, and any other text is a
    column called like its ending. Nothing is unpacked to the disk.

    Raises:
        RequestError: a member that is no plain file inside the archive, is too large, or says again what its key has.
    """
    rows: dict[str, dict[str, Any]] = {}
    total = 0
    with tarfile.open(file, "r:") as archive:
        for member in archive:
            if member.isdir():
                continue
            path = PurePosixPath(member.name)
            told = f"`{member.name[:100]}` of `{file.name}`"
            if not member.isfile() or path.is_absolute() or ".." in path.parts:
                raise RequestError(f"{told} is a link, or lies outside the archive: the archive is not read.")
            stem, _, ending = path.name.partition(".")
            ending = f".{ending.lower()}"
            limit = MAX_MEMBER if ending in IMAGES else MAX_TEXT
            total += member.size
            if member.size > limit or total > MAX_SHARD:
                raise RequestError(f"{told} has {member.size:,} bytes, or the archive too many: it is not read.")
            opened = archive.extractfile(member)
            content = opened.read() if opened is not None else b""
            if len(content) != member.size:
                raise RequestError(f"`{file.name}` is cut short in {told}. Fetch it again.")
            row = rows.setdefault(str(path.parent / stem), {"__key__": str(path.parent / stem)})
            _add_member(row, ending, content, told)
    return list(rows.values())


def _add_member(row: dict[str, Any], ending: str, content: bytes, told: str) -> None:
    try:
        text = "" if ending in IMAGES else content.decode()
        if ending in IMAGES:
            name = PurePosixPath(row["__key__"]).name
            values: dict[str, Any] = {"image": {"bytes": content, "path": f"{name}{ending}"}}
        elif ending == ".json":
            value = loads(text)
            values = value if isinstance(value, dict) else {"json": text}
        elif ending == ".cls":
            values = {"label": int(text) if text.strip().isdigit() else text.strip()}
        else:
            values = {ending[1:]: text}
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{told} cannot be read: {str(error)[:100]}.") from error
    for column, value in values.items():
        if column in row and row[column] != value:
            raise RequestError(f"{told} gives its key another `{column[:100]}`: one key is one row.")
    row |= values


def folder_rows(names: Iterable[str], folder: Path, under: str) -> list[dict[str, Any]]:
    """Returns a row for each image of `under`, a folder of images by class or with a metadata file beside them.

    Columns are `image`, the file's name in the data's folder; `label`, its class's name, where there are folders of
    classes; and those of the metadata, which then says which images count.

    Raises:
        RequestError: a metadata file that names no image or not all of them, an image that lies beside the folders of
            classes or deeper, or one of a form that is not read.
    """
    prefix = f"{under}/" if under else ""
    names = sorted(name for name in names if name.startswith(prefix))
    inside = [name for name in names if name.lower().endswith(IMAGES)]
    if unread := [name for name in names if name.lower().endswith(UNREAD_IMAGES)]:
        raise RequestError(
            f"{counted(len(unread), 'image is', 'images are')} of a form that is not read, first `{unread[0][:100]}`."
        )
    for file in METADATA:
        if (folder / under / file).is_file():
            rows = text_rows(folder / under / file)
            if not all(isinstance(row.get("file_name"), str) and row["file_name"] for row in rows):
                raise RequestError(f"`{prefix}{file}` has no column `file_name` that says which image a row is of.")
            named = {prefix + row["file_name"] for row in rows}
            if untold := [name for name in inside if name not in named]:
                raise RequestError(
                    f"`{prefix}{file}` does not name {counted(len(untold), 'image')}, first `{untold[0][:100]}`."
                )
            return [{k: v for k, v in row.items() if k != "file_name"} | {"image": prefix + row["file_name"]}
                    for row in rows]  # fmt: skip
    parts = {name: name.removeprefix(prefix).split("/") for name in inside}
    if stray := [name for name in inside if len(parts[name]) != 2]:
        raise RequestError(
            f"{counted(len(stray), 'image does', 'images do')} not lie in a folder of "
            f"{plural(len(stray), 'its', 'their')} class, first `{stray[0][:100]}`. Move them."
        )
    return [{"image": name, "label": parts[name][0]} for name in inside]


def _joined(parts: Sequence[tuple[str, pa.Table]]) -> pa.Table:
    import pyarrow as pa

    (first_name, first), *others = parts
    if all(table.schema.equals(first.schema) for _, table in others):
        _check_features(parts)
        return pa.concat_tables([table for _, table in parts])
    columns = [name for name in first.column_names if not name.startswith("__index")]
    made = [first.select(columns)]
    _check_features(parts)
    schema = made[0].schema
    for name, table in others:
        other = [each for each in table.column_names if not each.startswith("__index")]
        for lacking, of, having in (*((c, name, first_name) for c in columns if c not in other),
                                    *((c, first_name, name) for c in other if c not in columns)):  # fmt: skip
            raise RequestError(f"`{of}` has no column `{lacking[:100]}`, which `{having}` has: they are not one split.")
        made.append(table.select(columns))
        schema = pa.schema([_common(field, table.schema.field(field.name), first_name, name) for field in schema])
    metadata = first.schema.metadata
    return pa.concat_tables([_cast(table, schema, name) for table, (name, _) in zip(made, parts, strict=True)]
                            ).replace_schema_metadata(metadata)  # fmt: skip


def _common(one: pa.Field, other: pa.Field, first: str, name: str) -> pa.Field:
    """Returns a field that holds both; RequestError where there is none."""
    import pyarrow as pa

    if one.type.equals(other.type):
        return one
    try:
        return pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive").field(0)
    except pa.ArrowException:
        if pa.types.is_string(one.type) or pa.types.is_string(other.type):
            plain = other if pa.types.is_string(one.type) else one
            if pa.types.is_integer(plain.type):
                return pa.field(one.name, pa.string())
    raise RequestError(
        f"Column `{one.name[:100]}` is {str(one.type)[:60]} in `{first}` and {str(other.type)[:60]} in `{name}`: write "
        "one type into both."
    )


def _cast(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    import pyarrow as pa

    columns = []
    for field in schema:
        try:
            columns.append(table.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise RequestError(
                f"Column `{field.name[:100]}` of `{name}` cannot be read as {str(field.type)[:60]}, as the other files "
                "of the split have it."
            ) from error
    return pa.table(columns, schema=schema)


def _check_features(parts: Sequence[tuple[str, pa.Table]]) -> None:
    """Refuses files that give one column's classes in different orders: equal numbers would not be equal classes."""
    told: dict[str, tuple[str, list[str]]] = {}
    for name, table in parts:
        for column, feature in features(table).items():
            names = feature.get("names") if isinstance(feature, dict) else None
            if names and told.setdefault(column, (name, names))[1] != names:
                raise RequestError(
                    f"The classes of `{column[:100]}` in `{name}` are not those in `{told[column][0]}`, or stand in "
                    "another order: their numbers do not go together."
                )
    for column, (having, _) in told.items():
        for name, table in parts:
            feature = features(table).get(column)
            if not (isinstance(feature, dict) and feature.get("names")):
                raise RequestError(
                    f"`{having}` names the classes of `{column[:100]}` and `{name}` does not: whether their numbers go "
                    "together is not known."
                )


def features(table: pa.Table) -> dict[str, Any]:
    """Returns what `datasets` wrote of a table's columns; empty where it wrote nothing."""
    stored = (table.schema.metadata or {}).get(b"huggingface")
    found = json.loads(stored).get("info", {}).get("features", {}) if stored is not None else {}
    return found if isinstance(found, dict) else {}
