"""A recipe comes back as it was, and a file that is none is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.records.recipe import learnt
from mmpt_bench.records.recipe_file import read_recipe, write_recipe
from mmpt_bench.runs.request import check_same
from support.synthetic import keep, recipe, record, samples, store_in, task


def test_recipe_comes_back_with_its_key(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    before = recipe("lora", 3, {"learning_rate": 7e-4, "rank": 8, "targets": ["q", "v"], "alpha": None})
    store.run(before.run_name).write_recipe(before)
    assert store.run(before.run_name).read_recipe() == before


@pytest.mark.parametrize(("interaction", "was"), [(True, "front"), (False, "image")])
def test_recipe_from_before_a_hyperparameter_keeps_its_key(interaction: bool, was: str) -> None:
    params = {"interaction": interaction, "learning_rate": 7e-4}
    before, now = recipe("mmpt", 3, params), recipe("mmpt", 3, params | {"interaction_place": was})
    other = recipe("mmpt", 3, params | {"interaction_place": "image" if was == "front" else "front"})
    assert (now.train_key, now.variant_key) == (before.train_key, before.variant_key)
    assert other.train_key != before.train_key
    assert other.variant_key != before.variant_key
    check_same(before, now)
    with pytest.raises(RequestError, match="`params` was"):
        check_same(before, other)


def test_edited_recipe_in_a_runs_folder_is_another_run(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    path = store.run(recipe(seed=0).run_name).write_recipe(recipe(seed=0))
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(UntrustedRecord, match="it was edited"):
        store.run(recipe(seed=0).run_name).read_recipe()


def test_learning_rate_may_be_written_without_a_dot(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    write_recipe(recipe(), file)
    file.write_text(file.read_text().replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert read_recipe(file) == recipe()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("seed: 0", "sede: 0"), r"line \d+, column 1: there is no field `sede`. Did you mean `seed`"),
        (("seed: 0", "seed: many"), r"line \d+, column 1: the field `seed` is 'many', which is not int"),
        (("steps: 400", "stepz: 400"), r"line \d+, column 3: there is no field `stepz`. Did you mean `steps`"),
        (("seed: 0", "seed: 0\nseed: 1"), r"line \d+, column 1: `seed` stands twice"),
        (("seed: 0\n", ""), "the field `seed` is missing"),
        (("seed: 0", "seed: &a 0\ncopy: *a"), "aliases are not allowed"),
        (("seed: 0", "seed: {"), r"line \d+, column \d+"),
        (("seed: 0", "seed: !!python/object/apply:os.system ['true']"), r"line \d+, column \d+: could not determine"),
        (("seed: 0", "seed: " + "[" * 200), "nested too deep"),
        (("seed: 0", "seed: 0 # " + "x" * 70_000), "larger than 65,536 bytes"),
    ],
)
def test_malformed_recipe_is_refused_with_its_place(tmp_path: Path, edit: tuple[str, str], message: str) -> None:
    file = tmp_path / "recipe.yaml"
    write_recipe(recipe(), file)
    assert edit[0] in file.read_text()
    file.write_text(file.read_text().replace(*edit))
    with pytest.raises(RequestError, match=message):
        read_recipe(file)


@pytest.mark.parametrize("text", ["", "- 1\n", "\x00", "just text"])
def test_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RequestError, match="is no recipe"):
        read_recipe(tmp_path / "recipe.yaml")


def test_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "recipe.yaml")


def test_secrets_and_home_directory_reach_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/canary")
    monkeypatch.setenv("MY_API_KEY", "canary-value-123")
    store = store_in(tmp_path)
    told = "/home/canary/model: 401 for canary-value-123, hf_abcdefghijklmnopqrstuv, https://me:canary@proxy:80/"
    made_by = recipe(backbone="/home/canary/model")
    store.run(made_by.run_name).write_recipe(made_by)
    keep(store, record(store, task(), samples(4), "10", made_by, reason=told, environment={"/home/canary": [told]}))
    store.publish()
    for path in store.root.rglob("*"):
        if path.is_file():
            assert "canary" not in path.read_text(), path.name
            assert "hf_" not in path.read_text()
    assert store.run(made_by.run_name).read_recipe().backbone == "~/model"


def test_home_directory_in_a_field_of_the_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/canary")
    with pytest.raises(RequestError, match="`corpus` names your home directory"):
        store_in(tmp_path).run("lora-1").write_recipe(recipe(corpus="/home/canary/scenes"))


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "2020-01-01"])
def test_a_recipe_with_what_no_key_can_hold_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    write_recipe(recipe(), path)
    path.write_text(path.read_text().replace("learning_rate: 0.001", f"learning_rate: {value}"))
    assert value in path.read_text()
    with pytest.raises(RequestError, match="no finite number"):
        read_recipe(path)


def test_what_a_run_learnt_is_said_in_words() -> None:
    stage = {"strategy": "replay:0.1", "order": ["mnist", "vsr"], "after": ["lora-1"]}
    assert learnt("vsr train", {}) == "vsr train"
    assert learnt("vsr train, 0.1 replayed of mnist train", stage) == "replay:0.1, mnist → vsr"
    begun = {"from": "lora-1", "of": ["mnist train", 1e-3, 16], "seed": 0, "steps": 1000}
    assert learnt("vsr train", begun) == "vsr train after 1,000 steps on mnist train"
