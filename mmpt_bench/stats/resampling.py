"""Resampling of images and of seeds: what a figure could have been, on other images and with other seeds.

Images are drawn with replacement within their stratum, seeds among the seeds, both at once and independently
(crossed, or pigeonhole, bootstrap: Owen 2007, doi:10.1214/07-AOAS122). Where images of a stratum are asked in several
wordings, wordings are drawn first and then images within each wording drawn (two stages: Davison and Hinkley 1997,
section 3.8), so that an interval speaks of other wordings, too. Every method of a comparison sees the same draws, and
the draws follow from strata, wordings, the seed and the name of the task alone: a row's interval is the same whatever
other rows there are, and a task's is not that of another task with as many images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from mmpt_bench.common.hashing import derive


@dataclass(frozen=True)
class Tally:
    """Counts per image from which every figure of a task follows: resampling images is resampling rows."""

    clusters: tuple[str, ...]
    """The images, one a row of `counts`."""
    strata: tuple[str, ...]
    """What each image is resampled within (MME: its subtask); all equal where the benchmark fixes nothing."""
    columns: tuple[str, ...]
    """What is counted, one a column of `counts`."""
    counts: np.ndarray
    """Numbers of answers, (images, columns)."""
    wordings: tuple[str, ...] = ()
    """What each image is asked in; empty where that is not known or always the same."""


Values = Callable[[np.ndarray, Sequence[str]], dict[str, np.ndarray]]
"""`Metric.values`: (sums of counts, columns) -> figures by name."""

Runs = Tally | Mapping[int, Tally]
"""A method's tallies by seed; one tally alone is a method without seeds (frozen), the same at each of them."""

CHUNK = 2**22
"""Numbers that are held at once: 32 MB."""
TOGETHER = 512
"""Runs whose counts are added up together: those of ten thousand would fill the memory."""
IN_CACHE = 2**16
"""Numbers of one array that are worked on at once where there are many: half a megabyte."""


@dataclass(frozen=True)
class Resampled:
    """A figure of several methods on common resamples of images and seeds."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    """The seeds that all methods have; empty where none of them has seeds."""
    by_seed: np.ndarray
    """The figure on all images, (methods, seeds); one column where there are no seeds."""
    pictures_drawn: np.ndarray
    """The figure on the images drawn, at every seed, (resamples, methods, seeds)."""
    draws: np.ndarray
    """Mean over the seeds drawn of the figure on the images drawn, (resamples, methods)."""

    @property
    def estimates(self) -> np.ndarray:
        """The figure on all images, mean over seeds, (methods,)."""
        return self.by_seed.mean(axis=1)

    @cached_property
    def covariances(self) -> tuple[np.ndarray, np.ndarray]:
        """Over resamples of images, (methods, methods): of means over seeds, and of the seeds' deviations from them."""
        drawn = self.pictures_drawn - self.pictures_drawn.mean(axis=0)
        means = drawn.mean(axis=2)
        own = (drawn - means[:, :, None]).swapaxes(1, 2).reshape(-1, drawn.shape[1])
        pictures, interaction = (_products(x) / (len(drawn) - 1) for x in (means, own))
        return pictures, interaction

    def column(self, method: str) -> int:
        """Returns the method's place in `methods` (ValueError where it has none)."""
        return self.methods.index(method)


