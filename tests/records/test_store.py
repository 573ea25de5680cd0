"""What is written is whole, what is read is what was written, and nothing leaves the results folder."""

from __future__ import annotations

import dataclasses
import json
import logging
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench.common.errors import MachineError, RequestError, UntrustedRecord
from mmpt_bench.common.files import append_jsonl, check_name, read_jsonl, scrub, write_atomic
from mmpt_bench.evaluation.counting import choices_from, choices_text
from mmpt_bench.records.recipe_file import read_recipe, write_recipe
from mmpt_bench.records.store import Store
from support.paths import ROOT
from support.synthetic import answers, keep, recipe, record, samples, store_in, task


def python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_rows_come_back_as_they_were_appended(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "rows.jsonl"
    rows = [{"a": 1, "text": "ä\n|"}, {"b": None, "c": [0.1, True]}]
    for row in rows:
        append_jsonl(file, row)
    assert read_jsonl(file) == rows
    assert file.read_bytes().count(b"\n") == 2


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_jsonl(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_never_stored(tmp_path: Path, bad: float) -> None:
    file = tmp_path / "rows.jsonl"
    append_jsonl(file, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_jsonl(file, {"a": bad})
    assert file.read_bytes() == b'{"a":1}\n'


def test_nan_in_a_file_is_refused_when_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a":NaN}\n')
    with pytest.raises(UntrustedRecord, match=r"Line 1 .*NaN"):
        read_jsonl(file)


def test_torn_last_line_is_left_out_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a":1}\n{"a":2')
    assert read_jsonl(file) == [{"a": 1}]
    assert "(2) was not finished" in caplog.text


def test_torn_last_line_is_cut_off_before_the_next_is_appended(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a":1}\n{"a":"' + b"x" * 200_000)
    append_jsonl(file, {"a": 3})
    assert file.read_bytes() == b'{"a":1}\n{"a":3}\n'


def test_whole_last_line_that_only_lacks_its_newline_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a":1}\n{"a":2}')
    assert read_jsonl(file) == [{"a": 1}, {"a": 2}]
    append_jsonl(file, {"a": 3})
    assert read_jsonl(file) == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize("damage", [b'{"a":2\n', b"\n", b"[1]\n", b"\x00\x00\n", b"\xff\n", b"[" * 100_000 + b"\n"])
def test_damaged_line_in_the_middle_is_refused_with_its_number(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a":1}\n' + damage + b'{"a":3}\n')
    with pytest.raises(UntrustedRecord, match="Line 2 "):
        read_jsonl(file)


def test_process_killed_while_writing_leaves_the_old_file_whole(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    write_atomic(file, b"old")
    writer = python(
        """
        import os, sys
        from pathlib import Path
        from mmpt_bench.common import files
        def stop(descriptor):
            print("half", flush=True)
            sys.stdin.read()
        os.fsync = stop
        files.write_atomic(Path(sys.argv[1]), b"new" * 100_000)
        """,
        file,
        stdin=subprocess.PIPE,
    )
    assert line_of(writer) == "half"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert file.read_bytes() == b"old"
    write_atomic(file, b"newer")
    assert file.read_bytes() == b"newer"


def test_process_killed_while_appending_loses_at_most_its_last_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    writer = python(
        """
        import sys
        from pathlib import Path
        from mmpt_bench.common.files import append_jsonl
        for i in range(10**9):
            append_jsonl(Path(sys.argv[1]), {"i": i, "text": "x" * 5000})
            print(i, flush=True)
        """,
        file,
    )
    last = max(int(line_of(writer)) for _ in range(20))
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    rows = read_jsonl(file)
    assert [row["i"] for row in rows] == list(range(len(rows)))
    assert len(rows) > last
    append_jsonl(file, {"i": -1})
    assert read_jsonl(file) == [*rows, {"i": -1}]


def test_full_disk_damages_nothing_and_says_where_and_how_much(tmp_path: Path) -> None:
    file, table = tmp_path / "rows.jsonl", tmp_path / "table.csv"
    append_jsonl(file, {"a": 1})
    write_atomic(table, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(
            MachineError, match=r"rows\.jsonl` cannot be written: .* 509 bytes are needed, [\d,]+ are free"
        ):
            append_jsonl(file, {"a": "x" * 500})
        with pytest.raises(MachineError, match=r"table\.csv` cannot be written"):
            write_atomic(table, b"x" * 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read_bytes() == b'{"a":1}\n'
    assert table.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "table.csv"]


def test_results_folder_that_cannot_be_written_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"file/results` cannot be written to: Not a directory"):
        Store(tmp_path / "file" / "results").check_writable()


def test_proc_is_refused_as_results_folder() -> None:
    with pytest.raises(RequestError, match="cannot be written to"):
        Store(Path("/proc/results")).check_writable()


def test_writable_results_folder_is_left_empty(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.check_writable()
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../../x", "/etc/x", "a/b", "a\\b", "a\0b", "a\nb", "x" * 201, "ä" * 101, "-rf", ".hidden", "~"],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match="cannot be a name"):
        store_in(tmp_path).run(name)


def test_usual_names_are_allowed() -> None:
    for name in ("lora-0123456789abcdef", "mme.jsonl", "x" * 200):
        assert check_name(name) == name


def test_link_that_leads_out_of_the_results_folder_is_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (store.root / "runs").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (store.root / "runs" / "lora-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="leads out of"):
        store.run("lora-1").path("records.jsonl")
    with pytest.raises(RequestError, match="leads out of"):
        store.records()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_results_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
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
    with pytest.raises(RequestError, match=r"1 ids stand for several samples: 0\."):
        store_in(tmp_path).write_samples([*samples(2), samples(1)[0]])


def test_choices_are_one_character_a_sample() -> None:
    asked = samples(4)
    choices = answers(asked, "10-1")
    assert choices_text(asked, choices) == "00-1"
    assert choices_from(asked, "00-1") == choices


@pytest.mark.parametrize("text", ["000", "0002", "000?", "000A"])
def test_choices_that_do_not_fit_the_samples_are_refused(text: str) -> None:
    with pytest.raises(UntrustedRecord):
        choices_from(samples(4), text)


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


def test_recipe_comes_back_with_its_key(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    before = recipe("lora", 3, {"learning_rate": 7e-4, "rank": 8, "targets": ["q", "v"], "alpha": None})
    store.run(before.run_name).write_recipe(before)
    assert store.run(before.run_name).read_recipe() == before


def test_edited_recipe_in_a_runs_folder_is_another_run(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    path = store.run(recipe(seed=0).run_name).write_recipe(recipe(seed=0))
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(UntrustedRecord, match="it was edited"):
        store.run(recipe(seed=0).run_name).read_recipe()


def test_learning_rate_may_be_written_without_a_dot(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    write_recipe(recipe(), file)
    file.write_text(file.read_text().replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert read_recipe(file) == recipe()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("seed: 0", "sede: 0"), r"line \d+, column 1: there is no field `sede`. Did you mean `seed`"),
        (("seed: 0", "seed: many"), r"line \d+, column 1: the field `seed` is 'many', which is not int"),
        (("steps: 400", "stepz: 400"), r"line \d+, column 3: there is no field `stepz`. Did you mean `steps`"),
        (("seed: 0", "seed: 0\nseed: 1"), r"line \d+, column 1: `seed` stands twice"),
        (("seed: 0\n", ""), "the field `seed` is missing"),
        (("seed: 0", "seed: &a 0\ncopy: *a"), "aliases are not allowed"),
        (("seed: 0", "seed: {"), r"line \d+, column \d+"),
        (("seed: 0", "seed: !!python/object/apply:os.system ['true']"), r"line \d+, column \d+: could not determine"),
        (("seed: 0", "seed: " + "[" * 200), "nested too deep"),
        (("seed: 0", "seed: 0 # " + "x" * 70_000), "larger than 65,536 bytes"),
    ],
)
def test_malformed_recipe_is_refused_with_its_place(tmp_path: Path, edit: tuple[str, str], message: str) -> None:
    file = tmp_path / "recipe.yaml"
    write_recipe(recipe(), file)
    assert edit[0] in file.read_text()
    file.write_text(file.read_text().replace(*edit))
    with pytest.raises(RequestError, match=message):
        read_recipe(file)


@pytest.mark.parametrize("text", ["", "- 1\n", "\x00", "just text"])
def test_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RequestError, match="is no recipe"):
        read_recipe(tmp_path / "recipe.yaml")


def test_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "recipe.yaml")


def test_secrets_and_home_directory_reach_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/canary")
    monkeypatch.setenv("MY_API_KEY", "canary-value-123")
    store = store_in(tmp_path)
    told = "/home/canary/model: 401 for canary-value-123, hf_abcdefghijklmnopqrstuv, https://me:canary@proxy:80/"
    made_by = recipe(backbone="/home/canary/model")
    store.run(made_by.run_name).write_recipe(made_by)
    keep(store, record(store, task(), samples(4), "10", made_by, reason=told, environment={"/home/canary": [told]}))
    store.publish()
    for path in store.root.rglob("*"):
        if path.is_file():
            assert "canary" not in path.read_text(), path.name
            assert "hf_" not in path.read_text()
    assert store.run(made_by.run_name).read_recipe().backbone == "~/model"


def test_home_directory_in_a_field_of_the_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/canary")
    with pytest.raises(RequestError, match="`corpus` names your home directory"):
        store_in(tmp_path).run("lora-1").write_recipe(recipe(corpus="/home/canary/scenes"))


def test_folders_that_only_begin_like_home_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert scrub("in /home/me, /home/me/x, /home/me2, /home/me.old, /srv/home/me.") == (
        "in ~, ~/x, /home/me2, /home/me.old, /srv/home/me."
    )


def test_reading_and_tables_need_no_torch() -> None:
    heavy = "{'torch', 'pandas', 'matplotlib', 'rich'}"
    code = f"import sys, mmpt_bench.records.store; print(sorted({heavy} & set(sys.modules)))"
    process = python(code)
    assert line_of(process) == "[]"
    assert process.wait() == 0


def test_log_lines_are_json_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        append_jsonl(tmp_path / "a.jsonl", {"step": 1, "loss": 0.5})
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"loss": 0.5, "step": 1}
    assert caplog.text == ""
