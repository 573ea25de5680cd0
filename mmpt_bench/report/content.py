"""Everything the page says, gathered from a results folder before a word of it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpt_bench.board.assembly import RESAMPLES
from mmpt_bench.board.board import Board
from mmpt_bench.board.from_records import evidence
from mmpt_bench.board.published import Published, read_published
from mmpt_bench.board.ranking import SUBJECT
from mmpt_bench.board.rescoring import Samples, known_tasks
from mmpt_bench.common.hashing import canonical_json
from mmpt_bench.evaluation.task import Task
from mmpt_bench.figures.draw import figures
from mmpt_bench.figures.figure_data import KINDS, Kind, figure_data
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store, published_folder
from mmpt_bench.report.audit import TaskAudit, audit
from mmpt_bench.report.browse import Browser, browser
from mmpt_bench.report.costs import Cost, costs
from mmpt_bench.report.drawings import Drawing, joined
from mmpt_bench.report.missing import Gap, gaps, nothing_recorded, of_ablation
from mmpt_bench.report.questions import Asked
from mmpt_bench.report.verdict import verdict
from mmpt_bench.stats.claims import Comparison
from mmpt_bench.study.ablations.board import AblationBoard, ablation_boards
from mmpt_bench.study.ablations.tables import title
from mmpt_bench.study.explanations.gallery import Gallery, read_galleries
from mmpt_bench.study.rerun import PROGRAM, out_option, reproduce
from mmpt_bench.study.streams.board import StreamBoard

PAIRS_SHOWN = 60
"""Comparisons in the table; beyond, those with the highest score and with the method under study are shown."""
GALLERY_BYTES = 450_000
"""Of the images that show where models look, over all explanations."""
CARDS = 48
"""Samples with images, over all boards."""


@dataclass(frozen=True)
class Detail:
    """A board whose scores are all shown, with the pairs that are."""

    board: Board
    heading: str
    name: str
    """What its rows are known by where several boards have rows of one name."""
    pairs: tuple[Comparison, ...] = ()
    ablation: str = ""
    """Name of the ablation that it is the board of."""


@dataclass(frozen=True)
class Setting:
    """What runs happened on."""

    environment: dict[str, Any]
    n_records: int
    first: str
    """Time of the earliest of these records."""
    last: str


@dataclass(frozen=True)
class Section:
    """One board, and everything that is said of it."""

    board: Board
    verdict: tuple[str, str]
    gaps: tuple[Gap, ...]
    audits: tuple[TaskAudit, ...]
    costs: tuple[Cost, ...]
    pairs: tuple[Comparison, ...]
    """Comparisons that are shown."""
    browser: Browser
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Content:
    """The report."""

    sections: tuple[Section, ...]
    """The main board first: the one with most methods on most tasks, trials with a limit last."""
    empty: Gap | None
    """What to do where nothing is recorded."""
    ablations: tuple[AblationBoard, ...]
    streams: tuple[StreamBoard, ...]
    galleries: tuple[tuple[Gallery, int], ...]
    """Where models look: questions that fit, and how many more there are."""
    drawings: tuple[Drawing, ...]
    undrawn: tuple[tuple[str, str], ...]
    """(title, reason) of figures that cannot be drawn yet."""
    published: tuple[Published, ...]
    settings: tuple[Setting, ...]
    records: dict[str, Record]
    """By `eval_key`."""
    colors: dict[str, str]
    """By method."""
    n_resamples: int
    closing: tuple[str, ...]
    """Commands that make the tables and this page from what is recorded."""
    asked: Asked
    samples: Samples

    @property
    def details(self) -> tuple[Detail, ...]:
        """Returns the boards of which every score is shown: those of the sections, then those of the ablations."""
        several = len(self.sections) > 1
        found = []
        for number, section in enumerate(self.sections, start=1):
            board = section.board
            heading = f"{board.title[0].upper()}{board.title[1:]}, setting {board.id}" if several else "Overall"
            name = f"leaderboard {number}" if several else "leaderboard"
            found.append(Detail(board, heading, name, section.pairs))
        for each in self.ablations:
            if each.evidence is not None:
                name = f"ablation: {title(each)}"
                heading = name[0].upper() + name[1:]
                found.append(Detail(each.evidence.board, heading, name, ablation=each.ablation.name))
        return tuple(found)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Returns everything that is missing."""
        first = [self.empty] if self.empty is not None else []
        of_boards = [gap for section in self.sections for gap in section.gaps]
        return (*first, *of_boards, *(gap for each in self.ablations for gap in of_ablation(each)))


