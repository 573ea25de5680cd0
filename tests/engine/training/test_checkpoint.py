"""What a training leaves when it is stopped, killed, short of disk or short of memory, and what comes of it."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt_bench.cli.progress import stopping
from mmpt_bench.common.errors import Interrupted, MachineError, RunFailed
from mmpt_bench.data.examples import Corpus
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training import checkpoint, memory, train
from mmpt_bench.engine.training.checkpoint import Checkpoints
from mmpt_bench.engine.training.loss import Losses
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.budget import Budget
from support.disk import Disk

STEPS = 6
State = dict[str, torch.Tensor]


@pytest.fixture
def at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoints, "is_due", True)


Trained = tuple[State, list[train.Step], list[train.Step]]


@pytest.fixture(scope="module")
def trained(backbone: Backbone, corpus: Corpus) -> Callable[..., Trained]:
    def run(
        folder: Path | None = None,
        on_step: Callable[[train.Step], None] = lambda step: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Trained:
        """Returns the adapter, the steps done now, and those of the checkpoint that it went on from."""
        # Dropout draws random numbers at every step, whose state a checkpoint has to hold.
        (entry,) = method_catalog.find_methods("peft:LORA")
        handle = method_catalog.method_of(entry, {"lora_dropout": "0.2"}).attach(backbone, 1)
        done: list[train.Step] = []
        earlier: list[train.Step] = []

        def note(step: train.Step) -> None:
            done.append(step)
            on_step(step)

        try:
            config = train.TrainingConfig(Budget(steps=STEPS, batch_size=4), 1e-2, 0)
            train.train(backbone, handle, corpus, config, folder, note, stop, earlier.extend)
            return handle.state(), done, earlier
        finally:
            handle.remove()

    return run


@pytest.fixture(scope="module")
def whole(trained: Callable[..., Trained]) -> Trained:
    return trained()


def same(one: Trained, other: Trained) -> bool:
    """Returns whether two trainings have equal adapters, and equal losses at each step."""
    losses = [[(step.step, step.loss, step.grad_norm) for step in (*t[2], *t[1])] for t in (one, other)]
    return losses[0] == losses[1] and all(torch.equal(one[0][name], other[0][name]) for name in one[0])


def stopped_at(trained: Callable[..., Trained], folder: Path, step: int) -> None:
    asked: list[int] = []
    with pytest.raises(Interrupted, match=f"step {step} of {STEPS}"):
        trained(folder, lambda done: asked.append(done.step), lambda: step in asked)


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"), key=lambda path: int(path.name.split("-")[1]))


@pytest.mark.parametrize("killed_at", [1, 4])
def test_sigkill_at_a_random_point_while_training_loses_at_most_one_checkpoint_interval(
    killed_at: int, trained: Callable[..., Trained], whole: Trained, tmp_path: Path, at_each_step: None
) -> None:
    child = os.fork()
    if not child:
        try:
            trained(tmp_path / "c", lambda step: step.step > killed_at and os.kill(os.getpid(), signal.SIGKILL))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    resumed = trained(tmp_path / "c")
    assert [step.step for step in resumed[2]] == list(range(1, killed_at + 1))
    assert same(resumed, whole)


def test_sigkill_while_a_checkpoint_is_written_leaves_the_last_verified_one(
    trained: Callable[..., Trained], whole: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run" / "checkpoint"
    stopped_at(trained, folder, 3)
    child = os.fork()
    if not child:
        try:
            written = Checkpoints(folder)
            state = written.last()
            assert state is not None
            # The process is killed with all bytes written and none of them sure to be on the disk.
            os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
            written.write(4, state)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert (folder / "unfinished.part").exists()
    resumed = trained(folder)
    assert "`run/checkpoint/unfinished.part` was not finished" in caplog.text
    assert [step.step for step in resumed[2]] == [1, 2, 3]
    assert same(resumed, whole)


@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    cut: bool, trained: Callable[..., Trained], whole: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped_at(trained, tmp_path / "c", 2)
    stopped_at(trained, tmp_path / "c", 4)
    before, last = checkpoints(tmp_path / "c")
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data[: len(data) // 2] if cut else data)
    resumed = trained(tmp_path / "c")
    assert f"{last.name}` is damaged" in caplog.text
    assert [step.step for step in resumed[2]] == [1, 2]
    assert same(resumed, whole)
    assert before.exists()


def test_where_no_checkpoint_is_whole_the_training_begins_anew(
    trained: Callable[..., Trained], whole: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped_at(trained, tmp_path / "c", 2)
    (only,) = checkpoints(tmp_path / "c")
    only.write_bytes(b"")
    resumed = trained(tmp_path / "c")
    assert resumed[2] == []
    assert same(resumed, whole)
    assert "is damaged" in caplog.text


def test_a_full_disk_leaves_the_last_checkpoint_and_says_where_and_how_much(
    trained: Callable[..., Trained], whole: Trained, tmp_path: Path
) -> None:
    stopped_at(trained, tmp_path / "c", 2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(MachineError, match=r"/c` cannot be written: .*size limit; [\d,]{6,} bytes are needed"):
            trained(tmp_path / "c", stop=lambda: True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name[:6] for path in (tmp_path / "c").iterdir()] == ["step-2"]
    assert same(trained(tmp_path / "c"), whole)


def test_a_checkpoint_that_reads_back_otherwise_is_not_taken_and_the_one_before_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Checkpoints(tmp_path)
    written.write(1, {"steps": [1]})
    with monkeypatch.context() as patch:
        patch.setattr("mmpt_bench.engine.training.checkpoint.file_sha256", lambda path: "0" * 64)
        with pytest.raises(MachineError, match="read back"):
            written.write(2, {"steps": [1, 2]})
    state = Checkpoints(tmp_path).last()
    assert state is not None
    assert state["steps"] == [1]


def test_a_checkpoint_is_there_after_a_power_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Checkpoints(tmp_path).write(1, {"steps": [1]})
    disk = Disk(tmp_path, monkeypatch)
    written = Checkpoints(tmp_path)
    assert written.last() is not None
    for step in (2, 3):
        written.write(step, {"steps": [step]})
        disk.fail()
        assert (Checkpoints(tmp_path).last() or {})["steps"] == [step]
    disk.close()


def test_there_are_never_more_than_two_checkpoints(
    trained: Callable[..., Trained], tmp_path: Path, at_each_step: None
) -> None:
    seen: list[list[str]] = []
    trained(tmp_path / "c", lambda step: seen.append([p.name.split("-")[1] for p in checkpoints(tmp_path / "c")]))
    assert seen == [[], ["1"], ["1", "2"], ["2", "3"], ["3", "4"], ["4", "5"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_is_followed_by_a_checkpoint_and_the_same_command_goes_on(
    number: signal.Signals, trained: Callable[..., Trained], whole: Trained, tmp_path: Path
) -> None:
    before = signal.getsignal(number)
    with stopping() as stop, pytest.raises(Interrupted, match="step 3"):
        trained(tmp_path / "c", lambda step: step.step == 3 and os.kill(os.getpid(), number), stop)
    assert signal.getsignal(number) is before
    assert [path.name[:6] for path in checkpoints(tmp_path / "c")] == ["step-3"]
    assert same(trained(tmp_path / "c"), whole)


def test_ctrl_c_twice_ends_at_once() -> None:
    with stopping() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_sigterm_and_sighup_together_do_not_end_before_the_checkpoint() -> None:
    with stopping() as stop:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop()


def test_under_nohup_sighup_stops_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def allocator_error() -> RuntimeError:
    """Returns what the CPU's allocator raises."""
    with pytest.raises(RuntimeError, match="can't allocate memory") as caught:
        torch.empty(2**50)
    return caught.value


