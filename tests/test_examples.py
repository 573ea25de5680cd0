"""The paper's setting is planned from the architecture alone; the notebook's cells run in their order."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmpt_bench.cli.main import cli
from mmpt_bench.evaluation.task_catalog import find_tasks
from mmpt_bench.methods.method_catalog import find_methods
from mmpt_bench.runs.options import Options
from support.paths import ROOT

FOLDER = ROOT / "examples"
CLUSTER = FOLDER / "cluster"


@pytest.fixture(scope="module")
def paper() -> Any:
    spec = importlib.util.spec_from_file_location("paper_example", FOLDER / "paper.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_steps_are_three_epochs(paper: Any) -> None:
    assert paper.steps() == 4_362


def test_plan_counts_what_the_architecture_says(paper: Any) -> None:
    found = paper.plan(str(FOLDER / "llava-7b-linear"), seeds=3, searched=39, tflops=100.0)
    rows = found["methods"]
    assert found["tokens"] == 256 + 120
    assert rows["lora"]["trainable"] == 44_175_360
    # 4,362 steps x 128 examples x 376 tokens x (4 x 6,738,415,616 + 2 x 4,198,400) operations at 1e14 a second.
    training = 4_362 * 128 * 376 * (4 * 6_738_415_616 + 2 * 4_198_400) / 1e14 / 3600
    asking = 50_497 * 376 * 2 * 6_738_415_616 / 1e14 / 3600
    # Each of the 39 trainings of the search answers the 340 + 17,858 questions of two validation splits.
    expected = (3 + 39) * training + 3 * asking + 39 * asking * 18_198 / 50_497
    assert rows["projector"]["hours"] == pytest.approx(expected)
    # MMPT's 10 textual prompts and 20 visual ones are rows of every sequence.
    assert rows["mmpt"]["gib_an_example"] / rows["projector"]["gib_an_example"] == pytest.approx(406 / 376)
    assert rows["frozen"]["hours"] == pytest.approx(asking)
    assert rows["full"]["gib_states"] == pytest.approx((2 * 7_045_793_792 + 6 * 6_742_614_016) / 2**30)


def test_commands_name_every_method_and_the_data(paper: Any) -> None:
    import argparse

    options = argparse.Namespace(
        backbone="B", out=Path("O"), train_images=Path("T"), decontaminate=False, images="coco=C", data=None, seeds=3,
        rounds="1,3", protocol=None, items=Path("I"), judge="J",
    )  # fmt: skip
    tune, run = paper.commands(options)
    assert tune[0] == "tune"
    assert (tune[tune.index("--rounds") + 1], tune[tune.index("--dev-tasks") + 1]) == ("1,3", "vsr,snli_ve")
    assert run[run.index("--seeds") + 1] == "0,1,2"
    assert run[run.index("--images") + 1] == "coco=C"
    options.protocol = "m2pt"
    protocol = paper.commands(options)[2]
    assert protocol[:2] == ["protocol", "m2pt"]
    assert (protocol[protocol.index("--items") + 1], protocol[protocol.index("--judge") + 1]) == ("I", "J")
    # What names a training is the same, so that what `run` trained is found again.
    trained = run[1 : run.index("--tasks")]
    assert protocol[2 : 2 + len(trained)] == trained
    context = cli.commands["protocol"].make_context("protocol", protocol[1:])
    assert context.params["seeds"] == "0,1,2"
    assert run[run.index("--method") + 1] == "frozen,projector,mmpt,vpt,prefix,lora,full"


def notebook_cells() -> list[str]:
    notebook = json.loads((FOLDER / "quickstart.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_committed_without_outputs_and_says_nothing_of_a_machine() -> None:
    notebook = json.loads((FOLDER / "quickstart.ipynb").read_text(encoding="utf-8"))
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    for text in notebook_cells():
        ast.parse(text)


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs_and_shows_what_it_ends_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = []
    for text in notebook_cells():
        tree = ast.parse(text)
        last = tree.body.pop()
        assert isinstance(last, ast.Expr)
        exec(compile(tree, "cell", "exec"), names)
        made = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        shown.append(made._repr_html_() if hasattr(made, "_repr_html_") else repr(made))
    board, leaderboard, scores, sentence, table, ablation, report = shown
    for method in ("frozen", "projector", "mmpt"):
        assert all(method in text for text in (board, leaderboard, scores))
    assert "mmpt" in sentence
    assert "<table" in table
    assert "prompt-len=5" in ablation
    assert report == "'report.html'"
    assert (tmp_path / "quickstart-results" / "report.html").is_file()


def test_lettered_choice_is_a_task_whose_letters_are_right_equally_often() -> None:
    from collections import Counter

    import mmpt_bench as mb
    from mmpt_bench.evaluation.task_catalog import find_tasks, load_task

    path = str(FOLDER / "lettered_choice.py")
    assert all(result.ok for result in mb.check(path))
    task = load_task(find_tasks(path)[0])
    made = task.data.make_rows()
    samples = [task.sample(row, i, made.label_names) for i, row in enumerate(made.rows)]
    assert set(Counter(each.answer for each in samples).values()) == {9}
    assert samples[5].question.startswith("Hint: Dots may be small. How many dots are there? A. two B. three")
    assert samples[5].answer == "A"


@pytest.mark.slow
def test_the_benchmark_for_accelerators_runs_on_a_processor(tmp_path: Path) -> None:
    words = (
        "--size tiny --device cpu --dtype float32 --tasks mme,pope --scale 0.3 --steps 2 --batch-size 4 --json out.json"
    )
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert {"ours", "plain"} <= set(found["evaluation"])
    # In float32, every reply is the plain way's.
    shares = re.findall(r"\((\d+)%\)", done.stdout)
    assert len(shares) >= 6
    assert set(shares) == {"100"}
    for method in ("lora", "mmpt"):
        assert 0 < found["training"][method]["share"] < 1
        assert float(next(line for line in done.stdout.splitlines() if f"| {method} |" in line).split("|")[-2]) < 1e-4


def test_open_answers_is_a_task_that_asks_three_kinds_of_questions() -> None:
    import mmpt_bench as mb
    from mmpt_bench.evaluation.task_catalog import find_tasks, load_task

    path = str(FOLDER / "open_answers.py")
    assert all(result.ok for result in mb.check(path))
    task = load_task(find_tasks(path)[0])
    made = task.data.make_rows()
    samples = [task.sample(row, i, ()) for i, row in enumerate(made.rows)]
    assert {each.group for each in samples} == {"color", "number", "place"}
    assert len({each.cluster for each in samples}) == 60
    assert not any(each.choices for each in samples)
    # Rows from files, as DocVQA has them on the hub: a list of answers, and nothing else.
    row = {"image": made.rows[0]["image"], "question": "What year?", "answers": ["1999", "'99"]}
    read = task.sample(row, 3, ())
    assert (read.accepted, read.answer, read.group) == (("1999", "'99"), "1999", "")


def commands_of(text: str) -> list[list[str]]:
    """Returns the words after each `mmpt-bench run` or `-m mmpt_bench run` of a text."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(r"(?:mmpt-bench|-m mmpt_bench)\s+run (.*?)(?:\"|\n)", joined + "\n")
    return [shlex.split(words) for words in found]


