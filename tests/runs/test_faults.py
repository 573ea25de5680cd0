"""Faults of the machine and of single runs: what is recorded stays, the rest is done, the same command goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench import api
from mmpt_bench.common import locks
from mmpt_bench.common.errors import Interrupted, MachineError, RequestError, UntrustedRecord
from mmpt_bench.common.files import read_jsonl
from mmpt_bench.common.locks import Held
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.models import backbone as backbones
from mmpt_bench.engine.training import train
from mmpt_bench.engine.training.checkpoint import Checkpoints
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.run_folder import LOG, TENSORS
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from support.disk import Disk
from support.processes import in_child
from support.small import make_small

SIZE: dict[str, Any] = {"steps": 4, "batch_size": 2}
SEARCH: dict[str, Any] = {"rounds": (1,), "grid": (1e-3, 3e-3)}
"""Two rates, of which one is at the edge and brings a third."""


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """The embedded suite with few images, the backbone loaded once, and a checkpoint after each step."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        yield


def run(out: Path, methods: str = "lora,projector", tasks: str = "mnist", **more: Any) -> Any:
    return api.run(methods, tasks, out=out, **SIZE, **more)


def recorded(out: Path) -> list[tuple[str, str]]:
    return sorted((record.method, record.task) for record in Store(out).records() if record.status == "ok")


def folder_of(out: Path, method: str) -> Any:
    return next(each for each in Store(out).runs() if each.name.startswith(method))


def test_a_killed_run_goes_on_with_the_whole_log_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    def kill(job: Any, step: train.Step) -> None:
        if step.step == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    asked = in_child(lambda: run(tmp_path / "cut", "lora", reporter=Reporter(train_step=kill)))
    assert os.WTERMSIG(asked()) == signal.SIGKILL
    cut = folder_of(tmp_path / "cut", "lora")
    assert not cut.path(LOG).exists()
    run(tmp_path / "cut", "lora")
    run(tmp_path / "whole", "lora")
    whole = folder_of(tmp_path / "whole", "lora")
    assert cut.path("adapter", TENSORS).read_bytes() == whole.path("adapter", TENSORS).read_bytes()
    kept = ("step", "loss", "rate", "grad_norm")
    logs = [[{name: row[name] for name in kept} for row in read_jsonl(each.path(LOG))] for each in (cut, whole)]
    assert [row["step"] for row in logs[0]] == [1, 2, 3, 4]
    assert logs[0] == logs[1]
    names = [sorted(path.name for path in each.path().rglob("*")) for each in (cut, whole)]
    assert names[0] == names[1]


def test_steps_after_the_checkpoint_are_not_left_in_the_log(tmp_path: Path) -> None:
    def stop_at(step: int) -> Any:
        seen: list[int] = []
        reporter = Reporter(train_step=lambda job, done: seen.append(done.step))
        with pytest.raises(Interrupted):
            run(tmp_path, "lora", reporter=reporter, stopping=lambda: step in seen)
        return folder_of(tmp_path, "lora")

    folder = stop_at(2)
    folder.log_steps([{"step": 3, "loss": 99.0}, {"step": 4, "loss": 99.0}])
    stop_at(3)
    assert [row["step"] for row in read_jsonl(folder.path(LOG))] == [1, 2, 3]
    assert all(row["loss"] < 99 for row in read_jsonl(folder.path(LOG)))


def test_a_run_whose_adapter_is_damaged_keeps_no_other_run_from_starting(tmp_path: Path) -> None:
    run(tmp_path)
    adapter = folder_of(tmp_path, "lora").path("adapter", TENSORS)
    data = bytearray(adapter.read_bytes())
    data[-1] ^= 1
    adapter.write_bytes(data)
    said: list[str] = []
    with pytest.raises(UntrustedRecord, match="is damaged"):
        run(tmp_path, tasks="cifar10", reporter=Reporter(said=said.append))
    assert recorded(tmp_path) == [("lora", "mnist"), ("projector", "cifar10"), ("projector", "mnist")]
    assert "lora, seed 0: The adapter in" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "ablate", "tune"])
