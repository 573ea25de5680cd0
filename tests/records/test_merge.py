"""Results folders that become one, and whether one is what its hashes say."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmpt_bench import analysis
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import append_jsonl
from mmpt_bench.common.hashing import canonical_json, file_sha256
from mmpt_bench.data.samples import Prediction
from mmpt_bench.records import adapter_kept
from mmpt_bench.records.rate_trials import TRIALS, Search, Trial
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.run_folder import ADAPTER, CONFIG, COSTS, SUM, TENSORS, summed
from mmpt_bench.records.store import Store
from mmpt_bench.records.verify import look
from support.command import bench
from support.synthetic import keep, recipe, record, samples, task

TASKS = {name: task(name) for name in ("vsr", "pope", "mnist")}


def run_in(store: Store, made_by: Recipe, names: Sequence[str], weights: bytes = b"weights", right: str = "110") -> str:
    """Adds a trained run with results on tasks; returns its name."""
    run = store.run(made_by.run_name)
    part = run.new_adapter()
    part.mkdir(parents=True)
    (part / TENSORS).write_bytes(weights)
    sha256 = file_sha256(part / TENSORS)
    run.write_recipe(made_by)
    costs = {"seconds": 1.5, "peak_bytes": 2**20, "final_loss": 0.5, "adapter_bytes": len(weights), "sha256": sha256}
    run.finish_training(part, costs)
    for name in names:
        run.append_predictions(name, "k", [Prediction("0", "yes", "yes", "yes", (-0.1, -2.0))])
        written, digest = run.answers_written(name, "k")
        keep(store, record(store, TASKS[name], samples(12), right, made_by, adapter_sha256=sha256, attempt=sha256[:8],
                           answers_bytes=written, answers_sha256=digest))  # fmt: skip
    return run.name


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def two(tmp_path: Path) -> tuple[Store, Store]:
    return Store(tmp_path / "a"), Store(tmp_path / "b")


def test_runs_of_two_folders_stand_in_one_with_every_byte(two: tuple[Store, Store], tmp_path: Path) -> None:
    a, b = two
    names = [run_in(a, recipe(seed=0), ["vsr", "pope"]), run_in(b, recipe(seed=1), ["vsr"], b"others")]
    before = [files(a.root), files(b.root)]
    done = analysis.merge([a.root, b.root], tmp_path / "out")
    assert (sorted(done.taken), done.same, done.conflicts) == (sorted(names), 0, [])
    assert files(tmp_path / "out") == before[0] | before[1]
    assert [files(a.root), files(b.root)] == before
    assert analysis.verify(tmp_path / "out") == []
    again = analysis.merge([a.root, b.root], tmp_path / "out")
    assert (again.taken, again.same, again.conflicts) == ([], 2, [])


def test_of_two_copies_the_one_that_has_all_of_the_other_is_taken(two: tuple[Store, Store], tmp_path: Path) -> None:
    a, b = two
    name = run_in(a, recipe(), ["vsr"])
    run_in(b, recipe(), ["vsr", "pope"])
    out = Store(tmp_path / "out")
    analysis.merge([a.root], out.root)
    done = analysis.merge([b.root], out.root)
    assert (done.taken, done.conflicts) == ([name], [])
    assert sorted(each.task for each in out.records()) == ["pope", "vsr"]


def test_a_run_that_was_trained_twice_is_listed_with_both_places_and_never_mixed(
    two: tuple[Store, Store], tmp_path: Path
) -> None:
    a, b = two
    name = run_in(a, recipe(), ["vsr"], b"one training")
    run_in(b, recipe(), ["pope"], b"another training")
    kept = run_in(b, recipe(seed=1), ["pope"])
    said = bench("merge", "a", "b", "--out", "out", cwd=tmp_path, code=5)
    assert f"`{name}`: trained twice" in said.stderr
    assert "`a`" in said.stderr
    assert "`b`" in said.stderr
    assert "1 run taken, 0 there already" in said.stdout
    assert {each.run for each in Store(tmp_path / "out").records()} == {kept}


def test_copies_that_contradict_each_other_are_a_conflict(two: tuple[Store, Store], tmp_path: Path) -> None:
    a, b = two
    run_in(a, recipe(), ["vsr"])
    run_in(b, recipe(), ["vsr"], right="100")
    done = analysis.merge([a.root, b.root], tmp_path / "out")
    assert done.taken == []
    assert "another result on `vsr`" in done.conflicts[0]


@pytest.mark.parametrize("first", [["mnist"], ["vsr", "mnist"]])
def test_results_of_one_adapter_on_other_tasks_come_together(
    first: list[str], two: tuple[Store, Store], tmp_path: Path
) -> None:
    """As of the untuned base, which every command evaluates on its own tasks."""
    a, b = two
    name = run_in(a, recipe(), first)
    run_in(b, recipe(), ["pope", "vsr"])
    out = Store(tmp_path / "out")
    assert analysis.merge([a.root, b.root], out.root).taken == [name]
    assert sorted(each.task for each in out.records()) == sorted({*first, "pope", "vsr"})
    found, parts = files(out.root), files(a.root) | files(b.root)
    assert {file: found[file] for file in found if not file.endswith("records.jsonl")} == {
        file: data for file, data in parts.items() if not file.endswith("records.jsonl")
    }
    assert analysis.verify(out.root) == []
    assert analysis.merge([b.root, a.root], out.root).same == 1
    # The same from the other side, into a folder that has some of it.
    other = Store(tmp_path / "other")
    analysis.merge([b.root], other.root)
    assert analysis.merge([a.root], other.root).taken == [name]
    assert {(each.task, each.eval_key) for each in other.records()} == {
        (each.task, each.eval_key) for each in out.records()
    }
    assert analysis.verify(other.root) == []


def test_a_task_that_was_answered_in_both_is_taken_whole_from_the_copy_with_more(
    two: tuple[Store, Store], tmp_path: Path
) -> None:
    """Answers of several limits stand in one file, and their order differs."""
    a, b = two
    name = run_in(a, recipe(), ["vsr", "pope"])
    run_in(b, recipe(), [])
    run, (mine,) = b.run(name), [each for each in a.run(name).records() if each.task == "vsr"]
    for key, limit in (("few", 4), (mine.eval_key, None)):
        run.append_predictions("vsr", key, [Prediction("0", "yes", "yes", "yes", (-0.1, -2.0))])
        written, digest = run.answers_written("vsr", key)
        again = dataclasses.replace(mine, limit=limit, eval_key=key, answers_bytes=written, answers_sha256=digest)
        run.append_record(again)
    shutil.copytree(a.path("samples"), b.path("samples"), dirs_exist_ok=True)
    out = Store(tmp_path / "out")
    assert analysis.merge([a.root, b.root], out.root).conflicts == []
    assert sorted((each.task, each.limit or 0) for each in out.records()) == [("pope", 0), ("vsr", 0), ("vsr", 4)]
    assert analysis.verify(out.root) == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_answers_that_one_copy_lost_come_from_the_other(
    order: tuple[int, int], two: tuple[Store, Store], tmp_path: Path
) -> None:
    name, _ = (run_in(store, recipe(), ["vsr", "pope"]) for store in two)
    whole = files(two[0].root)
    two[1].run(name).path("pope.jsonl").unlink()
    assert ["The answers of 1 result are not there" in " ".join(look(store).held) for store in two] == [False, True]
    done = analysis.merge([two[i].root for i in order], tmp_path / "out")
    assert (done.taken, done.conflicts) == ([name], [])
    assert files(tmp_path / "out") == whole
    # A folder that lost them gets them back.
    (back,) = analysis.merge([two[0].root], two[1].root).taken
    assert back == name
    assert files(two[1].root) == whole
    assert analysis.merge([two[0].root], two[1].root).same == 1


def test_a_published_folder_without_runs_is_merged_too(two: tuple[Store, Store], tmp_path: Path) -> None:
    a, b = two
    first = run_in(a, recipe(), ["vsr", "pope"])
    a.publish()
    shutil.rmtree(a.root / "runs")
    second = run_in(b, recipe(seed=1), ["vsr"])
    out = Store(tmp_path / "out")
    assert analysis.merge([a.root, b.root], out.root).conflicts == []
    assert sorted((each.run, each.task) for each in out.records()) == sorted(
        [(first, "pope"), (first, "vsr"), (second, "vsr")]
    )


def test_trials_come_together_and_one_with_another_score_is_listed(two: tuple[Store, Store], tmp_path: Path) -> None:
    def trial(rate: float, score: float) -> Trial:
        return Trial(Search("lora", {"r": 2}, "b", "c", {"steps": 3}), rate, 0, score, {}, "", 1.0, 1, "", "")

    a, b = two
    append_jsonl(a.path(TRIALS), trial(1e-3, 0.5).row, trial(3e-3, 0.6).row)
    append_jsonl(b.path(TRIALS), trial(3e-3, 0.7).row, trial(1e-2, 0.8).row)
    done = analysis.merge([a.root, b.root], tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / TRIALS).read_text().splitlines()]
    assert [(line["rate"], line["score"]) for line in lines] == [(1e-3, 0.5), (3e-3, 0.6), (1e-2, 0.8)]
    assert len(done.conflicts) == 1
    assert "lora at 0.003, seed 0 in" in done.conflicts[0]


def test_what_is_no_folder_or_the_target_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(RequestError, match="There is no results folder"):
        analysis.merge([tmp_path / "none"], tmp_path / "out")
    with pytest.raises(RequestError, match="is what is merged into"):
        analysis.merge([tmp_path / "out"], tmp_path / "out")
    run_in(Store(tmp_path / "out"), recipe(), ["vsr"])
    with pytest.raises(RequestError, match="lies inside"):
        analysis.merge([tmp_path / "out"], tmp_path / "out" / "sub")
    (tmp_path / "empty").mkdir()
    for refused in (
        lambda: analysis.merge([tmp_path / "empty"], tmp_path / "out"),
        lambda: analysis.verify(tmp_path / "empty"),
        lambda: analysis.reruns(tmp_path / "empty", tmp_path / "out"),
    ):
        with pytest.raises(RequestError, match="is no results folder: there is no run in it"):
            refused()


def test_what_is_unfinished_and_what_no_result_names_is_said(two: tuple[Store, Store], tmp_path: Path) -> None:
    a, _ = two
    done, begun = run_in(a, recipe(seed=0), ["vsr"]), run_in(a, recipe(seed=1), [])
    more = a.write_samples(samples(5))
    (a.root / "runs" / "stray").mkdir()
    (a.run(done).path("notes.txt")).write_text("mine", encoding="utf-8")
    (found,) = [list(look(a).held)]
    assert found == [
        "2 runs with 1 result: everything that is there is what its hash says.",
        "1 run has no result: the command that began it goes on.",
        f"3 things are of no run or result: `runs/{done}/notes.txt`, `runs/stray`, `samples/{more}.jsonl`.",
    ]
    assert bench("verify", a.root, cwd=tmp_path).stdout.splitlines() == found
    (a.run(done).path("adapter") / TENSORS).unlink()
    (a.run(done).path("recipe.yaml")).unlink()
    assert look(a).held[1:3] == (
        "1 adapter is not there: scores stand, nothing more can be asked.",
        "1 recipe is not there: scores stand, `--recipe` has none to repeat.",
    )
    merged = analysis.merge([a.root], tmp_path / "out")
    assert (set(merged.taken), merged.unfinished) == ({done, begun}, [begun])
    said = bench("merge", a.root, "--out", tmp_path / "out2", cwd=tmp_path).stdout
    assert "2 runs taken (1 without a result yet), 0 there already" in said


def test_folders_copied_over_each_other_are_refused_wherever_they_are_read(
    two: tuple[Store, Store], tmp_path: Path
) -> None:
    a, b = two
    name = run_in(a, recipe(), ["vsr"], b"one training")
    run_in(b, recipe(), ["pope"], b"another training")
    # As rsync does: the newer file in place of the older, the lines of records together.
    records = [store.run(name).path("records.jsonl").read_bytes() for store in two]
    shutil.copytree(b.root, a.root, dirs_exist_ok=True)
    a.run(name).path("records.jsonl").write_bytes(b"".join(records))
    with pytest.raises(UntrustedRecord, match=f"Results of `{name}` are of two trainings: `vsr` of the adapter"):
        a.records()
    said = bench("verify", "a", cwd=tmp_path, code=5)
    assert "are of two trainings" in said.stdout


def test_an_answer_behind_those_of_the_records_is_looked_at_too(two: tuple[Store, Store]) -> None:
    a, _ = two
    run = a.run(run_in(a, recipe(), ["vsr"]))
    run.append_predictions("vsr", "other", [Prediction("1", "no", "no", "no", (-0.1, -2.0))])
    assert analysis.verify(a.root) == []
    path = run.path("vsr.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"no"', b'"yes"'))
    (told,) = analysis.verify(a.root)
    assert told == f"Line 2 of `vsr.jsonl` in `{run.name}` is damaged: it was edited, its hash says."


def test_the_configuration_of_an_adapter_is_part_of_it(two: tuple[Store, Store]) -> None:
    a, _ = two
    run = a.run(run_in(a, recipe(), ["vsr"]))
    config = run.path(ADAPTER, CONFIG)
    config.write_text("{}", encoding="utf-8")
    known = {name: value for name, value in (run.training() or {}).items() if name != SUM}
    run.path(ADAPTER, COSTS).write_text(canonical_json(summed(known | {"config_sha256": file_sha256(config)})))
    assert analysis.verify(a.root) == []
    config.write_text('{"lora_alpha": 7777}', encoding="utf-8")
    assert "`adapter_config.json` of" in analysis.verify(a.root)[0]


@pytest.mark.parametrize("damage", ["adapter", "answers", "record", "samples"])
def test_what_was_edited_is_told(damage: str, two: tuple[Store, Store], tmp_path: Path) -> None:
    a, _ = two
    run = a.run(run_in(a, recipe(), ["vsr"]))
    path = {
        "adapter": run.path(ADAPTER, TENSORS), "answers": run.path("vsr.jsonl"), "record": run.path("records.jsonl"),
        "samples": next((a.root / "samples").iterdir()),
    }[damage]  # fmt: skip
    assert analysis.verify(a.root) == []
    path.write_bytes(
        path.read_bytes().replace(b"weights", b"w").replace(b'"yes"', b'"no"').replace(b'"n":12', b'"n":9')
    )
    (told,) = analysis.verify(a.root)
    assert {"adapter": "is damaged: its hash differs", "answers": "were changed", "record": "cannot be trusted",
            "samples": "was changed"}[damage] in told  # fmt: skip


def test_results_of_another_adapter_than_the_one_that_lies_there_are_told(two: tuple[Store, Store]) -> None:
    a, b = two
    name = run_in(a, recipe(), ["vsr"], b"one training")
    run_in(b, recipe(), [], b"another training")
    shutil.rmtree(a.run(name).path(ADAPTER))
    shutil.copytree(b.run(name).path(ADAPTER), a.run(name).path(ADAPTER))
    (told,) = analysis.verify(a.root)
    assert f"The results of `{name}` are of the adapter" in told


def test_the_published_results_are_what_their_hashes_say() -> None:
    from support.paths import ROOT

    assert analysis.verify(ROOT / "results") == []


def let_go_of(store: Store, name: str) -> None:
    with store.run(name).lock():
        adapter_kept.let_go(store.run(name))


@pytest.mark.parametrize("order", ["published first", "published last", "published in one folder"])
def test_published_results_of_a_run_without_its_adapter_say_that_it_is_gone(
    order: str, two: tuple[Store, Store], tmp_path: Path
) -> None:
    """The published record is of when the adapter was there; the run's folder has it no more."""
    a, b = two
    name = run_in(a, recipe(), ["vsr", "pope"])
    a.publish()
    shutil.rmtree(a.root / "runs")
    run_in(b, recipe(), ["vsr"])
    let_go_of(b, name)
    out = Store(tmp_path / "out")
    if order == "published in one folder":
        shutil.copytree(b.root, a.root, dirs_exist_ok=True)
    sources = {"published first": [a.root, b.root], "published last": [b.root, a.root]}.get(order, [a.root])
    assert analysis.merge(sources, out.root).conflicts == []
    assert [(each.task, each.adapter_kept) for each in out.records()] == [("pope", False), ("vsr", False)]
    assert analysis.verify(out.root) == []
    assert analysis.merge(sources, out.root).same == 1


def test_a_removal_that_was_cut_short_is_put_right_by_a_copy_that_kept_the_adapter(
    two: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    name = run_in(a, recipe(), ["vsr"])
    run_in(b, recipe(), ["vsr"])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        let_go_of(a, name)
    assert (a.run(name).path(ADAPTER, TENSORS).is_file(), adapter_kept.is_kept(a.run(name))) == (True, False)
    assert analysis.merge([b.root], a.root).taken == [name]
    assert adapter_kept.is_kept(a.run(name))
    assert [each.adapter_kept for each in a.records()] == [True]
    assert analysis.merge([b.root], a.root).same == 1
