"""The search of learning rates as a user meets it: what it is scored on, what is kept, and what it refuses."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmpt_bench import api
from mmpt_bench.cli.tune import best_structures, said
from mmpt_bench.common.errors import Interrupted, RequestError, RunFailed
from mmpt_bench.common.files import read_jsonl
from mmpt_bench.embedded import mixture, suite
from mmpt_bench.engine.models import backbone as backbones
from mmpt_bench.engine.training import train
from mmpt_bench.methods import method_catalog
from mmpt_bench.records import learning_rates
from mmpt_bench.records.rate_trials import TESTS, TRIALS
from mmpt_bench.records.store import Store
from mmpt_bench.stats.intervals import chance_centred
from support.command import bench
from support.paths import DATA, needs_data

SIZE: dict[str, Any] = {"steps": 2, "batch_size": 2}
TWO: dict[str, Any] = {"rounds": (1,), "grid": (1e-3, 3e-3)}
"""Two rates, of which one is at the edge and brings a third."""
N_IMAGES = {"mme": 1, "pope": 2, "vsr": 2, "snli_ve": 2, "cifar10": 10, "mnist": 4}


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """The embedded suite with few images, and the backbone loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        torch.set_num_threads(1)
        patch.setattr(mixture, "CORPUS_SIZE", 32)
        patch.setattr(mixture, "VALIDATION_SIZE", 4)
        for task, n in N_IMAGES.items():
            patch.setitem(suite.N_IMAGES, task, n)
        patch.setattr(backbones, "load_backbone", functools.cache(backbones.load_backbone))
        yield


def tune(out: Path, method: str = "projector", **more: Any) -> list[Any]:
    return list(api.tune(method, out=out, **{**TWO, **SIZE, **more}))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a search of the projector, its models scored on test data too."""
    out = tmp_path_factory.mktemp("searched")
    tune(out, also_test=True)
    return out


def test_a_trial_is_kept_with_its_dev_score_by_task_and_what_it_was_made_on(searched: Path) -> None:
    rows = read_jsonl(searched / TRIALS)
    assert len(rows) == 3
    assert {1e-3, 3e-3} <= {row["rate"] for row in rows}
    for row in rows:
        assert sorted(row["by_task"]) == sorted(N_IMAGES)
        assert row["score"] == pytest.approx(sum(row["by_task"].values()) / 6)
        assert (row["seed"], row["threads"], row["reason"]) == (1000, 1, "")
        assert row["seconds"] > 0
        assert {"commit", "time"} <= set(row)
        assert (row["search"]["dtype"], row["search"]["criterion"]) == ("float32", "dev score")


def test_a_choice_has_criterion_dev_part_precision_and_the_whole_curve(searched: Path) -> None:
    (entry,) = json.loads((searched / learning_rates.FILE).read_text())
    assert entry["search"]["dev_fingerprint"]
    assert sorted(entry["tasks"]) == sorted(N_IMAGES)
    assert [sorted(point) for point in entry["curve"]] == [["mean", "n", "rate", "scores", "worst"]] * 3
    assert entry["extended"] == 1
    (choice,) = learning_rates.read(searched / learning_rates.FILE)
    line = said(choice)
    for words in ("of 3 rates, 3 trainings", "dev score", "worst of 1 seed", "decades within 1 point of the best"):
        assert words in line


def test_the_score_is_the_boards_own_constrained_one(searched: Path, tmp_path: Path) -> None:
    """A run at a trial's rate and seed has on test what the search recorded for the same model."""
    row = read_jsonl(searched / TESTS)[0]
    api.run("projector", "all", seeds=1000, set=[f"projector.learning_rate={row['rate']}"], out=tmp_path, **SIZE)
    centred = {
        record.task: chance_centred(record.constrained, record.chance, record.ceiling)
        for record in Store(tmp_path).records()
    }
    assert row["by_task"] == pytest.approx(centred, abs=1e-12)


def test_dev_and_test_scores_are_apart_and_no_choice_reads_the_latter(searched: Path, tmp_path: Path) -> None:
    dev, test = read_jsonl(searched / TRIALS), read_jsonl(searched / TESTS)
    assert [(row["rate"], row["seed"]) for row in dev] == [(row["rate"], row["seed"]) for row in test]
    # Other scores on test data change nothing, nor does their absence.
    out = tmp_path / "out"
    out.mkdir()
    (out / TRIALS).write_bytes((searched / TRIALS).read_bytes())
    (out / TESTS).write_text("".join(json.dumps(row | {"score": -5.0 * row["score"]}) + "\n" for row in test))
    tune(out, also_test=True)
    assert (out / learning_rates.FILE).read_bytes() == (searched / learning_rates.FILE).read_bytes()
    assert read_jsonl(out / TRIALS) == dev


