"""Files survive kills, full disks and torn lines, and names lead nowhere else."""

from __future__ import annotations

import json
import logging
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmpt_bench.common.errors import MachineError, UntrustedRecord
from mmpt_bench.common.files import append_jsonl, check_name, loads, read_jsonl, scrub, write_atomic
from support.disk import Disk
from support.processes import line_of, python


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


def test_usual_names_are_allowed() -> None:
    for name in ("lora-0123456789abcdef", "mme.jsonl", "x" * 200):
        assert check_name(name) == name


def test_folders_that_only_begin_like_home_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert scrub("in /home/me, /home/me/x, /home/me2, /home/me.old, /srv/home/me.") == (
        "in ~, ~/x, /home/me2, /home/me.old, /srv/home/me."
    )


def test_log_lines_are_json_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        append_jsonl(tmp_path / "a.jsonl", {"step": 1, "loss": 0.5})
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"loss": 0.5, "step": 1}
    assert caplog.text == ""


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "rows.jsonl").write_bytes(b'{"a":1}\n')
    made = Disk(tmp_path, monkeypatch)
    yield made
    made.close()


def test_the_disk_of_these_tests_loses_what_was_not_put_on_it(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "old").write_bytes(b"new")
    (tmp_path / "name").write_bytes(b"new")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"new")
    disk.fail()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old": b"old", "rows.jsonl": b'{"a":1}\n'}


@pytest.mark.parametrize("name", ["old", "another"])
def test_a_written_file_is_whole_after_a_power_failure(name: str, tmp_path: Path, disk: Disk) -> None:
    write_atomic(tmp_path / name, b"whole")
    disk.fail()
    assert (tmp_path / name).read_bytes() == b"whole"


@pytest.mark.parametrize("name", ["rows.jsonl", "others.jsonl"])
def test_appended_rows_are_there_after_a_power_failure(name: str, tmp_path: Path, disk: Disk) -> None:
    before = read_jsonl(tmp_path / name)
    append_jsonl(tmp_path / name, {"a": 2}, {"a": 3})
    disk.fail()
    assert read_jsonl(tmp_path / name) == [*before, {"a": 2}, {"a": 3}]


def test_new_folders_above_a_file_are_there_after_a_power_failure(tmp_path: Path, disk: Disk) -> None:
    write_atomic(tmp_path / "results" / "runs" / "lora-1" / "recipe.yaml", b"whole")
    append_jsonl(tmp_path / "others" / "runs" / "lora-1" / "records.jsonl", {"a": 1})
    disk.fail()
    assert (tmp_path / "results" / "runs" / "lora-1" / "recipe.yaml").read_bytes() == b"whole"
    assert read_jsonl(tmp_path / "others" / "runs" / "lora-1" / "records.jsonl") == [{"a": 1}]


@pytest.mark.parametrize("text", [b'\xef\xbb\xbf{"a": 1}', '\ufeff{"a": 1}', '{"a": 1}'.encode("utf-16")], ids=repr)
def test_a_mark_of_byte_order_is_no_part_of_json(text: str | bytes) -> None:
    assert loads(text) == {"a": 1}


def test_a_folder_in_place_of_a_file_of_rows_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").mkdir()
    with pytest.raises(UntrustedRecord, match=r"records.jsonl` is a folder, where a file should be. Move it away.$"):
        read_jsonl(tmp_path / "records.jsonl")
