"""The results folder: a folder a run, the samples they answered, and the records that every table is made from.

    mmpt-results/runs/<run>/              see run_folder.py
    mmpt-results/samples/<name>.jsonl     what was asked, named by its content
    mmpt-results/records.jsonl            the records of all runs, as published; the runs' folders need not be there

Nothing is shared between runs, so that reading them needs no lock. A name or a link that leads outside is refused.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.entries import folder
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.escaping import plain_text
from mmpt_bench.common.files import is_name, make_folder, path_inside, read_jsonl, scrub, write_atomic
from mmpt_bench.common.hashing import canonical_json, content_key
from mmpt_bench.common.words import counted
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.counting import INDEX_CHARACTERS, MAX_CHOICES
from mmpt_bench.records.record import Record
from mmpt_bench.records.run_folder import RECORDS, RunFolder, check_unmixed, read_records, summed

if TYPE_CHECKING:
    from PIL.Image import Image


log = logging.getLogger(__name__)
DEFAULT, VARIABLE = "mmpt-results", "MMPT_RESULTS"
PUBLISHED = "published.csv"
"""A file of the published leaderboard's folder, and of no user's."""
MAX_ROOT = 3000
"""Bytes of the results folder's path: file systems take 4,096 for a whole one, and a run's are up to 600 longer."""


def results_folder(given: str | Path | None = None) -> Path:
    """Returns the results folder: what is given, else `$MMPT_RESULTS`, else `mmpt-results` in the working directory.

    Raises:
        RequestError: it is a folder inside one: `runs/`, or a run's.
    """
    root = Path(given or os.environ.get(VARIABLE) or DEFAULT)
    if root.absolute().parent.name == "runs" and (root / "recipe.yaml").is_file():
        above = root.absolute().parents[1]
    elif root.absolute().name == "runs" and any(root.glob("*/recipe.yaml")):
        above = root.absolute().parent
    else:
        return root
    told = scrub(str(os.path.relpath(above)))
    raise RequestError(f"`{scrub(str(root))}` lies inside a results folder: name `{told}` instead.")


def published_folder() -> Path:
    """Returns the folder of the project's published leaderboard, which no run writes to."""
    return folder("results")


