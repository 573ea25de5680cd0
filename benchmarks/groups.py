"""How steady the printed groups are: boards are drawn, one run of each is replaced by another of its recipe.

    python benchmarks/groups.py                      8 methods, 8 seeds, 1,000 boards for each gap
    python benchmarks/groups.py --boards 200

The true scores form a ladder of equal gaps, or two clusters a gap apart; a gap is counted in standard errors of the
difference of two methods, over seeds and images. A run's score is the method's, plus a seed's luck (standard
deviation 1), the method's luck with the images (.3) and the seed's own luck with them (.5), which is what the board
of the embedded suite has, in points. No model runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from math import sqrt

import numpy as np

from mmpt_bench.stats.claims import BORDERLINE, SIGNIFICANT, ranking
from mmpt_bench.stats.resampling import Resampled

SEED_SD, PICTURE_SD, OWN_SD, DRAWS = 1.0, 0.3, 0.5, 200
GAPS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


def standard_error(n_seeds: int) -> float:
    """Returns that of the difference of two methods' means, on other seeds and other images."""
    return sqrt(2 * (SEED_SD**2 / n_seeds + PICTURE_SD**2 + OWN_SD**2 / n_seeds))


def board(scores: np.ndarray, rng: np.random.Generator) -> tuple[dict[tuple[int, int], float], list[int]]:
    """Returns (adjusted p of each pair, place of each method) of scores, (methods, seeds), with their resamples."""
    n, n_seeds = scores.shape
    drawn = scores + rng.normal(0, PICTURE_SD, (DRAWS, n, 1)) + rng.normal(0, OWN_SD, (DRAWS, n, n_seeds))
    names = tuple(f"{number:02}" for number in range(n))
    found = ranking(Resampled(names, tuple(range(n_seeds)), scores, drawn, drawn.mean(axis=2)))
    p = {(int(each.first), int(each.second)): each.p_adjusted for each in found.comparisons}
    return p, [found.standings[name].place for name in names]


def changes(true: Sequence[float], n_seeds: int, n_boards: int, seed: int) -> tuple[float, float, float, float]:
    """Returns the shares of boards on which, when one run is replaced, groups, an unmarked pair, or a place changed.

    The fourth is the share of methods that are marked borderline.
    """
    rng = np.random.default_rng(seed)
    n, groups, unmarked, places, marked = len(true), 0, 0, 0, 0.0
    low, high = BORDERLINE
    for _ in range(n_boards):
        own = np.array(true)[:, None] + rng.normal(0, PICTURE_SD, (n, 1))
        scores = own + rng.normal(0, sqrt(SEED_SD**2 + OWN_SD**2), (n, n_seeds))
        again, number = scores.copy(), int(rng.integers(n))
        again[number, rng.integers(n_seeds)] = own[number, 0] + rng.normal(0, sqrt(SEED_SD**2 + OWN_SD**2))
        stream = int(rng.integers(2**32))
        # The same images are resampled on both boards.
        (before, was), (after, now) = (board(each, np.random.default_rng(stream)) for each in (scores, again))
        moved = [pair for pair in before if (before[pair] < SIGNIFICANT) != (after[pair] < SIGNIFICANT)]
        near = {pair for pair, p in before.items() if low <= p <= high}
        groups += bool(moved)
        unmarked += any(pair not in near for pair in moved)
        places += was != now
        marked += len({method for pair in near for method in pair}) / n
    return groups / n_boards, unmarked / n_boards, places / n_boards, marked / n_boards


def main() -> None:
    """Prints a line for each gap and layout."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--boards", type=int, default=1000)
    parser.add_argument("--methods", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=8)
    given = parser.parse_args()
    unit, n = standard_error(given.seeds), given.methods
    n_pairs = len(list(combinations(range(n), 2)))
    print(f"{n} methods ({n_pairs} pairs), {given.seeds} seeds, {given.boards:,} boards a line")
    print(
        "| True scores | Gap, in standard errors | Groups change | ... of a pair not marked | Places change | Marked |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name, steps in (("ladder", range(n)), ("two clusters", [2 * i // n for i in range(n)])):
        for gap in GAPS:
            found = changes([-gap * unit * step for step in steps], given.seeds, given.boards, 1)
            print(f"| {name} | {gap:g} | {' | '.join(f'{100 * share:.1f} %' for share in found)} |", flush=True)


if __name__ == "__main__":
    main()
