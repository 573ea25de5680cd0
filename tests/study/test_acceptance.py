"""The acceptance of a search: dev against test, and what neighbouring rates gain on test; values worked by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from mmpt_bench import api
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import append_jsonl
from mmpt_bench.records import learning_rates
from mmpt_bench.records.learning_rates import Choice
from mmpt_bench.records.rate_curve import Curve, Point
from mmpt_bench.records.rate_trials import DEV, TESTS, TRIALS, Search, Trial
from mmpt_bench.records.store import Store
from mmpt_bench.study.searches.acceptance import Gain, acceptances, gains, spearman

SEARCH = Search("lora", {"r": 16}, "b", "c", {"steps": 4, "batch_size": 2}, "float32", DEV, "d")
Scores = dict[float, list[float | None]]
DEV_SCORES: Scores = {1e-4: [0.5, 0.5, 0.5], 1e-3: [0.8, 0.82, 0.81], 3e-3: [0.7], 1e-2: [0.6, 0.6, 0.6]}


def store_with(tmp_path: Path, test: Scores, search: Search = SEARCH, dev: Scores = DEV_SCORES) -> Store:
    """Returns a results folder with one more finished search, its trials, and what its models scored on test."""
    store = Store(tmp_path)
    for name, scores in ((TRIALS, dev), (TESTS, test)):
        for rate, of in scores.items():
            for seed, score in enumerate(of, start=1000):
                row = dataclasses.asdict(Trial(search, rate, seed, score, {}, "", 1.0, 1, "", ""))
                append_jsonl(store.path(name), row)
    points = tuple(Point(rate, tuple(enumerate(of, start=1000))) for rate, of in dev.items())
    path = store.path(learning_rates.FILE)
    path.write_text(learning_rates.dump([*learning_rates.read(path), Choice(search, Curve(points), 0, ("mme",))]))
    return store


def test_a_gain_is_the_mean_paired_difference_over_common_seeds_and_its_standard_error(tmp_path: Path) -> None:
    test: Scores = {1e-4: [0.7, 0.76, 0.82], 1e-3: [0.7, 0.72, 0.71], 3e-3: [0.9], 1e-2: [0.6, 0.6, None]}
    ((of,),) = [each.searched for each in acceptances(store_with(tmp_path, test))]
    # Differences 0, .04, .11: mean .05, s = sqrt((.0025 + .0001 + .0036) / 2) = .0557, / sqrt(3) = .0321.
    # 3e-3 has one seed in common, 1e-2 two with a score: neither is compared.
    assert of.gains == (Gain(1e-4, pytest.approx(0.05), pytest.approx(0.0321455, abs=1e-6), 3),)
    assert of.gains[0].is_large


def test_gains_are_tested_as_scipy_tests_them_and_corrected_by_holm(tmp_path: Path) -> None:
    test: Scores = {1e-4: [0.7, 0.76, 0.82], 1e-3: [0.7, 0.72, 0.71], 1e-2: [0.75, 0.77, 0.755]}
    (group,) = acceptances(store_with(tmp_path, test))
    apart = {rate: np.subtract(test[rate], test[1e-3]) for rate in (1e-4, 1e-2)}
    p = {rate: ttest_1samp(of, 0, alternative="greater").pvalue for rate, of in apart.items()}
    assert group.searched[0].gains[0].p == pytest.approx(p[1e-4])
    assert group.p_values == [("lora", pytest.approx(2 * p[1e-2])), ("lora", pytest.approx(p[1e-4]))]
    assert "After Holm over the 2 comparisons" in (text := api.accept_search(tmp_path).text)
    assert "finds a gain for lora." in text


def test_a_neighbour_with_too_few_seeds_is_passed_over_for_the_next_one(tmp_path: Path) -> None:
    test: Scores = {1e-4: [0.5] * 3, 1e-3: [0.8, 0.8, 0.8], 3e-3: [0.99], 1e-2: [0.7, 0.8, 0.9]}
    ((of,),) = [each.searched for each in acceptances(store_with(tmp_path, test))]
    assert [gain.rate for gain in of.gains] == [1e-4, 1e-2]
    assert not any(gain.is_large for gain in of.gains)
    assert "for no method (lowest p " in api.accept_search(tmp_path).text


def test_where_dev_predicts_test_and_no_neighbour_gains_the_protocol_is_accepted(tmp_path: Path) -> None:
    made = store_with(tmp_path, {rate: [s and s - 0.1 for s in of] for rate, of in DEV_SCORES.items()})
    store_with(tmp_path, DEV_SCORES, dataclasses.replace(SEARCH, method="full"))
    (group,) = acceptances(made)
    assert group.n_models == 20
    assert group.is_accepted
    text = api.accept_search(tmp_path).text
    assert "**Accepted.**" in text
    assert (tmp_path / "search.md").read_text() == text
    assert "| lora | 0.001 | 81.0 | 80.0 | 71.0 | 70.0 |" in text
    assert "| full | 0.003 | 1 | 70.0 | 70.0 | 70.0 | 70.0 |" in text


def test_a_neighbour_that_gains_or_a_dev_that_does_not_predict_is_not_accepted(tmp_path: Path) -> None:
    gaining = {**DEV_SCORES, 1e-4: [0.9, 0.9, 0.9]}
    (group,) = acceptances(store_with(tmp_path / "a", gaining))
    assert not group.is_accepted
    assert "for lora." in api.accept_search(tmp_path / "a").text
    reverse: Scores = {rate: [s and 1 - s for s in of] for rate, of in DEV_SCORES.items()}
    (group,) = acceptances(store_with(tmp_path / "b", reverse))
    assert group.correlation == pytest.approx(-1)
    assert not group.is_accepted
    assert "**Not accepted.**" in api.accept_search(tmp_path / "b").text


def test_failed_models_and_searches_under_other_conditions_are_not_mixed_in(tmp_path: Path) -> None:
    dev: Scores = {**DEV_SCORES, 1e-1: [None]}
    store = store_with(tmp_path, {**DEV_SCORES, 1e-1: [None]}, dev=dev)
    store_with(tmp_path, DEV_SCORES, dataclasses.replace(SEARCH, dtype="bfloat16-mixed"))
    assert [group.n_models for group in acceptances(store)] == [10, 10]


def test_spearman_is_scipys_and_undefined_without_variation() -> None:
    # Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15) = .8.
    assert spearman([(0.1, 0.2), (0.2, 0.6), (0.3, 0.5), (0.4, 0.9)]) == pytest.approx(0.8)
    assert spearman([(0.1, 0.2), (0.2, 0.2), (0.3, 0.2)]) is None
    assert spearman([(0.1, 0.2), (0.2, 0.3)]) is None


def test_a_choice_without_a_rate_has_no_gain() -> None:
    assert gains(Choice(SEARCH, Curve((Point(1e-3, ((1000, None),)),))), {}) == ()


def test_without_test_scores_the_table_is_refused(tmp_path: Path) -> None:
    store_with(tmp_path, {})
    with pytest.raises(RequestError, match="--also-test"):
        api.accept_search(tmp_path)


def test_models_without_a_test_score_are_named_and_nothing_is_accepted(tmp_path: Path) -> None:
    made = store_with(tmp_path, DEV_SCORES)
    assert acceptances(made)[0].is_accepted
    store_with(tmp_path, {1e-3: DEV_SCORES[1e-3]}, dataclasses.replace(SEARCH, method="full"))
    store_with(tmp_path, {}, dataclasses.replace(SEARCH, method="vpt"))
    assert not acceptances(made)[0].is_accepted
    text = api.accept_search(tmp_path).text
    assert "**Not accepted.**" in text
    assert "Not scored on test: 7 models of full;" in text
    assert "Not scored on test: 10 models of vpt;" in text


def test_a_trial_with_two_scores_and_a_choice_from_other_scores_are_refused(tmp_path: Path) -> None:
    store_with(tmp_path, DEV_SCORES)
    trials = tmp_path / TRIALS
    lines = trials.read_text().splitlines(keepends=True)
    trials.write_text("".join(lines) + lines[0])
    assert acceptances(Store(tmp_path))[0].n_models == 10
    trials.write_text("".join(lines) + lines[0].replace('"score":0.5', '"score":0.1'))
    with pytest.raises(UntrustedRecord, match=r"Line 11 .* another score for a trial .*: lora at 0.0001, seed 1000"):
        api.accept_search(tmp_path)
    trials.write_text("".join(lines).replace('"score":0.7', '"score":0.1'))
    with pytest.raises(UntrustedRecord, match=r"was made from other scores .*: lora at 0.003, seed 1000"):
        api.accept_search(tmp_path)