@pytest.mark.parametrize(("name", "share"), [("slurm.sh", "ddp"), ("skypilot.yaml", "ddp"), ("ray.yaml", "")])
def test_commands_for_clusters_are_those_of_the_command_line(name: str, share: str) -> None:
    *_, words = commands_of((CLUSTER / name).read_text(encoding="utf-8"))
    with cli.commands["run"].make_context("run", words) as context:
        assert context.params["parallel"] == share
        assert context.params["workers"] == ("1" if share else "ray")
        made = {name: value for name, value in context.params.items() if name in Options.__annotations__}
    find_methods(context.params["method"])
    find_tasks(context.params["tasks"])
    assert made["backbone"] == ("llava-hf/llava-1.5-7b-hf" if share else "embedded")


def test_files_for_clusters_are_whole() -> None:
    assert subprocess.run(["bash", "-n", str(CLUSTER / "slurm.sh")], check=False).returncode == 0
    ray, sky = (yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8")) for name in ("ray.yaml", "skypilot.yaml"))
    assert ray["head_node_type"] in ray["available_node_types"]
    gpus = sky["resources"]["accelerators"].partition(":")[2]
    assert f"--nproc-per-node {gpus} " in sky["run"]
    assert f"--gpus-per-node={gpus}\n" in (CLUSTER / "slurm.sh").read_text(encoding="utf-8")


def test_several_images_is_a_task_of_pairs_that_one_word_is_right_in_half_of() -> None:
    import mmpt_bench as mb
    from mmpt_bench.evaluation.task_catalog import find_tasks, load_task

    path = str(FOLDER / "several_images.py")
    assert all(result.ok for result in mb.check(path))
    task = load_task(find_tasks(path)[0])
    made = task.data.make_rows()
    samples = [task.sample(row, i, ()) for i, row in enumerate(made.rows)]
    assert [each.answer for each in samples].count("yes") == 36
    assert len({image.key for each in samples for image in each.images}) == 144


def test_a_method_of_one_image_is_refused_before_the_model_loads(tmp_path: Path) -> None:
    from mmpt_bench import api
    from mmpt_bench.common.errors import RequestError

    with pytest.raises(RequestError, match=r"`mmpt` cannot be asked Several images.*interaction=false"):
        api.plan("mmpt", str(FOLDER / "several_images.py"), out=tmp_path / "results")
