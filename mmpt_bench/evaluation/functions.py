"""Metrics made of functions of answers: a mean over questions, or a number of the whole set.

    metric = mb.FunctionMetric({"anls": mb.MeanOf(mb.anls)})

A mean is resampled over images like any other score. A number of the whole set, as CIDEr, whose weights depend on all
references, does not follow from sums over images: it has no interval and takes no place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mmpt_bench.common.errors import RequestError, RunFailed
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.counting import choices_from
from mmpt_bench.evaluation.judge import Judge
from mmpt_bench.evaluation.metrics import Declared, Metric
from mmpt_bench.evaluation.open_answers import exact_match
from mmpt_bench.stats.resampling import Tally

ASKED = "asked"
SHARE = Declared()
WHOLE = Declared(resampled=False)


@dataclass(frozen=True)
class MeanOf:
    """The mean over questions of a function of a sample and its answer (None: unreadable)."""

    score: Callable[[Sample, str | None], float]
    declared: Declared = SHARE
    """`low` and `high` hold for every question, and so for the mean."""
    chance: float = 0.0
    """What guessing gives: 0 for open answers."""


@dataclass(frozen=True)
class WholeOf:
    """A function of all samples and their answers, in one order (None: unreadable)."""

    score: Callable[[Sequence[Sample], Sequence[str | None]], float]
    declared: Declared = WHOLE
    chance: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError where it is declared to be resampled, which needs sums over images."""
        if self.declared.resampled:
            raise ValueError("`WholeOf` needs `mb.Declared(resampled=False)`: a mean over questions is a `MeanOf`")

    def value(self, name: str, samples: Sequence[Sample], answers: Sequence[str | None]) -> float:
        """Returns what the answers are worth; RunFailed where that is outside the declared range."""
        return _within(self.declared, float(self.score(samples, answers)), f"`{name}`")


Score = MeanOf | WholeOf | Judge


def _within(declared: Declared, value: float, what: str) -> float:
    if not declared.low <= value <= declared.high:
        raise RunFailed(f"{what} is {value}, outside its declared range {declared.low:g} to {declared.high:g}.")
    return value


def _literal(judge: Judge) -> MeanOf:
    return MeanOf(lambda sample, answer: judge.most * exact_match(sample, answer), judge.declared, judge.chance)


