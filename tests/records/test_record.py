"""A record of an earlier version means what it meant; an ablation and a curve come back as they were written."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import append_jsonl
from mmpt_bench.records import ablations
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.environment import commit
from mmpt_bench.records.learning_curves import read_learning_curves
from mmpt_bench.records.record import Record
from mmpt_bench.records.run_folder import LOG, RECORDS
from support.paths import ROOT
from support.synthetic import failed, recipe, record, samples, store_in, task

NEW_FIELDS = {
    "changed": None, "guard": True, "answers_bytes": 0, "answers_sha256": "", "notes": "", "n_read_otherwise": None,
    "n_reasoning": None, "n_unfinished": None, "threads": "", "optimizer_state": "",
}  # fmt: skip


def test_a_line_of_an_earlier_version_reads_as_not_knowing_what_it_does_not_say(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    row = record(store, task(), samples(4), "10").row
    assert not NEW_FIELDS.keys() & row.keys(), "a record that says nothing new has the bytes of before"
    append_jsonl(store.run(row["run"]).path(RECORDS), row)
    (read,) = store.records()
    assert {name: getattr(read, name) for name in NEW_FIELDS} == NEW_FIELDS


@pytest.mark.parametrize("name", NEW_FIELDS)
def test_what_a_record_says_beyond_earlier_versions_is_kept(name: str, tmp_path: Path) -> None:
    given = {"changed": {"r": 4}, "guard": False, "answers_bytes": 7, "n_read_otherwise": 0, "n_reasoning": 0}
    value = given.get(name, 0 if name == "n_unfinished" else "said")
    store = store_in(tmp_path)
    made = dataclasses.replace(record(store, task(), samples(4), "10"), **{name: value})
    assert made.row[name] == value
    store.run(made.run).append_record(made)
    assert store.records() == [made]


def test_a_failed_training_has_no_scores_and_cost_nothing_that_is_known() -> None:
    made = failed(recipe())
    assert (made.score, made.strict, made.interval, made.final_loss, made.limit) == (None,) * 5
    assert (made.n, made.n_pictures, made.n_unparsed, made.task_version, made.degenerate) == (0, 0, 0, 0, False)
    assert (made.train_seconds, made.eval_seconds, made.peak_bytes, made.adapter_bytes) == (0, 0, 0, 0)
    assert (made.values, made.environment, made.world_size) == ({}, {}, 1)
    required = {"eval_key", "train_key", "track", "suite", "run", "method", "params", "seed", "backbone", "corpus",
                "backbone_fingerprint", "corpus_fingerprint", "budget", "dtype", "learning_rate_source", "task",
                "status", "reason"}  # fmt: skip
    bare = Record(**{name: getattr(made, name) for name in required})
    assert (bare.trainable, bare.total) == (0, 0)
    assert (bare.n, bare.n_pictures, bare.n_unparsed, bare.answers_bytes) == (0, 0, 0, 0)


def test_a_records_own_fields_name_its_setting_and_variant(tmp_path: Path) -> None:
    made_by = recipe()
    made = record(store_in(tmp_path), task(), samples(4), "10", made_by)
    assert made.setting_key == made.track == made_by.setting_key("embedded")
    assert made.variant_key == made_by.variant_key


def test_an_ablation_comes_back_as_it_was_written_and_is_text_for_people(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert ablations.read_all(store) == []
    point = ablations.Point("lang=ä", "mmpt", {"text_length": "2"}, "key", False)
    plain = ablations.Point("lora", "lora", {}, "other", True)
    made = [ablations.Ablation(n, {"text_length": ["2", "4"]}, [point], [plain], 8, "mmpt-bench ablate") for n in "ba"]
    for each in made:
        ablations.write(store, each)
    assert ablations.read_all(store) == made[::-1]
    assert ablations.varied_in_ablations(store) == {"key": "b"}
    text = store.path("ablations", "a.json").read_text("utf-8")
    assert text.startswith('{\n "name": "a",\n')
    assert "lang=ä" in text
    assert text.endswith("}\n")
    store.path("ablations", "a.json").write_text(text.replace('"points"', '"pionts"'))
    with pytest.raises(UntrustedRecord, match=r"`ablations/a\.json` is damaged: 'points'"):
        ablations.read_all(store)


def test_a_log_is_a_curve_where_it_holds_every_step_from_the_first_on(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    logs = {"whole": [1, 2, 3], "twice": [1, 2, 2, 3], "without-the-first": [2, 3], "with-a-hole": [1, 3], "empty": []}
    for name, steps in logs.items():
        rows = [{"step": step, "loss": step + at / 10} for at, step in enumerate(steps)]
        store.run(name).path().mkdir(parents=True)
        append_jsonl(store.run(name).path(LOG), *rows)
    found = read_learning_curves(store)
    assert list(found) == ["twice", "whole"]
    assert (found["whole"].steps, found["whole"].losses) == ((1, 2, 3), (1.0, 2.1, 3.2))
    assert found["twice"].losses == (1.0, 2.2, 3.3)
    store.path("learning_curves.jsonl").write_text(
        '{"run":"old","steps":[1],"losses":[2.5]}\n{"run":"x","steps":[1]}\n'
    )
    with pytest.raises(UntrustedRecord, match="Line 2 of"):
        read_learning_curves(store)
    append_jsonl(store.run("odd").path(LOG), {"step": "one", "loss": 1.0})
    store.path("learning_curves.jsonl").unlink()
    with pytest.raises(UntrustedRecord, match="of `odd` is damaged"):
        read_learning_curves(store)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_the_commit_is_the_checkouts() -> None:
    head = subprocess.check_output(["git", "-C", str(ROOT), "rev-parse", "HEAD"], text=True).strip()
    assert commit().removesuffix("+changes") == head[:12]


@pytest.mark.parametrize("name", ["steps", "batch_size", "max_length"])
def test_a_budget_is_from_one_to_a_thousand_million(name: str) -> None:
    for value in (1, 10**9):
        assert getattr(Budget(**{name: value}), name) == value  # type: ignore[arg-type]
    for value in (0, 10**9 + 1):
        with pytest.raises(ValueError, match=f"`{name}` is {value}: a number from 1 to 1,000,000,000"):
            Budget(**{name: value})  # type: ignore[arg-type]


def test_a_recipe_has_one_process_or_more_and_no_seed_below_zero() -> None:
    assert (recipe(seed=0, world_size=1).seed, recipe(world_size=2).world_size) == (0, 2)
    for change in ({"seed": -1}, {"world_size": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(change))}` is"):
            recipe(**change)
