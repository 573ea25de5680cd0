"""Searches of learning rates as tasks of an engine: the folder of one process, each trial once, whatever ends."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench import api
from mmpt_bench.common.errors import Interrupted, MachineError
from mmpt_bench.common.files import read_jsonl
from mmpt_bench.records import learning_rates
from mmpt_bench.records.rate_trials import TESTS, TRIALS
from mmpt_bench.records.store import Store
from mmpt_bench.runs.workers import engines
from mmpt_bench.study.searches import rounds, workers
from mmpt_bench.study.searches.trials import Result, Trainer
from support.processes import Done
from support.small import make_small

ASKED: dict[str, Any] = {"rounds": (1, 2), "grid": (1e-3, 3e-3), "steps": 2, "batch_size": 2}
Batches = list[list[tuple[str, float, int]]]


FAILS = (3e-3, 1000)


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Trials are not trained: what a model scores is a number made of its rate and seed."""

    def trial(self: Any, method: Any, rate: float, seed: int, checkpoint: Path, parts: Any) -> Any:
        if method.name == "lora" and (rate, seed) == FAILS:
            return {part: Result(None, {}, "the loss is not finite") for part in parts}, 1.0
        score = 0.5 - abs(rate - 2e-3) * 10 + seed / 1e5
        return {part: Result(score, {}) for part in parts}, 1.0

    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        patch.setattr(Trainer, "trial", trial)
        patch.setattr(rounds, "_loaded", lambda request: object())
        yield


@pytest.fixture
def here(small: None, monkeypatch: pytest.MonkeyPatch) -> Batches:
    """An engine that does its tasks in this process, the last one first; returns the batches that it was given."""
    batches: Batches = []

    @contextlib.contextmanager
    def engine(name: str, gpus: float | None, store: Store, work: Callable[[Any], Any]) -> Iterator[engines.Submit]:
        def submit(messages: Any) -> Any:
            if messages:
                batches.append([message.trial for message in messages])
            done = {id(message): work(message) for message in reversed(messages)}
            return [Done(lambda message=message: done[id(message)]) for message in messages]

        yield submit

    monkeypatch.setattr(engines, "_engine", engine)
    monkeypatch.setattr(engines, "LOOK_SECONDS", 0.0)
    workers._KEPT.clear()
    return batches


def tune(out: Path, workers: str, method: str = "projector", **more: Any) -> list[Any]:
    return list(api.tune(method, out=out, workers=workers, **ASKED | more))


