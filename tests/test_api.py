"""The public functions: they return data, print nothing, and cost nothing before they are used."""

from __future__ import annotations

import ast
import html
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mmpt_bench as mb
from mmpt_bench.embedded import suite
from mmpt_bench.runs.options import Options
from support.paths import ROOT
from support.tiny import save_tiny

QUICK: Any = {"steps": 2, "batch_size": 2, "limit": 4, "offline": True}


def test_importing_the_package_has_no_side_effects_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfinders, known = list(sys.meta_path), set(sys.modules)\n"
        "import mmpt_bench, mmpt_bench.mmpt\n"
        "from mmpt_bench import Dataset, Method, MMPT, Rows, Sample, Task, ablate, compare, load_results, run, score\n"
        "assert sys.meta_path == finders\n"
        "assert not {'torch', 'transformers', 'peft', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    for name in mb.__all__:
        assert getattr(mb, name).__name__ == name
    tree = ast.parse((ROOT / "mmpt_bench" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == set(mb.__all__)
    assert (ROOT / "mmpt_bench" / "py.typed").is_file()
    with pytest.raises(AttributeError, match="nothing"):
        _ = mb.nothing


def test_public_functions_say_what_they_return_take_and_raise_and_show_an_example() -> None:
    for name in mb.__all__:
        made = getattr(mb, name)
        assert inspect.getdoc(made), name
        if inspect.isfunction(made) and made.__module__ in ("mmpt_bench.api", "mmpt_bench.analysis"):
            assert f"mb.{name}(" in made.__doc__, name
            if name != "plan":
                assert "Raises:" in made.__doc__, name
                assert "Args:" in made.__doc__, name


def test_what_a_notebook_shows_is_escaped() -> None:
    from mmpt_bench.board.writers.html import html_table, html_text

    text = "<script>alert(1)</script> & 'x'\x1b[31m"
    shown = "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#x27;x&#x27;"
    assert html_text(text) == f"<p>{shown}</p>"
    assert html_table(text, [text], [[text]]).count(shown) == 3
    assert "<script" not in html_table(text, [text], [[text]])


def test_a_run_returns_what_is_recorded_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[str] = []
    reporter = mb.Reporter(
        planned=lambda plans: events.append(f"planned {len(plans[0].jobs)}"),
        finished=lambda record: events.append(f"finished {record.task}"),
    )
    out = tmp_path / "results"
    results = mb.run(["frozen", "projector"], ["mme", "mnist"], out=out, reporter=reporter, **QUICK)
    assert events == ["planned 2", *["finished mme", "finished mnist"] * 2]
    assert [(record.method, record.task) for record in results.made] == [
        (method, task) for method in ("frozen", "projector") for task in ("mme", "mnist")
    ]
    assert results.failed == ()
    scores = results.scores
    headline = scores[scores.is_headline].set_index(["method", "task"])
    for record in results.made:
        row = headline.loc[record.method, record.task]
        assert row.value == record.score
        assert (row.ci_low, row.ci_high) == record.interval
    assert len(scores) == sum(len(record.values) for record in results.made)
    # The same again does nothing, and the folder alone says the same.
    assert mb.run("frozen,projector", "mme,mnist", out=out, **QUICK).made == ()
    assert mb.load_results(out).scores.equals(scores)
    (board,) = results.boards
    assert {row.method for row in board.rows} == {"frozen", "projector"}
    table = results.leaderboard()
    assert table.variant.tolist() == [row.label for row in board.rows]
    assert table.mnist.tolist() == [row.cells["mnist"].score for row in board.rows]
    assert not (out / "leaderboard.md").exists()
    made = results.write_leaderboard()
    assert made.text("markdown") == (out / "leaderboard.md").read_text()
    for name, whole in (("scores", scores), ("leaderboard", table)):
        kept = pd.read_csv(out / f"{name}.csv")
        assert list(kept.columns) == list(whole.columns)
        assert len(kept) == len(whole)
    assert pd.read_csv(out / "scores.csv").value.tolist() == pytest.approx(scores.value.tolist(), rel=1e-9)
    for row in board.rows:
        assert f"<td>{row.label}</td>" in results._repr_html_() == made._repr_html_()
    assert repr(results) == f"<Results of `{out}`: 2 runs asked for, 4 results made>"
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""


def test_a_plan_and_an_ablation_return_data(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    summary = mb.plan("lora", "mnist", out=tmp_path / "none", set={"lora.r": 4}, seeds=[0, 1], **QUICK)
    assert [(row["seed"], row["train"]) for row in summary.runs] == [(0, True), (1, True)]
    assert not (tmp_path / "none").exists()
    options: Any = {"axes": {"text-len": "1,2"}, "out": tmp_path / "results", **QUICK}
    assert mb.ablate("mmpt", "mnist", only_plan=True, **options).board is None
    made = mb.ablate("mmpt", "mnist", **options)
    assert made.board is not None
    assert [point.label for point, _ in made.board.rows] == made.points == [
        "mmpt (text-len=1)", "mmpt (text-len=2)", "frozen"
    ]  # fmt: skip
    difference = mb.compare("mmpt (text-len=1)", "mmpt (text-len=2)", out=tmp_path / "results")
    assert "mnist" in {each.task for each in difference.contrasts}
    assert repr(difference) == f"<{difference.sentence}>"
    assert difference.table.task.tolist() == [each.task for each in difference.contrasts]
    assert f"<p>{html.escape(difference.sentence)}</p><table>" in difference._repr_html_()
    assert made.table.label.tolist() == made.points
    assert list(made.table.columns) == list(pd.read_csv(made.folder / "ablations" / f"{made.name}.csv").columns)
    assert "<td>mmpt (text-len=1)</td>" in made._repr_html_()
    assert capfd.readouterr().out == ""


def test_a_search_returns_a_choice_a_method_and_keeps_every_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task, n in {"mme": 1, "pope": 2, "vsr": 2, "snli_ve": 2, "cifar10": 10, "mnist": 4}.items():
        monkeypatch.setitem(suite.N_IMAGES, task, n)
    told: list[Any] = []
    options: Any = {"steps": 1, "batch_size": 2, "out": tmp_path, "offline": True}
    chosen: list[Any] = []
    options |= {"told": lambda _, trial: told.append(trial), "chosen": chosen.append}
    (choice,) = made = mb.tune("projector", rounds=[1], grid=(1e-3, 3e-3), **options)
    assert made == chosen
    curve = {point.rate: point.mean for point in choice.curve.points}
    assert {trial.rate: trial.score for trial in told} == curve
    assert len((tmp_path / "learning_rate_trials.jsonl").read_text().splitlines()) == 3


def test_wrong_requests_raise_and_unknown_options_are_named() -> None:
    with pytest.raises(mb.RequestError, match="Did you mean `mmpt`"):
        mb.run("mmtp", "mme")
    with pytest.raises(TypeError, match="there is no option `step`"):
        mb.run("mmpt", "mme", step=3)  # type: ignore[call-arg]
    with pytest.raises(mb.RequestError, match="no results folder"):
        mb.load_results("nowhere")


@pytest.mark.parametrize(
    "given",
    [
        {"limit": np.int64(10), "seeds": np.arange(2), "set": {"lora.r": np.int64(4)}},
        {"limit": 10, "seeds": range(2), "variants": {"lora": [{"r": np.int64(4)}]}},
    ],
)
def test_numbers_of_numpy_are_numbers(given: Any, tmp_path: Path) -> None:
    plain = mb.plan("lora", "mnist", limit=10, seeds=[0, 1], set=["lora.r=4"], out=tmp_path)
    assert [run["run"] for run in mb.plan("lora", "mnist", out=tmp_path, **given).runs] == [
        r["run"] for r in plain.runs
    ]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda out: mb.plan("lora", "mnist", variants={"lora": {"r": 2}}, out=out), "are a list of dictionaries"),
        (lambda out: mb.plan("lora", "mnist", variants=[{"r": 2}], out=out), "maps methods to lists"),
        (lambda out: mb.compare("lora", None, out=out), "`None` is no name of a row or a run"),
        (lambda out: mb.merge("nowhere", out), "There is no results folder `nowhere`"),
    ],
)
def test_what_is_of_another_type_is_refused_by_name(call: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(mb.RequestError, match=said):
        call(tmp_path)


def test_options_are_called_like_those_of_the_command_line() -> None:
    from mmpt_bench.cli.run import run

    named = {name for option in run.params for name in (option.name or "").split() if name not in ("as_json",)}
    # What variants a method has is said in an experiment's file.
    shared = set(Options.__annotations__) - {"variants"}
    assert shared <= named
    own = {"experiment", "method", "tasks", "adapter", "other_base", "recipe", "only_plan", "log_to", "measure_costs"}
    assert named - shared == own | {
        "base", "family", "smoke", "verbosity", "workers", "parallel", "keep_tokens", "prune", "gpus", "tflops",
        "protocol",
    }  # fmt: skip


def test_a_task_that_makes_its_own_rows_runs_on_any_backbone(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text((ROOT / "tasks" / "_template.py").read_text())
    assert all(result.ok for result in mb.check(mine))
    backbone = str(save_tiny(tmp_path / "tiny"))
    for name in ("embedded", backbone):
        made = mb.run("frozen", mine, backbone=name, out=tmp_path / "results", limit=4, offline=True).made
        assert [(record.task, record.dataset) for record in made] == [("mine", "24 plain images")]


def test_plan_says_what_a_backbone_refuses_without_its_weights(tmp_path: Path) -> None:
    from support.newer_families import BUILDERS

    mine, folder = tmp_path / "mine.py", BUILDERS["Idefics2"](tmp_path / "tiny")
    mine.write_text((ROOT / "tasks" / "_template.py").read_text())
    given: dict[str, Any] = {"backbone": str(folder), "out": tmp_path / "results", "limit": 4, "offline": True}
    (told,) = [note for note in mb.plan("mmpt,lora", mine, **given).notes if "cannot run" in note]
    assert told.startswith("mmpt cannot run on this backbone. ")
    assert "learnt queries" in told
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"idefics2"', '"mllama"'))
    (folder / "processor_config.json").unlink()
    with pytest.raises(mb.RequestError, match="cross-attention"):
        mb.plan("lora", mine, **given)


@pytest.mark.parametrize("words", [("-m", "mmpt_bench"), ("-m", "mmpt_bench", "--version")])
def test_the_package_runs_as_a_module(words: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert "mmpt-bench" in done.stdout + done.stderr
