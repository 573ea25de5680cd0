"""What an ablation is: points, each a method with what is changed in it; kept beside the records it will be made from.

    results/ablations/<name>.json    which points there are and what each is called; no figure

Points are known by the key of their training without its seed, so that the same training is never done for two
ablations, and an ablation grows by whatever seeds and tasks are recorded.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import loads, write_atomic
from mmpt_bench.common.values import FieldError, from_plain
from mmpt_bench.records.store import Store

FOLDER = "ablations"


@dataclass(frozen=True)
class Point:
    """One place of an ablation: a method with some things changed, or as it is."""

    label: str
    method: str
    values: dict[str, str]
    """Axis -> value; empty for a method as it is."""
    key: str
    """`variant_key` of its trainings."""
    is_default: bool
    """It is what `mmpt-bench run` would train: its place on the leaderboard is its own."""


@dataclass(frozen=True)
class Ablation:
    """A set of points that are shown together."""

    name: str
    axes: dict[str, list[str]]
    """Axis -> its values, in the order asked for."""
    points: list[Point]
    references: list[Point]
    """Methods as they are, beside which the points are shown."""
    limit: int | None
    """Questions a task, where not all were asked."""
    command: str
    """Makes it, and makes it again."""

    @property
    def all_points(self) -> list[Point]:
        """Returns the points and the references."""
        return [*self.points, *self.references]


def write(store: Store, ablation: Ablation) -> None:
    """Keeps an ablation's definition."""
    text = json.dumps(dataclasses.asdict(ablation), indent=1, ensure_ascii=False) + "\n"
    write_atomic(store.path(FOLDER, f"{ablation.name}.json"), text.encode())


def read_all(store: Store) -> list[Ablation]:
    """Returns the ablations of a results folder by name; UntrustedRecord for a file that is none."""
    folder = store.path(FOLDER)
    found = []
    for path in sorted(folder.glob("[!.]*.json")) if folder.is_dir() else []:
        try:
            value = loads(path.read_bytes())
            points = {name: [from_plain(Point, each) for each in value.pop(name)] for name in ("points", "references")}
            kept = from_plain(_Kept, value)
            axes = {axis: [str(label) for label in labels] for axis, labels in kept.axes.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, FieldError) as error:
            raise UntrustedRecord(
                f"`{FOLDER}/{path.name}` is damaged: {error}. Remove it and run the ablation again: "
                "what is recorded is not redone."
            ) from error
        found.append(Ablation(kept.name, axes, points["points"], points["references"], kept.limit, kept.command))
    return found


@dataclass(frozen=True)
class _Kept:
    """What an ablation's file holds beside its points."""

    name: str
    axes: dict[str, Any]
    limit: int | None
    command: str


def varied_in_ablations(store: Store) -> dict[str, str]:
    """Returns variant key -> ablation of every point that is no method as it is run by default."""
    return {p.key: each.name for each in read_all(store) for p in each.all_points if not p.is_default}
