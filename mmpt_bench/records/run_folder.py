"""One run's folder: its recipe, adapter, training log, answers and records, and the lock that one process holds.

recipe.yaml, adapter/{adapter_config.json, adapter_model.safetensors, training.json, README.md}, train.jsonl,
<task>.jsonl or <task>-<key>.parquet, records.jsonl; checkpoint/ and adapter.part/ while it trains
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import (
    append_jsonl,
    jsonl,
    loads,
    path_inside,
    read_jsonl,
    scrub,
    scrubbed,
    sync,
    write_atomic,
)
from mmpt_bench.common.hashing import bytes_sha256, canonical_json, content_key
from mmpt_bench.common.locks import held
from mmpt_bench.common.values import FieldError, from_plain
from mmpt_bench.data.samples import Prediction
from mmpt_bench.records import answer_files, recipe_file
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.record import Record

ADAPTER, TENSORS, CONFIG, COSTS, LOG, RECORDS = (
    "adapter",
    "adapter_model.safetensors",
    "adapter_config.json",
    "training.json",
    "train.jsonl",
    "records.jsonl",
)
BEST = "best"
"""While it trains: the adapter that an alarm goes back to."""
SUM = "content_sha256"
"""Field of a line that holds the beginning of the SHA-256 of its other fields."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder of one run; made by `Store.run`, which has checked its name."""

    root: Path
    """The results folder."""
    name: str
    """The run's name."""

    def path(self, *names: str) -> Path:
        """Returns the path of something in the folder; RequestError for a link that leads out of the results folder."""
        return path_inside(self.root, "runs", self.name, *names)

    @property
    def checkpoint(self) -> Path:
        """Folder that an unfinished training goes on from."""
        return self.path("checkpoint")

    @property
    def is_trained(self) -> bool:
        """Whether a training is finished here; what it left may be damaged."""
        return self.path(ADAPTER, COSTS).is_file()

    def write_recipe(self, recipe: Recipe) -> Path:
        """Writes the recipe and returns its path; RequestError where a key holds the home directory."""
        recipe_file.write_recipe(recipe, self.path("recipe.yaml"))
        return self.path("recipe.yaml")

    def read_recipe(self) -> Recipe:
        """Returns the recipe; UntrustedRecord where it is not the one that the folder is named after."""
        recipe = recipe_file.read_recipe(self.path("recipe.yaml"))
        if recipe.run_name != self.name:
            raise UntrustedRecord(
                f"The recipe in `{self.name}` is that of `{recipe.run_name}`: it was edited. Copy it and run it "
                "with `--recipe`: it is another run."
            )
        return recipe

    def training(self) -> dict[str, Any] | None:
        """Returns what a finished training cost and the checksum of its adapter; None where it is not finished."""
        if not self.is_trained:
            return None
        try:
            known: dict[str, Any] = loads(self.path(ADAPTER, COSTS).read_bytes())
            if not isinstance(known, dict):
                raise ValueError("it is no JSON object")
            from_plain(_Costs, {name: known[name] for name in _Costs.__annotations__ if name in known})
            check_sum(known)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UntrustedRecord(
                f"`{COSTS}` of `{self.name}` is damaged: {str(error)[:100]}. Delete the run's folder to do it again."
            ) from error
        return known

    def new_adapter(self) -> Path:
        """Returns the empty folder that an adapter is saved to before it is whole."""
        part = self.path(f"{ADAPTER}.part")
        shutil.rmtree(part, ignore_errors=True)
        return part

    def finish_training(self, part: Path, costs: Mapping[str, Any]) -> None:
        """Makes a saved adapter the run's own, whole or not at all; `part` is the folder that it was saved to."""
        sync(part / TENSORS)
        write_atomic(part / COSTS, canonical_json(summed(costs)).encode())
        # What stands there has no costs: it was never finished, or somebody took them away.
        shutil.rmtree(self.path(ADAPTER), ignore_errors=True)
        os.replace(part, self.path(ADAPTER))
        sync(self.path())
        self.drop_checkpoint()

    def drop_checkpoint(self) -> None:
        """Removes what only an unfinished training needs."""
        for path in (self.checkpoint, self.path(BEST)):
            shutil.rmtree(path, ignore_errors=True)

    def start_log(self, steps: Sequence[Mapping[str, Any]]) -> None:
        """Makes train.jsonl the steps that a checkpoint holds: later ones come again, and none of these may be lost."""
        if steps or self.path(LOG).exists():
            write_atomic(self.path(LOG), jsonl(*steps))

    def log_steps(self, steps: Sequence[Mapping[str, Any]]) -> None:
        """Appends optimiser steps to train.jsonl."""
        if steps:
            append_jsonl(self.path(LOG), *steps)

    def predictions(self, task: str, key: str) -> dict[str, Prediction]:
        """Returns by sample what was answered under a `replies_key`."""
        rows = answer_files.read(self._packed(task, key))
        found = {row["id"]: Prediction(**row | {"logprobs": tuple(row["logprobs"])}) for row in rows}
        path = self.path(f"{task}.jsonl")
        for number, row in enumerate(read_jsonl(path), start=1):
            try:
                check_sum(row)
                row.pop(SUM, None)
                if row.pop("eval_key") == key:
                    row["logprobs"] = tuple(map(float, row["logprobs"]))
                    made = from_plain(_Answer, {name: row[name] for name in row if name != "logprobs"})
                    found[made.id] = Prediction(**vars(made), logprobs=row["logprobs"])
            except (KeyError, TypeError, ValueError) as error:
                raise UntrustedRecord(
                    f"Line {number} of `{path.name}` in `{self.name}` is damaged: {str(error)[:100]}. Remove that "
                    "line: its question is asked again."
                ) from error
        return found

    def append_predictions(self, task: str, key: str, made: Sequence[Prediction]) -> None:
        """Appends answers to `<task>.jsonl`; they are on the disk when this returns."""
        rows = [summed({"eval_key": key} | dataclasses.asdict(prediction)) for prediction in made]
        append_jsonl(self.path(f"{task}.jsonl"), *rows)

    def pack_answers(self, task: str, key: str) -> None:
        """Makes all answers that were given under a `replies_key` a Parquet file.

        Lines that a record has the hash of stay, and so do those of other keys.
        """
        lines = self.path(f"{task}.jsonl")
        n_kept = max((each.answers_bytes for each in self.records() if self._answers_of(each) == lines), default=0)
        data = lines.read_bytes() if lines.is_file() else b""
        mark = canonical_json({"eval_key": key})[1:-1].encode()
        if mark in data[:n_kept]:
            return
        answer_files.write(self._packed(task, key), list(self.predictions(task, key).values()))
        rest = data[:n_kept] + b"".join(line for line in data[n_kept:].splitlines(keepends=True) if mark not in line)
        if rest:
            write_atomic(lines, rest)
        else:
            lines.unlink(missing_ok=True)

    def answer_files(self, task: str) -> list[Path]:
        """Returns the files of the answers to a task that are there: lines, then Parquet files."""
        packed = re.compile(rf"{re.escape(task)}-[0-9a-f]+\.parquet")
        names = [path.name for path in self.path().iterdir() if packed.fullmatch(path.name)]
        lines = self.path(f"{task}.jsonl")
        return [*([lines] if lines.is_file() else []), *(self.path(name) for name in sorted(names))]

    def answers_written(self, task: str, key: str) -> tuple[int, str]:
        """Returns (bytes, SHA-256) of the file of a key's answers as it is: to `<task>.jsonl` more are appended."""
        packed = self._packed(task, key)
        data = (packed if packed.is_file() else self.path(f"{task}.jsonl")).read_bytes()
        return len(data), bytes_sha256(data)

    def _packed(self, task: str, key: str) -> Path:
        return self.path(f"{task}-{key}.parquet")

    def _answers_of(self, record: Record) -> Path:
        packed = self._packed(record.task, record.replies_key or record.eval_key)
        return packed if packed.is_file() else self.path(f"{record.task}.jsonl")

    def _verify(self, records: Sequence[Record]) -> None:
        """Raises UntrustedRecord where the recipe, or the answers that records are made from, were edited.

        What is not there is not looked at, nor the answers of records that keep no hash of them.
        """
        if self.path("recipe.yaml").is_file():
            try:
                self.read_recipe()
            except RequestError as error:
                raise UntrustedRecord(f"The recipe of `{self.name}` was edited: {error}") from error
        check_unmixed(records)
        for record in records:
            if not record.answers_sha256:
                continue
            path = self._answers_of(record)
            if not path.is_file():
                continue
            with path.open("rb") as stream:
                data = stream.read(record.answers_bytes)
            if bytes_sha256(data) != record.answers_sha256:
                raise UntrustedRecord(
                    f"The answers in `{path.name}` of `{self.name}` were changed: their hash differs. Delete "
                    "the run's folder and run it again."
                )

    def append_record(self, record: Record, before: Sequence[Record] = ()) -> None:
        """Appends a record; it is on the disk when this returns. A failure that stands in `before` is not repeated."""
        if not _stands(record, before):
            append_jsonl(self.path(RECORDS), summed(record.row))

    def records(self) -> list[Record]:
        """Returns the run's records; whoever reads them learns what was edited.

        Raises:
            UntrustedRecord: a damaged line, a record of another run, or an edited record, recipe or file of answers.
        """
        found = read_records(self.path(RECORDS))
        for record in found:
            if record.run != self.name:
                raise UntrustedRecord(f"A record of `{record.run}` lies in the folder of `{self.name}`.")
        self._verify(found)
        return found

    @contextlib.contextmanager
    def lock(self, wait_seconds: float = 0.0, stopping: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Holds the run for this process: a second process waits, or is told who holds it.

        The claim of a process that died is free at once; taking it over is logged. Look for the run's records after
        the lock is yours: another process may have made them while you waited.

        Raises:
            Interrupted: `stopping` said so while it waited.
            Held: the run is still held after `wait_seconds`; with process, computer and since when.
        """
        with held(self.path("lock"), self.name, wait_seconds, stopping):
            yield


@dataclasses.dataclass(frozen=True)
class _Costs:
    """What training.json must say."""

    seconds: float
    peak_bytes: int
    adapter_bytes: int
    final_loss: float | None
    sha256: str


@dataclasses.dataclass(frozen=True)
class _Answer:
    """An answer as `<task>.jsonl` holds it, without its log-probabilities."""

    id: str
    reply: str
    parsed: str | None
    ranked: str | None


def _stands(record: Record, records: Sequence[Record]) -> bool:
    """Returns whether a failure is recorded already, for the same reason, and nothing of its run succeeded since."""
    what = (record.reason, record.data_fingerprint, record.limit)
    known = [each for each in records if each.eval_key == record.eval_key]
    if record.status == "ok" or not known or (known[-1].reason, known[-1].data_fingerprint, known[-1].limit) != what:
        return False
    return not any(each.status == "ok" and each.time > known[-1].time for each in records)


def check_unmixed(records: Sequence[Record]) -> None:
    """Raises UntrustedRecord where results of one run are of several trainings: folders were copied over each other."""
    first: dict[str, Record] = {}
    for record in records:
        if record.status != "ok" or not record.adapter_sha256:
            continue
        known = first.setdefault(record.run, record)
        if known.adapter_sha256 != record.adapter_sha256:
            raise UntrustedRecord(
                f"Results of `{record.run}` are of two trainings: `{known.task}` of the adapter "
                f"{known.adapter_sha256[:12]}, `{record.task}` of {record.adapter_sha256[:12]}. Delete the run's "
                "folder and run it again; `mmpt-bench merge` takes a run whole."
            )


def summed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row with the hash of what is written of it, by which an edited one is noticed."""
    kept = scrubbed(row)
    return {**kept, SUM: content_key({name: value for name, value in kept.items() if name != SUM})}


def check_sum(row: Mapping[str, Any]) -> None:
    """Raises ValueError where a row is not what its hash says; rows of earlier versions have none."""
    if SUM in row and content_key({name: value for name, value in row.items() if name != SUM}) != row[SUM]:
        raise ValueError("it was edited, its hash says")


def _repair_told(path: Path) -> str:
    """Returns what helps where a line of records is damaged."""
    root = path.parents[2] if path.parent.parent.name == "runs" else path.parent
    command = shlex.join(["mmpt-bench", "doctor", "--repair", "--out", scrub(str(root))])
    return f"`{command}` sets that line aside; what it says is evaluated again."


def read_records(path: Path, of_track: str | None = None) -> list[Record]:
    """Returns the records in a file, or those of one setting; UntrustedRecord for a line that is damaged."""
    records = []
    try:
        rows = read_jsonl(path)
    except UntrustedRecord as error:
        hint = f" {_repair_told(path)}" if path.is_file() else ""
        raise UntrustedRecord(f"{error}{hint}") from error
    for number, row in enumerate(rows, start=1):
        if of_track not in (None, row.get("track")):
            continue
        try:
            check_sum(row)
        except ValueError as error:
            told = f"Record {number} of `{scrub(str(path))}` cannot be trusted: {error}."
            raise UntrustedRecord(f"{told} {_repair_told(path)}") from error
        row.pop(SUM, None)
        try:
            records.append(from_plain(Record, row))
        except FieldError as error:
            raise UntrustedRecord(
                f"Record {number} of `{scrub(str(path))}` is not of this version of mmpt-bench: {error} "
                "Update mmpt-bench, or move the file away."
            ) from error
    return records
