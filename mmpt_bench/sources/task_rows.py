"""Where a task's rows come from: a local folder in the hub's form, or the hub itself at a pinned commit.

Both are read by the same code from the same Parquet or JSON-lines files, so that a copy of the hub's files on a disk
has the hub's fingerprint. Nothing of a data set is ever run. The embedded suite makes its rows itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import MachineError, RequestError
from mmpt_bench.common.hashing import content_key, file_sha256, files_sha256
from mmpt_bench.data import image_folders, tables
from mmpt_bench.data.rows import NO_PICTURE, OTHER_ROWS, Pin, Rows
from mmpt_bench.data.samples import Sample
from mmpt_bench.data.tables import bad_rows
from mmpt_bench.evaluation.task import Task
from mmpt_bench.sources import task_rows

if TYPE_CHECKING:
    import pyarrow as pa


def read_rows(
    task: Task, data: Path | None, images: Mapping[str, Path], offline: bool, need_pictures: bool = True
) -> Rows:
    """Returns a task's rows from a folder, or from the hub where none is given; raises as `source` does."""
    if data is not None:
        return folder_rows(task, data, images, need_pictures)
    return hub_rows(task, offline, images, need_pictures)


def embedded_rows(task: Task) -> Rows:
    """Returns a task's rows of the embedded suite, or those that a user's own task makes itself.

    Raises:
        RequestError: the suite has no such task.
    """
    from mmpt_bench.embedded import suite

    if task.rows is not None:
        return task.rows()
    if task.name not in suite.PICTURES:
        raise RequestError(
            f"The embedded suite has no task `{task.name}`: pass `--data DIR` with its rows, or give the task `rows`."
        )
    return suite.source(task.name)


def in_task_words(table: pa.Table, task: Task, origin: str) -> pa.Table:
    """Returns rows in the task's own columns, made from its other form where they are in that one.

    Raises:
        RequestError: rows of the other form that cannot be used (first ten and count).
    """
    import pyarrow as pa

    known = set(table.column_names)
    if task.raw is None or not set(task.raw.columns) <= known or set(task.columns) - {task.image_column} <= known:
        return table
    made, faults = [], []
    read = [name for name in (*task.raw.columns, *task.raw.others) if name in known]
    for number, row in enumerate(table.select(read).to_pylist()):
        try:
            made.append(task.raw.row(row))
        except ValueError as error:
            faults.append(f"row {number}: {error}")
    if faults:
        raise bad_rows(origin, "rows cannot be used", faults)
    return pa.Table.from_pylist(made)


def folder_rows(
    task: Task, data_dir: Path, images: Mapping[str, Path] | None = None, need_pictures: bool = True
) -> Rows:
    """Returns a task's rows from a folder in the hub's form: the task's own, or one that holds a folder for each task.

    Pictures stand in the image column as bytes, or as file names that are looked for in the folder, in its `images/`
    and in the collections. Tables are read whole; pictures are decoded when they are used.

    Args:
        task: whose rows; its `split` may be another than the one that is scored.
        data_dir: the folder.
        images: collection -> folder, of pictures that do not come with the rows.
        need_pictures: refuses rows whose pictures are missing; otherwise something stands in for all of them.

    Raises:
        RequestError: no such folder or split, a missing column, a picture that is not there, a bad value.
    """
    named = data_dir / (task.folder or task.name)
    # MNIST's own folder holds a folder `mnist` too, that of its config; the README is what tells them apart.
    is_own = not named.is_dir() or ((data_dir / "README.md").is_file() and not (named / "README.md").is_file())
    folder = data_dir if is_own else named
    if not folder.is_dir():
        raise RequestError(f"There is no folder `{data_dir}`.")
    origin = f"folder `{folder.name}`"
    files = tables.split_files(_file_names(folder), _readme(folder), task.config, task.split, origin)
    return _read(task, folder, files, origin, images or {}, need_pictures)


def hub_rows(
    task: Task, offline: bool = False, images: Mapping[str, Path] | None = None, need_pictures: bool = True
) -> Rows:
    """Returns a task's rows from the hub at the task's revision, through the hub's own verified cache.

    See `folder_rows` for pictures.

    Raises:
        MachineError: the files are not in the cache, and the hub cannot be reached or must not be (`offline`).
        RequestError: the hub has no such data set, revision or split, or its pictures are not with it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoRevision

    origin = f"`{task.dataset}` at {task.revision[:8]}"
    try:
        folder = _snapshot(task, ["README.md"], offline)
        names = _file_names(folder) if offline else _hub_names(HfApi(), task)
        files = tables.split_files(names, _readme(folder), task.config, task.split, origin)
        folder = _snapshot(task, files, offline)
    except (RepositoryNotFoundError, NoRevision) as error:
        raise RequestError(f"The hub has no data set {origin}, or it is not open to you.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        why = "and `--offline` forbids asking the hub" if offline else "and the hub could not be reached"
        raise MachineError(
            f"The data set {origin} is not in the local cache, {why}. "
            f"Pass `--data DIR` with a copy of it, or fetch it once with a network."
        ) from error
    # The snapshot's folder is called like the commit that a branch's name stands for.
    return _read(task, folder, files, f"`{task.dataset}` at {folder.name[:8]}", images or {}, need_pictures)


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
    task: Task, folder: Path, files: Sequence[str], origin: str, images: Mapping[str, Path], need_pictures: bool
) -> Rows:
    paths = [folder / name for name in files]
    table = task_rows.in_task_words(tables.read_tables(paths), task, origin)
    can_join = task.pictures is not None and task.pictures.column != task.image_column
    needed = [name for name in task.columns if not (can_join and name == task.image_column)]
    tables.check_columns(table, needed if can_join else (*needed, task.image_column), origin)
    names = tables.class_names(table, task.label_column) or task.classes
    if task.label_column is not None:
        tables.check_labels(table, task.label_column, names, origin)
    found = image_folders.find_pictures(table, task.image_column, folder, task.pictures, images)
    if need_pictures:
        image_folders.check_found(found, task.image_column, origin, task.pictures)
    fingerprint = files_sha256(paths)
    if need_pictures and found.names:
        fingerprint = content_key([fingerprint, [[n, file_sha256(p)] for n, p in sorted(found.names.items())]], 64)
    official, there = task.official_rows, table.num_rows
    notes = (task.note,) if task.note else ()
    if official not in (None, there):
        notes = (*notes, f"{there:,} rows; the official split has {official:,}")
    part = f"{origin} ({', '.join(name for name in (task.config, task.split) if name)})"
    is_official = None
    if task.pin is not None:
        content = tables.content_sha256(table, [name for name in task.columns if name != task.image_column])
        is_official = content == task.pin.sha256
        if not is_official:
            part = f"{part}, {OTHER_ROWS}"
            notes = (*notes, _differ(content, task.pin))
    pictures = found.files if need_pictures else [NO_PICTURE] * there
    rows = tables.TableRows(table, task.image_column, pictures)
    return Rows(rows, names, fingerprint, part, "real", notes, found, is_official)


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


def _hub_names(api: Any, task: Task) -> list[str]:
    return list(api.list_repo_files(task.dataset, repo_type="dataset", revision=task.revision))


def _snapshot(task: Task, files: Sequence[str], offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            task.dataset,
            repo_type="dataset",
            revision=task.revision,
            allow_patterns=list(files),
            local_files_only=offline,
        )
    )
