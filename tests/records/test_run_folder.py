"""A run is held by one process at a time, and its claim dies with it."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from mmpt_bench.common.errors import MachineError
from mmpt_bench.common.files import read_jsonl
from support.processes import line_of, python
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


def test_runs_are_done_once_by_many_processes(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    code = """
        import sys
        from pathlib import Path
        from mmpt_bench.common.files import append_jsonl, read_jsonl
        from mmpt_bench.records.store import Store
        store = Store(Path(sys.argv[1]))
        for i in range(12):
            with store.run(f"run-{i}").lock(wait_seconds=60):
                if not read_jsonl(store.run(f"run-{i}").path("train.jsonl")):
                    append_jsonl(store.run(f"run-{i}").path("train.jsonl"), {"step": 1})
    """
    workers = [python(code, store.root) for _ in range(4)]
    for worker in workers:
        _, errors = worker.communicate()
        assert worker.returncode == 0, errors
    assert [len(read_jsonl(store.run(f"run-{i}").path("train.jsonl"))) for i in range(12)] == [1] * 12
