"""Learning rates: as many tries for each method, and an honest word on where a rate comes from."""

import dataclasses
import json
from pathlib import Path

import pytest

from mmpt_bench import rates, registry
from mmpt_bench.rates import Choice
from mmpt_bench.recipe import Budget


def choice(**changes: object) -> Choice:
    plain = Choice("lora", {"r": 16}, "b", "c", dataclasses.asdict(Budget()), ((1e-3, 0.5), (3e-3, 0.4), (1e-2, 0.6)))
    return dataclasses.replace(plain, **changes)


def test_candidates_are_log_uniform_and_a_longer_search_begins_like_a_shorter_one() -> None:
    assert rates.candidates(1e-4, 1e-2, 3) == [1e-3, 0.000316, 0.00316]
    assert rates.candidates(1e-4, 1e-2, 8)[:3] == rates.candidates(1e-4, 1e-2, 3)


def test_the_best_rate_has_the_lowest_validation_loss_and_failures_do_not_count() -> None:
    assert choice().best == 3e-3
    assert choice(trials=((1e-3, 0.5), (3e-3, None))).best == 1e-3


@pytest.mark.parametrize(
    ("trials", "edge"), [(((1e-3, 0.5), (3e-3, 0.4), (1e-2, 0.6)), False), (((1e-3, 0.3), (3e-3, 0.4)), True)]
)
def test_a_best_rate_at_the_edge_is_flagged(trials: tuple, edge: bool) -> None:
    assert choice(trials=trials).at_edge is edge


def test_a_file_of_choices_reads_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / rates.FILE
    path.write_text(rates.dump([choice(), choice(method="full")]))
    assert rates.read(path) == [choice(method="full"), choice()]
    assert rates.read(tmp_path / "absent.json") == []


def test_a_search_at_another_budget_is_used_and_said_to_be_one() -> None:
    found = rates.look_up([choice()], "lora", {"r": 16, "learning_rate": 1}, "b", "c", Budget(steps=7))
    assert found == (3e-3, f"searched: 3 rates on validation data, at {Budget().steps} steps")


def test_a_search_on_another_backbone_is_not_used() -> None:
    assert rates.look_up([choice()], "lora", {"r": 16}, "other", "c", Budget()) is None


def test_every_shipped_choice_was_made_with_the_same_number_of_tries_for_the_shipped_backbone() -> None:
    from mmpt_bench.embedded.suite import tuning_corpus
    from mmpt_bench.weights import backbone_fingerprint

    shipped = rates.read(rates.shipped())
    trained = [e.name for e in registry.find("method", "all") if registry.load_method(e).lr_range[1] > 0]
    assert sorted(c.method for c in shipped) == sorted(trained)
    assert len({len(c.trials) for c in shipped}) == 1
    assert {c.backbone_fingerprint for c in shipped} == {backbone_fingerprint("embedded")}
    assert {c.corpus_fingerprint for c in shipped} == {tuning_corpus().fingerprint}
    assert len({json.dumps(c.budget, sort_keys=True) for c in shipped}) == 1