@dataclass(frozen=True)
class Store:
    """A results folder."""

    root: Path

    def check_writable(self) -> None:
        """Writes and removes a file; RequestError with the path where that fails, before any hour is spent."""
        probe = self.root / ".writable.tmp"
        if len(os.fsencode(self.root)) > MAX_ROOT:
            raise RequestError(f"The results folder's path has more than {MAX_ROOT:,} bytes. Name a shorter one.")
        if (self.root / PUBLISHED).is_file():
            raise RequestError(
                f"`{scrub(str(self.root))}` is the published leaderboard, which runs leave as it is. Name another "
                f"folder with `--out`; the default is `{DEFAULT}`."
            )
        is_new = not self.root.exists()
        try:
            make_folder(self.root)
            probe.write_bytes(b"probe")
            probe.unlink(missing_ok=True)
            if is_new:
                self.root.rmdir()  # A request that is refused later leaves none.
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
        return path_inside(self.root, *names)

    def run(self, name: str) -> RunFolder:
        """Returns a run's folder, which may not be there yet; raises as `path` does."""
        self.path("runs", name)
        return RunFolder(self.root, name)

    def runs(self) -> list[RunFolder]:
        """Returns the folders of all runs by name; a folder that no run can have made is none, and logged."""
        folder = self.path("runs")
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        stray = [name for name in names if not is_name(name)]
        for name in stray:
            if not name.startswith("."):
                log.warning("`%s` in `runs/` is no run's folder; it is left out.", plain_text(name))
        return [self.run(name) for name in names if name not in stray]

    def records(self, told: Callable[[UntrustedRecord], None] | None = None) -> list[Record]:
        """Returns the records of all runs, in the order of run, task and key; of several with one key, the last.

        Those published in results/records.jsonl count too, and before those of the runs' own folders.

        Args:
            told: of each file or run that cannot be trusted, which is then left out; by default it is raised.

        Raises:
            UntrustedRecord: as `RunFolder.records` does; an unknown field, a wrong type.
        """
        found: dict[str, Record] = {}
        for read in (lambda: read_records(self.path(RECORDS)), *(run.records for run in self.runs())):
            try:
                found |= {record.eval_key: record for record in read()}
            except UntrustedRecord as error:
                if told is None:
                    raise
                told(error)
        try:
            check_unmixed(list(found.values()))
        except UntrustedRecord as error:
            if told is None:
                raise
            told(error)
        return sorted(found.values(), key=lambda record: (record.run, record.task, record.eval_key))

    def published_keys(self) -> dict[str, set[str]]:
        """Returns run -> `eval_key` of each finished record in results/records.jsonl; UntrustedRecord where damaged."""
        found: dict[str, set[str]] = {}
        for record in read_records(self.path(RECORDS)):
            if record.status == "ok":
                found.setdefault(record.run, set()).add(record.eval_key)
        return found

    def publish(self) -> Path:
        """Writes the records of all runs to results/records.jsonl, atomically, and returns its path."""
        lines = [canonical_json(summed(record.row)) + "\n" for record in self.records()]
        write_atomic(self.path(RECORDS), "".join(lines).encode())
        return self.path(RECORDS)

    def write_samples(self, samples: Sequence[Sample]) -> str:
        """Writes what a task asks, once, and returns the name of its file, which follows from its content.

        Raises:
            RequestError: a sample has more than 36 choices, or its answer is none of them; or two have one id.
        """
        lines = [_sample_row(sample) for sample in samples]
        repeated = [name for name, times in Counter(sample.id for sample in samples).items() if times > 1]
        if repeated:
            raise RequestError(
                f"{counted(len(repeated), 'id stands', 'ids stand')} for several samples: {', '.join(repeated[:10])}."
            )
        name = content_key(lines)
        path = self.path("samples", f"{name}.jsonl")
        if not path.exists():
            write_atomic(path, "".join(canonical_json(line) + "\n" for line in lines).encode())
        return name

    def read_samples(self, name: str) -> list[Sample]:
        """Returns what a task asked, without questions and images; UntrustedRecord where its name says otherwise."""
        path = self.path("samples", f"{name}.jsonl")
        if not path.is_file():
            raise UntrustedRecord(f"The samples `{name}` are not in `{scrub(str(path.parent))}`; records need them.")
        lines = read_jsonl(path)
        if content_key(lines) != name:
            raise UntrustedRecord(f"`{scrub(str(path))}` was changed: its content is not what its name says.")
        return [_sample(line) for line in lines]


def _sample_row(sample: Sample) -> dict[str, Any]:
    if not sample.choices:
        row: dict[str, Any] = {"id": sample.id, "group": sample.group, "cluster": sample.cluster}
        row |= {"references": list(sample.accepted), "target": sample.answer}
        return row | {"wording": sample.wording} if sample.wording else row
    if sample.answer not in sample.choices or len(sample.choices) > MAX_CHOICES:
        raise RequestError(
            f"Sample `{sample.id}` needs its answer `{sample.answer}` among at most {MAX_CHOICES:,} choices; "
            f"it has {len(sample.choices)}: {', '.join(sample.choices[:5])}."
        )
    row = {
        "id": sample.id,
        "group": sample.group,
        "cluster": sample.cluster,
        "answer": INDEX_CHARACTERS[sample.choices.index(sample.answer)],
        "choices": list(sample.choices),
    }
    # Without it, the names of files of samples that have one wording are those of earlier versions.
    return row | {"wording": sample.wording} if sample.wording else row


def _sample(row: dict[str, Any]) -> Sample:
    choices, references = tuple(row.get("choices", ())), tuple(row.get("references", ()))
    answer = choices[INDEX_CHARACTERS.index(row["answer"])] if choices else row["target"]
    image, wording = LazyImage(row["cluster"], _no_image), row.get("wording", "")
    return Sample(row["id"], image, "", choices, answer, row["group"], row["cluster"], wording, references)


def _no_image() -> Image:
    raise RequestError("A samples file holds no images: take them from the task's data.")