def test_an_error_in_one_method_keeps_no_other_from_starting(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def attach(*_: Any) -> Handle:
        raise ValueError("a method of one's own, with a bug")

    lora = method_catalog.load_method(method_catalog.method_entries()["lora"])
    monkeypatch.setattr(lora, "attach", attach)
    both, size = "lora,projector", {"out": tmp_path, **SIZE}
    commands: dict[str, Callable[[], Any]] = {
        "run": lambda: run(tmp_path),
        "ablate": lambda: api.ablate(both, "mnist", axes={"lr": "1e-3,1e-2"}, beside="none", **size),
        "tune": lambda: list(api.tune(both, **SEARCH, **size)),
    }
    with pytest.raises(ValueError, match="with a bug"):
        commands[command]()
    if command == "tune":
        chosen = json.loads((tmp_path / "learning_rates.json").read_text())
        assert [each["search"]["method"] for each in chosen] == ["projector"]
        assert "lora: ValueError: a method of one's own, with a bug" in caplog.text
    else:
        assert recorded(tmp_path) == [("projector", "mnist")] * (2 if command == "ablate" else 1)


def test_runs_that_another_process_does_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora = api.plan("lora", "mnist", out=tmp_path, **SIZE).runs[0]["run"]
    monkeypatch.setattr("mmpt_bench.runs.execute.LONGEST_WAIT", 0.3)
    with Store(tmp_path).run(lora).lock(), pytest.raises(Held, match=f"`{lora}` is being done by process"):
        run(tmp_path)
    assert recorded(tmp_path) == [("projector", "mnist")]
    with Store(tmp_path).run(lora).lock(), pytest.raises(Interrupted, match="waiting for"):
        run(tmp_path, stopping=lambda: True)
    run(tmp_path)
    assert recorded(tmp_path) == [("lora", "mnist"), ("projector", "mnist")]


def test_a_full_disk_while_the_adapter_is_written_damages_nothing_recorded_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, "projector")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    # Without checkpoints, so that the adapter is the first large file.
    monkeypatch.setattr(Checkpoints, "is_due", False)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(MachineError, match=rf"{TENSORS}` cannot be written: .* [\d,]{{6,}} bytes are needed"):
            run(tmp_path, "projector,lora")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert {path: path.read_bytes() for path in before} == before
    run(tmp_path, "projector,lora")
    assert recorded(tmp_path) == [("lora", "mnist"), ("projector", "mnist")]
    assert not list(tmp_path.rglob("*.part"))


def test_a_power_failure_after_a_run_loses_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, monkeypatch)
    run(tmp_path, "lora")
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name[0] != "."}
    disk.fail()
    disk.close()
    assert {TENSORS, LOG, "records.jsonl", "mnist.jsonl"} <= {path.name for path in kept}
    lost = [
        str(path.relative_to(tmp_path)) for path, data in kept.items() if not path.exists() or path.read_bytes() != data
    ]
    assert lost == []


@pytest.mark.slow
def test_two_searches_of_one_results_folder_make_each_trial_once(tmp_path: Path) -> None:
    both = multiprocessing.Barrier(2)

    def search() -> None:
        told: list[str] = []

        def tell(label: str, trial: Any) -> None:
            # The first trial is held until the other process has made one too, of the same search.
            if not told:
                both.wait(300)
            told.append(label)

        made = list(api.tune("lora,projector", told=tell, out=tmp_path, **SEARCH, **SIZE))
        assert told[0] == "lora"
        assert [choice.search.method for choice in made] == ["lora", "projector"]

    assert [wait() for wait in [in_child(search), in_child(search)]] == [0, 0]
    trials = read_jsonl(tmp_path / "learning_rate_trials.jsonl")
    assert len({(row["search"]["method"], row["rate"]) for row in trials}) == len(trials) == 6
    chosen = json.loads((tmp_path / "learning_rates.json").read_text())
    assert [each["search"]["method"] for each in chosen] == ["lora", "projector"]
    assert not list(tmp_path.glob("tuning/*/*/checkpoint"))


def test_a_killed_trial_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def killed() -> bool:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    def search(out: Path, **more: Any) -> list[Any]:
        return list(api.tune("lora", out=out, **SEARCH, **SIZE, **more))

    assert os.WTERMSIG(in_child(lambda: search(tmp_path / "cut", stopping=killed))()) == signal.SIGKILL
    steps: list[int] = []
    real = train._Training.step
    monkeypatch.setattr(train._Training, "step", lambda self, *of: (steps.append(self.done + 1), real(self, *of))[1])
    cut = search(tmp_path / "cut")
    assert steps == [3, 4, 1, 2, 3, 4, 1, 2, 3, 4]
    assert cut == search(tmp_path / "whole")


