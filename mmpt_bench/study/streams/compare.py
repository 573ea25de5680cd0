"""How rows of a stream differ: each measure, pair by pair, at the trainings that both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from mmpt_bench.board.writers import numbers
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.escaping import rich_text
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.store import Store
from mmpt_bench.records.streams import read_all
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM, SIGNIFICANT, adjusted_p, better
from mmpt_bench.stats.differences import Difference, holm
from mmpt_bench.stats.streams import MEASURES, at_trainings, measure, merged, over_units
from mmpt_bench.study.streams.board import ROUTED, StreamRow, stream_boards
from mmpt_bench.study.streams.tables import TITLES, told

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

LESS_IS_BETTER = ("forgetting",)


@dataclass(frozen=True)
class Contrast:
    """How far one row is above another in one measure."""

    first: str
    second: str
    measure: str
    trainings: int
    """That both have."""
    difference: Difference
    """`first` minus `second`."""
    p_holm: float
    """Over all measures and pairs of the comparison."""
    better: str | None
    """The row whose measure is better; None where they are not significantly different."""

    @property
    def p_adjusted(self) -> float:
        """Returns what `better` follows: the larger of `p_holm` and the sign-flip p, as both must agree."""
        return adjusted_p(self.difference, self.p_holm)


@dataclass(frozen=True, repr=False)
class StreamComparison:
    """Rows of a stream, compared."""

    labels: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    sentence: str

    def __repr__(self) -> str:
        """Returns the sentence."""
        return f"<{self.sentence}>"

    @property
    def table(self) -> pd.DataFrame:
        """A row a pair and measure: first, second, measure, difference, ci_low, ci_high, p (as `better`), better."""
        import pandas as pd

        names = ["first", "second", "measure", "trainings", "difference", "ci_low", "ci_high", "p", "better"]
        return pd.DataFrame([list(line.values()) for line in self.lines], columns=names)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Returns the rows of `table` as JSON values."""
        return [
            {"first": c.first, "second": c.second, "measure": c.measure, "trainings": c.trainings,
             "difference": c.difference.estimate, "ci_low": c.difference.interval[0],
             "ci_high": c.difference.interval[1], "p": c.p_adjusted, "better": c.better}
            for c in self.contrasts
        ]  # fmt: skip


def rows_named(store: Store, tasks: Mapping[str, Task], names: Sequence[str]) -> list[StreamRow] | None:
    """Returns the rows of one stream that some names are of ("lora ewc:10000"); None where no stream has any of them.

    Raises:
        RequestError: a stream has some of them and none has all.
        UntrustedRecord: a record contradicts its own answers.
    """
    defined = {f"{one.label} {one.strategy}" for stream in read_all(store) for one in stream.trainings}
    # Only now are scores resampled.
    if not any(name.removesuffix(f", {ROUTED}") in defined for name in names):
        return None
    boards = stream_boards(store, tasks)
    for board in boards:
        by_name = {row.name: row for row in board.rows}
        if all(name in by_name for name in names):
            return [by_name[name] for name in names]
    known = [row.name for board in boards for row in board.rows]
    if lost := next((name for name in names if name not in known), ""):
        raise unknown_name("row of a stream", lost, dict.fromkeys(known))
    raise RequestError(f"No stream holds all of {', '.join(names)}.")


def compared(rows: Sequence[StreamRow]) -> StreamComparison:
    """Returns how rows of a stream differ; RequestError for two without a training at the same seed and order."""
    found = []
    for one, other in combinations(rows, 2):
        shared = tuple(sorted(set(one.resampled.seeds) & set(other.resampled.seeds)))
        if not shared:
            raise RequestError(f"{one.name} and {other.name} have no training at the same seed and order in common.")
        both = merged({name: at_trainings(row.resampled, shared) for name, row in (("a", one), ("b", other))})
        # Of the row in which fewer trainings are others.
        units = min((_units(row, shared) for row in (one, other)), key=lambda found: len(set(found)))
        both = over_units(both, units)
        found += [
            (one.name, other.name, name, len(set(units)), measure(both, f"a {name}", f"b {name}"))
            for name in MEASURES
            if name in one.measures and name in other.measures
        ]
    adjusted = holm([difference.p for *_, difference in found])
    contrasts = tuple(_contrast(*each, p) for each, p in zip(found, adjusted, strict=True))
    return StreamComparison(tuple(row.name for row in rows), contrasts, _sentence(contrasts))


def _units(row: StreamRow, trainings: Sequence[int]) -> list[int]:
    """Returns what trainings, by their numbers, are replicates of."""
    of = dict(zip(row.resampled.seeds, row.units, strict=True))
    return [of[k] for k in trainings]


def _contrast(first: str, second: str, name: str, trainings: int, difference: Difference, p: float) -> Contrast:
    ahead = better(first, second, difference, p) if trainings >= SEEDS_TO_CLAIM else None
    if ahead is not None and name in LESS_IS_BETTER:
        ahead = second if ahead == first else first
    return Contrast(first, second, name, trainings, difference, p, ahead)


def _sentence(contrasts: Sequence[Contrast]) -> str:
    least = min(c.trainings for c in contrasts)
    if least < SEEDS_TO_CLAIM:
        few = "there is one" if least == 1 else f"there are {least}"
        return f"With fewer than {SEEDS_TO_CLAIM} trainings no difference is significant; {few}."
    said = [
        f"{c.better} is better than {c.second if c.better == c.first else c.first} in {_called(c.measure).lower()} (p "
        f"{numbers.p_value(c.p_adjusted)})"
        for c in contrasts
        if c.better is not None
    ]
    if not said:
        return f"No difference is significant (p ≥ {SIGNIFICANT:g} after Holm)."
    return f"{'; '.join(said)}."


def _called(measure: str) -> str:
    return TITLES[measure].replace("\n", " ")


def comparison_table(comparison: StreamComparison) -> Table:
    """Returns what to print below the sentence: a row a pair and measure; 80 columns are enough."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("Pair", "Measure", "Difference (points)", "95 % interval", "p"):
        table.add_column(name, justify="left" if name in ("Pair", "Measure") else "right", no_wrap=name != "Pair")
    before = ""
    for c in comparison.contrasts:
        pair = f"{c.first} − {c.second}"
        size, between = told(c.difference)
        table.add_row(
            rich_text(pair if pair != before else ""),
            _called(c.measure),
            size,
            between,
            numbers.p_value(c.p_adjusted),
        )
        before = pair
    return table
