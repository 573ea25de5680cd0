"""Averages of scores over questions, runs as seeds of a row, and an explanation from command to files."""

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

import mmpt_bench as mb
from mmpt_bench.cli.main import cli
from mmpt_bench.common.errors import Interrupted, RequestError
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.explain.explained import Curve, Explained
from mmpt_bench.records.budget import Budget, unusual_told
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.store import Store
from mmpt_bench.study.explanations.explain import _labels, _notes, _variants
from mmpt_bench.study.explanations.result import ExplainResult, ExplainRow, Item
from mmpt_bench.study.explanations.scores import SCORES, Found, averaged, inside, question_scores
from mmpt_bench.study.explanations.tables import ON_TERMINAL, explanation_tables
from support.command import bench

KEY = ("grad", "pointing")
SAMPLE = Sample("0", LazyImage("0.png", lambda: Image.new("RGB", (2, 2))), "?", ("yes", "no"), "yes")


def questions(*values: float | None) -> list[dict[Any, float]]:
    return [{} if value is None else {KEY: value} for value in values]


def recipe(method: str = "lora", seed: int = 0, fingerprint: str = "f", **params: Any) -> Recipe:
    return Recipe("embedded", fingerprint, "embedded", "c", method, params, Budget(), seed)


def test_a_cell_is_the_tokens_whose_middle_it_holds() -> None:
    assert inside([4], (3, 3)).tolist() == [False] * 4 + [True] + [False] * 4
    of_six = inside([1, 8], (6, 6)).reshape(6, 6)
    assert sorted(map(tuple, np.argwhere(of_six).tolist())) == [
        (0, 2), (0, 3), (1, 2), (1, 3), (4, 4), (4, 5), (5, 4), (5, 5),
    ]  # fmt: skip


def test_a_score_is_the_mean_over_questions_then_over_seeds() -> None:
    found = averaged({0: questions(1, 0, 1, 0), 1: questions(1, 1, 1, 1)}, list("aabb"), questions(0, 0, 0, 1))[KEY]
    assert found.estimate == 0.75
    assert found.change == 0.5
    assert (found.n_questions, found.n_images) == (4, 2)


def test_what_answers_as_the_base_does_has_no_change_and_no_doubt_of_it() -> None:
    same = questions(0.3, 0.9, 0.1, 0.4, 0.7, 0.2)
    found = averaged({5: same}, list("abcdef"), same)[KEY]
    assert (found.change, found.change_interval) == (0, (0, 0))
    assert found.interval[0] < found.estimate < found.interval[1]


def test_questions_without_a_score_are_left_out_of_its_mean() -> None:
    found = averaged({0: questions(1, None, 0, None, 1, None)}, list("aabbcc"))[KEY]
    assert found.estimate == pytest.approx(2 / 3)
    assert (found.n_questions, found.n_images) == (3, 3)
    assert found.change is None


def test_questions_about_one_image_are_resampled_together() -> None:
    # Six images of ten equal questions are six observations: as wide as the six images once each.
    values = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    once = averaged({0: questions(*values)}, list("abcdef"))[KEY]
    tenfold = averaged({0: questions(*np.repeat(values, 10))}, list(np.repeat(list("abcdef"), 10)))[KEY]
    assert tenfold.interval == pytest.approx(once.interval)


def test_variants_of_a_method_are_called_by_what_differs() -> None:
    assert _labels([recipe(r=2), recipe("mmpt")]) == ["lora", "mmpt"]
    assert _labels([recipe(r=2, a=1), recipe(r=16, a=1)]) == ["lora (r=2)", "lora (r=16)"]


