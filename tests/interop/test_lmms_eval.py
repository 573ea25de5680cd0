"""lmms-eval with our models in it, and its MME and POPE on the replies that ours score. Run by `bash .ci/lmms`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmpt_bench.engine.inference.predict import predict
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.interop.answers.forms import GivenAnswer, GivenAnswers, read_answers
from mmpt_bench.interop.answers.score import score_answers
from mmpt_bench.methods.method_catalog import load_method
from mmpt_bench.methods.trained_adapter import adapter_entry
from mmpt_bench.mmpt import MMPT
from support.lmms_golden import golden, printed, their_tasks
from support.paths import PUBLISHED, ROOT
from support.tasks import task
from support.tiny import QUESTIONS, pictures, save_tiny

HAS = {name: importlib.util.find_spec(name) is not None for name in ("lmms_eval", "decord")}
pytestmark = [
    pytest.mark.lmms,
    pytest.mark.skipif(not HAS["lmms_eval"], reason="lmms-eval is not installed: `bash .ci/lmms` installs it"),
]
NAMES = ("mme", "pope")
END = " ."
"""How the embedded model ends a reply; to lmms-eval's POPE, "yes ." is wrong."""
THEIRS = {"mme": ("mme_perception_score", "mme_cognition_score"), "pope": ("pope_accuracy", "pope_precision")}
OURS = {"mme": ("perception", "cognition"), "pope": ("accuracy", "precision")}


def hub_rows(name: str, each: int) -> list[dict[str, Any]]:
    """Returns the first rows of each category of the embedded suite, in the hub's schema."""
    from mmpt_bench.embedded import suite

    by_part: dict[str, list[dict[str, Any]]] = {}
    for row in suite.rows(name):
        by_part.setdefault(row["category"], []).append(row)
    return [row for of_part in by_part.values() for row in of_part[:each]]


def write_task(folder: Path, name: str, rows: Sequence[dict[str, Any]], **changes: Any) -> str:
    """Writes rows as parquet, and lmms-eval's own task on them, with nothing but data, name and `changes` changed."""
    import lmms_eval
    from datasets import Dataset

    folder.mkdir(exist_ok=True)
    Dataset.from_list(list(rows)).to_parquet(folder / f"{name}.parquet")
    changed: dict[str, Any] = {
        "include": str(Path(lmms_eval.__file__).parent / "tasks" / name / f"{name}.yaml"),
        "task": f"{name}_here",
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": f"{name}.parquet"}},
    }
    (folder / f"{name}_here.yaml").write_text(yaml.safe_dump(changed | changes))
    return f"{name}_here"


def evaluated(folder: Path, model: str, arguments: str, tasks: Sequence[str], **options: Any) -> dict[str, Any]:
    """Returns what lmms-eval's evaluator returns for tasks of a folder."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    given: dict[str, Any] = {"batch_size": 8, "device": "cpu", "bootstrap_iters": 0} | options
    return simple_evaluate(model, arguments, tasks=list(tasks), task_manager=manager, **given)


def replies(results: dict[str, Any], name: str) -> list[str]:
    """Returns the replies in the order of the rows."""
    lines = sorted(results["samples"][f"{name}_here"], key=lambda line: line["doc_id"])
    return [line["filtered_resps"][0] for line in lines]


def save_adapter(backbone: Backbone, folder: Path, noise: float) -> Path:
    """Writes an adapter that is moved by noise from where it begins, and takes it off again."""
    handle = MMPT(visual_length=3, text_length=2).attach(backbone, 0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in handle.trainable.values():
            parameter += noise * torch.randn(parameter.shape, generator=generator)
    handle.save(folder)
    handle.remove()
    return folder


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, Any]]]:
    torch.set_num_threads(1)
    return {"mme": hub_rows("mme", 8), "pope": hub_rows("pope", 16)}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the embedded backbone that changes some replies and leaves it able to answer."""
    return save_adapter(load_backbone("embedded", device="cpu"), tmp_path_factory.mktemp("tuned") / "adapter", 0.03)