def gather(
    store: Store,
    tasks: Mapping[str, Task],
    images: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    n_resamples: int = RESAMPLES,
    kinds: Sequence[Kind] = KINDS,
) -> Content:
    """Returns the report of a results folder.

    Args:
        store: the results folder; it may be empty.
        tasks: every task that records may be of, by name, in the order of the columns.
        images: folder of real data, for questions and images of boards on them.
        say: told what takes long.
        n_resamples: of every interval.
        kinds: of figures.

    Raises:
        UntrustedRecord: a record contradicts its own answers, samples or setting.
    """
    colors, kept = method_catalog.colors(), store.records()
    records, tasks = {record.eval_key: record for record in kept}, known_tasks(tasks, kept)
    found = evidence(store, tasks, n_resamples, kept)
    ablations = ablation_boards(store, tasks, n_resamples, kept)
    data = figure_data(store, tasks, colors, found, ablations)
    drawings, undrawn = joined(figures(data, kinds))
    made = sorted((each.board for each in found), key=_main_first)
    samples, asked = Samples(store), Asked(tasks, images)
    sections = tuple(_section(board, len(made), records, store, samples, asked, say) for board in made)
    out = out_option(store)
    return Content(
        sections=sections,
        empty=None if made else nothing_recorded(store, has_ablations=any(each.evidence for each in ablations)),
        ablations=ablations,
        streams=data.streams,
        galleries=fitting(read_galleries(store)),
        drawings=tuple(drawings),
        undrawn=tuple(undrawn),
        published=read_published(published_folder() / "published.csv"),
        settings=_settings(kept),
        records=records,
        colors=colors,
        n_resamples=n_resamples,
        closing=tuple(" ".join([PROGRAM, command, *out]) for command in ("leaderboard", "report")),
        asked=asked,
        samples=samples,
    )


def fitting(galleries: Sequence[Gallery]) -> tuple[tuple[Gallery, int], ...]:
    """Returns galleries with the questions that fit into the room of all, and how many do not: as many of each."""
    room, kept = GALLERY_BYTES // max(1, len(galleries)), []
    for gallery in galleries:
        n, size = len(gallery.questions), sum(question.n_bytes for question in gallery.questions)
        # What is left out is spread over the order, so that both ends stay.
        most = int(n * min(1.0, room / max(1, size)))
        places = sorted({round(i * (n - 1) / max(1, most - 1)) for i in range(most)})
        kept.append((replace(gallery, questions=tuple(gallery.questions[i] for i in places)), n - len(places)))
    return tuple(kept)


def _main_first(board: Board) -> tuple[bool, bool, int, str, str]:
    size = sum(len(row.cells) for row in board.rows)
    return board.limit is not None, bool(board.rule), -size, board.title, board.track


def _section(
    board: Board, n_boards: int, records: Mapping[str, Record], store: Store, samples: Samples, asked: Asked,
    say: Callable[[str], None],
) -> Section:  # fmt: skip
    files = {}
    for column in board.columns:
        row = next(row for row in board.rows if column.task in row.cells)
        files[column.task] = records[next(iter(row.cells[column.task].eval_keys.values()))].samples
    return Section(
        board=board,
        verdict=verdict(board),
        gaps=tuple(gaps(board, store)),
        audits=audit(board, files, asked, samples, store, say),
        costs=costs(board),
        pairs=_pairs(board),
        browser=browser(board, records, samples, asked, CARDS // n_boards),
        commands=tuple(reproduce(board, store)),
    )


def _pairs(board: Board) -> tuple[Comparison, ...]:
    if len(board.comparisons) <= PAIRS_SHOWN:
        return board.comparisons
    own = [row.label for row in board.rows if row.method == SUBJECT][:1]
    named = {board.rows[0].label, *own}
    return tuple(pair for pair in board.comparisons if pair.first in named or pair.second in named)


def _settings(records: Sequence[Record]) -> tuple[Setting, ...]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(canonical_json(record.environment), []).append(record)
    found = [
        Setting(of[0].environment, len(of), min(r.time for r in of), max(r.time for r in of)) for of in groups.values()
    ]
    return tuple(sorted(found, key=lambda setting: (-setting.n_records, setting.first)))
