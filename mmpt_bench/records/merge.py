"""Results folders as one: what contradicts itself is listed, and nothing of such a run is taken.

Copies of a run that are of one adapter, or train nothing, and differ in no result come together, a task whole from one
of them. Copies of two trainings never do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import append_jsonl, jsonl, make_folder, scrub, sync, write_atomic
from mmpt_bench.records import ablations, learning_rates, streams
from mmpt_bench.records.adapter_kept import agree, put_back
from mmpt_bench.records.rate_trials import TESTS, TRIALS, read_trials
from mmpt_bench.records.record import Record
from mmpt_bench.records.run_folder import ADAPTER, RECORDS, TENSORS, RunFolder, read_records, summed
from mmpt_bench.records.store import Store
from mmpt_bench.records.verify import checked, verified

COSTS = {
    "train_seconds", "eval_seconds", "peak_bytes", "own_process", "resident_bytes", "cpu_seconds",
    "others_cpu_seconds", "eval_others_cpu_seconds", "time", "environment", "attempt", "answers_bytes",
    "answers_sha256", "notes", "adapter_kept",
}  # fmt: skip
"""Fields in which two records of the same result may differ: when, where and how long."""


@dataclass
class Merged:
    """What a merge did."""

    taken: list[str] = field(default_factory=list)
    """Runs that were copied, or whose published records were."""
    unfinished: list[str] = field(default_factory=list)
    """Those of them that have no result yet: whoever goes on with them finds what is trained."""
    same: int = 0
    """Runs that the target had already, with as much or more."""
    conflicts: list[str] = field(default_factory=list)
    """What was left out, and why; each names both places."""


@dataclass(frozen=True)
class _Copy:
    """A run as one folder has it."""

    store: Store
    name: str
    records: tuple[Record, ...]
    adapter: str
    """SHA-256 of its tensors; empty where it has none."""
    has_folder: bool
    is_kept: bool = False
    """The adapter's tensors are there, too."""

    @property
    def told(self) -> str:
        """Returns where it is."""
        return f"`{scrub(str(self.store.root))}`"

    def covers(self, other: _Copy) -> bool:
        """Returns whether this has all that another copy has, and the same where both have something."""
        if other.adapter not in ("", self.adapter) or (other.has_folder and not self.has_folder):
            return False
        return self.holds(other)

    def holds(self, other: _Copy) -> bool:
        """Returns whether this has all results that another copy has."""
        return all(self.results.get(key) == result for key, result in other.results.items())

    def of(self, task: str) -> _Copy:
        """Returns it with the results on one task alone."""
        return replace(self, records=tuple(record for record in self.records if record.task == task))

    def has_answers(self, task: str) -> bool:
        """Returns whether the answers that its results on a task are made from are there."""
        return self.has_folder and bool(self.store.run(self.name).answer_files(task))

    @property
    def results(self) -> dict[str, Mapping[str, object]]:
        """Returns what came out, by key; what failed in one folder may have succeeded in another."""
        return {record.eval_key: _result(record) for record in self.records if record.status == "ok"}


def merge(sources: Sequence[Path], out: Store) -> Merged:
    """Copies what results folders hold into one, which may hold some of it already.

    Raises:
        RequestError: a source that is no results folder, or is the target.
        MachineError: the target cannot be written.
    """
    for path in sources:
        if not path.is_dir():
            raise RequestError(f"There is no results folder `{path}` to merge.")
        if path.resolve() == out.root.resolve():
            raise RequestError(f"`{path}` is what is merged into: name it with `--out` alone.")
        if path.resolve() in out.root.resolve().parents:
            raise RequestError(f"`{out.root}` lies inside `{path}`, which is merged: name a folder beside it.")
    others = [checked(path) for path in sources]
    out.check_writable()
    stores, done = [out, *others], Merged()
    copies: dict[str, list[_Copy]] = {}
    for store in stores:
        for copy in _copies(store, done):
            copies.setdefault(copy.name, []).append(copy)
    for name, each in sorted(copies.items()):
        base = next((copy for copy in each if _is_base(copy, each)), None)
        tasks = {} if base is None else _by_task(each)
        if base is None or None in tasks.values():
            done.conflicts.append(_conflict(name, each))
            continue
        more = [
            (task, copy)
            for task, copy in tasks.items()
            if copy is not None
            and (
                not base.of(task).covers(copy.of(task))
                or (copy.has_answers(task) and not base.has_answers(task) and base.has_folder)
            )
        ]
        if base.store is not out:
            _take(base, out)
        for task, copy in more:
            _add(task, copy, out)
        its = next((copy for copy in each if copy.is_kept and copy.adapter == base.adapter), None)
        is_put_back = its is not None and not base.is_kept and base.has_folder
        if base.has_folder and (base.store is not out or more or is_put_back):
            with out.run(name).lock():
                if its is not None:
                    put_back(out.run(name), its.store.run(name))
                # Published results came with what was true of their copy.
                agree(out.run(name))
        if base.store is out and not more and not is_put_back:
            done.same += 1
        else:
            done.taken.append(name)
            if not any(copy.results for copy in each):
                done.unfinished.append(name)
    _definitions(stores, out, done)
    _searches(stores, out, done)
    return done


