"""What leaves the results folder: LaTeX for papers, YAML for the Hugging Face hub, and figures for trackers."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mmpt_bench.board.from_records import boards
from mmpt_bench.board.writers.latex import leaderboard_latex
from mmpt_bench.cli.main import cli
from mmpt_bench.common.errors import MachineError, RequestError, UntrustedRecord
from mmpt_bench.common.escaping import latex
from mmpt_bench.data.dataset import Official
from mmpt_bench.data.rows import OTHER_ROWS
from mmpt_bench.evaluation.task import Task
from mmpt_bench.interop import trackers
from mmpt_bench.interop.hub import eval_results, model_index, results_of
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from support.synthetic import failed, keep, recipe, record, samples, store_in, task

COLOURS, POINTS = task("colours", "Colours"), task("points", "R&D_1", points=True)
TASKS = {"colours": COLOURS, "points": POINTS}


def add(store: Store, right: str, method: str = "lora", seed: int = 0, of: Task = COLOURS, **changes: Any) -> None:
    asked = samples(100) if of is COLOURS else samples(40, "existence", per_picture=2)
    keep(store, record(store, of, asked, right, recipe(method, seed), **changes))


def latex_of(store: Store) -> str:
    return leaderboard_latex(boards(store, TASKS, 200)).decode()


def test_latex_is_a_booktabs_table_with_as_many_cells_in_each_line(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for of in TASKS.values():
        add(store, "1110", of=of)
        add(store, "1", "frozen", of=of)
    text = latex_of(store)
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{adjustbox}{max width=\textwidth}",
                 r"\begin{tabular}{lrrrlr}", r"\end{adjustbox}", r"\end{table}"):  # fmt: skip
        assert text.count(rule) == 1
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {5}
    assert r"R\&D\_1" in text
    assert "of 200" in lines[1]
    assert text.count("{") == text.count("}")


def test_latex_bold_is_everything_tied_with_the_best(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed in range(8):
        for method, right in (("lora", "1110"), ("vpt", "1011"), ("prefix", "1010")):
            add(store, right, method, seed)
    by_method = {line.split(" & ")[0]: line for line in latex_of(store).splitlines() if " & " in line}
    assert by_method["lora"].count(r"\textbf{75.0}") == 1
    assert by_method["vpt"].count(r"\textbf{75.0}") == 1
    assert r"\textbf" not in by_method["prefix"]


def test_latex_bold_below_zero_has_a_bold_minus(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1000", "lora")
    text = latex_of(store)
    assert r"\textbf{25.0}" in text
    assert r"\textbf{\boldmath$-50.0$}" in text


def test_latex_says_exploratory_where_all_are_tied(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1", "lora")
    add(store, "10", "vpt")
    text = latex_of(store)
    assert "Exploratory: fewer than 6 seeds, so that no difference is significant" in text
    assert text.count(r"\textbf") == 4


def test_latex_of_hostile_text_begins_nothing() -> None:
    assert latex(r"\input{x}%$&#_~^<>") == (
        r"\textbackslash{}input\{x\}\%\$\&\#\_\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}"
    )
    assert "\n" not in latex("a\n\n\x1b[31mb")


def test_board_without_a_result_makes_no_table(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    keep(store, failed(recipe("lora")))
    assert r"\begin" not in latex_of(store)


def real(**changes: Any) -> Task:
    return task("pope", "POPE", hub="lmms-lab/POPE", revision="4db12766" * 5, config="Full", **changes)


def real_store(folder: Path, origin: str = "`lmms-lab/POPE` at 4db12766 (Full, test)", **changes: Any) -> Store:
    store = store_in(folder)
    changes = {"suite": "real", "dataset": origin} | changes
    keep(store, record(store, real(), samples(100), "1110", recipe("lora"), **changes))
    return store


def test_eval_results_are_read_by_the_hub_library(tmp_path: Path) -> None:
    from huggingface_hub import parse_eval_result_entries

    store, tasks = real_store(tmp_path), {"pope": real()}
    (only,) = parse_eval_result_entries(yaml.safe_load(eval_results(results_of(store, "lora", tasks), tasks)))
    assert (only.dataset_id, only.task_id, only.value) == ("lmms-lab/POPE", "Full", 75.0)
    assert only.dataset_revision == "4db12766" * 5
    assert only.date == "2026-01-01T00:00:00Z"
    assert only.notes is not None
    assert "95 % interval over images" in only.notes
    assert "100 questions" in only.notes


def test_local_copy_claims_no_revision_and_says_so(tmp_path: Path) -> None:
    store, tasks = real_store(tmp_path, "folder `pope` (Full, test)"), {"pope": real()}
    (only,) = yaml.safe_load(eval_results(results_of(store, "lora", tasks), tasks))
    assert "revision" not in only["dataset"]
    assert "data dddddddd (a local copy)" in only["notes"]


@pytest.mark.parametrize(
    "origin", ["`lmms-lab-encoder/POPE` at aaaaaaaa (test)", f"folder `pope` (Full, test), {OTHER_ROWS}"]
)
def test_other_rows_are_never_published_as_the_official_ones(tmp_path: Path, origin: str) -> None:
    store, tasks = real_store(tmp_path, origin), {"pope": real()}
    with pytest.raises(RequestError, match="cannot be published as lmms-lab/POPE"):
        eval_results(results_of(store, "lora", tasks), tasks)


@pytest.mark.parametrize(
    ("suite", "told"),
    [("embedded", "generated miniature of mmpt-bench)"), ("embedded-clean", "of mmpt-bench, clean world)")],
)
def test_generated_miniature_is_never_published_as_the_public_data(suite: str, told: str, tmp_path: Path) -> None:
    store, tasks = real_store(tmp_path, suite=suite), {"pope": real()}
    records = results_of(store, "lora", tasks)
    with pytest.raises(RequestError, match="generated miniature, not lmms-lab/POPE"):
        eval_results(records, tasks)
    (model,) = yaml.safe_load(model_index(records, tasks))["model-index"]
    (result,) = model["results"]
    assert result["dataset"]["type"] == f"mmpt-bench-{suite}-pope"
    assert result["dataset"]["name"].endswith(told)


def test_part_of_a_split_is_never_published_as_the_whole(tmp_path: Path) -> None:
    tasks = {"pope": real(official=Official(9000))}
    with pytest.raises(RequestError, match=r"asked 100 questions, the official split has 9,000"):
        eval_results(results_of(real_store(tmp_path), "lora", tasks), tasks)


def test_model_index_is_read_by_the_hub_library(tmp_path: Path) -> None:
    from huggingface_hub.repocard_data import model_index_to_eval_results

    store, tasks = real_store(tmp_path), {"pope": real()}
    (run,) = {each.run for each in store.records()}
    name, (only,) = model_index_to_eval_results(
        yaml.safe_load(model_index(results_of(store, run, tasks), tasks))["model-index"]
    )
    assert name == run
    assert (only.task_type, only.dataset_type, only.dataset_config) == ("image-text-to-text", "lmms-lab/POPE", "Full")
    assert (only.metric_type, only.metric_value) == ("accuracy", 75.0)


def test_of_two_parse_rules_the_tasks_own_is_exported(tmp_path: Path) -> None:
    store = real_store(tmp_path)
    keep(store, record(store, real(), samples(100), "10", recipe("lora"), suite="real", parse_rule="plain"))
    assert [(r.parse_rule, r.score) for r in results_of(store, "lora", {"pope": real()})] == [("official", 0.75)]
    read_otherwise = real_store(tmp_path / "other", parse_rule="plain")
    (only,) = results_of(read_otherwise, "lora", {"pope": real()})
    assert "parse rule plain" in model_index([only], {"pope": real()})


def test_record_that_contradicts_its_answers_is_not_exported(tmp_path: Path) -> None:
    store, tasks = real_store(tmp_path, score=0.9), {"pope": real()}
    with pytest.raises(UntrustedRecord, match="says that its score"):
        results_of(store, "lora", tasks)


@pytest.mark.parametrize(("name", "said"), [("lorra", "Did you mean|Known"), ("", "It begins 2 names")])
def test_run_that_is_none_or_several_is_refused(tmp_path: Path, name: str, said: str) -> None:
    store = real_store(tmp_path)
    keep(store, record(store, real(), samples(100), "1", recipe("vpt"), suite="real"))
    with pytest.raises(RequestError, match=said):
        results_of(store, name, {"pope": real()})


def test_empty_folder_has_nothing_to_export_and_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"Nothing is recorded in .*`mmpt-bench run --method all` makes something"):
        results_of(store_in(tmp_path), "lora", {"pope": real()})


def test_trial_with_a_limit_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="run it without `--smoke`, `--limit`"):
        results_of(real_store(tmp_path, limit=10), "lora", {"pope": real()})


@pytest.mark.parametrize("form", ["latex", "csv", "markdown", "json", "table"])
def test_leaderboard_prints_each_format(form: str, published_results: Path) -> None:
    done = CliRunner().invoke(cli, ["leaderboard", "--format", form, "--out", str(published_results)])
    assert done.exit_code == 0, done.output
    begins = {"latex": "% Made by", "csv": "setting,suite,", "markdown": "# Leaderboard", "json": "{", "table": ""}[
        form
    ]
    assert done.stdout.startswith(begins)
    if form in ("csv", "markdown"):
        name = {"csv": "leaderboard.csv", "markdown": "leaderboard.md"}[form]
        assert done.stdout == (published_results / name).read_text()


@pytest.fixture(scope="module")
def published_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small board of built-in tasks."""
    from mmpt_bench.evaluation import task_catalog

    store = store_in(tmp_path_factory.mktemp("published"))
    vsr = task_catalog.load_task(task_catalog.task_entries()["vsr"])
    for method, right in (("mmpt", "1"), ("lora", "10")):
        keep(store, record(store, vsr, samples(20), right, recipe(method)))
    return store.root


