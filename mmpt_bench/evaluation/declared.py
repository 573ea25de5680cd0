"""What a record declares of the scores of a user's own task, and the metric made of that: no board runs the file.

Scores follow from the value of each question, which the record holds; a number of the whole set is held as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Literal

import numpy as np

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.values import FieldError, from_plain
from mmpt_bench.data.dataset import Dataset
from mmpt_bench.data.samples import Decode, Sample
from mmpt_bench.evaluation.functions import FunctionMetric, MeanOf, WholeOf
from mmpt_bench.evaluation.judge import Judge
from mmpt_bench.evaluation.metrics import Accuracy, Declared, Metric, MMEMetric, POPEMetric
from mmpt_bench.evaluation.open_answers import read_open
from mmpt_bench.evaluation.task import Task
from mmpt_bench.stats.resampling import Tally

KNOWN: dict[str, Metric] = {"accuracy": Accuracy(), "mme": MMEMetric(), "pope": POPEMetric()}
"""Metrics of the package, which a board counts again from the answers."""
FUNCTIONS, OWN = "functions", "own"
LONGEST = 80
Values = dict[str, Any]
"""By score: a value a question, None where a verdict could not be read; or one number, of the whole set."""


@dataclass(frozen=True)
class DeclaredScore:
    """One score, as a record declares it."""

    unit: Literal["points", "fraction"]
    low: float
    high: float
    resampled: bool

    @property
    def declared(self) -> Declared:
        """Returns it as a metric declares it."""
        return Declared(self.unit, self.low, self.high, self.resampled)


@dataclass(frozen=True)
class Declaration:
    """What a record declares of a task that is a user's own, or that a judge scores."""

    title: str
    file: str
    """SHA-256 of the task's file; empty for a built-in task."""
    rule: str
    metric: str
    """A name in `KNOWN`, `FUNCTIONS`, or `OWN`."""
    headline: str
    ceiling: float
    chance: float
    scores: dict[str, DeclaredScore] = field(default_factory=dict)
    """By name, without those of single groups; empty where the metric is known."""
    shown: tuple[str, ...] = ()
    """Other scores worth a column."""
    judged: str = ""
    """Name of the score that is a judge's; empty where there is none."""


