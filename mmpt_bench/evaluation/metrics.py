"""What answers are worth: counts per image, and the published scores that follow from sums of them.

A figure is a function of sums of counts over images, so that resampling images (stats/resampling.py) is one matrix
product. An unreadable answer (None) is wrong. A figure without a denominator is absent; among several sums, its value
is NaN where it alone is undefined, and it is absent where it is undefined in all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, lgamma, log
from typing import Literal, Protocol, get_args

import numpy as np

from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.counting import CodedSamples, Sheet, code_samples
from mmpt_bench.stats.resampling import Tally

Unit = Literal["points", "fraction"]


@dataclass(frozen=True)
class Declared:
    """What is declared of a score: how it is shown, which values it can have, and whether it has an interval."""

    unit: Unit = "fraction"
    """A fraction is shown in percent; points as they are, out of the ceiling."""
    low: float = 0.0
    high: float = 1.0
    """Least and most that it can be: a value outside is an error."""
    resampled: bool = True
    """It follows from sums over images, so that resampling images gives its interval. False: no interval, no place."""

    def __post_init__(self) -> None:
        """Raises ValueError for a unit that there is not, or a range that is none."""
        if self.unit not in get_args(Unit):
            raise ValueError(f'the unit of a score is "fraction" or "points", not {self.unit!r}')
        if not (isfinite(self.low) and isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a score has a least and a most value, both finite, and not {self.low} to {self.high}")


class Metric(Protocol):
    """Says what is counted of the answers to an image, and turns sums of such counts into figures.

    A metric of your own is a class that derives from this one, or a `FunctionMetric` of your functions.
    """

    def declared(self, figure: str) -> Declared:
        """Returns what is declared of a score of that name: a fraction from 0 to 1, where a metric does not say."""
        return Declared()

    def coded(self, samples: Sequence[Sample]) -> Sheet:
        """Returns the samples coded for counting, as `code_samples` makes it."""

    def values(self, sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns every figure by name for `sums` of counts, (..., columns) -> (...); an undefined one is absent.

        The names are those of the field: "total", "acc_plus/count", "f1/random", "accuracy".
        """

    def ceiling(self, samples: Sequence[Sample]) -> float:
        """Returns the most that the headline figure can reach on these samples: 1, where a metric does not say."""
        return 1.0

    def chance(self, samples: Sequence[Sample]) -> float:
        """Returns what the headline figure is, in expectation, when legal answers are drawn at random."""

    def needs(self, figure: str, columns: Sequence[str]) -> tuple[str, ...]:
        """Returns the columns that a figure is made from: all, where a metric does not say."""
        return tuple(columns)

    def tally(self, samples: Sequence[Sample], choices: Sequence[str | None]) -> Tally:
        """Returns the counts of `choices` (None: unreadable) against `samples`, which are in the same order."""
        return self.coded(samples).tally(choices)


MME_PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip

MME_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")

MME_SUBTASKS = MME_PERCEPTION + MME_COGNITION

MME_COUNTS = ("asked", "right", "pairs", "both")
"""Of each subtask: questions, right answers, images with two questions, and those on which both are right."""

MME_POINTS = 200.0
"""Most points of one subtask: 100 for acc and 100 for acc+ (Fu et al. 2023, arXiv:2306.13394, section 2.3)."""


