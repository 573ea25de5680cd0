"""Scores of a map, worked out by hand."""

import numpy as np
import pytest

from mmpt_bench.stats.saliency import area, counts_along, disagreement, energy, pointing, rank_correlation

INSIDE = np.array([True, False, False, True])


def test_the_highest_token_is_inside_or_it_is_not() -> None:
    assert pointing(np.array([0.1, 0.2, 0.3, 0.4]), INSIDE) == 1
    assert pointing(np.array([0.1, 0.5, 0.3, 0.4]), INSIDE) == 0


def test_tokens_that_are_equally_high_count_in_part() -> None:
    assert pointing(np.array([2.0, 2.0, 2.0, 1.0]), INSIDE) == pytest.approx(1 / 3)
    assert pointing(np.zeros(4), INSIDE) == 0.5


def test_energy_is_the_share_of_what_speaks_for_the_answer() -> None:
    assert energy(np.array([3.0, 1.0, 0.0, 0.0]), INSIDE) == 0.75
    assert energy(np.array([3.0, 1.0, -9.0, -9.0]), INSIDE) == 0.75


def test_a_map_that_says_nothing_has_the_energy_of_a_uniform_one() -> None:
    assert energy(np.array([-1.0, -2.0, -3.0, 0.0]), INSIDE) == 0.5


def test_curves_have_points_at_shares_of_the_tokens() -> None:
    assert counts_along(36) == [0, 4, 9, 18, 27, 36]
    assert counts_along(576) == [0, 58, 144, 288, 432, 576]
    assert counts_along(4) == [0, 1, 2, 3, 4]
    assert counts_along(1) == [0, 1]


def test_the_area_of_a_straight_line_is_its_middle() -> None:
    assert area([0, 4, 9, 36], [1, 1 - 4 / 36, 1 - 9 / 36, 0]) == pytest.approx(0.5)
    assert area([0, 1, 2], [0.2, 0.2, 0.2]) == pytest.approx(0.2)


def test_rank_correlation_looks_at_the_order_alone() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0])
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert rank_correlation(values, np.ones(4)) == 0


def test_maps_that_agree_have_no_disagreement() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0])
    assert disagreement([values, 2 * values, values**3]) == pytest.approx(0)
    assert disagreement([values, -values]) == pytest.approx(2)
    assert disagreement([values]) == 0
