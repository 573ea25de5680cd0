"""Streams: what is refused, which runs a stage shares, what a kill leaves, and what the tables say."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import mmpt_bench as mb
from mmpt_bench.board.from_records import boards
from mmpt_bench.common.errors import Interrupted, RequestError, UntrustedRecord
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.records.keys import RATE, train_key
from mmpt_bench.records.recipe_file import read_recipe
from mmpt_bench.records.store import Store
from mmpt_bench.records.streams import Training, read_all
from mmpt_bench.runs.options import make_request
from mmpt_bench.runs.stages import Strategy
from mmpt_bench.study.streams.board import StreamBoard, _labels
from mmpt_bench.study.streams.routes import read_routes
from mmpt_bench.study.streams.stream import StreamRequest
from mmpt_bench.study.streams.tables import MEASURE_COLUMNS, StreamResult, stream_md, stream_tables
from support.studies import recipe

QUICK: dict[str, Any] = {"steps": 3, "batch_size": 4, "limit": 6, "set": ["lora.r=2", "lora.learning_rate=1e-3"]}
LORA = "lora (learning_rate=0.001, r=2)"
STRATEGIES = ("sequential", "replay:0.5", "ewc:10", "lwf", "new-adapter", "joint")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StreamResult:
    out = tmp_path_factory.mktemp("stream")
    return mb.stream("mnist,vsr", "lora", STRATEGIES, "mnist,vsr,cifar10", out=out, **QUICK)


def board_of(made: StreamResult) -> StreamBoard:
    assert made.board is not None
    return made.board


@pytest.mark.parametrize(
    ("order", "strategy", "method", "orders", "message"),
    [
        ("mnist", "sequential", "lora", 1, "`--order mnist` is one task"),
        ("mnist,vsr,mnist", "sequential", "lora", 1, "names `mnist` twice"),
        ("mnist,vsr", "sequential", "frozen", 1, "`frozen` trains nothing"),
        ("mnist,pope", "sequential", "lora", 1, "`--tasks` leaves out `pope`"),
        ("mnist,vsr", "replya", "lora", 1, "no strategy `replya`. Did you mean `replay`"),
        ("mnist,vsr", "replay:1", "lora", 1, "a share above 0 and below 1"),
        ("mnist,vsr", "replay:0.01", "lora", 1, "`replay:0.01` replays none of a stage's 12 examples"),
        ("mnist,vsr", "ewc:-1", "lora", 1, "a weight above 0"),
        ("mnist,vsr", "lwf:x", "lora", 1, "a weight above 0"),
        ("mnist,vsr", "joint:2", "lora", 1, "`joint` takes no number"),
        ("mnist,vsr", "sequential", "lora", 3, "2 tasks have 1 to 2"),
        ("mnist,nosuch", "sequential", "lora", 1, "There is no task `nosuch`"),
    ],
)
def test_a_stream_that_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, order: str, strategy: str, method: str, orders: int, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        mb.stream(order, method, strategy, "mnist,vsr,cifar10", orders=orders, out=tmp_path, **(QUICK | {"set": []}))
    assert list(tmp_path.iterdir()) == []


def test_a_task_without_a_training_split_is_named(tmp_path: Path) -> None:
    (tmp_path / "vsr").mkdir()
    (tmp_path / "vsr" / "test.jsonl").write_text("{}\n")
    with pytest.raises(RequestError, match="`vsr` cannot be learnt"):
        mb.stream("vsr,mnist", "lora", out=tmp_path / "out", data=tmp_path, tasks="vsr,mnist", steps=2)


def test_trainings_of_two_learning_rates_are_two_rows() -> None:
    """As after a search between two commands; a training without a record is called as before."""

    def labels(label: str, **rates: float) -> dict[str, str]:
        trainings = [Training(label, "sequential", ("a", "b"), 0, (f"{run}-1", run)) for run in (*rates, "undone")]
        records: Any = {(run, "a"): SimpleNamespace(record=SimpleNamespace(params={RATE: rates[run]})) for run in rates}
        return _labels(trainings, records)

    assert labels("lora", r=1e-3, s=1e-3) == {"r": "lora", "s": "lora", "undone": "lora"}
    assert labels("lora", r=1e-3, s=3e-4)["s"] == "lora (learning_rate=0.0003)"
    assert labels("lora (r=2)", r=1e-3, s=3e-4)["r"] == "lora (r=2, learning_rate=0.001)"


def test_strategies_are_written_with_their_numbers() -> None:
    assert [str(Strategy.of(text)) for text in STRATEGIES] == [
        "sequential", "replay:0.5", "ewc:10", "lwf:10", "new-adapter", "joint"
    ]  # fmt: skip


def test_orders_are_drawn_from_a_fixed_seed_none_twice() -> None:
    request = make_request("lora", "all", {})
    asked = [StreamRequest.of(request, ["mnist", "vsr", "pope", "mme"], 5, ["joint"]).orders for _ in range(2)]
    assert asked[0] == asked[1]
    assert asked[0][0] == ("mnist", "vsr", "pope", "mme")
    assert len(set(asked[0])) == 5


def test_ordinary_runs_keep_their_keys_and_recipes() -> None:
    plain = dataclasses.asdict(recipe("lora", 0))
    assert plain["stage"] == {}
    without = {name: value for name, value in plain.items() if name != "stage"}
    assert train_key(plain) == train_key(without)
    staged = plain | {"stage": {"strategy": "sequential", "order": ["a", "b"], "after": ["run"]}}
    other = plain | {"stage": {"strategy": "sequential", "order": ["a", "b"], "after": ["another"]}}
    assert len({train_key(each) for each in (plain, staged, other)}) == 3


def test_strategies_share_the_first_stage_and_new_adapters_are_single_runs(made: StreamResult) -> None:
    by = {one.strategy: one.runs for one in made.stream.trainings}
    firsts = {strategy: runs[0] for strategy, runs in by.items() if strategy != "joint"}
    assert len(set(firsts.values())) == 1
    assert len({runs[-1] for runs in by.values()}) == len(by)
    folder = made.folder / "runs"
    own = read_recipe(folder / by["new-adapter"][1] / "recipe.yaml")
    assert own.stage == {}
    assert "stage" not in (folder / by["new-adapter"][1] / "recipe.yaml").read_text()
    # The same run, bit for bit, as a user's own on that split: it is done already.
    single = mb.run("lora", "vsr", train_data="task:vsr", out=made.folder, **QUICK)
    assert by["new-adapter"][1] in {record.run for record in single.records}
    assert single.made == ()
    assert read_recipe(folder / by["lwf:10"][1] / "recipe.yaml").stage == {
        "strategy": "lwf:10", "order": ["mnist", "vsr"], "after": [firsts["lwf:10"]]
    }  # fmt: skip


def test_terms_are_in_the_log_and_the_fisher_information_beside_the_adapter(made: StreamResult) -> None:
    by = {one.strategy: one.runs for one in made.stream.trainings}

    def steps(run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (made.folder / "runs" / run / "train.jsonl").read_text().splitlines()]

    assert all("ewc" in step["terms"] for step in steps(by["ewc:10"][1]))
    assert all("lwf" in step["terms"] for step in steps(by["lwf:10"][1]))
    assert all("terms" not in step for step in steps(by["sequential"][1]))
    assert (made.folder / "runs" / by["ewc:10"][0] / "fisher.safetensors").is_file()
    # Before the first step nothing has moved; afterwards it has.
    assert steps(by["ewc:10"][1])[0]["terms"]["ewc"] == 0
    assert steps(by["ewc:10"][1])[-1]["terms"]["ewc"] > 0


def test_measures_scores_and_files(made: StreamResult) -> None:
    strategies = [row.strategy for row in made.rows]
    assert [each for each in strategies if each != "new-adapter, routed"] == [str(Strategy.of(s)) for s in STRATEGIES]
    assert set(board_of(made).routed) == {"mnist", "vsr"}
    assert all(share > 0.9 for share in board_of(made).routed.values())
    table = made.table
    assert list(table.columns) == list(MEASURE_COLUMNS)
    last = table[table["measure"] == "last"].set_index("strategy")["value"]
    scores = made.scores
    behind = scores[(scores["strategy"] == "sequential") & (scores["stage"] == 2)].set_index("task")["score"]
    assert last["sequential"] == pytest.approx(behind[["mnist", "vsr"]].mean())
    assert set(scores["task"]) == {"mnist", "vsr", "cifar10"}
    assert (scores["ci_low"] <= scores["score"] + 1e-9).all()
    assert (scores["score"] <= scores["ci_high"] + 1e-9).all()
    kept = scores[(scores["strategy"] == "new-adapter") & (scores["task"] == "mnist")]["score"]
    assert kept.nunique() == 1
    joint = table[table["strategy"] == "joint"]["measure"]
    assert list(joint) == ["last", "elsewhere"]
    files = made.folder / "streams"
    (name,) = {path.stem for path in files.glob("*.json")}
    rows = list(csv.DictReader(io.StringIO((files / f"{name}.csv").read_text())))
    assert len(rows) == len(table)
    assert "Made by" in stream_md(board_of(made)).decode()
    assert {path.suffix for path in made.figures} == {".png", ".svg", ".pdf", ".csv"}
    assert {path.stem.rsplit("-", 1)[-1] for path in made.figures} == {"scores", "curves", "forgetting"}


def test_the_table_has_room_in_80_columns(made: StreamResult) -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    for part in stream_tables(board_of(made)):
        console.print(part)
    text = console.export_text()
    assert "…" not in text
    for word in ("sequential", "replay:0.5", "Forgetting", "Elsewhere", "At its stage"):
        assert word in text


def test_runs_of_a_stream_stand_on_no_leaderboard(made: StreamResult) -> None:
    assert boards(Store(made.folder), task_catalog.built_in_tasks(), 20) == ()


def test_the_same_stream_again_does_nothing_and_other_strategies_are_added(made: StreamResult) -> None:
    again = mb.stream("mnist,vsr", "lora", "joint", "mnist,vsr,cifar10", out=made.folder, **QUICK)
    assert len(again.rows) == len(STRATEGIES) + 1
    assert [row.measures for row in again.rows if row.strategy == "joint"] == [
        row.measures for row in made.rows if row.strategy == "joint"
    ]


@pytest.mark.slow
def test_variants_of_a_method_are_rows_of_their_own(made: StreamResult, tmp_path: Path) -> None:
    other = QUICK | {"set": ["lora.r=4", "lora.learning_rate=1e-3"], "seeds": 1}
    arguments: Any = {"out": tmp_path, "order": "mnist,vsr", "method": "lora", "tasks": "mnist,vsr"}
    mb.stream(**arguments, **QUICK)
    both = mb.stream(**arguments, **other)
    assert [(row.label, len(row.trainings)) for row in both.rows] == [
        (LORA, 1), ("lora (learning_rate=0.001, r=4)", 1)
    ]  # fmt: skip
    assert [row.method for row in both.rows] == ["lora", "lora"]
    assert len(board_of(both).stream.command.splitlines()) == 1  # the same words, options aside


@pytest.mark.slow
def test_trainings_that_an_alarm_may_end_are_a_row_of_their_own(tmp_path: Path) -> None:
    arguments: Any = {"out": tmp_path, "order": "mnist,vsr", "method": "lora", "tasks": "mnist,vsr"}
    mb.stream(**arguments, **QUICK)
    both = mb.stream(**arguments, **QUICK, seeds=1, monitor="mnist", every=3, stop_on_alarm=True)
    stops = "lora (learning_rate=0.001, r=2, stops at an alarm=mnist every 3)"
    assert [(row.label, len(row.trainings)) for row in both.rows] == [(LORA, 1), (stops, 1)]


def test_a_run_of_the_stream_asked_otherwise_changes_no_measure(made: StreamResult) -> None:
    before = made.table
    mb.run("lora", "mnist,vsr", train_data="task:mnist", world="clean", out=made.folder, **QUICK)
    again = mb.stream("mnist,vsr", "lora", STRATEGIES, "mnist,vsr,cifar10", out=made.folder, **QUICK)
    assert again.table.equals(before)


def test_a_stream_stopped_in_a_stage_goes_on_to_the_same_bytes(made: StreamResult, tmp_path: Path) -> None:
    by = {one.strategy: one.runs for one in made.stream.trainings}
    arguments: Any = {"out": tmp_path, **QUICK}

    def in_the_second_stage() -> bool:
        return (tmp_path / "runs" / by["ewc:10"][1]).is_dir()

    with pytest.raises(Interrupted):
        mb.stream("mnist,vsr", "lora", "ewc:10", "mnist,vsr,cifar10", stopping=in_the_second_stage, **arguments)
    assert not (tmp_path / "runs" / by["ewc:10"][1] / "adapter").exists()
    mb.stream("mnist,vsr", "lora", "ewc:10", "mnist,vsr,cifar10", **arguments)
    for run in by["ewc:10"]:
        whole, resumed = (
            (folder / "runs" / run / "adapter" / "adapter_model.safetensors").read_bytes()
            for folder in (made.folder, tmp_path)
        )
        assert whole == resumed


def test_rows_of_a_stream_are_compared_measure_by_measure(made: StreamResult) -> None:
    found: Any = mb.compare(f"{LORA} sequential", f"{LORA} replay:0.5", out=made.folder)
    table = found.table.set_index("measure")
    own = made.table.set_index(["strategy", "measure"])["value"]
    for name in ("last", "forgetting", "elsewhere"):
        apart = own["sequential", name] - own["replay:0.5", name]
        assert table.loc[name, "difference"] == pytest.approx(apart, abs=1e-12)
    assert table["better"].isna().all()
    assert found.sentence.startswith("With fewer than 6 trainings no difference is significant")
    with pytest.raises(RequestError, match="There is no row of a stream"):
        mb.compare(f"{LORA} sequential", f"{LORA} ewx", out=made.folder)
    with pytest.raises(RequestError, match="leave out `--tasks`"):
        mb.compare(f"{LORA} sequential", f"{LORA} joint", tasks="mnist", out=made.folder)


def test_a_damaged_definition_is_named(made: StreamResult, tmp_path: Path) -> None:
    folder = tmp_path / "streams"
    folder.mkdir()
    (folder / "a.json").write_text('{"name": 3}')
    with pytest.raises(UntrustedRecord, match=r"`streams/a.json` is damaged"):
        read_all(Store(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../../elsewhere"}, "it is called `../../elsewhere` inside"),
        ({"order": ["mnist"]}, "has not a run for each task"),
        ({"runs": ["a", "b", "c"]}, "has not a run for each task"),
        ({"runs": []}, "has not a run for each task"),
    ],
)
def test_a_definition_that_is_of_another_stream_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    training = {"label": "lora", "strategy": "sequential", "order": ["mnist", "vsr"], "seed": 0, "runs": ["a", "b"]}
    whole = {
        "name": "a", "stream": ["mnist", "vsr"], "tasks": ["mnist", "vsr"], "base": "f", "results": {}, "limit": None,
        "trainings": [training | {name: value for name, value in change.items() if name in training}], "command": "",
    }  # fmt: skip
    path = tmp_path / "streams" / "a.json"
    path.parent.mkdir()
    path.write_text(json.dumps(whole | {"name": change.get("name", "a")}))
    with pytest.raises(UntrustedRecord, match=message):
        read_all(Store(tmp_path))


@pytest.mark.parametrize(
    "routes",
    [
        {"mnist": {"samples": "s", "ranked": [["mnist", "vsr"], ["mnist"]]}},
        {"mnist": {"samples": "s", "ranked": [3]}},
        {"mnist": {"samples": "s", "ranked": [["pope"]]}},
        {"mnist": {"samples": "s", "ranked": []}},
        {},
    ],
)
def test_damaged_routes_are_named(tmp_path: Path, routes: dict[str, Any]) -> None:
    path = tmp_path / "streams" / "routes" / "a.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(routes))
    with pytest.raises(UntrustedRecord, match=r"`streams/routes/a.json` is damaged|The routes of the stream"):
        read_routes(Store(tmp_path), "a").of("mnist", "s", ("mnist", "vsr"))  # type: ignore[union-attr]
