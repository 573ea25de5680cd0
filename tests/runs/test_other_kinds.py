"""Commands that know questions of one image and choices alone say so of other kinds, in one sentence."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mmpt_bench as mb
from mmpt_bench.sources.corpora import TrainData, load_corpus
from support.paths import ROOT

KINDS = ("several_images", "open_answers")


def example(kind: str) -> str:
    return str(ROOT / "examples" / f"{kind}.py")


def told(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_a_task_makes_are_evaluated_and_never_trained_on(kind: str, tmp_path: Path) -> None:
    with pytest.raises(mb.RequestError, match="has no training split apart from what is evaluated") as raised:
        mb.plan("lora", "vsr", train_data=f"task:{example(kind)}", out=tmp_path, offline=True)
    told(raised)


def folder(root: Path, kind: str, row: dict[str, Any]) -> Path:
    """Returns a folder with a training split of three rows for a task from `examples/`."""
    file = io.BytesIO()
    Image.new("RGB", (48, 48)).save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    (root / kind).mkdir(parents=True)
    rows = [{name: picture if value == "IMAGE" else value for name, value in row.items()} for _ in range(3)]
    (root / kind / "train.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return root


def test_open_answers_are_learnt_from_a_training_split(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", "open_answers", {"image": "IMAGE", "question": "how many ?", "answers": ["two"]})
    corpus = load_corpus(TrainData(f"task:{example('open_answers')}", data=data))
    assert corpus.size + corpus.validation_size == 3
    assert (corpus.example(0).prompt, corpus.example(0).target) == ("how many ?", "two")


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_refuses_other_kinds(kind: str, tmp_path: Path) -> None:
    with pytest.raises(mb.RequestError, match="cannot be asked in forms: they are for one image, choices") as raised:
        mb.prompts(example(kind), "frozen", out=tmp_path, offline=True)
    told(raised)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("trained")
    made = mb.run("projector", "mnist", steps=1, batch_size=2, limit=1, out=out, offline=True)
    return out, made.runs[0]


@pytest.mark.parametrize("kind", KINDS)
def test_explain_refuses_other_kinds(kind: str, trained: tuple[Path, str]) -> None:
    out, run = trained
    with pytest.raises(mb.RequestError, match="cannot be explained: maps are of one image, choices") as raised:
        mb.explain(run, example(kind), out=out, offline=True)
    told(raised)
