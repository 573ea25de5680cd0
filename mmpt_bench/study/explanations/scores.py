"""Scores of explained questions, averaged with intervals over images (and seeds), and compared with the base's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmpt_bench.stats import saliency
from mmpt_bench.stats.intervals import Interval, percentile
from mmpt_bench.stats.resampling import Runs, Tally, resample_all

if TYPE_CHECKING:
    from mmpt_bench.engine.explain.explained import Curve, Explained

SCORES = {
    "pointing": "Pointing",
    "energy": "Energy",
    "deletion": "Deletion",
    "insertion": "Insertion",
    "beyond_random": "Beyond random",
    "kept_10": "Kept, top 10 %",
    "kept_25": "Kept, top 25 %",
    "control": "Control",
    "like_base": "Like base",
}
"""Of each map."""
WHOLE = {"right": "Right", "probability": "Probability", "chance": "Region"}
"""Of each question, whatever the map."""
OF_REGION = frozenset({"pointing", "energy", "chance"})
LOW_IS_GOOD = frozenset({"deletion", "control"})
BASE, RANDOM = "frozen", "random"
Key = tuple[str, str]
"""(Map, or "" for a score of the question; score)."""


@dataclass(frozen=True)
class Found:
    """A mean over questions."""

    estimate: float
    interval: Interval
    n_questions: int
    n_images: int
    change: float | None = None
    """From the base, on the same questions; None for the base, and for what the base has not."""
    change_interval: Interval | None = None


def inside(cells: Sequence[int], grid: tuple[int, int]) -> np.ndarray:
    """Returns which tokens of a grid have their middle in these of the 3 x 3 cells (0..8), row by row."""
    down, across = (((np.arange(n) + 0.5) / n * 3).astype(int) for n in grid)
    cell = 3 * down[:, None] + across[None, :]
    return np.isin(cell, list(cells)).ravel()


def question_scores(
    one: Explained,
    region: np.ndarray | None,
    base: Explained | None = None,
) -> dict[Key, float]:
    """Returns the scores of one question.

    Args:
        region: the tokens of what it names; None where it names nothing, or the whole image.
        base: the same question to the untuned base; None for the base itself.
    """
    scores: dict[Key, float] = {("", "right"): float(one.is_right), ("", "probability"): one.probability}
    if region is not None:
        scores["", "chance"] = float(region.mean())
    for name, values in one.maps.items():
        deleted, inserted = one.deletion[name], one.insertion[name]
        scores[name, "deletion"] = saliency.area(deleted.counts, deleted.probability)
        scores[name, "insertion"] = saliency.area(inserted.counts, inserted.probability)
        if name != RANDOM and RANDOM in one.maps:
            scores[name, "beyond_random"] = _spread(one, name) - _spread(one, RANDOM)
        scores[name, "kept_10"], scores[name, "kept_25"] = _kept(inserted, 0.1), _kept(inserted, 0.25)
        if region is not None:
            scores[name, "pointing"] = saliency.pointing(values, region)
            scores[name, "energy"] = saliency.energy(values, region)
        if name in one.control:
            scores[name, "control"] = saliency.rank_correlation(values, one.control[name])
        if base is not None and name != RANDOM:
            scores[name, "like_base"] = saliency.rank_correlation(values, base.maps[name])
    return scores


def _spread(one: Explained, name: str) -> float:
    """Returns insertion minus deletion of a map: how far its highest tokens carry the answer, and its lowest do not."""
    put_back, taken = one.insertion[name], one.deletion[name]
    return saliency.area(put_back.counts, put_back.probability) - saliency.area(taken.counts, taken.probability)


def _kept(curve: Curve, share: float) -> float:
    """Returns whether the answer stays when this share of the tokens alone remains, at least one."""
    return float(curve.same[curve.counts.index(max(1, round(share * curve.counts[-1])))])


def averaged(
    runs: Mapping[int, Sequence[Mapping[Key, float]]],
    images: Sequence[str],
    base: Sequence[Mapping[Key, float]] | None = None,
    n_resamples: int = 2000,
) -> dict[Key, Found]:
    """Returns the mean of every score over questions and seeds, with 95 % intervals, and its change from the base.

    Args:
        runs: seed -> scores of each question; one seed of any number for what has none.
        images: of each question: questions about one image are resampled together.
        base: scores of each question to the base; None for the base itself.
    """
    found: dict[Key, Found] = {}
    names = dict.fromkeys(name for run in runs.values() for scores in run for name in scores)
    groups: dict[tuple[frozenset[int], bool], list[Key]] = {}
    for name in names:
        asked = frozenset(i for i in range(len(images)) if all(name in run[i] for run in runs.values()))
        if asked:
            beside = base is not None and all(name in base[i] for i in asked)
            groups.setdefault((asked, beside), []).append(name)
    for (asked, beside), keys in groups.items():
        found |= _averaged(runs, images, base if beside else None, sorted(asked), keys, n_resamples)
    return {name: found[name] for name in names if name in found}


def _averaged(
    runs: Mapping[int, Sequence[Mapping[Key, float]]],
    images: Sequence[str],
    base: Sequence[Mapping[Key, float]] | None,
    asked: Sequence[int],
    keys: Sequence[Key],
    n_resamples: int,
) -> dict[Key, Found]:
    """Returns the means of scores that the same questions have."""
    columns = ["/".join(key) for key in keys]
    own = [images[i] for i in asked]
    clusters = tuple(dict.fromkeys(own))
    place = {image: number for number, image in enumerate(clusters)}

    def tally(run: Sequence[Mapping[Key, float]]) -> Tally:
        counts = np.zeros((len(clusters), 1 + len(keys)))
        for i, image in zip(asked, own, strict=True):
            counts[place[image]] += [1.0, *(run[i][key] for key in keys)]
        return Tally(clusters, ("",) * len(clusters), ("n", *columns), counts)

    def values(sums: np.ndarray, _columns: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: sums[..., 1 + j] / sums[..., 0] for j, name in enumerate(columns)}

    both: dict[str, Runs] = {"run": {seed: tally(run) for seed, run in runs.items()}}
    if base is not None:
        both[BASE] = tally(base)
    made = resample_all(both, values, columns, n_resamples, task="explain")
    found = {}
    for key, column in zip(keys, columns, strict=True):
        result = made[column]
        change, interval = None, None
        if base is not None:
            change = float(result.estimates[0] - result.estimates[1])
            interval = percentile(result.draws[:, 0] - result.draws[:, 1])
        found[key] = Found(
            float(result.estimates[0]), percentile(result.draws[:, 0]), len(asked), len(clusters), change, interval
        )
    return found
