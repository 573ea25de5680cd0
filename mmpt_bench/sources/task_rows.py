"""Where a task's rows come from: its own file, a local folder in the hub's form, the embedded suite, or the hub.

Folder and hub are read by the same code from the same Parquet or JSON-lines files, so that a copy of the hub's files on
a disk has the hub's fingerprint. Nothing of a data set is ever run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.hashing import content_key, file_sha256, files_sha256
from mmpt_bench.common.words import counted
from mmpt_bench.data import tables
from mmpt_bench.data.dataset import Dataset
from mmpt_bench.data.file_forms import TAR, read_files
from mmpt_bench.data.file_forms import folder_rows as image_folder_rows
from mmpt_bench.data.image_folders import check_images, find_images
from mmpt_bench.data.images import key_clashes
from mmpt_bench.data.rows import COLUMNS_TOLD, NO_IMAGE, OTHER_ROWS, SHIFTED, Rows
from mmpt_bench.data.samples import Sample
from mmpt_bench.data.split_files import called_like, names_split, split_files
from mmpt_bench.evaluation.counting import MAX_CHOICES
from mmpt_bench.evaluation.task import Task
from mmpt_bench.sources import hub

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")


ID = "question_id"
Columns = tuple[tuple[str, str, str], ...]
"""(Task, or "" for each; its column; that column's name in the files)."""


@dataclass(frozen=True)
class Where:
    """Where the rows of tasks are taken from."""

    folder: Path | None = None
    """Of real data in the hub's form, or one file of rows; before all else."""
    images: Mapping[str, Path] = field(default_factory=dict)
    """Collection -> folder, of images that do not come with the rows."""
    embedded: bool = False
    """Generated miniatures; else the hub is asked."""
    offline: bool = False
    """Open no socket."""
    is_dev: bool = False
    """Of their dev part, which selection may look at: generated scenes of its own, or the validation split."""
    columns: Columns = ()
    """Of rows from files."""
    world: str = SHIFTED
    """Of the embedded suite."""


def on_part(task: Task, where: Where) -> Task:
    """Returns the task on the part of its data that is wanted; RequestError where it has no dev part."""
    if not where.is_dev:
        return task
    if task.data.make_rows is not None:
        raise RequestError(f"`{task.name}` makes its rows itself: it has no validation split to choose a rate on.")
    return task.on(task.data.validation_split())


def rows_of(task: Task, where: Where, need_images: bool = True) -> Rows:
    """Returns a task's rows: the one place that decides which.

    A folder that the user names comes first, then the rows that a task makes itself, then the embedded suite or the
    hub. Rows that a task makes are replaced by those of a folder of its own name alone.

    Args:
        task: whose rows; its split may be another than the one that is scored.
        need_images: refuses rows whose images are missing; otherwise something stands in for all of them.

    Raises:
        RequestError: no such folder, data set or split, no such task in the embedded suite, a missing column, an image
            that is not there, a bad value.
        MachineError: the rows are on the hub and cannot be had.
    """
    own = task.data.make_rows
    folder = where.folder
    if folder is not None and (own is None or folder.is_file() or (folder / (task.data.folder or task.name)).is_dir()):
        return folder_rows(task, folder, where.images, need_images, columns_of(task, where.columns))
    if columns_of(task, where.columns) and (own is not None or where.embedded):
        raise RequestError(
            f"`--columns` is for rows from files, and those of `{task.name}` are made: name files, `--data`."
        )
    if own is not None and where.world != SHIFTED:
        raise RequestError(f"`{task.name}` makes its rows itself, and knows no `--world {where.world}`.")
    if own is not None:
        rows = own()
        told = f"rows that the task makes itself: the folder of `--data` has no folder `{task.name}`"
        return rows if where.folder is None else replace(rows, notes=(*rows.notes, told))
    if not where.embedded:
        return hub_rows(task, where.offline, where.images, need_images, columns_of(task, where.columns))
    from mmpt_bench.embedded import suite

    if task.name not in suite.N_IMAGES:
        raise RequestError(
            f"The embedded suite has no task `{task.name}`: pass `--data DIR` with its rows, or give the task "
            "`make_rows`."
        )
    part = "dev" if where.is_dev else "train" if task.data.split == "train" else "evaluation"
    return suite.source(task.name, part, where.world)


def columns_of(task: Task, columns: Columns) -> dict[str, str]:
    """Returns column -> its name in the files, for one task."""
    return {wanted: own for name, wanted, own in columns if name in ("", task.name)}


def folder_rows(
    task: Task,
    data_dir: Path,
    images: Mapping[str, Path] | None = None,
    need_images: bool = True,
    columns: Mapping[str, str] | None = None,
) -> Rows:
    """Returns a task's rows from a folder of files: the task's own, or one that holds a folder for each task.

    Images stand in the image column as bytes, as base64, or as file names that are looked for in the folder, in its
    `images/` and in the collections. Tables are read whole; images are decoded when they are used. Raises as `rows_of`
    does.

    Args:
        data_dir: the folder, or one file with the rows that are scored.
        columns: column of the task -> its name in the files.
    """
    data = task.data
    if data_dir.is_file():
        if data.split == "train":
            raise RequestError(f"`{data_dir.name}` does not say that it is a training split: name a folder instead.")
        return _read(
            task, data_dir.parent, [data_dir.name], f"file `{data_dir.name}`", images or {}, need_images, columns
        )
    named = data_dir / (data.folder or task.name)
    # MNIST's own folder holds a folder `mnist` too, that of its config; the README is what tells them apart.
    is_own = not named.is_dir() or ((data_dir / "README.md").is_file() and not (named / "README.md").is_file())
    folder = data_dir if is_own else named
    if not folder.is_dir():
        raise RequestError(f"There is no folder `{data_dir}`.")
    origin = f"folder `{folder.name}`"
    names = _file_names(folder)
    files = split_files(names, _readme(folder), data.config, data.split, origin)
    rows = _read(task, folder, files, origin, images or {}, need_images, columns)
    others = called_like(names, data.split, files)
    stray = [name for name in others if name.removeprefix("data/").count("/") == 0]
    told = f"rows are read from {', '.join(files[:3])}; not read: {', '.join(stray[:5])}"
    return replace(rows, not_read=tuple(others), notes=(*rows.notes, *([told] if stray else [])))


def hub_rows(
    task: Task,
    offline: bool = False,
    images: Mapping[str, Path] | None = None,
    need_images: bool = True,
    columns: Mapping[str, str] | None = None,
) -> Rows:
    """Returns a task's rows from the hub at the task's revision; see `folder_rows` for images, raises as `rows_of`."""
    data = task.data
    origin = f"`{data.hub}` at {data.revision[:8]}"
    hint = "Pass `--data DIR` with a copy of it, or fetch it once with a network."
    with hub.asking(f"data set {origin}", hint, offline):
        folder = hub.snapshot(data.hub, ["README.md"], offline, data.revision, dataset=True)
        names = _file_names(folder) if offline else hub.dataset_files(data.hub, data.revision)
        files = split_files(names, _readme(folder), data.config, data.split, origin)
        folder = hub.snapshot(data.hub, files, offline, data.revision, dataset=True)
    # The snapshot's folder is called like the commit that a branch's name stands for.
    return _read(task, folder, files, f"`{data.hub}` at {folder.name[:8]}", images or {}, need_images, columns)


def samples(task: Task, source: Rows, limit: int | None = None) -> list[Sample]:
    """Returns all samples, or the first `limit` and the others on the same images, so that pairs stay whole.

    Raises:
        RequestError: bad values (the first ten rows and the count), an id that is there twice, an image key that stands
            for several images, or more choices than a record can hold.
    """
    made = _of_each(source.rows, lambda row, number: task.sample(row, number, source.label_names), source.origin)
    if not made:
        raise RequestError(f"There is no row of {task.title} in {source.origin}: nothing could be asked.")
    twice = [f"`{name}`" for name, times in Counter(sample.id for sample in made).items() if times > 1]
    if twice:
        raise tables.bad_rows(source.origin, "id is|ids are there more than once", twice)
    if too_many := [f"`{sample.id}` ({len(sample.choices):,})" for sample in made if len(sample.choices) > MAX_CHOICES]:
        raise tables.bad_rows(source.origin, f"sample has|samples have more than {MAX_CHOICES:,} choices", too_many)
    clashes = key_clashes((f"row {i}", image) for i, sample in enumerate(made) for image in sample.images)
    if clashes:
        advice = "Equal keys must be equal images, as answers are kept by key: make the key of what tells images apart."
        raise tables.bad_rows(source.origin, "image key stands|image keys stand for several images", clashes, advice)
    if limit is None:
        return made
    images = {sample.cluster for sample in made[:limit]}
    return [sample for sample in made if sample.cluster in images]


def check_countable(task: Task, made: Sequence[Sample], origin: str) -> None:
    """Refuses samples that the task's metric cannot count, as an MME image with one question (RequestError)."""
    try:
        task.metric.coded(made)
    except ValueError as error:
        hint = "`--on-bad-item skip` leaves such images out for all methods alike."
        raise RequestError(f"{task.title} cannot be scored on {origin}: {str(error).rstrip('.')}. {hint}") from error


def _of_each(rows: Iterable[Mapping[str, Any]], make: Callable[[Any, int], T], origin: str) -> list[T]:
    """Returns what is made of each row and its number; all bad ones are found before ten are named."""
    made: list[T] = []
    faults: list[str] = []
    for number, row in enumerate(rows):
        try:
            made.append(make(row, number))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            faults.append(f"row {number}: {error if isinstance(error, ValueError) else repr(error)}")
    if faults:
        raise tables.bad_rows(origin, "row cannot|rows cannot be used", faults)
    return made


def _read(
    task: Task,
    folder: Path,
    files: Sequence[str],
    origin: str,
    images: Mapping[str, Path],
    need_images: bool,
    columns: Mapping[str, str] | None = None,
) -> Rows:
    data = task.data
    table, fingerprint = _table(folder, files, origin)
    columns = columns or {}
    # By the names in the files: `datasets` wrote its classes under those.
    own = columns.get(data.label_column or "", data.label_column)
    told = tables.class_names(table, own) or tables.readme_class_names(_readme(folder), data.config, own, origin)
    if columns:
        known = {*data.columns, data.image_column, *((data.label_column,) if data.label_column else ())}
        known |= {*data.raw.columns, *data.raw.others} if data.raw is not None else set()
        table = tables.renamed_columns(table, columns, sorted(known), origin)
        fingerprint = content_key([fingerprint, "columns", sorted(columns.items())], 64)
    elif data.image_column not in table.column_names and files[0].endswith(("/", *TAR)):
        # A folder of images and a shard have no word for their column of images; ours is `image`.
        table = table.rename_columns([data.image_column if name == "image" else name for name in table.column_names])
    table = _in_task_words(table, data, origin)
    needed = list(dict.fromkeys((*data.columns, data.image_column)))
    if data.image_name_column is not None:
        needed = [name for name in needed if name != data.image_column]
    tables.check_columns(table, needed, origin)
    table, names, changed = _labelled(table, data, told, origin)
    found = find_images(table, data.image_column, folder, data.images, images)
    if need_images:
        check_images(found, data.image_column, origin, data.images)
        by_name = [[name, file_sha256(path)] for name, path in sorted(found.files_by_name.items())]
        fingerprint = content_key([fingerprint, by_name], 64) if by_name else fingerprint
    is_official, notes = _official(table, data)
    notes = (*notes, *changed)
    if columns:
        notes = (*notes, "columns are named " + ", ".join(f"{own} for {wanted}" for wanted, own in columns.items()))
    if data.split == "test" and not names_split(files, "test") and not data.config:
        notes = (*notes, f"{', '.join(files[:3])} does not say which split it is: all of it is scored")
    part = f"{origin} ({', '.join(name for name in (data.config, data.split) if name)})"
    part += "".join(f", {COLUMNS_TOLD}{wanted}={own}" for wanted, own in sorted(columns.items()))
    part += f", {OTHER_ROWS}" if is_official is False else ""
    rows = tables.TableRows(table, data.image_column, found.files if need_images else [NO_IMAGE] * table.num_rows)
    return Rows(rows, names, fingerprint, part, "real", notes, found, tuple(files), official=is_official)


def _table(folder: Path, files: Sequence[str], origin: str) -> tuple[pa.Table, str]:
    """Returns the rows of a split's files, or of a folder of images, and what they are fingerprinted by."""
    import pyarrow as pa

    if not files[0].endswith("/"):
        paths = [folder / name for name in files]
        return read_files(paths), files_sha256(paths)
    rows = image_folder_rows(_file_names(folder), folder, files[0].strip("./"))
    if not rows:
        raise RequestError(
            f"In `{files[0]}` of {origin}, images are neither in folders of their classes nor in metadata."
        )
    return pa.Table.from_pylist(rows), content_key(["folder of images", rows], 64)


def _labelled(
    table: pa.Table, data: Dataset, told: tuple[str, ...], origin: str
) -> tuple[pa.Table, tuple[str, ...], tuple[str, ...]]:
    """Returns a table whose labels number the task's classes, the classes' names, and what was done for it.

    Args:
        told: the classes' names as the files have them; empty where they have none.
    """
    if data.label_column is None:
        return table, told or data.classes, ()
    table, names, numbered = tables.numbered_labels(table, data.label_column, told or data.classes, origin)
    tables.check_labels(table, data.label_column, names, origin)
    renamed = ""
    if told and data.classes:
        table, renamed = tables.in_official_classes(table, data.label_column, told, data.classes, origin)
        names = data.classes
    return table, names, tuple(note for note in (numbered, renamed) if note)


def _in_task_words(table: pa.Table, data: Dataset, origin: str) -> pa.Table:
    """Returns rows in the task's own columns, made from its other form where they are in that one.

    Raises:
        RequestError: rows of the other form that cannot be used (first ten and count).
    """
    import pyarrow as pa

    if ID in data.columns and ID in table.column_names and pa.types.is_integer(table.schema.field(ID).type):
        # POPE's own files number questions; the hub's write the numbers as text.
        table = table.set_column(table.column_names.index(ID), ID, table.column(ID).cast(pa.string()))
    raw, known = data.raw, set(table.column_names)
    if raw is None or not set(raw.columns) <= known or set(data.columns) - {data.image_column} <= known:
        return table
    read = [name for name in (*raw.columns, *raw.others) if name in known]
    return pa.Table.from_pylist(_of_each(table.select(read).to_pylist(), lambda row, _: raw.row(row), origin))


def _official(table: pa.Table, data: Dataset) -> tuple[bool | None, tuple[str, ...]]:
    """Returns whether rows say what the official ones say (None where those are not pinned), and the notes on rows."""
    official, notes = data.official, [data.note] if data.note else []
    if official.rows not in (None, table.num_rows):
        notes.append(f"{counted(table.num_rows, 'row')}; the official split has {official.rows:,}")
    if official.pin is None:
        return None, tuple(notes)
    content = tables.content_sha256(table, [name for name in data.columns if name != data.image_column])
    if content != official.pin.sha256:
        notes.append(
            f"{OTHER_ROWS}: what they say has the SHA-256 {content[:12]}, the official ones "
            f"{official.pin.sha256[:12]}. A figure is of these rows alone, and not comparable with published ones. "
            f"The official ones are {official.pin.source}: put them into a folder and pass that with `--data`"
        )
    return content == official.pin.sha256, tuple(notes)


def _file_names(folder: Path) -> list[str]:
    """Returns the files of a folder; hidden ones, and what archivers add (`__MACOSX`), are no data."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return [file.as_posix() for file in files if not any(part.startswith((".", "__MACOSX")) for part in file.parts)]


def _readme(folder: Path) -> str:
    path = folder / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
