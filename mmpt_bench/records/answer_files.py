"""`--answers parquet`: a finished task's answers as Parquet (zstd), a file for each key; lines are of unfinished ones.

<task>-<replies key>.parquet    id, reply, parsed, ranked, logprobs, in the order of ids
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import MachineError, UntrustedRecord
from mmpt_bench.common.files import scrub, write_atomic
from mmpt_bench.data.samples import Prediction

WAYS = JSONL, PARQUET = "jsonl", "parquet"
"""How answers are kept."""


def write(path: Path, made: Sequence[Prediction]) -> None:
    """Writes answers, whole or not at all; raises MachineError as `write_atomic` does."""
    import pyarrow as pa
    from pyarrow import parquet

    text = pa.string()
    types = [("id", text), ("reply", text), ("parsed", text), ("ranked", text), ("logprobs", pa.list_(pa.float64()))]
    table = pa.Table.from_pylist(
        [dataclasses.asdict(each) for each in sorted(made, key=lambda of: of.id)], pa.schema(types)
    )
    stream = io.BytesIO()
    parquet.write_table(table, stream, compression="zstd", write_page_checksum=True)
    write_atomic(path, stream.getvalue())


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the answers in a file, a row each; none where there is no file.

    Raises:
        UntrustedRecord: it is damaged, with what to do.
        MachineError: it cannot be read.
    """
    if not path.is_file():
        return []
    import pyarrow as pa
    from pyarrow import parquet

    try:
        data = path.read_bytes()
    except OSError as error:
        raise MachineError(f"`{scrub(str(path))}` cannot be read: {error.strerror or error}.") from error
    try:
        table = parquet.read_table(io.BytesIO(data), page_checksum_verification=True)
    except (pa.ArrowException, ValueError, OSError) as error:  # a wrong checksum is an OSError
        raise UntrustedRecord(
            f"`{path.name}` in `{path.parent.name}` is damaged: {str(error)[:100]}. Delete the run's folder and run it "
            "again."
        ) from error
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