def test_trainings_on_other_data_are_called_by_what_they_learnt() -> None:
    first = dataclasses.replace(recipe(r=2), corpus="mnist train")
    stage = {"strategy": "replay:0.1", "order": ["mnist", "vsr"], "after": ["lora-1"]}
    second = dataclasses.replace(recipe(r=2), corpus="vsr train", stage=stage)
    longer = dataclasses.replace(first, budget=Budget(steps=7))
    assert _labels([first, second]) == ["lora [mnist train]", "lora [replay:0.1, mnist → vsr]"]
    assert _labels([first, longer]) == ["lora [mnist train, 400 steps]", "lora [mnist train, 7 steps]"]
    other = dataclasses.replace(longer, budget=Budget(steps=7, schedule="constant"))
    assert _labels([longer, other]) == [
        "lora [mnist train, schedule=cosine]", "lora [mnist train, schedule=constant]",
    ]  # fmt: skip
    half = dataclasses.replace(longer, method_fingerprint="other")
    assert _labels([longer, half]) == [f"lora [mnist train, {each.variant_key[:6]}]" for each in (longer, half)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"world": "mars"}, "no world `mars`"),
        ({"world": "strong", "data": "d"}, "`--world strong` is for the embedded suite"),
        ({"limit": 0}, "`--limit 0`: 1 or more"),
        ({"limit": -3}, "`--limit -3`: 1 or more"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_line(options: Any, message: str, store: Store) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        mb.explain("frozen", out=_with_frozen(store), **options)
    assert "\n" not in str(raised.value)


def test_questions_without_a_region_are_told_by_the_suite_they_are_of() -> None:
    items = [Item("mnist", SAMPLE, ()), Item("mme", SAMPLE, ()), Item("mme", SAMPLE, (4,))]
    row = ExplainRow("frozen", (), (), {}, (), ())
    assert _notes(items, [row], True) == (
        "Questions explained of mnist have no region: pointing and energy do not count them.",
    )
    assert _notes(items[2:], [row], True) == ()
    assert "need the embedded suite's scenes" in _notes(items[:1], [row], False)[0]


def test_labels_in_brackets_are_printed_as_they_are(tmp_path: Path) -> None:
    row = {("", "right"): Found(0.5, (0.5, 0.5), 2, 2), ("grad", "pointing"): Found(0.5, (0.5, 0.5), 2, 2, 0.0, (0, 0))}
    label = "lora [vsr train, e4b918]"
    rows = tuple(ExplainRow(name, (), (), row, (), ()) for name in ("frozen", label))
    console = Console(width=80, file=(printed := io.StringIO()))
    for part in explanation_tables(ExplainResult("n", tmp_path, (), rows, ("grad",))):
        console.print(part)
    assert " ".join(printed.getvalue().split()).count(label) == 2


def explained(probability: float, **insertion_and_deletion: tuple[list[float], list[float]]) -> Explained:
    """Returns a question with maps of two tokens, whose curves have three points."""

    def curve(heights: list[float]) -> Curve:
        return Curve((0, 1, 2), tuple(heights), tuple(height > 0.5 for height in heights))

    curves = insertion_and_deletion.items()
    return Explained(
        SAMPLE, "yes", True, probability, {name: np.array([1.0, 0.0]) for name, _ in curves},
        {name: curve(down) for name, (_, down) in curves}, {name: curve(up) for name, (up, _) in curves},
        (1, 2), np.zeros((2, 2, 3), np.uint8), (),
    )  # fmt: skip


def test_scores_of_a_question_are_those_worked_out_by_hand() -> None:
    one = explained(0.9, own=([0.5, 0.9, 0.9], [0.9, 0.5, 0.5]), random=([0.5, 0.5, 0.9], [0.9, 0.9, 0.5]))
    found = question_scores(one, np.array([True, False]), one)
    assert found["own", "insertion"] == pytest.approx((0.5 / 2 + 0.9 + 0.9 / 2) / 2)
    assert found["own", "deletion"] == pytest.approx((0.9 / 2 + 0.5 + 0.5 / 2) / 2)
    # Insertion minus deletion is .8 - .6 for the map, and .6 - .8 for noise.
    assert found["own", "beyond_random"] == pytest.approx(0.4)
    assert (found["own", "pointing"], found["own", "energy"], found["", "chance"]) == (1, 1, 0.5)
    assert (found["own", "kept_10"], found["random", "kept_10"]) == (1, 0)
    assert found["own", "like_base"] == pytest.approx(1)
    assert ("random", "like_base") not in found
    assert ("random", "beyond_random") not in found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    for one in (recipe(seed=0), recipe(seed=1), recipe("mmpt"), recipe("vpt", fingerprint="other")):
        folder = made.run(one.run_name)
        folder.path().mkdir(parents=True)
        folder.write_recipe(one)
    return made


def test_a_run_that_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(RequestError, match="no run `lroa`"):
        _variants(["lroa"], store)


def test_runs_of_several_backbones_are_refused(store: Store) -> None:
    with pytest.raises(RequestError, match="several backbones"):
        _variants(["lora", "vpt"], store)


def test_runs_that_are_not_trained_are_refused(store: Store) -> None:
    with pytest.raises(RequestError, match="is not trained to its end"):
        _variants(["mmpt"], store)


def test_an_unknown_map_is_named_with_the_known(store: Store) -> None:
    with pytest.raises(RequestError, match="no map `gradcam`"):
        mb.explain("frozen", maps="gradcam", out=_with_frozen(store))


def test_one_that_is_interrupted_says_so_and_ends_with_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise Interrupted("3 of 9 questions are explained")

    monkeypatch.setattr("mmpt_bench.api.explain", interrupted)
    made = CliRunner().invoke(cli, ["explain", "mmpt", "--out", str(tmp_path)])
    assert made.exit_code == 130
    assert "Stopped: 3 of 9 questions are explained. Nothing is written" in made.output


def _with_frozen(store: Store) -> Path:
    one = recipe("frozen")
    store.run(one.run_name).path().mkdir(parents=True)
    store.run(one.run_name).write_recipe(one)
    return store.root


@pytest.mark.slow
def test_a_run_is_explained_beside_its_base_from_command_to_files(tmp_path: Path) -> None:
    bench("run", "--method", "mmpt", "--tasks", "mme", "--limit", "2", "--steps", "2", "--out", ".", cwd=tmp_path)
    words = ("explain", "mmpt", "--maps", "rollout,grad", "--limit", "6", "--out", ".", "--json")
    told = json.loads(bench(*words, cwd=tmp_path).stdout)
    assert sorted(Path(file).suffix for file in told["files"]) == [".csv", ".csv", ".json", ".md", ".png"]
    assert all((tmp_path / file).is_file() for file in told["files"])
    assert {(line["method"], line["map"]) for line in told["scores"] if line["map"]} == {
        (label, name) for label in ("frozen", "mmpt") for name in ("rollout", "grad", "random")
    }
    table = next(tmp_path / file for file in told["files"] if file.endswith(".csv") and "prompts" not in file)
    with table.open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["value"]) for line in lines] == pytest.approx([line["value"] for line in told["scores"]])
    chance = [float(line["value"]) for line in lines if line["score"] == "chance"]
    assert all(0 < value < 0.5 for value in chance)
    kinds = {line["kind"] for line in told["prompts"]}
    assert kinds == {"visual prompts", "textual prompts", "interaction"}
    assert bench(*words, cwd=tmp_path).stdout == json.dumps(told, indent=1) + "\n"


