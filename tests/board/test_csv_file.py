"""scores.csv and leaderboard.csv: tables that pandas reads without a second thought."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmpt_bench.board.from_records import boards, named
from mmpt_bench.board.writers.csv_file import SCORES, leaderboard_csv, score_rows, scores_csv
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.ablations import Ablation, Point, write
from mmpt_bench.records.store import Store
from support.paths import ROOT
from support.synthetic import failed, keep, recipe, record, samples, store_in, task

COLOURS, SHAPES = task("colours", "Colours"), task("shapes", "Shapes")
TASKS = {"colours": COLOURS, "shapes": SHAPES}
FAST = 200


def scores(store: Store, tasks: dict[str, Task] | None = None) -> pd.DataFrame:
    tasks = TASKS if tasks is None else tasks
    records = store.records()
    text = scores_csv(score_rows(records, named(store, tasks, records), tasks)).decode()
    assert "{" not in text
    return pd.read_csv(io.StringIO(text))


def leaderboard(store: Store, tasks: dict[str, Task] | None = None) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(leaderboard_csv(boards(store, TASKS if tasks is None else tasks, FAST)).decode()))


def test_scores_have_a_row_a_seed_task_and_metric_with_the_interval_of_the_headline(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed, right in enumerate(("1110", "11110")):  # 75 and 80 of 100
        keep(store, record(store, COLOURS, samples(100), right, recipe("lora", seed)))
    found = scores(store)
    assert list(found.columns) == list(SCORES)
    main = found[found.is_headline]
    assert main.set_index("seed").value.to_dict() == {0: 0.75, 1: 0.8}
    assert set(main.unit) == {"fraction"}
    assert set(main.n) == {100}
    # Binomial with n 100 and p .75: standard error .0433, two of them on either side.
    assert (main.ci_low.iloc[0], main.ci_high.iloc[0]) == pytest.approx((0.665, 0.835), abs=0.02)
    others = found[~found.is_headline]
    assert len(others)
    assert others.ci_low.isna().all()
    assert others.n.isna().tolist() == ["/" in name for name in others.metric]
    assert found.asked.isna().all()
    assert not found.duplicated(["run", "task", "metric"]).any()


def test_rows_say_what_stood_before_the_questions(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    made = record(store, COLOURS, samples(100), "1110", recipe("lora", 0), asking={"few_shot": 2})
    keep(store, dataclasses.replace(made, track=made.setting_key))
    assert set(scores(store).asked) == {"2 solved examples before each question"}


@pytest.mark.parametrize(("n_seeds", "letters"), [(5, False), (6, True)])
def test_letters_stand_where_seeds_are_enough_to_tell_methods_apart(
    n_seeds: int, letters: bool, tmp_path: Path
) -> None:
    store = store_in(tmp_path)
    for seed in range(n_seeds):
        for method, right in (("lora", "1110"), ("vpt", "10")):
            keep(store, record(store, COLOURS, samples(100), right, recipe(method, seed)))
    found = leaderboard(store)
    assert found.place.tolist() == [1, 2]
    assert found.groups.notna().tolist() == [letters] * 2


def test_points_and_shares_of_mme_have_their_own_units(tmp_path: Path) -> None:
    mme = task_catalog.load_task(task_catalog.task_entries()["mme"])
    asked = [*samples(8, "color", per_picture=2), *samples(8, "count", per_picture=2)]
    store = store_in(tmp_path)
    keep(store, record(store, mme, asked, "1110"))
    found = scores(store, {"mme": mme}).set_index("metric")
    # Of each two images one has both questions right: acc .75, acc+ .5, 125 points, in two subtasks.
    assert (found.loc["acc/color"].value, found.loc["acc/color"].unit) == (0.75, "fraction")
    assert (found.loc["acc_plus/color"].value, found.loc["acc_plus/color"].unit) == (0.5, "fraction")
    assert (found.loc["score/color"].value, found.loc["score/color"].unit) == (125.0, "points")
    assert (found.loc["total"].value, found.loc["total"].unit) == (250.0, "points")
    # A folder whose task is not here tells the unit by the most that the record says.
    assert scores(store, {}).set_index("metric").unit.equals(found.unit)


def test_variants_are_called_as_on_the_leaderboard_and_ablations_apart(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    made: dict[int, Any] = {}
    for r in (2, 16, 4):
        made[r] = record(store, COLOURS, samples(100), "1110", recipe("lora", params={"r": r, "learning_rate": 1e-3}))
        keep(store, made[r])
    point = Point("lora (r=4)", "lora", {"lora.r": "4"}, made[4].variant_key, is_default=False)
    write(store, Ablation("ranks", {"lora.r": ["4"]}, [point], [], None, "mmpt-bench ablate"))
    found = scores(store).query("is_headline")
    on_board = found[found.ablation.isna()]
    assert set(on_board.variant) == {"lora (r=2)", "lora (r=16)"} == set(leaderboard(store).variant)
    assert found[found.ablation == "ranks"].variant.tolist() == ["lora (r=4)"]


def test_leaderboard_has_a_row_a_variant_and_a_column_a_task(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed in range(2):
        keep(store, record(store, COLOURS, samples(100), "1110", recipe("lora", seed)))
        keep(store, record(store, SHAPES, samples(60), "11110", recipe("lora", seed)))
    keep(store, record(store, COLOURS, samples(100), "1", recipe("vpt")))
    keep(store, failed(recipe("prefix", 0), "the loss was not finite"))
    keep(store, failed(recipe("prefix", 1), "the loss was not finite"))
    found = leaderboard(store).set_index("variant")
    # 75 of 100 and 48 of 60 are .5 and .6 above chance.
    assert found.loc["lora", ["overall", "colours", "shapes"]].tolist() == pytest.approx([0.55, 0.75, 0.8])
    assert (found.loc["lora"].seeds, found.loc["lora"].place) == (2, 1)
    assert (found.loc["vpt"].colours, math.isnan(found.loc["vpt"].shapes)) == (1.0, True)
    assert "lacks shapes" in found.loc["vpt"].remarks
    assert (
        found.loc["prefix"].remarks == "seed 0 failed: the loss was not finite; seed 1 failed: the loss was not finite"
    )


def test_the_six_tasks_make_twenty_columns() -> None:
    published = task_catalog.task_entries()
    assert len(published) == 6
    assert len(next(csv.reader(io.StringIO(leaderboard_csv(()).decode())))) + len(published) == 20


def test_a_task_called_like_a_column_takes_none_of_it(tmp_path: Path) -> None:
    store, seeds = store_in(tmp_path), task("seeds", "Seeds")
    keep(store, record(store, seeds, samples(100), "1110", recipe("lora")))
    found = leaderboard(store, {"seeds": seeds})
    assert (found.seeds[0], found["seeds (task)"][0]) == (1, 0.75)


def test_the_pivot_of_the_readme_averages_neither_rules_nor_data_sets(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for right, changes in (("1110", {}), ("1100", {"parse_rule": "plain"}), ("1", {"dataset": "other rows"})):
        keep(store, record(store, COLOURS, samples(100), right, **changes))
    readme = (ROOT / "README.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "pivot_table" in block]
    assert code in readme
    names: dict[str, Any] = {"scores": scores(store)}
    lines = [line for line in code.splitlines() if line and "import" not in line and "read_csv" not in line]
    exec("\n".join([*lines[:-1], f"found = {lines[-1]}"]), names)
    assert sorted(names["found"].loc[:, "colours"].to_numpy().ravel().tolist()) == [0.5, 0.75, 1.0]
