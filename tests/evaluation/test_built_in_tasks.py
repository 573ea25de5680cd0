"""The shipped tasks on real rows: identities, questions, answers, and what their files promise."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmpt_bench.data import tables
from mmpt_bench.data.samples import Sample
from mmpt_bench.sources.task_rows import folder_rows
from mmpt_bench.sources.task_rows import samples as samples_of
from support.paths import DATA, ROOT, needs_data
from support.tasks import task as task_named

NAMES = ("mme", "pope", "vsr", "snli_ve", "cifar10", "mnist")
FILES = {
    "mme": "mme/data/test-00000-of-00001.parquet",
    "pope": "pope/data/test-00000-of-00001.parquet",
    "vsr": "vsr_zeroshot/data/test-00000-of-00001.parquet",
    "snli_ve": "snli_ve/data/test-00000-of-00001.parquet",
    "cifar10": "cifar10/plain_text/test-00000-of-00001.parquet",
    "mnist": "mnist/mnist/test-00000-of-00001.parquet",
}
PICTURE = Image.new("RGB", (1, 1))


@cache
def real(name: str) -> Sequence[Sample]:
    """Returns the samples of a task's real rows, with one white pixel for every image."""
    task, table = task_named(name), pq.read_table(DATA / FILES[name])
    names = tables.class_names(table, task.data.label_column)
    rows = table.drop_columns([task.data.image_column]).to_pylist()
    return [task.sample(row | {task.data.image_column: PICTURE}, i, names) for i, row in enumerate(rows)]


@pytest.mark.parametrize("name", [*NAMES, "_template"])
def test_task_file_exports_a_task_named_like_it_with_a_docstring_line(name: str) -> None:
    assert runpy.run_path(str(ROOT / "tasks" / f"{name}.py"))["TASK"].name == name.lstrip("_")
    docstring = ast.get_docstring(ast.parse((ROOT / "tasks" / f"{name}.py").read_text(encoding="utf-8")))
    first, blank = (docstring or "").splitlines()[:2]
    assert ": " in first
    assert blank == ""


@pytest.mark.parametrize("name", NAMES)
def test_task_names_a_commit_and_a_figure_that_its_metric_gives(name: str) -> None:
    task = task_named(name)
    assert len(task.data.revision) == 40
    assert set(task.data.revision) <= set("0123456789abcdef")
    assert task.data.image_column in task.data.columns