def table_result(names: tuple[str, ...]) -> ExplainResult:
    """Returns a result with every score of the terminal for each map."""
    found = Found(0.123, (0.1, 0.2), 4, 2)
    scores = {(name, score): found for name in names for score in ON_TERMINAL} | {("", "right"): found}
    row = ExplainRow("frozen", (), (), scores, (), ())
    return ExplainResult("t", Path("."), (), (row,), names)


@pytest.mark.parametrize("width", [40, 60, 66, 79, 80, 120])
def test_tables_are_whole_at_any_width(width: int) -> None:
    result, out = table_result(("rollout", "relevancy", "grad-input", "random")), io.StringIO()
    for part in explanation_tables(result, width):
        Console(file=out, width=width).print(part)
    text = out.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for score in ON_TERMINAL:
        assert SCORES[score].split()[-1].removesuffix(",") in text
    tables = 1 if width >= 74 else 2 if width >= 60 else 3
    assert text.count("rollout") == tables


@pytest.mark.parametrize(
    ("steps", "batch", "told"),
    [
        (400, 16, ""),
        (20, 16, "20 steps of 16 examples, not the default 400 of 16"),
        (400, 1, "400 steps of 1 example, not the default 400 of 16"),
        (3, 16, "3 steps of 16 examples, not the default 400 of 16; a smoke test, which is no result"),
    ],
)
def test_a_training_of_another_length_than_the_default_is_told(steps: int, batch: int, told: str) -> None:
    budgets = {"lora": Budget(steps=steps, batch_size=batch), "mmpt": Budget(steps=steps, batch_size=batch)}
    assert Budget(steps=steps, batch_size=batch).unusual == told
    assert unusual_told(budgets) == ([f"Trained for {told}: lora, mmpt."] if told else [])
