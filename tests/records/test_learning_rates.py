"""Learning rates: as many tries for each method, and an honest word on where a rate comes from."""

import dataclasses
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mmpt_bench.methods import method_catalog
from mmpt_bench.records import learning_rates
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.learning_rates import Choice
from support.command import bench


def choice(**changes: object) -> Choice:
    plain = Choice("lora", {"r": 16}, "b", "c", dataclasses.asdict(Budget()), ((1e-3, 0.5), (3e-3, 0.4), (1e-2, 0.6)))
    return dataclasses.replace(plain, **changes)


def test_candidates_are_log_uniform_and_a_longer_search_begins_like_a_shorter_one() -> None:
    assert learning_rates.candidates(1e-4, 1e-2, 3) == [1e-3, 0.000316, 0.00316]
    assert learning_rates.candidates(1e-4, 1e-2, 8)[:3] == learning_rates.candidates(1e-4, 1e-2, 3)


def test_the_best_rate_has_the_lowest_validation_loss_and_failures_do_not_count() -> None:
    assert choice().best == 3e-3
    assert choice(trials=((1e-3, 0.5), (3e-3, None))).best == 1e-3


@pytest.mark.parametrize(
    ("trials", "edge"), [(((1e-3, 0.5), (3e-3, 0.4), (1e-2, 0.6)), False), (((1e-3, 0.3), (3e-3, 0.4)), True)]
)
def test_a_best_rate_at_the_edge_is_flagged(trials: tuple, edge: bool) -> None:
    assert choice(trials=trials).at_edge is edge


def test_a_file_of_choices_reads_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / learning_rates.FILE
    path.write_text(learning_rates.dump([choice(), choice(method="full")]))
    assert learning_rates.read(path) == [choice(method="full"), choice()]
    assert learning_rates.read(tmp_path / "absent.json") == []


def test_a_search_at_another_budget_is_used_and_said_to_be_one() -> None:
    found = learning_rates.look_up([choice()], "lora", {"r": 16, "learning_rate": 1}, "b", "c", Budget(steps=7))
    assert found == (3e-3, f"searched: 3 rates on validation data, at {Budget().steps} steps")


def test_a_search_on_another_backbone_is_not_used() -> None:
    assert learning_rates.look_up([choice()], "lora", {"r": 16}, "other", "c", Budget()) is None


def test_a_search_from_before_a_hyperparameter_was_made_with_its_default() -> None:
    defaults = {"r": 8, "init": "xavier", "learning_rate": 1.0}
    for init, told in (("xavier", "searched: 3 rates on validation data"), ("normal", "with other hyperparameters")):
        found = learning_rates.look_up([choice()], "lora", {"r": 16, "init": init}, "b", "c", Budget(), defaults)
        assert found is not None
        assert told in found[1]
        assert ("other" in found[1]) == (init == "normal")


@pytest.mark.parametrize(
    ("asked", "best"),
    [({"r": 2, "k": 1}, 3e-3), ({"r": 4, "k": 1}, 1e-3), ({"r": 4, "k": 7}, 1e-3), ({"r": 5, "k": 1}, 3e-3)],
)
def test_a_variant_takes_its_own_search_else_the_nearest_one_and_the_methods_before_another_variants(
    asked: dict, best: float
) -> None:
    defaults = {"r": 16, "k": 1}
    variant = choice(params={"r": 4, "k": 1}, trials=((1e-3, 0.4), (3e-3, 0.5)))
    plain = choice(params=defaults, trials=((1e-3, 0.5), (3e-3, 0.4)))
    for known in ([variant, plain], [plain, variant]):
        found = learning_rates.look_up(known, "lora", asked, "b", "c", Budget(), defaults)
        assert found is not None
        assert found[0] == best


@pytest.mark.xfail(
    strict=True, reason="the shipped rates are version 3's: those of version 4's base are not searched yet"
)
def test_every_shipped_choice_was_made_with_the_same_number_of_tries_for_the_shipped_backbone() -> None:
    from mmpt_bench.embedded.suite import tuning_corpus
    from mmpt_bench.sources.weights import backbone_fingerprint

    shipped = learning_rates.read(learning_rates.shipped())
    trained = [c for e in method_catalog.find_methods("all") if (c := method_catalog.load_method(e)).lr_range[1] > 0]
    searched = [(c.method, c.params) for c in shipped]
    for method in trained:
        plain = {name: value for name, value in dataclasses.asdict(method()).items() if name != "learning_rate"}
        assert (method.name, plain) in searched
    assert len({len(c.trials) for c in shipped}) == 1
    assert {c.backbone_fingerprint for c in shipped} == {backbone_fingerprint("embedded")}
    assert {c.corpus_fingerprint for c in shipped} == {tuning_corpus().fingerprint}
    assert len({json.dumps(c.budget, sort_keys=True) for c in shipped}) == 1


