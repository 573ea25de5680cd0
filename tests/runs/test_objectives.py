"""What is learnt from a teacher: what may be written, what is refused, and that a student learns from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench import api
from mmpt_bench.common.errors import RequestError
from mmpt_bench.records.learning_curves import publish_learning_curves, read_learning_curves
from mmpt_bench.records.recipe_file import read_recipe
from mmpt_bench.records.run_folder import COSTS
from mmpt_bench.records.store import Store
from mmpt_bench.runs.options import make_request

SHORT: dict[str, Any] = {"steps": 4, "limit": 2, "batch_size": 4, "base": False}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A results folder with a teacher, and its run's name."""
    out = tmp_path_factory.mktemp("taught")
    (run,) = {record.run for record in api.run("lora", "pope", out=out, **SHORT).made}
    return out, run


def asked(out: Path, teacher: str, objective: str) -> dict[str, Any]:
    return make_request("projector", "pope", {"out": out, "teacher": teacher, "objective": objective}).objective


def test_a_run_is_named_by_method_and_key_or_whole(taught: tuple[Path, str]) -> None:
    out, run = taught
    wanted = {"kd": 0.5, "teacher": run, "teacher_fingerprint": "", "temperature": 2.0, "divergence": "jsd",
              "compute": "equal"}  # fmt: skip
    text = "kd:0.5,temperature:2,divergence:jsd,compute:equal"
    for teacher in (run, f"lora:{run}", f"lora:{run.removeprefix('lora-')}"):
        assert asked(out, teacher, text) == wanted


@pytest.mark.parametrize(
    ("teacher", "objective", "said"),
    [
        ("", "kd:1", "add `--teacher"),
        ("RUN", "", "add `--objective"),
        ("lora:none", "kd:1", "no trained run `lora-none`"),
        ("../x", "kd:1", "no trained run"),
        ("lora:" + "n" * 90, "kd:1", r"^There is no trained run .{0,176}$"),
        ("RUN", "temperature:2", "no weight of the divergence"),
        ("RUN", "kd:0", "a number above 0"),
        ("RUN", "kd:nan", "a number above 0"),
        ("RUN", "kd:1,kd:2", "write each part once"),
        ("RUN", "kd:1,divergence:wide", "no divergence `wide`"),
        ("RUN", "kd:1,tau:2", "no part of an objective `tau`"),
        ("RUN", "kd:1,", "a part is empty"),
        (":", "kd:1", "no trained run"),
    ],
)
def test_what_cannot_be_is_refused(taught: tuple[Path, str], teacher: str, objective: str, said: str) -> None:
    out, run = taught
    with pytest.raises(RequestError, match=said):
        asked(out, teacher.replace("RUN", run), objective)


def test_what_trains_nothing_has_no_teacher(taught: tuple[Path, str]) -> None:
    out, run = taught
    with pytest.raises(RequestError, match="A teacher is for methods that train"):
        api.plan("frozen", "pope", out=out, teacher=run, objective="kd:1")


def test_the_rate_of_a_student_says_that_it_was_searched_without_a_teacher(taught: tuple[Path, str]) -> None:
    out, run = taught
    (line,) = api.plan("projector", "pope", out=out, teacher=run, objective="kd:1", base=False).runs
    assert line["learning_rate_source"].endswith(", without a teacher")


def test_a_search_has_no_teacher(taught: tuple[Path, str]) -> None:
    out, run = taught
    with pytest.raises(RequestError, match="is for runs"):
        api.plan_tune("projector", out=out, teacher=run, objective="kd:1")


@pytest.mark.slow
def test_a_student_learns_from_its_teacher_at_equal_steps_and_at_equal_compute(taught: tuple[Path, str]) -> None:
    out, run = taught
    for objective in ("kd:1", "kd:1,compute:equal"):
        api.run("projector", "pope", out=out, teacher=run, objective=objective, **SHORT)
    api.run("projector", "pope", out=out, **SHORT)
    store, steps = Store(out), {}
    for each in store.runs():
        if each.name.startswith("projector"):
            recipe = read_recipe(each.path("recipe.yaml"))
            told = recipe.objective.get("compute", "alone")
            steps[told] = json.loads(each.path("adapter", COSTS).read_text())["steps"]
            assert each.name == recipe.run_name
            assert recipe.objective.get("teacher", run) == run
            assert ("objective" in each.path("recipe.yaml").read_text()) == (told != "alone")
    # A teacher of the student's size costs a forward pass beside the three of a step.
    assert steps == {"alone": 4, "steps": 4, "equal": 3}
    labels = {row.label for board in api.load_results(out).boards for row in board.rows}
    assert labels >= {
        "projector", f"projector (objective=kd:1.0 of {run})", f"projector (objective=compute:equal, kd:1.0 of {run})",
    }  # fmt: skip
    curves = read_learning_curves(store)
    taught_by = [curve for curve in curves.values() if curve.terms]
    assert len(taught_by) == 2
    assert all(len(curve.terms["kd"]) == len(curve.losses) and curve.terms["kd"][0] > 0 for curve in taught_by)
    publish_learning_curves(store)
    assert read_learning_curves(store) == curves
