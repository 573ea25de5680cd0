"""What is asked wrongly: one sentence, what helps, an exit code, no traceback; and nothing loaded or made before it."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmpt_bench.cli.main import main, parted
from mmpt_bench.common.hashing import canonical_json
from mmpt_bench.records.repair import repair
from mmpt_bench.records.run_folder import RECORDS
from mmpt_bench.records.store import Store
from mmpt_bench.sources.weights import EMBEDDED, backbone_folder
from support.studies import add, recipe
from support.synthetic import store_in

Ended = tuple[int, str, str]
Bench = Callable[[str], Ended]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Bench:
    """Returns the command line in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(line: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["mmpt-bench", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


WRONG = [
    (
        "run --max-length 3 --train-data task:mnist --plan",
        2,
        "`--max-length 3`: 2,400 examples of `mnist train`",
        "raise",
    ),
    ("run --tasks vsr --dataset vsr=random --plan", 2, "`--dataset vsr=random` is of real data", "`--data`"),
    ("run --workers two --plan", 2, "`--workers two`", "1 to 512, `ray`, `ray://HOST` or `slurm`"),
    ("run --workers 2 --measure-costs --plan", 2, "--workers", "--measure-costs"),
    ("run --protocol m2pt", 2, "`--protocol m2pt` is a command of its own", "`mmpt-bench protocol m2pt`"),
    ("run --protocol m2pp", 2, "There is no protocol `m2pp`", "`m2pt`"),
    ("run --family mine --plan", 2, "There is no file `mine`", "family"),
    ("ablate --prompt-len 5 --family mine", 2, "There is no file `mine`", "family"),
    ("tune --family mine --plan", 2, "There is no file `mine`", "family"),
    ("stream --order mnist,vsr --family mine", 2, "There is no file `mine`", "family"),
    ("explain mmpt --family mine", 2, "There is no file `mine`", "family"),
    ("check nofile.py --family mine", 2, "There is no file `mine`", "family"),
    ("show lora --family mine", 2, "There is no file `mine`", "family"),
    ("run --method lora --init-from '' --plan", 2, "`--init-from` is empty", "leave it out"),
    ("run --method lora --meta '' --plan", 2, "`--meta` is empty", "leave it out"),
    ("stream --monitor ' ' --plan", 2, "`--monitor` is empty", "leave it out"),
    ("run --device cuda", 3, "no device `cuda` here", "write `cpu`"),
    ("run --device cuda:7 --plan", 3, "no device `cuda:7` here", "write `cpu`"),
    ("run --device gpu", 2, "no device `gpu`", "An NVIDIA GPU is `cuda`"),
    ("run --device cuda:", 2, "no device `cuda:`", "`cuda`"),
    ("run --device meta", 2, "no device `meta`", "cpu"),
    ("run --set learning_rate=-1", 2, "`learning_rate` -1", "above 0"),
    ("run --set learning_rate=nan", 2, "`learning_rate=nan`", "finite"),
    ("run --set learning_rate=inf", 2, "`learning_rate=inf`", "finite"),
    ("run --set learning_rate=0", 2, "`learning_rate` 0", "above 0"),
    ("ablate --lr=-1,1e-3", 2, "--lr -1,1e-3", "above 0"),
    ("ablate --lr nan", 2, "--lr nan", "above 0"),
    ("ablate --lr inf", 2, "`inf`", "number"),
    ("tune --grid nan,1", 2, "--grid nan,1", "3e-5,3e-2"),
    ("tune --grid 0,1e-2", 2, "--grid 0,0.01", "3e-5,3e-2"),
    ("run --eval-batch-size 0", 2, "--eval-batch-size", "from 1"),
    ("run --batch-size 20001", 2, "more than the 20,000 examples", "Write 20000 or less"),
    ("run --seeds 7-0", 2, "--seeds 7-0", "as in `0-7`"),
    ("run --smoke --limit 3", 2, "--limit", "do not go together"),
    ("run --method mmtp", 2, "no method `mmtp`", "Did you mean `mmpt`"),
    ("run --data notes.txt", 2, "line 1 is plain text", "docs/data.md"),
    ("run --adapter .", 2, "no adapter in `.`", "adapter_config.json"),
    ("show nosuch", 2, "no task, method, backbone or run `nosuch`", "mmpt-bench ls"),
    ("show mmptt", 2, "`mmptt`", "Did you mean `mmpt`"),
    ("figures --out missing", 2, "Nothing is recorded in `missing`", "mmpt-bench run"),
    ("leaderboard --out missing", 2, "no records in `missing`", "mmpt-bench run"),
    ("compare mmpt lora --out 'my results'", 2, "Nothing is recorded in `my results`", "--out 'my results'"),
    ("compare mmpt", 2, "two methods", "mmpt-bench compare"),
    ("report --out missing", 2, "no results folder `missing`", "mmpt-bench run"),
    ("score mee notes.txt", 2, "no task `mee`", "Did you mean `mme`"),
    ("check nofile.py", 2, "no file `nofile.py`", "check"),
    ("report --out notes.txt", 2, "notes.txt` is a file", "`--file` the page"),
    ("run --plan --out notes.txt", 2, "notes.txt` is a file", "`--out`"),
    (f"run --method {'x' * 300}", 2, "x…x", "mmpt-bench ls methods"),
]


@pytest.mark.parametrize(("line", "code", "what", "helps"), WRONG, ids=[line for line, *_ in WRONG])
def test_a_wrong_request_is_one_short_sentence_and_what_helps(
    bench: Bench, tmp_path: Path, line: str, code: int, what: str, helps: str
) -> None:
    if "cuda" in line and code == 3:
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device here")
    (tmp_path / "notes.txt").write_text("Some notes.\nNo rows.\n")
    ended, out, err = bench(line)
    assert (ended, out) == (code, "")
    error = err[err.index("error: ") :]
    assert what in error
    assert helps in error
    assert all(len(each) <= 200 for each in error.splitlines())
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_check_says_what_checks_an_experiment(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("tasks: mme\n")
    code, _, err = bench("check mine.yaml")
    assert code == 2
    assert "no Python file" in err
    assert "mmpt-bench run mine.yaml --plan" in err


def test_a_message_is_cut_at_its_first_sentence_and_never_inside_a_value() -> None:
    assert parted("There is no task `a. B`. Did you mean `c`?") == ("There is no task `a. B`.", "Did you mean `c`?")
    assert parted("Above 0.") == ("Above 0.", "")
    assert parted("It is 1.5 or more") == ("It is 1.5 or more", "")


def test_what_is_none_of_them_lists_all_kinds(bench: Bench) -> None:
    _, _, err = bench("show nosuch")
    for line in ("tasks: ", "methods: frozen, projector, mmpt", "backbones: embedded", "runs: none yet"):
        assert line in err
    code, out, _ = bench("show embedded")
    assert code == 0
    assert "kind: backbone" in out
    assert "parameters: 4,2" in out


def test_a_device_that_is_there_is_no_error(bench: Bench) -> None:
    code, out, _ = bench("run --device cpu --plan --method frozen --tasks mnist")
    assert code == 0
    assert "frozen: evaluate mnist (does not train)" in out
    assert "learning rate 0" not in out


def test_a_first_plan_says_by_what_its_time_is_estimated(bench: Bench, tmp_path: Path) -> None:
    _, out, _ = bench("run --plan --method lora --tasks mnist")
    assert "frozen: evaluate mnist" in out
    assert "lora seed 0: train, evaluate mnist" in out
    assert "by the package's own measurements on another machine" in out
    shutil.copytree(backbone_folder(EMBEDDED), tmp_path / "other")
    (tmp_path / "other" / "generation_config.json").write_text('{"max_length": 30}')
    _, out, _ = bench("run --plan --method frozen --tasks mnist --backbone other --data other")
    assert "How long" not in out or "not known" in out


def test_a_plan_and_lists_are_wrapped_at_the_width_of_the_terminal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        for line in ("run --plan --method all --tasks mnist", "ls tasks", "ls methods", "show mmpt"):
            _, out, _ = bench(line)
            assert max(map(len, out.splitlines())) <= width, line


def damaged(folder: Path) -> tuple[Store, Path, list[bytes]]:
    """Returns a results folder of which a run's records are damaged in line 1 and edited in line 3."""
    store = store_in(folder)
    for name in ("mme", "pope", "mnist"):
        add(store, recipe("lora", 0), 0.7, [name])
    (path,) = store.path("runs").glob(f"*/{RECORDS}")
    lines = path.read_bytes().splitlines(keepends=True)
    edited = json.loads(lines[2]) | {"score": 1.0}
    broken = [b'{"eval_key": \n', lines[1], (canonical_json(edited) + "\n").encode()]
    path.write_bytes(b"".join(broken))
    return store, path, broken


def test_damaged_lines_are_set_aside_and_a_copy_is_kept(tmp_path: Path) -> None:
    store, path, broken = damaged(tmp_path)
    (done,) = repair(store)
    assert done.lines == (1, 3)
    assert path.read_bytes() == broken[1]
    assert done.copy.read_bytes() == b"".join(broken)
    assert done.aside.read_bytes() == broken[0] + broken[2]
    assert [record.task for record in store.records()] == ["pope"]
    assert list(repair(store)) == []
    # A second repair takes nothing from the first.
    path.write_bytes(b"no JSON\n" + broken[1])
    (again,) = repair(store)
    assert done.copy.read_bytes() == b"".join(broken)
    assert again.copy != done.copy


def test_a_last_line_without_its_end_is_not_set_aside(tmp_path: Path) -> None:
    store, path, broken = damaged(tmp_path)
    path.write_bytes(broken[1] + b'{"eval_key": "x')
    assert list(repair(store)) == []
    assert len(store.records()) == 1


def test_a_damaged_record_names_the_command_that_repairs_it_and_doctor_alone_changes_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    store, _, _ = damaged(tmp_path / "my results")
    out_option = "--out 'my results/mmpt-results'"
    code, _, err = bench(f"leaderboard {out_option}")
    assert code == 5
    assert "Line 1 of" in err
    assert f"`mmpt-bench doctor --repair {out_option}` sets that line aside" in err
    before = {each: each.stat().st_mtime_ns for each in tmp_path.rglob("*") if each.is_file()}
    code, out, _ = bench(f"doctor {out_option}")
    assert code == 3
    assert "doctor --repair" in out
    assert {each: each.stat().st_mtime_ns for each in tmp_path.rglob("*") if each.is_file()} == before
    code, out, err = bench(f"doctor --repair {out_option}")
    assert "lines 1, 3 set aside in `records.damaged.jsonl`" in err
    assert "1 record\n" in out
    assert len(store.records()) == 1
    _, _, err = bench(f"doctor --repair {out_option}")
    assert "Nothing to repair" in err
    bench("doctor --out nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_an_ascii_terminal_gets_signs_that_it_has() -> None:
    import io

    from mmpt_bench.cli.streams import Stream

    inner = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream = Stream(inner, is_data=True)
    stream.write("1.0–2.5 − 3 … † × ≥ é\n")
    assert inner.buffer.getvalue() == b"1.0-2.5 - 3 . * x > \\xe9\n"  # type: ignore[attr-defined]


def test_the_list_of_commands_cuts_no_summary(bench: Bench) -> None:
    _, out, _ = bench("--help")
    assert out.count("...") == 1, "that of `COMMAND [ARGS]...`"
    assert "bash_source" in out


def test_a_plan_of_many_runs_has_a_line_for_each_method(bench: Bench) -> None:
    asked = "stream --order mnist,vsr --orders 2 --tasks mnist,vsr --limit 5 --method lora,mmpt,vpt,full --plan"
    _, out, _ = bench(asked)
    # An order has two stages a method, none of which the other order shares.
    assert [line.partition(":")[0] for line in out.splitlines()[2:5]] == [
        "frozen, 1 run",
        "lora, 4 runs",
        "mmpt, 4 runs",
    ]
    assert out.startswith("Trained on mnist train: ")
    assert "Trained on embedded" not in out
    _, listed, _ = bench(f"{asked} --json")
    assert len(json.loads(listed)["runs"]) == 17


def test_a_training_on_a_tasks_split_takes_the_rate_of_a_streams_first_stage(bench: Bench) -> None:
    _, of_run, _ = bench("run --method lora --train-data task:vsr --tasks vsr --no-base --plan --json")
    _, of_stream, _ = bench("stream --order vsr,mnist --method lora --tasks vsr,mnist --plan --json")
    (run,), first = json.loads(of_run)["runs"], json.loads(of_stream)["runs"][1]
    assert run["run"] == first["run"]
    assert run["learning_rate_source"].startswith("searched: dev score")
    assert run["learning_rate_source"].endswith("on other training data")


def test_hours_on_gpus_are_printed_with_a_plan_alone(bench: Bench) -> None:
    _, out, _ = bench("run --plan --method frozen --tasks mnist --gpus 3")
    rows = [line.split() for line in out.splitlines() if "longest evaluation" in line]
    assert [row[0] for row in rows] == ["1", "3", "8", "64", "512"]
    assert (rows[1][3:5], rows[1][-5:]) == (["longest", "evaluation"], [rows[1][5], "(2", "GPUs", "a", "run)"])
    assert "By the package's own measurements" in out
    code, _, error = bench("run --method frozen --tasks mnist --gpus 3")
    assert (code, "are for `--plan`" in error) == (2, True)
    code, _, error = bench("run --plan --method frozen --tasks mnist --tflops 0")
    assert (code, "`--tflops 0`: above 0" in error) == (2, True)
