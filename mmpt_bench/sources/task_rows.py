"""Where a task's rows come from: its own file, a local folder in the hub's form, the embedded suite, or the hub.

Folder and hub are read by the same code from the same Parquet or JSON-lines files, so that a copy of the hub's files on
a disk has the hub's fingerprint. Nothing of a data set is ever run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.hashing import content_key, file_sha256, files_sha256
from mmpt_bench.data import image_folders, tables
from mmpt_bench.data.dataset import Pin
from mmpt_bench.data.rows import NO_IMAGE, OTHER_ROWS, Rows
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.task import Task
from mmpt_bench.sources import hub

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Where:
    """Where the rows of tasks are taken from."""

    folder: Path | None = None
    """Of real data in the hub's form; before all else."""
    images: Mapping[str, Path] = field(default_factory=dict)
    """Collection -> folder, of images that do not come with the rows."""
    embedded: bool = False
    """Generated miniatures; else the hub is asked."""
    offline: bool = False
    """Open no socket."""


def rows_of(task: Task, where: Where, need_images: bool = True) -> Rows:
    """Returns a task's rows: the one place that decides which.

    A folder that the user names comes first, then the rows that a task makes itself, then the embedded suite or the
    hub.

    Args:
        task: whose rows; its split may be another than the one that is scored.
        where: they are.
        need_images: refuses rows whose images are missing; otherwise something stands in for all of them.

    Raises:
        RequestError: no such folder, data set or split, no such task in the embedded suite, a missing column, an image
            that is not there, a bad value.
        MachineError: the rows are on the hub and cannot be had.
    """
    if where.folder is not None:
        return folder_rows(task, where.folder, where.images, need_images)
    if task.data.make_rows is not None:
        return task.data.make_rows()
    if not where.embedded:
        return hub_rows(task, where.offline, where.images, need_images)
    from mmpt_bench.embedded import suite

    if task.name not in suite.PICTURES:
        raise RequestError(
            f"The embedded suite has no task `{task.name}`: pass `--data DIR` with its rows, or give the task "
            "`make_rows`."
        )
    return suite.source(task.name)


def folder_rows(task: Task, data_dir: Path, images: Mapping[str, Path] | None = None, need_images: bool = True) -> Rows:
    """Returns a task's rows from a folder in the hub's form: the task's own, or one that holds a folder for each task.

    Images stand in the image column as bytes, or as file names that are looked for in the folder, in its `images/` and
    in the collections. Tables are read whole; images are decoded when they are used. Raises as `rows_of` does.
    """
    named = data_dir / (task.data.folder or task.name)
    # MNIST's own folder holds a folder `mnist` too, that of its config; the README is what tells them apart.
    is_own = not named.is_dir() or ((data_dir / "README.md").is_file() and not (named / "README.md").is_file())
    folder = data_dir if is_own else named
    if not folder.is_dir():
        raise RequestError(f"There is no folder `{data_dir}`.")
    origin = f"folder `{folder.name}`"
    files = tables.split_files(_file_names(folder), _readme(folder), task.data.config, task.data.split, origin)
    return _read(task, folder, files, origin, images or {}, need_images)


def hub_rows(
    task: Task, offline: bool = False, images: Mapping[str, Path] | None = None, need_images: bool = True
) -> Rows:
    """Returns a task's rows from the hub at the task's revision; see `folder_rows` for images, raises as `rows_of`."""
    data = task.data
    origin = f"`{data.hub}` at {data.revision[:8]}"
    hint = "Pass `--data DIR` with a copy of it, or fetch it once with a network."
    with hub.asking(f"data set {origin}", hint, offline):
        folder = hub.snapshot(data.hub, ["README.md"], offline, data.revision, dataset=True)
        names = _file_names(folder) if offline else hub.dataset_files(data.hub, data.revision)
        files = tables.split_files(names, _readme(folder), data.config, data.split, origin)
        folder = hub.snapshot(data.hub, files, offline, data.revision, dataset=True)
    # The snapshot's folder is called like the commit that a branch's name stands for.
    return _read(task, folder, files, f"`{data.hub}` at {folder.name[:8]}", images or {}, need_images)


