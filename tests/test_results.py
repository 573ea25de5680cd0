"""What is published in results/ follows from its records: one command makes the same bytes again."""

from __future__ import annotations

import functools
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmpt_bench import api
from mmpt_bench.board.board import Board
from mmpt_bench.board.writers.terminal import leaderboard_tables
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.figures import draw
from support.command import bench
from support.paths import ROOT
from support.studies import study, study_tasks

RESULTS = ROOT / "results"
SOURCES = (
    "records.jsonl", "samples/*.jsonl", "ablations/*.json", "streams/*.json", "streams/routes/*.json",
    "learning_curves.jsonl", "learning_rates.json", "learning_rate_trials.jsonl", "learning_rate_test_scores.jsonl",
    "published.csv", "reruns.md",
)  # fmt: skip
"""What is not made from something else in the folder: `published.csv` is of papers, `reruns.md` of other runs."""
OWN = {"runs", "checkpoints", "tracking", "audit.json", "report.html"}
"""What may lie in a checkout's results and is no part of what is published."""


def files(folder: Path) -> set[str]:
    """Returns the files of a results folder that are published."""
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {name.as_posix() for name in names if name.parts[0] not in OWN}


@pytest.mark.parametrize(
    ("file", "published"),
    [
        ("learning_rate_trials.jsonl", ((17, 14, 0.1), (15, 1, 0.9), (2, 0, 2.1))),
        ("learning_rate_test_scores.jsonl", ((17, 16, 0.1), (15, 1, 0.7), (2, 0, 2.6))),
    ],
)
def test_two_searches_of_one_model_differ_by_what_is_published(file: str, published: Any) -> None:
    scores: dict[str, dict[tuple[float, int], float]] = {}
    for line in (RESULTS / file).read_text().splitlines():
        trial = json.loads(line)
        search = trial["search"]
        is_visual = search["method"] == "mmpt" and search["params"]["text_length"] == 0
        if is_visual or search["method"] == "vpt":
            scores.setdefault(search["method"], {})[trial["rate"], trial["seed"]] = trial["score"]
    assert scores["mmpt"].keys() == scores["vpt"].keys()
    apart = {key: abs(scores["mmpt"][key] - scores["vpt"][key]) for key in scores["vpt"]}
    page = (RESULTS / "reruns.md").read_text()
    for (lowest, highest), expected in zip(((0, 1e-3), (1.7e-3, 6e-3), (1e-2, 1)), published, strict=True):
        found = [difference for (rate, _), difference in apart.items() if lowest <= rate <= highest]
        assert (len(found), found.count(0), round(100 * max(found), 1)) == expected
        assert f" | {expected[1]} | {expected[2]} | " in page


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Returns a folder with what the files of results/ are made from."""
    if (RESULTS / "runs").is_dir():
        pytest.skip("results/ holds runs that may not be published yet: `mmpt-bench leaderboard --publish`")
    top = tmp_path / "results"
    for path in (path for pattern in SOURCES for path in RESULTS.glob(pattern)):
        target = top / path.relative_to(RESULTS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return top


def unlike(remade: Path, *endings: str) -> list[str]:
    """Returns the published files with an ending that another folder lacks or has with other bytes."""
    published = sorted(name for name in files(RESULTS) if name.endswith(endings or ""))
    assert published
    kept = [name for name in published if (remade / name).is_file()]
    return [
        name for name in published if name not in kept or (remade / name).read_bytes() != (RESULTS / name).read_bytes()
    ]


@pytest.mark.slow
def test_published_files_are_made_again_byte_for_byte(sources: Path) -> None:
    bench("leaderboard", "--publish", "--out", "results", cwd=sources.parent)
    assert unlike(sources) == [], "`mmpt-bench leaderboard --publish --out results` makes them anew"


def test_published_tables_are_made_again_byte_for_byte(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are laid out, with the tables behind them, and not rendered."""
    monkeypatch.setattr(draw, "render", lambda *_: b"")
    api.leaderboard(sources, publish=True)
    tables = (".jsonl", ".json", ".csv", ".md")
    assert unlike(sources, *tables) == [], "`mmpt-bench leaderboard --publish --out results` makes them anew"
    assert {name.rpartition(".")[0] for name in files(sources)} <= {name.rpartition(".")[0] for name in files(RESULTS)}


@pytest.mark.slow
def test_publishing_gathers_runs_ablations_searches_and_losses_so_that_the_runs_are_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = study(tmp_path, n_seeds=1)
    monkeypatch.setattr(task_catalog, "built_in_tasks", study_tasks)
    api.leaderboard(store.root, publish=True)
    made = {name: (store.root / name).read_bytes() for name in files(store.root)}
    for name in ("records.jsonl", "learning_curves.jsonl", "leaderboard.md", "ablations/lengths.md",
                 "figures/ablation-curves-lengths.svg", "figures/heat-map-grid.csv", "figures/components-parts.png",
                 "figures/search.pdf", "figures/learning-curves-embedded.svg"):  # fmt: skip
        assert made[name], name
    shutil.rmtree(store.root / "runs")
    for name in made:
        if name.startswith(("figures/", "leaderboard")) or name.endswith((".md", ".csv")):
            (store.root / name).unlink()
    api.leaderboard(store.root, publish=True)
    assert {name: (store.root / name).read_bytes() for name in files(store.root)} == made


def test_the_published_leaderboard_is_printed_anywhere_and_nothing_is_written(tmp_path: Path) -> None:
    said = bench("leaderboard", "--published", "--format", "csv", cwd=tmp_path)
    assert said.stdout.encode() == (RESULTS / "leaderboard.csv").read_bytes()
    assert not any(tmp_path.iterdir())


@functools.cache
def published_boards() -> tuple[Board, ...]:
    return tuple(api.load_results(published=True).boards)


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_published_leaderboard_names_its_methods_and_cuts_nothing_at_any_width(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    for part in leaderboard_tables(published_boards()[:1], width=width)[:2]:
        console.print(part)
    table = console.export_text()
    for whole in (
        "Method",
        "Overall",
        *(["Seeds"] if width > 70 else []),
        "77.9–82.1",
        "15.4 to 21.7",
        "projector",
        "prefix",
        "frozen",
    ):
        assert whole in table, whole
