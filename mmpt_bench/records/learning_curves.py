"""What trainings' losses did, step by step: from the runs' own logs, or, thinned, from one file that is published.

results/learning_curves.jsonl    a line a run: {"run", "steps", "losses"}, and "terms" where there are any
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import read_jsonl, write_atomic
from mmpt_bench.common.hashing import canonical_json
from mmpt_bench.records.run_folder import LOG
from mmpt_bench.records.store import Store

FILE = "learning_curves.jsonl"
POINTS = 50
"""Points of a curve; each is the mean of the steps since the one before."""


@dataclass(frozen=True)
class LearningCurve:
    """The training loss of a run."""

    run: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    """Nats a token of the answers, mean over the steps since the point before."""
    terms: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    """The same of what was added to the loss, by name."""


def read_learning_curves(store: Store) -> dict[str, LearningCurve]:
    """Returns the curves of a results folder by run: those of its runs' logs, and those published.

    Raises:
        UntrustedRecord: a damaged line.
    """
    found = {}
    for number, row in enumerate(read_jsonl(store.path(FILE)), start=1):
        try:
            terms = {str(name): tuple(map(float, values)) for name, values in row.get("terms", {}).items()}
            losses = tuple(map(float, row["losses"]))
            curve = LearningCurve(str(row["run"]), tuple(map(int, row["steps"])), losses, terms)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UntrustedRecord(f"Line {number} of `{FILE}` is no learning curve. Remove the file.") from error
        found[curve.run] = curve
    for run in store.runs():
        if not run.path(LOG).is_file():
            continue
        try:
            # In logs of earlier versions the steps after a checkpoint stand twice, and the later ones count; or the
            # first ones are lost, and there is no curve.
            rows = {int(row["step"]): row for row in read_jsonl(run.path(LOG))}
            logged = [(float(rows[step]["loss"]), rows[step].get("terms", {})) for step in sorted(rows)]
            names = sorted({name for _, terms in logged for name in terms})
            added = {name: [float(terms.get(name, 0.0)) for _, terms in logged] for name in names}
        except (KeyError, TypeError, ValueError, AttributeError, UntrustedRecord) as error:
            raise UntrustedRecord(
                f"`{LOG}` of `{run.name}` is damaged: remove it; no score is made from it."
            ) from error
        if rows and sorted(rows) == list(range(1, len(rows) + 1)):
            found[run.name] = thinned(run.name, [loss for loss, _ in logged], added)
    return dict(sorted(found.items()))


def thinned(run: str, losses: Sequence[float], terms: Mapping[str, Sequence[float]] | None = None) -> LearningCurve:
    """Returns the curve of losses at steps 1, 2, ..., as means over at most `POINTS` stretches of equal length."""
    size = -(-len(losses) // POINTS)

    def means(values: Sequence[float]) -> tuple[float, ...]:
        stretches = [values[first : first + size] for first in range(0, len(values), size)]
        return tuple(round(sum(each) / len(each), 6) for each in stretches)

    ends = [min(first + size, len(losses)) for first in range(0, len(losses), size)]
    added = {name: means(values) for name, values in (terms or {}).items()}
    return LearningCurve(run, tuple(ends), means(losses), added)


def publish_learning_curves(store: Store) -> None:
    """Writes the curves of all recorded runs to one file, from which figures can be drawn without the runs' folders."""
    runs = {record.run for record in store.records()}
    kept = [curve for run, curve in read_learning_curves(store).items() if run in runs]
    rows = [
        {"run": c.run, "steps": c.steps, "losses": c.losses} | ({"terms": c.terms} if c.terms else {}) for c in kept
    ]
    lines = [canonical_json(row) + "\n" for row in rows]
    write_atomic(store.path(FILE), "".join(lines).encode())