def _is_base(copy: _Copy, copies: Sequence[_Copy]) -> bool:
    """Returns whether a copy has the adapter and the folder that any of them has, and contradicts none."""
    return all(
        other.adapter in ("", copy.adapter)
        and (copy.has_folder or not other.has_folder)
        and all(other.results.get(key, result) == result for key, result in copy.results.items())
        for other in copies
    )


def _by_task(copies: Sequence[_Copy]) -> dict[str, _Copy | None]:
    """Returns for each task the first copy that has all results on it that any has, and their answers if one has them.

    None where no copy has all results.
    """
    found: dict[str, _Copy | None] = {}
    for task in {record.task: None for copy in copies for record in copy.records if record.status == "ok"}:
        whole = [one for one in copies if all(one.of(task).holds(other.of(task)) for other in copies)]
        found[task] = next((one for one in whole if one.has_answers(task)), whole[0] if whole else None)
    return found


def _add(task: str, copy: _Copy, out: Store) -> None:
    """Puts a copy's results on a task beside the others of the run, with the answers that they are made from."""
    _take_samples(copy.of(task), out)
    run = out.run(copy.records[0].run)
    with run.lock():
        source = copy.store.run(copy.name)
        # Records and the answers that they are the hash of are one thing: first without either, then with both.
        others = [record for record in run.records() if record.task != task]
        write_atomic(run.path(RECORDS), jsonl(*(summed(record.row) for record in others)))
        if copy.has_folder and (answers := source.answer_files(task)):
            for path in run.answer_files(task):
                path.unlink()
            for path in answers:
                write_atomic(run.path(path.name), path.read_bytes())
        for record in copy.of(task).records:
            run.append_record(record)


def _copies(store: Store, done: Merged) -> Iterator[_Copy]:
    """Yields the runs of a folder; what cannot be trusted is a conflict."""
    published: dict[str, list[Record]] = {}
    for record in read_records(store.path(RECORDS)):
        published.setdefault(record.run, []).append(record)
    for run in store.runs():
        try:
            known, own = run.training(), list(verified(run))
        except UntrustedRecord as error:
            done.conflicts.append(f"{_told(store)}: {error}")
            published.pop(run.name, None)
            continue
        if not own and known is None and not run.path("recipe.yaml").exists():
            continue  # no run: nothing of one is in that folder
        own_keys = {record.eval_key for record in own}
        more = [record for record in published.pop(run.name, []) if record.eval_key not in own_keys]
        adapter = "" if known is None else known["sha256"]
        kept = known is not None and known.get("kept", True) and run.path(ADAPTER, TENSORS).is_file()
        yield _Copy(store, run.name, (*more, *own), adapter, True, kept)
    for name, records in published.items():
        yield _Copy(store, name, tuple(records), _adapter(records), False)


def _adapter(records: Sequence[Record]) -> str:
    return next((record.adapter_sha256 for record in records if record.adapter_sha256), "")


def _told(store: Store) -> str:
    return f"`{scrub(str(store.root))}`"


def _result(record: Record) -> Mapping[str, object]:
    """Returns what a record says, without when, where and how long."""
    return {name: value for name, value in record.row.items() if name not in COSTS}


