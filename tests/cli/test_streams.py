"""Where output goes: a full disk, another encoding, a closed standard error, and escape sequences in what is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench.common.escaping import without_escapes
from support.paths import ROOT
from support.synthetic import failed, keep, recipe, record, samples, store_in, task

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x1b[8mred\u202e\u200b"


def bench(*words: str, cwd: Path, prefix: str = "", **env: str) -> subprocess.CompletedProcess[bytes]:
    """Runs the command line by a shell, whose redirections `prefix` holds."""
    command = f'"{sys.executable}" -m mmpt_bench "$@" {prefix}'
    known = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | env
    return subprocess.run(["bash", "-c", command, "-", *words], cwd=cwd, env=known, capture_output=True, timeout=120)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store = store_in(tmp_path)
    made_by = recipe("lora", 0, {"r": 2, "note": f"–{EVIL}"})
    keep(store, record(store, task("mnist", "MNIST"), samples(20), "1110", made_by))
    keep(store, failed(recipe("lora", 1), f"it broke {EVIL}"))
    return tmp_path


@pytest.mark.parametrize("words", [("ls", "runs"), ("--help",)])
def test_a_full_disk_behind_standard_output_is_one_sentence(results: Path, words: tuple[str, ...]) -> None:
    done = bench(*words, cwd=results, prefix="> /dev/full")
    assert done.returncode == 3
    assert done.stderr.decode().startswith("error: Standard output cannot be written to: No space left on device.")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("words", [("ls", "runs"), ("leaderboard", "--format", "markdown")])
def test_any_encoding_of_standard_output_will_do(results: Path, encoding: str, words: tuple[str, ...]) -> None:
    done = bench(*words, cwd=results, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "lora" in text
    if encoding == "ascii" and words == ("ls", "runs"):
        assert "it broke" in text
    if words[0] == "leaderboard":
        assert ("\\u2013" if encoding == "latin-1" else "-") in text


def test_a_closed_standard_error_takes_nothing_from_the_output_and_gives_no_file_its_number(results: Path) -> None:
    done = bench("ls", "runs", cwd=results, prefix="2>&-")
    assert done.returncode == 0
    assert b"lora" in done.stdout
    code = "from mmpt_bench.cli.streams import open_streams; open_streams(); f = open('x', 'w'); print(f.fileno())"
    said = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{code}" 2>&-'], cwd=results, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert int(said.stdout) > 2


def test_messages_that_cannot_be_written_end_no_command(results: Path) -> None:
    done = bench("ls", "runs", "--out", "nowhere", cwd=results, prefix="2> /dev/full")
    assert (done.returncode, done.stdout) == (0, b"")
    assert bench("show", "nothing", cwd=results, prefix="2> /dev/full").returncode == 2


@pytest.mark.parametrize(
    "words",
    [("ls", "runs"), ("show", "lora-"), ("show", EVIL), ("leaderboard",),
     ("compare", "lora", "vpt"), ("figures",), ("run", "--recipe", EVIL)],
    ids=lambda words: " ".join(words)[:20],
)  # fmt: skip
def test_escape_sequences_of_records_and_names_never_reach_the_terminal(results: Path, words: tuple[str, ...]) -> None:
    runs = sorted(path.name for path in (results / "mmpt-results" / "runs").iterdir())
    done = bench(*(runs[0] if word == "lora-" else word for word in words), cwd=results)
    for stream in (done.stdout, done.stderr):
        text = stream.decode()
        assert not [c for c in text if not c.isprintable() and c not in "\n\t"]
    assert b"Traceback" not in done.stderr


def test_a_name_that_is_too_long_for_a_file_is_refused_and_shown_in_part(tmp_path: Path) -> None:
    long = "x" * 300
    for words in (("ls", "runs", "--out", long), ("run", "--backbone", long), ("run", "--data", long),
                  ("score", "mme", f"{long}.jsonl"), ("run", "--method", "frozen", "--out", "y/" * 2000)):  # fmt: skip
        done = bench(*words, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(b"error: ")
        assert len(done.stderr) < 400


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\tb\nc", "a\tb\nc"), ("\x1b[31mred\x1b[0m", "red"), ("\x1b]8;;http://x\x1b\\link", "link"), ("a\rb\x00", "ab"),
     ("é ✓ 漢", "é ✓ 漢"), ("\x9b2Jx", "x"), ("a\u202eb", "ab"), ("x\x1b", "x")],
)  # fmt: skip
def test_escapes_are_taken_out_of_text(text: str, shown: str) -> None:
    assert without_escapes(text) == shown


def test_progress_shows_no_escapes_of_a_message(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from mmpt_bench.cli.progress import reporting

    with reporting(tmp_path) as reporter:
        made: Any = reporter
        made.said(f"note {EVIL}")
        made.finished(failed(recipe("lora"), EVIL))
    assert "\x1b" not in capsys.readouterr().err