def samples(task: Task, source: Rows, limit: int | None = None) -> list[Sample]:
    """Returns all samples, or the first `limit` and the others on the same pictures, so that pairs stay whole.

    Every bad row is looked for before one is named.

    Raises:
        RequestError: bad values (the first ten rows and the count), or an id that is there twice.
    """
    made: list[Sample] = []
    faults: list[str] = []
    for number in range(len(source.rows)):
        try:
            made.append(task.sample(source.rows[number], number, source.label_names))
        except ValueError as error:
            faults.append(f"row {number}: {error}")
    if faults:
        raise tables.bad_rows(source.origin, "rows cannot be used", faults)
    twice = [f"`{name}`" for name, times in Counter(sample.id for sample in made).items() if times > 1]
    if twice:
        raise tables.bad_rows(source.origin, "ids are there more than once", twice)
    if limit is None:
        return made
    pictures = {sample.cluster for sample in made[:limit]}
    return [sample for sample in made if sample.cluster in pictures]


def _read(
    task: Task, folder: Path, files: Sequence[str], origin: str, images: Mapping[str, Path], need_images: bool
) -> Rows:
    data, paths = task.data, [folder / name for name in files]
    table = _in_task_words(tables.read_tables(paths), task, origin)
    can_join = data.images is not None and data.images.column != data.image_column
    needed = [name for name in data.columns if not (can_join and name == data.image_column)]
    tables.check_columns(table, needed if can_join else (*needed, data.image_column), origin)
    names = tables.class_names(table, data.label_column) or data.classes
    if data.label_column is not None:
        tables.check_labels(table, data.label_column, names, origin)
    found = image_folders.find_images(table, data.image_column, folder, data.images, images)
    if need_images:
        image_folders.check_images(found, data.image_column, origin, data.images)
    fingerprint = files_sha256(paths)
    if need_images and found.names:
        fingerprint = content_key([fingerprint, [[n, file_sha256(p)] for n, p in sorted(found.names.items())]], 64)
    official, there = data.official, table.num_rows
    notes = (data.note,) if data.note else ()
    if official.rows not in (None, there):
        notes = (*notes, f"{there:,} rows; the official split has {official.rows:,}")
    part = f"{origin} ({', '.join(name for name in (data.config, data.split) if name)})"
    is_official = None
    if official.pin is not None:
        content = tables.content_sha256(table, [name for name in data.columns if name != data.image_column])
        is_official = content == official.pin.sha256
        if not is_official:
            part = f"{part}, {OTHER_ROWS}"
            notes = (*notes, _differ(content, official.pin))
    pictures = found.files if need_images else [NO_IMAGE] * there
    rows = tables.TableRows(table, data.image_column, pictures)
    return Rows(rows, names, fingerprint, part, "real", notes, found, is_official)


def _in_task_words(table: pa.Table, task: Task, origin: str) -> pa.Table:
    """Returns rows in the task's own columns, made from its other form where they are in that one.

    Raises:
        RequestError: rows of the other form that cannot be used (first ten and count).
    """
    import pyarrow as pa

    data, raw, known = task.data, task.data.raw, set(table.column_names)
    if raw is None or not set(raw.columns) <= known or set(data.columns) - {data.image_column} <= known:
        return table
    made, faults = [], []
    read = [name for name in (*raw.columns, *raw.others) if name in known]
    for number, row in enumerate(table.select(read).to_pylist()):
        try:
            made.append(raw.row(row))
        except ValueError as error:
            faults.append(f"row {number}: {error}")
    if faults:
        raise tables.bad_rows(origin, "rows cannot be used", faults)
    return pa.Table.from_pylist(made)


def _differ(content: str, pin: Pin) -> str:
    return (
        f"{OTHER_ROWS}: what they say has the SHA-256 {content[:12]}, the official ones {pin.sha256[:12]}. A figure is "
        f"of these rows alone, and not comparable with published ones. The official ones are {pin.source}: "
        "put them into a folder and pass that with `--data`"
    )


def _file_names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _readme(folder: Path) -> str:
    path = folder / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
