"""Runs as tasks of Ray and of Slurm (submitit's executor for one machine): the bytes of one process."""

from __future__ import annotations

import importlib.util
import sys
import types
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
from support.processes import Done

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


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Submitted:
    """An engine that does nothing but keep what it is sent: runs are recorded by `do` in this process."""
    import contextlib

    sent: Submitted = []

    @contextlib.contextmanager
    def engine(name: str, gpus: float | None, store: Store, work: Callable[[Any], Any]) -> Iterator[engines.Submit]:
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


def ray_asked(monkeypatch: pytest.MonkeyPatch, n_gpus: float) -> list[dict[str, Any]]:
    """Puts a Ray in the place of the real one that only keeps what tasks ask it for."""
    asked: list[dict[str, Any]] = []

    def remote(**options: Any) -> Callable[[Any], Any]:
        asked.append(options)
        return lambda work: types.SimpleNamespace(
            remote=lambda message: types.SimpleNamespace(future=lambda: Done(lambda: work(message)))
        )

    fake = types.SimpleNamespace(
        init=lambda **_: None, shutdown=lambda: None, remote=remote, cluster_resources=lambda: {"GPU": n_gpus}
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(engines, "LOOK_SECONDS", 0.0)
    return asked


@pytest.mark.parametrize(("n_gpus", "given", "wanted"), [(8, None, 1), (0, None, 0), (8, 2, 2), (8, 0.25, 0.25)])
def test_ray_is_asked_for_the_gpus_of_a_run(
    n_gpus: int, given: float | None, wanted: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ray_asked(monkeypatch, n_gpus)
    with engines.submitting(("ray", given), Store(tmp_path), str, {}) as (submit, _):
        (task,) = submit(["a message"])
    assert [options["num_gpus"] for options in asked] == [wanted]
    assert task.result() == "a message"


@pytest.mark.slow
def test_a_cluster_with_fewer_gpus_is_one_sentence_and_commands_hand_on_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_asked(monkeypatch, 1)
    size: dict[str, Any] = {"out": tmp_path, "workers": "ray", "gpus_per_unit": 2, "steps": 1, "batch_size": 2}
    for asked in (
        lambda: api.run("lora", "mnist", **size),
        lambda: list(api.tune("lora", **size)),
        lambda: api.ablate("lora", "mnist", axes={"lr": "1e-3,1e-2"}, **size),
        lambda: api.stream("mnist,vsr", "lora", **size),
    ):
        with pytest.raises(MachineError, match=r"`--gpus-per-unit 2`: the Ray cluster has 1\."):
            asked()


@pytest.mark.parametrize(("given", "wanted"), [(None, []), (2, [2])])
def test_slurm_is_asked_for_the_gpus_of_a_run(
    given: float | None, wanted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    class Executor:
        def __init__(self, **_: Any) -> None:
            pass

        def update_parameters(self, **options: Any) -> None:
            asked.update(options)

    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(AutoExecutor=Executor))
    monkeypatch.setattr(engines, "CLUSTER", "local")
    with engines.submitting(("slurm", given), Store(tmp_path), str, {}):
        pass
    assert [value for name, value in asked.items() if name == "gpus_per_node"] == wanted


@pytest.mark.parametrize(
    ("workers", "gpus", "says"),
    [
        ("2", 1, r"is what Ray and Slurm are asked for: add `--workers ray` or `slurm`"),
        ("1", 0.5, r"is what Ray and Slurm are asked for"),
        ("ray", 1.5, r"`--gpus-per-unit 1\.5`: a whole number of GPUs from 1, or a fraction below 1 that runs share"),
        ("slurm", 0.5, r"`--gpus-per-unit 0\.5`: a whole number of GPUs from 1\."),
        ("ray", 0, r"`--gpus-per-unit 0`"),
        ("ray", float("nan"), r"`--gpus-per-unit nan`"),
    ],
)
def test_gpus_that_no_engine_can_give_are_refused(workers: str, gpus: float, says: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=says):
        run(tmp_path, workers, gpus_per_unit=gpus)
    with pytest.raises(RequestError, match=says):
        list(api.tune("lora", out=tmp_path, workers=workers, gpus_per_unit=gpus))