def declaration(task: Task, file: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns what a record declares of a task; `file` is the SHA-256 of its file, where it is a user's own."""
    metric = task.metric
    kind = next((name for name, known in KNOWN.items() if type(metric) is type(known) and metric == known), "")
    names = [] if kind else list(dict.fromkeys([task.headline, *task.metric_names]))
    judged = ""
    if isinstance(metric, FunctionMetric):
        kind, names = FUNCTIONS, list(metric.scores)
        judged = next((name for name, of in metric.scores.items() if isinstance(of, Judge)), "")
    scores = {}
    for name in names:
        said = metric.declared(name)
        resampled = said.resampled and kind == FUNCTIONS
        scores[name] = {"unit": said.unit, "low": said.low, "high": said.high, "resampled": resampled}
    return {
        "title": task.title,
        "file": file,
        "rule": task.rule,
        "metric": kind or OWN,
        "headline": task.headline,
        "ceiling": float(metric.ceiling(samples)),
        "chance": float(metric.chance(samples)),
        "scores": scores,
        "shown": list(task.metric_names),
        "judged": judged,
    }


def values_of(
    metric: FunctionMetric, samples: Sequence[Sample], answers: Sequence[str | None], verdicts: Sequence[float | None]
) -> Values:
    """Returns the value of each answer by each score; `verdicts` are the judge's, where there is one."""
    sheet = metric.coded(samples)
    found: Values = {}
    for name, of in metric.scores.items():
        if isinstance(of, Judge):
            found[name] = list(verdicts)
        elif isinstance(of, WholeOf):
            found[name] = of.value(name, samples, answers)
        else:
            assert isinstance(of, MeanOf)
            found[name] = [sheet.score(name, number, answer) for number, answer in enumerate(answers)]
    return found


def values_text(values: Values) -> str:
    """Returns values as a record holds them; UntrustedRecord is raised by whoever reads others."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False)


def declared_task(name: str, version: int, decode: Decode, said: Mapping[str, Any]) -> Task:
    """Returns a task of a record's declaration, which scores answers and asks nothing.

    Raises:
        UntrustedRecord: it is no declaration.
    """
    try:
        own = from_plain(Declaration, said)
        if own.metric not in (*KNOWN, FUNCTIONS, OWN):
            raise FieldError("metric", "there is no such metric.")
        if own.metric not in KNOWN and not {own.headline, own.headline.partition("/")[0]} & own.scores.keys():
            raise FieldError("headline", f"no score is called `{own.headline[:LONGEST]}`.")
        if not all(isfinite(of.low) and isfinite(of.high) and of.low < of.high for of in own.scores.values()):
            raise FieldError("scores", "a range has no room between its least and its most.")
        if told := without_room(own.chance, own.ceiling):
            raise FieldError("chance", told)
        metric = KNOWN.get(own.metric) or DeclaredMetric(
            {name: each.declared for name, each in own.scores.items()}, own.ceiling, own.chance
        )
        return Task(
            name=name,
            title=own.title,
            data=Dataset(hub="", revision="", columns=()),
            sample=_no_rows,
            metric=metric,
            headline=own.headline,
            parse=read_open,
            decode=decode,
            max_new_tokens=1,
            version=version,
            metric_names=own.shown,
            rule=own.rule,
        )
    except (FieldError, ValueError) as error:
        raise UntrustedRecord(f"What a record of `{name}` declares cannot be used: {error}") from error


def without_room(chance: float, ceiling: float) -> str:
    """Returns what is wrong where no score lies between guessing and the most that can be reached; empty otherwise."""
    if isfinite(chance) and isfinite(ceiling) and chance < ceiling:
        return ""
    return f"guessing gives {chance:g}, and the most that can be reached is {ceiling:g}: scores have no room between."


def is_declared(task: Task) -> bool:
    """Returns whether a task is made of a record's declaration: it has no rows."""
    return task.sample is _no_rows


def _no_rows(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> Sample:
    raise NotImplementedError("a record's declaration has no rows")


@dataclass(frozen=True)
class DeclaredMetric(Metric):
    """Scores that follow from a value for each question: means over those that have one."""

    scores: Mapping[str, Declared] = field(hash=False)
    most: float
    guessing: float

    def declared(self, figure: str) -> Declared:
        """Returns what is declared of a score, or of its value in one group."""
        return self.scores[figure if figure in self.scores else figure.partition("/")[0]]

    def coded(self, samples: Sequence[Sample]) -> ValuesSheet:
        """Returns the sheet of samples: a row an image, and two columns a mean and group."""
        groups = dict.fromkeys(sample.group for sample in samples)
        wordings: dict[str, str] = {}
        for sample in samples:
            wordings.setdefault(sample.cluster, sample.wording)
        columns = [
            f"{what} {name}|{group}"
            for name, of in self.scores.items()
            if of.resampled
            for group in groups
            for what in ("n", "sum")
        ]
        columns += [name for name, of in self.scores.items() if not of.resampled]
        return ValuesSheet(tuple(samples), self.scores, tuple(wordings), tuple(columns), tuple(wordings.values()))

    def values(self, sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns every score by name; one without any value is absent, or NaN among several sums."""
        place = {name: sums[..., number] for number, name in enumerate(columns)}
        found: dict[str, np.ndarray] = {}
        for name, of in self.scores.items():
            if not of.resampled:
                found |= {name: place[name]} if name in place else {}
                continue
            groups = [each.partition("|")[2] for each in columns if each.startswith(f"n {name}|")]
            parts = {group: (place[f"sum {name}|{group}"], place[f"n {name}|{group}"]) for group in groups}
            if not parts:
                continue
            with np.errstate(invalid="ignore"):
                every = [np.sum([part[at] for part in parts.values()], axis=0) for at in (0, 1)]
                found[name] = every[0] / every[1]
                found |= {f"{name}/{group}": total / n for group, (total, n) in parts.items() if group}
        return {name: each for name, each in found.items() if np.ndim(each) or not np.isnan(each)}

    def needs(self, figure: str, columns: Sequence[str]) -> tuple[str, ...]:
        """Returns the columns that a score is made from."""
        name = figure.partition("/")[0]
        return tuple(each for each in columns if each.partition("|")[0] in (name, f"n {name}", f"sum {name}"))

    def ceiling(self, samples: Sequence[Sample]) -> float:
        """Returns the most that the headline is declared to reach."""
        return self.most

    def chance(self, samples: Sequence[Sample]) -> float:
        """Returns what guessing is declared to give."""
        return self.guessing


@dataclass(frozen=True)
class ValuesSheet:
    """Samples whose values are counted."""

    samples: tuple[Sample, ...]
    scores: Mapping[str, Declared]
    clusters: tuple[str, ...]
    columns: tuple[str, ...]
    wordings: tuple[str, ...]

    def codes(self, text: str) -> Values:
        """Returns the values that `values_text` wrote; UntrustedRecord where they do not fit samples or ranges."""
        try:
            found = json.loads(text)
            means = {name for name, of in self.scores.items() if of.resampled}
            if not isinstance(found, dict) or not means <= set(found) <= set(self.scores):
                raise ValueError("its scores are others than it declares")
            for name in found:
                of = self.scores[name]
                each = found[name] if of.resampled else [found[name]]
                if not isinstance(each, list) or (of.resampled and len(each) != len(self.samples)):
                    raise ValueError(f"`{name}` has not one value for each of {len(self.samples):,} samples")
                if not all(_fits(value, of) for value in each):
                    raise ValueError(f"`{name}` has a value outside its declared range {of.low:g} to {of.high:g}")
        except (ValueError, RecursionError) as error:
            raise UntrustedRecord(f"A record's values of questions cannot be used: {str(error)[:120]}.") from error
        return found

    def tally(self, choices: Sequence[str | None]) -> Tally:
        """Raises TypeError: answers have no values here, records do."""
        raise TypeError("values are counted, not answers")

    def counted(self, codes: Values) -> Tally:
        """Returns the sums per image; NaN for what does not follow from sums, so that nothing can resample it."""
        row, place = ({name: i for i, name in enumerate(of)} for of in (self.clusters, self.columns))
        counts = np.zeros((len(self.clusters), len(self.columns)))
        for name, of in self.scores.items():
            if not of.resampled and name in place:
                counts[:, place[name]] = np.nan
            if not of.resampled or not any(f"n {name}|{sample.group}" in place for sample in self.samples[:1]):
                continue
            for sample, value in zip(self.samples, codes[name], strict=True):
                if value is not None:
                    counts[row[sample.cluster], place[f"n {name}|{sample.group}"]] += 1
                    counts[row[sample.cluster], place[f"sum {name}|{sample.group}"]] += value
        return Tally(self.clusters, ("",) * len(self.clusters), self.columns, counts, self.wordings)

    def sums(self, codes: Values) -> np.ndarray:
        """Returns what the scores of all samples are made from, (columns,): sums, and the numbers of the whole set."""
        sums = self.counted(codes).counts.sum(axis=0)
        for at, name in enumerate(self.columns):
            if name in self.scores and not self.scores[name].resampled:
                sums[at] = codes.get(name, np.nan)
        return sums

    def narrowed(self, columns: Sequence[str]) -> ValuesSheet:
        """Returns the same samples, of which these columns alone are counted."""
        return replace(self, columns=tuple(columns))


def _fits(value: object, of: Declared) -> bool:
    if value is None:
        return of.resampled
    slack = 1e-9 * max(abs(of.low), abs(of.high))
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return is_number and of.low - slack <= value <= of.high + slack  # type: ignore[operator]
