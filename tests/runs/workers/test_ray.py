"""Ray where a machine, a raylet or the command is lost: each run once, from its checkpoint, the same bytes."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mmpt_bench.common.files import read_jsonl
from mmpt_bench.records.run_folder import LOG, TENSORS
from mmpt_bench.records.store import Store
from support.paths import ROOT
from support.processes import python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]
METHODS, SEEDS, STEPS = ("lora", "prefix", "projector"), 6, 4
ASKED = ("run", "--method", ",".join(METHODS), "--tasks", "mnist", "--seeds", f"0-{SEEDS - 1}", "--steps", str(STEPS),
         "--batch-size", "2", "--limit", "6", "--no-base", "--json")  # fmt: skip
LONGEST = 400.0
"""Seconds that anything is waited for."""
STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that does no runs, and three nodes with a processor each; `--workers ray` finds it."""
    from ray.cluster_utils import Cluster

    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(3):
            made.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        yield made
    finally:
        made.shutdown()


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    """Commands that a failed test leaves behind end with it."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the command."""
    out = tmp_path_factory.mktemp("one") / "results"
    ended(started(out, "1"))
    return out


def environment() -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def started(out: Path, workers: str) -> subprocess.Popen[str]:
    code = "import sys; from support.ray_command import command; command(*sys.argv[1:])"
    STARTED.append(python(code, *ASKED, "--workers", workers, "--out", out, env=os.environ | environment()))
    return STARTED[-1]


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    said, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == code, errors + said
    return errors


def held(out: Path, process: subprocess.Popen[str]) -> tuple[int, str]:
    """Returns the process that waits in the middle of a training, and the run."""
    path = out.with_suffix(".held")
    until(lambda: process.poll() is not None or (path.exists() and path.read_text().endswith("\n")))
    assert process.poll() is None, process.communicate()
    pid, run = path.read_text().split()
    return int(pid), run


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + LONGEST
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def raylet_of(cluster: Any, pid: int) -> psutil.Process:
    """Returns the raylet of the node that a worker is on."""
    above = {each.pid for each in psutil.Process(pid).parents()}
    nodes = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    (found,) = above & nodes
    return psutil.Process(found)


def noted(out: Path) -> list[dict[str, Any]]:
    return read_jsonl(out.with_suffix(".steps"))


def kept(out: Path) -> dict[str, bytes]:
    found = [path for name in (TENSORS, "mnist.jsonl") for path in out.glob(f"runs/**/{name}")]
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def check_each_once(out: Path, one: Path, broken: str, *, resumed: bool = True, under_way: int = 0) -> None:
    """Holds a folder to what one process makes: each run recorded once, each step taken once.

    Args:
        broken: the run that was held before its third step.
        resumed: whether another process has gone on with it from there; otherwise either may have.
        under_way: trainings that were cut short too, each of which may take the step again that it was at.
    """
    assert Counter((record.method, record.status) for record in Store(out).records()) == {
        (method, "ok"): SEEDS for method in METHODS
    }
    lines = [path.read_text().count("\n") for path in out.glob("runs/*/records.jsonl")]
    assert lines == [1] * (SEEDS * len(METHODS))
    assert len(kept(one)) == 2 * len(lines)
    assert kept(out) == kept(one)
    steps = sorted((row for row in noted(out) if "step" in row), key=lambda row: row["time"])
    taken = Counter((row["run"], row["step"]) for row in steps)
    assert taken.keys() == {(run.name, step) for run in Store(out).runs() for step in range(1, STEPS + 1)}
    again = {run for (run, _), times in taken.items() if times > 1}
    assert broken not in again
    assert len(again) <= under_way
    assert max(taken.values()) <= 2
    of_broken = [row for row in steps if row["run"] == broken]
    pids = [row["pid"] for row in of_broken]
    assert [row["step"] for row in of_broken] == [1, 2, 3, 4]
    assert pids[0] == pids[1]
    assert pids[2] == pids[3]
    assert not resumed or pids[1] != pids[2]
    assert [row["step"] for row in read_jsonl(Store(out).run(broken).path(LOG))] == [1, 2, 3, 4]
    assert not list(out.glob("runs/*/checkpoint"))


def test_a_node_that_is_lost_is_one_whose_runs_others_do(cluster: Any, one: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    out.with_suffix(".hold").touch()
    driver = started(out, "ray")
    pid, run = held(out, driver)
    raylet = raylet_of(cluster, pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()
    out.with_suffix(".hold").unlink()
    ended(driver)
    check_each_once(out, one, run)


def test_a_command_that_is_killed_and_repeated_does_nothing_twice(cluster: Any, one: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    out.with_suffix(".hold").touch()
    driver = started(out, "ray")
    pid, run = held(out, driver)
    until(lambda: len(Store(out).records()) >= 3)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    # Ray ends the workers of a command that is gone; one that went on meanwhile would take its step in vain.
    until(lambda: not psutil.pid_exists(pid))
    before = kept(out)
    out.with_suffix(".hold").unlink()
    ended(started(out, "ray"))
    assert before.items() <= kept(out).items()
    check_each_once(out, one, run, under_way=2)


def test_a_worker_whose_raylet_alone_is_lost_keeps_its_run_from_others(cluster: Any, one: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    out.with_suffix(".hold").touch()
    first = started(out, "ray")
    pid, run = held(out, first)
    # Stopped, it holds the lock and does not see that its raylet is gone. When the others are done, the same command
    # is given once more.
    worker, raylet = psutil.Process(pid), raylet_of(cluster, pid)
    worker.suspend()
    raylet.kill()
    until(lambda: len(Store(out).records()) == SEEDS * len(METHODS) - 1)
    second = started(out, "ray")
    until(lambda: any(row["run"] == run and "waits" in row for row in noted(out)))
    worker.resume()
    out.with_suffix(".hold").unlink()
    ended(first)
    ended(second)
    # Without its raylet a worker goes on for a while: it may have ended its run.
    check_each_once(out, one, run, resumed=False)
