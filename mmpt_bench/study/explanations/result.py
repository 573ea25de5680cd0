"""What an explanation is: questions, and rows of scores, one for the untuned base and for each variant of a method."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt_bench.common.words import counted
from mmpt_bench.data.samples import Sample
from mmpt_bench.study.explanations.scores import Found, Key, inside

if TYPE_CHECKING:
    from mmpt_bench.engine.explain.explained import Explained

FOLDER = "explain"
COLUMNS = (
    "method", "map", "score", "value", "ci_low", "ci_high", "change", "change_ci_low", "change_ci_high", "questions",
    "images", "seeds",
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A question that is explained."""

    task: str
    sample: Sample
    cells: tuple[int, ...]
    """Of the 3 x 3 cells, those of what it names; empty where it names nothing that is there, or that is not known."""

    @property
    def image(self) -> str:
        """Returns the name of its image, among those of all tasks."""
        return f"{self.task}/{self.sample.cluster or self.sample.image.key}"


@dataclass(frozen=True)
class PromptLine:
    """Attention to one kind of prompts in one layer, mean over questions and runs."""

    side: str
    layer: int
    kind: str
    attention: float
    even: float
    """What it would be if every row that is seen got as much."""


@dataclass(frozen=True)
class ExplainRow:
    """The untuned base, or a variant of a method with its runs."""

    label: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: dict[Key, Found]
    prompts: tuple[PromptLine, ...]
    explained: tuple[Explained, ...] = field(repr=False)
    """Of the first run, one a question."""
    each: tuple[dict[Key, float], ...] = field(default=(), repr=False)
    """The scores of each question, of the same run."""


@dataclass(frozen=True, repr=False)
class ExplainResult:
    """Rows of an explanation, the base first."""

    name: str
    folder: Path
    """The results folder."""
    items: tuple[Item, ...]
    rows: tuple[ExplainRow, ...]
    maps: tuple[str, ...]
    command: str = ""
    source: str = ""
    """Suite, questions and day."""
    files: tuple[Path, ...] = ()
    """That were written."""
    notes: tuple[str, ...] = ()
    setting: str = ""
    """Suite, questions and day; backbone; what the runs were trained on, and for how long."""

    def __repr__(self) -> str:
        """Returns one line: what was explained, and where it is."""
        return (
            f"<Explanation `{self.name}` in `{self.folder}`: {counted(len(self.items), 'question')}, "
            f"{counted(len(self.rows), 'row')}>"
        )

    @property
    def table(self) -> Any:
        """A row a method, map and score: value, ci_low, ci_high, change, change_ci_low, change_ci_high, questions."""
        import pandas as pd

        return pd.DataFrame(lines(self), columns=list(COLUMNS))


def region_of(item: Item, explained: Explained) -> np.ndarray | None:
    """Returns the tokens of what a question names; None where that is nothing, all of the image, or not known."""
    if not item.cells or explained.grid is None:
        return None
    found = inside(item.cells, explained.grid)
    return found if found.any() and not found.all() else None


def lines(result: ExplainResult) -> list[dict[str, Any]]:
    """Returns a line a method, map and score."""
    made = []
    for row in result.rows:
        for (name, score), found in row.scores.items():
            change = found.change_interval or (None, None)
            made.append(
                {"method": row.label, "map": name, "score": score, "value": found.estimate,
                 "ci_low": found.interval[0], "ci_high": found.interval[1], "change": found.change,
                 "change_ci_low": change[0], "change_ci_high": change[1], "questions": found.n_questions,
                 "images": found.n_images, "seeds": len(row.seeds)}
            )  # fmt: skip
    return made
