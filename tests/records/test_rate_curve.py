"""The protocol of a search: which trainings it asks for, and which rate it chooses; values worked by hand."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from itertools import pairwise

import pytest

from mmpt_bench.common.errors import RequestError
from mmpt_bench.records.rate_curve import (
    Curve,
    Point,
    Progress,
    Protocol,
    grid_between,
    progress,
    rate_at,
    standard_error,
)

GRID = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
USUAL = Protocol()


def curve(**scores: list[float | None]) -> Curve:
    """Returns a curve of rates 10^-name, as in e3=[.8, .9] for 1e-3, with one score a seed."""
    points = [Point(10.0 ** -int(name.strip("e")), tuple(enumerate(of, start=1000))) for name, of in scores.items()]
    return Curve(tuple(sorted(points, key=lambda point: point.rate)))


def searched(score: Callable[[float, int], float | None], protocol: Protocol = USUAL) -> tuple[Progress, int]:
    """Returns a finished search whose trainings score so, and how many trainings it took."""
    made: dict[tuple[float, int], float | None] = {}
    while todo := (now := progress(protocol, made)).todo:
        made[todo[0]] = score(*todo[0])
    return now, len(made)


def near(best: float) -> Callable[[float, int], float]:
    """Returns scores that fall by a tenth a decade on both sides of a rate, each seed shifted alike."""
    return lambda rate, seed: 0.8 - 0.1 * abs(math.log10(rate / best)) + 0.002 * (seed - 1002)


def test_the_grid_is_half_decades_and_what_lies_between_is_quarter_decades() -> None:
    assert Protocol().grid == GRID
    assert [rate_at(quarter) for quarter in range(-18, -11)] == [3e-5, 5.62e-5, 1e-4, 1.78e-4, 3e-4, 5.62e-4, 1e-3]
    assert grid_between(1e-3, 1e-2) == (1e-3, 3e-3, 1e-2)


@pytest.mark.parametrize("ends", [(2e-3, 1e-2), (1e-2, 1e-3), (1e-3, 1e-3), (0.0, 1e-3), (float("nan"), 1e-3), (-1, 1)])
def test_a_grid_of_other_rates_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(RequestError, match="--grid"):
        grid_between(*ends)


@pytest.mark.parametrize("rounds", [(), (0, 1), (3, 3), (3, 1)])
def test_rounds_that_do_not_grow_are_refused(rounds: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match="--rounds"):
        Protocol(rounds=rounds)


def test_seven_rates_at_one_seed_four_at_three_and_two_with_their_neighbours_at_five() -> None:
    made: dict[tuple[float, int], float | None] = {}
    first = progress(Protocol(), made).todo
    assert first == tuple((rate, 1000) for rate in GRID)
    made |= {key: near(1e-3)(*key) for key in first}
    second = progress(Protocol(), made).todo
    # 1e-4 and 1e-2 are as far from 1e-3; of equal ones the lowest goes on: 3e-4 (.52 decades), 3e-3 (.48), 1e-4.
    assert set(second) == {(rate, seed) for rate in (1e-4, 3e-4, 1e-3, 3e-3) for seed in (1001, 1002)}
    made |= {key: near(1e-3)(*key) for key in second}
    third = progress(Protocol(), made).todo
    new = {(rate, seed) for rate in (5.62e-4, 1.78e-3, 5.62e-3) for seed in range(1000, 1005)}
    assert set(third) == new | {(rate, seed) for rate in (1e-3, 3e-3) for seed in (1003, 1004)}
    made |= {key: near(1e-3)(*key) for key in third}
    last = progress(Protocol(), made)
    assert (last.todo, last.extended, len(made)) == ((), 0, 34)
    assert {point.rate: len(point.scores) for point in last.curve.points} == {
        3e-5: 1, 1e-4: 3, 3e-4: 3, 5.62e-4: 5, 1e-3: 5, 1.78e-3: 5, 3e-3: 5, 5.62e-3: 5, 1e-2: 1, 3e-2: 1,
    }  # fmt: skip
    assert last.curve.best is not None
    assert last.curve.best.rate == 1e-3


def test_a_search_takes_as_many_trainings_as_it_says() -> None:
    fewest, most = Protocol().trainings
    assert (fewest, most) == (34, 39)
    assert searched(near(1e-3))[1] == fewest
    # Two peaks, two decades apart: the best two have no quarter decade in common.
    far = searched(lambda rate, seed: max(near(1e-4)(rate, seed), near(1e-2)(rate, seed)))
    assert far[1] == most
    assert Protocol(GRID, (2,)).trainings == (14, 14)
    for n, rounds in ((3, (1, 2)), (5, (1, 2, 4)), (7, (2, 3))):
        protocol = Protocol(GRID[:n], rounds)
        low, high = protocol.trainings
        assert low <= searched(near(GRID[n // 2]), protocol)[1] <= high


def test_a_round_looks_at_its_own_seeds_whatever_else_is_recorded() -> None:
    first = {(rate, 1000): near(1e-3)(rate, 1000) for rate in GRID}
    more = first | {(rate, seed): 1.0 for rate in (3e-2, 2e-3) for seed in range(1001, 1009)}
    asked = set(progress(Protocol(), first).todo)
    assert set(progress(Protocol(), more).todo) == asked
    assert 2e-3 not in [point.rate for point in progress(Protocol(), more).curve.points]


@pytest.mark.parametrize(("best", "beyond"), [(1e-1, 1e-1), (1e-5, 1e-5), (3e-2, None), (3e-5, None), (1e-3, None)])
def test_one_rate_more_is_tried_half_a_decade_beyond_the_grid_where_the_best_is_the_last_one(
    best: float, beyond: float | None
) -> None:
    found, _ = searched(near(best))
    there = [p.rate for p in found.curve.points if not 1e-5 < p.rate < 1e-1]
    assert there == ([] if beyond is None else [beyond])
    assert found.extended == len(there)
    assert all(len(p.scores) == 5 for p in found.curve.points if p.rate in there)
    # What lies beyond is not known where the new rate is the best again.
    assert found.curve.at_edge == (beyond is not None)


def test_a_rate_that_failed_is_the_worst_and_is_not_trained_again() -> None:
    found, n = searched(lambda rate, seed: None if rate > 3e-3 else near(1e-2)(rate, seed))
    failed = [point for point in found.curve.points if point.failed]
    assert [(p.rate, len(p.scores)) for p in failed] == [(5.62e-3, 1), (1e-2, 1), (3e-2, 1)]
    assert found.curve.best is not None
    assert found.curve.best.rate == 3e-3
    assert not found.curve.at_edge
    assert n < Protocol().trainings[0]
    late, _ = searched(lambda rate, seed: None if rate == 1e-3 and seed == 1004 else near(1e-3)(rate, seed))
    assert late.curve.best is not None
    assert late.curve.best.rate != 1e-3


def test_where_all_failed_nothing_is_chosen_and_nothing_more_is_tried() -> None:
    found, n = searched(lambda rate, seed: None)
    assert n == 7
    assert (found.curve.best, found.curve.chosen, found.curve.width, found.curve.at_edge) == (None, None, None, False)


def test_the_lowest_rate_within_one_standard_error_of_the_best_is_chosen() -> None:
    # Best: mean .80, s = .02, s / sqrt(4) = .01. So .790 is within, .789 is not.
    best = [0.78, 0.80, 0.80, 0.82]
    error = statistics.stdev(best) / 2
    assert error == pytest.approx(0.02 * math.sqrt(2 / 3) / 2)
    within, without = [0.80 - 0.99 * error] * 4, [0.80 - 1.01 * error] * 4
    found = curve(e5=without, e4=within, e3=best, e2=[0.1] * 4)
    assert found.best is not None
    assert found.chosen is not None
    assert (found.best.rate, found.chosen.rate) == (1e-3, 1e-4)
    assert found.best.error == pytest.approx(error)


def test_only_rates_with_all_seeds_can_be_chosen() -> None:
    found = curve(e5=[0.95], e4=[0.9, 0.9], e3=[0.80, 0.82, 0.78], e2=[0.5, 0.5, 0.5])
    assert found.chosen is not None
    assert found.chosen.rate == 1e-3


def test_the_standard_error_is_that_of_the_statistics_module() -> None:
    values = [0.71, 0.74, 0.69, 0.77, 0.70]
    assert standard_error(values) == pytest.approx(statistics.stdev(values) / math.sqrt(5), abs=1e-15)
    assert standard_error([0.5]) == 0.0


@pytest.mark.parametrize(
    ("scores", "decades"),
    [
        # From .8 to .6 in a decade: 1 point lies at a twentieth of it, on both sides.
        ({"e4": [0.6], "e3": [0.8], "e2": [0.6]}, 0.1),
        # Flat to the left, as far as rates go; to the right half of a decade.
        ({"e5": [0.795], "e4": [0.8], "e3": [0.8], "e2": [0.78]}, 2.5),
        # A rate that failed ends it at the one before.
        ({"e4": [0.795], "e3": [0.8], "e2": [None]}, 1.0),
        # What rises again after a valley does not count.
        ({"e5": [0.8], "e4": [0.7], "e3": [0.81], "e2": [0.61]}, 0.01 / 0.11 + 0.05),
    ],
)
def test_the_width_is_the_decades_within_a_point_of_the_best(scores: dict, decades: float) -> None:
    assert curve(**scores).width == pytest.approx(decades)


def test_a_seed_more_than_three_points_below_its_mean_is_told() -> None:
    found = curve(e4=[0.80, 0.80, 0.71], e3=[0.80, 0.80, 0.77], e2=[None, 0.1, 0.9])
    assert found.collapsed == (1e-4,)


def test_an_optimum_at_the_edge_is_told() -> None:
    assert curve(e4=[0.9], e3=[0.8], e2=[0.7]).at_edge
    assert not curve(e4=[0.7], e3=[0.8], e2=[0.7]).at_edge
    # The best lies inside, what is chosen at the edge.
    assert curve(e4=[0.80, 0.80], e3=[0.78, 0.84], e2=[0.1, 0.1]).at_edge


def test_two_processes_that_know_the_same_scores_ask_for_the_same_trainings() -> None:
    made: dict[tuple[float, int], float | None] = {}
    orders = []
    while todo := progress(Protocol(), made).todo:
        assert progress(Protocol(), dict(reversed(made.items()))).todo == todo
        orders.append(len(todo))
        made |= {key: near(3e-4)(*key) for key in todo[: max(1, len(todo) // 2)]}
    assert all(after <= 24 for _, after in pairwise(orders))