def _conflict(name: str, copies: Sequence[_Copy]) -> str:
    """Returns in a sentence how copies of a run differ."""
    first, other = next((a, b) for a in copies for b in copies if a is not b and not a.covers(b))
    if "" not in (first.adapter, other.adapter) and first.adapter != other.adapter:
        why = (
            f"trained twice: the adapter is {first.adapter[:12]} in {first.told}, {other.adapter[:12]} in {other.told}"
        )
    else:
        own, theirs = first.results, other.results
        unlike = [theirs[key]["task"] for key in theirs if key in own and own[key] != theirs[key]]
        what = f"another result on `{unlike[0]}`" if unlike else "results that the other has not"
        why = f"each of {first.told} and {other.told} has {what}"
    return f"`{name}`: {why}. Nothing of it was taken: delete one of the copies, or finish the run in one folder."


def _take(copy: _Copy, out: Store) -> None:
    """Copies a run, whole or not at all, with the samples that its records need."""
    _take_samples(copy, out)
    if not copy.has_folder:
        append_jsonl(out.path(RECORDS), *(summed(record.row) for record in copy.records))
        return
    run = out.run(copy.name)
    with run.lock():
        _replace(copy.store.run(copy.name), run)
        in_folder = {record.eval_key for record in run.records()}
        for record in copy.records:
            if record.eval_key not in in_folder:
                run.append_record(record)


def _take_samples(copy: _Copy, out: Store) -> None:
    make_folder(out.path("samples"))
    for name in sorted({record.samples for record in copy.records if record.samples}):
        if not out.path("samples", f"{name}.jsonl").exists():
            copy.store.read_samples(name)
            write_atomic(out.path("samples", f"{name}.jsonl"), copy.store.path("samples", f"{name}.jsonl").read_bytes())


def _replace(source: RunFolder, target: RunFolder) -> None:
    """Puts a copy of a run's folder in the place of another; the lock file stays, it is held."""
    part = target.root / "runs" / f".{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source.path(), part, symlinks=True, ignore=shutil.ignore_patterns("lock", ".*.tmp"))
    for path in part.rglob("*"):
        if path.is_symlink():
            shutil.rmtree(part)
            raise UntrustedRecord(f"`{scrub(str(source.path()))}` holds a link, `{path.name}`: remove it.")
        if path.is_file():
            sync(path)
    before = target.root / "runs" / f".{target.name}.before"
    shutil.rmtree(before, ignore_errors=True)
    os.replace(target.path(), before)
    os.replace(part, target.path())
    sync(target.root / "runs")
    shutil.rmtree(before)


def _definitions(stores: Sequence[Store], out: Store, done: Merged) -> None:
    """Takes the definitions of ablations and streams; a stream's trainings come together."""
    known = {each.name: each for each in ablations.read_all(out)}
    for store in stores[1:]:
        for ablation in ablations.read_all(store):
            if ablation.name not in known:
                ablations.write(out, known.setdefault(ablation.name, ablation))
            elif known[ablation.name].all_points != ablation.all_points:
                done.conflicts.append(f"The ablation `{ablation.name}` of {_told(store)} has other points: left out.")
        for stream in streams.read_all(store):
            streams.write(out, stream)


def _searches(stores: Sequence[Store], out: Store, done: Merged) -> None:
    """Takes trials of learning rates and choices that the target lacks."""
    for name in (TRIALS, TESTS):
        known = {(each.search.key, each.rate, each.seed): each for each in read_trials(out.path(name))}
        for store in stores[1:]:
            for trial in read_trials(store.path(name)):
                before = known.setdefault((trial.search.key, trial.rate, trial.seed), trial)
                if before is trial:
                    append_jsonl(out.path(name), trial.row)
                elif before.score != trial.score:
                    told = f"{trial.search.method} at {trial.rate:g}, seed {trial.seed}"
                    done.conflicts.append(f"The trial of {told} in {_told(store)} has another score: left out.")
    chosen = {choice.search.key: choice for choice in learning_rates.read(out.path(learning_rates.FILE))}
    n_before = len(chosen)
    for store in stores[1:]:
        for choice in learning_rates.read(store.path(learning_rates.FILE)):
            if chosen.setdefault(choice.search.key, choice).curve != choice.curve:
                told = f"The search of {choice.search.method} in {_told(store)} has another curve"
                done.conflicts.append(f"{told}: left out.")
    if len(chosen) > n_before:
        write_atomic(out.path(learning_rates.FILE), learning_rates.dump(list(chosen.values())).encode())
