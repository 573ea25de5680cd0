"""Every figure that the records allow, each with the table behind it; and for the others, what is missing.

    for each in figures(material(store, tasks, colors)):
        if isinstance(each, Drawn): write(each, store.path("figures"))
        else: print(each.reason)

Figures are vector graphics in one style, one colour a method everywhere, and the same bytes for the same records.
Importing this imports no matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from mmpt_bench.ablation_board import AblationBoard, ablation_boards
from mmpt_bench.assemble import RESAMPLES, Evidence
from mmpt_bench.curves import Curve, read_curves
from mmpt_bench.files import write_atomic
from mmpt_bench.leaderboard import evidence
from mmpt_bench.rates import FILE, Choice, read, shipped
from mmpt_bench.store import Store
from mmpt_bench.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal[
    "leaderboard", "pareto", "differences", "lengths", "heat-map", "components", "subtasks", "learning-curves", "search"
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
    csv: bytes
    """UTF-8 with a header line; a row a mark."""
    ablation: str = ""
    """Name of the ablation that it is of; empty for a figure of boards or searches."""


@dataclass(frozen=True)
class Missing:
    """A figure that cannot be drawn yet."""

    kind: Kind
    name: str
    title: str
    reason: str
    """What is missing, and the command that makes it."""


@dataclass(frozen=True)
class Material:
    """Everything that figures are made from, read and resampled once."""

    boards: tuple[Evidence, ...]
    ablations: tuple[AblationBoard, ...]
    choices: tuple[Choice, ...]
    """Searches of learning rates."""
    curves: Mapping[str, Curve]
    """By run."""
    tasks: Mapping[str, Task]
    colors: Mapping[str, str]
    """Hex colour by method."""


def material(
    store: Store,
    tasks: Mapping[str, Task],
    colors: Mapping[str, str],
    boards: tuple[Evidence, ...] | None = None,
    ablations: tuple[AblationBoard, ...] | None = None,
    n_resamples: int = RESAMPLES,
) -> Material:
    """Returns what a results folder holds for figures.

    Args:
        store: the results folder.
        tasks: every task that records may be of, by name, in the order of the columns.
        colors: hex colour by method; methods without one are grey.
        boards: what `leaderboard.evidence` returned, where it is known already.
        ablations: what `ablation_board` returned of each ablation, where it is known already.
        n_resamples: of every interval.

    Raises:
        UntrustedRecord: a record contradicts its own answers, samples or track.
    """
    if boards is None:
        boards = evidence(store, tasks, n_resamples)
    if ablations is None:
        ablations = ablation_boards(store, tasks, n_resamples)
    own = read(store.root / FILE)
    return Material(boards, ablations, tuple([*own, *read(shipped())]), read_curves(store), tasks, colors)


def figures(of: Material, kinds: Sequence[Kind] = KINDS) -> Iterator[Drawn | Missing]:
    """Yields every figure of some kinds in the order of a report: of each board, of each ablation, of the searches."""
    import matplotlib.style

    from mmpt_bench.figures import (
        components,
        differences,
        heat_map,
        leaderboard,
        learning,
        lengths,
        pareto,
        search,
        subtasks,
    )
    from mmpt_bench.figures.style import STYLE

    makers: dict[Kind, Callable[[Material], list[Drawn | Missing]]] = {
        "leaderboard": leaderboard.draw,
        "pareto": pareto.draw,
        "differences": differences.draw,
        "lengths": lengths.draw,
        "heat-map": heat_map.draw,
        "components": components.draw,
        "subtasks": subtasks.draw,
        "learning-curves": learning.draw,
        "search": search.draw,
    }
    for kind, make in makers.items():
        if kind in kinds:
            with matplotlib.style.context(["default", STYLE]):
                made = make(of)
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