def _products(x: np.ndarray) -> np.ndarray:
    """Returns `x.T @ x`, added up in the order of the rows: the same bits on every processor."""
    step = max(1, IN_CACHE // x.shape[1] ** 2)
    parts = (x[start : start + step] for start in range(0, len(x), step))
    return np.asarray(sum((part[:, :, None] * part[:, None, :]).sum(axis=0) for part in parts))


def resample(
    runs: Mapping[str, Runs], values: Values, figure: str, n_resamples: int = 2000, seed: int = 0, task: str = ""
) -> Resampled:
    """Returns a figure of every method on the same resamples.

    Args:
        runs: the tallies of each method; all of the same images.
        values: the metric's `values`.
        figure: a name in what `values` returns.
        n_resamples: number of resamples.
        seed: of the draws.
        task: name of the task, which draws its images for itself; seeds are drawn alike in all tasks, so that they
            can be averaged.

    Raises:
        ValueError: tallies of other images, no seed that all methods share, or a figure that is undefined for one
            of the methods or in one of the resamples.
    """
    return resample_all(runs, values, [figure], n_resamples, seed, task)[figure]


def resample_all(
    runs: Mapping[str, Runs],
    values: Values,
    figures: Sequence[str],
    n_resamples: int = 2000,
    seed: int = 0,
    task: str = "",
) -> dict[str, Resampled]:
    """Returns several figures of every method, all on the same resamples; arguments and errors as of `resample`."""
    seeds = _common_seeds(runs)
    width = max(1, len(seeds))
    by_seed = {name: np.empty((len(runs), width)) for name in figures}
    draws = {name: np.empty((n_resamples, len(runs), width)) for name in figures}
    methods, first = list(runs), None
    for start in range(0, len(methods), step := max(1, TOGETHER // width)):
        flat = [tally for method in methods[start : start + step] for tally in _at_seeds(runs[method], seeds)]
        first = first or flat[0]
        stacked, some = _side_by_side([first, *flat])[:, len(first.columns) :], slice(start, start + step)
        shape = (len(flat) // width, width)
        on_all = [values(sums, first.columns) for sums in stacked.sum(axis=0).reshape(len(flat), -1)]
        done = 0
        for sums in _picture_sums(stacked, first, n_resamples, _stream(seed, task)):
            drawn = values(sums.reshape(len(sums), *shape, -1), first.columns)
            for name in figures:
                draws[name][done : done + len(sums), some] = _defined(drawn, name)
            done += len(sums)
        for name in figures:
            by_seed[name][some] = np.array([_defined(of, name) for of in on_all]).reshape(shape)
    return {
        name: Resampled(tuple(runs), seeds, by_seed[name], draws[name], over_seeds(draws[name], seed))
        for name in figures
    }


def average(parts: Sequence[tuple[Resampled, float, float]]) -> Resampled:
    """Returns the mean over tasks of the chance-centred figure, (figure - chance) / (ceiling - chance).

    Args:
        parts: (figure, chance, ceiling) of each task, for the same methods and seeds, resampled with the same `seed`:
            a seed that is drawn is drawn in all tasks, images are drawn in each task for itself.
    """
    first = parts[0][0]
    for part, _, _ in parts:
        if (part.methods, part.seeds, len(part.draws)) != (first.methods, first.seeds, len(first.draws)):
            raise ValueError("tasks can be averaged over the same methods, seeds and number of resamples only")

    def mean(field: str) -> np.ndarray:
        # One after another, as numpy adds along a first axis: no more than two of them are held.
        total: np.ndarray | None = None
        for part, chance, ceiling in parts:
            scaled = getattr(part, field) - chance
            scaled /= ceiling - chance
            total = scaled if total is None else np.add(total, scaled, out=total)
        assert total is not None
        return np.divide(total, len(parts), out=total)

    return Resampled(first.methods, first.seeds, mean("by_seed"), mean("pictures_drawn"), mean("draws"))


def picture_draws(tally: Tally, values: Values, n_resamples: int, seed: int, task: str = "") -> dict[str, np.ndarray]:
    """Returns every figure of one tally on resamples of its images, (resamples,); NaN where it is undefined.

    With the same `seed` and `task` the images are those that `resample` draws.
    """
    chunks = _picture_sums(tally.counts, tally, n_resamples, _stream(seed, task))
    parts = [(len(sums), values(sums, tally.columns)) for sums in chunks]
    names = dict.fromkeys(name for _, part in parts for name in part)
    return {name: np.concatenate([part.get(name, np.full(length, np.nan)) for length, part in parts]) for name in names}


def figure_of(values: Values, sums: np.ndarray, columns: Sequence[str], name: str) -> np.ndarray:
    """Returns one figure of sums of counts; ValueError where it is undefined for any of them."""
    return _defined(values(sums, columns), name)


def _defined(figures: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in figures or np.isnan(figures[name]).any():
        raise ValueError(f"`{name}` is undefined for some of the methods or resamples: too few images to resample")
    return np.asarray(figures[name])


def _stream(seed: int, task: str) -> int:
    return derive(seed, f"pictures/{task}" if task else "pictures")


def _own_pictures(strata: Sequence[str]) -> list[np.ndarray]:
    """Returns the images of each stratum, by its name."""
    names, stratum = np.unique(np.asarray(strata), return_inverse=True)
    return [np.flatnonzero(stratum == number) for number in range(len(names))]


def _picture_sums(counts: np.ndarray, of: Tally, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields sums of counts over the images of a tally, drawn with replacement, (some resamples, columns).

    Columns that are alike are added up once: all runs were asked the same questions.
    """
    counts, place = _distinct_columns(counts)
    blocks = []
    for own, times in _drawn(tuple(of.strata), of.wordings, n_resamples, seed):
        rows = counts[own]
        counted = np.flatnonzero(rows.any(axis=0))  # MME counts a subtask in columns of its own
        # Whole numbers below 2**24 are exact in single precision, and half the work.
        small = counts.dtype.kind == "i" and len(rows) * int(rows.max(initial=0)) < 2**24
        blocks.append((counted, rows[:, counted].astype(np.float32 if small else np.float64), times))
    step = max(1, CHUNK // len(place))
    for start in range(0, n_resamples, step):
        sums = np.zeros((min(step, n_resamples - start), counts.shape[1]))
        for counted, rows, times in blocks:
            sums[:, counted] += times[start : start + step] @ rows
        yield sums[:, place]


def _distinct_columns(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the columns that differ, and of each column its place among them."""
    seen: dict[bytes, int] = {}
    place = np.array([seen.setdefault(column.tobytes(), len(seen)) for column in np.ascontiguousarray(counts.T)])
    return counts[:, np.unique(place, return_index=True)[1]], place


@lru_cache(maxsize=8)
def _drawn(
    strata: tuple[str, ...], wordings: tuple[str, ...], n_resamples: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns (its images, how often each is drawn, (resamples, images)) of each stratum."""
    rng, found = np.random.default_rng(seed), []
    for own in _own_pictures(strata):
        asked = _own_pictures([wordings[i] for i in own]) if wordings else [np.arange(len(own))]
        times = np.zeros((n_resamples, len(own)), dtype=np.float32)
        for one in times:
            drawn = rng.integers(0, len(asked), len(asked)) if len(asked) > 1 else (0,)
            for within in (asked[k] for k in drawn):
                n = len(within)
                one[within] += np.bincount(rng.integers(0, n, n), minlength=n)
        found.append((own, times))
    return found


def over_seeds(draws: np.ndarray, seed: int) -> np.ndarray:
    """Returns the means over seeds drawn with replacement, (resamples, methods), of (resamples, methods, seeds)."""
    n_resamples, _, n_seeds = draws.shape
    rng = np.random.default_rng(derive(seed, "seeds"))
    weights = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), n_resamples) / n_seeds
    # One addition after another for each method: the last digit, too, is the same beside any other methods.
    return sum((draws[:, :, i] * weights[:, i, None] for i in range(n_seeds)), np.zeros(draws.shape[:2]))


def _common_seeds(runs: Mapping[str, Runs]) -> tuple[int, ...]:
    each = {method: set(run) for method, run in runs.items() if not isinstance(run, Tally)}
    if not each:
        return ()
    common = set.intersection(*each.values())
    if not common:
        raise ValueError(f"the methods {', '.join(each)} have no seed in common")
    return tuple(sorted(common))


def _at_seeds(run: Runs, seeds: Sequence[int]) -> list[Tally]:
    if isinstance(run, Tally):
        return [run] * max(1, len(seeds))
    return [run[seed] for seed in seeds]


def _side_by_side(tallies: Sequence[Tally]) -> np.ndarray:
    """Returns all tallies' counts beside each other, (images, tallies x columns)."""
    _check_same_pictures(tallies)
    return np.concatenate([tally.counts for tally in tallies], axis=1)


def _check_same_pictures(tallies: Sequence[Tally]) -> None:
    """Refuses tallies that do not count the same things on the same images in the same order (ValueError)."""
    first = tallies[0]
    for tally in tallies[1:]:
        if tally.columns != first.columns:
            raise ValueError(f"tallies count different things: {first.columns[:4]} and {tally.columns[:4]}")
        if (tally.clusters, tally.strata, tally.wordings) != (first.clusters, first.strata, first.wordings):
            unlike = [(a, b) for a, b in zip(first.clusters, tally.clusters, strict=False) if a != b][:1]
            where = f"`{unlike[0][0]}` and `{unlike[0][1]}`" if unlike else "their strata, wordings or numbers"
            sizes = f"{len(first.clusters)} and {len(tally.clusters)}"
            raise ValueError(f"tallies of {sizes} images are not of the same ones in one order: {where} differ")
