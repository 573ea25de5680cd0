"""What is written is whole, what is read is what was written, and nothing leaves the results folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import append_jsonl, write_atomic
from mmpt_bench.records.store import MAX_CHOICES, Store, results_folder
from support.paths import ROOT
from support.processes import line_of, python
from support.synthetic import keep, recipe, record, samples, store_in, task


def test_results_folder_that_cannot_be_written_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"file/results` cannot be written to: Not a directory"):
        Store(tmp_path / "file" / "results").check_writable()


def test_the_published_leaderboard_is_refused_as_results_folder() -> None:
    with pytest.raises(RequestError, match="is the published leaderboard, which runs leave as it is"):
        Store(ROOT / "results").check_writable()


def test_results_are_where_they_are_told_or_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMPT_RESULTS", raising=False)
    assert results_folder() == Path("mmpt-results")
    monkeypatch.setenv("MMPT_RESULTS", "elsewhere")
    assert results_folder() == Path("elsewhere")
    assert results_folder("told") == Path("told")


def test_a_folder_inside_a_results_folder_is_refused_with_the_name_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("made/runs/lora-1")
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("method: lora\n", encoding="utf-8")
    for inside in (run, run.parent, run.absolute()):
        with pytest.raises(RequestError, match="lies inside a results folder: name `made` instead"):
            results_folder(inside)
    assert results_folder("made") == Path("made")
    monkeypatch.chdir(run)
    with pytest.raises(RequestError, match=r"name `\.\./\.\.` instead"):
        results_folder(".")


def test_proc_is_refused_as_results_folder() -> None:
    with pytest.raises(RequestError, match="cannot be written to"):
        Store(Path("/proc/results")).check_writable()


def test_writable_results_folder_is_left_as_it_was(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.check_writable()
    assert not store.root.exists()
    store.root.mkdir()
    store.check_writable()
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../../x", "/etc/x", "a/b", "a\\b", "a\0b", "a\nb", "x" * 201, "ä" * 101, "-rf", ".hidden", "~"],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match="cannot be a name"):
        store_in(tmp_path).run(name)


def test_link_that_leads_out_of_the_results_folder_is_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (store.root / "runs").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (store.root / "runs" / "lora-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="leads out of"):
        store.run("lora-1")
    with pytest.raises(RequestError, match="leads out of"):
        store.records()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_results_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "mmpt-results").symlink_to(tmp_path / "disk")
    write_atomic(store_in(tmp_path).path("leaderboard.md"), b"x")
    assert (tmp_path / "disk" / "leaderboard.md").read_bytes() == b"x"


def test_samples_come_back_and_have_one_name(tmp_path: Path) -> None:
    store, asked = store_in(tmp_path), samples(5, "count", per_picture=2)
    name = store.write_samples(asked)
    assert store.write_samples(asked) == name
    assert store.write_samples(asked[:4]) != name
    kept = ("id", "choices", "answer", "group", "cluster")
    for before, after in zip(asked, store.read_samples(name), strict=True):
        assert [getattr(before, k) for k in kept] == [getattr(after, k) for k in kept]


def test_changed_samples_file_is_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    path = store.path("samples", store.write_samples(samples(4)) + ".jsonl")
    path.write_text(path.read_text().replace('"answer":"1"', '"answer":"0"', 1))
    with pytest.raises(UntrustedRecord, match="was changed"):
        store.read_samples(path.stem)


def test_sample_whose_answer_is_no_choice_is_refused(tmp_path: Path) -> None:
    odd = dataclasses.replace(samples(1)[0], answer="maybe")
    with pytest.raises(RequestError, match="`maybe`"):
        store_in(tmp_path).write_samples([odd])


def test_two_samples_with_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"1 id stands for several samples: 0\."):
        store_in(tmp_path).write_samples([*samples(2), samples(1)[0]])


def test_last_record_of_a_key_wins(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    first = record(store, task(), samples(4), "10")
    again = dataclasses.replace(first, train_seconds=61.0)
    other = record(store, task(), samples(4), "11", recipe("vpt"))
    for each in (first, other, again):
        keep(store, each)
    assert store.records() == [again, other]
    assert [each for each in store.records() if each.eval_key == first.eval_key] == [again]


def test_published_records_stand_without_the_folders_of_their_runs(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    keep(store, record(store, task(), samples(4), "10"))
    before = store.records()
    store.publish()
    store.run(before[0].run).path("records.jsonl").unlink()
    assert store.records() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scroe": 1.0}, "no field `scroe`. Did you mean `score`"),
        ({"score": "0.5"}, "the field `score` is '0.5', which is not float"),
        ({"seed": 1.5}, "the field `seed` is '1.5', which is not int"),
        ({"degenerate": 1}, "the field `degenerate`"),
        ({"status": "done"}, "is not 'ok' or 'failed'"),
        ({"interval": [0.1]}, "the field `interval`"),
        ({"train_key": None}, "the field `train_key`"),
    ],
)
def test_record_with_an_odd_field_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    store = store_in(tmp_path)
    row = dataclasses.asdict(record(store, task(), samples(4), "10"))
    append_jsonl(store.run(row["run"]).path("records.jsonl"), row | change)
    with pytest.raises(UntrustedRecord, match=message):
        store.records()


def test_record_in_another_runs_folder_is_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    row = dataclasses.asdict(record(store, task(), samples(4), "10"))
    append_jsonl(store.run("vpt-1").path("records.jsonl"), row)
    with pytest.raises(UntrustedRecord, match="lies in the folder of `vpt-1`"):
        store.records()


def test_reading_and_tables_need_no_torch() -> None:
    heavy = "{'torch', 'pandas', 'matplotlib', 'rich'}"
    code = f"import sys, mmpt_bench.records.store; print(sorted({heavy} & set(sys.modules)))"
    process = python(code)
    assert line_of(process) == "[]"
    assert process.wait() == 0


def test_edited_lines_and_folders_that_are_no_runs(tmp_path: Path) -> None:
    from mmpt_bench.data.samples import Prediction
    from support.synthetic import keep, recipe, record, samples, store_in, task

    store = store_in(tmp_path)
    made = record(store, task("colours", "Colours"), samples(6), "10", recipe())
    keep(store, made)
    run = store.run(made.run)
    run.append_predictions("colours", "k", [Prediction("a", "yes", "yes", "yes", (-0.1, -2.0))])
    (store.root / "runs" / ".stray").mkdir()
    assert [each.name for each in store.runs()] == [made.run]
    assert list(run.predictions("colours", "k")) == ["a"]
    for name, read in (("colours.jsonl", lambda: run.predictions("colours", "k")), ("records.jsonl", run.records)):
        path = run.path(name)
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b'"yes"', b'"no"', 1).replace(b'"n":6', b'"n":7'))
        with pytest.raises(UntrustedRecord, match="edited"):
            read()
        path.write_bytes(whole)
        read()


def test_a_results_folder_may_be_deep_and_there_already(tmp_path: Path) -> None:
    store = Store(tmp_path / "a" / "b" / "results")
    for _ in range(2):
        store.check_writable()
        store.root.mkdir(exist_ok=True)
        assert list(store.root.iterdir()) == []


def test_a_thousand_choices_can_be_kept_and_no_more(tmp_path: Path) -> None:
    names = tuple(f"class {i}" for i in range(MAX_CHOICES + 1))
    (one,) = samples(1)
    store, most = store_in(tmp_path), dataclasses.replace(one, choices=names[:-1], answer=names[MAX_CHOICES - 1])
    (read,) = store.read_samples(store.write_samples([most]))
    assert (read.answer, len(read.choices)) == (names[MAX_CHOICES - 1], MAX_CHOICES)
    assert MAX_CHOICES >= 1000
    with pytest.raises(RequestError, match=f"it has {MAX_CHOICES + 1}: class 0, class 1,"):
        store.write_samples([dataclasses.replace(one, choices=names, answer=names[0])])