@dataclass(frozen=True)
class FunctionMetric(Metric):
    """Scores by name, each a function; means are also given per group, "anls/<group>".

    The first is what `chance` and `ceiling` are of: it is the task's headline.
    """

    scores: Mapping[str, Score] = field(hash=False)

    def __post_init__(self) -> None:
        """Raises ValueError for no score, a name that cannot be one, something that is no score, or several judges."""
        if not self.scores:
            raise ValueError("a metric has one score or more")
        for name, of in self.scores.items():
            if not re.fullmatch(r"[A-Za-z_][\w.+ -]*", name) or name == ASKED:
                raise ValueError(f"{name!r} cannot name a score: take letters, digits and _, and not `{ASKED}`")
            if not isinstance(of, Score):
                raise ValueError(f"the score `{name}` is {type(of).__name__}: write `mb.MeanOf(...)` of a function of "
                                 "one answer, `mb.WholeOf(...)` of one of all answers, or `mb.Judge(...)`")  # fmt: skip
        if sum(isinstance(of, Judge) for of in self.scores.values()) > 1:
            raise ValueError("a task has one `mb.Judge` at most")

    @property
    def judge(self) -> Judge | None:
        """Returns the judge among the scores."""
        return next((of for of in self.scores.values() if isinstance(of, Judge)), None)

    def held_to_references(self) -> FunctionMetric:
        """Returns itself with a judge that says what exact match says, to check a task without its own."""
        return FunctionMetric({name: _literal(of) if isinstance(of, Judge) else of for name, of in self.scores.items()})

    def declared(self, figure: str) -> Declared:
        """Returns what is declared of a score, or of its value in one group; ValueError where there is none of it."""
        return self._of(figure).declared

    def coded(self, samples: Sequence[Sample]) -> FunctionSheet:
        """Returns samples whose answers the functions are called with."""
        return FunctionSheet.of(samples, self.scores)

    def values(self, sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns every score by name; NaN where images are resampled and it cannot be."""
        place = {name: sums[..., number] for number, name in enumerate(columns)}
        groups = [name.partition("|")[2] for name in columns if name.startswith(f"{ASKED}|")]
        figures: dict[str, np.ndarray] = {}
        for name, of in self.scores.items():
            if isinstance(of, WholeOf):
                figures |= {name: place[name]} if name in place else {}
            elif f"{name}|{groups[0]}" in place:
                parts = [(place[f"{name}|{group}"], place[f"{ASKED}|{group}"]) for group in groups]
                figures[name] = np.sum([total for total, _ in parts], axis=0) / np.sum([n for _, n in parts], axis=0)
                with np.errstate(invalid="ignore"):
                    named = zip(groups, parts, strict=True)
                    figures |= {f"{name}/{group}": total / asked for group, (total, asked) in named if group}
        return figures

    def needs(self, figure: str, columns: Sequence[str]) -> tuple[str, ...]:
        """Returns the columns that a score is made from."""
        name = figure.partition("/")[0]
        return tuple(each for each in columns if each.partition("|")[0] in (ASKED, name))

    def ceiling(self, samples: Sequence[Sample]) -> float:
        """Returns the most that the headline is declared to reach."""
        return next(iter(self.scores.values())).declared.high

    def chance(self, samples: Sequence[Sample]) -> float:
        """Returns what guessing is declared to give."""
        return next(iter(self.scores.values())).chance

    def _of(self, figure: str) -> Score:
        name = figure if figure in self.scores else figure.partition("/")[0]
        if name not in self.scores:
            raise ValueError(f"the metric has no score `{name}`, only {', '.join(f'`{each}`' for each in self.scores)}")
        return self.scores[name]


@dataclass(frozen=True)
class FunctionSheet:
    """Samples, and the functions that their answers are given to."""

    samples: tuple[Sample, ...]
    scores: Mapping[str, Score]
    clusters: tuple[str, ...]
    columns: tuple[str, ...]
    wordings: tuple[str, ...]
    known: dict[tuple[str, int, str | None], float] = field(default_factory=dict, repr=False)
    """Scores of answers that were given before: many runs give the same."""

    @classmethod
    def of(cls, samples: Sequence[Sample], scores: Mapping[str, Score]) -> FunctionSheet:
        """Returns the sheet of samples: a row an image, and a column a mean and group."""
        groups = dict.fromkeys(sample.group for sample in samples)
        wordings: dict[str, str] = {}
        for sample in samples:
            wordings.setdefault(sample.cluster, sample.wording)
        means = [name for name, of in scores.items() if not isinstance(of, WholeOf)]
        columns = [f"{what}|{group}" for group in groups for what in (ASKED, *means)]
        columns += [name for name, of in scores.items() if isinstance(of, WholeOf)]
        return cls(tuple(samples), scores, tuple(wordings), tuple(columns), tuple(wordings.values()))

    def tally(self, choices: Sequence[str | None]) -> Tally:
        """Returns the sums per image of answers in the order of the samples (ValueError for another number)."""
        if len(choices) != len(self.samples):
            raise ValueError(f"there are {len(choices)} answers to {len(self.samples)} samples")
        return self.counted(list(choices))

    def codes(self, text: str) -> list[str | None]:
        """Returns the answers that `choices_text` wrote; UntrustedRecord where they do not fit."""
        return choices_from(self.samples, text)

    def counted(self, codes: Sequence[str | None]) -> Tally:
        """Returns the sums per image; NaN for what does not follow from sums, so that nothing can resample it."""
        row, place = ({name: i for i, name in enumerate(of)} for of in (self.clusters, self.columns))
        counts = np.zeros((len(self.clusters), len(self.columns)))
        for number, (sample, answer) in enumerate(zip(self.samples, codes, strict=True)):
            for column, at in place.items():
                name, bar, group = column.partition("|")
                if not bar:
                    counts[:, at] = np.nan
                elif group == sample.group:
                    counts[row[sample.cluster], at] += 1 if name == ASKED else self.score(name, number, answer)
        return Tally(self.clusters, ("",) * len(self.clusters), self.columns, counts, self.wordings)

    def sums(self, codes: Sequence[str | None]) -> np.ndarray:
        """Returns what the scores of all samples are made from, (columns,): sums, and the numbers of the whole set."""
        sums = self.counted(codes).counts.sum(axis=0)
        for at, name in enumerate(self.columns):
            of = self.scores.get(name)
            if isinstance(of, WholeOf):
                sums[at] = of.value(name, self.samples, codes)
        return sums

    def narrowed(self, columns: Sequence[str]) -> FunctionSheet:
        """Returns the same samples, of which these columns alone are counted."""
        return replace(self, columns=tuple(columns))

    def score(self, name: str, number: int, answer: str | None) -> float:
        """Returns what an answer to a sample is worth by one of the means.

        Raises:
            RunFailed: it is outside the declared range.
            RequestError: it is a judge's to say.
        """
        key = (name, number, answer)
        if key not in self.known:
            of, sample = self.scores[name], self.samples[number]
            if isinstance(of, Judge):
                raise RequestError(
                    f"`{name}` is a judge's verdict, and nothing asks the judge here: `mmpt-bench run` does."
                )
            assert isinstance(of, MeanOf)
            score = float(of.score(sample, answer))
            self.known[key] = _within(of.declared, score, f"`{name}` of sample `{sample.id}`")
        return self.known[key]