@pytest.mark.slow
def test_a_sweep_whose_node_is_lost_is_done_by_another(tmp_path: Path) -> None:
    def lost(record: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    node = in_child(lambda: run(tmp_path, "lora,projector,frozen", reporter=Reporter(finished=lost)))
    assert os.WTERMSIG(node()) == signal.SIGKILL
    (first,) = recorded(tmp_path)
    kept = folder_of(tmp_path, first[0]).path("records.jsonl").read_bytes()
    run(tmp_path, "lora,projector,frozen")
    assert recorded(tmp_path) == [("frozen", "mnist"), ("lora", "mnist"), ("projector", "mnist")]
    assert folder_of(tmp_path, first[0]).path("records.jsonl").read_bytes() == kept


def test_ranks_that_a_launcher_starts_share_the_runs_and_one_that_dies_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rank(number: int) -> Callable[[], int]:
        # As torchrun starts its processes; nothing here looks at it, and no process waits for another's tensors.
        for name, value in {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "MASTER_PORT": 29500}.items():
            monkeypatch.setenv(name, str(value))
        dies = Reporter(finished=lambda record: os.kill(os.getpid(), signal.SIGKILL)) if number else Reporter()
        return in_child(lambda: run(tmp_path, "lora,projector,frozen", reporter=dies))

    ends = [rank(1), rank(0)]
    assert os.WTERMSIG(ends[0]()) == signal.SIGKILL
    assert ends[1]() == 0
    assert recorded(tmp_path) == [("frozen", "mnist"), ("lora", "mnist"), ("projector", "mnist")]
    assert {record.world_size for record in Store(tmp_path).records()} == {1}


def test_several_tokens_that_end_a_reply_are_said_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = backbones.load_backbone("embedded", "float32", None, False)
    end = loaded.model.generation_config.eos_token_id
    monkeypatch.setattr(loaded.model.generation_config, "eos_token_id", [end, 7])
    told: list[str] = []
    run(tmp_path, "frozen", reporter=Reporter(said=told.append))
    words = loaded.processor.tokenizer.convert_ids_to_tokens([end, 7])
    (made,) = Store(tmp_path).records()
    assert made.environment["decoding"] == {"replies_end_at": words}
    assert any("replies end at any of 2 tokens" in text for text in told)
    monkeypatch.undo()
    run(tmp_path / "other", "frozen")
    assert "decoding" not in Store(tmp_path / "other").records()[0].environment


def test_a_recipe_of_several_processes_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "one", "projector")
    path = folder_of(tmp_path / "one", "projector").path("recipe.yaml")
    (tmp_path / "recipe.yaml").write_text(path.read_text().replace("world_size: 1", "world_size: 2"))
    with pytest.raises(RequestError, match="cannot be repeated here: `world_size` was 2 and is 1"):
        api.run(tasks="mnist", recipe=tmp_path / "recipe.yaml", out=tmp_path / "two")
    assert recorded(tmp_path / "two") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["records.jsonl", "mnist.jsonl", "recipe.yaml"])
def test_a_run_that_was_edited_is_named_and_keeps_no_other_from_being_planned_and_done(
    name: str, tmp_path: Path
) -> None:
    run(tmp_path, "frozen")
    path = folder_of(tmp_path, "frozen").path(name)
    path.write_bytes(path.read_bytes().replace(b'"reply":"', b'"reply":"x').replace(b'"n":6', b'"n":7') + b"x: 1\n")
    planned = api.plan("frozen,projector", "mnist", out=tmp_path, **SIZE)
    assert [row["train"] for row in planned.runs] == [False, True]
    assert any(note.startswith("frozen, seed 0: ") for note in planned.notes)
    with pytest.raises(UntrustedRecord):
        run(tmp_path, "frozen,projector")
    assert folder_of(tmp_path, "projector").records()[0].status == "ok"
    for read in (
        lambda: api.leaderboard(tmp_path),
        lambda: api.write_report(tmp_path),
        lambda: api.write_figures(tmp_path),
        lambda: api.compare("frozen", "projector", out=tmp_path),
        lambda: api.load_results(tmp_path).scores,
    ):
        with pytest.raises(UntrustedRecord, match="frozen-"):
            read()


def test_a_failure_that_comes_again_is_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def attach(*_: Any) -> Handle:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.")

    with monkeypatch.context() as patch:
        lora = method_catalog.load_method(method_catalog.method_entries()["lora"])
        patch.setattr(lora, "attach", attach)
        for _ in range(2):
            assert next(record.status for record in run(tmp_path).made) == "failed"
    (failed,) = folder_of(tmp_path, "lora").records()
    assert failed.reason.startswith("out of memory while it was put into the backbone: 64 bytes could not be had")
    assert recorded(tmp_path) == [("projector", "mnist")]
    run(tmp_path)
    assert recorded(tmp_path) == [("lora", "mnist"), ("projector", "mnist")]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"seconds": 1}'])
def test_a_damaged_training_json_is_one_sentence_and_its_run_alone_stops(text: str, tmp_path: Path) -> None:
    run(tmp_path, "projector")
    folder = folder_of(tmp_path, "projector")
    folder.path("records.jsonl").unlink()
    folder.path("adapter", "training.json").write_text(text)
    with pytest.raises(UntrustedRecord, match=r"`training.json` of `projector-\w+` is damaged: .*Delete"):
        run(tmp_path, "projector,frozen")
    assert recorded(tmp_path) == [("frozen", "mnist")]


def test_nothing_is_trained_in_float16(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Nothing is trained in float16"):
        run(tmp_path, "frozen,projector", dtype="float16")
    with pytest.raises(RequestError, match="Nothing is trained in float16"):
        list(api.tune("projector", out=tmp_path, dtype="float16", **SIZE))


def test_a_lock_that_is_waited_for_lets_a_signal_through(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        locks.held(path, "a run"),
        pytest.raises(Interrupted, match="waiting for `a run`"),
        locks.held(path, "a run", 60, lambda: True),
    ):
        pass
