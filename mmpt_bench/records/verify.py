"""Whether a results folder is what it says: hashes of adapters, answers, samples and records, and runs of one piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.hashing import file_sha256
from mmpt_bench.records.record import Record
from mmpt_bench.records.run_folder import ADAPTER, RECORDS, TENSORS, RunFolder, check_unmixed, read_records
from mmpt_bench.records.store import Store


def faults(store: Store) -> Iterator[str]:
    """Yields a sentence for each thing in a results folder that cannot be trusted; nothing is written.

    Looked at are the hash of every record, the answers that it is made from, the recipe, the adapter, the samples, and
    whether all results of a run, published or in its folder, are of one training.
    """
    kept: list[Record] = []
    try:
        kept += read_records(store.path(RECORDS))
    except UntrustedRecord as error:
        yield str(error)
    for run in store.runs():
        try:
            kept += verified(run)
        except UntrustedRecord as error:
            yield str(error)
    by_run: dict[str, list[Record]] = {}
    for record in kept:
        by_run.setdefault(record.run, []).append(record)
    for records in by_run.values():
        try:
            check_unmixed(records)
        except UntrustedRecord as error:
            yield str(error)
    for name in sorted({record.samples for record in kept if record.samples}):
        try:
            store.read_samples(name)
        except UntrustedRecord as error:
            yield str(error)


def answers_gone(store: Store) -> int:
    """Returns how many results of runs in the folder have no file of answers any more; UntrustedRecord for a fault."""
    return sum(bool(r.answers_sha256) and not run.answer_files(r.task) for run in store.runs() for r in run.records())


def verified(run: RunFolder) -> Sequence[Record]:
    """Returns the records of a run whose every file is what its hash says.

    Raises:
        UntrustedRecord: as `RunFolder.records` and `RunFolder.training`; the adapter is another than the one that was
            trained here, or than that of its records.
    """
    records, known = run.records(), run.training()
    if known is None:
        return records
    tensors = run.path(ADAPTER, TENSORS)
    if tensors.is_file() and file_sha256(tensors) != known["sha256"]:
        raise UntrustedRecord(f"The adapter in `{run.name}` is damaged: its hash differs. Delete the run's folder.")
    for record in records:
        if record.status == "ok" and record.adapter_sha256 not in ("", known["sha256"]):
            raise UntrustedRecord(
                f"The results of `{run.name}` are of the adapter {record.adapter_sha256[:12]}; the one in its folder "
                f"is {known['sha256'][:12]}. Delete the run's folder and run it again."
            )
    return records
