"""The words of evaluation: a task turns rows into samples, replies into choices, and predictions into scores.

A task is the same for real and for generated data: only where the rows come from differs (`sources/task_rows.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mmpt_bench.common.errors import unknown_name
from mmpt_bench.data.dataset import Dataset
from mmpt_bench.data.samples import Decode, Sample
from mmpt_bench.evaluation.metrics import Metric
from mmpt_bench.evaluation.parsing import Parse

OFFICIAL = "official"
"""Name of a task's own parse rule."""


@dataclass(frozen=True)
class Task:
    """A benchmark: where its rows are, how a row becomes a sample, and what counts as right."""

    name: str
    title: str
    """As people write it: "MME", "SNLI-VE"."""
    data: Dataset
    """Where its rows are."""
    sample: Callable[[Mapping[str, Any], int, Sequence[str]], Sample]
    """(row, row number, label names) -> sample; raises ValueError naming the column of a bad value."""
    metric: Metric
    headline: str
    """Name in `Metric.values` of the figure that the leaderboard shows."""
    unit: Literal["points", "fraction"]
    """Of that figure."""
    parse: Parse
    """(reply, choices) -> choice, or None where the reply is unreadable."""
    decode: Decode
    """Which of a prediction's two answers the headline is computed from."""
    max_new_tokens: int
    version: int
    """Rises when prompts, parsing or scoring change: results of two versions are never mixed."""
    metric_names: tuple[str, ...] = field(default=())
    """Other figures worth a column, names in `Metric.values`."""
    unreadable: Callable[[str, Sequence[str]], bool] | None = None
    """(reply, choices) -> the reply gives no legal answer, though `parse` reads one; None: ask `parse`."""
    other_rules: Mapping[str, Parse] = field(default_factory=dict, hash=False)
    """Parse rules of other harnesses, by the name that `--parse` takes: "lmms-eval", "vlmevalkit"."""
    rule: str = OFFICIAL
    """Name of the rule that `parse` is."""

    def on(self, data: Dataset) -> Task:
        """Returns the task on other data of its form."""
        return replace(self, data=data)

    def with_rule(self, name: str) -> Task:
        """Returns the task with another parse rule; raises RequestError where it has none of that name."""
        if name == self.rule:
            return self
        if name not in self.other_rules:
            known = [self.rule, *self.other_rules]
            raise unknown_name("parse rule", name, known, f"{self.title} has {', '.join(f'`{k}`' for k in known)}.")
        return replace(self, parse=self.other_rules[name], rule=name, unreadable=None)

    def reads(self, reply: str, choices: Sequence[str]) -> bool:
        """Returns whether a reply gives a legal answer; the share of those that do not stands beside every score."""
        if self.unreadable is not None:
            return not self.unreadable(reply, choices)
        return self.parse(reply, choices) is not None
