"""Whether a folder is a results folder that is what it says: hashes of all files, and runs of one training each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import read_jsonl, scrub
from mmpt_bench.common.hashing import file_sha256
from mmpt_bench.common.words import counted
from mmpt_bench.records import ablations, learning_rates, streams
from mmpt_bench.records.adapter_kept import not_kept
from mmpt_bench.records.rate_trials import TRIALS
from mmpt_bench.records.record import Record
from mmpt_bench.records.run_folder import (
    ADAPTER,
    CONFIG,
    RECORDS,
    TENSORS,
    RunFolder,
    check_sum,
    check_unmixed,
    read_records,
)
from mmpt_bench.records.store import Store

KNOWN = re.compile(
    r"(recipe\.yaml|records\.jsonl|train\.jsonl|lock|adapter|adapter\.part|checkpoint|best|fisher\.safetensors|\..*"
    r"|.+\.jsonl|.+-[0-9a-f]+\.parquet|.*\.(aside|before)\b.*)"
)
"""What a run's folder may hold."""


@dataclass(frozen=True)
class Looked:
    """What was found in a results folder."""

    faults: tuple[str, ...]
    """A sentence for each thing that cannot be trusted."""
    held: tuple[str, ...]
    """Sentences on what it holds, what is not there, and what no result names."""


def checked(root: Path) -> Store:
    """Returns a results folder; RequestError where nothing is in it that one has: no run, record, trial or study."""
    store = Store(root)
    names = RECORDS, TRIALS, learning_rates.FILE, ablations.FOLDER, streams.FOLDER
    if not store.runs() and not any(store.path(name).exists() for name in names):
        raise RequestError(f"`{scrub(str(store.root))}` is no results folder: there is no run in it, and no record.")
    return store


def look(store: Store) -> Looked:
    """Looks at a results folder and writes nothing.

    Looked at are the hash of every record, every answer, the recipe, the adapter, the samples, and whether all results
    of a run, published or in its folder, are of one training. Tables and figures are not: `leaderboard` makes them.
    """
    faults: list[str] = []
    published: list[Record] = []
    by_run: dict[str, Sequence[Record]] = {}
    try:
        published = read_records(store.path(RECORDS))
    except UntrustedRecord as error:
        faults.append(str(error))
    for run in store.runs():
        try:
            by_run[run.name] = verified(run)
        except UntrustedRecord as error:
            faults.append(str(error))
    kept = [*published, *(record for records in by_run.values() for record in records)]
    together: dict[str, list[Record]] = {}
    for record in kept:
        together.setdefault(record.run, []).append(record)
    for records in together.values():
        try:
            check_unmixed(records)
        except UntrustedRecord as error:
            faults.append(str(error))
    for name in sorted({record.samples for record in kept if record.samples}):
        try:
            store.read_samples(name)
        except UntrustedRecord as error:
            faults.append(str(error))
    return Looked(tuple(faults), () if faults else tuple(_held(store, kept, by_run)))


def _held(store: Store, records: Sequence[Record], by_run: dict[str, Sequence[Record]]) -> Iterator[str]:
    """Yields what `Looked.held` is."""
    results = {record.eval_key for record in records if record.status == "ok"}
    runs = [run for run in store.runs() if _is_begun(run)]
    n = len({record.run for record in records} | {run.name for run in runs})
    yield f"{counted(n, 'run')} with {counted(len(results), 'result')}: everything that is there is what its hash says."
    if n := sum(bool(not_kept(run)) for run in runs):
        gone = counted(n, "adapter was", "adapters were")
        yield f"{gone} not kept (`--keep-adapters`): records have the hashes."
    if n := sum(_lost_adapter(run, by_run[run.name]) for run in runs):
        yield f"{counted(n, 'adapter is', 'adapters are')} not there: scores stand, nothing more can be asked."
    if n := sum(bool(by_run[run.name]) and not run.path("recipe.yaml").is_file() for run in runs):
        yield f"{counted(n, 'recipe is', 'recipes are')} not there: scores stand, `--recipe` has none to repeat."
    if n := sum(bool(r.answers_sha256) and not run.answer_files(r.task) for run in runs for r in by_run[run.name]):
        yield f"The answers of {counted(n, 'result')} are not there: scores stand, replies cannot be looked at."
    if n := sum(not by_run[run.name] for run in runs):
        whose = "it" if n == 1 else "them"
        yield f"{counted(n, 'run has', 'runs have')} no result: the command that began {whose} goes on."
    if stray := sorted(_stray(store, records)):
        told = ", ".join(f"`{name}`" for name in stray[:5]) + (", ..." if stray[5:] else "")
        yield f"{counted(len(stray), 'thing is', 'things are')} of no run or result: {told}."


def _is_begun(run: RunFolder) -> bool:
    """Returns whether anything of a run is in its folder."""
    return any(run.path(name).exists() for name in ("recipe.yaml", RECORDS, ADAPTER, "checkpoint"))


def _lost_adapter(run: RunFolder, records: Sequence[Record]) -> bool:
    """Returns whether results are of an adapter that should be in the folder and is not."""
    trained = any(record.status == "ok" and record.adapter_sha256 and record.adapter_kept for record in records)
    return trained and not run.path(ADAPTER, TENSORS).is_file()


def _stray(store: Store, records: Sequence[Record]) -> Iterator[str]:
    """Yields the paths of what no run or result names, in the folders where each file is one's."""
    named = {f"{record.samples}.jsonl" for record in records}
    samples = store.path("samples")
    for path in samples.iterdir() if samples.is_dir() else ():
        if path.name not in named and not path.name.startswith("."):
            yield f"samples/{path.name}"
    for run in store.runs():
        if not _is_begun(run):
            yield f"runs/{run.name}"
            continue
        yield from (f"runs/{run.name}/{path.name}" for path in run.path().iterdir() if not KNOWN.fullmatch(path.name))


def verified(run: RunFolder) -> Sequence[Record]:
    """Returns the records of a run whose every file is what its hash says.

    Raises:
        UntrustedRecord: as `RunFolder.records` and `RunFolder.training`; an answer is not what its hash says; the
            adapter is another than the one that was trained here, or than that of its records.
    """
    records, known = run.records(), run.training()
    for path in run.path().glob("*.jsonl"):
        if path.name != RECORDS:
            _check_lines(path, run.name)
    if known is None:
        return records
    for name, digest in ((TENSORS, known["sha256"]), (CONFIG, known.get("config_sha256"))):
        path = run.path(ADAPTER, name)
        if digest and path.is_file() and file_sha256(path) != digest:
            raise UntrustedRecord(f"`{name}` of `{run.name}` is damaged: its hash differs. Delete the run's folder.")
    for record in records:
        if record.status == "ok" and record.adapter_sha256 not in ("", known["sha256"]):
            raise UntrustedRecord(
                f"The results of `{run.name}` are of the adapter {record.adapter_sha256[:12]}; the one in its folder "
                f"is {known['sha256'][:12]}. Delete the run's folder and run it again."
            )
    return records


def _check_lines(path: Path, run: str) -> None:
    """Raises UntrustedRecord for a line that is not what its own hash says."""
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            check_sum(row)
        except ValueError as error:
            raise UntrustedRecord(f"Line {number} of `{path.name}` in `{run}` is damaged: {error}.") from error
