"""Intervals, differences, ranks and retention, against scipy and statsmodels, by hand and by simulation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from mmpt_bench.evaluation.metrics import Accuracy, MMEMetric
from mmpt_bench.stats.claims import ranks, retention
from mmpt_bench.stats.differences import (
    crossed_errors,
    detectable_difference,
    holm,
    method_difference,
    method_differences,
    sign_flip,
)
from mmpt_bench.stats.intervals import chance_centred, cluster_bootstrap, percentile, seed_spread
from mmpt_bench.stats.resampling import Resampled, Tally, average, picture_draws, resample
from support.simulated import checkpoint_p, method_scope_error, simulated, tally_of, values


def test_percentile_interval_is_scipys_for_the_same_draws() -> None:
    tally = tally_of(np.random.default_rng(0).binomial(3, 0.6, 40), 3)
    draws = picture_draws(tally, values, 999, 5)["accuracy"]
    scipys = with_scipy(tally, draws)
    assert percentile(draws) == pytest.approx(scipys, abs=1e-12)
    assert cluster_bootstrap(tally, values, 999, 5)["accuracy"] == pytest.approx(scipys, abs=1e-12)


def with_scipy(tally: Tally, draws: np.ndarray) -> tuple[float, float]:
    """Returns scipy's interval of a distribution of ours: it adds no resample of its own."""
    earlier = type("Earlier", (), {"bootstrap_distribution": draws})()
    asked = tally.counts[0, 0] * len(tally.counts)
    found = scipy_stats.bootstrap(
        (tally.counts[:, 1],),
        lambda right, axis: right.sum(axis=axis) / (asked * right.shape[axis] / len(tally.counts)),
        n_resamples=0,
        bootstrap_result=earlier,
        method="percentile",
        vectorized=True,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def test_bootstrap_has_the_variance_that_theory_gives() -> None:
    right = np.random.default_rng(1).binomial(1, 0.7, 400)
    draws = picture_draws(tally_of(right), values, 20_000, 0)["accuracy"]
    assert draws.std() == pytest.approx(np.sqrt(right.mean() * (1 - right.mean()) / 400), rel=0.02)
    assert draws.mean() == pytest.approx(right.mean(), abs=1e-3)


def test_bootstrap_keeps_every_stratum_at_its_size() -> None:
    tally = tally_of(np.array([1.0, 1, 1, 0, 0]), strata=["a", "a", "a", "b", "b"])
    assert cluster_bootstrap(tally, values)["accuracy"] == (0.6, 0.6)


def test_wordings_are_drawn_and_pictures_within_them() -> None:
    right = np.repeat([1.0, 1, 0, 0], 25)
    one = tally_of(right)
    four = dataclasses.replace(one, wordings=tuple(str(k) for k in np.repeat(range(4), 25)))
    draws = picture_draws(four, values, 20_000, 0)["accuracy"]
    # All that varies is which of the four means are drawn: variance 1/4 between them, over 4 drawn.
    assert draws.std() == pytest.approx(0.25, rel=0.02)
    assert set(np.round(draws, 6)) == {0, 0.25, 0.5, 0.75, 1}
    mixed = dataclasses.replace(one, wordings=tuple(str(k % 2) for k in range(100)))
    within = np.mean([0.5 * 0.5 / 50 / 2] * 2)
    assert picture_draws(mixed, values, 20_000, 0)["accuracy"].var() == pytest.approx(within, rel=0.06)
    alike = dataclasses.replace(one, wordings=("",) * 100)
    assert (picture_draws(alike, values, 99, 3)["accuracy"] == picture_draws(one, values, 99, 3)["accuracy"]).all()


def test_same_seed_same_interval_and_another_seed_another() -> None:
    tally = tally_of(np.random.default_rng(0).binomial(1, 0.5, 50))
    assert cluster_bootstrap(tally, values, seed=3) == cluster_bootstrap(tally, values, seed=3)
    assert (
        picture_draws(tally, values, 99, 3)["accuracy"].tolist()
        != picture_draws(tally, values, 99, 4)["accuracy"].tolist()
    )


def test_figure_that_is_undefined_in_a_resample_has_no_interval() -> None:
    def some(sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        share = sums[..., 1] / sums[..., 0]
        return {"always": share, "sometimes": np.where(share > 0.5, share, np.nan)}

    assert cluster_bootstrap(tally_of(np.array([1.0, 0, 1, 1])), some).keys() == {"always"}


def test_interval_is_of_mme_points_not_of_accuracy() -> None:
    counts = np.array([[2.0, 2, 1, 1]] * 20 + [[2.0, 1, 1, 0]] * 10)
    columns = ("asked/count", "right/count", "pairs/count", "both/count")
    tally = Tally(tuple(map(str, range(30))), ("count",) * 30, columns, counts)
    low, high = cluster_bootstrap(tally, MMEMetric().values)["total"]
    assert 100 < low < 100 * (5 / 6 + 2 / 3) < high < 200


def test_paired_p_is_scipys_permutation_p() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.binomial(4, 0.8, 11), rng.binomial(4, 0.5, 11)
    scipys = scipy_stats.permutation_test(
        (a / 4, b / 4), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True
    )
    ours = checkpoint_p(tally_of(a, 4), tally_of(b, 4), values, "accuracy")
    assert ours == pytest.approx(scipys.pvalue, abs=1e-12)


def test_sign_flip_p_is_scipys() -> None:
    differences = np.random.default_rng(3).normal(0.5, 1, 9)
    scipys = scipy_stats.permutation_test(
        (differences, np.zeros(9)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
    )
    assert sign_flip(differences) == pytest.approx(scipys.pvalue, abs=1e-12)


def test_paired_p_of_one_question_a_picture_is_mcnemars() -> None:
    # 3 pictures that only the first answers rightly, 8 that only the second does, and 40 on which they agree.
    a, b = np.repeat([1, 0, 1, 0], [3, 8, 25, 15]), np.repeat([0, 1, 1, 0], [3, 8, 25, 15])
    theirs = mcnemar([[25, 3], [8, 15]], exact=True).pvalue
    assert checkpoint_p(tally_of(a), tally_of(b), values, "accuracy") == pytest.approx(theirs, abs=1e-12)


def test_method_difference_without_picture_noise_is_scipys_paired_t_test() -> None:
    rng = np.random.default_rng(12)
    by_seed = rng.normal(0.7, 0.05, (2, 8))
    drawn = np.repeat(by_seed[None], 100, axis=0)
    resampled = Resampled(("a", "b"), tuple(range(8)), by_seed, drawn, drawn.mean(axis=2))
    ours, theirs = method_difference(resampled, "a", "b"), scipy_stats.ttest_rel(*by_seed)
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-12)
    assert ours.interval == pytest.approx(tuple(theirs.confidence_interval()), abs=1e-12)


@pytest.mark.parametrize(("seeds", "least"), [(3, 0.25), (5, 0.0625), (6, 0.03125), (8, 0.0078125)])
def test_sign_flip_cannot_go_below_what_the_number_of_seeds_allows(seeds: int, least: float) -> None:
    assert sign_flip(np.arange(1.0, seeds + 1)) == least


def test_holm_is_statsmodels() -> None:
    p = np.random.default_rng(4).uniform(0, 0.1, 25)
    assert holm(list(p)) == pytest.approx(list(multipletests(p, method="holm")[1]), abs=1e-12)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_a_checkpoint_does_not_differ_from_itself() -> None:
    tally = tally_of(np.random.default_rng(0).binomial(1, 0.5, 50))
    assert checkpoint_p(tally, tally, values, "accuracy") == 1


def test_tallies_of_other_pictures_are_refused_by_name() -> None:
    a = tally_of(np.ones(3))
    other = Tally(("0", "9", "2"), a.strata, a.columns, a.counts)
    with pytest.raises(ValueError, match="`1` and `9`"):
        resample({"a": a, "b": other}, values, "accuracy")


def test_method_difference_needs_two_seeds() -> None:
    one = {0: tally_of(np.ones(4))}
    with pytest.raises(ValueError, match="two seeds"):
        method_difference(resample({"a": one, "b": one}, values, "accuracy"), "a", "b")


def test_methods_without_a_common_seed_are_refused() -> None:
    tally = tally_of(np.ones(4))
    with pytest.raises(ValueError, match="no seed in common"):
        resample({"a": {0: tally}, "b": {1: tally}}, values, "accuracy")


@pytest.fixture
def board() -> dict[str, dict[int, Tally]]:
    """Eight seeds: `good` and `alike` at 80 %, `bad` at 40 %, of 300 pictures."""
    rng = np.random.default_rng(5)
    pictures = rng.normal(0, 1, 300)
    abilities = {"good": 1.6, "alike": 1.6, "bad": -0.5}
    return {name: {seed: simulated(rng, a, pictures, 1) for seed in range(8)} for name, a in abilities.items()}


def test_ties_share_a_rank_and_the_worse_method_counts_its_betters(board: dict[str, dict[int, Tally]]) -> None:
    found = ranks(resample(board, values, "accuracy"))
    assert found.ranks == {"good": 1, "alike": 1, "bad": 3}
    assert found.intervals["bad"] == (3, 3)
    assert found.intervals["good"] == (1, 2)
    assert not found.exploratory
    assert {(c.first, c.second): c.better for c in found.comparisons}["good", "alike"] is None


def test_five_seeds_separate_nothing_and_are_exploratory(board: dict[str, dict[int, Tally]]) -> None:
    five = {name: {seed: runs[seed] for seed in range(5)} for name, runs in board.items()}
    found = ranks(resample(five, values, "accuracy"))
    assert set(found.ranks.values()) == {1}
    assert found.exploratory


def test_a_method_without_seeds_is_compared_at_every_seed(board: dict[str, dict[int, Tally]]) -> None:
    frozen = tally_of(np.zeros(300))
    found = resample({"good": board["good"], "frozen": frozen}, values, "accuracy")
    assert found.by_seed.shape == (2, 8)
    assert method_difference(found, "good", "frozen").estimate == pytest.approx(found.estimates[0])


def test_average_is_of_chance_centred_scores() -> None:
    half, full = {"a": tally_of(np.array([1.0, 0] * 20))}, {"a": tally_of(np.ones(40))}
    found = average([(resample(half, values, "accuracy"), 0.5, 1.0), (resample(full, values, "accuracy"), 0.1, 1.0)])
    assert found.estimates.tolist() == [0.5]


def test_retention_is_raw_and_chance_corrected_and_gain_recovered() -> None:
    rng = np.random.default_rng(6)
    shares = {"mmpt": 0.86, "full": 0.9, "frozen": 0.6}
    tallies = {name: tally_of(rng.permutation(np.arange(1000) < 1000 * share)) for name, share in shares.items()}
    found = retention(resample(tallies, values, "accuracy"), "mmpt", "full", "frozen", chance=0.5)
    assert found["raw"].value == pytest.approx(0.86 / 0.9)
    assert found["chance_corrected"].value == pytest.approx(0.9)
    assert found["gain_recovered"].value == pytest.approx(0.26 / 0.3)
    low, high = found["gain_recovered"].interval or (0, 0)
    assert low < 0.26 / 0.3 < high


def test_retention_is_refused_where_the_denominator_may_be_zero() -> None:
    rng = np.random.default_rng(7)
    tallies = {name: tally_of(rng.permutation(np.arange(100) < 60)) for name in ("mmpt", "full", "frozen")}
    found = retention(resample(tallies, values, "accuracy"), "mmpt", "full", "frozen", chance=0.5)
    assert found["gain_recovered"].value is None
    assert "holds 0" in found["gain_recovered"].reason
    assert found["raw"].value == 1
    without = retention(resample(tallies, values, "accuracy"), "mmpt", "full", None, chance=0.5)
    assert without["gain_recovered"].reason == "the frozen model was not run"


def test_chance_centred_is_zero_at_chance_and_one_at_the_ceiling() -> None:
    assert (chance_centred(0.5, 0.5, 1), chance_centred(2800, 1050, 2800), chance_centred(0.25, 0.5, 1)) == (0, 1, -0.5)


def test_seed_spread_is_the_mean_and_the_deviation_with_one_less() -> None:
    spread = seed_spread([1.0, 2.0, 3.0])
    assert (spread.mean, spread.sd) == (2, 1)
    assert seed_spread([0.7]).sd is None
    with pytest.raises(ValueError, match="no score"):
        seed_spread([])


@pytest.mark.parametrize(
    ("pictures", "per_picture", "disagreement", "points"),
    [(500, 6, 0.2, 2.8), (1187, 2, 0.2, 2.7), (1222, 1, 0.2, 3.6), (10_000, 1, 0.08, 0.8)],
)
def test_detectable_difference_on_the_real_layouts(
    pictures: int, per_picture: int, disagreement: float, points: float
) -> None:
    assert 100 * detectable_difference(pictures, per_picture, disagreement) == pytest.approx(points, abs=0.06)


def test_detectable_difference_is_found_as_often_as_it_promises() -> None:
    rng = np.random.default_rng(8)
    gap = detectable_difference(400, disagreement=0.2)
    change = rng.choice([1, -1, 0], (4000, 400), p=[0.1 + gap / 2, 0.1 - gap / 2, 0.8])
    z = change.mean(axis=1) / (change.std(axis=1) / np.sqrt(400))
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.04)


def test_bootstrap_of_ten_thousand_pictures_compresses_to_the_same_distribution() -> None:
    right = np.random.default_rng(9).binomial(1, 0.9, 10_000)
    low, high = cluster_bootstrap(tally_of(right), values, 4000)["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 10_000), rel=0.08)


def test_accuracy_metric_can_be_resampled() -> None:
    tally = Tally(("a", "b"), ("", ""), ("asked/", "right/"), np.array([[1.0, 1], [1, 0]]))
    assert cluster_bootstrap(tally, Accuracy().values)["accuracy"] == (0, 1)


def test_errors_of_pairs_are_those_of_their_own_differences_on_every_resample() -> None:
    rng = np.random.default_rng(4)
    drawn = rng.normal(0.6, 0.05, (300, 3, 6)) + rng.normal(0, 0.05, (300, 1, 6))
    drawn[:, 2] = drawn[:, 1]
    by_seed = rng.normal(0.6, 0.02, (3, 6))
    by_seed[2] = by_seed[1]
    resampled = Resampled(("a", "b", "same"), tuple(range(6)), by_seed, drawn, drawn.mean(axis=2))
    apart, no = method_differences(resampled, [("a", "b"), ("b", "same")])
    moved = drawn[:, 0] - drawn[:, 1]
    pictures = moved.mean(axis=1).var(ddof=1)
    interaction = (moved - moved.mean(axis=1)[:, None]).var(axis=0, ddof=1).sum() / 5
    gaps = by_seed[0] - by_seed[1]
    ((error,), (freedom,)) = crossed_errors(gaps[None], np.array([pictures]), np.array([interaction]))
    half = scipy_stats.t.ppf(0.975, freedom) * error
    assert apart.interval == pytest.approx((gaps.mean() - half, gaps.mean() + half), abs=1e-12)
    assert (no.estimate, no.interval, no.p) == (0, (0, 0), 1)


def test_crossed_error_adds_seeds_and_pictures_and_counts_their_interaction_once() -> None:
    # Two seeds at 0 and 2: (S + I) / 2 = 1. Resamples move both seeds by -1 and 1: P + I / 2 = 2, and I = 0.
    # Resamples that move the seeds against each other are interaction: I = 4, P + I / 2 = 0; never less than 1.
    by_seed, pictures, interaction = np.array([[0.0, 2.0], [0, 2]]), np.array([2.0, 0.0]), np.array([0.0, 4.0])
    errors, freedoms = crossed_errors(by_seed, pictures, interaction)
    assert errors.tolist() == pytest.approx([np.sqrt(1 + 2), 1])
    assert freedoms[0] == pytest.approx(9)


def coverage_and_error(layout: tuple[int, int], repeats: int, seed: int) -> tuple[float, float]:
    """Returns the coverage of an accuracy's interval, and how often two equal checkpoints are called different."""
    n_pictures, asked = layout
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 1.5, 20_000)
    truth = float((1 / (1 + np.exp(-(0.8 + difficulty)))).mean())
    held = called = 0
    for repeat in range(repeats):
        # Two checkpoints agree more than chance, picture by picture, and each goes its own way on some pictures.
        pictures = rng.normal(0, 1.3, n_pictures)
        own = rng.normal(0, np.sqrt(1.5**2 - 1.3**2), (2, n_pictures))
        a, b = (simulated(rng, 0.8, pictures + each, asked) for each in own)
        low, high = cluster_bootstrap(a, values, 500, repeat)["accuracy"]
        held += low <= truth <= high
        called += checkpoint_p(a, b, values, "accuracy", 300, repeat) <= 0.05
    return held / repeats, called / repeats


def test_interval_covers_and_test_errs_about_as_often_as_they_say() -> None:
    held, called = coverage_and_error((100, 6), 200, 1)
    assert 0.90 <= held <= 0.99
    assert called <= 0.09


@pytest.mark.slow
@pytest.mark.parametrize("layout", [(1187, 2), (500, 6), (1222, 1), (1000, 18)], ids=["MME", "POPE", "VSR", "SNLI-VE"])
def test_coverage_and_type_one_error_on_the_layouts_of_the_benchmarks(layout: tuple[int, int]) -> None:
    held, called = coverage_and_error(layout, 1500, 2)
    assert 0.93 <= held <= 0.985
    assert 0.035 <= called <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [3, 6, 8])
def test_method_scope_interval_covers_and_its_test_errs_as_often_as_it_says(n_seeds: int) -> None:
    held, called = method_scope_error(n_seeds, 1500, 11)
    assert 0.935 <= held <= 0.965
    assert 0.035 <= called <= 0.065