class FewFit:
    """`Losses.answers` on a machine where so many examples at once fit into memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.sizes: list[int] = []
        real = Losses.answers

        def answers(losses: Losses, ready: Any, chosen: list[int]) -> Any:
            self.sizes.append(len(chosen))
            if len(chosen) > most:
                raise allocator_error()
            return real(losses, ready, chosen)

        monkeypatch.setattr(Losses, "answers", answers)
        # One group a step where the memory allows it.
        monkeypatch.setattr("mmpt_bench.engine.training.loss.overhead_tokens", lambda *of: 1e9)


def test_out_of_memory_in_training_on_the_cpu_halves_the_micro_batch_and_keeps_the_order(
    trained: Callable[..., Trained], whole: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = FewFit(monkeypatch, most=1)
    losses = [step.loss for step in trained()[1]]
    # The two ways are compared on two examples, then on one; the steps begin with all four.
    assert few.sizes[:7] == [2, 1, 1, 4, 2, 1, 1]
    assert set(few.sizes[5:]) == {1}
    assert losses == pytest.approx([step.loss for step in whole[1]], rel=0.05)
    assert losses[0] == pytest.approx(whole[1][0].loss, rel=0.02)


def test_out_of_memory_with_one_example_fails_with_the_figure_that_was_needed(
    trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    FewFit(monkeypatch, most=0)
    with pytest.raises(RunFailed, match=rf"out of memory with one example a step: {4 * 2**50} bytes could not be had"):
        trained()


def test_out_of_memory_in_the_optimiser_is_a_failure_and_no_traceback(
    trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: Any) -> None:
        raise allocator_error()

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(RunFailed, match=r"step 1: out of memory: \d+ bytes could not be had"):
        trained()


def test_validation_is_cut_where_memory_runs_out_and_says_the_same(
    backbone: Backbone, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = dataclasses.replace(corpus, validation_size=9)
    known = train.validation_loss(backbone, few, 8, 512)
    FewFit(monkeypatch, most=3)
    assert train.validation_loss(backbone, few, 8, 512) == pytest.approx(known, rel=1e-5)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA error: out of memory\nmore"), "CUDA error: out of memory"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), "CUBLAS"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0"),
            "20.00 MiB could not be had",
        ),
        (MemoryError(), "none left"),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), "7.45 GiB could not be had"),
    ],
)
def test_what_says_that_memory_ran_out_is_known_by_its_words(error: Exception, said: str) -> None:
    assert said in (memory.shortage(error) or "")
    assert memory.halved(5, error, "one") == 3


def test_any_other_error_is_raised_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        memory.halved(8, RuntimeError("shapes do not fit"), "one")


@pytest.mark.parametrize(("size", "next_size"), [(2, 1), (3, 2), (4, 2), (7, 4), (16, 8)])
def test_a_batch_that_does_not_fit_is_halved_upwards(size: int, next_size: int) -> None:
    assert memory.halved(size, MemoryError(), "one") == next_size


def test_checkpoints_take_two_percent_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: now[0])
    real = checkpoint.sync
    # Writing takes 3 seconds: 20 seconds are not enough, 3 / 0.02 = 150 are.
    monkeypatch.setattr(checkpoint, "sync", lambda path: (now.__setitem__(0, now[0] + 3.0), real(path))[1])
    made = Checkpoints(tmp_path / "checkpoint")
    now[0] = 20.0
    assert not made.is_due
    now[0] = 20.5
    assert made.is_due
    (tmp_path / "checkpoint").mkdir()
    made.write(1, {"steps": []})
    assert now == [23.5]
    now[0] += 149.9
    assert not made.is_due
    now[0] += 0.2
    assert made.is_due
