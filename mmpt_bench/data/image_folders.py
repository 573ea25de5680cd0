"""Images that do not come with the rows: found by name in the data's folder, or in a collection the user has.

Every image that is missing is known before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.words import counted
from mmpt_bench.data.images import image_bytes
from mmpt_bench.data.tables import bad_rows

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ImageFolder:
    """Where a task's images are, whose rows on the hub hold names alone."""

    collection: str
    """What `--images` calls it: "coco", "flickr30k", "mme"."""
    column: str
    """Column that names a row's image."""
    suffix: str = ""
    """What the name lacks: ".jpg"."""
    subfolders: tuple[str, ...] = ()
    """Where in the folder it is looked for too, as the collection is laid out when it is unpacked."""


COLLECTIONS = ("coco", "flickr30k", "mme")
"""What `--images` can name: the collections that the tasks' images are from."""


@dataclass(frozen=True)
class RowImages:
    """Where the images of a table's rows are."""

    files: tuple[Path | None, ...]
    """A row each; None where the row holds the image itself, or where there is none."""
    files_by_name: dict[str, Path]
    """By the names that the rows know them by."""
    unnamed: tuple[str, ...]
    """Rows that neither hold nor name an image."""
    missing: tuple[str, ...]
    """Images that are named and not there, each once, with the first row that needs it."""
    rows_without: int
    """Rows whose image is missing."""


def image_folders(texts: Sequence[str]) -> dict[str, Path]:
    """Returns collection -> folder of `--images coco=DIR,flickr30k=DIR`; RequestError names what is wrong."""
    found: dict[str, Path] = {}
    for text in (part.strip() for whole in texts for part in whole.split(",") if part.strip()):
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise RequestError(f"`--images {text}`: write COLLECTION=DIR, as in `coco=/data/coco`.")
        if name not in COLLECTIONS:
            raise unknown_name("collection of images", name, COLLECTIONS)
        if not Path(folder).is_dir():
            raise RequestError(f"There is no folder `{folder}` to take the images of `{name}` from.")
        found[name] = Path(folder)
    return found


def find_images(
    table: pa.Table, column: str, folder: Path, where: ImageFolder | None, images: Mapping[str, Path]
) -> RowImages:
    """Returns where the images of a table are: in its rows, in its folder, or in a collection.

    Args:
        column: holds images, their names, or nothing; it may be absent where `where` says how they are named.
        folder: of the data, in which `images/` is looked in too.
        images: collection -> folder.
    """
    names = _image_names(table, column, where)
    first_rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if name:
            first_rows.setdefault(name, row)
    places = {name: _place(name, folder, where, images) for name in first_rows}
    files = tuple(places[name] if name else None for name in names)
    return RowImages(
        files=files,
        files_by_name={name: path for name, path in places.items() if path is not None},
        unnamed=tuple(f"row {row}: `{column}` is empty" for row, name in enumerate(names) if name == ""),
        missing=tuple(f"row {first_rows[name]}: `{name[:100]}`" for name, path in places.items() if path is None),
        rows_without=sum(name is not None and path is None for name, path in zip(names, files, strict=True)),
    )


def check_images(found: RowImages, column: str, origin: str, where: ImageFolder | None) -> None:
    """Refuses rows whose images are not there: how many, and the first ten (RequestError)."""
    if found.unnamed:
        advice = f"Write the images' bytes, or names of files in `images/`, to `{column}` and pass it with `--data`."
        raise bad_rows(origin, "row has|rows have no image", found.unnamed, advice)
    if found.missing:
        advice = "Put the files into the folder `images/` of a copy and pass that with `--data`."
        if where is not None:
            advice = f"Say where they are: `--images {where.collection}=DIR`."
        rows = f"image is|images are missing, which {counted(found.rows_without, 'row needs', 'rows need')}"
        raise bad_rows(origin, rows, found.missing, advice)


def _place(name: str, folder: Path, where: ImageFolder | None, images: Mapping[str, Path]) -> Path | None:
    tries = [(folder, folder / "images" / name), (folder, folder / name)]
    if where is not None and where.collection in images:
        top = images[where.collection]
        tries += [(top, top / part / each) for part in ("", *where.subfolders, "images") for each in _writings(name)]
    return next((path for top, path in tries if is_file_inside(path, top)), None)


def _writings(name: str) -> list[str]:
    """Returns the ways in which a name is written: MME's release keeps the images of some subtasks in `images/`."""
    parts = name.split("/")
    if len(parts) == 2:
        return [name, f"{parts[0]}/images/{parts[1]}"]
    return [name, f"{parts[0]}/{parts[2]}"] if len(parts) == 3 and parts[1] == "images" else [name]


def _image_names(table: pa.Table, column: str, where: ImageFolder | None) -> list[str | None]:
    """Returns the name of each row's image: None where the row holds the image itself, empty where it has none."""
    known = table.column_names
    names: list[str | None] = [""] * table.num_rows
    if column in known:
        names = _own_names(table.column(column))
    if where is None or where.column == column or where.column not in known:
        return names
    for row, (name, other) in enumerate(zip(names, table.column(where.column).to_pylist(), strict=True)):
        if name == "" and isinstance(other, str) and other:
            names[row] = other if other.endswith(where.suffix) else other + where.suffix
    return names


def _own_names(column: pa.ChunkedArray) -> list[str | None]:
    """Returns what an image column says of each row, as `_image_names` does; its gigabytes of images are not copied.

    Raises:
        RequestError: text that is neither a file's name nor base64 of an image (first ten rows and count), or numbers.
    """
    import pyarrow as pa
    from pyarrow import compute

    held, values = [False] * len(column), column
    if pa.types.is_struct(column.type):
        fields = {column.type.field(i).name for i in range(column.type.num_fields)}
        if "bytes" in fields:
            held = compute.is_valid(compute.struct_field(column, "bytes")).to_pylist()
        values = compute.struct_field(column, "path") if "path" in fields else pa.nulls(len(column))
    elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        lengths = compute.binary_length(column).to_pylist()
        return [None if length else "" for length in lengths]
    elif column.null_count < len(column) and (pa.types.is_primitive(column.type) or pa.types.is_nested(column.type)):
        kind = str(column.type)[:40]
        raise RequestError(f"The image column holds {kind}, not images: write the bytes of JPEG or PNG, or names.")
    names: list[str | None] = []
    faults = []
    for row, (is_held, value) in enumerate(zip(held, values.to_pylist(), strict=True)):
        name = value if isinstance(value, str) else ""
        try:
            names.append(None if is_held or image_bytes(name) is not None else name)
        except ValueError as error:
            faults.append(f"row {row}: it holds {error}")
    if faults:
        raise bad_rows("the image column", "row holds|rows hold no image", faults)
    return names


def is_file_inside(path: Path, folder: Path) -> bool:
    """Returns whether a path is a file that stays in a folder; the hub's cache links to files elsewhere."""
    try:
        path, folder = path.absolute(), folder.absolute()
        return path.is_relative_to(folder) and ".." not in path.relative_to(folder).parts and path.is_file()
    except OSError:  # no file system takes a name so long
        return False