def test_the_next_rate_lies_beyond_the_edge_or_between_the_best_and_its_neighbour() -> None:
    assert learning_rates.next_rate([(1e-3, 0.5), (1e-2, 0.4)]) == 0.0316
    assert learning_rates.next_rate([(1e-3, 0.4), (1e-2, 0.5)]) == 0.000316
    assert learning_rates.next_rate([(1e-4, 0.5), (1e-3, 0.4), (1e-1, 0.6)]) == 1e-2
    assert learning_rates.next_rate([(1e-3, 0.4), (1e-2, None)]) == 0.000316
    assert learning_rates.next_rate([(1e-3, None), (1e-2, None)]) == 0.000316


def test_the_expected_best_is_the_mean_over_all_subsets_that_have_a_result() -> None:
    losses = [0.9, 0.4, None, 0.7, 0.5]
    found = learning_rates.expected_best([(float(i), loss) for i, loss in enumerate(losses)])
    for k in range(1, 6):
        best = [min(kept) for s in combinations(losses, k) if (kept := [v for v in s if v is not None])]
        assert found[k - 1] == pytest.approx(np.mean(best), abs=1e-12)


def test_the_expected_best_of_failures_alone_is_nothing() -> None:
    assert learning_rates.expected_best([(1.0, None), (2.0, None)]) == [None, None]


def test_a_search_in_which_everything_failed_is_not_used() -> None:
    assert learning_rates.look_up([choice(trials=((1e-3, None),))], "lora", {"r": 16}, "b", "c", Budget()) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--range", "lora"), "write METHOD=LOW,HIGH"),
        (("--range", "lora=1,2,3"), "write METHOD=LOW,HIGH"),
        (("--range", "lora=0,1"), "above 0"),
        (("--range", "lora=1e-2,1e-3"), "below the highest"),
        (("--range", "lorra=1e-4,1e-3"), "Did you mean `lora`"),
        (("--methods", "frozen"), "None of these methods"),
        (("--trials", "1"), "--trials"),
        (("--set", "lora.learning_rate=1e-3"), "what is searched"),
        (("--methods", "lora", "--set", "lora.rank=2"), "rank"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert said in bench("tune", *words, cwd=tmp_path, code=2).stderr
    assert not (tmp_path / "results").exists()


def test_every_method_gets_as_many_trials_each_is_kept_and_none_is_made_twice(tmp_path: Path) -> None:
    words = ("tune", "--methods", "projector,frozen,lora", "--trials", "2", "--extend", "1", "--steps", "2",
             "--batch-size", "2", "--range", "lora=1e-4,1e-3")  # fmt: skip
    bench(*words, cwd=tmp_path)
    log = tmp_path / "results" / learning_rates.TRIALS
    kept = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["method"] for row in kept] == ["projector"] * 3 + ["lora"] * 3
    made = {each.method: each for each in learning_rates.read(tmp_path / "results" / learning_rates.FILE)}
    assert {name: (len(each.trials), each.extended) for name, each in made.items()} == {
        "projector": (3, 1),
        "lora": (3, 1),
    }
    assert made["lora"].drawn == made["lora"].trials[:2]
    assert [rate for rate, _ in made["lora"].drawn] == learning_rates.candidates(1e-4, 1e-3, 2)
    before = log.read_bytes()
    bench(*words, cwd=tmp_path)
    assert log.read_bytes() == before
    said = bench("run", "--method", "lora", "--plan", "--steps", "2", "--batch-size", "2", cwd=tmp_path).stdout
    assert "searched: 3 rates on validation data" in said


def test_a_variant_of_a_method_has_a_search_of_its_own(tmp_path: Path) -> None:
    words = ("--method", "lora", "--steps", "2", "--batch-size", "2")
    bench("tune", *words, "--trials", "2", "--extend", "0", "--set", "lora.r=2", cwd=tmp_path)
    (made,) = learning_rates.read(tmp_path / "results" / learning_rates.FILE)
    assert made.params["r"] == 2
    assert "on validation data" in bench("run", *words, "--set", "lora.r=2", "--plan", cwd=tmp_path).stdout
    said = bench("run", *words, "--set", "lora.r=3", "--plan", cwd=tmp_path).stdout
    assert "with other hyperparameters" in said
