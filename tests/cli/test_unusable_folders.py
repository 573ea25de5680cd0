"""Results folders that cannot be read or written: one sentence and its exit code, also for the system's own user."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench.cli.main import main
from support.synthetic import failed, keep, recipe, store_in


def ended(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Returns (exit code, what stands on stderr) of a command."""
    monkeypatch.setattr("sys.argv", ["mmpt-bench", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), capsys.readouterr().err


def made_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the system refuse every new file and folder in a folder, as a read-only mount does for every user."""

    def refusing(call: Any, writes: Any) -> Any:
        def refused(path: Any, *rest: Any, **named: Any) -> Any:
            if str(path).startswith(str(folder)) and writes(*rest):
                raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return call(path, *rest, **named)

        return refused

    monkeypatch.setattr(os, "open", refusing(os.open, lambda flags, *_: flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))
    monkeypatch.setattr(os, "mkdir", refusing(os.mkdir, lambda *_: True))


@pytest.mark.parametrize("command", ["leaderboard", "report"])
def test_a_read_only_folder_is_one_sentence_and_stays_as_it_was(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_in(tmp_path)
    keep(store, failed(recipe()))
    before = {path: path.is_file() and path.read_bytes() for path in store.root.rglob("*")}
    made_read_only(store.root, monkeypatch)
    code, said = ended([command, "--out", str(store.root)], monkeypatch, capsys)
    monkeypatch.undo()
    assert code == 3
    assert "cannot be written: Read-only file system. What was there is whole." in said
    assert (said.count("error:"), "Traceback" in said) == (1, False)
    assert {path: path.is_file() and path.read_bytes() for path in store.root.rglob("*")} == before


def test_a_page_below_a_file_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_in(tmp_path)
    keep(store, failed(recipe()))
    (tmp_path / "file").write_bytes(b"")
    words = ["report", "--out", str(store.root), "--file", str(tmp_path / "file" / "page.html")]
    code, said = ended(words, monkeypatch, capsys)
    assert (code, "Traceback" in said) == (3, False)
    assert "page.html` cannot be written: Not a directory" in said


@pytest.mark.parametrize("place", ["records.jsonl", "learning_rates.json", "runs/{run}/records.jsonl"])
def test_a_folder_in_place_of_a_file_is_one_sentence(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_in(tmp_path)
    keep(store, failed(recipe()))
    keep(store, failed(recipe("vpt")))
    path = store.root / place.format(run=recipe("vpt").run_name)
    path.unlink(missing_ok=True)
    path.mkdir()
    code, said = ended(["leaderboard", "--out", str(store.root)], monkeypatch, capsys)
    assert (code, "Traceback" in said) == (5, False)
    assert f"{path.name}` " in said
    assert "is a folder" in said or "Is a directory" in said
