"""Pictures that do not come with the rows: found by name in the data's folder, or in a collection the user has.

Every picture that is missing is known before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.data.tables import bad_rows

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ImageFolder:
    """Where a task's pictures are, whose rows on the hub hold names alone."""

    collection: str
    """What `--images` calls it: "coco", "flickr30k", "mme"."""
    column: str
    """Column that names a row's picture."""
    suffix: str = ""
    """What the name lacks: ".jpg"."""
    subfolders: tuple[str, ...] = ()
    """Where in the folder it is looked for too, as the collection is laid out when it is unpacked."""


COLLECTIONS = ("coco", "flickr30k", "mme")
"""What `--images` can name: the collections that the tasks' pictures are from."""


@dataclass(frozen=True)
class FoundImages:
    """Where each row's picture is."""

    files: tuple[Path | None, ...]
    """A row each; None where the row holds the picture itself, or where there is none."""
    names: dict[str, Path]
    """The files by the names that the rows know them by."""
    nameless: tuple[str, ...]
    """Rows that neither hold nor name a picture."""
    absent: tuple[str, ...]
    """Pictures that are named and not there, each once, with the first row that needs it."""
    rows_without: int
    """Rows whose picture is missing."""


def image_folders(texts: Sequence[str]) -> dict[str, Path]:
    """Returns collection -> folder of `--images coco=DIR,flickr30k=DIR`; RequestError names what is wrong."""
    found: dict[str, Path] = {}
    for text in (part.strip() for whole in texts for part in whole.split(",") if part.strip()):
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise RequestError(f"`--images {text}`: write COLLECTION=DIR, as in `coco=/data/coco`.")
        if name not in COLLECTIONS:
            raise unknown_name("collection of pictures", name, COLLECTIONS)
        if not Path(folder).is_dir():
            raise RequestError(f"There is no folder `{folder}` to take the pictures of `{name}` from.")
        found[name] = Path(folder)
    return found


def find_images(
    table: pa.Table, column: str, folder: Path, where: ImageFolder | None, images: Mapping[str, Path]
) -> FoundImages:
    """Returns where the pictures of a table are: in its rows, in its folder, or in a collection.

    Args:
        table: the rows.
        column: holds pictures, their names, or nothing; it may be absent where `where` says how they are named.
        folder: of the data, in which `images/` is looked in too.
        where: how pictures that do not come with the rows are named, and which collection they are of.
        images: collection -> folder.
    """
    places: dict[str, Path | None] = {}
    files: list[Path | None] = []
    nameless, absent, without = [], [], 0
    for number, (has_bytes, name) in enumerate(_names(table, column, where)):
        if has_bytes:
            files.append(None)
            continue
        if name is None:
            nameless.append(f"row {number}: `{column}` is empty")
            files.append(None)
            without += 1
            continue
        if name not in places:
            places[name] = _place(name, folder, where, images)
            if places[name] is None:
                absent.append(f"row {number}: `{name}`")
        files.append(places[name])
        without += places[name] is None
    there = {name: path for name, path in places.items() if path is not None}
    return FoundImages(tuple(files), there, tuple(nameless), tuple(absent), without)


def check_images(found: FoundImages, column: str, origin: str, where: ImageFolder | None) -> None:
    """Refuses rows whose pictures are not there: how many, and the first ten (RequestError)."""
    if found.nameless:
        advice = f"Write the pictures' bytes, or names of files in `images/`, to `{column}` and pass it with `--data`."
        raise bad_rows(origin, "rows have no picture", found.nameless, advice)
    if found.absent:
        advice = "Put the files into the folder `images/` of a copy and pass that with `--data`."
        if where is not None:
            advice = f"Say where they are: `--images {where.collection}=DIR`."
        rows = f"pictures are missing, which {found.rows_without:,} rows need"
        raise bad_rows(origin, rows, found.absent, advice)


def _place(name: str, folder: Path, where: ImageFolder | None, images: Mapping[str, Path]) -> Path | None:
    tries = [(folder, folder / "images" / name), (folder, folder / name)]
    if where is not None and where.collection in images:
        top = images[where.collection]
        tries += [(top, top / part / each) for part in ("", *where.subfolders, "images") for each in _writings(name)]
    return next((path for top, path in tries if _is_inside(path, top) and path.is_file()), None)


def _writings(name: str) -> list[str]:
    """Returns the ways in which a name is written: MME's release keeps the pictures of some subtasks in `images/`."""
    parts = name.split("/")
    if len(parts) == 2:
        return [name, f"{parts[0]}/images/{parts[1]}"]
    return [name, f"{parts[0]}/{parts[2]}"] if len(parts) == 3 and parts[1] == "images" else [name]


def _names(table: pa.Table, column: str, where: ImageFolder | None) -> Iterator[tuple[bool, str | None]]:
    """Yields of each row whether it holds its picture, and else the picture's name."""
    named: list[Any] = [None] * table.num_rows
    if where is not None and where.column in table.column_names and where.column != column:
        named = table.column(where.column).to_pylist()
    values = _without_bytes(table.column(column)) if column in table.column_names else iter([None] * table.num_rows)
    for value, other in zip(values, named, strict=True):
        if isinstance(value, Mapping):
            if value["bytes"]:
                yield True, None
                continue
            value = value["path"]
        if isinstance(value, str) and value:
            yield False, value
        elif isinstance(other, str) and other and where is not None:
            yield False, other if other.endswith(where.suffix) else other + where.suffix
        else:
            yield False, None


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


def _is_inside(path: Path, folder: Path) -> bool:
    """Returns whether a path stays in a folder; the hub's cache keeps its files elsewhere and links to them."""
    return path.is_relative_to(folder) and ".." not in path.relative_to(folder).parts
