"""Ablations: what can be varied, what is refused and why, and that they share everything with other runs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mmpt_bench import api
from mmpt_bench.board.from_records import boards
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.methods import method_catalog
from mmpt_bench.records import ablations
from mmpt_bench.records.ablations import Ablation, Point
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.store import Store
from mmpt_bench.runs.estimate import estimate
from mmpt_bench.runs.plan import Job, Plan
from mmpt_bench.sources.corpora import load_corpus
from mmpt_bench.study.ablations.axes import axes_of, combinations, label_of, split_sets
from mmpt_bench.study.ablations.board import ablation_board
from mmpt_bench.study.ablations.tables import ablation_csv, ablation_json, ablation_md, ablation_tables, table
from support.command import bench, bench_without_torch
from support.synthetic import keep, record, samples, store_in, task

QUICK = ("--steps", "2", "--batch-size", "2", "--limit", "4")


def changed(method: str, one_at_a_time: bool = False, sets: tuple[str, ...] = (), **options: str) -> list[dict]:
    """Returns what each point of a method sets, field by field."""
    (entry,) = method_catalog.find_methods(method)
    axes = axes_of({k.replace("_", "-"): v for k, v in options.items()}, sets, [entry])
    found = []
    for combination in combinations(axes, entry.name, one_at_a_time):
        fields: dict[str, str] = {}
        for setting in combination.values():
            fields |= setting.fields.get(entry.name, {})
        found.append(fields)
    return found


def test_one_length_is_set_on_every_side_that_a_method_has() -> None:
    assert changed("mmpt", prompt_len="5,10") == [
        {"visual_length": "5", "text_length": "5"},
        {"visual_length": "10", "text_length": "10"},
    ]
    assert changed("prefix", prompt_len="5") == [{"length": "5"}]
    assert changed("vpt", prompt_len="7") == [{"visual_length": "7"}]


def test_several_axes_make_a_grid_or_one_change_at_a_time() -> None:
    grid = changed("mmpt", visual_len="5,10", text_len="1,2,3")
    assert [(p["visual_length"], p["text_length"]) for p in grid] == [(v, t) for v in ("5", "10") for t in "123"]
    alone = changed("mmpt", one_at_a_time=True, visual_len="5,10", text_len="1")
    assert alone == [{}, {"visual_length": "5"}, {"visual_length": "10"}, {"text_length": "1"}]


def test_parts_leave_a_side_out_whatever_the_lengths_are() -> None:
    points = changed("mmpt", parts="text,both", prompt_len="5")
    assert points == [
        {"visual_length": "0", "text_length": "5", "interaction": "false"},
        {"visual_length": "5", "text_length": "5", "interaction": "true"},
    ]


def test_depth_sets_the_sides_that_there_are() -> None:
    assert changed("mmpt", depth="text-deep") == [{"visual_deep": "false", "text_deep": "true"}]
    assert changed("vpt", depth="shallow") == [{"visual_deep": "false"}]


def test_any_field_of_any_method_is_varied_by_set_and_one_value_is_fixed() -> None:
    methods = method_catalog.find_methods("lora,mmpt")
    varied, fixed = split_sets(["lora.r=4,8", "lora.alpha=16", "mmpt.text_length=1,2"])
    axes = axes_of({}, varied, methods)
    assert [axis.name for axis in axes] == ["lora.r", "mmpt.text_length"]
    assert fixed == ["lora.alpha=16"]
    assert [label_of("lora", c) for c in combinations(axes, "lora", False)] == ["lora (r=4)", "lora (r=8)"]


def test_a_share_of_the_corpus_is_its_beginning_with_the_same_validation_part() -> None:
    whole, half = load_corpus("embedded"), load_corpus("embedded@0.5")
    assert half.size == whole.size // 2
    assert half.fingerprint != whole.fingerprint
    assert half.whole == whole.fingerprint
    assert half.validation(0).prompt == whole.validation(0).prompt
    assert half.example(3).prompt == whole.example(3).prompt
    assert load_corpus("embedded@1").fingerprint == whole.fingerprint


def test_a_share_that_leaves_nothing_is_refused() -> None:
    for name in ("embedded@0", "embedded@1.5", "embedded@half", "embedded@1e-9"):
        with pytest.raises(RequestError, match="corpus"):
            load_corpus(name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Nothing would be varied in `mmpt`"),
        (("--prompt-len", "0,5"), "a length of 0 is no prompt"),
        (("--prompt-len", "-5"), "a length of -5 is no prompt"),
        (("--prompt-len", "5,many"), "`many` is none; write whole numbers"),
        (("--prompt-len", "5,2.5"), "`2.5` is none"),
        (("--prompt-len", "5,,10"), "`` is none"),
        (("--prompt-len", "5,10,5"), "a value stands twice"),
        (("--prompt-len", "5,600"), "its context holds 512 tokens"),
        (("--prompt-len", "251"), "36 of them the image and 21 the longest question. The most is 454."),
        (("--prompt-len", "300"), "prompts of 600 rows does not fit `embedded`"),
        (("--method", "vpt", "--visual-len", "100000"), "does not fit `embedded`"),
        (("--prompt-len", "5", "--visual-len", "5"), "both set `mmpt.visual_length`"),
        (("--prompt-len", "5", "--set", "mmpt.text_length=5,6"), "both set `mmpt.text_length`"),
        (("--method", "lora", "--prompt-len", "5"), "cannot vary `lora`: it has no prompts. Its fields: `r`, `alpha`"),
        (("--method", "vpt", "--text-len", "5"), "no textual prompts"),
        (("--method", "vpt", "--parts", "both"), "no two sides"),
        (("--method", "vpt", "--depth", "text-deep"), "one side"),
        (("--method", "frozen", "--lr", "1e-3"), "trains nothing"),
        (("--placement", "middle"), "`placement=middle` is not one of"),
        (("--init", "zero"), "`init=zero` is not one of"),
        (
            ("--method", "vpt", "--placement", "all"),
            "cannot vary `vpt`: where its parameters stand is fixed.\n  Its fields:",
        ),
        (("--method", "full", "--init", "normal"), "cannot vary `full`: how its parameters start is fixed"),
        (("--method", "lora", "--placement", "all,heads"), "`placement=heads` is not one of"),
        (("--parts", "visual,both", "--init", "words"), "`init` `words` is for textual prompts"),
        (("--parts", "visuel"), "Did you mean `visual`"),
        (("--depth", "depe"), "Did you mean `deep`"),
        (("--lr", "0"), "above 0"),
        (("--lr", "inf"), "not a number to use"),
        (("--lr", "nan"), "above 0"),
        (("--lr", "1e-3,0.001"), "stands twice"),
        (("--data-fraction", "0.5,1.5"), "above 0 and at most 1"),
        (("--method", "mmpt,frozen", "--data-fraction", "0.5,1"), "cannot vary `frozen`: it trains nothing"),
        (("--method", "frozen", "--steps", "1,2"), "cannot vary `frozen`: it trains nothing"),
        (("--steps", "0,100"), "a training has from 1 to"),
        (("--steps", "100,many"), "`many` is none; write whole numbers"),
        (("--steps", "many"), "Invalid value for '--steps': 'many' is not a valid integer"),
        (("--set", "mmpt.text_lenght=1,2"), "Did you mean `text_length`"),
        (("--set", "lora.r=1,2"), "names one that `--method` does not"),
        (("--set", "text_length=5,05"), "`--set text_length=5,05`: a value stands twice"),
        (("--set", "text_length=5,5"), "`--set text_length=5,5`: a value stands twice"),
        (("--set", "text_length=5,x"), "type int"),
        (("--prompt-len", "5", "--budget-hours", "0"), "above 0"),
        (("--prompt-len", "5", "--budget-hours", "1"), "1 trainings and 4 evaluations are to be done"),
        (("--prompt-len", "5", "--with", "lorra"), "Did you mean `lora`"),
        (("--backbone", "embedded,owner/model", "--offline"), "not the same ones"),
        (("--backbone", "embedded,embeded"), "Did you mean `embedded`"),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason_before_torch_is_imported(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = bench_without_torch("ablate", *words, cwd=tmp_path)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mmpt-results").exists()


@pytest.mark.slow
def test_an_ablation_shares_what_is_recorded_and_stays_off_the_leaderboard(tmp_path: Path) -> None:
    bench("run", "--method", "mmpt", "--no-base", "--tasks", "cifar10", *QUICK, cwd=tmp_path)
    words = ("ablate", "--text-len", "5,10", "--tasks", "cifar10", *QUICK)
    first = bench(*words, cwd=tmp_path)
    # `--text-len 10` is MMPT as it is: trained by `run` already.
    assert "1 to train, 2 evaluations to do, 1 recorded already" in first.stderr
    assert "recorded already (3 results)" in bench(*words, cwd=tmp_path).stderr
    assert "text_length=5" in (tmp_path / "mmpt-results" / "scores.csv").read_text()
    (table,) = (tmp_path / "mmpt-results" / "ablations").glob("*.csv")
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == ["mmpt (text-len=5)", "mmpt (text-len=10)", "frozen"]
    assert [row["compared_with"] for row in rows] == ["mmpt (text-len=10)", "", ""]
    assert {row["exploratory"] for row in rows} == {"True", "False"}
    # The plots are drawn by the same command, and named.
    (plot,) = (tmp_path / "mmpt-results" / "figures").glob("*.png")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert f"Drawn: mmpt-results/figures/{plot.name}" in first.stderr
    again = shlex.join(["mmpt-bench", "ablate", "--tasks", "cifar10", "--seeds", "0-5", "--text-len", "5,10"])
    assert f"Next: 6 seeds or more tell points apart; what is recorded is not redone:\n  {again} " in first.stderr
    board = json.loads(bench("leaderboard", "--json", cwd=tmp_path).stdout)["boards"][0]
    assert [row["label"] for row in board["rows"]] == ["frozen", "mmpt"]
    assert any("of the ablation `mmpt-text-len-" in text for text in board["left_out"])


@pytest.mark.slow
def test_published_records_are_enough_and_are_not_trained_again_beside_them(tmp_path: Path) -> None:
    words = ("ablate", "--method", "projector", "--lr", "1e-3,1e-2", *QUICK, "--tasks")
    bench(*words, "cifar10", cwd=tmp_path)
    bench("leaderboard", "--publish", cwd=tmp_path)
    runs = tmp_path / "mmpt-results" / "runs"
    shutil.rmtree(runs)
    assert "recorded already (3 results)" in bench(*words, "cifar10", cwd=tmp_path).stderr
    assert not runs.exists()
    # Another task needs the adapters, which are not there: said before anything is trained, and nothing is.
    done = bench(*words, "cifar10,vsr", cwd=tmp_path, code=2)
    assert "0 to train, 1 evaluation to do, 3 recorded already.\n2 runs will not be done. projector (lr=" in done.stderr
    assert "has results in records.jsonl (cifar10) and no adapter in `runs/`" in done.stderr
    assert "step 1" not in done.stderr
    assert not list(runs.glob("*/adapter*"))
    assert len(list(runs.glob("*/records.jsonl"))) == 1  # the untuned base on VSR


@pytest.mark.slow
def test_points_of_several_numbers_of_steps_are_trained_so_long_and_told_apart(tmp_path: Path) -> None:
    words = ("--method", "projector", "--tasks", "cifar10", "--batch-size", "2", "--limit", "4", "--with", "none")
    bench("ablate", "--steps", "1,3", *words, cwd=tmp_path)
    rate = Store(tmp_path / "mmpt-results").records()[0].params["learning_rate"]
    assert bench("ablate", "--steps", "1,3", *words, "-q", cwd=tmp_path).stderr == ""
    # One number is of all runs.
    bench("ablate", "--steps", "3", "--set", f"learning_rate={rate},2e-3", *words, cwd=tmp_path)
    folder = tmp_path / "mmpt-results"
    # The same training at 3 steps is a point of both, and made once.
    assert sorted(len(path.read_text().splitlines()) for path in folder.glob("runs/*/train.jsonl")) == [1, 3, 3]
    (page,) = (folder / "ablations").glob("projector-steps-*.md")
    assert "backbone embedded; 2 examples a step, cosine" in page.read_text()
    (other,) = (folder / "ablations").glob("projector-learning-rate-*.md")
    assert "backbone embedded; 3 steps of 2 examples, cosine" in other.read_text()
    with page.with_suffix(".csv").open() as stream:
        assert [row["label"] for row in csv.DictReader(stream)] == ["projector (steps=1)", "projector (steps=3)"]


@pytest.mark.slow
def test_a_grid_beyond_the_hours_given_is_refused_with_the_count(tmp_path: Path) -> None:
    bench("run", "--method", "frozen,projector", "--tasks", "cifar10", *QUICK, cwd=tmp_path)
    words = ("--prompt-len", "5,10,20", "--tasks", "cifar10", *QUICK, "--budget-hours", "0.000001")
    done = bench("ablate", *words, cwd=tmp_path, code=2)
    assert "3 trainings and 3 evaluations are to be done.\n  How long: about" in done.stderr


def test_a_plan_says_points_and_runs_nothing(tmp_path: Path) -> None:
    plan = json.loads(bench("ablate", "--parts", "visual,both", *QUICK, "--plan", "--json", cwd=tmp_path).stdout)
    assert plan["points"] == ["mmpt (parts=visual)", "mmpt (parts=both)", "frozen"]
    assert not (tmp_path / "mmpt-results").exists()


@pytest.mark.parametrize(
    ("method", "axes", "points"),
    [
        ("lora", {"lora.r": [2, 4]}, ["lora (r=2)", "lora (r=4)"]),
        ("lora", {"r": "2,4"}, ["lora (r=2)", "lora (r=4)"]),
        ("mmpt,lora", {"steps": (1, 3)}, [f"{m} (steps={n})" for m in ("mmpt", "lora") for n in (1, 3)]),
        ("mmpt", {"prompt_len": 5}, ["mmpt (prompt-len=5)"]),
    ],
)
def test_axes_in_python_are_options_and_fields(method: str, axes: Any, points: list[str], tmp_path: Path) -> None:
    planned = api.ablate(method, "mnist", axes=axes, beside="none", only_plan=True, out=tmp_path)
    assert planned.points == points


@pytest.mark.parametrize(
    ("axes", "error", "said"),
    [
        ({"rank": [2, 4]}, RequestError, "There is no axis `rank`.*show METHOD"),
        ({"prompt-lenn": [2, 4]}, RequestError, "Did you mean `prompt-len`"),
        ({"lora.rank": [2, 4]}, RequestError, "There is no field `rank`"),
        ({"mmpt.text_length": [2, 4]}, RequestError, "There is no method `mmpt`"),
        ({"r": []}, RequestError, "a value is empty"),
        (["r"], TypeError, "maps what is varied to its values"),
        ({"steps": [1, 2]}, TypeError, "`steps` is varied by `axes`"),
    ],
)
def test_axes_that_cannot_be_are_refused_by_name(axes: Any, error: type[Exception], said: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=said):
        api.ablate("lora", "mnist", axes=axes, steps=3, only_plan=True, out=tmp_path)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, Ablation]:
    """Returns a store with two points of made-up runs at eight seeds, and their ablation."""
    store, of, asked = store_in(tmp_path), task(), samples(40)
    points = []
    for length, right in ((5, "10"), (10, "1110")):
        for seed in range(8):
            by = Recipe("tiny", "b" * 8, "scenes", "c" * 8, "mmpt", {"text_length": length}, Budget(), seed)
            keep(store, record(store, of, asked, right, by))
        points.append(Point(f"mmpt (text-len={length})", "mmpt", {"text-len": str(length)}, by.variant_key, False))
    found = Ablation("made", {"text-len": ["5", "10"]}, points, [], None, "mmpt-bench ablate --text-len 5,10")
    ablations.write(store, found)
    return store, found


def test_definition_is_read_as_it_was_written(made: tuple[Store, Ablation]) -> None:
    store, found = made
    assert ablations.read_all(store) == [found]


def test_a_damaged_definition_is_said_with_what_to_do(made: tuple[Store, Ablation]) -> None:
    store, _ = made
    store.path("ablations", "made.json").write_text('{"name": "made"}')
    with pytest.raises(UntrustedRecord, match="run the ablation again"):
        ablations.read_all(store)


def test_points_are_compared_over_seeds_with_the_first_one(made: tuple[Store, Ablation]) -> None:
    store, found = made
    board = ablation_board(store, found, {"colours": task()}, 200)
    (contrast,) = board.contrasts
    assert (contrast.first, contrast.second) == ("mmpt (text-len=10)", "mmpt (text-len=5)")
    assert contrast.scope == "method"
    assert contrast.difference.estimate == pytest.approx(0.25)
    assert board.missing == ()
    assert b"| mmpt (text-len=10) |" in ablation_md(board)
    assert ablation_csv(board) == ablation_csv(ablation_board(store, found, {"colours": task()}, 200))


def test_a_point_with_fewer_seeds_has_the_overall_score_of_its_own(tmp_path: Path) -> None:
    store, of = store_in(tmp_path), {name: task(name, name.title()) for name in ("one", "two")}
    points = []
    # Shares right of 1/2 and 3/4, alike on both tasks; the second point has two seeds of the eight.
    for length, right, n in ((5, "10", 8), (10, "1110", 2)):
        for seed in range(n):
            by = Recipe("tiny", "b" * 8, "scenes", "c" * 8, "mmpt", {"text_length": length}, Budget(), seed)
            for each in of.values():
                keep(store, record(store, each, samples(40, each.name), right, by))
        points.append(Point(f"mmpt (text-len={length})", "mmpt", {"text-len": str(length)}, by.variant_key, False))
    found = Ablation("made", {"text-len": ["5", "10"]}, points, [], None, "mmpt-bench ablate --text-len 5,10")
    board = ablation_board(store, found, of, 200)
    lines = [line for line in csv.DictReader(io.StringIO(ablation_csv(board).decode())) if not line["task"]]
    chance = store.records()[0].chance
    expected = [(share - chance) / (1 - chance) for share in (0.5, 0.75)]
    assert [float(line["score"]) for line in lines] == pytest.approx(expected)
    assert [line["seeds"] for line in lines] == ["0 1 2 3 4 5 6 7", "0 1"]
    assert [line["exploratory"] for line in lines] == ["False", "True"]


def test_a_page_names_the_points_with_few_seeds_and_the_seeds_that_make_it_again(made: tuple[Store, Ablation]) -> None:
    store, found = made
    for seed in (0, 1):
        by = Recipe("tiny", "b" * 8, "scenes", "c" * 8, "mmpt", {"text_length": 20}, Budget(), seed)
        keep(store, record(store, task(), samples(40), "1", by))
    few = Point("mmpt (text-len=20)", "mmpt", {"text-len": "20"}, by.variant_key, False)
    found = Ablation(**(vars(found) | {"points": [*found.points, few]}))
    board = ablation_board(store, found, {"colours": task()}, 50)
    # Of all points two seeds are shared with the third, of the first two eight.
    told = "fewer than 6 seeds of mmpt (text-len=20), so that their differences are not significant."
    assert board.exploratory == told
    text = ablation_md(board).decode()
    assert f"**Exploratory**: {told}" in text
    assert "Made by `mmpt-bench ablate --text-len 5,10 --seeds 0-7`." in text
    typed = "mmpt-bench ablate --seeds 0-1 --text-len 5,10"
    again = ablation_board(store, Ablation(**(vars(found) | {"command": typed})), {"colours": task()}, 50)
    assert "Made by `mmpt-bench ablate --seeds 0-7 --text-len 5,10`." in ablation_md(again).decode()


def test_what_is_of_one_seed_has_no_p_in_any_table(tmp_path: Path) -> None:
    store, points = store_in(tmp_path), []
    for length, right in ((5, "0001"), (10, "1")):
        by = Recipe("tiny", "b" * 8, "scenes", "c" * 8, "mmpt", {"text_length": length}, Budget(), 0)
        keep(store, record(store, task(), samples(80), right, by))
        points.append(Point(f"mmpt (text-len={length})", "mmpt", {"text-len": str(length)}, by.variant_key, False))
    found = Ablation("mmpt-text-len", {"text-len": ["5", "10"]}, points, [], None, "")
    board = ablation_board(store, found, {"colours": task()}, 100)
    _, line = csv.DictReader(io.StringIO(ablation_csv(board).decode()))
    assert float(line["difference"]) == pytest.approx(0.75)
    assert [line[name] for name in ("p", "p_holm", "p_sign_flip", "detectable")] == [""] * 4
    (contrast,) = ablation_json(board)["contrasts"]
    assert (contrast["p_holm"], contrast["difference"]["p"]) == (None, None)
    assert "Made by `mmpt_bench.ablate`" in ablation_md(board).decode()


def test_answers_in_another_world_behind_examples_or_read_otherwise_are_no_part_of_an_ablation(
    made: tuple[Store, Ablation],
) -> None:
    store, found = made
    own = ablation_md(ablation_board(store, found, {"colours": task()}, 50))
    for one in store.records():
        for suite, asking, rule in (
            ("embedded-clean", {}, "official"), (one.suite, {"few_shot": 2}, "official"), (one.suite, {}, "plain"),
        ):  # fmt: skip
            # As many as there are of its own, and of data that would come first.
            key, data = f"{one.eval_key} {suite} {asking} {rule}", "0" if rule == "official" else one.data_fingerprint
            other = dataclasses.replace(one, suite=suite, asking=asking, parse_rule=rule, eval_key=key)
            other = dataclasses.replace(other, data_fingerprint=data)
            keep(store, dataclasses.replace(other, track=other.setting_key))
    assert ablation_md(ablation_board(store, found, {"colours": task()}, 50)) == own


def test_points_without_a_result_are_named_with_the_command(made: tuple[Store, Ablation]) -> None:
    store, found = made
    lost = Point("mmpt (text-len=20)", "mmpt", {"text-len": "20"}, "none", False)
    board = ablation_board(
        store, Ablation(**(vars(found) | {"points": [*found.points, lost]})), {"colours": task()}, 50
    )
    assert board.missing == ("mmpt (text-len=20)",)
    assert b"Without a result: mmpt (text-len=20)." in ablation_md(board)
    empty = ablation_board(store, Ablation(**(vars(found) | {"points": [lost]})), {"colours": task()}, 50)
    assert empty.evidence is None
    assert b"Without a result: mmpt (text-len=20)." in ablation_md(empty)


def test_runs_of_an_ablation_alone_make_no_leaderboard(made: tuple[Store, Ablation]) -> None:
    store, _ = made
    assert boards(store, {"colours": task()}, 50) == ()


def test_time_is_estimated_by_method_and_scaled_from_another_budget(made: tuple[Store, Ablation]) -> None:
    store, _ = made
    recipe = Recipe("tiny", "b" * 8, "scenes", "c" * 8, "mmpt", {}, Budget(steps=800), 0)
    job = Job(recipe, None, "", False, ("colours",), (), "mmpt")
    prepared: Any = SimpleNamespace(tasks={"colours": SimpleNamespace(samples=samples(80))})
    cost = estimate([Plan(None, prepared, (job,))], store)  # type: ignore[arg-type]
    # 60 s for 400 steps, 5 s for 40 questions.
    assert cost.seconds == pytest.approx(120 + 10)
    assert not cost.is_same_budget


def test_a_task_that_few_points_have_is_no_column(made: tuple[Store, Ablation]) -> None:
    store, found = made
    other = task("shapes", "Shapes")
    lost = [Point(f"mmpt (text-len={n})", "mmpt", {"text-len": str(n)}, str(n), False) for n in (20, 40)]
    by = Recipe("tiny", "b" * 8, "scenes", "c" * 8, "mmpt", {"text_length": 5}, Budget(), 0)
    keep(store, record(store, other, samples(40), "10", by))
    board = ablation_board(store, Ablation(**(vars(found) | {"points": [*found.points, *lost]})),
                           {"colours": task(), "shapes": other}, 50)  # fmt: skip
    assert board.evidence is not None
    # Two of the four points have a result at all, and one of these was asked about shapes.
    assert [column.task for column in board.evidence.board.columns] == ["colours"]


@pytest.mark.parametrize("n_seeds", [1, 2, 5, 6])
def test_a_difference_is_marked_only_where_seeds_are_enough(n_seeds: int, tmp_path: Path) -> None:
    store, points = store_in(tmp_path), []
    for length, right in ((5, "0001"), (10, "1")):
        for seed in range(n_seeds):
            by = Recipe("tiny", "b" * 8, "scenes", "c" * 8, "mmpt", {"text_length": length}, Budget(), seed)
            keep(store, record(store, task(), samples(80), right, by))
        points.append(
            Point(f"mmpt (text-len={length})", "mmpt", {"text-len": str(length)}, by.variant_key, length == 10)
        )
    found = Ablation("mmpt-text-len", {"text-len": ["5", "10"]}, points, [], None, "mmpt-bench ablate")
    board = ablation_board(store, found, {"colours": task()}, 200)
    _, lines = table(board)
    console = Console(width=100, file=io.StringIO(), record=True)
    for part in ablation_tables(board):
        console.print(part)
    told = console.export_text()
    is_marked = "*" in lines[0][2]
    # All 80 answers or a quarter of them: as clear as can be, and still no claim about lengths from five seeds.
    assert is_marked == (n_seeds >= 6)
    assert ("so that no difference is significant" in told) == (not is_marked)
    assert (", p " in lines[0][2]) == (n_seeds > 1)
    row = next(csv.DictReader(io.StringIO(ablation_csv(board).decode())))
    assert (row["significant"], row["exploratory"]) == (str(is_marked), str(not is_marked))


@pytest.mark.parametrize("width", [60, 80])
def test_points_are_told_apart_on_a_narrow_terminal(made: tuple[Store, Ablation], width: int) -> None:
    store, found = made
    board = ablation_board(store, found, {"colours": task()}, 50)
    console = Console(width=width, file=io.StringIO(), record=True)
    for part in ablation_tables(board):
        console.print(part)
    text = console.export_text()
    assert "text-len 10" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    # 50 and 75 of 100 at eight seeds, the difference with its interval below it, and the number of seeds.
    lines = [line.split() for line in text.splitlines() if line.startswith(" text-len")]
    assert [(line[2], line[-1]) for line in lines] == [("50.0", "8"), ("75.0", "8")]
    assert "+25.0, p " in text


def test_a_method_of_peft_is_varied_by_its_own_fields_and_by_those_of_its_configuration() -> None:
    assert changed("peft:IA3", lr="1e-3,1e-2") == [{"learning_rate": "0.001"}, {"learning_rate": "0.01"}]
    assert changed("peft:LORA", sets=("r=4,16",)) == [{"r": "4"}, {"r": "16"}]
    with pytest.raises(RequestError, match="a value stands twice"):
        changed("peft:LORA", sets=("r=4,16,04",))
    with pytest.raises(RequestError, match=r"`r=4\.0` is not a value of type int"):
        changed("peft:LORA", sets=("r=4,4.0",))
    with pytest.raises(RequestError, match=r"has no prompts. Its fields: `config`, `train_projector`"):
        changed("peft:IA3", prompt_len="5")