@pytest.fixture(scope="module")
def results(
    rows: dict[str, list[dict[str, Any]]], tuned: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """lmms-eval's results of the adapted embedded backbone, asked what we ask; POPE's replies end at a full stop."""
    folder = tmp_path_factory.mktemp("tasks")
    asked = {"lmms_eval_specific_kwargs": {"default": {"pre_prompt": "", "post_prompt": ""}}}
    ended = {"generation_kwargs": {"max_new_tokens": 128, "temperature": 0, "until": [END]}}
    tasks = [
        write_task(folder, "mme", rows["mme"], **asked),
        write_task(folder, "pope", rows["pope"], **asked, **ended),
    ]
    return evaluated(folder, "mmpt_bench", f"backbone=embedded,adapter={tuned}", tasks)


def predicted(backbone: Backbone, name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the replies of our own evaluation, in the order of the rows."""
    samples = [task(name).sample(row, i, ()) for i, row in enumerate(rows)]
    said = {one.id: one.reply for batch in predict(backbone, task(name), samples) for one in batch}
    return [said[sample.id] for sample in samples]


def test_an_adapted_model_replies_in_lmms_eval_as_in_our_own_evaluation(
    results: dict[str, Any], rows: dict[str, list[dict[str, Any]]], tuned: Path
) -> None:
    backbone = load_backbone("embedded", device="cpu")
    untouched = {name: predicted(backbone, name, rows[name]) for name in NAMES}
    load_method(adapter_entry(str(tuned), offline=True))().attach(backbone, 0)
    adapted = {name: predicted(backbone, name, rows[name]) for name in NAMES}
    assert replies(results, "mme") == adapted["mme"] != untouched["mme"]
    assert replies(results, "pope") == [reply.split(END)[0] for reply in adapted["pope"]]
    assert adapted["pope"] != untouched["pope"]


@pytest.mark.parametrize("name", NAMES)
def test_its_scores_are_ours_on_the_same_replies(
    results: dict[str, Any], rows: dict[str, list[dict[str, Any]]], name: str
) -> None:
    answers = [
        GivenAnswer(f"row {i}", {k: v for k, v in row.items() if k != "image"}, reply)
        for i, (row, reply) in enumerate(zip(rows[name], replies(results, name), strict=True))
    ]
    values = score_answers(task(name, "lmms-eval"), GivenAnswers("JSON lines", tuple(answers))).values
    for theirs, ours in zip(THEIRS[name], OURS[name], strict=True):
        assert results["results"][f"{name}_here"][f"{theirs},none"] == pytest.approx(values[ours], abs=1e-9)
        assert values[ours] > 0


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with lmms-eval's MME, its own prompt, on images of noise."""
    asked = [
        {"question_id": f"{i}.png", "category": "count", "question": question, "answer": answer, "image": picture}
        for i, picture in enumerate(pictures(6))
        for question, answer in zip(QUESTIONS, ("Yes", "No"), strict=False)
    ]
    folder = tmp_path_factory.mktemp("noise")
    write_task(folder, "mme", asked)
    return folder


def test_the_command_line_finds_the_model_by_its_entry_point_and_its_file_scores_alike_here(
    llava: Path, noise: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(load_backbone(str(llava), device="cpu", offline=True), tmp_path / "adapter", 0.1)
    model = f"backbone={llava},adapter={adapter},offline=True"
    command = [sys.executable, "-m", "lmms_eval", "--model", "mmpt_bench", "--model_args", model, "--device", "cpu"]
    command += ["--tasks", "mme_here", "--include_path", str(noise), "--batch_size", "auto", "--log_samples"]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--output_path", str(tmp_path)], env=env, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr
    (told,) = tmp_path.rglob("*_results.json")
    points = json.loads(told.read_text())["results"]["mme_here"]["mme_perception_score,none"]
    card = score_answers(task("mme", "lmms-eval"), read_answers(list(tmp_path.rglob("*_samples_mme_here.jsonl"))))
    assert (card.form, card.n) == ("lmms-eval", 12)
    assert card.values["perception"] == pytest.approx(points)


@pytest.mark.skipif(not HAS["decord"], reason="lmms-eval's own LLaVA class needs decord")
def test_our_class_replies_as_lmms_evals_own_llava_does(llava: Path, noise: Path) -> None:
    ours = evaluated(noise, "mmpt_bench", f"backbone={llava},offline=True", ["mme_here"])
    given = f"pretrained={llava},dtype=float32,device_map=cpu"
    theirs = evaluated(noise, "llava_hf", given, ["mme_here"], batch_size=1)
    assert replies(ours, "mme") == replies(theirs, "mme")
    assert len(set(replies(ours, "mme"))) > 6


def test_golden_vectors_are_what_lmms_eval_gives() -> None:
    kept = (ROOT / "tests" / "support" / "lmms_golden.json").read_text(encoding="utf-8")
    assert json.loads(json.dumps(golden())) == json.loads(kept)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published answers are not beside this checkout")
@pytest.mark.parametrize(("name", "file"), [("mme", "mme_lavin_13b"), ("pope", "pope_llava_v1.6_vicuna_7b_current")])
def test_published_replies_have_the_same_score_in_both(name: str, file: str) -> None:
    given = read_answers([PUBLISHED / f"{file}.jsonl.gz"])
    rows = [answer.row | {"reply": answer.reply} for answer in given.answers]
    figures = printed(their_tasks()[name], rows)["figures"]
    values = score_answers(task(name, "lmms-eval"), given).values
    for theirs, ours in zip(THEIRS[name], OURS[name], strict=True):
        assert figures[theirs] == pytest.approx(values[ours], abs=1e-9)


def test_their_tasks_ask_what_the_page_says() -> None:
    import lmms_eval
    from lmms_eval.utils import load_yaml_config

    for name, tokens in (("mme", 16), ("pope", 128)):
        path = Path(lmms_eval.__file__).parent / "tasks" / name / f"{name}.yaml"
        config = load_yaml_config(str(path), mode="simple")
        assert config["dataset_path"] == f"lmms-lab-encoder/{name.upper()}"
        assert config["generation_kwargs"]["max_new_tokens"] == tokens
        asked = config["lmms_eval_specific_kwargs"]["default"]["post_prompt"]
        assert asked == "\nAnswer the question using a single word or phrase."
        assert "cluster_key" not in config