class Kept:
    """A tracker in memory."""

    made: list[Kept]

    def __init__(self, run: str, config: Mapping[str, Any]) -> None:
        self.run, self.config, self.lines, self.closed = run, config, list[tuple[int, dict[str, float]]](), False
        Kept.made.append(self)

    def log(self, values: Mapping[str, float], step: int) -> None:
        assert not self.closed
        self.lines.append((step, dict(values)))

    def finish(self) -> None:
        self.closed = True


def step(number: int) -> SimpleNamespace:
    return SimpleNamespace(step=number, loss=1.0 / number, rate=0.001, grad_norm=2.0, seconds=0.5, peak_bytes=1)


def followed(store: Store, names: tuple[str, ...], offline: bool = True) -> None:
    """Tells a tracking reporter of two runs: one that trains and is scored, one that fails."""
    good, bad = recipe("lora"), recipe("vpt")
    told: list[int] = []
    with trackers.tracking(
        Reporter(train_step=lambda job, s: told.append(s.step)), names, store.root, offline
    ) as report:
        for number in (1, 2):
            report.train_step(SimpleNamespace(recipe=good), step(number))  # type: ignore[arg-type]
        report.finished(record(store, COLOURS, samples(100), "1110", good))
        report.finished(failed(bad))
    assert told == [1, 2]


