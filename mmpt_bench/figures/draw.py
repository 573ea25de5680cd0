"""Every figure that the records allow, each with the table behind it; and for the others, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mmpt_bench.board.from_records import evidence
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.files import write_atomic
from mmpt_bench.evaluation.task import Task
from mmpt_bench.figures.figure_data import FORMATS, KINDS, Drawn, FigureData, Format, Kind, Missing, figure_data
from mmpt_bench.records.store import Store
from mmpt_bench.study.ablations.board import AblationBoard
from mmpt_bench.study.streams.board import StreamBoard
from mmpt_bench.study.streams.transfer import TransferRow

ABLATION_KINDS: tuple[Kind, ...] = ("ablation-curves", "heat-map", "components")
REFERENCE_RESAMPLES = 100


def figures(of: FigureData, kinds: Sequence[Kind] = KINDS) -> Iterator[Drawn | Missing]:
    """Yields every figure of some kinds in the order of a report: of each board, of each ablation, of the searches."""
    import matplotlib.style

    from mmpt_bench.figures import (
        ablation_curves,
        components,
        differences,
        heat_map,
        leaderboard,
        learning,
        pareto,
        search,
        streams,
        subtasks,
    )
    from mmpt_bench.figures.style import STYLE, stamp

    modules: dict[Kind, Any] = {
        "leaderboard": leaderboard, "pareto": pareto, "differences": differences, "ablation-curves": ablation_curves,
        "heat-map": heat_map, "components": components, "subtasks": subtasks, "learning-curves": learning,
        "search": search, "stream": streams,
    }  # fmt: skip
    for kind, module in modules.items():
        if kind in kinds:
            with matplotlib.style.context(["default", STYLE]):
                made = list(module.draw(of)) or [Missing(kind, kind, module.TITLE, module.NOTHING)]
                for each in made:
                    if isinstance(each, Drawn):
                        stamp(each.figure, each.source)
            yield from made


def render(drawn: Drawn, form: Format, text: Literal["paths", "text"] = "paths") -> bytes:
    """Returns a figure as SVG, PDF or PNG: the same bytes each time, without date and version.

    Args:
        drawn: the figure.
        form: of the file.
        text: in SVG, letters as outlines, the same everywhere; or as text, a fraction of the size, for a page that
            names its fonts.
    """
    from mmpt_bench.figures.style import rendered

    return rendered(drawn.figure, form, text)


def write(drawn: Drawn, folder: Path) -> list[Path]:
    """Writes a figure as SVG, PDF and PNG with its CSV and returns the paths; MachineError where that fails."""
    files = {f".{form}": render(drawn, form) for form in FORMATS} | {".csv": drawn.csv}
    paths = []
    for suffix, data in files.items():
        path = folder / f"{drawn.name}{suffix}"
        write_atomic(path, data)
        paths.append(path)
    return paths


def write_ablation_figures(
    store: Store, board: AblationBoard, tasks: Mapping[str, Task], colors: Mapping[str, str]
) -> list[Path]:
    """Writes the figures of one ablation to the `figures/` of its results folder and returns the paths."""
    # Of the leaderboard's rows only the scores are drawn, for reference: its intervals need not be good.
    boards = evidence(store, tasks, n_resamples=REFERENCE_RESAMPLES)
    of = FigureData(boards, (board,), (), {}, {}, {}, tasks, colors)
    made = [each for each in figures(of, ABLATION_KINDS) if isinstance(each, Drawn)]
    return [path for each in made for path in write(each, store.path("figures"))]


def write_stream_figures(
    store: Store, board: StreamBoard, tasks: Mapping[str, Task], colors: Mapping[str, str]
) -> list[Path]:
    """Writes the figures of one stream to the `figures/` of its results folder and returns the paths."""
    of = FigureData((), (), (), {}, {}, {}, tasks, colors, (board,))
    made = [each for each in figures(of, ("stream",)) if isinstance(each, Drawn)]
    return [path for each in made for path in write(each, store.path("figures"))]


def write_transfer_figure(store: Store, name: str, rows: Sequence[TransferRow], source: str) -> list[Path]:
    """Writes the figure of a transfer to the `figures/` of its results folder and returns the paths."""
    import matplotlib.style

    from mmpt_bench.figures import transfer
    from mmpt_bench.figures.style import STYLE, stamp

    with matplotlib.style.context(["default", STYLE]):
        drawn = transfer.draw(name, rows, source)
        stamp(drawn.figure, source)
    return write(drawn, store.path("figures"))


def write_figures(
    store: Store, tasks: Mapping[str, Task], colors: Mapping[str, str], only: Sequence[str] = ()
) -> tuple[list[Drawn], list[Missing]]:
    """Writes the figures of a results folder to its `figures/`; returns those, and what is missing for the others.

    Args:
        store: the results folder.
        tasks: every task that records may be of.
        colors: hex colour of each method.
        only: kinds of figures; all by default.

    Raises:
        RequestError: a kind that is none, or nothing can be drawn.
    """
    for kind in only:
        if kind not in KINDS:
            raise unknown_name("kind of figure", kind, KINDS)
    kinds: Any = tuple(only) or KINDS
    made = list(figures(figure_data(store, tasks, dict(colors)), kinds))
    drawn = [each for each in made if isinstance(each, Drawn)]
    missing = [each for each in made if isinstance(each, Missing)]
    if not drawn and not store.records():
        raise RequestError(
            f"Nothing is recorded in `{store.root}` that could be drawn. "
            "`mmpt-bench run --method all --tasks all` makes some; `--out` names another folder."
        )
    if not drawn:
        raise RequestError("Nothing can be drawn yet. " + " ".join(f"{each.title}: {each.reason}" for each in missing))
    for each in drawn:
        write(each, store.path("figures"))
    return drawn, missing