def test_importing_tasks_brings_in_no_heavy_package() -> None:
    code = (
        "import sys, importlib.util\n"
        f"for name in {NAMES!r}:\n"
        "    spec = importlib.util.spec_from_file_location(name, f'tasks/{name}.py')\n"
        "    spec.loader.exec_module(importlib.util.module_from_spec(spec))\n"
        "heavy = {'torch', 'datasets', 'PIL', 'pandas', 'pyarrow', 'scipy', 'huggingface_hub', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique_and_answers_legal_and_headline_and_columns_exist(name: str) -> None:
    task, samples = task_named(name), real(name)
    assert len({sample.id for sample in samples}) == len(samples)
    assert all(sample.answer in sample.choices for sample in samples)
    tally = task.metric.tally(samples, [sample.answer for sample in samples])
    figures = task.metric.values(tally.counts.sum(axis=0), tally.columns)
    assert float(figures[task.headline]) == pytest.approx(task.metric.ceiling(samples), abs=1e-9)
    assert set(task.metric_names) <= set(figures)


@needs_data
@pytest.mark.parametrize(
    ("name", "rows", "pictures", "chance"),
    [
        ("mme", 2374, 1187, 1050),
        ("pope", 9000, 500, 0.4999),
        ("vsr", 1222, 715, 0.5),
        ("snli_ve", 14740, 1000, 1 / 3),
        ("cifar10", 10000, 10000, 0.1),
        ("mnist", 10000, 10000, 0.1),
    ],
)
def test_rows_pictures_and_chance_are_those_of_the_benchmark(
    name: str, rows: int, pictures: int, chance: float
) -> None:
    samples = real(name)
    assert (len(samples), len({sample.cluster for sample in samples})) == (rows, pictures)
    assert task_named(name).metric.chance(samples) == pytest.approx(chance, abs=1e-4)
    assert len({(sample.image.key, sample.cluster) for sample in samples}) == pictures


@needs_data
def test_mme_ceiling_is_2800_over_fourteen_subtasks_of_pairs() -> None:
    task, samples = task_named("mme"), real("mme")
    assert task.metric.ceiling(samples) == 2800
    assert set(Counter(sample.cluster for sample in samples).values()) == {2}
    assert all(sample.question.endswith("Please answer yes or no.") for sample in samples)
    tally = task.metric.tally(samples, [sample.answer for sample in samples])
    assert len(set(tally.strata)) == 14


def test_mme_picture_is_the_same_with_and_without_the_subtask_in_its_name() -> None:
    row = {"category": "OCR", "question": "Is it? Please answer yes or no.", "answer": "Yes", "image": PICTURE}
    task = task_named("mme")
    with_it = task.sample(row | {"question_id": "OCR/0001.jpg"}, 0, ())
    assert task.sample(row | {"question_id": "0001.jpg"}, 0, ()).id == with_it.id
    assert with_it.cluster == "OCR/0001.jpg"


@needs_data
def test_pope_question_number_of_each_strategy_is_its_own_and_pictures_are_shared() -> None:
    samples = real("pope")
    assert Counter(sample.group for sample in samples) == {"adversarial": 3000, "popular": 3000, "random": 3000}
    assert len({(sample.cluster, sample.question) for sample in samples}) == 5127
    assert task_named("pope").metric.tally(samples, ["yes"] * 9000).counts.shape[0] == 500


@needs_data
def test_classes_are_the_datas_own_in_every_task_that_has_them() -> None:
    assert real("mnist")[0].choices == tuple("0123456789")
    assert real("cifar10")[0].question == (
        "Which of these is in the image: airplane, automobile, bird, cat, deer, dog, frog, horse, ship or truck?"
    )
    assert Counter(s.answer for s in real("snli_ve")) == {"entailment": 5218, "neutral": 3801, "contradiction": 5721}
    assert real("vsr")[0].question == "The car is behind the suitcase. Is the statement true or false?"
    assert real("vsr")[0].answer == "true"


def test_snli_ve_reads_the_order_of_classes_from_the_data() -> None:
    row = {"image": PICTURE, "filename": "a.jpg", "hypothesis": "A dog runs.", "label": 0}
    task = task_named("snli_ve")
    assert task.sample(row, 0, ("contradiction", "neutral", "entailment")).answer == "contradiction"
    with pytest.raises(ValueError, match="has the classes yes, no"):
        task.sample(row, 0, ("yes", "no"))


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("mme", {"category": "OCR", "question": "", "question_id": "1", "answer": "Yes"}, "column `question`"),
        ("mme", {"category": "OCR", "question": "?", "question_id": "1", "answer": "Maybe"}, "column `answer`"),
        ("pope", {"category": "random", "image_source": None, "question_id": "1"}, "column `image_source`"),
        ("vsr", {"image_link": "x/1.jpg", "caption": "A.", "relation": "on", "label": 2}, "column `label`"),
        ("cifar10", {"label": True}, "column `label`"),
        ("mnist", {"label": 1, "image": None}, "column `image`"),
    ],
)
def test_a_bad_value_is_refused_by_column(name: str, row: dict[str, Any], message: str) -> None:
    names = ("cat", "dog")
    with pytest.raises(ValueError, match=message):
        task_named(name).sample({"image": PICTURE, "img": PICTURE} | row, 0, names)


@needs_data
@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_pictures_of_the_complete_data_sets_open(name: str) -> None:
    task = task_named(name)
    samples = samples_of(task, folder_rows(task, DATA), limit=3)
    assert [sample.image.open().mode for sample in samples] == ["RGB"] * 3


def test_a_built_in_task_is_a_module_of_the_package_whoever_imports_it_first() -> None:
    assert task_named("mme").sample.__module__ == "mmpt_bench.tasks.mme"
