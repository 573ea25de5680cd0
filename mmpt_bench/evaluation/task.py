"""The words of evaluation: a task turns rows into samples, replies into choices, and predictions into scores.

A task is the same for real and for generated data: only where the rows come from differs (`sources/task_rows.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from mmpt_bench.common.errors import unknown_name
from mmpt_bench.data.dataset import Dataset
from mmpt_bench.data.samples import Decode, Sample
from mmpt_bench.evaluation.forms import PromptForm
from mmpt_bench.evaluation.metrics import Declared, Metric
from mmpt_bench.evaluation.replies import Parse, without_reasoning

OFFICIAL = "official"
"""Name of the rule that a benchmark's authors defined, which stands in no key; where they did not, it asks for the
task's own rule."""
PLAIN = "plain"
"""Name of the rule that reads a reply as a person would, on every task."""
LONGEST_TITLE = 80


@dataclass(frozen=True)
class Task:
    """A benchmark: where its rows are, how a row becomes a sample, and what counts as right.

    A file that ends with `TASK = mb.Task(...)` is a task; `mmpt-bench new task` writes a complete one, and `mb.check`
    says whether it is one.
    """

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
    parse: Parse
    """(reply, choices) -> choice, or None where the reply is unreadable."""
    decode: Decode
    """Which of a prediction's two answers the headline is computed from."""
    max_new_tokens: int
    version: int
    """Rises when prompts, parsing or scoring change: results of two versions are never mixed."""
    metric_names: tuple[str, ...] = field(default=())
    """Other figures worth a column, names in `Metric.values`."""
    plain: Parse | None = None
    """How a person reads a reply, where `parse` is a rule that a benchmark's authors defined; None: as `parse` does."""
    other_rules: Mapping[str, Parse] = field(default_factory=dict, hash=False)
    """Parse rules of other harnesses, by the name that `--parse` takes: "lmms-eval", "vlmevalkit"."""
    rule: str = OFFICIAL
    """Name of the rule that `parse` is: "official" where a benchmark's authors defined it; part of a result's key."""

    forms: Mapping[str, PromptForm] = field(default_factory=dict, hash=False)
    """Other ways to ask, by name, for `mmpt-bench prompts`; the first is what others are compared with."""
    unit: str = ""
    """Of the headline; the metric declares it, and what stands here must agree."""
    examples_without_images: bool = False
    """Its questions mean something without their images: solved examples (`run --few-shot`) are text alone."""

    def __post_init__(self) -> None:
        """Raises ValueError for a field that no result can hold, or a unit other than the metric's."""
        if not self.title.strip() or len(self.title) > LONGEST_TITLE or not self.title.isprintable():
            raise ValueError(f"a task has a title of 1 to {LONGEST_TITLE} characters on one line, not {self.title!r}")
        for name in ("version", "max_new_tokens"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise ValueError(f"`{name}` is a whole number from 1, not {value!r}")
        if self.decode not in get_args(Decode):
            raise ValueError(f'`decode` is "generate" or "rank", not {self.decode!r}')
        if self.unit not in ("", self.declared.unit):
            raise ValueError(
                f"the metric declares `{self.headline}` in {self.declared.unit}, and the task says `{self.unit}`: give "
                'the metric a method `declared` that returns `mb.Declared("points", high=...)`, or leave `unit` out'
            )

    @property
    def declared(self) -> Declared:
        """Returns what the metric declares of the headline."""
        return self.metric.declared(self.headline)

    def on(self, data: Dataset) -> Task:
        """Returns the task on other data of its form."""
        return replace(self, data=data)

    def asking(self, form: PromptForm, order: int = 0, orders: int = 1, first: bool = False) -> Task:
        """Returns the task with its samples asked in a form: all but their question and wording is as it was.

        Args:
            form: whose columns the rows must have, else a sample raises ValueError.
            order: of the labels, below `orders`.
            first: asks what the form asks first.
        """

        def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> Sample:
            made = self.sample(row, number, label_names)
            labels = form.labels(made.choices, order, orders)
            return replace(made, question=form.written(form.first if first else form.ask, row, labels), wording="")

        return replace(self, sample=sample)

    def with_rule(self, name: str) -> Task:
        """Returns the task with another parse rule; raises RequestError where it has none of that name."""
        if name in (self.rule, OFFICIAL) or (name == PLAIN and self.plain is None):
            return self
        if name == PLAIN and self.plain is not None:
            return replace(self, parse=self.plain, plain=None, rule=PLAIN)
        if name not in self.other_rules:
            known = list(dict.fromkeys([self.rule, *self.other_rules, PLAIN]))
            raise unknown_name("parse rule", name, known, f"{self.title} has {', '.join(f'`{k}`' for k in known)}.")
        return replace(self, parse=self.other_rules[name], rule=name)

    def read(self, reply: str, choices: Sequence[str]) -> str | None:
        """Returns what the parse rule reads in a reply without its reasoning; None where that does not end."""
        text = without_reasoning(reply)
        return None if text is None else self.parse(text, choices)

    def read_plainly(self, reply: str, choices: Sequence[str]) -> str | None:
        """Returns what a person reads in a reply: None where it gives no legal answer."""
        text = without_reasoning(reply)
        return None if text is None else (self.plain or self.parse)(text, choices)
