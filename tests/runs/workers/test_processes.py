"""Runs shared out among processes: the same bytes as in one, each once, whatever ends a worker."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench import api
from mmpt_bench.common.errors import Interrupted, MachineError, RequestError
from mmpt_bench.common.files import read_jsonl
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.models import families
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.run_folder import TENSORS
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.plan import plan_given
from mmpt_bench.runs.workers import processes
from mmpt_bench.runs.workers.message import Asked, Message, planned_anew
from support.command import bench
from support.processes import python
from support.small import make_small

SIZE: dict[str, Any] = {"steps": 4, "batch_size": 2}


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Workers are forked, so that they have the small suite too."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        patch.setattr(processes, "START", "fork")
        yield


def run(out: Path, workers: int = 2, methods: str = "lora,projector", **more: Any) -> Any:
    return api.run(methods, "mnist", out=out, workers=workers, **SIZE, **more)


def recorded(out: Path) -> list[tuple[str, str, int]]:
    return sorted((record.method, record.status, record.seed) for record in Store(out).records())


def kept(out: Path) -> dict[str, bytes]:
    """Returns adapters and answers by file."""
    found = [path for name in (TENSORS, "mnist.jsonl") for path in out.glob(f"runs/**/{name}")]
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


@pytest.mark.slow
def test_two_workers_make_the_bytes_of_one_process_and_tell_of_every_run_in_one_place(tmp_path: Path) -> None:
    told: dict[str, set[str]] = {"steps": set(), "finished": set()}
    reporter = Reporter(
        train_step=lambda job, step: told["steps"].add(f"{job.label} {job.recipe.seed} {step.step}"),
        finished=lambda record: told["finished"].add(record.run),
    )
    made = run(tmp_path / "two", 2, seeds=[0, 1], base=True, reporter=reporter)
    run(tmp_path / "one", 1, seeds=[0, 1], base=True)
    assert len(kept(tmp_path / "one")) == 9
    assert kept(tmp_path / "two") == kept(tmp_path / "one")
    assert recorded(tmp_path / "two") == recorded(tmp_path / "one")
    steps = {f"{name} {seed} {step}" for name in ("lora", "projector") for seed in (0, 1) for step in range(1, 5)}
    assert told == {"steps": steps, "finished": {record.run for record in made.made}}
    lines = [path.read_text().count("\n") for path in (tmp_path / "two").glob("runs/*/records.jsonl")]
    assert lines == [1] * 5


def test_a_run_that_fails_is_tried_by_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def attach(*_: Any) -> Handle:
        with (tmp_path / "attempts").open("a") as stream:
            stream.write("x")
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.")

    lora = method_catalog.load_method(method_catalog.method_entries()["lora"])
    monkeypatch.setattr(lora, "attach", attach)
    made = run(tmp_path, 3)
    assert recorded(tmp_path) == [("lora", "failed", 0), ("projector", "ok", 0)]
    assert [record.method for record in made.failed] == ["lora"]
    assert (tmp_path / "attempts").read_text() == "x"


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_by_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = processes.work_on_runs

    def work(message: Any, tell: Any, stopping: Any, tried: Any) -> None:
        def killed(*event: Any) -> None:
            if event[0] == "train_step" and event[2].step == 2 and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            tell(*event)

        real(message, killed, stopping, tried)

    monkeypatch.setattr(processes, "work_on_runs", work)
    said: list[str] = []
    run(tmp_path / "two", 2, reporter=Reporter(said=said.append))
    assert "A worker was ended by signal 9; the others do its run." in said
    run(tmp_path / "one", 1)
    assert kept(tmp_path / "two") == kept(tmp_path / "one")


def test_workers_that_are_all_killed_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "work_on_runs", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(MachineError, match=r"ended by signal 9\. What is recorded is kept; the same command goes on"):
        run(tmp_path)


@pytest.mark.slow
def test_workers_stop_with_the_command_and_the_same_command_goes_on(tmp_path: Path) -> None:
    seen: list[int] = []
    reporter = Reporter(train_step=lambda job, step: seen.append(step.step))
    with pytest.raises(Interrupted):
        run(tmp_path / "two", 2, reporter=reporter, stopping=lambda: 2 in seen)
    run(tmp_path / "two", 2)
    run(tmp_path / "one", 1)
    assert kept(tmp_path / "two") == kept(tmp_path / "one")


@pytest.mark.slow
def test_a_stage_of_a_stream_waits_for_the_stage_before_it_whoever_does_that(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"tasks": "mnist,vsr", "steps": 2, "batch_size": 2}
    for workers in (1, 2):
        made = api.stream("mnist,vsr", "projector", "sequential,replay:0.5", out=tmp_path / str(workers),
                          workers=workers, **asked)  # fmt: skip
        assert not made.failed
    assert len(kept(tmp_path / "1")) >= 3
    assert kept(tmp_path / "2") == kept(tmp_path / "1")


@pytest.mark.slow
def test_points_of_an_ablation_are_shared_out(tmp_path: Path) -> None:
    made = api.ablate("lora", "mnist", axes={"lr": "1e-3,1e-2"}, out=tmp_path, workers=2, **SIZE)
    assert recorded(tmp_path) == [("frozen", "ok", 0), ("lora", "ok", 0), ("lora", "ok", 0)]
    assert made.board is not None


@pytest.mark.slow
def test_processes_that_tune_lose_no_trial_and_choose_what_one_process_chooses(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"rounds": (1, 2), "grid": (1e-3, 3e-3), **SIZE}
    told: list[tuple[str, float, int]] = []
    chosen = {
        n: list(api.tune("lora,projector", out=tmp_path / str(n), workers=n, **asked,
                         told=lambda label, trial: told.append((label, trial.rate, trial.seed))))
        for n in (8, 1)
    }  # fmt: skip
    assert sorted(chosen[8], key=lambda c: c.search.method) == sorted(chosen[1], key=lambda c: c.search.method)
    of_8, of_1 = (read_jsonl(tmp_path / str(n) / "learning_rate_trials.jsonl") for n in (8, 1))
    name = lambda row: (row["search"]["method"], row["rate"], row["seed"], row["score"])  # noqa: E731
    assert sorted(map(name, of_8)) == sorted(map(name, of_1))
    assert len(told) == len(of_8) + len(of_1)


def message(out: Path) -> Message:
    given = ("lora", "mnist", (None, False), None, SIZE | {"out": out}, False)
    return Message.of(Asked(plan_given, given), plan_given(given, Store(out)), Store(out))


def test_a_worker_plans_the_runs_that_it_is_told_of(tmp_path: Path) -> None:
    sent = message(tmp_path)
    (planned,) = planned_anew(sent)
    assert tuple(job.recipe.run_name for job in planned.jobs) == sent.runs
    assert planned_anew(sent.narrowed([]))[0].jobs == ()


def test_a_worker_reads_the_users_file_of_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", dict(families.FAMILIES))
    own = tmp_path / "mine.py"
    line = 'FAMILIES = {"llava": Family("Mine")}'
    own.write_text(f"from mmpt_bench.engine.models.families import Family\n\n{line}\n")
    bare = message(tmp_path)
    families.register_file(own)
    sent = message(tmp_path)
    # As in a fresh interpreter, which knows no file of the user's.
    families.OWN_FAMILIES.clear()
    assert sent.families == (own,)
    assert sent.backbones != bare.backbones
    (planned,) = planned_anew(sent)
    families.OWN_FAMILIES.clear()
    assert tuple(job.recipe.run_name for job in planned.jobs) == sent.runs


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"versions": {"torch": "1.0"}}, "This worker has torch .* and not 1.0"),
        ({"backbones": (("embedded", "0" * 64),)}, "files of backbone `embedded` are others for this worker"),
        ({"runs": ("lora-0123",)}, "This worker does not plan `lora-0123`"),
    ],
    ids=["versions", "backbone", "key"],
)
def test_a_worker_refuses_what_it_would_do_otherwise(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=says):
        planned_anew(dataclasses.replace(message(tmp_path), **changed))


@pytest.mark.parametrize("workers", ["0", "-1", "many", "2.5", "1000"])
def test_what_is_no_number_of_workers_is_refused(workers: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"`--workers {workers}`: a number of processes from 1 to 512"):
        api.run("frozen", "mnist", out=tmp_path, workers=workers)


@pytest.mark.slow
def test_the_command_line_with_workers_makes_the_bytes_of_one_process(tmp_path: Path) -> None:
    asked = ("run", "--method", "lora", "--tasks", "mnist", "--seeds", "0,1", "--smoke", "--json", "--out")
    bench(*asked, "one", cwd=tmp_path)
    said = bench(*asked, "two", "--workers", "2", cwd=tmp_path)
    assert len(kept(tmp_path / "one")) == 5
    assert kept(tmp_path / "two") == kept(tmp_path / "one")
    assert "lora seed 1: mnist" in said.stderr


STARTING = """
    import sys
    sys.path.insert(0, sys.argv[1])
    import begins_long
    from mmpt_bench.cli.progress import stopping
    from mmpt_bench.runs.workers.processes import told_by_workers
    with stopping(told=False) as stop:
        for event in told_by_workers(2, begins_long.work, None, (), stop):
            pass
