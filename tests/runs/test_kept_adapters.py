"""`--keep-adapters`: which adapters stay, that no answer is lost, and what later commands say of one that is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench import api
from mmpt_bench.common.errors import RequestError, RunFailed, UntrustedRecord
from mmpt_bench.records import adapter_kept
from mmpt_bench.records.run_folder import ADAPTER, TENSORS
from mmpt_bench.records.store import Store
from mmpt_bench.runs import execute as executing
from mmpt_bench.runs.kept_adapters import overall
from mmpt_bench.runs.workers import processes
from support.command import bench
from support.small import make_small
from support.synthetic import record, samples, task

SIZE: dict[str, Any] = {"steps": 3, "batch_size": 2}
GONE = r"The adapter of `lora-\w+` was not kept \(`--keep-adapters`\), and is needed here\. To train it again, delete "


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        patch.setattr(processes, "START", "fork")
        yield


def run(out: Path, keep: str, method: str = "lora", tasks: str = "mnist,vsr", **more: Any) -> Any:
    return api.run(method, tasks, out=out, keep_adapters=keep, **SIZE | more)


def kept(out: Path) -> set[tuple[str, int]]:
    """Returns (method, seed) of the runs whose adapter is in its folder."""
    runs = {record.run: (record.method, record.seed) for record in Store(out).records()}
    return {runs[path.parents[1].name] for path in out.glob(f"runs/*/{ADAPTER}/{TENSORS}")}


def files(out: Path) -> dict[str, bytes]:
    found = [path for path in out.glob("runs/**/*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


@pytest.mark.slow
def test_the_best_seed_of_each_variant_stays_and_records_say_what_is_gone(tmp_path: Path) -> None:
    run(tmp_path, "best", "lora,projector,frozen", seeds=[0, 1, 2], set={"lora.learning_rate": 0.03})
    records = Store(tmp_path).records()
    best = set()
    for method in ("lora", "projector"):
        # (score - chance) / (ceiling - chance), the mean over the two tasks, as the leaderboard's overall score.
        means = {}
        for seed in range(3):
            of = [r for r in records if (r.method, r.seed) == (method, seed)]
            assert len(of) == 2
            means[seed] = sum((r.score - r.chance) / (r.ceiling - r.chance) for r in of) / 2  # type: ignore[operator]
        best.add((method, max(means, key=lambda seed: (means[seed], -seed))))
    assert kept(tmp_path) == best
    for each in records:
        assert each.adapter_kept == (each.method == "frozen" or (each.method, each.seed) in best)
        assert ("adapter_kept" in each.row) == (not each.adapter_kept)
        assert len(each.adapter_sha256) == (0 if each.method == "frozen" else 64)
    assert api.verify(tmp_path) == []
    assert run(tmp_path, "best", "lora,projector,frozen", seeds=[0, 1, 2], set={"lora.learning_rate": 0.03}).made == ()
    assert kept(tmp_path) == best


@pytest.mark.slow
def test_of_equal_seeds_the_lowest_stays_and_one_that_is_there_is_never_the_last_to_go(tmp_path: Path) -> None:
    # So small a learning rate moves no answer: all seeds score what the untuned model does.
    equal = {"lora.learning_rate": 1e-12}
    run(tmp_path, "best", tasks="mnist", seeds=[1, 2], set=equal)
    assert kept(tmp_path) == {("lora", 1)}
    run(tmp_path, "best", tasks="mnist", seeds=[0, 1, 2], set=equal)
    assert kept(tmp_path) == {("lora", 0)}
    run(tmp_path, "best", tasks="mnist", seeds=[1, 2, 0], set=equal)
    assert kept(tmp_path) == {("lora", 0)}


@pytest.mark.parametrize("damaged", [pytest.param("records.jsonl", marks=pytest.mark.slow), "adapter/training.json"])
def test_a_damaged_run_stays_as_it_is_and_the_others_are_done(damaged: str, tmp_path: Path) -> None:
    run(tmp_path, "all", tasks="mnist", seeds=[0, 1])
    (broken,) = {record.run for record in Store(tmp_path).records() if record.seed == 0}
    path = tmp_path / "runs" / broken / damaged
    path.write_text(path.read_text().replace("sha256", "sha257"))
    before = {name: data for name, data in files(tmp_path).items() if broken in name}
    said: list[str] = []
    # Damaged records are raised when everything else is done; training.json is not read where nothing is to be done.
    raised: Any = pytest.raises(UntrustedRecord) if damaged == "records.jsonl" else contextlib.nullcontext()
    with raised:
        run(tmp_path, "none", tasks="mnist", seeds=[0, 1], reporter=api.Reporter(said=said.append))
    assert {name: data for name, data in files(tmp_path).items() if broken in name} == before
    assert len(list(tmp_path.glob(f"runs/*/{ADAPTER}/{TENSORS}"))) == 1
    assert any(text.startswith(f"The adapter of `{broken}` stays: ") for text in said)


@pytest.mark.slow
def test_none_stays_and_a_run_with_a_failed_task_keeps_its_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = executing._evaluate

    def fails(session: Any, job: Any, folder: Any, base: Any, item: Any) -> Any:
        if job.recipe.seed == 1 and item.task.name == "vsr":
            raise RunFailed("out of memory")
        return real(session, job, folder, base, item)

    monkeypatch.setattr(executing, "_evaluate", fails)
    said: list[str] = []
    made = run(tmp_path, "none", seeds=[0, 1], reporter=api.Reporter(said=said.append))
    assert [record.seed for record in made.failed] == [1]
    assert kept(tmp_path) == {("lora", 1)}
    assert said[-1] == "1 adapter is not kept (`--keep-adapters none`); records keep the hashes."
    monkeypatch.setattr(executing, "_evaluate", real)
    run(tmp_path, "none", seeds=[0, 1])
    assert kept(tmp_path) == set()


def test_the_overall_score_is_the_mean_above_chance(tmp_path: Path) -> None:
    vsr, mnist = (record(Store(tmp_path), task(name), samples(12), "1" * 12) for name in ("vsr", "mnist"))
    half = [dataclasses.replace(vsr, score=0.75, chance=0.5, ceiling=1.0), dataclasses.replace(mnist, score=1.0)]
    assert overall(half) == pytest.approx((0.5 + 1.0) / 2)
    assert overall([dataclasses.replace(vsr, score=2.0, chance=None)]) == 2.0
    assert overall([dataclasses.replace(vsr, score=None), half[1]]) == -float("inf")


class Killed(BaseException):
    """Nothing in the product catches it, as nothing does SIGKILL."""


@pytest.mark.parametrize("way", ["best", pytest.param("none", marks=pytest.mark.slow)])
def test_a_command_that_is_killed_at_any_write_ends_in_the_bytes_of_one_that_was_not(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "all", "all", tasks="mnist", seeds=[0, 1])
    shutil.copytree(tmp_path / "all", tmp_path / "whole")
    run(tmp_path / "whole", way, tasks="mnist", seeds=[0, 1])
    assert len(kept(tmp_path / "whole")) == (1 if way == "best" else 0)
    real, n_writes = adapter_kept.write_atomic, 0
    for kill_at in range(1, 20):
        out, n_writes = tmp_path / f"killed-{kill_at}", 0
        shutil.copytree(tmp_path / "all", out)

        def write(*given: Any, at: int = kill_at) -> None:
            nonlocal n_writes
            n_writes += 1
            if n_writes == at:
                raise Killed
            real(*given)

        def unlink(path: Path, missing_ok: bool = False, at: int = kill_at) -> None:
            nonlocal n_writes
            n_writes += 1
            if n_writes == at:
                raise Killed
            if path.exists():
                path.rename(path.with_suffix(".gone"))
                path.with_suffix(".gone").replace(tmp_path / "bin")

        with monkeypatch.context() as patch:
            patch.setattr(adapter_kept, "write_atomic", write)
            patch.setattr(Path, "unlink", unlink)
            try:
                run(out, way, tasks="mnist", seeds=[0, 1])
            except Killed:
                pass
            else:
                break
        run(out, way, tasks="mnist", seeds=[0, 1])
        assert files(out) == files(tmp_path / "whole")
    assert kill_at > 3


@pytest.mark.slow
def test_a_command_with_workers_keeps_what_one_process_keeps(tmp_path: Path) -> None:
    for workers in (2, 1):
        run(tmp_path / str(workers), "best", seeds=[0, 1, 2], workers=workers)
    assert len(kept(tmp_path / "1")) == 1
    assert kept(tmp_path / "2") == kept(tmp_path / "1")


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gone")
    run(out, "none", tasks="mnist")
    return out


def name_of(out: Path) -> str:
    (folder,) = (out / "runs").glob("lora-*")
    return folder.name


def test_new_tasks_for_a_run_without_its_adapter_are_refused_and_nothing_is_trained(gone: Path) -> None:
    before = files(gone)
    with pytest.raises(RequestError, match=GONE):
        run(gone, "all", tasks="mnist,pope")
    with pytest.raises(RequestError, match=GONE):
        run(gone, "all", tasks="mnist", world="clean")
    assert any("was not kept" in text for text in api.plan("lora", "pope", out=gone, **SIZE).notes)
    assert files(gone) == before
    assert run(gone, "all", tasks="mnist").made == ()


@pytest.mark.parametrize("what", ["adapter", "explain", "init_from", "teacher", "prompts", "protocol", "prune"])
def test_commands_that_need_the_adapter_say_that_it_was_not_kept(what: str, gone: Path) -> None:
    name, size = name_of(gone), {"out": gone, **SIZE}
    asked = {
        "adapter": lambda: api.run(adapter=str(gone / "runs" / name / ADAPTER), tasks="mnist", **size),
        "explain": lambda: api.explain(name, out=gone),
        "init_from": lambda: api.run("lora", "mnist", init_from=name, **size),
        "teacher": lambda: api.run("projector", "mnist", teacher=name, objective="kd:0.5", **size),
        "prompts": lambda: api.prompts("mnist", "lora", **size),
        "protocol": lambda: api.protocol("mrt", "lora", **size),
        "prune": lambda: api.prune("lora", "mnist", [0.5], **size),
    }[what]
    with pytest.raises(RequestError, match=GONE):
        asked()


def test_a_folder_that_was_deleted_is_trained_again_to_the_same_adapter(gone: Path, tmp_path: Path) -> None:
    shutil.copytree(gone, tmp_path / "again")
    (before,) = Store(gone).records()
    shutil.rmtree(tmp_path / "again" / "runs" / name_of(gone))
    (again,) = run(tmp_path / "again", "all", tasks="mnist").made
    assert (again.adapter_sha256, again.adapter_kept, before.adapter_kept) == (before.adapter_sha256, True, False)


def test_merge_puts_an_adapter_back_that_one_copy_has(gone: Path, tmp_path: Path) -> None:
    run(tmp_path / "has", "all", tasks="mnist")
    shutil.copytree(gone, tmp_path / "out")
    done = api.merge([tmp_path / "has"], tmp_path / "out")
    assert (done.conflicts, done.same, len(done.taken)) == ([], 0, 1)
    assert kept(tmp_path / "out") == {("lora", 0)}
    assert [record.adapter_kept for record in Store(tmp_path / "out").records()] == [True]
    assert api.verify(tmp_path / "out") == []
    assert run(tmp_path / "out", "all", tasks="mnist,vsr").failed == ()
    # The other way round nothing is lost either.
    done = api.merge([gone], tmp_path / "has")
    assert (done.conflicts, done.same) == ([], 1)
    assert kept(tmp_path / "has") == {("lora", 0)}


@pytest.mark.parametrize("command", ["tune", "prompts", "transfer", "prune"])
def test_commands_that_keep_no_adapters_or_need_them_refuse_the_option(command: str, tmp_path: Path) -> None:
    asked = {
        "tune": lambda: list(api.tune("lora", keep_adapters="none", out=tmp_path)),
        "prompts": lambda: api.prompts("mnist", "lora", keep_adapters="none", out=tmp_path),
        "transfer": lambda: api.transfer("vsr", "mnist", "lora", keep_adapters="none", out=tmp_path),
        "prune": lambda: api.prune("lora", "mnist", keep_adapters="none", out=tmp_path),
    }[command]
    with pytest.raises(RequestError, match=r"`--keep-adapters` and `.*` do not go together"):
        asked()


def test_what_is_no_way_to_keep_adapters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="There is no choice of adapters to keep `some`"):
        run(tmp_path, "some")


@pytest.mark.slow
def test_stages_of_a_stream_have_the_adapters_before_them_until_its_end(tmp_path: Path) -> None:
    made = api.stream("mnist,vsr", "lora", "sequential,ewc:10", "mnist,vsr", keep_adapters="none", out=tmp_path, **SIZE)
    assert not made.failed
    assert kept(tmp_path) == set()
    assert not list(tmp_path.glob("runs/*/fisher*"))


@pytest.mark.slow
def test_the_command_line_says_what_was_not_kept_and_verify_counts_it(tmp_path: Path) -> None:
    asked = ("run", "--method", "lora", "--tasks", "mnist", "--smoke", "--out", "out")
    assert "1 adapter is not kept" in bench(*asked, "--keep-adapters", "none", cwd=tmp_path).stderr
    assert "1 adapter was not kept" in bench("verify", "out", cwd=tmp_path).stdout
    refused = bench(*asked[:4], "vsr", *asked[5:], cwd=tmp_path, code=2)
    assert "was not kept" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert bench("report", "--out", "out", cwd=tmp_path).stdout
