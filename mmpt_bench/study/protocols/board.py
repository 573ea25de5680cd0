"""Accuracies, MME points and MMAvg of a protocol, with intervals over images and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.metrics import Accuracy, MMEMetric
from mmpt_bench.evaluation.parsing import yes_no
from mmpt_bench.evaluation.protocols import MME, POPE, SEVEN, Item, exact_match, mmavg, verdict_key
from mmpt_bench.stats.intervals import Interval, percentile
from mmpt_bench.stats.resampling import Resampled, Runs, Tally, resample, resample_all

RIGHT, WRONG = "right", "wrong"
READ_MME = yes_no("mme_m2pt")
MMAVG = "MMAvg"
PARTS = ("perception", "cognition", "total")


@dataclass(frozen=True)
class Answered:
    """A run's replies to one file of items."""

    method: str
    seed: int | None
    """None for a method that does not train."""
    file: str
    key: str
    """Of the replies: training, items and decoding."""
    items: tuple[Item, ...]
    replies: tuple[str, ...]

    def with_keys(self) -> list[tuple[Item, str, str]]:
        """Returns (item, reply, key of a verdict on it)."""
        pairs = zip(self.items, self.replies, strict=True)
        return [(item, reply, verdict_key(self.file, item, reply)) for item, reply in pairs]


@dataclass(frozen=True)
class ProtocolRow:
    """A score of a method."""

    method: str
    seeds: tuple[int, ...]
    """Empty for a method that does not train."""
    name: str
    """A file of items, "POPE", "MME perception", "MMAvg"."""
    n: int
    """Items."""
    score: float
    """By exact match, or points; mean over seeds."""
    interval: Interval
    judged: float | None = None
    """By the judge; None without one, and of MME."""
    judged_interval: Interval | None = None


def protocol_rows(answered: Sequence[Answered], verdicts: Mapping[str, bool] | None) -> tuple[ProtocolRow, ...]:
    """Returns every method's scores: by file, POPE as the mean of its three, MME's points, MMAvg where all are there.

    Raises:
        RequestError: MME's items are not two an image, or of a subtask that it has not.
    """
    rows: list[ProtocolRow] = []
    for method in dict.fromkeys(each.method for each in answered):
        own = [each for each in answered if each.method == method]
        files = list(dict.fromkeys(each.file for each in own))
        exact = {file: _accuracy(file, own, None) for file in files if file != MME}
        judged = {} if verdicts is None else {file: _accuracy(file, own, verdicts) for file in exact}
        sizes = {each.file: len(each.items) for each in own}
        seeds = tuple(sorted({each.seed for each in own if each.seed is not None}))
        for name, of in {**{file: (file,) for file in exact}, "POPE": POPE}.items():
            if all(file in exact for file in of):
                rows.append(_row(method, seeds, name, of, sizes, exact, judged))
        of = tuple(file for files_of in SEVEN.values() for file in files_of)
        if all(file in exact for file in of):
            rows.append(_row(method, seeds, MMAVG, of, sizes, exact, judged))
        if MME in files:
            for part, found in _mme(own).items():
                interval = percentile(found.draws[:, 0])
                rows.append(ProtocolRow(method, seeds, f"MME {part}", sizes[MME], float(found.estimates[0]), interval))
    return tuple(rows)


def _row(
    method: str, seeds: tuple[int, ...], name: str, of: Sequence[str], sizes: Mapping[str, int],
    exact: Mapping[str, Resampled], judged: Mapping[str, Resampled],
) -> ProtocolRow:  # fmt: skip
    score, interval = _mean(name, of, exact)
    by_judge: tuple[float | None, Interval | None] = _mean(name, of, judged) if judged else (None, None)
    return ProtocolRow(method, seeds, name, sum(sizes[file] for file in of), score, interval, *by_judge)


def _mean(name: str, of: Sequence[str], found: Mapping[str, Resampled]) -> tuple[float, Interval]:
    """Returns (score, interval) of a file, of POPE's mean, or of MMAvg, from draws that are each file's own."""
    estimates = {file: float(found[file].estimates[0]) for file in of}
    draws = {file: found[file].draws[:, 0] for file in of}
    if name == MMAVG:
        return mmavg(estimates), percentile(mmavg(draws))  # type: ignore[return-value, arg-type]
    return sum(estimates.values()) / len(of), percentile(np.mean(list(draws.values()), axis=0))


def _accuracy(file: str, own: Sequence[Answered], verdicts: Mapping[str, bool] | None) -> Resampled:
    """Returns the share of right replies to a file's items: by exact match, or by verdicts."""
    runs: dict[int | None, Tally] = {}
    for each in own:
        if each.file != file:
            continue
        coded = Accuracy().coded(
            [Sample(i.id, i.image, i.prompt, (RIGHT, WRONG), RIGHT, cluster=i.cluster) for i in each.items]
        )
        right = [
            exact_match(reply, item.target) if verdicts is None else verdicts[key]
            for item, reply, key in each.with_keys()
        ]
        runs[each.seed] = coded.tally([RIGHT if one else WRONG for one in right])
    return resample({own[0].method: _runs(runs)}, Accuracy().values, "accuracy", task=file)


def _mme(own: Sequence[Answered]) -> dict[str, Resampled]:
    metric, runs = MMEMetric(), dict[int | None, Tally]()
    for each in (each for each in own if each.file == MME):
        samples = [
            Sample(i.id, i.image, i.prompt, ("Yes", "No"), i.target.strip().capitalize(), i.group, i.cluster)
            for i in each.items
        ]
        try:
            runs[each.seed] = metric.coded(samples).tally([READ_MME(reply, ("Yes", "No")) for reply in each.replies])
        except (KeyError, ValueError) as error:
            raise RequestError(f"The items of MME cannot be scored: {error}.") from error
    one = next(iter(runs.values()))
    there = [name for name in PARTS if name in metric.values(one.counts.sum(axis=0), one.columns)]
    return resample_all({own[0].method: _runs(runs)}, metric.values, there, task=MME)


def _runs(by_seed: Mapping[int | None, Tally]) -> Runs:
    return by_seed[None] if None in by_seed else {s: tally for s, tally in by_seed.items() if s is not None}
