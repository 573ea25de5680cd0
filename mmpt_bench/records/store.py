"""The results folder: a folder a run, the samples they answered, and the records that every table is made from.

    results/runs/<run>/{recipe.yaml, adapter/, train.jsonl, <task>.jsonl, records.jsonl}
    results/samples/<name>.jsonl     what was asked, named by its content
    results/records.jsonl            the records of all runs, as published; the folders of the runs need not be there

Nothing is shared between runs, so that reading them needs no lock. A name or a link that leads outside is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import append_jsonl, check_name, read_jsonl, scrub, scrubbed, write_atomic
from mmpt_bench.common.hashing import canonical_json, content_key
from mmpt_bench.common.locks import held
from mmpt_bench.common.values import FieldError, from_plain
from mmpt_bench.data.images import Picture
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.counting import DIGITS
from mmpt_bench.records import recipe_file
from mmpt_bench.records.recipe import Recipe, Record

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Store:
    """A results folder."""

    root: Path

    def check_writable(self) -> None:
        """Writes and removes a file; RequestError with the path where that fails, before any hour is spent."""
        probe = self.root / f".{uuid.uuid4().hex}.tmp"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"probe")
            probe.unlink()
        except OSError as error:
            raise RequestError(
                f"The results folder `{scrub(str(self.root))}` cannot be written to: {error.strerror}. "
                "Name another one with `--out`."
            ) from error
        self.path("runs")
        self.path("samples")

    def path(self, *names: str) -> Path:
        """Returns the path of a file or folder in the results folder; nothing is made.

        Raises:
            RequestError: a name that is none (`..`, `/x`, too long), or a link that leads out of the results folder.
        """
        path = self.root.joinpath(*(check_name(name) for name in names))
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise RequestError(f"`{'/'.join(names)}` is a link that leads out of `{scrub(str(self.root))}`: remove it.")
        return path

    def run_path(self, run: str, *names: str) -> Path:
        """Returns the path of a run's folder, or of something in it; raises as `path` does."""
        return self.path("runs", run, *names)

    def write_recipe(self, recipe: Recipe) -> Path:
        """Writes a run's recipe.yaml and returns its path; RequestError where a key holds the home directory."""
        path = self.run_path(recipe.run_name, "recipe.yaml")
        recipe_file.write_recipe(recipe, path)
        return path

    def read_recipe(self, run: str) -> Recipe:
        """Returns a run's recipe; UntrustedRecord where it is not the one that the folder is named after."""
        recipe = recipe_file.read_recipe(self.run_path(run, "recipe.yaml"))
        if recipe.run_name != run:
            raise UntrustedRecord(
                f"The recipe in `{run}` is that of `{recipe.run_name}`: it was edited. Copy it and run it "
                "with `--recipe`: it is another run."
            )
        return recipe

    def write_samples(self, samples: Sequence[Sample]) -> str:
        """Writes what a task asks, once, and returns the name of its file, which follows from its content.

        Raises:
            RequestError: a sample has more than 36 choices, or its answer is none of them; or two have one id.
        """
        lines = [_sample_row(sample) for sample in samples]
        repeated = [name for name, times in Counter(sample.id for sample in samples).items() if times > 1]
        if repeated:
            raise RequestError(f"{len(repeated):,} ids stand for several samples: {', '.join(repeated[:10])}.")
        name = content_key(lines)
        path = self.path("samples", f"{name}.jsonl")
        if not path.exists():
            write_atomic(path, "".join(canonical_json(line) + "\n" for line in lines).encode())
        return name

    def read_samples(self, name: str) -> list[Sample]:
        """Returns what a task asked, without questions and pictures; UntrustedRecord where its name says otherwise."""
        path = self.path("samples", f"{name}.jsonl")
        if not path.is_file():
            raise UntrustedRecord(f"The samples `{name}` are not in `{scrub(str(path.parent))}`; records need them.")
        lines = read_jsonl(path)
        if content_key(lines) != name:
            raise UntrustedRecord(f"`{scrub(str(path))}` was changed: its content is not what its name says.")
        return [_sample(line) for line in lines]

    def append_record(self, record: Record) -> None:
        """Appends a record to its run's records.jsonl; it is on the disk when this returns."""
        append_jsonl(self.run_path(record.run, "records.jsonl"), dataclasses.asdict(record))

    def records(self, published: bool = True) -> list[Record]:
        """Returns the records of all runs, in the order of run, task and key; of several with one key, the last.

        Those published in results/records.jsonl count too, and before those of the runs' own folders; without
        `published`, those that this folder's own runs made are returned alone.

        Raises:
            UntrustedRecord: a damaged line, an unknown field, a wrong type, or a record in another run's folder.
        """
        found = {r.eval_key: r for r in _records(self.path("records.jsonl"))} if published else {}
        folder = self.path("runs")
        for run in sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []:
            for record in _records(self.run_path(run, "records.jsonl")):
                if record.run != run:
                    raise UntrustedRecord(f"A record of `{record.run}` lies in the folder of `{run}`.")
                found[record.eval_key] = record
        return sorted(found.values(), key=lambda record: (record.run, record.task, record.eval_key))

    def find(self, eval_key: str) -> Record | None:
        """Returns the last record with a key, None where there is none."""
        return next((record for record in self.records() if record.eval_key == eval_key), None)

    def publish(self) -> Path:
        """Writes the records of all runs to results/records.jsonl, atomically, and returns its path."""
        lines = [canonical_json(scrubbed(dataclasses.asdict(record))) + "\n" for record in self.records()]
        write_atomic(self.path("records.jsonl"), "".join(lines).encode())
        return self.path("records.jsonl")

    @contextlib.contextmanager
    def run_lock(self, run: str, wait_seconds: float = 0.0) -> Iterator[None]:
        """Holds a run for this process: a second process waits, or is told who holds it.

        The claim of a process that died is free at once; taking it over is logged. Look for the run's records after
        the lock is yours: another process may have made them while you waited.

        Raises:
            MachineError: the run is still held after `wait_seconds`; with process, computer and since when.
        """
        with held(self.run_path(run, "lock"), run, wait_seconds):
            yield


def _sample_row(sample: Sample) -> dict[str, Any]:
    if sample.answer not in sample.choices or len(sample.choices) > len(DIGITS):
        raise RequestError(
            f"Sample `{sample.id}` needs its answer `{sample.answer}` among at most {len(DIGITS)} choices; "
            f"it has {len(sample.choices)}: {', '.join(sample.choices[:5])}."
        )
    return {
        "id": sample.id,
        "group": sample.group,
        "cluster": sample.cluster,
        "answer": DIGITS[sample.choices.index(sample.answer)],
        "choices": list(sample.choices),
    }


def _sample(row: dict[str, Any]) -> Sample:
    choices = tuple(row["choices"])
    answer = choices[DIGITS.index(row["answer"])]
    return Sample(row["id"], Picture(row["cluster"], _no_picture), "", choices, answer, row["group"], row["cluster"])


def _no_picture() -> Image:
    raise RequestError("A samples file holds no pictures: take them from the task's data.")


def _records(path: Path) -> list[Record]:
    records = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            records.append(from_plain(Record, row))
        except FieldError as error:
            raise UntrustedRecord(
                f"Record {number} of `{scrub(str(path))}` is not of this version of mmpt-bench: {error} "
                "Update mmpt-bench, or move the file away."
            ) from error
    return records
