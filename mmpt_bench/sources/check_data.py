"""What a task's data is before any model sees it: counts, labels, duplicates, missing images, fingerprint."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mmpt_bench.common.errors import BenchError
from mmpt_bench.common.words import counted, plural
from mmpt_bench.data.samples import Sample
from mmpt_bench.data.tables import NAMED, bad_rows
from mmpt_bench.evaluation.task import Task
from mmpt_bench.sources.opened_images import open_images
from mmpt_bench.sources.prepared import LEAVE_OUT
from mmpt_bench.sources.task_rows import Where, check_countable, rows_of, samples


@dataclass(frozen=True)
class DataReport:
    """What was found of one task's data."""

    task: str
    title: str
    origin: str = ""
    fault: str = ""
    """Why it cannot be evaluated; empty where it can."""
    rows: int = 0
    official_rows: int | None = None
    official: bool | None = None
    """Whether they say what the official rows say; None where those are not pinned by what they say."""
    groups: dict[str, int] = field(default_factory=dict)
    """Rows of each subtask, strategy or relation."""
    labels: dict[str, int] = field(default_factory=dict)
    pictures: int = 0
    """Distinct ones that the rows name."""
    pictures_missing: int = 0
    rows_without_picture: int = 0
    first_missing: tuple[str, ...] = ()
    repeated: int = 0
    """Rows whose image and question another row has too (POPE's "yes" questions are in all three strategies)."""
    contradictory: int = 0
    """Images and questions with two different answers."""
    seen_in_training: float | None = None
    """Share of the rows whose image is in the training split of the same data; None where that is not there."""
    images_unreadable: int = 0
    """Images that are there and do not open."""
    first_unreadable: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """That the rows were read from."""
    not_read: tuple[str, ...] = ()
    """Files that are called like the split and were not read."""
    fingerprint: str = ""
    """Of the rows' files, and of the images where all are there."""
    notes: tuple[str, ...] = ()


def check_data(task: Task, where: Where, anew: bool = False) -> DataReport:
    """Returns what is found of a task's data; what is wrong with it is part of the report, not raised.

    Args:
        anew: opens images of which it is known from an earlier check, by size and time of change, that they open.
    """
    try:
        rows = rows_of(task, where, need_images=False)
        made = samples(task, rows)
    except BenchError as error:
        return DataReport(task.name, task.title, fault=str(error))
    found = rows.found
    answers = defaultdict(set)
    for sample in made:
        answers[sample.cluster, sample.question].add(sample.answer)
    fault, fingerprint = "", rows.fingerprint
    unreadable: list[str] = []
    try:
        check_countable(task, made, rows.origin)
        whole = rows_of(task, where)
        fingerprint = whole.fingerprint
        opened = open_images((image for sample in samples(task, whole) for image in sample.images), anew)
        unreadable = [text.rstrip(".") for text in opened.faults.values()]
        if unreadable:
            raise bad_rows(whole.origin, "image does not|images do not open", unreadable, LEAVE_OUT)
    except BenchError as error:
        fault = str(error)
    missing = (*found.unnamed, *found.missing) if found is not None else ()
    # Where all rows ask the same, an image is known by its row alone.
    asks_words = len({sample.question for sample in made}) > 1
    return DataReport(
        task=task.name,
        title=task.title,
        origin=rows.origin,
        fault=fault,
        rows=len(made),
        official_rows=task.data.official.rows,
        official=rows.official,
        groups=dict(Counter(sample.group for sample in made if sample.group)),
        labels=dict(Counter(sample.answer for sample in made)),
        pictures=len({sample.cluster for sample in made}),
        pictures_missing=len(missing),
        rows_without_picture=found.rows_without if found is not None else 0,
        first_missing=missing[:NAMED],
        repeated=len(made) - len(answers) if asks_words else 0,
        contradictory=sum(len(said) > 1 for said in answers.values()) if asks_words else 0,
        seen_in_training=_overlap(task, where, made),
        images_unreadable=len(unreadable),
        first_unreadable=tuple(unreadable[:NAMED]),
        files=rows.files,
        not_read=rows.not_read,
        fingerprint=fingerprint,
        notes=rows.notes,
    )


def _overlap(task: Task, where: Where, made: Sequence[Sample]) -> float | None:
    """Returns the share of rows whose image the training split has.

    None where images have no names, or the split is not here: SNLI-VE's has 487 MB, and nobody asked for it.
    """
    if not made or task.data.images is None:
        return None
    other = task.on(task.data.training_split())
    try:
        rows = rows_of(other, replace(where, images={}, offline=True), need_images=False)
        trained = {sample.cluster for sample in samples(other, rows)}
    except BenchError:
        return None
    return sum(sample.cluster in trained for sample in made) / len(made)


def report_lines(report: DataReport) -> list[str]:
    """Returns a report as lines of text, the first of which tells all that matters."""
    state = "ready" if not report.fault else "NOT ready"
    of = f" of {report.official_rows:,} official" if report.official_rows is not None else ""
    if not report.rows:
        return [f"{report.title}: {state}: {report.fault}"]
    lines = [
        f"{report.title}: {state}: {report.rows:,}{of} {plural(report.rows, 'row', 'rows')} on "
        f"{counted(report.pictures, 'image')}, {report.origin}"
    ]
    if report.files:
        unread = f"; not read: {_listed(report.not_read)}" if report.not_read else ""
        lines.append(f"  files: {_listed(report.files)}{unread}")
    if report.official:
        lines.append("  content: that of the official rows, word for word")
    balance = ", ".join(f"{name} {n / report.rows:.1%} ({n:,})" for name, n in sorted(report.labels.items()))
    lines.append(f"  labels: {balance}")
    if 1 < len(report.groups) <= 20:
        lines.append(f"  groups: {', '.join(f'{name} {n:,}' for name, n in report.groups.items())}")
    if report.repeated:
        lines.append(
            f"  repeated: {counted(report.repeated, 'row asks', 'rows ask')} of an image what another row asks"
        )
    if report.contradictory:
        lines.append(f"  contradictory: {counted(report.contradictory, 'question has', 'questions have')} two answers")
    if report.seen_in_training is not None:
        lines.append(f"  overlap: {report.seen_in_training:.1%} of the rows use an image of the training split")
    if report.pictures_missing:
        lines.append(
            f"  images: {report.pictures_missing:,} missing, for {counted(report.rows_without_picture, 'row')}"
        )
    if report.images_unreadable:
        lines.append(f"  images: {report.images_unreadable:,} do not open")
    lines += [f"  note: {note}" for note in report.notes]
    lines.append(f"  fingerprint: {report.fingerprint}")
    if report.fault:
        lines.append(f"  {report.fault}")
    return lines


def _listed(names: Sequence[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = f", and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