def test_trackers_are_told_steps_and_scores_a_run_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Kept.made = []
    monkeypatch.setitem(trackers.STARTERS, "wandb", lambda run, config, folder, offline: Kept(run, config))
    followed(store_in(tmp_path), ("wandb",))
    first, second = Kept.made
    assert first.run == recipe("lora").run_name
    assert first.config["params"] == {"learning_rate": 0.001}
    assert first.config["budget"]["steps"] == 400
    assert [(number, values.get("train/loss")) for number, values in first.lines] == [(1, 1.0), (2, 0.5), (2, None)]
    assert first.lines[-1][1]["colours/accuracy"] == 0.75
    assert second.lines == []
    assert first.closed
    assert second.closed


def test_what_a_tracker_prints_is_no_part_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Talkative(Kept):
        def __init__(self, run: str, config: Mapping[str, Any]) -> None:
            super().__init__(run, config)
            print("created a run")

        def log(self, values: Mapping[str, float], step: int) -> None:
            print("logged")

        def finish(self) -> None:
            print("uploaded")

    Kept.made = []
    monkeypatch.setitem(trackers.STARTERS, "trackio", lambda run, config, folder, offline: Talkative(run, config))
    followed(store_in(tmp_path), ("trackio",))
    said = capsys.readouterr()
    assert said.out == ""
    assert [said.err.count(word) for word in ("created a run", "logged", "uploaded")] == [2, 3, 2]


@pytest.mark.parametrize("variable", ["TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"])
def test_offline_run_is_not_sent_to_a_trackio_elsewhere(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setenv(variable, "owner/space")
    with pytest.raises(RequestError, match=f"`{variable}` sends trackio's runs away"):
        trackers.check_trackers("trackio", offline=True)
    assert trackers.check_trackers("trackio") == ("trackio",)
    assert trackers.check_trackers("tensorboard", offline=True) == ("tensorboard",)


def test_no_tracker_is_the_reporter_itself(tmp_path: Path) -> None:
    plain = Reporter()
    with trackers.tracking(plain, (), tmp_path, offline=False) as report:
        assert report is plain
    assert list(tmp_path.iterdir()) == []


def test_absent_tracker_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"pip install 'mmpt-bench\[trackio\]'"):
        trackers.check_trackers("trackio")


def test_unknown_tracker_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RequestError, match="Did you mean `wandb`"):
        trackers.check_trackers("wandbb")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard"])
def test_tracker_that_is_installed_takes_what_it_is_told(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs `pip install {name}`")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    store = store_in(tmp_path)
    assert trackers.check_trackers(f"{name}, {name}") == (name,)
    followed(store, (name,))
    assert capsys.readouterr().out == ""
    written = [path for path in tmp_path.rglob("*") if path.is_file() and name in str(path.relative_to(tmp_path))]
    assert written
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(store.root / "tracking" / "tensorboard" / recipe("lora").run_name)).Reload()
        assert [each.value for each in events.Scalars("train/loss")] == [1.0, 0.5]
        assert events.Scalars("colours/accuracy")[0].value == 0.75
