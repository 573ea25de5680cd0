"""What `run` asks for beside what was named, and what it says: scores, one sentence, the next command."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path

import click
import pytest

from mmpt_bench.api import plan
from mmpt_bench.board.assembly import Evidence
from mmpt_bench.board.board import Board
from mmpt_bench.board.contrasts import contrasts
from mmpt_bench.board.from_records import evidence
from mmpt_bench.board.writers.terminal import answer, leaderboard_tables
from mmpt_bench.cli.leaderboard import _of_streams
from mmpt_bench.cli.log_file import FILE, MOST_BYTES, logged
from mmpt_bench.cli.main import cli
from mmpt_bench.cli.options import words_again
from mmpt_bench.cli.progress import score_line
from mmpt_bench.cli.run import _next
from mmpt_bench.common.errors import RequestError
from mmpt_bench.mmpt import MMPT
from mmpt_bench.records.store import Store
from mmpt_bench.runs.option_texts import numbered_seeds, seeds_text
from mmpt_bench.runs.requested import requested
from support.paths import ROOT
from support.studies import add, recipe, study_tasks
from support.synthetic import store_in


def of_methods(folder: Path, seeds: dict[str, int], names: tuple[str, ...] = ("mme", "pope")) -> tuple[Store, Evidence]:
    """Returns a results folder with so many seeds of some methods, and its board."""
    store = store_in(folder)
    for method, n in seeds.items():
        for seed in range(n):
            add(store, recipe(method, seed), {"frozen": 0.55, "mmpt": 0.68, "lora": 0.72}[method], names)
    (found,) = evidence(store, study_tasks())
    return store, found


def all_keys(store: Store) -> set[str]:
    return {record.eval_key for record in store.records()}


def printed(board: Board, width: int) -> str:
    from rich.console import Console

    console = Console(width=width, no_color=True)
    with console.capture() as shown:
        for part in leaderboard_tables([board], (), width, by_task=True):
            console.print(part)
    return shown.get()


@pytest.mark.parametrize("n", [1, 3])
def test_changes_from_the_base_are_those_that_a_comparison_finds(tmp_path: Path, n: int) -> None:
    _, found = of_methods(tmp_path, {"frozen": 1, "mmpt": n})
    (row,) = [row for row in found.board.rows if row.label == "mmpt"]
    overall, *by_task = contrasts(found, study_tasks(), [("mmpt", "frozen")])
    assert row.change == pytest.approx(overall.difference.estimate)
    assert row.change_interval == pytest.approx(overall.difference.interval)
    for each in by_task:
        cell = row.cells[each.task]
        assert cell.change == pytest.approx(each.difference.estimate)
        assert cell.change_interval == pytest.approx(each.difference.interval)
    (base,) = [row for row in found.board.rows if row.label == "frozen"]
    assert base.change is None


def test_a_row_without_a_place_has_its_change_too(tmp_path: Path) -> None:
    _, found = of_methods(tmp_path, {"frozen": 1, "lora": 6, "mmpt": 1})
    (row,) = [row for row in found.board.rows if row.label == "mmpt"]
    (pair,) = [each for each in contrasts(found, study_tasks(), [("mmpt", "frozen")]) if len(each.tasks) == 2]
    assert row.overall is None
    assert row.unranked
    assert row.change == pytest.approx(pair.difference.estimate)


def test_one_sentence_says_score_change_interval_and_what_it_rests_on(tmp_path: Path) -> None:
    store, found = of_methods(tmp_path / "one", {"frozen": 1, "mmpt": 1})
    row = next(row for row in found.board.rows if row.label == "mmpt")
    assert row.overall is not None
    assert row.change is not None
    assert row.change_interval is not None
    low, high = row.change_interval
    assert answer(found.board, all_keys(store)) == (
        f"mmpt scores {100 * row.overall:.1f} on MME+POPE, {100 * row.change:.1f} points above the untuned base "
        f"(95 % CI {100 * low:.1f} to {100 * high:.1f}; one seed, exploratory)."
    )
    store, found = of_methods(tmp_path / "task", {"frozen": 1, "mmpt": 2}, ("mme",))
    assert "on MME, " in answer(found.board, all_keys(store))
    assert "; 2 seeds, exploratory)" in answer(found.board, all_keys(store))
    store, found = of_methods(tmp_path / "six", {"frozen": 1, "mmpt": 6})
    assert "after Holm, significantly different)" in answer(found.board, all_keys(store))
    store, found = of_methods(tmp_path / "alone", {"mmpt": 6})
    assert answer(found.board, all_keys(store)).endswith("; 6 seeds).")
    store, found = of_methods(tmp_path / "base", {"frozen": 1})
    assert answer(found.board, all_keys(store)).startswith("frozen scores ")
    assert "untuned base" not in answer(found.board, all_keys(store))
    assert answer(found.board, ()) == ""


def test_the_sentence_names_the_best_of_several_methods_that_were_asked_for(tmp_path: Path) -> None:
    store, found = of_methods(tmp_path, {"frozen": 1, "mmpt": 2, "lora": 2})
    assert answer(found.board, all_keys(store)).startswith("Of 2 tuned methods lora has the highest score: ")
    own = {record.eval_key for record in store.records() if record.method == "mmpt"}
    assert answer(found.board, own).startswith("mmpt scores ")


@pytest.mark.parametrize("width", [80, 120])
def test_tables_say_whether_tuning_helped_and_what_it_cost(tmp_path: Path, width: int) -> None:
    _, found = of_methods(tmp_path, {"frozen": 1, "mmpt": 2, "lora": 2})
    text = printed(found.board, width)
    assert max(map(len, text.splitlines())) <= width
    for header in ("Place", "Method", "Overall", "vs. base", "Cost", "Seeds", "Change from the untuned base by task"):
        assert header in text
    row = next(row for row in found.board.rows if row.label == "mmpt")
    assert row.train_seconds is not None
    assert f"{row.train_seconds:.0f} s" in text
    assert "1 (1" not in text, "no interval of a place that six seeds would be needed for"


def test_a_result_is_one_line_as_soon_as_it_is_there(tmp_path: Path) -> None:
    store, _ = of_methods(tmp_path, {"frozen": 1, "mmpt": 1})
    lines = {(record.method, record.task): (record, score_line(record)) for record in store.records()}
    record, line = lines["mmpt", "mme"]
    low, high = record.interval or (0, 0)
    assert line == f"mmpt seed 0: mme {record.score:.1f} / {record.ceiling:g} (95 % CI {low:.1f} to {high:.1f})"
    record, line = lines["frozen", "pope"]
    assert line.startswith(f"frozen: pope {100 * (record.score or 0):.1f} % (95 % CI ")


@pytest.mark.parametrize(
    ("method", "base", "names"),
    [
        ("mmpt", True, ["frozen", "mmpt"]),
        ("mmpt", False, ["mmpt"]),
        ("frozen", True, ["frozen"]),
        ("lora,frozen", True, ["lora", "frozen"]),
    ],
)
def test_the_untuned_base_is_asked_for_beside_what_is_tuned(method: str, base: bool, names: list[str]) -> None:
    request, _ = requested(method, "mme", (None, False), None, {"seeds": "0-2"}, base)
    assert [entry.name for entry in request.methods] == names


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-7", tuple(range(8))),
        ("0-3,8", (0, 1, 2, 3, 8)),
        ("5", (5,)),
        ("2-2", (2,)),
        ([4, 1], (4, 1)),
        (" 1 , 0", (1, 0)),
    ],
)
def test_ranges_of_seeds(text: str | list[int], seeds: tuple[int, ...]) -> None:
    assert numbered_seeds(text) == seeds
    assert numbered_seeds(seeds_text(seeds)) == tuple(sorted(seeds))


@pytest.mark.parametrize("text", ["", "1,1", "0-3,2", "7-0", "-1", "1-", "a", "0-5000000000", "0-99999999", "1.5"])
def test_what_is_no_range_of_seeds_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RequestError, match="0-7"):
        numbered_seeds(text)


def test_seeds_are_written_short() -> None:
    assert seeds_text([0, 1, 2, 3, 8]) == "0-3,8"
    assert seeds_text([1, 0]) == "0,1"


def context(*words: str) -> click.Context:
    top = click.Context(cli, info_name="python -m mmpt_bench")
    return cli.commands["run"].make_context("run", list(words), parent=top)


def test_a_command_is_repeated_as_it_was_typed_and_quoted_for_the_shell() -> None:
    words = [
        "--method",
        "lora",
        "--set",
        "lora.r=8",
        "--set",
        "alpha=2",
        "--out",
        "my results",
        "--limit",
        "30",
        "--no-guard",
    ]
    again = words_again(context(*words), ("limit",), seeds="0-5")
    assert again[:2] == ["mmpt-bench", "run"]
    line = shlex.join(again)
    for part in ("--method lora", "--set lora.r=8 --set alpha=2", "--out 'my results'", "--seeds 0-5", "--no-guard"):
        assert part in line
    assert "limit" not in line
    assert "base" not in line, "what was not typed is not said"
    assert context(*again[2:]).params["set"] == ("lora.r=8", "alpha=2")
    assert words_again(context("-q", "--json")) == ["mmpt-bench", "run", "--json", "-q"]
    assert words_again(context("-v")) == ["mmpt-bench", "run", "-v"]


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (["--method", "lora", "--set", "r=8", "--backbone", "my model", "--data", "d"],
         "mmpt-bench run --method all --backbone 'my model' --data d --set lora.r=8"),
        (["--method", "./mine.py", "--out", "o"], "mmpt-bench run --method all,./mine.py --out o"),
        (["--method", "all", "--seeds", "0,1", "--limit", "30"], "mmpt-bench run --method all --seeds 0-5 --limit 30"),
        (["--method", "lora,vpt", "--seeds", "7"], "mmpt-bench run --method lora,vpt --seeds 0-4,7"),
        (["--method", "all", "--seeds", "0-5", "--out", "a b"], "mmpt-bench report --out 'a b'"),
        (["--smoke", "--out", "o"], "mmpt-bench run --out o"),
    ],
)  # fmt: skip
def test_the_next_command_repeats_the_users_own_options(words: list[str], last: str) -> None:
    made = context(*words)
    told = _next(made, made.params)[-1].strip()
    assert told == last
    context(*shlex.split(told)[2:]) if " run " in told else None


def _ends_with(error: Exception, folder: Path) -> None:
    with logged(folder) as log:
        log.begin("mmpt-bench run")
        raise error


def test_the_log_has_a_line_an_event_is_bounded_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwxyz")
    before = logging.getLogger("mmpt_bench").handlers[:]
    with logged(tmp_path) as log:
        log.tell("before anything is planned")
        assert not (tmp_path / FILE).exists()
        log.begin("mmpt-bench run --backbone https://me:secret@host")
        log.tell("two\nlines, hf_abcdefghijklmnopqrstuvwxyz")
        logging.getLogger("mmpt_bench.records.store").warning("a stray folder")
    lines = (tmp_path / FILE).read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "INFO mmpt-bench run --backbone https://***@host", "INFO two lines, ***", "WARNING a stray folder", "INFO done",
    ]  # fmt: skip
    assert capsys.readouterr().err == "a stray folder\n"
    with pytest.raises(RequestError):
        _ends_with(RequestError("it is wrong"), tmp_path)
    assert (tmp_path / FILE).read_text().splitlines()[-1].endswith("ERROR RequestError: it is wrong")
    with logged(tmp_path) as log:
        log.begin("again")
        for _ in range(600):
            log.tell("x" * 3900)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [FILE, f"{FILE}.1"]
    assert all(path.stat().st_size <= MOST_BYTES for path in tmp_path.iterdir())
    assert logging.getLogger("mmpt_bench").handlers == before


def test_a_leaderboard_says_where_the_runs_of_streams_stand(tmp_path: Path) -> None:
    assert _of_streams(tmp_path) == ""
    (tmp_path / "streams").mkdir()
    training = {"label": "lora", "strategy": "sequential", "order": ["mnist", "vsr"], "seed": 0, "runs": ["a", "b"]}
    stream = {
        "name": "s", "stream": ["mnist", "vsr"], "tasks": ["mnist", "vsr"], "base": "f", "results": {}, "limit": None,
        "trainings": [training], "command": "",
    }  # fmt: skip
    (tmp_path / "streams" / "s.json").write_text(json.dumps(stream))
    assert _of_streams(tmp_path) == "2 runs stand in the tables of streams: streams/s.md."


def test_none_is_called_the_highest_where_a_method_lacks_a_task(tmp_path: Path) -> None:
    of_methods(tmp_path, {"frozen": 1, "mmpt": 1})
    store, found = of_methods(tmp_path, {"lora": 1}, ("mme",))
    told = answer(found.board, all_keys(store))
    assert told.startswith("Not all of these methods have a place (lora: lacks pope)")
    assert "highest score" not in told


@pytest.mark.slow
def test_show_prints_the_learning_rate_that_run_takes_beside_the_default(tmp_path: Path) -> None:
    from click.testing import CliRunner

    def shown(*words: str) -> dict[str, object]:
        result = CliRunner().invoke(cli, ["show", *words, "--out", str(tmp_path), "--json"], catch_exceptions=False)
        return json.loads(result.stdout)

    rates = shown("mmpt")["learning_rates_used_by_run"]
    (planned,) = [row for row in plan("mmpt", ["pope"], out=tmp_path).runs if row["method"] == "mmpt"]
    assert rates == {
        "where_no_search_fits": MMPT().learning_rate,
        "on_embedded": planned["learning_rate"],
        "on_embedded_because": planned["learning_rate_source"],
    }
    assert planned["learning_rate"] != MMPT().learning_rate
    assert "learning_rates_used_by_run" not in shown("frozen")
    folder = str(ROOT / "examples" / "llava-7b-linear")
    assert shown("mmpt", "--backbone", folder)["learning_rates_used_by_run"] == {
        "where_no_search_fits": MMPT().learning_rate
    }
