"""Learning rates: what is kept of a search, which one a run uses, and an honest word on where it comes from."""

import dataclasses
import json
from pathlib import Path

import pytest

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import append_jsonl
from mmpt_bench.methods import method_catalog
from mmpt_bench.records import learning_rates
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.learning_rates import Choice, Wanted
from mmpt_bench.records.rate_curve import Curve, Point
from mmpt_bench.records.rate_trials import DEV, LOSS, TRIALS, Search, Trial, TrialFile, read_trials

SEARCH = Search("lora", {"r": 16}, "b", "c", dataclasses.asdict(Budget()), "float32", DEV, "d")


def curve(best: float) -> Curve:
    """Returns three rates with two seeds each."""
    return Curve(tuple(Point(r, ((1000, 0.8 - (r != best) * 0.1), (1001, 0.79))) for r in (1e-3, 3e-3, 1e-2)))


def choice(best: float = 3e-3, **changes: object) -> Choice:
    return Choice(dataclasses.replace(SEARCH, **changes), curve(best), 0, ("mme", "pope"))


def wanted(**changes: object) -> Wanted:
    return dataclasses.replace(Wanted("lora", {"r": 16, "learning_rate": 1.0}, "b", "c", Budget()), **changes)


def test_a_file_of_choices_reads_back_as_it_was(tmp_path: Path) -> None:
    failed = Curve((Point(1e-3, ((1000, None),)), Point(3e-3, ((1000, 0.5), (1001, None)))))
    choices = [choice(method="full", dtype="bfloat16-mixed"), choice(), Choice(SEARCH, failed, 1)]
    path = tmp_path / learning_rates.FILE
    path.write_text(learning_rates.dump(choices))
    read = learning_rates.read(path)
    assert len(read) == 3
    assert all(each in read for each in choices)
    assert learning_rates.dump(learning_rates.read(path)) == path.read_text()
    assert learning_rates.read(tmp_path / "absent.json") == []


@pytest.mark.parametrize(
    "damage", ["[{}]", '[{"search": 1}]', "{", '[{"trials": [[0, 1]]}]', "[]", "{}", "null", "3", '"x"']
)
def test_a_damaged_file_is_refused_in_a_sentence(damage: str, tmp_path: Path) -> None:
    path = tmp_path / learning_rates.FILE
    path.write_text(damage)
    with pytest.raises(UntrustedRecord, match="is damaged"):
        learning_rates.read(path)


def test_a_search_of_an_earlier_version_is_read_and_said_to_be_one_by_validation_loss(tmp_path: Path) -> None:
    old = {
        "method": "lora", "params": {"r": 16}, "backbone_fingerprint": "b", "corpus_fingerprint": "c", "extended": 2,
        "budget": dataclasses.asdict(Budget()), "trials": [[1e-3, 0.5], [3e-3, 0.4], [1e-2, None], [3e-2, 0.6]],
    }  # fmt: skip
    path = tmp_path / learning_rates.FILE
    path.write_text(json.dumps([old]))
    (read,) = learning_rates.read(path)
    assert read.search.criterion == LOSS
    assert (read.rate, read.width, read.collapsed, read.extended) == (3e-3, None, (), 2)
    assert learning_rates.look_up([read], wanted()) == (3e-3, "searched: validation loss, 4 rates, 1 seed")
    # Where a dev score is there too, it counts: a fifth of the half decade below, and rates end there.
    assert learning_rates.look_up([read, choice(best=1e-2)], wanted()) == (
        1e-2, "searched: dev score, 3 rates, 2 seeds, 0.1 decades within 1 point of the best, best at the edge",
    )  # fmt: skip


