"""What trainings' losses did, step by step: from the runs' own logs, or, thinned, from one file that is published.

results/learning_curves.jsonl    a line a run: {"run", "steps", "losses"}
"""

from __future__ import annotations

from collections.abc import Sequence
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


def read_learning_curves(store: Store) -> dict[str, LearningCurve]:
    """Returns the curves of a results folder by run: those of its runs' logs, and those published.

    Raises:
        UntrustedRecord: a damaged line.
    """
    found = {}
    for number, row in enumerate(read_jsonl(store.path(FILE)), start=1):
        try:
            curve = LearningCurve(str(row["run"]), tuple(map(int, row["steps"])), tuple(map(float, row["losses"])))
        except (KeyError, TypeError, ValueError) as error:
            raise UntrustedRecord(f"Line {number} of `{FILE}` is no learning curve. Remove the file.") from error
        found[curve.run] = curve
    for run in store.runs():
        if not run.path(LOG).is_file():
            continue
        try:
            # In logs of earlier versions the steps after a checkpoint stand twice, and the later ones count; or the
            # first ones are lost, and there is no curve.
            losses = {int(row["step"]): float(row["loss"]) for row in read_jsonl(run.path(LOG))}
        except (KeyError, TypeError, ValueError, UntrustedRecord) as error:
            raise UntrustedRecord(
                f"`{LOG}` of `{run.name}` is damaged: remove it; no score is made from it."
            ) from error
        if losses and sorted(losses) == list(range(1, len(losses) + 1)):
            found[run.name] = thinned(run.name, [losses[step] for step in sorted(losses)])
    return dict(sorted(found.items()))


def thinned(run: str, losses: Sequence[float]) -> LearningCurve:
    """Returns the curve of losses at steps 1, 2, ..., as means over at most `POINTS` stretches of equal length."""
    size = -(-len(losses) // POINTS)
    stretches = [losses[first : first + size] for first in range(0, len(losses), size)]
    ends = [min(first + size, len(losses)) for first in range(0, len(losses), size)]
    return LearningCurve(run, tuple(ends), tuple(round(sum(each) / len(each), 6) for each in stretches))


def publish_learning_curves(store: Store) -> None:
    """Writes the curves of all recorded runs to one file, from which figures can be drawn without the runs' folders."""
    runs = {record.run for record in store.records()}
    kept = [curve for run, curve in read_learning_curves(store).items() if run in runs]
    lines = [canonical_json({"run": c.run, "steps": c.steps, "losses": c.losses}) + "\n" for c in kept]
    write_atomic(store.path(FILE), "".join(lines).encode())
