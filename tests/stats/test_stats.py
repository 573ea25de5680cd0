"""Intervals, differences, places, groups and retention, against scipy and statsmodels, by hand and by simulation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from mmpt_bench.evaluation.metrics import Accuracy, MMEMetric
from mmpt_bench.stats import claims, differences, resampling
from mmpt_bench.stats.claims import Ranking, compact_letters, ranking, retention
from mmpt_bench.stats.differences import (
    crossed_errors,
    detectable_by_seeds,
    detectable_difference,
    holm,
    method_difference,
    method_differences,
    share_as_far,
    sign_flip,
    swapped_differences,
)
from mmpt_bench.stats.intervals import chance_centred, cluster_bootstrap, percentile, percentile_p, seed_spread
from mmpt_bench.stats.resampling import Resampled, Tally, average, picture_draws, resample, resample_all
from support.simulated import checkpoint_p, method_scope_error, simulated, tally_of, values


def test_p_inverts_the_percentile_interval() -> None:
    draws = np.arange(-20, 980) / 1000  # 21 of 1,000 are 0 or below
    assert percentile_p(draws) == pytest.approx(2 * 22 / 1001)
    assert percentile_p(-draws) == percentile_p(draws)
    assert percentile_p(np.zeros(99)) == 1
    for shift in (-0.01, 0.01):
        moved = draws + shift
        low, _ = percentile(moved)
        assert (low > 0) == (percentile_p(moved) < 0.05)


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
    # 3 images that only the first answers rightly, 8 that only the second does, and 40 on which they agree.
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
    """Eight seeds: `good` and `alike` at 80 %, `bad` at 40 %, of 300 images."""
    rng = np.random.default_rng(5)
    pictures = rng.normal(0, 1, 300)
    abilities = {"good": 1.6, "alike": 1.6, "bad": -0.5}
    return {name: {seed: simulated(rng, a, pictures, 1) for seed in range(8)} for name, a in abilities.items()}


def groups(found: Ranking) -> dict[str, str]:
    return {name: standing.groups for name, standing in found.standings.items()}


def test_what_is_not_separated_shares_a_letter_and_the_worse_method_has_another(
    board: dict[str, dict[int, Tally]],
) -> None:
    found = ranking(resample(board, values, "accuracy"))
    assert groups(found) == {"good": "a", "alike": "a", "bad": "b"}
    assert (found.standings["bad"].place, found.standings["bad"].interval) == (3, (3, 3))
    assert {found.standings[name].place for name in ("good", "alike")} == {1, 2}
    assert found.standings["good"].interval == (1, 2)
    assert not found.exploratory
    assert not any(standing.borderline for standing in found.standings.values())
    assert {(c.first, c.second): c.better for c in found.comparisons}["good", "alike"] is None


def test_five_seeds_separate_nothing_and_are_exploratory(board: dict[str, dict[int, Tally]]) -> None:
    five = {name: {seed: runs[seed] for seed in range(5)} for name, runs in board.items()}
    found = ranking(resample(five, values, "accuracy"))
    assert set(groups(found).values()) == {"a"}
    assert found.exploratory
    # The least p by sign flips, .0625, would be borderline for every pair.
    assert not any(standing.borderline for standing in found.standings.values())


def drawn(by_seed: Sequence[Sequence[float]]) -> Resampled:
    """Returns methods a, b, c, ... with these scores at each seed, whatever the images."""
    scores = np.array(by_seed, dtype=float)
    pictures = np.repeat(scores[None], 50, axis=0)
    names = tuple("abcdefgh"[: len(scores)])
    return Resampled(names, tuple(range(scores.shape[1])), scores, pictures, pictures.mean(axis=2))


def test_p_that_decides_is_the_larger_of_holms_and_the_sign_flips() -> None:
    # Paired differences of 8 seeds, 7 of them +.1 and one -.0001, about: the t test is sure, flips give 4 / 256.
    apart = [0.1, 0.101, 0.099, 0.1, 0.102, 0.1, 0.098, -0.0001]
    (pair,) = ranking(drawn([apart, [0.0] * 8])).comparisons
    assert pair.p_holm == pytest.approx(scipy_stats.ttest_1samp(apart, 0).pvalue)
    assert pair.difference.p_sign_flip == 4 / 256
    assert pair.p_adjusted == 4 / 256
    assert pair.better == "a"


def test_borderline_is_a_p_near_five_percent_on_either_side() -> None:
    # Six seeds, all ahead: flips give 2 / 64 = .031, between .025 and .1, though the t test is sure.
    found = ranking(drawn([[0.5, 0.51, 0.52, 0.5, 0.51, 0.52], [0.1, 0.12, 0.1, 0.12, 0.1, 0.12]]))
    assert groups(found) == {"a": "a", "b": "b"}
    assert all(standing.borderline for standing in found.standings.values())
    # With eight, flips give .0078.
    sure = ranking(drawn([[0.5, 0.51, 0.52, 0.5, 0.51, 0.52, 0.5, 0.51], [0.1, 0.12] * 4]))
    assert not any(standing.borderline for standing in sure.standings.values())


def test_letters_of_piepho_by_hand() -> None:
    # Best first: A is apart from C and D, B from D. Groups AB, BC, CD: a chain, which one rank could not show.
    assert compact_letters("ABCD", [("A", "C"), ("A", "D"), ("B", "D")]) == {"A": "a", "B": "ab", "C": "bc", "D": "c"}
    # Nothing is apart: one letter. Everything is: a letter each.
    assert compact_letters("ABC", []) == {"A": "a", "B": "a", "C": "a"}
    assert compact_letters("ABC", [("A", "B"), ("C", "A"), ("B", "C")]) == {"A": "a", "B": "b", "C": "c"}
    # D, the lowest, is so unsteady that it is apart from nothing; A and B differ from C.
    assert compact_letters("ABCD", [("A", "C"), ("B", "C")]) == {"A": "a", "B": "a", "C": "b", "D": "ab"}
    assert compact_letters([], []) == {}


def test_letters_beyond_the_alphabet_stay_distinct() -> None:
    names = [f"m{number}" for number in range(60)]
    found = compact_letters(names, [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]])
    assert len(set(found.values())) == 60
    assert (found["m0"], found["m26"], found["m52"]) == ("a", "A", "a1")


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_two_methods_share_a_letter_exactly_where_they_are_not_apart(n: int) -> None:
    """Goes through every set of pairs that may be apart, possible or not: 1,024 of five methods."""
    names = "ABCDE"[:n]
    pairs = list(combinations(names, 2))
    for chosen in product((False, True), repeat=len(pairs)):
        apart = {pair for pair, is_apart in zip(pairs, chosen, strict=True) if is_apart}
        found = compact_letters(names, apart)
        assert all(found.values())
        for first, second in pairs:
            assert bool(set(found[first]) & set(found[second])) == ((first, second) not in apart)
        # No letter's methods all have another one: it would say nothing.
        having = [{name for name in names if letter in found[name]} for letter in set("".join(found.values()))]
        assert not any(one < other for one in having for other in having)


@pytest.mark.slow
def test_letters_follow_the_adjusted_p_of_the_boards_one_family() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        found = ranking(drawn(rng.normal(rng.normal(0, 0.02, (6, 1)), 0.02, (6, 8))))
        assert [pair.p_holm for pair in found.comparisons] == pytest.approx(
            list(multipletests([pair.difference.p for pair in found.comparisons], method="holm")[1]), abs=1e-12
        )
        own = groups(found)
        for pair in found.comparisons:
            assert bool(set(own[pair.first]) & set(own[pair.second])) == (pair.p_adjusted >= 0.05)


def test_places_are_by_the_mean_and_only_equal_means_share_one() -> None:
    found = ranking(drawn([[0.5, 0.7], [0.6, 0.6], [0.9, 0.9], [0.5, 0.5]])).standings
    assert {name: standing.place for name, standing in found.items()} == {"a": 2, "b": 2, "c": 1, "d": 4}


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
    drawn = rng.normal(0.6, 0.05, (2000, 3, 6)) + rng.normal(0, 0.05, (2000, 1, 6))
    drawn[:, 2] = drawn[:, 1]
    by_seed = rng.normal(0.6, 0.2, (3, 6))
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
        # Two checkpoints agree more than chance, image by image, and each goes its own way on some images.
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


@pytest.mark.parametrize("strata", [None, ["a", "b"] * 5])
def test_every_picture_is_drawn_once_on_average_the_first_and_the_last_among_them(strata: list[str] | None) -> None:
    for picture in range(10):
        right = np.zeros(10)
        right[picture] = 1
        draws = 10 * picture_draws(tally_of(right, strata=strata), values, 4000, 0)["accuracy"]
        # Of n draws with replacement, one image is drawn once on average, with variance 1 - 1/n.
        assert draws.mean() == pytest.approx(1, abs=0.07)
        assert draws.var() == pytest.approx(1 - 1 / (5 if strata else 10), abs=0.12)


def test_seeds_are_drawn_with_replacement() -> None:
    # One seed has every answer right and one none, so that images do not matter: 0, 1/2 and 1 at 1 : 2 : 1.
    runs = {0: tally_of(np.zeros(30)), 1: tally_of(np.ones(30))}
    found = resample({"a": runs, "b": {0: runs[1], 1: runs[0]}}, values, "accuracy", 4000)
    shares = [float((found.draws[:, 0] == mean).mean()) for mean in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    # Both methods have the same seeds drawn: what one gains the other loses.
    assert found.draws.sum(axis=1).tolist() == [1.0] * 4000
    assert found.estimates.tolist() == [0.5, 0.5]


def of_seeds(by_seed: np.ndarray) -> Resampled:
    """Returns methods whose images tell nothing, (methods, seeds): only seeds make them differ."""
    drawn = np.repeat(by_seed[None], 100, axis=0)
    methods, seeds = (tuple("abcdefgh"[: by_seed.shape[0]]), tuple(range(by_seed.shape[1])))
    return Resampled(methods, seeds, by_seed, drawn, drawn.mean(axis=2))


def test_who_is_better_is_said_after_holm_over_all_pairs() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, 8)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    # Differences of 8 seeds with mean m and deviation 1 have t = m sqrt(8): p .03 and .014, one each for 3 pairs.
    for wanted, better in ((0.03, None), (0.014, "a")):
        mean = scipy_stats.t.isf(wanted / 2, 7) / np.sqrt(8)
        by_seed = np.stack([noise + mean, np.zeros(8), rng.permutation(noise) * 40])
        found = ranking(of_seeds(by_seed)).comparisons
        raw = [scipy_stats.ttest_rel(by_seed[i], by_seed[j]).pvalue for i, j in ((0, 1), (0, 2), (1, 2))]
        assert raw[0] == pytest.approx(wanted)
        assert [c.difference.p for c in found] == pytest.approx(raw)
        assert [c.p_holm for c in found] == pytest.approx(list(multipletests(raw, method="holm")[1]))
        assert sign_flip(by_seed[0] - by_seed[1]) <= 0.05
        assert [c.better for c in found] == [better, None, None]


def test_a_difference_that_the_sign_flips_do_not_confirm_is_none() -> None:
    # Five seeds: the t test is as sure as one likes, 2 / 2**5 = .0625 is all that sign flips can say.
    by_seed = np.array([[0.9, 0.91, 0.9, 0.89, 0.9], [0.1, 0.1, 0.11, 0.1, 0.09]])
    (found,) = ranking(of_seeds(by_seed)).comparisons
    assert found.p_holm < 1e-6
    assert found.difference.p_sign_flip == 0.0625
    assert found.better is None


def test_two_seeds_and_two_methods_are_compared_and_fewer_are_not() -> None:
    assert len(ranking(of_seeds(np.array([[0.5, 0.6], [0.4, 0.55]]))).comparisons) == 1
    assert ranking(of_seeds(np.array([[0.5, 0.6]]))).comparisons == ()
    assert ranking(of_seeds(np.array([[0.5], [0.6]]))).comparisons == ()


def test_what_seeds_could_have_found_is_the_t_tests_least_difference_at_the_power() -> None:
    by_seed = np.random.default_rng(1).normal(0.7, 0.05, (2, 6))
    error = scipy_stats.sem(by_seed[0] - by_seed[1])
    for comparisons in (1, 21):
        least = scipy_stats.t.isf(0.05 / 2 / comparisons, 5) + scipy_stats.t.isf(0.2, 5)
        assert detectable_by_seeds(of_seeds(by_seed), "a", "b", comparisons) == pytest.approx(least * error)


def test_draws_as_far_from_nothing_as_the_estimate_are_counted_with_the_estimate_itself() -> None:
    draws = np.array([-2.0, 0.5, 2.0, 3.0])
    assert share_as_far(draws, 2.0, exact=True) == 3 / 4
    assert share_as_far(draws, -2.0, exact=False) == (1 + 3) / (1 + 4)


@pytest.mark.parametrize("unlike", [0, 1, 2])
def test_exchanges_are_drawn_where_not_all_are_asked_for_however_few_pictures_differ(unlike: int) -> None:
    a, b = tally_of(np.ones(30)), tally_of(np.array([0.0] * unlike + [1.0] * (30 - unlike)))
    drawn, exact = swapped_differences(a, b, values, "accuracy", 50, 0, exhaustive=False)
    assert (len(drawn), exact) == (50, False)
    every, exact = swapped_differences(a, b, values, "accuracy", 50, 0)
    assert (len(every), exact) == (2**unlike, True)
    # An image that differs counts for the one or for the other.
    assert set(np.round(drawn * 30).astype(int)) <= set(range(-unlike, unlike + 1, 2))


def test_draws_are_the_same_in_parts_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    runs = {name: {seed: tally_of(rng.binomial(1, 0.6, 40)) for seed in range(3)} for name in "ab"}
    whole = resample(runs, values, "accuracy", 101, 3, "task")
    alone = picture_draws(runs["a"][1], values, 101, 3, "task")["accuracy"]
    monkeypatch.setattr("mmpt_bench.stats.resampling.CHUNK", 50)
    parts = resample(runs, values, "accuracy", 101, 3, "task")
    assert whole.pictures_drawn.tolist() == parts.pictures_drawn.tolist()
    assert whole.draws.tolist() == parts.draws.tolist()
    assert picture_draws(runs["a"][1], values, 101, 3, "task")["accuracy"].tolist() == alone.tolist()
    assert alone.tolist() == whole.pictures_drawn[:, 0, 1].tolist()


def test_each_task_draws_pictures_for_itself_and_all_draw_seeds_alike() -> None:
    rng = np.random.default_rng(0)
    runs = {name: {seed: tally_of(rng.binomial(1, 0.6, 40)) for seed in range(3)} for name in "ab"}
    one, other, none = (resample(runs, values, "accuracy", seed=0, task=task) for task in ("one", "other", ""))
    assert len(one.draws) == 2000
    assert len({each.pictures_drawn.tobytes() for each in (one, other, none)}) == 3
    assert resample_all(runs, values, ["accuracy"])["accuracy"].draws.tolist() == none.draws.tolist()
    flat = {name: {seed: tally_of(np.full(40, float(seed % 2))) for seed in range(3)} for name in "ab"}
    first, second = (resample(flat, values, "accuracy", task=task).draws for task in ("one", "other"))
    assert first.tolist() == second.tolist()


def test_a_figure_that_is_unknown_or_undefined_is_refused_by_name() -> None:
    def half(sums: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        share = sums[..., 1] / sums[..., 0]
        return {"accuracy": share, "sometimes": np.where(share > 0.5, share, np.nan)}

    runs = {"a": tally_of(np.array([1.0, 0, 1, 1])), "b": tally_of(np.array([1.0, 1, 0, 1]))}
    for name in ("sometimes", "f1"):
        with pytest.raises(ValueError, match=f"`{name}` is undefined"):
            resample(runs, half, name)


def test_tasks_of_other_methods_seeds_or_draws_are_not_averaged() -> None:
    rng = np.random.default_rng(0)
    runs = {name: {seed: tally_of(rng.binomial(1, 0.6, 40)) for seed in range(3)} for name in "abc"}
    whole = resample(runs, values, "accuracy", 50)
    fewer = [
        resample({name: runs[name] for name in "ab"}, values, "accuracy", 50),
        resample({name: {s: runs[name][s] for s in (0, 1)} for name in runs}, values, "accuracy", 50),
        resample(runs, values, "accuracy", 49),
    ]
    for other in fewer:
        with pytest.raises(ValueError, match="tasks can be averaged"):
            average([(whole, 0.5, 1.0), (other, 0.5, 1.0)])
    both = average([(whole, 0.0, 1.0), (whole, 0.5, 1.0)])
    assert both.by_seed == pytest.approx((whole.by_seed + (whole.by_seed - 0.5) / 0.5) / 2)
    assert both.pictures_drawn == pytest.approx((whole.pictures_drawn + (whole.pictures_drawn - 0.5) / 0.5) / 2)


def test_large_counts_are_added_up_to_the_last_one() -> None:
    # 2**24 + 1 is the first whole number that single precision does not have.
    counts = np.array([[1, 2**24 + 1]])
    tally = Tally(("0",), ("",), ("asked/", "right/"), counts)
    assert set(picture_draws(tally, values, 20, 0)["accuracy"]) == {2.0**24 + 1}


@pytest.fixture
def forty(monkeypatch: pytest.MonkeyPatch) -> Resampled:
    """Forty methods at eight seeds, where more than twenty are many and the five best are compared with each other."""
    for module in (claims, differences):
        monkeypatch.setattr(module, "MANY", 20)
    monkeypatch.setattr(claims, "TOP", 5)
    rng = np.random.default_rng(0)
    by_seed = rng.normal(np.linspace(0.4, 0.8, 40)[:, None], 0.02, (40, 8))
    pictures = by_seed + rng.normal(0, 0.01, (200, 40, 8))
    return Resampled(tuple(f"m{i:02}" for i in range(40)), tuple(range(8)), by_seed, pictures, pictures.mean(axis=2))


def test_of_many_methods_all_meet_the_reference_and_the_best_and_the_best_meet_each_other(forty: Resampled) -> None:
    order = [forty.methods[i] for i in np.argsort(-forty.estimates)]
    best, found = set(order[:5]), ranking(forty, "m03")
    pairs = {frozenset((c.first, c.second)) for c in found.comparisons}
    wanted = {frozenset(("m03", name)) for name in forty.methods if name != "m03"}
    wanted |= {frozenset((order[0], name)) for name in forty.methods if name != order[0]}
    wanted |= {frozenset(pair) for pair in combinations(best, 2)}
    assert pairs == wanted
    assert len(found.comparisons) == 39 + 38 + 3 + 2 + 1
    assert {name for name, standing in found.standings.items() if standing.groups} == best
    assert [found.standings[name].place for name in order] == list(range(1, 41))


def test_a_pair_among_many_has_the_difference_that_it_has_among_few(
    forty: Resampled, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = [("m05", "m07")]
    among_many = method_differences(forty, pair)
    monkeypatch.setattr(differences, "MANY", 300)
    among_few = method_differences(forty, pair)
    assert among_many[0].p == pytest.approx(among_few[0].p, rel=1e-9)
    assert among_many[0].interval == pytest.approx(among_few[0].interval, rel=1e-9)


def test_places_on_resamples_count_those_above_with_equal_ones_sharing_a_place() -> None:
    draws = np.array([[0.3, 0.5, 0.5, 0.1], [0.2, 0.2, 0.2, 0.2]])
    assert claims._places(draws).tolist() == [[3, 1, 1, 4], [1, 1, 1, 1]]


def test_runs_added_up_in_blocks_are_those_added_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    board = {name: {s: simulated(rng, 0.5, np.zeros(30), 2) for s in range(3)} for name in "abcde"}
    whole = resample(board, values, "accuracy", 50)
    monkeypatch.setattr(resampling, "TOGETHER", 6)
    parts = resample(board, values, "accuracy", 50)
    for name in ("by_seed", "pictures_drawn", "draws"):
        assert getattr(parts, name).tobytes() == getattr(whole, name).tobytes()
