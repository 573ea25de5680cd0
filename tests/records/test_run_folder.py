"""A run is held by one process at a time, and its claim dies with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from mmpt_bench.common.errors import MachineError
from mmpt_bench.common.files import read_jsonl
from mmpt_bench.common.locks import in_turn
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


def test_second_process_is_told_who_holds_the_run(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    holder = python(HOLD, store.root, stdin=subprocess.PIPE)
    assert line_of(holder) == "held"
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
        for name, lock in in_turn(names, lambda name, seconds: store.run(name).lock(seconds), 60.0):
            with lock:
                if not read_jsonl(store.run(name).path("train.jsonl")):
                    store.run(name).log_steps([{"step": 1, "process": os.getpid()}])

    children = [in_child(work) for _ in range(16)]
    assert [wait() for wait in children] == [0] * 16
    done = [read_jsonl(store.run(name).path("train.jsonl")) for name in names]
    assert [len(steps) for steps in done] == [1] * 200
    assert len({step["process"] for (step,) in done}) > 1