def test_the_same_command_again_trains_nothing_and_a_longer_search_trains_what_is_new(
    searched: Path, tmp_path: Path
) -> None:
    (tmp_path / TRIALS).write_bytes((searched / TRIALS).read_bytes())
    new: list[tuple[float, int]] = []

    def search(**more: Any) -> None:
        tune(tmp_path, told=lambda _, trial: new.append((trial.rate, trial.seed)), **more)

    search()
    assert new == []
    search(rounds=(2,))
    assert {seed for _, seed in new} == {1001}
    assert {1e-3, 3e-3} <= {rate for rate, _ in new}
    assert len(learning_rates.read(tmp_path / learning_rates.FILE)) == 1


@pytest.mark.slow
def test_models_that_were_not_scored_on_test_are_trained_again_for_it_and_their_dev_scores_stay(
    searched: Path, tmp_path: Path
) -> None:
    (tmp_path / TRIALS).write_bytes((searched / TRIALS).read_bytes())
    lines = (searched / TESTS).read_text().splitlines(keepends=True)
    (tmp_path / TESTS).write_text("".join(lines[:-1]))
    tune(tmp_path, also_test=True)
    assert (tmp_path / TRIALS).read_bytes() == (searched / TRIALS).read_bytes()
    again = [json.loads(line) for line in (tmp_path / TESTS).read_text().splitlines()]
    assert again[-1]["by_task"] == json.loads(lines[-1])["by_task"]
    assert len(again) == len(lines)


@pytest.mark.slow
def test_a_training_that_failed_is_kept_with_its_reason_and_its_rate_is_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train.train

    def fails_above(backbone: Any, handle: Any, corpus: Any, config: Any, *more: Any, **named: Any) -> Any:
        if config.rate > 2e-3:
            raise RunFailed("step 2: loss nan: not finite")
        return real(backbone, handle, corpus, config, *more, **named)

    monkeypatch.setattr(train, "train", fails_above)
    (choice,) = tune(tmp_path, also_test=True)
    rows = {row["rate"]: row for row in read_jsonl(tmp_path / TRIALS)}
    assert (rows[3e-3]["score"], rows[3e-3]["reason"]) == (None, "step 2: loss nan: not finite")
    assert choice.rate == min(rows, key=lambda rate: (-(rows[rate]["score"] or -9), rate))
    assert 3e-3 not in [row["rate"] for row in read_jsonl(tmp_path / TESTS)]
    assert "1 rate failed" in said(choice)


def test_a_search_that_is_stopped_while_it_scores_goes_on(tmp_path: Path) -> None:
    calls: list[int] = []

    def stop_late() -> bool:
        calls.append(1)
        return len(calls) > SIZE["steps"] + 1

    with pytest.raises(Interrupted, match="was asked"):
        tune(tmp_path, stopping=stop_late)
    assert not (tmp_path / TRIALS).exists()
    assert len(tune(tmp_path)) == 1


@pytest.mark.slow
def test_a_variant_of_a_method_has_a_search_of_its_own(tmp_path: Path) -> None:
    (made,) = tune(tmp_path, "lora", set=["lora.r=2"])
    assert made.search.params["r"] == 2
    words = ("run", "--method", "lora", "--steps", "2", "--batch-size", "2", "--out", str(tmp_path), "--plan")
    own = bench(*words, "--set", "lora.r=2", cwd=tmp_path).stdout
    assert f"learning rate {made.rate:g}, searched: dev score, 3 rates, 1 seed" in own.replace(" on ", " ")
    assert "with other hyperparameters" not in own


def test_every_method_with_a_structural_number_declares_as_many_the_first_as_it_is() -> None:
    counts = set()
    for entry in method_catalog.find_methods("all"):
        method = method_catalog.load_method(entry)
        made = [method(**changed) for changed in method.structures]
        assert len(set(made)) == len(made)
        assert made[:1] in ([], [method()])
        counts |= {len(made)} - {0}
    assert len(counts) == 1
    assert {e.name for e in method_catalog.find_methods("all") if method_catalog.load_method(e).structures} == {
        "adapter", "dynamic", "lora", "mmpt", "moe_lora", "prefix", "vpt",
    }  # fmt: skip


def test_structures_are_searched_as_methods_of_their_own_and_the_best_one_is_named(tmp_path: Path) -> None:
    plan = api.plan_tune("lora,projector", structures=2, out=tmp_path, **TWO, **SIZE)
    assert [of.label for of in plan.sought] == ["lora", "lora (alpha=16, r=8)", "projector"]
    with pytest.raises(RequestError, match="`lora` declares 3"):
        api.plan_tune("lora", structures=4, out=tmp_path)
    with pytest.raises(RequestError, match=r"`--set lora\.r` set one field"):
        api.plan_tune("lora", structures=2, set=["lora.r=4"], out=tmp_path)
    curves = [choice.curve for choice in tune(tmp_path, "projector")]
    few, many = (
        learning_rates.Choice(of.search, curve, 0, ("mme",))
        for of, curve in zip(plan.sought[:2], [*curves, curves[0]], strict=False)
    )
    worse = learning_rates.Curve(
        tuple(learning_rates.Point(p.rate, tuple((s, v - 0.5) for s, v in p.scores)) for p in curves[0].points)
    )
    lines = best_structures([learning_rates.Choice(few.search, worse, 0, ("mme",)), many])
    assert lines == ["lora: of 2 structures the best on dev is `--set lora.alpha=16 --set lora.r=8`."]