def rows(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a file of trials, without when, how long and by which commit."""
    return [{n: v for n, v in row.items() if n not in ("seconds", "time", "commit")} for row in read_jsonl(path)]


def files(out: Path) -> list[Path]:
    return sorted(path for path in (out / "tuning").rglob("*") if path.is_file() and path.name != "lock")


def check_equal(found: Path, wanted: Path, in_order: bool = True) -> None:
    """Checks that two folders have the same trials in the same order, and the same bytes of choices."""
    arranged: Any = list if in_order else functools.partial(sorted, key=str)
    for name in (TRIALS, TESTS):
        assert arranged(rows(found / name)) == arranged(rows(wanted / name))
    assert (found / learning_rates.FILE).read_bytes() == (wanted / learning_rates.FILE).read_bytes()
    assert files(found) == []


@pytest.fixture(scope="module")
def one(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one")
    tune(out, "1", also_test=True)
    return out


def test_each_round_is_one_batch_and_the_folder_is_that_of_one_process(
    here: Batches, one: Path, tmp_path: Path
) -> None:
    told: list[tuple[float, int]] = []
    tune(tmp_path, "ray", also_test=True, told=lambda _, trial: told.append((trial.rate, trial.seed)))
    check_equal(tmp_path, one)
    made = [(row["rate"], row["seed"]) for row in read_jsonl(one / TRIALS)]
    assert [(rate, seed) for batch in here for _, rate, seed in batch] == made
    assert sorted(told) == sorted(made)
    # Two rates with a seed; the better one and its quarter decades with two; what lies beyond an edge, at once.
    first, second, *beyond = [len(batch) for batch in here]
    assert (first, second) == (2, 5)
    assert all(n == 2 for n in beyond)
    assert tune(tmp_path, "ray", also_test=True)
    assert sum(map(len, here)) == len(made)


def test_a_rate_that_fails_is_given_up_as_in_one_process(here: Batches, tmp_path: Path) -> None:
    for name in ("ray", "1"):
        tune(tmp_path / name, name, "lora", rounds=(2,))
    made = [(row["rate"], row["seed"]) for row in rows(tmp_path / "1" / TRIALS)]
    # The engine was given both seeds of the rate at once; the second is not kept, as one process does not make it.
    assert FAILS in made
    assert (FAILS[0], FAILS[1] + 1) not in made
    assert (FAILS[0], FAILS[1] + 1) in [(rate, seed) for batch in here for _, rate, seed in batch]
    check_equal(tmp_path / "ray", tmp_path / "1")


class Killed(BaseException):
    """Nothing in the product catches it, as nothing does SIGKILL."""


@pytest.mark.parametrize("kill_at", ["before it is taken over", "when half is", "before its file is removed"])
def test_what_a_killed_command_left_is_taken_over_and_nothing_is_made_twice(
    kill_at: str, here: Batches, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    real, n_kept = rounds.keep_trial, 0

    def some(*given: Any) -> None:
        nonlocal n_kept
        n_kept += 1
        if n_kept > 1:
            raise Killed
        real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(*{
            "before it is taken over": (rounds, "keep_trial", killed),
            "when half is": (rounds, "keep_trial", some),
            "before its file is removed": (Path, "unlink", killed),
        }[kill_at])  # fmt: skip
        with pytest.raises(Killed):
            tune(tmp_path, "ray", also_test=True)
    tune(tmp_path, "ray", also_test=True)
    made = [trial for batch in here for trial in batch]
    assert len(made) == len(set(made)) > 0
    # As in one process that was killed, a model that lacks its test score comes after the others of its round.
    check_equal(tmp_path, one, in_order=kill_at != "when half is")


def test_a_trial_that_the_engine_loses_is_one_sentence_and_other_searches_are_done(
    here: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: Done) -> Any:
        fault = self.work()
        if len(here) == 1 and here[0] and not seen:
            seen.append(1)
            raise ConnectionError("the node is gone")
        return fault

    seen: list[int] = []
    monkeypatch.setattr(Done, "result", lost)
    with pytest.raises(MachineError, match=r"The engine lost a trial: the node is gone\. The same command goes on"):
        tune(tmp_path, "ray", "projector,lora")
    assert [choice.search.method for choice in learning_rates.read(tmp_path / learning_rates.FILE)] == ["lora"]
    assert {choice.search.method for choice in tune(tmp_path, "ray", "projector,lora")} == {"lora", "projector"}


def test_a_command_that_is_stopped_leaves_no_file_behind(here: Batches, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        tune(tmp_path, "slurm", stopping=lambda: True)
    assert list((tmp_path / "workers").iterdir()) == []


def test_a_worker_that_plans_other_searches_says_so(here: Batches, tmp_path: Path) -> None:
    plan = api.plan_tune("projector", out=tmp_path, **ASKED)
    message = workers.TrialMessage.of(("projector", {"out": tmp_path, **ASKED, "steps": 3}), plan)
    assert "This worker plans other searches" in str(workers.do_trial(message))


def has(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", [pytest.param("slurm", marks=has("submitit")), pytest.param("ray", marks=has("ray"))]
)
def test_processes_of_an_engine_make_the_folder_of_one_process(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole embedded suite: workers are fresh interpreters."""
    import subprocess
    import sys

    monkeypatch.setattr(engines, "CLUSTER", "local")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = ASKED | {"rounds": (1,), "method": "projector", "dev_tasks": "", "limit": 6}
    code = f"""
import sys, mmpt_bench as mb
asked = {asked!r}
for choice in mb.tune(out=sys.argv[1], **asked): pass
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "one")], check=True, timeout=300)
    list(api.tune(out=tmp_path / engine, workers=engine, **asked))
    check_equal(tmp_path / engine, tmp_path / "one")
