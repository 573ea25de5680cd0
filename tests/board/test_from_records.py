"""Boards made from records whose scores, places, groups and retention were worked out by hand."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from mmpt_bench.board.board import Board, Row
from mmpt_bench.board.from_records import boards
from mmpt_bench.board.published import REMARK, read_published
from mmpt_bench.board.writers import numbers
from mmpt_bench.board.writers.csv_file import leaderboard_csv
from mmpt_bench.board.writers.latex import leaderboard_latex
from mmpt_bench.board.writers.markdown import leaderboard_json, leaderboard_md
from mmpt_bench.board.writers.terminal import answer, leaderboard_tables
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.escaping import csv_table, csv_text, markdown, plain_text
from mmpt_bench.evaluation.task import Task
from mmpt_bench.figures.style import name_of
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.store import Store
from mmpt_bench.report.leaderboard import Leaderboard
from support.paths import ROOT
from support.synthetic import failed, keep, recipe, record, samples, store_in, task

COLOURS, SHAPES = task("colours", "Colours"), task("shapes", "Shapes")
TASKS = {"colours": COLOURS, "shapes": SHAPES}
ASKED = {"colours": samples(100), "shapes": samples(60)}
FAST = 400


def add(store: Store, right: str, made_by: Recipe | None = None, of: Task = COLOURS, **changes: object) -> None:
    keep(store, record(store, of, ASKED[of.name], right, made_by, **changes))


def made(store: Store, tasks: dict[str, Task] | None = None) -> tuple[Board, ...]:
    return boards(store, TASKS if tasks is None else tasks, FAST)


def row(board: Board, label: str) -> Row:
    return next(row for row in board.rows if row.label == label)


def printed(board: Board, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    for part in leaderboard_tables([board]):
        console.print(part)
    return console.export_text()


def test_forgetting_is_the_mean_drop_below_the_baseline_and_names_the_task(tmp_path: Path) -> None:
    store, seeds = store_in(tmp_path), range(8)
    for of, base, lora, full in ((COLOURS, "11110", "10", "11111"), (SHAPES, "1110", "1111", "11110")):
        add(store, base, recipe("frozen"), of)
        for seed in seeds:
            add(store, lora, recipe("lora", seed), of)
            add(store, full, recipe("full", seed), of)
    (board,) = made(store)
    found = row(board, "lora")
    # Colours fell from .8 to .5, chance-corrected from .6 to 0; Shapes rose and counts as 0.
    assert found.forgetting == pytest.approx((0.6 + 0) / 2)
    assert found.forgot_most == "colours"
    low, high = found.forgetting_interval or (0, 0)
    assert 0 < low < 0.3 < high
    assert numbers.forgetting(found, board).endswith("most on Colours")
    assert (row(board, "full").forgetting, row(board, "full").forgot_most) == (0, "")
    assert row(board, "frozen").forgetting is None


def test_forgetting_that_noise_explains_has_an_interval_that_holds_zero(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1" * 10 + "0" * 10, recipe("frozen"))
    for seed in range(8):
        # Right where the baseline is wrong, and one seed a little worse: 50, 50, ..., 45 of 100.
        add(store, "0" * 10 + "1" * 10 if seed else "0" * 11 + "1" * 9, recipe("lora", seed))
    (board,) = made(store)
    found = row(board, "lora")
    assert found.forgetting == pytest.approx(2 * 0.05 / 8)
    low, high = found.forgetting_interval or (1, 0)
    assert low < 0 < high


def test_score_overall_and_centring_by_hand(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110")  # 75 of 100: centred (.75 - .5) / .5 = .5
    add(store, "11110", of=SHAPES)  # 48 of 60: centred (.8 - .5) / .5 = .6
    (board,) = made(store)
    (only,) = board.rows
    assert only.cells["colours"].score == pytest.approx(0.75)
    assert only.cells["shapes"].score == pytest.approx(0.8)
    assert only.overall == pytest.approx(0.55)
    assert (only.place, only.place_interval, only.groups) == (1, (1, 1), "a")


def test_mean_and_deviation_over_seeds_by_hand(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed, right in enumerate(("11110", "1110", "1100")):
        add(store, right, recipe(seed=seed))
    cell = made(store)[0].rows[0].cells["colours"]
    assert cell.by_seed == pytest.approx({0: 0.8, 1: 0.75, 2: 0.5})
    assert cell.score == pytest.approx(2.05 / 3)
    assert cell.sd == pytest.approx(0.160728, abs=1e-6)
    assert cell.interval_of == "seeds and images"
    assert cell.interval is not None
    assert cell.interval[0] < 0.65 < cell.score < cell.interval[1]


def test_one_seed_has_the_interval_of_its_checkpoint(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110")
    cell = made(store)[0].rows[0].cells["colours"]
    assert (cell.interval_of, cell.sd) == ("images", None)
    # Binomial with n 100 and p .75: standard error .0433, two of them on either side.
    assert cell.interval == pytest.approx((0.665, 0.835), abs=0.02)


def test_equal_methods_share_place_and_letter(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed in range(8):
        for method, right in (("lora", "1110"), ("vpt", "1011"), ("prefix", "1010")):
            add(store, right, recipe(method, seed))
    (board,) = made(store)
    assert [(r.label, r.place) for r in board.rows] == [("lora", 1), ("vpt", 1), ("prefix", 3)]
    assert {r.label: r.groups for r in board.rows} == {"lora": "a", "vpt": "a", "prefix": "b"}
    assert [r.label for r in board.leaders] == ["lora", "vpt"]
    assert not board.exploratory


def test_few_seeds_separate_nothing_and_are_marked(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed in range(3):
        add(store, "1", recipe("lora", seed))
        add(store, "10", recipe("vpt", seed))
    (board,) = made(store)
    assert board.exploratory
    assert [(r.label, r.groups, r.place) for r in board.rows] == [("lora", "a", 1), ("vpt", "a", 2)]
    assert not any(r.borderline for r in board.rows)
    assert all("exploratory" in r.flags for r in board.rows)


def test_method_that_does_not_train_needs_no_seeds(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "10", recipe("frozen", 0))
    for seed in range(6):
        add(store, "1110", recipe("lora", seed))
    (board,) = made(store)
    assert board.seeds == (0, 1, 2, 3, 4, 5)
    assert not row(board, "frozen").flags
    assert {r.label: (r.place, r.groups) for r in board.rows} == {"lora": (1, "a"), "frozen": (2, "b")}
    assert (row(board, "frozen").worst, row(board, "lora").worst) == (None, pytest.approx(0.5))


def test_the_lowest_mean_is_in_the_last_place_however_unsteady_its_seeds(tmp_path: Path) -> None:
    """The old rank, 1 + the number of methods that are significantly better, was 1 for it."""
    store = store_in(tmp_path)
    for seed in range(8):
        add(store, "1110" if seed % 2 else "11100111011", recipe("lora", seed))
        add(store, "11011" if seed != 3 else "0", recipe("mmpt", seed))
        add(store, "0" if seed % 2 else "1", recipe("vpt", seed))
    (board,) = made(store)
    assert [(r.label, r.place) for r in board.rows][-1] == ("vpt", 3)
    assert set(row(board, "vpt").groups) & set(board.rows[0].groups)
    assert (row(board, "vpt").cells["colours"].place, row(board, "vpt").worst) == (3, -1.0)


def test_gain_is_over_the_projector_alone_by_hand(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed, right in enumerate(("11110", "1110", "11110", "1110", "11110", "1110")):
        add(store, right, recipe("lora", seed))
        add(store, "10", recipe("projector", seed))
    (board,) = made(store)
    assert board.projector == "projector"
    gained = row(board, "lora").cells["colours"]
    assert gained.gain == pytest.approx(0.775 - 0.5)
    assert gained.worst == pytest.approx(0.75)
    assert row(board, "lora").gain == pytest.approx(2 * (0.775 - 0.5))
    low, high = row(board, "lora").gain_interval or (0, 0)
    assert 0.1 < low < 0.55 < high < 0.9
    assert (row(board, "projector").gain, row(board, "projector").gain_interval) == (None, None)
    text = leaderboard_md([board], ()).decode()
    assert "| lora | 55.0 % (" in text
    assert "+55.0 (" in text
    assert "+27.5 (" in text


def test_without_a_projector_there_is_no_gain(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora"))
    (board,) = made(store)
    assert (board.projector, board.rows[0].gain, board.rows[0].cells["colours"].gain) == ("", None, None)


def measured(**changes: object) -> dict[str, object]:
    """Returns costs of a training in its own process on a machine of two cores, which others kept busy for .5 s."""
    costs = {"own_process": True, "resident_bytes": 400, "peak_bytes": 1000, "train_seconds": 60.0,
             "cpu_seconds": 90.0, "others_cpu_seconds": 0.5, "environment": {"cores": 2}}  # fmt: skip
    return costs | changes


@pytest.mark.parametrize(
    ("changes", "memory", "times"),
    [
        ({}, (600, 1000), (60.0, 90.0)),
        ({"own_process": False}, (None, None), (None, None)),
        ({"gradient_checkpointing": True}, (None, None), (None, None)),
        ({"world_size": 2}, (None, None), (None, None)),
        ({"others_cpu_seconds": 6.1}, (600, 1000), (None, None)),
        ({"others_cpu_seconds": None}, (600, 1000), (None, None)),
        ({"resident_bytes": None, "cpu_seconds": None}, (None, None), (None, None)),
    ],
    ids=["measured", "shared process", "recomputed", "two ranks", "busy machine", "unknown machine", "older record"],
)
def test_costs_have_a_figure_only_where_they_are_the_trainings_own(
    tmp_path: Path, changes: dict[str, object], memory: tuple[int, int], times: tuple[float, float]
) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora"), **measured(**changes))
    (only,) = made(store)[0].rows
    assert ((only.own_bytes, only.peak_bytes), (only.train_seconds, only.cpu_seconds)) == (memory, times)


def test_costs_are_of_the_measured_runs_alone(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora", 0), **measured())
    add(store, "1110", recipe("lora", 1), **measured(train_seconds=80.0, resident_bytes=500))
    add(store, "1110", recipe("lora", 2), peak_bytes=10**6, train_seconds=999.0)
    (only,) = made(store)[0].rows
    assert (only.train_seconds, only.peak_bytes, only.own_bytes) == (70.0, 1000, 600)


def test_a_questions_time_is_that_of_evaluations_on_an_idle_machine(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed, (seconds, others) in enumerate([(0.4, 0.0), (0.8, 0.0), (9.0, 9.0)]):
        add(store, "1110", recipe("lora", seed), eval_seconds=seconds, eval_others_cpu_seconds=others)
    (only,) = made(store)[0].rows
    n = sum(record.n for record in store.records() if record.seed < 2)
    assert only.question_seconds == pytest.approx(1.2 / n)
    add(store, "1110", recipe("vpt"), eval_seconds=1.0)
    assert [row.question_seconds for row in made(store)[0].rows if row.method == "vpt"] == [None]
    # Of two tasks it is known where both are timed, each with the weight of its questions.
    add(store, "1110", recipe("lora"), SHAPES)
    assert row(made(store)[0], "lora").question_seconds is None
    add(store, "1110", recipe("lora", 1), SHAPES, eval_seconds=0.3, eval_others_cpu_seconds=0.0)
    sizes = [len(ASKED[name]) for name in ("colours", "shapes")]
    wanted = (1.2 / n * sizes[0] + 0.3 / sizes[1] * sizes[1]) / sum(sizes)
    assert row(made(store)[0], "lora").question_seconds == pytest.approx(wanted)


@pytest.mark.parametrize(
    "other",
    [{"budget": Budget(steps=800)}, {"dtype": "bfloat16"}, {"corpus_fingerprint": "x"}, {"backbone_fingerprint": "x"}],
)
def test_tracks_are_never_mixed(tmp_path: Path, other: dict[str, object]) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora"))
    add(store, "1111", recipe("vpt", **other))
    found = made(store)
    assert sorted(r.label for board in found for r in board.rows) == ["lora", "vpt"]
    assert [(len(board.rows), board.rows[0].place) for board in found] == [(1, 1), (1, 1)]


@pytest.mark.parametrize("n", [30, 700])
def test_intervals_of_a_row_are_those_of_the_row_alone(tmp_path: Path, n: int) -> None:
    asked = {"colours": samples(n), "shapes": samples(n // 2)}
    rights = {"lora": "1101110", "vpt": "10", "full": "1110", "frozen": "100"}
    found = []
    for others in ([], ["vpt"], ["vpt", "full", "frozen"]):
        store = store_in(tmp_path / str(len(others)))
        for method in ["lora", *others]:
            for seed in range(3) if method != "frozen" else [0]:
                for name, questions in asked.items():
                    right = rights[method][seed:] + rights[method][:seed]
                    keep(store, record(store, TASKS[name], questions, right, recipe(method, seed)))
        (board,) = made(store)
        of = row(board, "lora")
        found.append((of.overall, of.overall_interval, [cell.interval for cell in of.cells.values()]))
    assert None not in found[0][2]
    assert found[0] == found[1] == found[2]


def test_tasks_with_as_many_pictures_draw_them_for_themselves(tmp_path: Path) -> None:
    # Drawn alike, two equal tasks would average to one, and the interval of their mean would be as wide as of each.
    store = store_in(tmp_path)
    for of in (COLOURS, SHAPES):
        keep(store, record(store, of, samples(100), "1110", recipe("lora")))
    (board,) = made(store)
    (of_row,) = board.rows
    low, high = of_row.overall_interval or (0, 0)
    widths = [2 * (cell.interval[1] - cell.interval[0]) for cell in of_row.cells.values() if cell.interval]
    assert high - low < 0.85 * min(widths)  # 1 / sqrt(2) is expected


@pytest.mark.parametrize(
    ("changed", "label"),
    [
        ({"r": 2}, "lora (r=2)"),
        ({"r": 2, "learning_rate": 0.5}, "lora (learning_rate=0.5, r=2)"),
        ({}, "lora"),
        (None, "lora"),
    ],
)
def test_hyperparameters_that_are_not_the_defaults_are_in_the_label_of_a_row_alone(
    tmp_path: Path, changed: dict[str, object] | None, label: str
) -> None:
    store = store_in(tmp_path)
    params = {"r": 2, "alpha": 32, "learning_rate": 0.5}
    add(store, "1110", recipe("lora", 0, params), changed=changed)
    assert [r.label for r in made(store)[0].rows] == [label]


def test_records_from_before_a_hyperparameter_are_labelled_with_what_it_was(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    params = {"interaction": True, "learning_rate": 0.001}
    add(store, "1110", recipe("mmpt", 0, params))
    assert [r.label for r in made(store)[0].rows] == ["mmpt (interaction_place=front)"]
    # The same again, as it is recorded now, and what is the default now.
    add(
        store,
        "1100",
        recipe("mmpt", 1, params | {"interaction_place": "front"}),
        changed={"interaction_place": "front"},
    )
    add(store, "1000", recipe("mmpt", 0, params | {"interaction_place": "image"}), changed={})
    labels = {r.label: (r.seeds, r.params["interaction_place"]) for r in made(store)[0].rows}
    assert labels == {
        "mmpt (interaction_place=front)": ((0, 1), "front"),
        "mmpt (interaction_place=image)": ((0,), "image"),
    }


def test_a_rate_that_one_of_a_rows_runs_had_from_a_search_is_not_in_its_label(tmp_path: Path) -> None:
    # The second repeats the first by its recipe, which sets the rate.
    store = store_in(tmp_path)
    for seed, changed in ((0, {}), (1, {"learning_rate": 0.001})):
        add(store, "1110", recipe("lora", seed), changed=changed)
    assert [r.label for r in made(store)[0].rows] == ["lora"]


def test_what_tells_rows_apart_and_what_is_no_default_stand_in_one_label(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for r, changed in ((16, {"alpha": 8}), (2, {"alpha": 8, "r": 2})):
        add(store, "1110", recipe("lora", 0, {"r": r, "alpha": 8}), changed=changed)
    assert sorted(each.label for each in made(store)[0].rows) == ["lora (alpha=8, r=16)", "lora (alpha=8, r=2)"]


def test_runs_that_ranks_shared_stand_in_the_row_of_those_that_they_did_not(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed, size in ((0, 1), (1, 8)):
        add(store, "1110", recipe("lora", seed), world_size=size)
    assert [(each.label, each.seeds) for each in made(store)[0].rows] == [("lora", (0, 1))]


@pytest.mark.parametrize("changes", [{"parse_rule": "vlmevalkit"}, {"guard": False}])
def test_another_parse_rule_or_decoding_is_seen_wherever_the_board_is_shown(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    store = store_in(tmp_path)
    add(store, "1110", **changes)
    found = made(store)
    told = "vlmevalkit" if "parse_rule" in changes else "close calls not asked again"
    shown = {
        "terminal": printed(found[0], 80), "csv": leaderboard_csv(found).decode(),
        "markdown": leaderboard_md(found, ()).decode(), "json": json.dumps(leaderboard_json(found, ())),
        "latex": leaderboard_latex(found).decode() if "parse_rule" in changes else told,
    }  # fmt: skip
    for form, text in shown.items():
        assert told in " ".join(text.split()), form


def test_results_without_the_guard_are_left_out_beside_more_with_it(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", guard=False)
    for seed in (1, 2):
        add(store, "1110", recipe("lora", seed))
    (board,) = made(store)
    assert any("close calls not asked again" in text for text in board.left_out)


def test_replies_read_by_another_rule_stand_on_a_board_of_that_rule(tmp_path: Path) -> None:
    store, plainly = store_in(tmp_path), task("shapes", "Shapes", rule="plain")
    tasks = {"colours": COLOURS, "shapes": plainly}
    for seed in range(2):
        add(store, "1110", recipe("lora", seed))
        add(store, "11110", recipe("lora", seed), of=plainly, parse_rule="plain")
        add(store, "10", recipe("lora", seed), parse_rule="plain")  # the same answers, read otherwise
    add(store, "10", recipe("vpt"), parse_rule="lmms-eval")
    own, lmms, plain = made(store, tasks)
    assert [(b.rule, b.id.removeprefix(b.track)) for b in (own, lmms, plain)] == [
        ("", ""), ("lmms-eval", "-lmms-eval"), ("plain", "-plain"),
    ]  # fmt: skip
    # 75 and 80 of 100 by each task's own rule; 50 by the rule `plain`, which is the own one of Shapes.
    scores = [{t: cell.score for t, cell in row(b, "lora").cells.items()} for b in (own, plain)]
    assert scores == [{"colours": 0.75, "shapes": 0.8}, {"colours": 0.5, "shapes": 0.8}]
    assert [r.label for r in lmms.rows] == ["vpt"]
    assert not any(board.left_out for board in (own, lmms, plain))
    assert "parse rule plain" in plain.title
    rows = list(csv.DictReader(io.StringIO(leaderboard_csv([own, lmms, plain]).decode())))
    assert [(r["variant"], r["parse_rule"]) for r in rows] == [("lora", ""), ("vpt", "lmms-eval"), ("lora", "plain")]
    assert len({name_of("leaderboard", board, (own, lmms, plain)) for board in (own, lmms, plain)}) == 3


def test_of_boards_a_command_prints_those_of_its_own_rule(tmp_path: Path) -> None:
    store, plainly = store_in(tmp_path), task("shapes", "Shapes", rule="plain")
    add(store, "1110")
    add(store, "11110", of=plainly, parse_rule="plain")
    add(store, "10", parse_rule="plain")
    whole = Leaderboard(made(store, {"colours": COLOURS, "shapes": plainly}), ())
    keys = {r.eval_key for r in store.records() if r.parse_rule == "plain"}
    assert len(keys) == 2
    assert [board.rule for board in whole.of(keys, []).boards] == ["plain"]
    official = {r.eval_key for r in store.records() if r.parse_rule == "official"}
    assert [board.rule for board in whole.of(official, []).boards] == [""]


def test_suites_are_never_mixed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora"))
    add(store, "1111", recipe("lora", 1), suite="real")
    assert [(board.suite, len(board.rows)) for board in made(store)] == [("embedded", 1), ("real", 1)]


def test_records_with_a_limit_stand_apart(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora"))
    asked = ASKED["colours"][:10]
    keep(store, record(store, COLOURS, asked, "1", recipe("vpt"), limit=10))
    whole, limited = made(store)
    assert (whole.limit, [r.label for r in whole.rows]) == (None, ["lora"])
    assert (limited.limit, [r.label for r in limited.rows]) == (10, ["vpt"])
    assert "limit" in limited.rows[0].flags
    assert "first 10 questions" in limited.title


def test_a_subset_says_how_many_questions_of_each_task_were_asked(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for of, n in ((COLOURS, 36), (SHAPES, 10)):
        keep(store, record(store, of, ASKED[of.name][:n], "1110", recipe("lora"), limit=10))
    (board,) = made(store)
    told = "first questions only: 36 of Colours, 10 of Shapes"
    assert board.subset == told
    assert told in " ".join(printed(board, 80).split())
    assert f"**A subset**: {told}." in leaderboard_md([board], ()).decode()
    assert told in leaderboard_latex([board]).decode()
    assert f"({told})" in answer(board, board.keys)


def test_a_task_that_lacks_a_seed_of_another_is_named(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed in range(3):
        add(store, "1110", recipe(seed=seed))
        if seed != 1:
            add(store, "1110", recipe(seed=seed), of=SHAPES)
    assert "seeds of shapes 2 of 3" in made(store)[0].rows[0].flags


def test_failed_run_is_listed_and_never_ranked(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora", 0))
    keep(store, failed(recipe("lora", 1)))
    keep(store, failed(recipe("vpt", 0), "out of | memory"))
    (board,) = made(store)
    assert [r.label for r in board.rows] == ["lora"]
    assert [(f.label, f.seed) for f in board.failures] == [("lora", 1), ("vpt", 0)]
    assert "1 failed" in board.rows[0].flags
    text = leaderboard_md([board], ()).decode()
    assert "| vpt | 0 | 0.001 | out of \\| memory |" in text
    rows = list(csv.DictReader(io.StringIO(leaderboard_csv([board]).decode())))
    assert [(r["variant"], r["place"], r["remarks"]) for r in rows] == [
        ("lora", "1", rows[0]["remarks"]), ("vpt", "", "seed 0 failed: out of | memory"),
    ]  # fmt: skip
    assert "1 failed" in rows[0]["remarks"]


def test_track_with_failures_alone_is_shown(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    keep(store, failed(recipe()))
    (board,) = made(store)
    assert (board.rows, len(board.failures)) == ((), 1)
    assert "not finite at step 12" in leaderboard_md([board], ()).decode()
    assert "not finite at step 12" in printed(board, 100)


def test_failure_that_was_made_good_is_history(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    keep(store, dataclasses.replace(failed(recipe()), time="2026-01-01T00:00:00Z"))
    add(store, "1110", recipe(), time="2026-01-01T01:00:00Z")
    assert made(store)[0].failures == ()


@pytest.mark.parametrize("task", ["", "colours"])
def test_a_failure_after_a_success_is_shown(task: str, tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe(), time="2026-01-01T00:00:00Z")
    later = dataclasses.replace(failed(recipe()), time="2026-01-01T01:00:00Z", task=task)
    keep(store, later)
    assert [failure.reason for failure in made(store)[0].failures] == ["the loss was not finite at step 12"]


def test_a_success_on_another_task_makes_no_failure_of_a_task_good(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1", recipe(), of=SHAPES, time="2026-01-01T00:00:00Z")
    keep(store, dataclasses.replace(failed(recipe()), time="2025-12-31T00:00:00Z", task="colours"))
    assert len(made(store)[0].failures) == 1


def test_method_that_lacks_a_task_is_shown_unranked(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for method in ("lora", "vpt"):
        add(store, "1110", recipe(method))
        add(store, "1110", recipe(method), of=SHAPES)
    add(store, "1111", recipe("prefix"))
    (board,) = made(store)
    assert [(r.label, r.place, r.unranked) for r in board.rows] == [
        ("lora", 1, ""), ("vpt", 1, ""), ("prefix", None, "lacks shapes"),
    ]  # fmt: skip
    assert row(board, "prefix").cells["colours"].place == 1


def test_tasks_of_the_untuned_base_alone_do_not_count(tmp_path: Path) -> None:
    """As after a stream, which asks the base on all its tasks; a later run asks a method on one."""
    store = store_in(tmp_path)
    for of in (COLOURS, SHAPES):
        add(store, "10", recipe("frozen", params={"learning_rate": 0.0}), of=of)
    add(store, "1110", recipe("lora"))
    (board,) = made(store)
    assert {column.task: column.counts for column in board.columns} == {"colours": True, "shapes": False}
    assert {r.label: (r.place, r.unranked) for r in board.rows} == {"lora": (1, ""), "frozen": (2, "")}


def test_task_of_one_method_alone_does_not_count(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for method in ("lora", "vpt", "prefix"):
        add(store, "1110", recipe(method))
    add(store, "1", recipe("vpt"), of=SHAPES)
    (board,) = made(store)
    assert {column.task: column.counts for column in board.columns} == {"colours": True, "shapes": False}
    assert {r.label: r.place for r in board.rows} == {"lora": 1, "vpt": 1, "prefix": 1}


def test_trial_with_one_seed_does_not_take_the_seeds_from_the_others(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed in range(6):
        add(store, "1110", recipe("lora", seed))
        add(store, "1100", recipe("vpt", seed))
    add(store, "1111", recipe("prefix", 0))
    (board,) = made(store)
    assert board.seeds == (0, 1, 2, 3, 4, 5)
    assert row(board, "prefix").unranked == "has 1 of the 6 seeds that are compared"
    assert row(board, "prefix").place is None
    assert row(board, "prefix").groups == ""


def of_unequal_seeds(folder: Path) -> Store:
    """Returns records of eight seeds of lora, six of vpt and one of prefix; those beyond the shared six are perfect."""
    store = store_in(folder)
    for seed in range(8):
        add(store, "1110" if seed < 6 else "1", recipe("lora", seed))
        add(store, "11110" if seed < 6 else "1", recipe("lora", seed), of=SHAPES)
    for seed in range(6):
        add(store, "10", recipe("vpt", seed))
        add(store, "110", recipe("vpt", seed), of=SHAPES)
    for of in (COLOURS, SHAPES):
        add(store, "1", recipe("prefix", 0), of=of)
    return store


def test_columns_are_over_the_seeds_of_the_overall_score_and_average_to_it(tmp_path: Path) -> None:
    (board,) = made(of_unequal_seeds(tmp_path))
    assert board.seeds == (0, 1, 2, 3, 4, 5)
    lora = row(board, "lora")
    # .75 and .8 at the six shared seeds: .5 and .6 above chance. Over all eight they would be .8125 and .85.
    assert [lora.cells[name].score for name in ("colours", "shapes")] == pytest.approx([0.75, 0.8])
    assert lora.overall == pytest.approx((0.5 + 0.6) / 2)
    for each in board.ranked:
        centred = [(each.cells[c.task].score - c.chance) / (c.ceiling - c.chance) for c in board.columns]
        assert each.overall == pytest.approx(sum(centred) / 2)
    assert sorted(lora.cells["colours"].by_seed) == sorted(lora.overall_by_seed) == [0, 1, 2, 3, 4, 5]
    assert (lora.cells["colours"].sd, lora.cells["colours"].worst) == (pytest.approx(0), pytest.approx(0.75))
    assert (len(lora.seeds), numbers.seeds(lora), numbers.seeds(row(board, "vpt"))) == (8, "6 of 8", "6")
    assert "scores over seeds 0, 1, 2, 3, 4, 5 alone, which all ranked rows have" in lora.flags
    # Its results at the other seeds are on the board all the same.
    assert len(lora.cells["colours"].eval_keys) == 8
    (line, *_) = csv.DictReader(io.StringIO(leaderboard_csv([board]).decode()))
    assert (line["variant"], line["seeds"], line["colours"]) == ("lora", "6", "0.75")


def test_a_row_with_fewer_seeds_has_its_own_scores_says_so_and_is_never_bold(tmp_path: Path) -> None:
    (board,) = made(of_unequal_seeds(tmp_path))
    prefix = row(board, "prefix")
    assert (prefix.cells["colours"].score, prefix.cells["colours"].place, prefix.place) == (1.0, None, None)
    assert "scores over its own seeds 0" in prefix.flags
    assert "exploratory" in prefix.flags
    text = leaderboard_latex([board]).decode()
    lines = {line.split(" & ")[0]: line for line in text.splitlines() if " & " in line}
    assert "textbf" not in lines["prefix"]
    assert lines["lora"].count("textbf") == 3
    caption = next(line for line in text.splitlines() if line.startswith(r"\caption"))
    assert "Without a place overall: prefix: has 1 of the 6 seeds that are compared." in caption


def test_a_task_with_more_seeds_than_the_others_is_ranked_at_those_of_the_overall_score(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for method, right in (("lora", "1110"), ("vpt", "10")):
        for seed in range(8):
            add(store, right if seed < 6 else "1", recipe(method, seed))
            if seed < 6:
                add(store, right, recipe(method, seed), of=SHAPES)
    (board,) = made(store)
    assert [cell.score for cell in row(board, "lora").cells.values()] == [0.75, 0.75]
    assert [(c.score, c.place) for c in row(board, "vpt").cells.values()] == [(0.5, 2), (0.5, 2)]


def test_retention_by_hand(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for method, right in (("frozen", "1110000000"), ("lora", "1111111000"), ("full", "1111111110")):
        add(store, right, recipe(method), COLOURS)
    ratios = row(made(store)[0], "lora").cells["colours"].retention
    assert ratios["raw"].value == pytest.approx(0.7 / 0.9)
    assert ratios["chance_corrected"].value == pytest.approx(0.2 / 0.4)
    assert ratios["gain_recovered"].value == pytest.approx(0.4 / 0.6)
    low, high = ratios["chance_corrected"].interval or (0, 0)
    assert low < 0.5 < high


def test_retention_is_refused_where_the_denominator_may_be_zero(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for method, right in (("frozen", "01"), ("lora", "0110"), ("full", "10")):
        add(store, right, recipe(method))
    cell = row(made(store)[0], "lora").cells["colours"]
    assert cell.retention["raw"].value == pytest.approx(1.0)
    for name in ("chance_corrected", "gain_recovered"):
        assert cell.retention[name].value is None
        assert numbers.ratio(cell.retention[name]).startswith("n/a (what it is divided by")


def test_retention_without_full_fine_tuning_says_so(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora"))
    cell = made(store)[0].rows[0].cells["colours"]
    assert numbers.ratio(cell.retention["raw"]) == "n/a (full fine-tuning was not run)"


def test_variants_of_a_method_have_rows_and_labels_of_their_own(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora", params={"learning_rate": 0.001, "rank": 4}))
    add(store, "1111", recipe("lora", params={"learning_rate": 0.001, "rank": 16}))
    add(store, "1100", recipe("vpt"))
    assert [r.label for r in made(store)[0].rows] == ["lora (rank=16)", "lora (rank=4)", "vpt"]


def test_a_learning_rate_is_in_a_label_only_where_nothing_else_tells_variants_apart(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora", params={"learning_rate": 0.001, "rank": 4}))
    add(store, "1111", recipe("lora", params={"learning_rate": 0.004, "rank": 16}))
    add(store, "1111", recipe("vpt", params={"learning_rate": 0.001}))
    add(store, "1111", recipe("vpt", params={"learning_rate": 0.002}))
    add(store, "1111", recipe("prefix", params={"learning_rate": 0.001, "length": 1}))
    add(store, "1111", recipe("prefix", params={"learning_rate": 0.002, "length": 1}))
    add(store, "1111", recipe("prefix", params={"learning_rate": 0.002, "length": 2}))
    (board,) = made(store)
    assert {row.label for row in board.rows} == {
        "lora (rank=4)", "lora (rank=16)", "vpt (learning_rate=0.001)", "vpt (learning_rate=0.002)",
        "prefix (learning_rate=0.001, length=1)", "prefix (learning_rate=0.002, length=1)",
        "prefix (learning_rate=0.002, length=2)",
    }  # fmt: skip


def test_strict_and_constrained_scores_and_unreadable_share(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", strict="1-10")
    cell = made(store)[0].rows[0].cells["colours"]
    assert (cell.score, cell.constrained, cell.strict) == pytest.approx((0.75, 0.75, 0.5))
    assert cell.unreadable == pytest.approx(0.25)


def test_flags_name_what_a_reader_must_know(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora"), degenerate=True, learning_rate_source="documented default, not searched")
    add(store, "1110", recipe("vpt"), learning_rate_source="searched: 6 rates on validation data, best at the edge")
    (board,) = made(store)
    assert row(board, "lora").flags == ("exploratory", "degenerate: colours", "lr not searched")
    assert row(board, "vpt").flags == ("exploratory", "lr at edge")


def test_threads_are_named_where_trainings_of_a_board_had_different_numbers(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora"), threads="1")
    add(store, "1110", recipe("vpt"), threads="1, 4")
    add(store, "1110", recipe("mmpt"))
    (board,) = made(store)
    assert "trained with 1 thread" in row(board, "lora").flags
    assert "trained with 1, 4 threads" in row(board, "vpt").flags
    assert not [flag for flag in row(board, "mmpt").flags if "thread" in flag]
    alike = store_in(tmp_path / "alike")
    for method in ("lora", "vpt"):
        add(alike, "1110", recipe(method), threads="2")
    (board,) = made(alike)
    assert not [flag for name in ("lora", "vpt") for flag in row(board, name).flags if "thread" in flag]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": 0.76}, r"its score on `colours` is 0\.76, but its answers give 0\.75"),
        ({"strict": 0.1}, "its strict on `colours`"),
        ({"ranked_choices": "0" * 99}, "99 answers to 100 samples"),
        ({"dtype": "float16"}, "says it belongs to track"),
        ({"samples": "0" * 16}, "are not in"),
        ({"ceiling": 2.0}, "reaches 2.0"),
    ],
)
def test_record_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    store = store_in(tmp_path)
    honest = record(store, COLOURS, ASKED["colours"], "1110")
    keep(store, dataclasses.replace(honest, **change))  # type: ignore[arg-type]
    with pytest.raises(UntrustedRecord, match=message):
        made(store)


def test_results_of_an_older_task_version_are_left_out(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora"))
    add(store, "1111", recipe("vpt"), task_version=0)
    (board,) = made(store)
    assert [r.label for r in board.rows] == ["lora"]
    assert board.left_out == ("1 of `colours` at version 0: it is at version 1 now. Run them again.",)


def test_results_on_other_data_are_left_out_with_both_fingerprints(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora"))
    add(store, "1110", recipe("vpt"))
    add(store, "1111", recipe("prefix"), data_fingerprint="eeeeeeee")
    (board,) = made(store)
    assert [r.label for r in board.rows] == ["lora", "vpt"]
    assert "data eeeeeeee" in board.left_out[0]
    assert "data dddddddd" in board.left_out[0]


def test_results_of_a_task_that_is_not_here_are_left_out(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110")
    (board,) = made(store, {"shapes": SHAPES})
    assert board.rows == ()
    assert "there is no such task" in board.left_out[0]


def test_points_are_shown_out_of_their_ceiling(tmp_path: Path) -> None:
    store, mme = store_in(tmp_path), task("mme", "MME", points=True)
    asked = [*samples(40, "count", 2), *samples(40, "color", 2)]
    keep(store, record(store, mme, asked, "1110"))
    (board,) = made(store, {"mme": mme})
    # Of each pair of images one has both questions right: acc 75, acc+ 50, in two subtasks.
    assert numbers.score(board.rows[0].cells["mme"].score, board.columns[0]) == "250.0 / 400"
    assert "250.0 / 400" in leaderboard_md([board], ()).decode()


def test_files_are_the_same_bytes_when_made_again(tmp_path: Path) -> None:
    one, other = store_in(tmp_path / "one"), store_in(tmp_path / "other")
    jobs = [(method, seed) for method in ("lora", "vpt", "full") for seed in range(2)]
    for store, order in ((one, jobs), (other, jobs[::-1])):
        for method, seed in order:
            add(store, "1110" if method == "lora" else "11011", recipe(method, seed))
    texts = [
        (leaderboard_csv(b), leaderboard_md(b, ()), json.dumps(leaderboard_json(b, ()), allow_nan=False))
        for b in (made(one), made(other))
    ]
    assert texts[0] == texts[1]


def test_json_holds_what_the_tables_show(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110")
    value = json.loads(json.dumps(leaderboard_json(made(store), ()), allow_nan=False))
    assert value["boards"][0]["rows"][0]["cells"]["colours"]["score"] == 0.75
    assert value["boards"][0]["rows"][0]["place"] == 1
    assert "rank" not in value["boards"][0]["rows"][0]


def test_embedded_suite_says_that_it_is_not_the_public_benchmarks(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110")
    board = made(store)[0]
    assert "generated miniatures, not the public benchmarks" in leaderboard_md([board], ()).decode().split("##")[0]
    assert "not the public benchmarks" in printed(board, 100)
    real = store_in(tmp_path / "real")
    add(real, "1110", suite="real")
    assert "miniature" not in leaderboard_md(made(real), ()).decode()


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_tables_fit_and_cut_nothing(tmp_path: Path, width: int) -> None:
    names = ("mme", "pope", "vsr", "snli_ve", "cifar10", "mnist")
    titles = dict(zip(names, ("MME", "POPE", "VSR", "SNLI-VE", "CIFAR-10", "MNIST"), strict=True))
    tasks = {name: task(name, titles[name]) for name in names}
    store = store_in(tmp_path)
    for method in ("projector", "lora"):
        for name in names:
            keep(store, record(store, tasks[name], ASKED["colours"], "1110", recipe(method)))
    (board,) = made(store, tasks)
    text = printed(board, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for expected in ("projector", *titles.values(), "75.0", "Overall"):
        assert expected in text


@pytest.mark.parametrize("title", ["Answers of students", "A title " * 10])
def test_long_titles_of_own_tasks_leave_room_for_methods(tmp_path: Path, title: str) -> None:
    tasks = {name: task(name, title.strip()) for name in ("one", "two", "three", "four", "five")}
    store = store_in(tmp_path)
    for each in tasks.values():
        keep(store, record(store, each, ASKED["colours"], "1110", recipe("projector")))
    (board,) = made(store, tasks)
    text = printed(board, 80)
    assert max(map(len, text.splitlines())) <= 80
    rows = [line for line in text.splitlines() if line.strip().startswith("projector ")]
    assert sum(line.count("75.0") for line in rows) == len(tasks), "the name is unbroken, no task left out"


HOSTILE = "\x1b[31mred\x1b]0;title\x07 | `rm` <script>x</script> [bold]b[/bold] =cmd() \u202e $x$ *y* \\"


def test_hostile_text_is_harmless_in_markdown() -> None:
    text = markdown(HOSTILE)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<" not in text
    assert text.startswith("red \\| \\`rm\\` &lt;script&gt;")
    assert text.endswith("\\\\")


def test_hostile_text_is_harmless_in_every_file(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe(), learning_rate_source=HOSTILE)
    keep(store, failed(recipe("vpt", params={"learning_rate": 1.0, "name": "=cmd()"}), "=cmd() " + HOSTILE))
    (board,) = made(store)
    md, table = leaderboard_md([board], ()).decode(), leaderboard_csv([board]).decode()
    for text in (md, table, printed(board, 100)):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script" not in md
    assert all(
        line.count("|") - line.count("\\|") == 12 for line in md.splitlines() if line.startswith("| lora | 1,000")
    )
    assert "[bold]b[/bold]" in printed(board, 200)
    for line in csv.reader(io.StringIO(table)):
        assert not any(value[:1] in ("=", "@", "+") for value in line)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r\n=1", " =1"])
def test_formulas_become_text_in_csv(text: str) -> None:
    assert csv_text(text)[0] == "'"


def test_long_replies_are_cut() -> None:
    assert len(plain_text("x" * 10_000_000)) == 300


def test_published_figures_stand_apart_with_their_remark(tmp_path: Path) -> None:
    published = read_published(ROOT / "results" / "published.csv")
    assert len(published) == 30
    assert all("arXiv:" in row.source or "github.com" in row.source for row in published)
    # Of MMPT nothing was read in its paper; of MRT its abstract was.
    assert {row.kind for row in published if row.method == "MMPT"} == {"secondary"}
    assert [row.value for row in published if row.method == "MRT" and row.kind == "primary"] == ["1580.40", "0.03"]
    (doubted,) = [row for row in published if "doubtful" in row.note]
    assert (doubted.value, doubted.metric) == ("95.54", "share of full fine-tuning")
    store = store_in(tmp_path)
    add(store, "1110")
    ours, theirs = leaderboard_md(made(store), published).decode().split("## Published scores")
    assert "1503.98" not in ours
    assert "1503.98" in theirs
    assert REMARK in theirs
    assert "1503.98" not in leaderboard_csv(made(store)).decode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mmpt,mme,score,1500,points,primary,,", "Line 2 of `published.csv` has no source"),
        ("mmpt,mme,score,,points,primary,A paper,", "has no value"),
        ("mmpt,mme,score,1500,points,,A paper,", "Line 2 .* `kind` is primary or secondary"),
        ("mmpt,mme,score", "has not 8 fields"),
        ("mmpt,mme,score,1,points,primary,A paper,,more", "has not 8 fields"),
    ],
)
def test_published_row_that_cannot_be_traced_is_refused(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "published.csv"
    file.write_text(f"method,task,metric,value,unit,kind,source,note\n{line}\n")
    with pytest.raises(UntrustedRecord, match=message):
        read_published(file)


def test_missing_published_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        read_published(tmp_path / "published.csv")


def test_no_record_gives_a_leaderboard_that_says_so(tmp_path: Path) -> None:
    assert made(store_in(tmp_path)) == ()
    assert leaderboard_md((), ()) == b"# Leaderboard: no run is recorded yet\n"


def test_csv_is_the_same_where_sums_round_otherwise_and_keeps_every_value() -> None:
    one = {"score": 0.1 + 0.2, "values": {"recall/a": 0.1 + 0.2, "n": 3}, "label": "=x", "unknown": None}
    other = {"score": 0.3, "values": {"n": 3, "recall/a": 0.3}, "label": "=x", "unknown": None}
    table = csv_table(list(one), [one])
    assert table == csv_table(list(one), [other])
    (row,) = csv.DictReader(io.StringIO(table.decode()))
    assert (row["score"], row["label"], row["unknown"]) == ("0.3", "'=x", "")
    assert json.loads(row["values"]) == {"n": 3, "recall/a": 0.3}
    many = {f"subtask {i}": i / 7 for i in range(60)}
    (row,) = csv.DictReader(io.StringIO(csv_table(["values"], [{"values": many}]).decode()))
    assert json.loads(row["values"]) == pytest.approx(many, rel=1e-9)


def test_a_budget_names_what_is_not_the_default(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "11110", recipe("lora"))
    (board,) = made(store)
    usual = numbers.budget(board)
    other = dataclasses.replace(board, budget={**board.budget, "weight_decay": 0.1, "max_grad_norm": 0.01})
    more = ", weight decay 0.1, gradient norm at most 0.01"
    assert numbers.budget(other) == usual.replace(" schedule", f" schedule{more}")
