"""A run is held by one process at a time, and its claim dies with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from mmpt_bench.common.errors import MachineError, UntrustedRecord
from mmpt_bench.common.files import read_jsonl
from mmpt_bench.common.locks import in_turn
from mmpt_bench.records.run_folder import ADAPTER, COSTS, LOG, TENSORS
from support.processes import in_child, line_of, python
from support.synthetic import store_in

HOLD = """
    import sys
    from pathlib import Path
    from mmpt_bench.records.store import Store
    with Store(Path(sys.argv[1])).run("lora-1").lock():
        print("held", flush=True)
        sys.stdin.read()
"""


def test_second_process_is_told_who_holds_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path)
    holder = python(HOLD, store.root, stdin=subprocess.PIPE)
    assert line_of(holder) == "held"
    # At once: it does not wait where it was not told to.
    monkeypatch.setattr("mmpt_bench.common.locks.time.sleep", lambda seconds: pytest.fail("it waited"))
    with (
        pytest.raises(MachineError, match=f"process {holder.pid} on {socket.gethostname()} since 20"),
        store.run("lora-1").lock(),
    ):
        pass
    with store.run("lora-2").lock():
        pass
    holder.communicate("")


def test_second_process_waits_for_the_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = store_in(tmp_path)
    holder = python(HOLD, store.root, stdin=subprocess.PIPE)
    assert line_of(holder) == "held"
    waiter = python(
        """
        import sys
        from pathlib import Path
        from mmpt_bench.records.store import Store
        with Store(Path(sys.argv[1])).run("lora-1").lock(wait_seconds=60):
            print("mine", flush=True)
        """,
        store.root,
    )
    assert waiter.stderr is not None
    assert f"held by process {holder.pid}" in waiter.stderr.readline()
    holder.communicate("")
    assert line_of(waiter) == "mine"
    assert waiter.wait() == 0


def test_claim_of_a_dead_process_is_taken_over_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = store_in(tmp_path)
    holder = python(HOLD, store.root, stdin=subprocess.PIPE)
    assert line_of(holder) == "held"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with store.run("lora-1").lock():
        pass
    assert f"Taking over `lora-1` from process {holder.pid}" in caplog.text
    caplog.clear()
    with store.run("lora-1").lock():
        pass
    assert caplog.text == ""


def test_each_of_200_runs_is_done_once_by_16_processes(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    names = [f"run-{i}" for i in range(200)]

    def work() -> None:
        for name, lock in in_turn(names, lambda name: store.run(name).lock(), 60.0):
            with lock:
                if not read_jsonl(store.run(name).path("train.jsonl")):
                    store.run(name).log_steps([{"step": 1, "process": os.getpid()}])

    children = [in_child(work) for _ in range(16)]
    assert [wait() for wait in children] == [0] * 16
    done = [read_jsonl(store.run(name).path("train.jsonl")) for name in names]
    assert [len(steps) for steps in done] == [1] * 200
    assert len({step["process"] for (step,) in done}) > 1


COSTS_OF = {"seconds": 1.5, "peak_bytes": 2**20, "final_loss": 0.5, "micro_batch": 4, "adapter_bytes": 4, "sha256": "0"}


def test_an_adapter_becomes_the_runs_own_wholly_and_in_place_of_one_without_costs(tmp_path: Path) -> None:
    run = store_in(tmp_path).run("lora-1")
    run.path(ADAPTER).mkdir(parents=True)
    run.path(ADAPTER, "unfinished").write_bytes(b"")
    run.checkpoint.mkdir()
    assert run.training() is None
    part = run.new_adapter()
    part.mkdir()
    (part / TENSORS).write_bytes(b"data")
    run.finish_training(part, COSTS_OF)
    assert run.is_trained
    assert not part.exists()
    assert not run.checkpoint.exists()
    assert sorted(path.name for path in run.path(ADAPTER).iterdir()) == sorted([TENSORS, COSTS])
    assert run.path(ADAPTER, TENSORS).read_bytes() == b"data"
    known = run.training()
    assert known is not None
    assert {name: known[name] for name in COSTS_OF} == COSTS_OF
    run.path(ADAPTER, COSTS).write_bytes(run.path(ADAPTER, COSTS).read_bytes().replace(b"0.5", b"0.4"))
    with pytest.raises(UntrustedRecord, match=f"`{COSTS}` of `lora-1` is damaged"):
        run.training()


def test_steps_are_appended_to_the_log_or_take_its_place(tmp_path: Path) -> None:
    run = store_in(tmp_path).run("lora-1")
    rows = [{"step": i, "loss": float(i)} for i in range(4)]
    run.log_steps([])
    assert not run.path(LOG).exists()
    run.log_steps(rows[:2])
    run.log_steps(rows[2:])
    assert read_jsonl(run.path(LOG)) == rows