def test_what_is_said_names_criterion_rates_seeds_width_and_what_was_different() -> None:
    # 1 point below .795 lies a fifth of the way to .745: .2 * log10(3) below, .2 * log10(10 / 3) above.
    told = "searched: dev score, 3 rates, 2 seeds, 0.2 decades within 1 point of the best"
    assert learning_rates.look_up([choice()], wanted()) == (3e-3, told)
    found = learning_rates.look_up([choice()], wanted(budget=Budget(steps=7)))
    assert found == (3e-3, f"{told}, at {Budget().steps} steps")
    found = learning_rates.look_up([choice()], wanted(budget=Budget(weight_decay=0.1, schedule="constant")))
    assert found == (3e-3, f"{told}, with schedule cosine, with weight_decay 0.0")


def test_a_collapsed_seed_of_the_chosen_rate_is_said() -> None:
    points = [Point(r, ((1000, s), (1001, 0.8))) for r, s in ((1e-3, 0.2), (3e-3, 0.72), (1e-2, 0.3))]
    found = learning_rates.look_up([Choice(SEARCH, Curve(tuple(points)), 0, ("mme",))], wanted())
    assert found is not None
    assert "worst seed over 3 points below the mean" in found[1]


@pytest.mark.parametrize("other", [{"backbone_fingerprint": "x"}, {"corpus_fingerprint": "x"}, {"method": "full"}])
def test_a_search_on_something_else_is_not_used(other: dict) -> None:
    assert learning_rates.look_up([choice(**other)], wanted()) is None


def test_half_precision_has_searches_of_its_own() -> None:
    known = [choice(best=1e-3), choice(best=1e-2, dtype="bfloat16-mixed")]
    for dtype, rate in (("float32", 1e-3), ("bfloat16-mixed", 1e-2)):
        found = learning_rates.look_up(known, wanted(dtype=dtype))
        assert found is not None
        assert found[0] == rate
    assert learning_rates.look_up(known, wanted(dtype="float16-mixed")) is None


def test_a_search_from_before_a_hyperparameter_was_made_with_its_default() -> None:
    defaults = {"r": 8, "init": "xavier", "learning_rate": 1.0}
    for init in ("xavier", "normal"):
        found = learning_rates.look_up([choice()], wanted(params={"r": 16, "init": init}, defaults=defaults))
        assert found is not None
        assert ("with other hyperparameters" in found[1]) == (init == "normal")


def test_a_search_from_before_the_image_slot_was_in_front() -> None:
    old = choice(method="mmpt", params={"interaction": True})
    defaults = {"interaction": True, "interaction_place": "image", "learning_rate": 7e-4}
    for place, is_other in (("front", False), ("image", True)):
        asked = {"interaction": True, "interaction_place": place}
        found = learning_rates.look_up([old], Wanted("mmpt", asked, "b", "c", Budget(), defaults=defaults))
        assert found is not None
        assert ("with other hyperparameters" in found[1]) == is_other


@pytest.mark.parametrize(
    ("asked", "best"),
    [({"r": 2, "k": 1}, 3e-3), ({"r": 4, "k": 1}, 1e-3), ({"r": 4, "k": 7}, 1e-3), ({"r": 5, "k": 1}, 3e-3)],
)
def test_a_variant_takes_its_own_search_else_the_nearest_one_and_the_methods_before_another_variants(
    asked: dict, best: float
) -> None:
    defaults = {"r": 16, "k": 1}
    variant, plain = choice(best=1e-3, params={"r": 4, "k": 1}), choice(best=3e-3, params=defaults)
    for known in ([variant, plain], [plain, variant]):
        found = learning_rates.look_up(known, wanted(params=asked, defaults=defaults))
        assert found is not None
        assert found[0] == best


def test_a_search_in_which_everything_failed_is_not_used() -> None:
    failed = Choice(SEARCH, Curve((Point(1e-3, ((1000, None),)),)))
    assert learning_rates.look_up([failed], wanted()) is None


UNSEARCHED = {"adapter", "dynamic", "moe_lora"}
"""Later methods, whose rows say that their learning rate was not searched."""