"""
BEGINS_LONG = """
import os, time
from multiprocessing import parent_process
if parent_process():
    open(f"{__file__}.{os.getpid()}.pid", "w").close()
    time.sleep(600)
def work(*_):
    raise AssertionError
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "says"), [(signal.SIGKILL, ""), (signal.SIGTERM, "before anything was begun")])
def test_workers_that_still_import_end_with_their_command(number: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "begins_long.py").write_text(BEGINS_LONG)
    command = python(STARTING, tmp_path)
    until(lambda: len(list(tmp_path.glob("*.pid"))) == 2, 120)
    command.send_signal(number)
    pids = [int(path.name.split(".")[-2]) for path in tmp_path.glob("*.pid")]
    until(lambda: not any(map(is_alive, pids)), 20)
    assert says in command.communicate(timeout=20)[1]


def until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended and that nobody waits for is there, too.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.slow
def test_two_commands_with_one_request_share_its_runs(tmp_path: Path) -> None:
    words = ["run", "--method", "lora,projector", "--seeds", "0-2", "--tasks", "mnist", "--limit", "6", "--no-base"]
    words += ["--steps", "60", "--batch-size", "2", "--out", str(tmp_path / "out")]
    code = "import sys; from mmpt_bench.cli.main import cli; cli(sys.argv[1:])"
    both = [python(code, *words, env=os.environ | {"OMP_NUM_THREADS": "1"}) for _ in range(2)]
    said = [each.communicate(timeout=600)[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    runs = [path.parent for path in (tmp_path / "out").glob("runs/*/records.jsonl")]
    assert len(runs) == 6
    for run in runs:
        assert len((run / "records.jsonl").read_text().splitlines()) == 1
        # A line of the log is a step: twice as many would be two trainings.
        steps = [json.loads(line)["step"] for line in (run / "train.jsonl").read_text().splitlines()]
        assert len(steps) == len(set(steps)), run.name
    assert all(re.search(r"seed \d: step \d+/60", text) for text in said), "each command trains some"