@pytest.mark.slow
def test_a_plan_says_how_many_trainings_and_how_long(searched: Path, tmp_path: Path) -> None:
    plan = api.plan_tune("lora,projector", out=tmp_path, **SIZE)
    cost = plan.cost(Store(tmp_path))
    assert (cost.fewest, cost.most, cost.seconds) == (2 * 34, 2 * 39, None)
    # Trials that are there are not made again, and tell how long one takes.
    seconds = [row["seconds"] for row in read_jsonl(searched / TRIALS)]
    known = api.plan_tune("projector", out=searched, **{**TWO, **SIZE, "rounds": (2,)}).cost(Store(searched))
    assert known.fewest == known.most == 2
    assert known.seconds == pytest.approx(2 * sum(seconds) / 3)
    said_so = bench("tune", "--plan", "--method", "lora", "--steps", "2", "--out", str(tmp_path), cwd=tmp_path).stdout
    for words in ("Trainings to do: 34 to 39", "Criterion: dev score on ", "3e-05, 0.0001", "not known before"):
        assert words in said_so
    assert not list(tmp_path.iterdir())


def test_dev_rows_are_others_than_those_of_evaluation() -> None:
    for task in suite.N_IMAGES:
        dev, evaluation = suite.source(task, "dev"), suite.source(task)
        assert dev.fingerprint != evaluation.fingerprint
        column = "img" if task == "cifar10" else "image"
        shown = [{row[column].tobytes() for row in rows.rows} for rows in (dev, evaluation)]
        assert shown[0] != shown[1]


def test_real_data_are_scored_on_the_validation_splits_of_the_tasks_that_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "vsr_zeroshot"
    (folder / "images").mkdir(parents=True)
    for split, n in (("validation", 4), ("test", 6)):
        lines = []
        for number in range(n):
            name = f"{split}{number}.png"
            Image.new("RGB", (32, 32), (40 * number, 10, 90 if split == "test" else 200)).save(folder / "images" / name)
            row = {"image": name, "image_link": f"http://x/{name}", "caption": "The dog is left of the cat."}
            lines.append(json.dumps(row | {"label": number % 2, "relation": "left of"}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out"
    (choice,) = tune(out, dev_tasks="vsr", data=tmp_path / "data", also_test=True)
    assert choice.tasks == ("vsr",)
    assert choice.said == "searched: dev score, 3 rates, 1 seed"
    plan = api.plan_tune("projector", dev_tasks="vsr", data=tmp_path / "data", also_test=True, out=out, **TWO, **SIZE)
    assert [(len(item.samples), item.task.data.split) for item in plan.judge.dev.values()] == [(4, "validation")]
    assert [(len(item.samples), item.task.data.split) for item in plan.judge.test.values()] == [(6, "test")]
    assert plan.sought[0].search == choice.search


@needs_data
def test_real_data_are_searched_by_validation_splits_where_they_are_named_else_by_loss_and_it_is_said(
    tmp_path: Path,
) -> None:
    size = {**SIZE, "data": DATA, "out": tmp_path}
    by_loss = api.plan_tune("projector", **size)
    assert (by_loss.judge.criterion, by_loss.judge.fingerprint) == ("validation loss", "")
    with pytest.raises(RequestError, match="--dev-tasks"):
        api.plan_tune("projector", also_test=True, **size)
    with pytest.raises(RequestError, match="There is no split `validation`"):
        api.plan_tune("projector", dev_tasks="pope", **size)
    (choice,) = tune(tmp_path, data=DATA)
    assert choice.said == "searched: validation loss, 3 rates, 1 seed"
    assert (choice.width, choice.collapsed) == (None, ())
    assert all(row["score"] < 0 and row["by_task"] == {} for row in read_jsonl(tmp_path / TRIALS))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--grid", "1e-3"), "the lowest and the highest rate"),
        (("--grid", "2e-3,1e-2"), "two half decades"),
        (("--grid", "1e-2,1e-3"), "below the highest"),
        (("--rounds", "3,1"), "more than before"),
        (("--rounds", "a"), "numbers, comma-separated"),
        (("--methods", "frozen"), "None of these methods"),
        (("--set", "lora.learning_rate=1e-3"), "what is searched"),
        (("--methods", "lora", "--set", "lora.rank=2"), "rank"),
        (("--dev-tasks", "vsr"), "is for real data"),
        (("--accept",), "--also-test"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    assert told in bench("tune", *words, cwd=tmp_path, code=2).stderr
    assert not (tmp_path / "mmpt-results").exists()