def test_every_shipped_choice_was_made_with_the_same_search_for_the_shipped_backbone() -> None:
    from mmpt_bench.embedded.mixture import tuning_corpus
    from mmpt_bench.sources.weights import backbone_fingerprint

    shipped = learning_rates.read(learning_rates.shipped())
    trained = [c for e in method_catalog.find_methods("all") if (c := method_catalog.load_method(e)).lr_range[1] > 0]
    searched = [(c.search.method, c.search.params) for c in shipped]
    assert {method.name for method in trained} >= UNSEARCHED
    for method in [method for method in trained if method.name not in UNSEARCHED]:
        plain = {name: value for name, value in dataclasses.asdict(method()).items() if name != "learning_rate"}
        assert (method.name, plain) in searched
    conditions = [dataclasses.replace(c.search, method="", params={}) for c in shipped]
    assert len({each.key for each in conditions}) == 1
    assert conditions[0].backbone_fingerprint == backbone_fingerprint("embedded")
    assert conditions[0].corpus_fingerprint == tuning_corpus().fingerprint
    if conditions[0].criterion == LOSS:
        assert len({c.n_trainings for c in shipped}) == 1
    else:
        # The whole grid at one seed, and five seeds for those that could be chosen, for every method alike.
        assert {len(c.curve.finalists[0].scores) for c in shipped} == {5}
        assert all(c.n_trainings >= 34 or any(p.failed for p in c.curve.points) for c in shipped)


def test_trials_of_an_earlier_protocol_are_passed_over_and_damaged_ones_refused(tmp_path: Path) -> None:
    trial = Trial(SEARCH, 1e-3, 1000, 0.5, {"mme": 0.5}, "", 3.0, 1, "abc", "2026-01-01T00:00:00+00:00")
    row, path = dataclasses.asdict(trial), tmp_path / TRIALS
    old = {"method": "lora", "rate": 0.1, "loss": 0.2}
    path.write_text(
        "".join(json.dumps(each) + "\n" for each in (old, row, row | {"seed": 1001, "score": None, "reason": "step 3"}))
    )
    assert read_trials(path) == [trial, dataclasses.replace(trial, seed=1001, score=None, reason="step 3")]
    assert read_trials(tmp_path / "absent.jsonl") == []
    for damage in ({"rate": 0.0}, {"rate": "1e-3"}, {"score": 1.5}, {"search": {}}, {"loss": 1.0}, {"seed": 0.5}):
        path.write_text(json.dumps(row | damage) + "\n")
        with pytest.raises(UntrustedRecord, match="Line 1 of"):
            read_trials(path)


def test_a_file_of_trials_that_grows_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    def trial(rate: float, method: str = "lora") -> Trial:
        return Trial(Search(method, {}, "b", "c", {}), rate, 1000, 0.5, {}, "", 1.0, 1, "", "")

    path, search = tmp_path / TRIALS, trial(1e-3).search
    known = TrialFile(path).read()
    assert known.scores(search) == {}
    append_jsonl(path, trial(1e-3).row)
    assert known.read().scores(search) == {(1e-3, 1000): 0.5}
    # What was read once is not looked at again: a changed line of the same length says so.
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.6"))
    append_jsonl(path, trial(3e-3).row, trial(1e-2, "vpt").row)
    assert known.read().scores(search) == {(1e-3, 1000): 0.5, (3e-3, 1000): 0.5}
    assert known.scores(trial(1e-2, "vpt").search) == {(1e-2, 1000): 0.5}
    with path.open("ab") as stream:
        stream.write(b'{"search": {')
    assert len(known.read().trials) == 3
    append_jsonl(path, trial(1e-1).row)
    assert known.read().scores(search)[1e-1, 1000] == 0.5
    with path.open("ab") as stream:
        stream.write(b"[]x\n")
    with pytest.raises(UntrustedRecord, match=f"Line 5 of `{TRIALS}` is damaged"):
        known.read()
    path.write_bytes(b"")
    assert known.read().trials == []
