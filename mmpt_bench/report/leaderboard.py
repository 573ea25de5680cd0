"""The leaderboard of a results folder: built from its records and written as tables and figures."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpt_bench.board.assembly import Evidence
from mmpt_bench.board.board import Board
from mmpt_bench.board.from_records import evidence, named
from mmpt_bench.board.published import Published, read_published
from mmpt_bench.board.rescoring import known_tasks
from mmpt_bench.board.writers.csv_file import leaderboard_csv, score_rows, scores_csv
from mmpt_bench.board.writers.html import boards_html
from mmpt_bench.board.writers.latex import leaderboard_latex
from mmpt_bench.board.writers.markdown import leaderboard_json, leaderboard_md
from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.files import write_atomic
from mmpt_bench.evaluation.task import Task
from mmpt_bench.figures.draw import figures, write
from mmpt_bench.figures.figure_data import KINDS, Drawn, figure_data
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.learning_curves import publish_learning_curves
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store, published_folder
from mmpt_bench.study.ablations.tables import write_ablations
from mmpt_bench.study.searches.acceptance import acceptances, write_acceptance
from mmpt_bench.study.streams.board import stream_boards
from mmpt_bench.study.streams.tables import write_streams


@dataclass(frozen=True)
class Leaderboard:
    """The boards of a results folder, one for each setting and limit."""

    boards: tuple[Board, ...]
    published: tuple[Published, ...]
    """Scores from papers, which are shown apart."""
    folder: Path | None = None
    """Where scores.csv, leaderboard.csv, leaderboard.md and figures/ were written; None where nothing was."""
    figures: tuple[str, ...] = ()
    """Names of the figures that were drawn."""

    def of(self, keys: Collection[str], runs: Collection[str]) -> Leaderboard:
        """Returns the boards that hold some of these results, or failures of these runs.

        A result by a rule that is the own one of its task stands on the board of that rule too, beside what else was
        asked for.
        """
        holding = [board for board in self.boards if board.holds(keys, runs)]
        held = {board.id: board.keys & {*keys} for board in holding}
        less = {name for name, own in held.items() if any(own < others for others in held.values())}
        found = [board for board in holding if board.id not in less or board.holds((), runs)]
        return replace(self, boards=tuple(found))

    def as_plain(self) -> dict[str, Any]:
        """Returns everything that the tables show, as JSON values."""
        return leaderboard_json(self.boards, self.published)

    def text(self, form: str) -> str:
        """Returns the tables as text: "latex", "csv" or "markdown"."""
        writers = {
            "latex": lambda: leaderboard_latex(self.boards),
            "csv": lambda: leaderboard_csv(self.boards),
            "markdown": lambda: leaderboard_md(self.boards, self.published),
        }
        return writers[form]().decode()

    def _repr_html_(self) -> str:
        """Returns the boards as a notebook shows them."""
        return boards_html(self.boards)


def scores(store: Store, tasks: Mapping[str, Task], records: Sequence[Record]) -> list[dict[str, Any]]:
    """Returns the rows of scores.csv: see `Results.scores`."""
    tasks = known_tasks(tasks, records)
    return score_rows(records, named(store, tasks, records), tasks)


def write_scores(store: Store, tasks: Mapping[str, Task], records: Sequence[Record] | None = None) -> None:
    """Writes scores.csv; `records` are the folder's, where they are read already."""
    known = store.records() if records is None else records
    write_atomic(store.path("scores.csv"), scores_csv(scores(store, tasks, known)))


def published_leaderboard(tasks: Mapping[str, Task]) -> Leaderboard:
    """Returns the project's published leaderboard, made from its records; nothing is written."""
    return _made(evidence(Store(published_folder()), tasks))


def _made(found: Sequence[Evidence]) -> Leaderboard:
    return Leaderboard(tuple(each.board for each in found), read_published(published_folder() / "published.csv"))


def write_leaderboard(
    store: Store, tasks: Mapping[str, Task], publish: bool = False, kinds: Sequence[str] = ("leaderboard",)
) -> Leaderboard:
    """Builds the boards from the records, and writes scores.csv, leaderboard.csv, leaderboard.md and figures.

    Args:
        store: the results folder.
        tasks: every task that records may be of, by name, in the order of the columns.
        publish: first gathers what the runs' folders hold into files that stand for them, and then draws every figure:
            done again from those files alone, it makes the same bytes.
        kinds: of figures that are drawn.

    Raises:
        RequestError: nothing is recorded.
        UntrustedRecord: a record contradicts its own answers, samples or setting.
    """
    records = store.records()
    if not records:
        root = store.root
        raise RequestError(
            f"There are no records in `{root}`. "
            f"`mmpt-bench run --method mmpt --tasks mme,pope --out {shlex.quote(str(root))}` makes some."
        )
    if publish:
        store.publish()
        publish_learning_curves(store)
    tasks = known_tasks(tasks, records)
    found = evidence(store, tasks, records=records)
    made = replace(_made(found), folder=store.root)
    ablations = write_ablations(store, tasks, records)
    streams = stream_boards(store, tasks, records)
    write_streams(store, streams)
    if publish and acceptances(store):
        write_acceptance(store)
    write_scores(store, tasks, records)
    write_atomic(store.path("leaderboard.csv"), leaderboard_csv(made.boards))
    write_atomic(store.path("leaderboard.md"), leaderboard_md(made.boards, made.published))
    # A trial on a few questions has a table; its figures are drawn where they are asked for.
    drawn = found if publish else tuple(each for each in found if each.board.limit is None)
    of = figure_data(store, tasks, method_catalog.colors(), drawn, tuple(ablations), tuple(streams))
    names = []
    for each in figures(of, KINDS if publish else kinds):  # type: ignore[arg-type]
        if isinstance(each, Drawn):
            write(each, store.path("figures"))
            names.append(each.name)
    return replace(made, figures=tuple(names))
