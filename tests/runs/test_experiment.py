"""Experiments from files: what they may say, where they are wrong, and that the same file runs nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import mmpt_bench as mb
from mmpt_bench.cli.main import cli
from mmpt_bench.methods import method_catalog
from mmpt_bench.runs import new_files
from mmpt_bench.runs.options import Options
from support.paths import ROOT

CODE = "raise SystemExit('it was run')\nMETHOD = None\nTASK = None\n"


def experiment(folder: Path, text: str, **given: Any) -> dict[str, Any]:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return mb.read_experiment(path, **given)


def test_a_file_says_what_options_say(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    whole = experiment(tmp_path, "methods: lora\nbudget: {warmup: 0, max_grad_norm: 2}\n")
    assert [(whole[name], type(whole[name])) for name in ("warmup", "max_grad_norm")] == [(0.0, float), (2.0, float)]
    found = experiment(
        tmp_path,
        "methods:\n  frozen:\n  lora:\n    - {r: 2, alpha: 4}\n    - {learning_rate: 7e-4, train_projector: false}\n"
        "tasks: [vsr, mnist]\nseeds: [0, 3]\nbudget: {steps: 5, batch_size: 2}\ndata: data\nlimit: 4\nout: made\n",
    )
    assert found == {
        "method": "frozen,lora", "tasks": "vsr,mnist", "seeds": [0, 3], "steps": 5, "batch_size": 2, "limit": 4,
        "data": tmp_path / "data", "out": tmp_path / "made",
        "variants": {"lora": [{"r": "2", "alpha": "4"}, {"learning_rate": "0.0007", "train_projector": "false"}]},
    }  # fmt: skip


@pytest.mark.parametrize("methods", ["lora, vpt", "[lora, vpt]", "{lora: , vpt: }", '"lora,vpt"'])
def test_methods_are_a_text_a_list_or_a_mapping(methods: str, tmp_path: Path) -> None:
    assert experiment(tmp_path, f"methods: {methods}\n")["method"].replace(" ", "") == "lora,vpt"


def test_what_is_given_takes_the_place_of_what_the_file_says(tmp_path: Path) -> None:
    text = "methods: {frozen: , lora: {r: 2}}\nseeds: 0\nbackbone: not/there/at/all\nbudget: {steps: 5}\n"
    found = experiment(tmp_path, text, method=["lora"], tasks="vsr", seeds="1", backbone="embedded", set=("lora.r=8",))
    assert found == {
        "method": "lora", "tasks": "vsr", "variants": {"lora": [{"r": "2"}]}, "steps": 5, "seeds": "1",
        "backbone": "embedded", "set": ("lora.r=8",),
    }  # fmt: skip
    (row,) = mb.plan(**found, out=tmp_path / "none", limit=2).runs
    assert (row["label"], row["seed"]) == ("lora", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metods: [lora]", r"line 1, column 1: There is no key `metods`. Did you mean `methods`"),
        ("tasks: mme\nsteps: 3", r"line 2, column 1: `steps` stands under `budget`"),
        ("budget:\n  stepz: 3", r"line 2, column 3: There is no key `stepz`. Did you mean `steps`"),
        ("budget:\n  batch_size: many", r"line 2, column 3: `batch_size` is 'many', which is not a whole number"),
        ("budget:\n  warmup: 10", r"line 2, column 3: `warmup` is 10: a share from 0 to 1"),
        ("budget:\n  weight_decay: many", r"line 2, column 3: `weight_decay` is 'many', which is not a number"),
        ("budget:\n  steps: 0", r"line 2, column 3: `steps` is 0: a number from 1"),
        ("methods:\n  - lora\n  - vtp", r"line 3, column 5: There is no method `vtp`. Did you mean `vpt`"),
        ("methods:\n  lora:\n    - {r: 2}\n    - {rr: 2}", r"line 4, column 8: There is no field `rr`"),
        ("methods:\n  lora:\n    r: two", r"line 3, column 5: `r=two` is not a value of type int"),
        ("methods: {lora: {learning_rate: .nan}}", r"line 1, column 18: .*not a finite number"),
        ("methods: {lora: {r: 2020-01-01}}", r"line 1, column 18: `r` is '2020-01-01', which is no value"),
        ("methods: {lora: [{r: 2}, {r: 2}]}", r"line 1, column 26: `lora` has this variant twice"),
        ("methods: {lora: 4}", r"line 1, column 11: `lora` holds its hyperparameters"),
        ("methods: 4", r"line 1, column 1: `methods` is a list of names"),
        ("tasks: [mme, poep]", r"line 1, column 14: There is no task `poep`. Did you mean `pope`"),
        ("tasks: []", r"line 1, column 1: `tasks` is a list of names"),
        ("limit: 2\nseeds: [0, 0]", r"line 2, column 1: `seeds 0,0`"),
        ("seeds: [0, a]", r"line 1, column 1: `seeds` holds 'a' and is a list of whole numbers"),
        ("limit: 0", r"line 1, column 1: `limit 0`: 1 or more"),
        ("limit: true", r"line 1, column 1: `limit` is true, which is not a whole number or null"),
        ("answers:", r"line 1, column 1: `answers` is null, which is not text"),
        ("answers: 3", r"line 1, column 1: `answers` is 3, which is not text"),
        ("answers: [parquet]", r"line 1, column 1: `answers` is \[parquet\], which is not text"),
        ("data: nowhere", r"line 1, column 1: There is no folder or file `.*nowhere`"),
        ("limit: 2\ndtype: float3", r"line 2, column 1: There is no dtype `float3`. Did you mean `float32`"),
        ("parse: oficial", r"line 1, column 1: There is no parse rule `oficial`. Did you mean `official`"),
        ("tasks: vsr\ndataset: {vsr: rondom}", r"line 2, column 1: `dataset vsr=rondom` is of real data"),
        ("backbone: nope", r"line 1, column 1: There is no backbone `nope`"),
        ("methods: [lora\ntasks: 1", r"line 2, column"),
        ("methods: &a [lora]\ntasks: *a", r"line 2, column 8: aliases are not allowed"),
        ("? [a]\n: b", r"line 1, column 3: a key is no text"),
        ("", "it holds no fields"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line_and_column(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(mb.RequestError, match=rf"`.*experiment\.yaml` is no experiment.*{message}"):
        experiment(tmp_path, text)


def test_a_file_that_is_not_there_is_told_from_a_method(tmp_path: Path) -> None:
    with pytest.raises(mb.RequestError, match=r"no experiment `lora`.*`mmpt-bench new experiment`.*`--method`"):
        mb.read_experiment("lora")
    with pytest.raises(mb.RequestError, match="cannot be read: Is a directory"):
        mb.read_experiment(tmp_path)


def test_a_fault_of_what_is_given_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(mb.RequestError, match=r"^There is no dtype `float3`"):
        experiment(tmp_path, "limit: 2\n", dtype="float3")


@pytest.mark.parametrize("key", ["methods", "tasks"])
def test_python_files_run_only_where_the_command_names_them(key: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    text = f"{key}: [./mine.py]\n"
    with pytest.raises(mb.RequestError, match=r"line 1, column .*is Python code, which runs only where the command"):
        experiment(tmp_path, text)
    if key == "methods":
        # It is not run where the command chooses other methods either.
        assert experiment(tmp_path, text, method="lora")["method"] == "lora"


@pytest.mark.parametrize(
    "text",
    ["methods: ['mine.py,lora']", "methods: ['mine.py ']", "methods: {'mine.py,lora': {r: 2}}", "methods: mine.py",
     "tasks: ['mine.py,mme']", "tasks: ['mme', ' mine.py']", "tasks: mine.py, mme", "train_data: task:./mine.py",
     "train_data: 'task:mine.py,'", "train_data: 'task: mine.py'"],
)  # fmt: skip
def test_no_way_of_writing_it_makes_an_experiment_run_a_file(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("raise SystemExit('it was run')\nMETHOD = Mine\nTASK = 1\n")
    with pytest.raises(mb.RequestError, match="is no experiment, line 1"):
        experiment(tmp_path, text)


def test_a_named_file_keeps_the_hyperparameters_that_the_experiment_gives_it(tmp_path: Path) -> None:
    mine = mb.new("method", "mine", tmp_path)
    found = experiment(tmp_path, "methods:\n  frozen:\n  ./mine.py: {learning_rate: 1e-2}\n", method=f"frozen,{mine}")
    assert found["variants"] == {"mine": [{"learning_rate": "0.01"}]}


def test_variants_are_runs_of_their_own_and_the_same_file_runs_nothing_twice(tmp_path: Path) -> None:
    text = (
        "methods:\n  frozen:\n  projector:\n    - {learning_rate: 1e-3}\n    - {learning_rate: 1e-2}\n"
        "tasks: [mnist]\nbudget: {steps: 1, batch_size: 2}\nlimit: 4\nout: made\noffline: true\n"
    )
    first = mb.run(**experiment(tmp_path, text))
    assert [(r.method, r.params.get("learning_rate")) for r in first.made] == [
        ("frozen", first.made[0].params.get("learning_rate")), ("projector", 1e-3), ("projector", 1e-2),
    ]  # fmt: skip
    assert {row.label for row in first.boards[0].rows if row.method == "projector"} == {
        "projector (learning_rate=0.001)", "projector (learning_rate=0.01)",
    }  # fmt: skip
    assert mb.run(**experiment(tmp_path, text)).made == ()
    # By the options of the command, one of them is the same run.
    options: Any = {"steps": 1, "batch_size": 2, "limit": 4, "offline": True, "set": {"learning_rate": 1e-2}}
    assert mb.run("projector", "mnist", out=tmp_path / "made", **options).made == ()
    labels = [row["label"] for row in mb.plan(**experiment(tmp_path, text)).runs]
    assert labels == ["frozen", "projector (learning_rate=0.001)", "projector (learning_rate=0.01)"]


def test_variants_are_for_runs_alone() -> None:
    options: Any = {"variants": {"lora": [{"r": 2}]}}
    with pytest.raises(mb.RequestError, match="`variants` are for `run`"):
        mb.ablate("lora", "mme", axes={"lr": "1e-3,1e-2"}, **options)
    with pytest.raises(mb.RequestError, match="There is no method `lorra`"):
        mb.plan("lora", "mme", variants={"lorra": [{}]})
    with pytest.raises(mb.RequestError, match="There is no field `rr`"):
        mb.plan("lora", "mme", variants={"lora": [{"rr": 1}]})


def test_the_written_experiment_names_every_key_and_can_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = CliRunner().invoke(cli, ["new", "experiment", "mine"])
    assert written.stdout == "mine.yaml\n"
    text = (tmp_path / "mine.yaml").read_text()
    assert "mmpt-bench run mine.yaml --plan" in text
    known = set(Options.__annotations__) - {"set", "variants"}
    assert [name for name in sorted(known) if f"{name}:" not in text] == []
    done = CliRunner().invoke(cli, ["run", "mine.yaml", "--plan", "--seeds", "0,1", "--limit", "2"])
    assert done.exit_code == 0, done.output
    for label in ("lora (r=2, alpha=4)", "lora (r=16, alpha=32)"):
        assert label in done.output
    assert not (tmp_path / "mmpt-results").exists()


@pytest.mark.parametrize("kind", ["task", pytest.param("method", marks=pytest.mark.slow)])
def test_the_written_task_and_method_pass_the_conformance_suite(kind: str, tmp_path: Path) -> None:
    path = mb.new(kind, "mine", tmp_path)
    assert "template" not in path.read_text().replace("_template", "").lower().replace('f"template/', "")
    results = mb.check(path)
    assert len(results) > 5
    assert [result for result in results if not result.ok] == []


@pytest.mark.parametrize("of", new_files.TASKS)
def test_a_task_of_each_kind_passes_the_conformance_suite(of: str, tmp_path: Path) -> None:
    if of == "caption":
        pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")
    path = mb.new("task", "mine", tmp_path, of)
    text = path.read_text()
    assert 'name="mine"' in text
    assert 'title="Mine"' in text
    assert "example" not in text
    assert [result for result in mb.check(path) if not result.ok] == []


def test_kinds_of_tasks_that_there_are_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(mb.RequestError, match=r"no kind of task `opne`. Did you mean `open`"):
        mb.new("task", "mine", tmp_path, "opne")
    with pytest.raises(mb.RequestError, match="no kind of method `open`"):
        mb.new("method", "mine", tmp_path, "open")
    with pytest.raises(mb.RequestError, match="`--kind` is for tasks and methods"):
        mb.new("experiment", "mine", tmp_path, "open")


def test_a_method_of_each_kind_is_one_by_its_new_name(tmp_path: Path) -> None:
    for of in new_files.METHODS:
        path = mb.new("method", f"my_{of}", tmp_path, of)
        assert path.read_text().startswith(f'"""My {of}: a method to begin with.\n\n')
        (entry,) = method_catalog.find_methods(str(path))
        assert method_catalog.load_method(entry)().name == f"my_{of}"


