"""Tables of rows: whether their columns and classes are a task's, and the rows as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from mmpt_bench.common.errors import RequestError, shown, unknown_name
from mmpt_bench.common.hashing import content_key
from mmpt_bench.common.words import counted
from mmpt_bench.data.file_forms import features
from mmpt_bench.data.split_files import readme_head

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


def class_names(table: pa.Table, column: str | None) -> tuple[str, ...]:
    """Returns the names of a label column's classes as `datasets` stores them in Parquet; empty where it names none."""
    feature = features(table).get(column) if column is not None else None
    return tuple(feature.get("names") or ()) if isinstance(feature, dict) else ()


def readme_class_names(readme: str, config: str | None, column: str | None, origin: str) -> tuple[str, ...]:
    """Returns the names of a label column's classes as a README's `dataset_info` has them; empty where it has none."""
    infos = readme_head(readme, origin).get("dataset_info") or []
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
            f"It has {', '.join(table.column_names)}. `--columns {missing[0]}=NAME` says what it is called there."
        )


def renamed_columns(table: pa.Table, columns: Mapping[str, str], known: Sequence[str], origin: str) -> pa.Table:
    """Returns a table in the task's column names.

    Args:
        columns: name of the task's column -> name in the table.
        known: columns that the task may read.

    Raises:
        RequestError: a name that the task, or the table, has not.
    """
    for wanted, own in columns.items():
        if wanted not in known:
            raise unknown_name("column", wanted, known, f"`--columns {wanted}={own}` begins with one of the task's.")
        if own not in table.column_names:
            has = ", ".join(name[:40] for name in table.column_names[:30])
            raise unknown_name("column", own, table.column_names, f"{origin[0].upper()}{origin[1:]} has {has}.")
    dropped = [name for name in columns if name in table.column_names and name not in columns.values()]
    table = table.drop_columns(dropped)
    wanted_of = {own: wanted for wanted, own in columns.items()}
    return table.rename_columns([wanted_of.get(name, name) for name in table.column_names])


def numbered_labels(
    table: pa.Table, column: str, names: Sequence[str], origin: str
) -> tuple[pa.Table, tuple[str, ...], str]:
    """Returns a table whose label column holds class numbers, the classes' names, and what was done for it.

    Labels that are text are numbers or names of the classes, whatever their case; where no names are known, those in
    the data, sorted, as `datasets` numbers folders of images. Whole numbers with a point, as pandas writes beside empty
    cells, are what they are without it.

    Raises:
        RequestError: a label that is no class (first ten rows and count).
    """
    import pyarrow as pa

    values = table.column(column).to_pylist()
    two = [name.casefold() for name in names]
    if all(type(value) is bool for value in values) and two == ["false", "true"]:
        values = [int(value) for value in values]
    elif pa.types.is_floating(table.column(column).type):
        whole = [int(value) if value is not None and value.is_integer() else value for value in values]
        if bad := [f"row {row}: `{column}` is {value}" for row, value in enumerate(whole) if type(value) is not int]:
            raise bad_rows(origin, f"row has|rows have no class from 0 to {(len(names) or 2) - 1}", bad)
        place, told = table.column_names.index(column), f"`{column}` holds whole numbers with a point"
        return table.set_column(place, column, pa.array(whole)), tuple(names), told
    elif any(isinstance(value, str) for value in values):
        given = {value.strip() for value in values if isinstance(value, str)}
        if not names and not all(text.isdigit() for text in given):
            names, two = sorted(given), [name.casefold() for name in sorted(given)]
        by_name = {name: number for number, name in enumerate(two)}
        if two == ["false", "true"] and {text.casefold() for text in given} <= {"yes", "no"}:
            by_name = {"no": 0, "yes": 1}
        values = [_class_number(value, by_name) for value in values]
        bad = [
            f"row {row}: `{column}` is {shown(value)[1:-1]}"
            for row, value in enumerate(values)
            if type(value) is not int
        ]
        if bad and names:
            raise bad_rows(origin, f"row has|rows have no class of {_listed(names)}", bad)
    else:
        return table, tuple(names), ""
    place = table.column_names.index(column)
    told = f"`{column}` holds text, which was read as the numbers of the task's classes"
    return table.set_column(place, column, pa.array(values)), tuple(names), told


def _class_number(value: Any, by_name: Mapping[str, int]) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip()
    found = by_name.get(text.casefold())
    return found if found is not None else int(text) if text.isascii() and text.isdigit() and len(text) < 19 else value


def check_labels(table: pa.Table, column: str, names: Sequence[str], origin: str) -> None:
    """Refuses classes that are no integers, or that no name belongs to (RequestError: first ten rows and count)."""
    n = len(names) or 2
    values = table.column(column).to_pylist()
    bad = [
        f"row {row}: `{column}` is {shown(value)[1:-1]}"
        for row, value in enumerate(values)
        if not is_class_number(value, n)
    ]
    if bad:
        raise bad_rows(origin, f"row has|rows have no class from 0 to {n - 1}", bad)


def is_class_number(value: Any, n: int) -> TypeGuard[int]:
    """Returns whether a value numbers one of `n` classes; True and False do not."""
    return type(value) is int and 0 <= value < n


def bad_rows(origin: str, what: str, faults: Sequence[str], advice: str = "") -> RequestError:
    """Returns the error for rows that cannot be used: how many, and the first ten.

    Args:
        what: is wrong, as it is said of one and of several: "row has|rows have no image".
    """
    one, _, several = what.partition("|")
    said = " ".join([one, *several.split(" ")[len(one.split(" ")) :]])
    told = counted(len(faults), said, several)
    return RequestError(f"In {origin}, {told}: {first_of(faults)}.{' ' + advice if advice else ''}")


def first_of(faults: Sequence[str]) -> str:
    """Returns the first ten faults, and how many more there are."""
    more = f"; and {len(faults) - NAMED:,} more" if len(faults) > NAMED else ""
    return "; ".join(faults[:NAMED]) + more
