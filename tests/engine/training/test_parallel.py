"""Trainings by two ranks of torchrun, on gloo: the step of one process, and one decision where ranks could differ."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import MetadataIndex

from mmpt_bench.common.errors import Interrupted
from mmpt_bench.engine.training.checkpoint import Checkpoints
from support.paths import ROOT
from support.ranks import trained
from support.tiny import save_tiny

pytestmark = pytest.mark.slow
METHODS = ("lora", "mmpt", "prefix", "vpt", "full", "projector")
KEPT = {"method": "mmpt", "checkpoint": True}
SHARED: list[dict[str, Any]] = [
    *({"name": method, "method": method} for method in METHODS),
    {"name": "seven", "method": "mmpt", "batch": 7},
    {"name": "one example", "method": "lora", "batch": 1},
    {"name": "cut by rank", "method": "lora", "overheads": [1e9, 0.0]},
    {"name": "resumed", **KEPT, "stop": 3},
    {"name": "resumed", **KEPT},
    {"name": "whole", **KEPT},
]
"""What both ways are held to."""
HALF: list[dict[str, Any]] = [
    {"name": f"half {method}", "method": method, "dtype": "bfloat16"} for method in ("lora", "mmpt", "full")
]
AGAIN: list[dict[str, Any]] = [
    {"name": f"again {method}", "method": method, "recomputed": True} for method in ("lora", "mmpt", "full")
]
BOTH = {"name": "again half", "method": "full", "recomputed": True, "dtype": "bfloat16"}
MOVED = {"name": "moved", "method": "full", "checkpoint": True}
SHORT: dict[str, Any] = {"name": "short", "method": "mmpt", "short": 2}


def launched(out: Path, way: str, jobs: list[dict[str, Any]], *words: str, **environment: str) -> tuple[int, str]:
    """Returns how torchrun ended, and what it printed; two ranks, where words do not say otherwise."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"} | environment
    script = [str(ROOT / "tests/support/ranks.py"), str(out), way, json.dumps(jobs)]
    done = subprocess.run([*command, *script], env=env, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def made(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two ranks made of each job."""
    out = tmp_path_factory.mktemp(request.param)
    (out / "tiny").symlink_to(tiny)
    jobs = [*SHARED, *HALF, *AGAIN, BOTH, *([SHORT] if request.param == "ddp" else [])]
    code, printed = launched(out, request.param, jobs)
    assert code == 0, printed
    return {job["name"]: torch.load(out / f"{job['name']}.pt") for job in jobs}


def norm(values: Any) -> float:
    return float(torch.stack([value.double().square().sum() for value in values]).sum().sqrt())


def apart(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Returns how far adapters are from each other, as a share of the second."""
    assert found.keys() == wanted.keys()
    return norm([found[name] - wanted[name] for name in wanted]) / norm(wanted.values())


@pytest.mark.parametrize("job", [job for job in SHARED if "checkpoint" not in job], ids=lambda job: job["name"])
def test_two_ranks_train_what_one_does(job: dict[str, Any], made: dict[str, Any], tiny: Path) -> None:
    found, wanted = made[job["name"]], trained(tiny, {**job, "overheads": [0.0]} if "overheads" in job else job)
    assert found["world"] == 2
    assert found["losses"][0] == pytest.approx(wanted["losses"][0], rel=2e-6)
    assert apart(found["after"], wanted["after"]) <= 1e-5
    assert apart(found["before"], wanted["before"]) == 0
    assert all(not torch.equal(found["after"][name], value) for name, value in found["before"].items())


def test_one_rank_that_is_told_to_stop_stops_all_and_the_same_bits_follow(made: dict[str, Any]) -> None:
    assert (made["resumed"]["first"], made["whole"]["first"]) == (4, 1)
    assert made["resumed"]["losses"] == made["whole"]["losses"][3:]
    assert apart(made["resumed"]["after"], made["whole"]["after"]) == 0


@pytest.mark.parametrize("made", ["ddp"], indirect=True)
def test_memory_that_runs_out_on_one_rank_halves_the_micro_batch_of_all(made: dict[str, Any], tiny: Path) -> None:
    assert (made["mmpt"]["micro"], made["short"]["micro"]) == (4, 2)
    assert apart(made["short"]["after"], made["mmpt"]["after"]) <= 1e-5


@pytest.mark.parametrize("job", [*HALF, BOTH], ids=lambda job: job["name"])
def test_half_precision_is_rounded_otherwise_and_no_more(job: dict[str, Any], made: dict[str, Any], tiny: Path) -> None:
    found, wanted = made[job["name"]], trained(tiny, job)
    moved = apart(wanted["after"], wanted["before"])
    assert apart(found["after"], wanted["after"]) < 0.1 * moved
    for name, value in found["after"].items():
        assert value.dtype == torch.float32
        assert not torch.equal(value, value.bfloat16().float()), name


@pytest.mark.parametrize("job", AGAIN, ids=lambda job: job["name"])
def test_layers_that_are_computed_again_change_nothing(job: dict[str, Any], made: dict[str, Any]) -> None:
    found, wanted = made[job["name"]], made[job["method"]]
    assert apart(found["after"], wanted["after"]) <= 1e-5
    # Each of six steps once more, and what is tried before the first one.
    assert found["calls"] >= wanted["calls"] + 6


@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_a_killed_rank_is_started_again_and_the_same_bits_follow(way: str, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(tiny)
    jobs = [{"name": "killed", **KEPT, "kill": 4}, {"name": "whole", **KEPT}]
    code, printed = launched(tmp_path, way, jobs, "--max-restarts", "1")
    assert code == 0, printed
    killed, whole = (torch.load(tmp_path / f"{job['name']}.pt") for job in jobs)
    assert killed["first"] == 4
    assert apart(killed["after"], whole["after"]) == 0


@pytest.fixture(scope="module")
def stopped(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints after steps 2 and 3 of two sharded ranks, and what they make undisturbed."""
    out = tmp_path_factory.mktemp("stopped")
    (out / "tiny").symlink_to(tiny)
    code, printed = launched(out, "fsdp2", [{**MOVED, "stop": 3}, {**MOVED, "name": "whole"}])
    assert code == 0, printed
    return out


@pytest.fixture
def copied(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "copied", symlinks=True))


def test_each_rank_writes_its_own_part_and_the_first_none_of_the_others(stopped: Path) -> None:
    state = Checkpoints(stopped / "moved.checkpoint").last()
    assert state is not None
    moments = [one for of in state["optimizer"]["state"].values() for name, one in of.items() if name != "step"]
    assert {*state["adapter"].values(), *moments} == {None}
    held: dict[str, int] = {}
    for name, known in state["metadata"].state_dict_metadata.items():
        for chunk in known.chunks:
            file = state["metadata"].storage_data[MetadataIndex(name, chunk.offsets)].relative_path
            held[file] = held.get(file, 0) + chunk.sizes.numel()
    # A value and AdamW's two moments of each parameter.
    n = 3 * sum(value.numel() for value in torch.load(stopped / "whole.pt")["after"].values())
    assert sum(held.values()) == n
    assert held.keys() == {"__0_0.distcp", "__1_0.distcp"} == state["files"].keys()
    assert min(held.values()) > 0.45 * n


def test_a_checkpoint_of_two_ranks_is_gone_on_from_by_one_process(copied: Path, tiny: Path) -> None:
    found, wanted = trained(tiny, MOVED, out=copied), trained(tiny, MOVED)
    assert (found["first"], found["world"]) == (4, 1)
    assert apart(found["after"], wanted["after"]) <= 1e-5


@pytest.mark.parametrize(("way", "n"), [("fsdp2", 3), ("ddp", 2)])
def test_a_checkpoint_of_two_ranks_is_gone_on_from_by_other_ranks(way: str, n: int, copied: Path) -> None:
    code, printed = launched(copied, way, [MOVED], "--nproc-per-node", str(n))
    assert code == 0, printed
    found, wanted = (torch.load(copied / f"{name}.pt") for name in ("moved", "whole"))
    assert (found["first"], found["world"]) == (4, n)
    assert apart(found["after"], wanted["after"]) <= 1e-5


def test_a_damaged_shard_is_named_and_the_checkpoint_before_it_is_used(copied: Path) -> None:
    shard = copied / "moved.checkpoint/step-3.shards/__1_0.distcp"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    code, printed = launched(copied, "fsdp2", [MOVED])
    assert code == 0, printed
    assert ".pt` is damaged; it is ignored" in printed
    found, wanted = (torch.load(copied / f"{name}.pt") for name in ("moved", "whole"))
    assert found["first"] == 3
    assert apart(found["after"], wanted["after"]) == 0


def test_shards_that_are_gone_are_a_damaged_checkpoint(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(copied / "moved.checkpoint/step-3.shards")
    state = Checkpoints(copied / "moved.checkpoint").last()
    assert state is not None
    assert len(state["steps"]) == 2
    assert ".pt` is damaged; it is ignored" in caplog.text


def test_sharded_ranks_go_on_from_a_checkpoint_of_one_process(tiny: Path, stopped: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(tiny)
    with pytest.raises(Interrupted):
        trained(tiny, {**MOVED, "stop": 3}, out=tmp_path)
    code, printed = launched(tmp_path, "fsdp2", [MOVED])
    assert code == 0, printed
    found, wanted = torch.load(tmp_path / "moved.pt"), torch.load(stopped / "whole.pt")
    assert found["first"] == 4
    assert apart(found["after"], wanted["after"]) <= 1e-5


def test_a_rank_killed_while_shards_are_written_leaves_the_last_verified_checkpoint(
    tiny: Path, stopped: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny").symlink_to(tiny)
    code, printed = launched(tmp_path, "fsdp2", [{**MOVED, "torn": 4}], "--max-restarts", "1")
    assert code == 0, printed
    assert "step-4.shards` was not finished; it is ignored" in printed
    found, wanted = torch.load(tmp_path / "moved.pt"), torch.load(stopped / "whole.pt")
    assert found["first"] == 4
    assert apart(found["after"], wanted["after"]) == 0


def test_shards_that_cannot_be_written_end_the_job_and_leave_the_last_checkpoint(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(tiny)
    code, printed = launched(tmp_path, "fsdp2", [{**MOVED, "full disk": 2}])
    assert code != 0
    assert "MachineError" in printed
    assert "moved.checkpoint` cannot be written" in printed
    assert [path.name[:6] for path in sorted((tmp_path / "moved.checkpoint").iterdir())] == ["step-1", "step-1"]


def test_a_rank_that_hangs_ends_the_job_within_the_timeout(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(tiny)
    began = time.monotonic()
    code, _ = launched(tmp_path, "ddp", [{"name": "hung", "method": "lora", "hang": 2}], MMPT_RANK_TIMEOUT="30")
    assert code != 0
    assert time.monotonic() - began < 500
    assert not (tmp_path / "hung.pt").exists()


def test_memory_that_runs_out_under_fsdp2_ends_the_job_with_what_to_do(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(tiny)
    code, printed = launched(tmp_path, "fsdp2", [{"name": "short", "method": "lora", "short": 2}])
    assert code != 0
    assert "rank 1: out of memory: 2.00 GiB could not be had. Ranks that share weights cannot" in printed


def test_a_method_that_does_something_else_at_every_call_is_refused_by_all_ranks(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(tiny)
    code, printed = launched(tmp_path, "fsdp2", [{"name": "uneven", "method": "lora", "recomputed": True, "uneven": 1}])
    assert code != 0
    assert "the gradients of this method are others" in printed