@pytest.mark.slow
@pytest.mark.parametrize("of", new_files.METHODS)
def test_a_method_of_each_kind_passes_the_conformance_suite_and_runs(of: str, tmp_path: Path) -> None:
    path = mb.new("method", "mine", tmp_path, of)
    assert max(map(len, path.read_text().splitlines())) <= 120
    results = mb.check(path)
    assert [result for result in results if not result.ok] == []
    said = {result.name: result.detail for result in results}
    if of == "objective":
        assert "terms distance, entropy" in said.values()
        assert "1 with settings of their own" in said.values()
    made = mb.run(str(path), "mnist", steps=2, batch_size=2, limit=4, out=tmp_path / "out", offline=True)
    assert [(record.method, record.status) for record in made.records] == [("mine", "ok")]


def test_templates_are_changed_wherever_they_speak_of_themselves() -> None:
    for kind in ("task", "method"):
        text = new_files._text(kind, "mine")
        assert text.startswith('"""Mine: ')
        assert "<name>" not in text
        assert "Copy this file" not in text
        assert text != (ROOT / ("tasks" if kind == "task" else "baselines") / "_template.py").read_text()


def test_nothing_is_overwritten_and_names_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = mb.new("task", "mine", tmp_path)
    path.write_text("kept")
    for name, message in (
        ("mine", "is there already"), ("mme", "is a built-in task"), ("1st", "cannot be the name"),
        ("../out", "cannot be the name"), ("mi-ne", "cannot be the name"),
    ):  # fmt: skip
        with pytest.raises(mb.RequestError, match=message):
            mb.new("task", name, tmp_path)
    assert path.read_text() == "kept"
    for name, message in (("Mine", "small letters"), ("all", "stands for every built-in method")):
        with pytest.raises(mb.RequestError, match=message):
            mb.new("method", name, tmp_path)
    with pytest.raises(mb.RequestError, match=r"There is no kind of file `metod`. Did you mean `method`"):
        mb.new("metod", into=tmp_path)
    with pytest.raises(mb.RequestError, match="cannot be written: No such file"):
        mb.new("experiment", into=tmp_path / "nowhere")
    assert mb.new("experiment", "two-words.yaml", tmp_path).name == "two-words.yaml"


def test_what_is_one_run_cannot_stand_beside_an_experiment(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("methods: [lora]\n")
    for words in (["--recipe", "r.yaml"], ["--adapter", "a"], ["--measure-costs"]):
        done = CliRunner().invoke(cli, ["run", str(tmp_path / "e.yaml"), *words])
        assert isinstance(done.exception, mb.RequestError)
        assert "an experiment's file do not go together" in str(done.exception)
