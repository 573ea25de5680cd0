"""What figures are drawn from, and what comes out: a figure with its table, or what is missing for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from mmpt_bench.board.assembly import RESAMPLES, Evidence
from mmpt_bench.board.board import asked_of
from mmpt_bench.board.from_records import evidence
from mmpt_bench.board.rescoring import known_tasks
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.learning_curves import LearningCurve, read_learning_curves
from mmpt_bench.records.learning_rates import FILE, Choice, read, shipped
from mmpt_bench.records.rate_curve import Scores
from mmpt_bench.records.rate_trials import TESTS, TRIALS, by_search, read_trials
from mmpt_bench.records.record import asked_with
from mmpt_bench.records.store import Store
from mmpt_bench.study.ablations.board import AblationBoard, ablation_boards
from mmpt_bench.study.streams.board import StreamBoard, stream_boards

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal[
    "leaderboard", "pareto", "differences", "ablation-curves", "heat-map", "components", "subtasks", "learning-curves",
    "search", "stream",
]  # fmt: skip

Format = Literal["svg", "pdf", "png"]

FORMATS: tuple[Format, ...] = ("svg", "pdf", "png")

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Drawn:
    """A figure, and the table that it shows."""

    kind: Kind
    name: str
    """Of its files, without suffix."""
    title: str
    """A line for a heading; it is not drawn into the figure."""
    caption: str
    """What is shown, and how uncertainty is; for below the figure. It is not drawn either."""
    alt: str
    """What the figure says, in words, for those who do not see it."""
    figure: Figure
    source: str
    """Suite, subset and date of what is shown; `draw` writes it into the figure."""
    csv: bytes
    """UTF-8 with a header line; a row a mark."""
    ablation: str = ""
    """Name of the ablation that it is of; empty for a figure of boards or searches."""


def source_of(of: Evidence) -> str:
    """Returns suite, subset and date of a board's figure: "Embedded suite, all questions, newest record 2025-11-22"."""
    results = [each for by_task in of.scores.values() for by_seed in by_task.values() for each in by_seed.values()]
    board, day = of.board, dated(each.record.time for each in results)
    before = f", {text}" if (text := asked_with(board.asking)) else ""
    before += f", parse rule {board.rule}" if board.rule else ""
    return f"{asked_of(board.suite_told, board.limit, board.columns)}{before}, {day}"


def dated(times: Iterable[str]) -> str:
    """Returns the day of the newest of some records, in words; the same records always give the same one."""
    newest = max(times, default="")
    return f"newest record {newest[:10]}" if newest else "no date recorded"


@dataclass(frozen=True)
class Missing:
    """A figure that cannot be drawn yet."""

    kind: Kind
    name: str
    title: str
    reason: str
    """What is missing, and the command that makes it."""


@dataclass(frozen=True)
class FigureData:
    """Everything that figures are made from, read and resampled once."""

    boards: tuple[Evidence, ...]
    ablations: tuple[AblationBoard, ...]
    choices: tuple[Choice, ...]
    """Searches of learning rates."""
    test_scores: Mapping[str, Scores]
    """Key of a search -> what its models scored on test data, which no choice looked at."""
    search_times: Mapping[str, str]
    """Key of a search -> time of its newest trial, where its trials are in the results folder."""
    curves: Mapping[str, LearningCurve]
    """By run."""
    tasks: Mapping[str, Task]
    colors: Mapping[str, str]
    """Hex colour by method."""
    streams: tuple[StreamBoard, ...] = ()


def figure_data(
    store: Store,
    tasks: Mapping[str, Task],
    colors: Mapping[str, str],
    boards: tuple[Evidence, ...] | None = None,
    ablations: tuple[AblationBoard, ...] | None = None,
    streams: tuple[StreamBoard, ...] | None = None,
    n_resamples: int = RESAMPLES,
) -> FigureData:
    """Returns what a results folder holds for figures.

    Args:
        store: the results folder.
        tasks: every task that records may be of, by name, in the order of the columns.
        colors: hex colour by method; methods without one are grey.
        boards: what `leaderboard.evidence` returned, where it is known already.
        ablations: what `ablation_board` returned of each ablation, where it is known already.
        streams: what `stream_boards` returned, where it is known already.
        n_resamples: of every interval.

    Raises:
        UntrustedRecord: a record contradicts its own answers, samples or setting.
    """
    tasks = known_tasks(tasks, store.records())
    if boards is None:
        boards = evidence(store, tasks, n_resamples)
    if ablations is None:
        ablations = ablation_boards(store, tasks, n_resamples)
    own = read(store.root / FILE)
    choices, tests = tuple([*own, *read(shipped())]), read_trials(store.root / TESTS)
    times: dict[str, str] = {}
    for trial in (*read_trials(store.root / TRIALS), *tests):
        times[trial.search.key] = max(trial.time, times.get(trial.search.key, ""))
    curves = read_learning_curves(store)
    if streams is None:
        streams = tuple(stream_boards(store, tasks))
    return FigureData(boards, ablations, choices, by_search(tests), times, curves, tasks, colors, streams)
