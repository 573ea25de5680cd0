"""Runs as tasks of Ray and of Slurm (submitit's executor for one machine): the bytes of one process."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench import api
from mmpt_bench.common.errors import Interrupted, MachineError, RequestError
from mmpt_bench.records.run_folder import TENSORS
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.workers import engines

SIZE: dict[str, Any] = {"steps": 4, "batch_size": 2, "limit": 6}


def run(out: Path, workers: str, **more: Any) -> Any:
    return api.run("lora,projector", "mnist", out=out, workers=workers, **SIZE, **more)


def kept(out: Path) -> dict[str, bytes]:
    found = [path for name in (TENSORS, "mnist.jsonl") for path in out.glob(f"runs/**/{name}")]
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


@pytest.fixture
def one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's jobs are processes, one thread each, as those of Ray are."""
    monkeypatch.setattr(engines, "CLUSTER", "local")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def has(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@pytest.mark.slow
@pytest.mark.usefixtures("one_machine")
@pytest.mark.parametrize(
    "engine", [pytest.param("slurm", marks=has("submitit")), pytest.param("ray", marks=has("ray"))]
)
def test_an_engine_makes_the_bytes_of_one_process_and_the_driver_is_told(engine: str, tmp_path: Path) -> None:
    told: list[str] = []
    made = run(tmp_path / engine, engine, reporter=Reporter(finished=lambda record: told.append(record.method)))
    run(tmp_path / "one", "1")
    assert sorted(told) == ["lora", "projector"]
    assert sorted(record.status for record in made.made) == ["ok", "ok"]
    assert len(kept(tmp_path / "one")) == 4
    assert kept(tmp_path / engine) == kept(tmp_path / "one")
    assert run(tmp_path / engine, engine).made == ()


Submitted = list[engines.Message]


class Done:
    """A task that was done when it was submitted."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self.work()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Submitted:
    """An engine that does nothing but keep what it is sent: runs are recorded by `do` in this process."""
    import contextlib

    sent: Submitted = []

    @contextlib.contextmanager
    def engine(name: str, store: Store, work: Callable[[Any], Any]) -> Iterator[engines.Submit]:
        def submit(messages: Any) -> Any:
            sent.extend(messages)
            return [Done(lambda message=message: work(message)) for message in messages]

        yield submit

    monkeypatch.setattr(engines, "_engine", engine)
    monkeypatch.setattr(engines, "LOOK_SECONDS", 0.01)
    return sent


def test_each_run_is_a_task_that_is_told_a_request_and_a_key(here: Submitted, tmp_path: Path) -> None:
    run(tmp_path, "ray")
    assert sorted(name.partition("-")[0] for message in here for name in message.runs) == ["lora", "projector"]
    assert [len(message.runs) for message in here] == [1, 1]
    assert {message.asked.request[0] for message in here} == {"lora,projector"}
    assert len(Store(tmp_path).records()) == 2


def test_a_task_that_the_engine_loses_is_one_sentence_and_the_others_are_done(
    here: Submitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engines.do

    def lost(message: engines.Message) -> Any:
        if message.runs[0].startswith("lora"):
            raise ConnectionError("the node is gone")
        return real(message)

    monkeypatch.setattr(engines, "do", lost)
    with pytest.raises(MachineError, match=r"lost a run: the node is gone\. The same command goes on"):
        run(tmp_path, "ray")
    assert [record.method for record in Store(tmp_path).records()] == ["projector"]


def test_what_is_stopped_leaves_no_file_behind(here: Submitted, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, "slurm", stopping=lambda: True)
    assert list((tmp_path / "workers").iterdir()) == []


def test_slurm_without_sbatch_and_other_words_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if importlib.util.find_spec("submitit"):
        with pytest.raises(MachineError, match="there is no `sbatch` here"):
            run(tmp_path / "out", "slurm")
    with pytest.raises(
        RequestError, match="`--workers rays`: a number of processes from 1 to 512, `ray`, `ray://HOST`"
    ):
        run(tmp_path / "out", "rays")
    with pytest.raises(RequestError, match="`--workers rays`: a number of processes from 1 to 512, `ray`"):
        list(api.tune("lora", out=tmp_path / "out", workers="rays"))
