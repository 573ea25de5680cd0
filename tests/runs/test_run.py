"""The main job, end to end on the embedded backbone: run, interrupt, resume, leaderboard; and what is asked wrongly."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmpt_bench import api
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog
from mmpt_bench.records import learning_rates
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.plan import plan
from mmpt_bench.runs.request import Request
from mmpt_bench.sources.weights import backbone_fingerprint
from support.command import bench, bench_without_torch
from support.paths import DATA, ROOT

QUICK = ("--steps", "3", "--batch-size", "4", "--limit", "8")


def test_the_main_command_trains_evaluates_and_writes_a_leaderboard_and_a_second_one_does_nothing(
    tmp_path: Path,
) -> None:
    first = bench("run", "--method", "mmpt", "--tasks", "mme,pope", *QUICK, cwd=tmp_path)
    assert "1 to train, 4 evaluations to do" in first.stderr
    searched = {choice.search.backbone_fingerprint for choice in learning_rates.read(learning_rates.shipped())}
    is_searched = backbone_fingerprint("embedded") in searched
    told = "searched: " if is_searched else "documented default, not searched"
    assert re.search(rf"mmpt: learning rate \S+, {told}", first.stderr)
    assert "step 3/3, loss" in first.stderr
    assert re.search(r"mmpt\b.* new", first.stdout)
    assert re.search(r"^frozen: mme [\d.]+ / \d+ \(95 % CI ", first.stderr, re.MULTILINE)
    assert re.search(r"^mmpt seed 0: pope [\d.]+ % \(95 % CI ", first.stderr, re.MULTILINE)
    assert re.search(r"points (above|below) the untuned base \(95 % CI .*; one seed, exploratory\)", first.stdout)
    again = ["mmpt-bench", "run", "--method", "all", "--tasks", "mme,pope", *QUICK]
    assert sorted(first.stderr.splitlines()[-1].split()) == sorted(again)
    log = (tmp_path / "mmpt-results" / "mmpt-bench.log").read_text()
    assert re.search(r"^[\d-]+ [\d:,]+ INFO mmpt seed 0: pope ", log, re.MULTILINE)
    for name in ("leaderboard.csv", "leaderboard.md"):
        assert (tmp_path / "mmpt-results" / name).stat().st_size > 200
    records = Store(tmp_path / "mmpt-results").records()
    assert sorted((r.method, r.task) for r in records) == [(m, t) for m in ("frozen", "mmpt") for t in ("mme", "pope")]
    assert all(r.status == "ok" and r.suite == "embedded" and r.interval for r in records)
    before = {path: path.read_bytes() for path in (tmp_path / "mmpt-results").rglob("*.jsonl")}
    second = bench("run", "--method", "mmpt", "--tasks", "mme,pope", *QUICK, "--json", cwd=tmp_path)
    assert "recorded already" in second.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "mmpt-results").rglob("*.jsonl")} == before
    assert {row["method"] for row in json.loads(second.stdout)["boards"][0]["rows"]} == {"mmpt", "frozen"}
    # Another limit is another board: the first one is counted and not printed.
    third = bench("run", "--method", "frozen", "--tasks", "mme", "--limit", "4", cwd=tmp_path)
    assert "mmpt" not in third.stdout
    assert "1 more in mmpt-results/: `mmpt-bench leaderboard` prints all of them." in third.stderr


@pytest.mark.slow
def test_the_clean_world_is_asked_of_the_same_adapter_on_a_leaderboard_of_its_own(tmp_path: Path) -> None:
    bench("run", "--method", "vpt", "--no-base", "--tasks", "vsr", *QUICK, cwd=tmp_path)
    again = bench("run", "--method", "vpt", "--no-base", "--tasks", "vsr", "--world", "clean", *QUICK, cwd=tmp_path)
    assert "0 to train" in again.stderr
    records = [r for r in Store(tmp_path / "mmpt-results").records() if r.method == "vpt"]
    assert [r.suite for r in records] == ["embedded", "embedded-clean"]
    assert len({r.track for r in records}) == 2
    refused = bench("run", "--world", "clean", "--data", ".", cwd=tmp_path, code=2)
    assert "`--world clean` is for the embedded suite" in refused.stderr


@pytest.mark.slow
def test_a_new_task_reuses_the_trained_adapter(tmp_path: Path) -> None:
    bench("run", "--method", "vpt", "--no-base", "--tasks", "cifar10", *QUICK, cwd=tmp_path)
    (adapter,) = (tmp_path / "mmpt-results" / "runs").glob("vpt-*/adapter/adapter_model.safetensors")
    made = adapter.stat().st_mtime_ns
    again = bench("run", "--method", "vpt", "--no-base", "--tasks", "cifar10,vsr", *QUICK, cwd=tmp_path)
    assert "0 to train, 1 evaluation to do, 1 recorded already" in again.stderr
    assert adapter.stat().st_mtime_ns == made


def test_an_interrupted_run_says_so_and_the_same_command_ends_with_the_same_bytes(tmp_path: Path) -> None:
    words = ("run", "--method", "projector", "--tasks", "cifar10", "--steps", "24", "--batch-size", "2", "--limit", "8")
    words = (*words, "--no-base")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "mmpt_bench", *words, "--out", "cut"]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "step 8/24" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert "the same command goes on from there" in rest
    assert list((tmp_path / "cut" / "runs").glob("*/checkpoint/step-*.pt"))
    bench(*words, "--out", "cut", cwd=tmp_path)
    bench(*words, "--out", "whole", cwd=tmp_path)
    name = "runs/*/adapter/adapter_model.safetensors"
    (cut,), (whole,) = (tmp_path / "cut").glob(name), (tmp_path / "whole").glob(name)
    assert cut.read_bytes() == whole.read_bytes()
    steps = [json.loads(line)["step"] for line in (cut.parents[1] / "train.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 25))


@pytest.mark.slow
def test_a_killed_evaluation_answers_no_question_twice_and_leaves_none_out(tmp_path: Path) -> None:
    words = ("run", "--method", "frozen", "--tasks", "pope")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, "-m", "mmpt_bench", *words], cwd=tmp_path, env=env)
    until = time.monotonic() + 120
    while not (found := list((tmp_path / "mmpt-results" / "runs").glob("*/pope.jsonl"))) and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert found
    half = len(found[0].read_text().splitlines())
    assert half < 2400
    bench(*words, cwd=tmp_path)
    ids = [json.loads(line)["id"] for line in found[0].read_text().splitlines()]
    assert len(ids) == len(set(ids)) == 2400


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "mmtp"), "Did you mean `mmpt`"),
        (("--tasks", "mee"), "Did you mean `mme`"),
        (("--backbone", "embeded"), "Did you mean `embedded`"),
        (("--set", "mmpt.text_lenght=3"), "Did you mean `text_length`"),
        (("--set", "lora.r=3"), "names one that `--method` does not"),
        (("--set", "text_length=-1"), "0 or more"),
        (("--set", "text_length=many"), "type int"),
        (("--data", "nowhere"), "no folder or file `nowhere`"),
        (("--seeds", "1,1"), "different numbers"),
        (("--steps", "0"), "a number from 1"),
        (("--dtype", "float31"), "Did you mean `float32`"),
        (("--out", "/dev/null/results"), "cannot be written"),
        (("--tasks", "./mine.py"), "no file `./mine.py`"),
        (("--metod", "mmpt"), "--method"),
    ],
)
def test_a_wrong_request_is_refused_with_a_hint_before_torch_is_imported(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = bench_without_torch("run", *words, cwd=tmp_path)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mmpt-results" / "runs").exists()


def test_a_failed_run_is_recorded_listed_and_never_ranked(tmp_path: Path) -> None:
    words = ("--method", "projector,frozen", "--set", "projector.learning_rate=1e30", "--tasks", "cifar10", *QUICK)
    done = bench("run", *words, cwd=tmp_path, code=4)
    assert "not finite" in done.stderr
    board = json.loads(bench("leaderboard", "--json", cwd=tmp_path).stdout)["boards"][0]
    assert [row["method"] for row in board["rows"] if row["place"] is not None] == ["frozen"]
    assert board["failures"][0]["method"] == "projector"


def test_real_mnist_and_cifar_pictures_are_evaluated_from_a_folder(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("the folder of real data is not beside the checkout")
    words = ("run", "--method", "frozen", "--tasks", "mnist,cifar10", "--data", str(DATA), "--limit", "40", "--json")
    board = json.loads(bench(*words, cwd=tmp_path).stdout)["boards"][0]
    assert board["suite"] == "real"
    assert {column["task"] for column in board["columns"]} == {"mnist", "cifar10"}
    assert all(record.n == 40 for record in Store(tmp_path / "mmpt-results").records())


def test_a_plan_runs_nothing(tmp_path: Path) -> None:
    done = bench("run", "--method", "all", "--tasks", "all", "--seeds", "0,1", "--plan", "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    # The untuned model once, and eight methods at two seeds.
    assert len(said["runs"]) == 1 + 9 * 2
    assert {task["task"] for task in said["tasks"]} == set(task_catalog.task_entries())
    assert not (tmp_path / "mmpt-results").exists()


def test_what_does_not_train_is_one_run_whatever_the_seeds(tmp_path: Path) -> None:
    methods, tasks = method_catalog.find_methods("frozen,lora"), task_catalog.find_tasks("mnist")
    asked = Request(tuple(methods), {}, tuple(tasks), (0, 1, 2), budget=Budget(steps=1), out=tmp_path)
    jobs = plan(asked, Store(tmp_path)).jobs
    assert [(job.recipe.method, job.recipe.seed) for job in jobs] == [
        ("frozen", 0),
        ("lora", 0),
        ("lora", 1),
        ("lora", 2),
    ]


@pytest.mark.slow
def test_a_recipe_repeats_its_run_and_an_edited_one_is_another(tmp_path: Path) -> None:
    bench(
        "run", "--method", "vpt", "--no-base", "--set", "learning_rate=0.01", "--tasks", "mnist", *QUICK, cwd=tmp_path
    )
    (recipe,) = (tmp_path / "mmpt-results" / "runs").glob("*/recipe.yaml")
    bench("run", "--recipe", str(recipe), "--tasks", "mnist", "--limit", "8", "--out", "again", cwd=tmp_path)
    name = "runs/*/adapter/adapter_model.safetensors"
    (first,), (second,) = (tmp_path / "mmpt-results").glob(name), (tmp_path / "again").glob(name)
    assert first.parents[1].name == second.parents[1].name
    assert first.read_bytes() == second.read_bytes()
    edited = tmp_path / "edited.yaml"
    edited.write_text(recipe.read_text().replace("seed: 0", "seed: 1"))
    bench("run", "--recipe", str(edited), "--tasks", "mnist", "--limit", "8", "--out", "again", cwd=tmp_path)
    assert len(list((tmp_path / "again" / "runs").iterdir())) == 2


def test_a_recipe_of_another_backbone_is_refused_with_what_differs(tmp_path: Path) -> None:
    from mmpt_bench.records.recipe import Recipe

    made = Recipe(
        "embedded", "0" * 64, "embedded", "x", "frozen", {"train_projector": False, "learning_rate": 0.0}, Budget(), 0
    )
    Store(tmp_path / "mmpt-results").run(made.run_name).write_recipe(made)
    (path,) = (tmp_path / "mmpt-results" / "runs").glob("*/recipe.yaml")
    done = bench("run", "--recipe", str(path), "--tasks", "mnist", cwd=tmp_path, code=2)
    assert "`backbone_fingerprint` was 000" in done.stderr
    refused = bench("run", "--recipe", str(path), "--seeds", "1", cwd=tmp_path, code=2)
    assert "do not go together" in refused.stderr


@pytest.mark.slow
def test_published_records_stand_on_the_board_and_are_not_made_again(tmp_path: Path) -> None:
    words = ("run", "--method", "frozen", "--tasks", "mnist", *QUICK)
    bench(*words, cwd=tmp_path)
    bench("leaderboard", "--publish", cwd=tmp_path)
    (tmp_path / "mmpt-results" / "runs").rename(tmp_path / "elsewhere")
    board = json.loads(bench("leaderboard", "--json", cwd=tmp_path).stdout)["boards"][0]
    assert [row["method"] for row in board["rows"]] == ["frozen"]
    assert "Everything asked for is recorded already (1 result)" in bench(*words, cwd=tmp_path).stderr


def test_a_run_says_which_hyperparameters_are_not_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "ia3.json").write_text('{"peft_type": "IA3", "target_modules": ["q_proj"]}')
    methods = method_catalog.find_methods(f"lora,mmpt,projector,frozen,{tmp_path}/ia3.json")
    overrides = {"lora": {"r": "2", "learning_rate": "0.5"}, "mmpt": {"text_length": "10"}}
    jobs = plan(Request(tuple(methods), overrides, tuple(task_catalog.find_tasks("mnist"))), Store(tmp_path)).jobs
    assert {job.method.name: job.changed for job in jobs} == {
        "lora": {"r": 2, "learning_rate": 0.5}, "mmpt": {}, "projector": {}, "frozen": {},
        "peft-ia3": {"config": '{"target_modules": ["q_proj"]}'},
    }  # fmt: skip


def costs_by_seed(folder: Path) -> dict[int, Record]:
    return {record.seed: record for record in Store(folder / "mmpt-results").records()}


@pytest.mark.slow
def test_costs_are_a_runs_own_where_it_is_the_first_of_its_process(tmp_path: Path) -> None:
    words = ("run", "--method", "projector", "--no-base", "--tasks", "cifar10", *QUICK)
    bench(*words, "--seeds", "0,1", cwd=tmp_path)
    bench(*words, "--seeds", "1,2,3", "--measure-costs", cwd=tmp_path)
    found = costs_by_seed(tmp_path)
    assert {seed: record.own_process for seed, record in found.items()} == {0: True, 1: False, 2: True, 3: True}
    for seed in (0, 2, 3):
        record = found[seed]
        assert record.is_memory_own
        assert 0 < (record.resident_bytes or 0) < record.peak_bytes
        # One thread: the processor is busy no longer than the clock runs.
        assert 0 < (record.cpu_seconds or 0) <= 1.2 * record.train_seconds * (record.environment["cores"] or 1)
    assert not found[1].is_memory_own


@pytest.mark.slow
def test_a_failed_run_does_not_keep_the_others_from_being_measured(tmp_path: Path) -> None:
    words = ("--method", "projector,frozen", "--set", "projector.learning_rate=1e30", "--tasks", "cifar10", *QUICK)
    done = bench("run", *words, "--measure-costs", cwd=tmp_path, code=4)
    assert "frozen" in done.stdout
    assert sorted(record.status for record in Store(tmp_path / "mmpt-results").records()) == ["failed", "ok"]


@pytest.mark.slow
def test_a_run_whose_adapter_was_taken_away_is_trained_again_and_nothing_else_is_said(tmp_path: Path) -> None:
    words = ("run", "--method", "projector", "--no-base", *QUICK)
    bench(*words, "--tasks", "mnist", cwd=tmp_path)
    (folder,) = (tmp_path / "mmpt-results" / "runs").glob("*/adapter")
    shutil.rmtree(folder)
    said = bench(*words, "--tasks", "mnist,vsr", cwd=tmp_path).stderr
    assert "1 to train, 1 evaluation to do, 1 recorded already" in said
    assert "will not be done" not in said
    bench("leaderboard", "--publish", cwd=tmp_path)
    (tmp_path / "mmpt-results" / "runs").rename(tmp_path / "elsewhere")
    refused = bench(*words, "--tasks", "mnist,cifar10", cwd=tmp_path, code=2).stderr
    assert "1 run will not be done" in refused
    assert "no adapter in `runs/`" in refused


def test_a_note_that_holds_for_all_tasks_and_seeds_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    options = {"steps": 2, "batch_size": 2, "limit": 2, "base": False, "out": tmp_path}
    api.run("dynamic", "vsr,mnist", seeds="0-1", reporter=Reporter(said=told.append), **options)
    assert len(Store(tmp_path).records()) == 4
    assert [text.split(",")[0] for text in told] == ["No key/value cache is shared between questions"]
