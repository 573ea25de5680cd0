"""Whether a folder is a results folder that is what it says: hashes of all files, and runs of one training each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import scrub
from mmpt_bench.common.hashing import file_sha256
from mmpt_bench.common.words import counted
from mmpt_bench.records import ablations, learning_rates, streams
from mmpt_bench.records.adapter_kept import all_not_kept
from mmpt_bench.records.rate_trials import TRIALS
from mmpt_bench.records.record import Record
from mmpt_bench.records.run_folder import ADAPTER, RECORDS, TENSORS, RunFolder, check_unmixed, read_records
from mmpt_bench.records.store import Store


def checked(root: Path) -> Store:
    """Returns a results folder; RequestError where nothing is in it that one has: no run, record, trial or study."""
    store = Store(root)
    names = RECORDS, TRIALS, learning_rates.FILE, ablations.FOLDER, streams.FOLDER
    if not store.runs() and not any(store.path(name).exists() for name in names):
        raise RequestError(f"`{scrub(str(store.root))}` is no results folder: there is no run in it, and no record.")
    return store


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


def held(store: Store) -> list[str]:
    """Returns in sentences what a folder without faults holds, what is not there, and what no result names.

    Raises:
        UntrustedRecord: there is a fault.
    """
    runs = store.runs()
    by_run = {run.name: run.records() for run in runs}
    records = store.records()
    ok = [record for record in records if record.status == "ok"]
    n = len({record.run for record in records} | set(by_run))
    found = [f"{counted(n, 'run')} with {counted(len(ok), 'result')}: everything that is there is what its hash says."]
    if n := len(all_not_kept(store)):
        found.append(
            f"{counted(n, 'adapter was', 'adapters were')} not kept (`--keep-adapters`): records have the hashes."
        )
    if n := sum(bool(r.answers_sha256) and not run.answer_files(r.task) for run in runs for r in by_run[run.name]):
        found.append(f"The answers of {counted(n, 'result')} are not there: scores stand, replies cannot be looked at.")
    if n := sum(not its for its in by_run.values()):
        found.append(f"{counted(n, 'run has', 'runs have')} no result yet: the command that began it goes on with it.")
    samples = store.path("samples")
    named = {f"{record.samples}.jsonl" for record in records}
    stray = sorted(path.name for path in samples.glob("*.jsonl") if path.name not in named) if samples.is_dir() else []
    if stray:
        found.append(f"{counted(len(stray), 'file')} in `samples/` {'is' if len(stray) == 1 else 'are'} of no result.")
    return found


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
