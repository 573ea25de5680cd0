"""Everything the page says, gathered from a results folder before a word of it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_bench import registry
from mmpt_bench.board import Board, Row
from mmpt_bench.claims import Comparison
from mmpt_bench.hashing import canonical_json
from mmpt_bench.leaderboard import RESAMPLES, boards
from mmpt_bench.published import Published, read_published
from mmpt_bench.ranking import SUBJECT
from mmpt_bench.recipe import Record
from mmpt_bench.report.audit import TaskAudit, audit
from mmpt_bench.report.browse import Browser, browser
from mmpt_bench.report.costs import Cost, costs
from mmpt_bench.report.drawings import Drawing, drawings
from mmpt_bench.report.missing import Gap, gaps, nothing_recorded
from mmpt_bench.report.questions import Asked
from mmpt_bench.report.rerun import out_option, reproduce
from mmpt_bench.report.verdict import verdict
from mmpt_bench.rescore import Samples
from mmpt_bench.store import Store
from mmpt_bench.task import Task

PAIRS_SHOWN = 60
"""Comparisons in the table; beyond, those with the highest score and with the method under study are shown."""
CARDS = 48
"""Samples with pictures, over all boards."""


@dataclass(frozen=True)
class Variants:
    """One method with several sets of hyperparameters: an ablation."""

    method: str
    fields: tuple[str, ...]
    """Hyperparameters that differ."""
    rows: tuple[Row, ...]


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
    variants: tuple[Variants, ...]
    browser: Browser
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Content:
    """The report."""

    sections: tuple[Section, ...]
    """The main board first: the one with most methods on most tasks, trials with a limit last."""
    empty: Gap | None
    """What to do where nothing is recorded."""
    drawings: tuple[Drawing, ...]
    """Of the boards, then those that were given."""
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


def gather(
    store: Store,
    tasks: Mapping[str, Task],
    images: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    n_resamples: int = RESAMPLES,
    known: Sequence[Board] | None = None,
    figures: Sequence[Drawing] = (),
    undrawn: Sequence[tuple[str, str]] = (),
) -> Content:
    """Returns the report of a results folder.

    Args:
        store: the results folder; it may be empty.
        tasks: every task that records may be of, by name, in the order of the columns.
        images: folder of real data, for questions and pictures of boards on them.
        say: told what takes long.
        n_resamples: of every interval.
        known: the folder's boards, where they were built already.
        figures: more of them, in their order, shown after those of the boards.
        undrawn: (title, what is missing and the command that gets it) of figures that cannot be drawn yet.

    Raises:
        UntrustedRecord: a record contradicts its own answers, samples or track.
    """
    colors = {entry.name: registry.load_method(entry).color for entry in registry.method_entries().values()}
    records = {record.eval_key: record for record in store.records()}
    made = sorted(boards(store, tasks, n_resamples) if known is None else known, key=_main_first)
    samples, asked = Samples(store), Asked(tasks, images)
    sections = tuple(_section(board, len(made), records, store, samples, asked, say) for board in made)
    out = out_option(store, "--out")
    return Content(
        sections=sections,
        empty=None if made else nothing_recorded(store),
        drawings=(*drawings([section.board for section in sections], colors), *figures),
        undrawn=tuple(undrawn),
        published=read_published(registry.folder("results") / "published.csv"),
        settings=_settings(list(records.values())),
        records=records,
        colors=colors,
        n_resamples=n_resamples,
        closing=(
            " ".join(["mmpt-bench leaderboard", *out]),
            " ".join(["mmpt-bench report", *out_option(store, "--results")]),
        ),
        asked=asked,
        samples=samples,
    )


def _main_first(board: Board) -> tuple[bool, int, str, str]:
    size = sum(len(row.cells) for row in board.rows)
    return board.limit is not None, -size, board.title, board.track


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
        costs=costs(board, records),
        pairs=_pairs(board),
        variants=_variants(board),
        browser=browser(board, records, samples, asked, CARDS // n_boards),
        commands=tuple(reproduce(board, store)),
    )


def _pairs(board: Board) -> tuple[Comparison, ...]:
    if len(board.comparisons) <= PAIRS_SHOWN:
        return board.comparisons
    own = [row.label for row in board.rows if row.method == SUBJECT][:1]
    named = {board.rows[0].label, *own}
    return tuple(pair for pair in board.comparisons if pair.first in named or pair.second in named)


def _variants(board: Board) -> tuple[Variants, ...]:
    by_method: dict[str, list[Row]] = {}
    for row in board.rows:
        by_method.setdefault(row.method, []).append(row)
    found = []
    for method, rows in sorted(by_method.items()):
        if len(rows) > 1:
            names = sorted({name for row in rows for name in row.params})
            telling = [n for n in names if len({canonical_json(row.params.get(n)) for row in rows}) > 1]
            ordered = sorted(rows, key=lambda row: [_orderly(row.params.get(name)) for name in telling])
            found.append(Variants(method, tuple(telling), tuple(ordered)))
    return tuple(found)


def _orderly(value: Any) -> tuple[int, float, str]:
    """Returns a sort key that puts numbers in order, and anything else after them."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if is_number else (1, 0.0, str(value))


def _settings(records: Sequence[Record]) -> tuple[Setting, ...]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(canonical_json(record.environment), []).append(record)
    found = [
        Setting(of[0].environment, len(of), min(r.time for r in of), max(r.time for r in of)) for of in groups.values()
    ]
    return tuple(sorted(found, key=lambda setting: (-setting.n_records, setting.first)))