@dataclass(frozen=True)
class MMEMetric(Metric):
    """MME points: 100 (acc + acc+) a subtask, added up over perception, cognition and both.

    acc is the share of questions answered rightly, acc+ that of images whose two questions both are. `acc/<subtask>`
    and `acc_plus/<subtask>` are fractions; `score/<subtask>`, `perception`, `cognition` and `total` are points. The
    sums run over the subtasks that are present: one that is absent is absent, not zero, and the ceiling says so.
    """

    def declared(self, figure: str) -> Declared:
        """Returns shares for acc and acc+, and else points of the subtasks that a score adds up."""
        kind, _, subtask = figure.partition("/")
        if kind in ("acc", "acc_plus"):
            return Declared()
        parts = {"perception": MME_PERCEPTION, "cognition": MME_COGNITION, "total": MME_SUBTASKS}
        return Declared("points", high=MME_POINTS * len(parts.get(kind, (subtask,))))

    def coded(self, samples: Sequence[Sample]) -> CodedSamples:
        """Returns what counts `MME_COUNTS` per image and subtask.

        Raises:
            ValueError: an image has not exactly two questions, or a subtask is not one of MME's fourteen.
        """
        _check_pairs(samples)
        columns = [f"{what}/{name}" for name in _mme_subtasks(samples) for what in MME_COUNTS]

        def adds(sample: Sample, choice: str | None) -> list[str]:
            right = [f"right/{sample.group}"] if choice == sample.answer else []
            return [f"asked/{sample.group}", *right]

        return code_samples(samples, columns, adds, within_groups=True, complete=_complete_pairs)

    def values(self, sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns acc, acc+ and points per subtask, and the points of perception, cognition and total."""
        count = _by_name(sums, columns)
        there = [name for name in MME_SUBTASKS if f"asked/{name}" in count]
        asked, right, pairs, both = (np.array([count[f"{what}/{name}"] for name in there]) for what in MME_COUNTS)
        figures: dict[str, np.ndarray] = {}
        for name, acc, acc_plus in zip(there, _ratio(right, asked), _ratio(both, pairs), strict=True):
            figures |= {f"acc/{name}": acc, f"acc_plus/{name}": acc_plus, f"score/{name}": 100 * (acc + acc_plus)}
        parts = {"perception": MME_PERCEPTION, "cognition": MME_COGNITION, "total": MME_SUBTASKS}
        for total, subtasks in parts.items():
            present = [figures[f"score/{name}"] for name in subtasks if f"score/{name}" in figures]
            if present:
                figures[total] = np.sum(present, axis=0)
        return _defined(figures)

    def ceiling(self, samples: Sequence[Sample]) -> float:
        """Returns 200 points for each subtask that is present."""
        return MME_POINTS * len(_mme_subtasks(samples))

    def chance(self, samples: Sequence[Sample]) -> float:
        """Returns 75 points for each subtask that is present: a coin gives acc .5 and acc+ .25."""
        return 75.0 * len(_mme_subtasks(samples))


POPE_COUNTS = ("asked", "right", "tp", "fp", "positive")
"""Of each strategy: questions, right answers, true and false "yes", and questions whose answer is "yes"."""


@dataclass(frozen=True)
class POPEMetric(Metric):
    """POPE's figures of "yes" as the positive answer: per strategy, pooled over all, and the mean F1 of strategies.

    `f1_mean` is the headline: each strategy is a test of its own, papers print their mean, and the 1,500 questions
    with the answer "yes" are the same in all three, so that pooling would count them three times against three kinds
    of "no". F1 is 0 when nothing was answered with "yes" although something should have been; precision has no
    denominator then, and is absent. `yes_ratio` is of the answers given, not of the right ones. An unreadable answer
    is wrong and is no "yes".
    """

    def coded(self, samples: Sequence[Sample]) -> CodedSamples:
        """Returns what counts `POPE_COUNTS` per image and strategy."""
        columns = [f"{what}/{g}" for g in _groups(samples) for what in POPE_COUNTS]

        def adds(sample: Sample, choice: str | None) -> list[str]:
            said, due = _is_yes(choice), _is_yes(sample.answer)
            is_so = (True, choice == sample.answer, said and due, said and not due, due)
            return [f"{what}/{sample.group}" for what, counts in zip(POPE_COUNTS, is_so, strict=True) if counts]

        return code_samples(samples, columns, adds)

    def values(self, sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns accuracy, precision, recall, F1 and yes-ratio: "f1/random", "f1" (pooled), "f1_mean"."""
        count = _by_name(sums, columns)
        groups = _named_after("asked/", columns)
        parts = {**{f"/{g}" if g else "": [g] for g in groups}, "": groups}
        asked, right, tp, fp, positive = (
            np.array([np.sum([count[f"{what}/{g}"] for g in members], axis=0) for members in parts.values()])
            for what in POPE_COUNTS
        )
        ratios = {
            "accuracy": _ratio(right, asked),
            "precision": _ratio(tp, tp + fp),
            "recall": _ratio(tp, positive),
            "f1": _ratio(2 * tp, tp + fp + positive),
            "yes_ratio": _ratio(tp + fp, asked),
        }
        figures = {f"{name}{suffix}": of[i] for i, suffix in enumerate(parts) for name, of in ratios.items()}
        figures["f1_mean"] = np.mean([figures[f"f1/{g}" if g else "f1"] for g in groups], axis=0)
        return _defined(figures)

    def chance(self, samples: Sequence[Sample]) -> float:
        """Returns the exact expectation of the mean F1 when a fair coin answers: .4998 at 1,500 "yes" of 3,000."""
        due: dict[str, list[bool]] = defaultdict(list)
        for sample in samples:
            due[sample.group].append(_is_yes(sample.answer))
        return float(np.mean([_coin_f1(len(answers), sum(answers)) for answers in due.values()]))


@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of right answers: over all, per group and per class, with balanced accuracy and macro F1.

    `balanced_accuracy` is the mean recall, `macro_precision` the mean precision and `macro_f1` the mean F1 of the
    classes that are the right answer of at least one sample; a class that was never given has precision 0, as in
    scikit-learn. An unreadable answer is a miss of its class and nobody's false alarm.
    """

    def coded(self, samples: Sequence[Sample]) -> CodedSamples:
        """Returns what counts, per image, questions and right answers by group; due, given and right by class."""
        classes = dict.fromkeys(choice for sample in samples for choice in sample.choices)
        columns = [f"{what}/{g}" for g in _groups(samples) for what in ("asked", "right")]
        columns += [f"{what}/{c}" for c in classes for what in ("class_due", "class_given", "class_right")]

        def adds(sample: Sample, choice: str | None) -> list[str]:
            right = [f"right/{sample.group}", f"class_right/{sample.answer}"] if choice == sample.answer else []
            given = [] if choice is None else [f"class_given/{choice}"]
            return [f"asked/{sample.group}", f"class_due/{sample.answer}", *right, *given]

        return code_samples(samples, columns, adds)

    def needs(self, figure: str, columns: Sequence[str]) -> tuple[str, ...]:
        """Returns the columns that a figure is made from: accuracy needs no classes."""
        every = figure.partition("/")[0] != "accuracy"
        return tuple(name for name in columns if every or not name.startswith("class_"))

    def values(self, sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns "accuracy", "accuracy/<group>", "recall/<class>", "balanced_accuracy" and macro figures."""
        count = _by_name(sums, columns)
        groups, classes = _named_after("asked/", columns), _named_after("class_due/", columns)
        figures = {f"accuracy/{g}": _ratio(count[f"right/{g}"], count[f"asked/{g}"]) for g in groups if g}
        asked, right = (np.sum([count[f"{what}/{g}"] for g in groups], axis=0) for what in ("asked", "right"))
        figures["accuracy"] = _ratio(right, asked)
        if classes:
            due, given, hit = (
                np.array([count[f"class_{what}/{name}"] for name in classes]) for what in ("due", "given", "right")
            )
            recalls = _ratio(hit, due)
            precisions = np.where(due > 0, np.where(given > 0, _ratio(hit, given), 0.0), np.nan)
            f1s = np.where(due > 0, _ratio(2 * hit, due + given), np.nan)
            figures |= {f"recall/{name}": recall for name, recall in zip(classes, recalls, strict=True)}
            figures |= {"balanced_accuracy": _mean_of_defined(recalls), "macro_f1": _mean_of_defined(f1s)}
            figures["macro_precision"] = _mean_of_defined(precisions)
        return _defined(figures)

    def chance(self, samples: Sequence[Sample]) -> float:
        """Returns the mean of one over the number of legal answers."""
        return float(np.mean([1 / len(sample.choices) for sample in samples]))


def _groups(samples: Sequence[Sample]) -> list[str]:
    return list(dict.fromkeys(sample.group for sample in samples))


def _is_yes(answer: str | None) -> bool:
    return answer is not None and answer.lower() == "yes"


def _by_name(sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
    numbers = np.asarray(sums, dtype=np.float64)
    return {name: numbers[..., place] for place, name in enumerate(columns)}


def _named_after(prefix: str, columns: Sequence[str]) -> list[str]:
    """Returns what stands after a prefix in the columns that have it: the groups after "asked/"."""
    return [name.removeprefix(prefix) for name in columns if name.startswith(prefix)]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns numerator / denominator, NaN where there is nothing to divide by."""
    undefined = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) > 0)


def _mean_of_defined(parts: np.ndarray) -> np.ndarray:
    """Returns the mean over those parts, (parts, ...), that are defined, element by element."""
    known = ~np.isnan(parts)
    return _ratio(np.where(known, parts, 0.0).sum(axis=0), known.sum(axis=0))


def _defined(figures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    absent = np.isnan(np.array(list(figures.values()))).reshape(len(figures), -1).all(axis=1)
    return {name: value for (name, value), is_absent in zip(figures.items(), absent, strict=True) if not is_absent}


def _mme_subtasks(samples: Sequence[Sample]) -> tuple[str, ...]:
    present = {sample.group for sample in samples}
    if unknown := sorted(present - set(MME_SUBTASKS)):
        raise ValueError(f"MME has no subtask `{unknown[0]}`. Its fourteen: {', '.join(MME_SUBTASKS)}.")
    return tuple(name for name in MME_SUBTASKS if name in present)


def _check_pairs(samples: Sequence[Sample]) -> None:
    asked = Counter((sample.group, sample.cluster) for sample in samples)
    odd = [(cluster, n) for (_, cluster), n in asked.items() if n != 2]
    if odd:
        named = ", ".join(f"`{cluster}` has {n}" for cluster, n in odd[:10])
        raise ValueError(f"acc+ needs two questions an image; {len(odd)} images have not two: {named}")


def _complete_pairs(counts: np.ndarray) -> None:
    """Counts each image as a pair of its subtask, and as one that is right throughout where both answers are."""
    asked, right = counts[:, 0::4], counts[:, 1::4]
    counts[:, 2::4] = asked > 0
    counts[:, 3::4] = (asked > 0) & (right == asked)


def _coin_f1(n: int, positive: int) -> float:
    """Returns E[F1] of fair coins: given k "yes" in all, k positive / n of them are right, so F1 is 2kp / n(k + p)."""
    if not positive:
        return 0.0
    k = np.arange(n + 1)
    log_share = np.array([lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) - n * log(2) for i in k])
    return float(np.exp(log_share) @ (2 * k * positive / (n * (k + positive))))
