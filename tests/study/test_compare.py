"""Comparisons: what one sentence may say, at which scope, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mmpt_bench.board.from_records import evidence
from mmpt_bench.common.errors import RequestError
from mmpt_bench.records.budget import SMOKE_LIMIT, SMOKE_STEPS, Budget
from mmpt_bench.records.store import Store
from mmpt_bench.stats.differences import detectable_by_seeds, method_difference
from mmpt_bench.stats.resampling import resample
from mmpt_bench.study.comparisons.compare import answer_to
from mmpt_bench.study.comparisons.text import as_plain, tables
from support.command import bench
from support.synthetic import keep, recipe, record, samples, store_in, task

TASKS = {"colours": task(), "shapes": task("shapes", "Shapes")}
ASKED = samples(60)


def filled(folder: Path, n_seeds: int, patterns: dict[str, str]) -> Store:
    """Returns a store in which a method answers by a pattern that each seed shifts a little."""
    store = store_in(folder)
    for method, right in patterns.items():
        for seed in range(n_seeds):
            for of in TASKS.values():
                shifted = right[: -1 - seed % 3] + "0" * (seed % 3) + right[-1]
                keep(store, record(store, of, ASKED, shifted, recipe(method, seed)))
    return store


GOOD, BAD = "1" * 19 + "0", "1" * 10 + "0" * 10


def test_a_better_method_is_called_better_over_seeds_and_pictures(tmp_path: Path) -> None:
    answer = answer_to(filled(tmp_path, 8, {"lora": GOOD, "mmpt": BAD}), ["lora", "mmpt"], TASKS, n_resamples=200)
    assert answer.sentence.startswith("lora is better than mmpt on the mean of 2 tasks: by ")
    assert "8 seeds, 120 images" in answer.sentence
    assert [each.task for each in answer.contrasts] == ["", "colours", "shapes"]
    assert {each.better for each in answer.contrasts} == {"lora"}


def test_the_order_of_the_names_changes_the_sign_alone(tmp_path: Path) -> None:
    store = filled(tmp_path, 6, {"lora": GOOD, "mmpt": BAD})
    there, back = (answer_to(store, names, TASKS, n_resamples=200) for names in (["lora", "mmpt"], ["mmpt", "lora"]))
    assert there.contrasts[0].difference.estimate == -back.contrasts[0].difference.estimate
    assert there.sentence == back.sentence


def test_fewer_than_six_seeds_separate_nothing_and_the_sentence_says_so(tmp_path: Path) -> None:
    answer = answer_to(filled(tmp_path, 3, {"lora": GOOD, "mmpt": BAD}), ["lora", "mmpt"], TASKS, n_resamples=200)
    assert "are not significantly different" in answer.sentence
    assert "with fewer than 6 seeds no difference is significant" in answer.sentence
    assert all(each.better is None and each.detectable is None for each in answer.contrasts)


def test_one_seed_compares_checkpoints_and_says_nothing_of_methods(tmp_path: Path) -> None:
    answer = answer_to(filled(tmp_path, 1, {"lora": GOOD, "mmpt": BAD}), ["lora", "mmpt"], TASKS, n_resamples=400)
    assert {each.scope for each in answer.contrasts} == {"checkpoint"}
    assert answer.sentence.startswith("This checkpoint of lora is better than that of mmpt at seed 0")
    assert "Of the methods this says nothing" in answer.sentence


def test_p_and_interval_of_checkpoints_agree_where_a_task_has_several_wordings(tmp_path: Path) -> None:
    asked = [dataclasses.replace(sample, wording=str(i % 4)) for i, sample in enumerate(samples(80))]
    for name, better in (("far", "1111"), ("one", "1000")):
        # In all four wordings a third is better, or one wording is answered better throughout.
        store, of = store_in(tmp_path / name), TASKS["colours"]
        third = "".join(better[i % 4] if name == "one" or i % 3 == 0 else "0" for i in range(80))
        keep(store, record(store, of, asked, third, recipe("lora", 0)))
        keep(store, record(store, of, asked, "0" * 80, recipe("mmpt", 0)))
        (each,) = answer_to(store, ["lora", "mmpt"], TASKS, n_resamples=500).contrasts
        low, _ = each.difference.interval
        assert (low > 0) == (each.difference.p < 0.05) == (name == "far")


def test_equal_methods_are_not_separated_and_what_could_be_found_is_said(tmp_path: Path) -> None:
    store = filled(tmp_path, 6, {"lora": BAD, "mmpt": BAD[::-1]})
    answer = answer_to(store, ["lora", "mmpt"], TASKS, n_resamples=200)
    assert "not significantly different" in answer.sentence
    assert "the minimum detectable difference (80 % power) is " in answer.sentence


def test_several_methods_are_told_apart_pair_by_pair_and_corrected_together(tmp_path: Path) -> None:
    store = filled(tmp_path, 8, {"lora": GOOD, "full": GOOD, "mmpt": BAD})
    answer = answer_to(store, ["lora", "full", "mmpt"], TASKS, n_resamples=200)
    assert answer.sentence.startswith("Significantly different on the mean of 2 tasks: lora over mmpt; full over mmpt.")
    assert "Not significantly different: lora and full." in answer.sentence
    overall = [each for each in answer.contrasts if not each.task]
    smallest = min(each.difference.p for each in overall)
    assert min(each.p_holm for each in overall) == pytest.approx(min(1.0, 3 * smallest))


def test_runs_are_compared_as_checkpoints_whatever_their_seeds(tmp_path: Path) -> None:
    store = filled(tmp_path, 2, {"lora": GOOD, "mmpt": BAD})
    names = [recipe("lora", 0).run_name, recipe("mmpt", 1).run_name[:12]]
    answer = answer_to(store, names, TASKS, n_resamples=200)
    assert {(each.scope, each.seeds) for each in answer.contrasts} == {("checkpoint", ())}
    assert recipe("mmpt", 1).run_name in answer.sentence


def test_runs_in_several_worlds_or_subsets_are_compared_within_one(tmp_path: Path) -> None:
    store = filled(tmp_path, 1, {"lora": GOOD, "mmpt": BAD})
    names = [recipe(method, 0).run_name for method in ("lora", "mmpt")]
    (alone,) = [c for c in answer_to(store, names, TASKS, n_resamples=200).contrasts if not c.task]
    track = store.records()[0].track
    for one in store.records():
        # As many in another world, all answered alike, and a subset of this one: neither may be mixed in.
        other = dataclasses.replace(one, suite="embedded-clean", eval_key=one.eval_key + "clean", data_fingerprint="0")
        keep(store, dataclasses.replace(other, track=other.setting_key))
        keep(store, dataclasses.replace(one, limit=30, eval_key=one.eval_key + "30", data_fingerprint="0"))
    with pytest.raises(RequestError, match=r"Several boards hold .* embedded-clean suite"):
        answer_to(store, names, TASKS, n_resamples=200)
    answer = answer_to(store, names, TASKS, setting=track, n_resamples=200)
    assert [c for c in answer.contrasts if not c.task] == [alone]
    assert answer.board.limit is None


def test_runs_that_no_setting_holds_together_are_refused(tmp_path: Path) -> None:
    store = filled(tmp_path, 1, {"lora": GOOD})
    other = filled(tmp_path / "other", 1, {"mmpt": BAD})
    for one in other.records():
        clean = dataclasses.replace(one, suite="embedded-clean")
        keep(store, dataclasses.replace(clean, track=clean.setting_key))
    names = [recipe(method, 0).run_name for method in ("lora", "mmpt")]
    with pytest.raises(RequestError, match="run in different settings or on different subsets"):
        answer_to(store, names, TASKS, n_resamples=200)


def test_tasks_can_be_chosen(tmp_path: Path) -> None:
    store = filled(tmp_path, 6, {"lora": GOOD, "mmpt": BAD})
    answer = answer_to(store, ["lora", "mmpt"], TASKS, only=["shapes"], n_resamples=200)
    assert [each.task for each in answer.contrasts] == ["shapes"]
    assert "better than mmpt on Shapes" in answer.sentence


def test_answer_is_plain_json(tmp_path: Path) -> None:
    store = filled(tmp_path, 2, {"lora": GOOD, "mmpt": BAD})
    plain = as_plain(answer_to(store, ["lora", "mmpt"], TASKS, n_resamples=50))
    assert json.loads(json.dumps(plain, allow_nan=False))["contrasts"][0]["scope"] == "method"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["lora"], "two methods or more"),
        (["lora", "lora"], "two methods or more"),
        (["lora", "mmtp"], "Did you mean `mmpt`"),
    ],
)
def test_names_that_cannot_be_compared_are_refused(names: list[str], said: str, tmp_path: Path) -> None:
    store = filled(tmp_path, 1, {"lora": GOOD, "mmpt": BAD})
    with pytest.raises(RequestError, match=said):
        answer_to(store, names, TASKS, n_resamples=20)


def test_methods_without_two_common_seeds_are_refused_at_method_scope(tmp_path: Path) -> None:
    store = filled(tmp_path, 1, {"lora": GOOD, "mmpt": BAD})
    with pytest.raises(RequestError, match="too few seeds"):
        answer_to(store, ["lora", "mmpt"], TASKS, scope="method", n_resamples=20)


def test_a_method_that_was_not_run_is_said_with_the_command_that_runs_it(tmp_path: Path) -> None:
    store = filled(tmp_path, 1, {"lora": GOOD})
    with pytest.raises(RequestError, match=r"`vpt` has no finished run in .*: `mmpt-bench run --method vpt --tasks "):
        answer_to(store, ["lora", "vpt"], TASKS, n_resamples=20)


def test_the_suggested_command_repeats_the_conditions_of_what_is_recorded(tmp_path: Path) -> None:
    store, by = store_in(tmp_path), recipe("lora", 3, budget=Budget(steps=7, batch_size=4))
    keep(store, record(store, TASKS["colours"], ASKED, GOOD, by, limit=60))
    with pytest.raises(RequestError) as raised:
        answer_to(store, ["lora", "vpt"], TASKS, n_resamples=20)
    command = str(raised.value).partition(": `")[2]
    told = "mmpt-bench run --method vpt --tasks colours --seeds 3 --steps 7 --batch-size 4 --backbone tiny"
    assert command.startswith(told)
    assert " --limit 60" in command


@pytest.mark.parametrize("better", [0, 1])
def test_long_labels_keep_a_row_of_the_comparison_on_one_line_in_80_columns(tmp_path: Path, better: int) -> None:
    store, labels = store_in(tmp_path), ["lora (placement=attention)", "lora (placement=mlp)"]
    for i, label in enumerate(labels):
        for seed in range(6):
            by = recipe("lora", seed, {"placement": label[16:-1], "train_projector": False})
            keep(store, record(store, TASKS["colours"], ASKED, GOOD if i == better else BAD, by))
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(tables(answer_to(store, labels, TASKS, n_resamples=50))[0])
    (line,) = (line for line in console.export_text().splitlines() if line.strip().startswith("Colours"))
    assert line.rstrip().endswith(("the first", "the second")[better])


def test_an_empty_folder_is_said_with_what_makes_records(tmp_path: Path) -> None:
    done = bench("compare", "lora", "mmpt", cwd=tmp_path, code=2)
    assert "Nothing is recorded" in done.stderr


def test_the_detectable_difference_is_found_with_the_stated_power() -> None:
    """Simulates methods that differ by the detectable difference: the t test finds it in about 80 % of repetitions."""
    from mmpt_bench.stats.resampling import Tally

    values = task().metric.values
    columns = ("asked/", "right/", "class_due/yes", "class_given/yes", "class_right/yes")
    rng = np.random.default_rng(0)
    n_pictures, n_seeds = 100, 8

    def tallies(skill: float) -> dict[int, Tally]:
        found = {}
        for seed in range(n_seeds):
            right = rng.random(n_pictures) < np.clip(skill + rng.normal(0, 0.02), 0, 1)
            counts = np.stack([np.ones(n_pictures), right, np.ones(n_pictures), np.ones(n_pictures), right], axis=1)
            names = tuple(map(str, range(n_pictures)))
            found[seed] = Tally(names, ("",) * n_pictures, columns, counts.astype(float))
        return found

    far = np.mean(
        [
            detectable_by_seeds(
                resample({"a": tallies(0.6), "b": tallies(0.6)}, values, "accuracy", 200, seed), "a", "b"
            )
            for seed in range(30)
        ]
    )
    found = [
        method_difference(
            resample({"a": tallies(0.6 + far), "b": tallies(0.6)}, values, "accuracy", 200, seed), "a", "b"
        ).p
        <= 0.05
        for seed in range(120)
    ]
    assert 0.68 < np.mean(found) < 0.92


def test_the_board_and_the_comparison_agree_on_a_difference(tmp_path: Path) -> None:
    store = filled(tmp_path, 6, {"lora": GOOD, "mmpt": BAD})
    board = evidence(store, TASKS, 200)[0].board
    answer = answer_to(store, ["lora", "mmpt"], TASKS, n_resamples=200)
    assert board.comparisons[0].difference == answer.contrasts[0].difference


def test_labels_of_variants_are_shown_in_full_on_a_narrow_terminal(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for placement, right in (("attention", "110"), ("mlp", "10")):
        by = recipe("lora", 0, {"placement": placement, "train_projector": False})
        keep(store, record(store, TASKS["colours"], ASKED, right, by))
    labels = [row.label for row in evidence(store, TASKS, 30)[0].board.rows]
    assert sorted(labels) == ["lora (placement=attention)", "lora (placement=mlp)"]
    console = Console(width=80, file=io.StringIO(), record=True)
    for part in tables(answer_to(store, labels, TASKS, n_resamples=30)):
        console.print(part)
    text = console.export_text()
    assert "…" not in text
    assert " − ".join(labels) in text


def test_a_method_with_several_rows_is_asked_for_by_the_label_of_one(tmp_path: Path) -> None:
    store = filled(tmp_path, 2, {"mmpt": BAD})
    for rank in (2, 16):
        by = recipe("lora", 0, {"learning_rate": 1 / rank, "r": rank})
        keep(store, record(store, TASKS["colours"], ASKED, GOOD, by))
    said = r'has several rows: "{0}lora \(r=16\)", "{0}lora \(r=2\)"\. Name one of them, in quotation marks'
    with pytest.raises(RequestError, match="`lora` " + said.format("")):
        answer_to(store, ["lora", "mmpt"], TASKS, n_resamples=200)
    with pytest.raises(RequestError, match="`published:lora` " + said.format("published:")):
        answer_to(store, ["mmpt", "published:lora"], TASKS, n_resamples=50, published=store)
    answer = answer_to(store, ["lora (r=2)", "mmpt"], TASKS, n_resamples=200)
    assert "lora (r=2)" in answer.sentence


def test_ones_own_rows_stand_beside_those_of_the_published_board(tmp_path: Path) -> None:
    own, published = (
        filled(tmp_path / "own", 6, {"lora": GOOD}),
        filled(tmp_path / "published", 6, {"mmpt": BAD, "lora": GOOD}),
    )
    both = answer_to(
        filled(tmp_path / "both", 6, {"lora": GOOD, "mmpt": BAD}), ["lora", "mmpt"], TASKS, n_resamples=200
    )
    answer = answer_to(own, ["lora", "published:mmpt"], TASKS, n_resamples=200, published=published)
    assert answer.labels == ("lora", "published:mmpt")
    assert [each.difference for each in answer.contrasts] == [each.difference for each in both.contrasts]
    assert answer.sentence.startswith("lora is better than published:mmpt on the mean of 2 tasks: by ")
    same = answer_to(own, ["lora", "published:lora"], TASKS, n_resamples=200, published=published)
    assert {each.difference.estimate for each in same.contrasts} == {0.0}
    every = answer_to(own, ["lora", "published"], TASKS, n_resamples=200, published=published)
    pairs = {(each.first, each.second) for each in every.contrasts}
    assert pairs == {("lora", "published:lora"), ("lora", "published:mmpt")}, "published rows are not compared again"
    theirs = ["published:lora", "published:mmpt"]
    alone = answer_to(own, theirs, TASKS, n_resamples=200, published=published)
    assert alone.contrasts[0].difference.estimate == both.contrasts[0].difference.estimate
    for one in published.records():
        clean = dataclasses.replace(one, suite="embedded-clean", eval_key=one.eval_key + "clean")
        keep(published, dataclasses.replace(clean, track=clean.setting_key))
    answer = answer_to(own, theirs, TASKS, setting=clean.setting_key, n_resamples=200, published=published)
    assert answer.board.suite == "embedded-clean"
    with pytest.raises(RequestError, match="has no setting `nope`"):
        answer_to(own, theirs, TASKS, setting="nope", n_resamples=200, published=published)


def test_rows_beside_published_ones_are_scored_on_the_tasks_that_both_have(tmp_path: Path) -> None:
    own = store_in(tmp_path / "own")
    keep(own, record(own, TASKS["colours"], ASKED, GOOD, recipe("lora", 0)))
    published = filled(tmp_path / "published", 6, {"lora": GOOD})
    only = {"colours": TASKS["colours"]}
    (alone,) = evidence(published, only, 200)
    answer = answer_to(own, ["lora", "published"], TASKS, n_resamples=200, published=published)
    rows = {row.label: row for row in answer.board.rows}
    assert rows["published:lora"].overall == alone.board.rows[0].overall
    assert [len(rows[name].overall_by_seed) for name in ("lora", "published:lora")] == [1, 6]
    several = answer_to(own, ["lora", "published:lora", "published"], TASKS, n_resamples=200, published=published)
    assert several.sentence.startswith("These checkpoints of lora and published:lora are not significantly different")


def test_a_smoke_test_stands_in_no_ones_way_and_boards_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    store = filled(tmp_path, 1, {"lora": GOOD, "mmpt": BAD})
    usual = answer_to(store, ["lora", "mmpt"], TASKS, n_resamples=200).sentence
    for one in store.records():
        for budget, limit in ((Budget(steps=SMOKE_STEPS), SMOKE_LIMIT), (Budget(steps=99), None)):
            of = recipe(one.method, 0, budget=budget)
            keep(store, record(store, TASKS[one.task], ASKED, GOOD, of, limit=limit))
        if one.method == "mmpt" and one.task == "colours":
            break
    smoke = [one for one in store.records() if one.limit == SMOKE_LIMIT]
    assert smoke
    with pytest.raises(RequestError, match="say which one") as said:
        answer_to(store, ["lora", "mmpt"], TASKS, n_resamples=200)
    assert "99 steps of 16 examples" in str(said.value)
    assert "smoke" not in str(said.value)
    for one in store.records():
        if one.budget["steps"] == 99:
            shutil.rmtree(store.run(one.run).path(), ignore_errors=True)
    assert answer_to(store, ["lora", "mmpt"], TASKS, n_resamples=200).sentence == usual


def test_subsets_and_parse_rules_of_a_setting_are_chosen_by_id(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for method, right in (("lora", GOOD), ("mmpt", BAD)):
        for limit, rule in ((20, "official"), (40, "official"), (20, "plain")):
            questions = ASKED[:limit]
            keep(store, record(store, TASKS["colours"], questions, right, recipe(method), limit=limit, parse_rule=rule))
    with pytest.raises(RequestError, match="say which one") as said:
        answer_to(store, ["lora", "mmpt"], TASKS, n_resamples=50)
    track = store.records()[0].track
    # The rule `plain` stands in nobody's way; two subsets do.
    assert f"`--setting {track}-first-20`: " in str(said.value)
    assert f"`--setting {track}-first-40`: " in str(said.value)
    assert "plain" not in str(said.value)
    for name, limit, rule in ((f"{track}-first-40", 40, ""), (f"{track}-first-20-plain", 20, "plain")):
        board = answer_to(store, ["lora", "mmpt"], TASKS, setting=name, n_resamples=50).board
        assert (board.id, board.limit, board.rule) == (name, limit, rule)
    runs = [recipe(method, 0).run_name for method in ("lora", "mmpt")]
    assert answer_to(store, runs, TASKS, setting=f"{track}-first-40", n_resamples=50).board.limit == 40
    with pytest.raises(
        RequestError, match=r"`--setting` takes an id, and no board with `embedded` holds lora, mmpt\. "
    ):
        answer_to(store, ["lora", "mmpt"], TASKS, setting="embedded", n_resamples=50)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["lora", "mmpt-"], "begins the names of 2 runs"),
        (
            ["lora", recipe("mmpt", 1).run_name],
            r"is a run, `lora` is none: name methods alone .*`mmpt-bench compare lora mmpt`",
        ),
    ],
)
def test_runs_beside_methods_are_said_with_what_to_type(names: list[str], said: str, tmp_path: Path) -> None:
    store = filled(tmp_path, 2, {"lora": GOOD, "mmpt": BAD})
    with pytest.raises(RequestError, match=said) as raised:
        answer_to(store, names, TASKS, n_resamples=20)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("typed", ["lora (lr=0.001)", "lora (learning_rate=1e-3)"])
def test_a_learning_rate_is_called_as_the_option_or_as_the_field(typed: str, tmp_path: Path) -> None:
    store = filled(tmp_path, 1, {"mmpt": BAD})
    for rate in (0.001, 0.002):
        keep(store, record(store, TASKS["colours"], ASKED, GOOD, recipe("lora", 0, {"learning_rate": rate})))
    assert answer_to(store, [typed, "mmpt"], TASKS, n_resamples=20).labels[0] == "lora (learning_rate=0.001)"


def test_published_rows_of_another_setting_or_name_are_refused(tmp_path: Path) -> None:
    own, published = filled(tmp_path / "own", 2, {"lora": GOOD}), store_in(tmp_path / "published")
    keep(published, record(published, TASKS["colours"], ASKED, GOOD, recipe("mmpt"), suite="real"))
    with pytest.raises(RequestError, match="has no results in the setting of lora"):
        answer_to(own, ["lora", "published:mmpt"], TASKS, n_resamples=50, published=published)
    published = filled(tmp_path / "same", 2, {"mmpt": GOOD})
    with pytest.raises(RequestError, match=r"no row of the published board `mpt`\. Did you mean `mmpt`"):
        answer_to(own, ["lora", "published:mpt"], TASKS, n_resamples=50, published=published)


@pytest.mark.parametrize("names", [["lora", "mmpt"], ["lora", "mmpt", "vpt"]], ids=len)
def test_headers_and_numbers_of_a_comparison_are_whole_in_80_columns(tmp_path: Path, names: list[str]) -> None:
    store = filled(tmp_path, 6, dict(zip(names, (GOOD, BAD, BAD), strict=False)))
    console = Console(width=80, file=io.StringIO(), record=True)
    for part in tables(answer_to(store, names, TASKS, n_resamples=50)):
        console.print(part)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for word in (
        "Differ-",
        "interval",
        "p on",
        "board",
        "able",
        "Better",
        "Overall",
        "recovered",
        "Trained",
        "Seeds",
    ):
        assert word in text
    assert "…" not in text


@pytest.mark.parametrize("names", [["lora", "mmpt"], ["lora", "mmpt", "vpt"]], ids=len)
def test_a_comparison_in_60_columns_says_who_is_better(tmp_path: Path, names: list[str]) -> None:
    store = filled(tmp_path, 6, dict(zip(names, (GOOD, BAD, BAD), strict=False)))
    console = Console(width=60, file=io.StringIO(), record=True)
    for part in tables(answer_to(store, names, TASKS, n_resamples=50), 60):
        console.print(part)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 60
    assert "…" not in text
    heads = [line.split()[-1] for line in text.splitlines() if "interval" in line]
    assert heads == ["Better"] * (1 if len(names) == 2 else 3)
    assert sum(line.split()[-1:] == ["lora"] for line in text.splitlines()) >= 3


def test_different_numbers_of_threads_are_said_of_the_rows_that_are_compared(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for method, threads in (("lora", "1"), ("vpt", "2"), ("full", "1")):
        keep(store, record(store, task(), samples(20), "1110", recipe(method), threads=threads))
    said = answer_to(store, ["lora", "vpt"], {"colours": task()}, n_resamples=50).sentence
    assert said.endswith("last bits: lora trained with 1 thread; vpt trained with 2 threads.")
    assert "Threads" not in answer_to(store, ["lora", "full"], {"colours": task()}, n_resamples=50).sentence
