"""Bad images, questions and examples: found before anything runs, refused or left out, and the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmpt_bench import api
from mmpt_bench.common.errors import RequestError, RunFailed
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs import execute
from support.families import qwen2_vl
from support.paths import CASES

ASKED = {"steps": 2, "batch_size": 2}
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not beside this checkout")


def conversations(folder: Path, questions: list[str]) -> Path:
    """Writes training data in LLaVA's form: an image and a question a row, answered with yes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, question in enumerate(questions):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i:02}.png")
        said = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": "yes"}]
        rows.append({"id": str(i), "image": f"{i:02}.png", "conversations": said})
    (folder / "mixture.json").write_text(json.dumps(rows))
    return folder / "mixture.json"


def digits(folder: Path, images: list[bytes]) -> Path:
    """Writes MNIST rows of encoded images, all of the class 3."""
    (folder / "mnist" / "mnist").mkdir(parents=True)
    rows = [{"image": {"bytes": data, "path": f"{i}.png"}, "label": 3} for i, data in enumerate(images)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "mnist" / "mnist" / "test-00000-of-00001.parquet")
    return folder


def png(path: Path, size: tuple[int, int] = (28, 28), shade: int = 0) -> bytes:
    Image.new("L", size, shade).save(path)
    return path.read_bytes()


def by_task(records: list[Record]) -> dict[tuple[str, str], Record]:
    return {(record.method, record.task): record for record in records}


@pytest.mark.parametrize("kind", ["torn", "long", "image token in the question"])
def test_a_bad_example_is_found_before_the_first_step_and_can_be_left_out(kind: str, tmp_path: Path) -> None:
    questions = ["Is it red?"] * 60
    questions[30] = {"long": "Is it red? " * 400, "torn": "Is it red?"}.get(kind, "Is the second <image> red?")
    file = conversations(tmp_path / "data", questions)
    if kind == "torn":
        whole = (file.parent / "30.png").read_bytes()
        (file.parent / "30.png").write_bytes(whole[: len(whole) // 2])
    wanted: dict[str, Any] = {"tasks": "mme", "limit": 2, "train_data": str(file), "out": tmp_path / "out", **ASKED}
    if kind.startswith("image"):
        # Such a conversation is left out when the file is read.
        assert api.plan("projector", **wanted).corpus["bad_examples"] == 0
        return
    summary = api.plan("projector,lora", **wanted)
    assert summary.corpus["bad_examples"] == 1
    assert any("1 example cannot be used" in note and "training example 30" in note for note in summary.notes)
    with pytest.raises(RequestError, match=r"1 example cannot be used: .*training example 30.*--on-bad-item skip"):
        api.run("projector,lora", **wanted)
    assert not Store(tmp_path / "out").records()
    made = by_task(list(api.run("projector,frozen", **wanted, on_bad_item="skip").made))
    assert {record.status for record in made.values()} == {"ok"}
    assert {record.corpus for record in made.values()} == {"mixture, 1 bad examples left out"}
    assert len({record.track for record in made.values()}) == 1


def test_without_a_bad_example_the_training_data_have_one_fingerprint_under_both_settings(tmp_path: Path) -> None:
    file = conversations(tmp_path, ["Is it red?"] * 20)
    asked: dict[str, Any] = {"tasks": "mme", "limit": 2, "train_data": str(file), "out": tmp_path / "out"}
    names = [{run["run"] for run in api.plan("lora", **asked, on_bad_item=way).runs} for way in ("fail", "skip")]
    assert names[0] == names[1]


def test_a_torn_test_image_fails_its_task_alone_and_can_be_left_out(tmp_path: Path) -> None:
    good = [png(tmp_path / f"{i}.png", shade=i) for i in range(6)]
    data = digits(tmp_path / "data", [*good, good[0][:-30]])
    asked: dict[str, Any] = {"data": data, "out": tmp_path / "out"}
    (tmp_path / "mine.py").write_bytes((Path(api.__file__).parents[1] / "tasks" / "_template.py").read_bytes())
    tasks = f"mnist,{tmp_path / 'mine.py'}"
    (found, _) = api.plan("frozen", tasks, **asked).tasks
    assert found["bad_items"] == 1
    made = by_task(list(api.run("frozen", tasks, **asked).made))
    assert made["frozen", "mine"].status == "ok"
    failed = made["frozen", "mnist"]
    assert failed.status == "failed"
    assert "sample `6`" in failed.reason
    assert failed.reason.startswith("MNIST: 1 of 7 images")
    (board,) = api.run("frozen", tasks, **asked).boards
    assert [(failure.label, failure.reason) for failure in board.failures] == [("frozen", failed.reason)]
    # Left out, it is another set of rows, which the record and the board say; the failure is history.
    skipped = by_task(list(api.run("frozen", tasks, **asked, on_bad_item="skip").made))
    assert list(skipped) == [("frozen", "mnist")]
    record = skipped["frozen", "mnist"]
    assert (record.n, record.status) == (6, "ok")
    assert "1 of 7 questions left out" in record.dataset
    assert record.data_fingerprint != failed.data_fingerprint
    (board,) = api.run("frozen", tasks, **asked, on_bad_item="skip").boards
    assert not board.failures
    assert any("1 of 7 questions left out" in text for text in board.left_out)


def test_a_processor_that_refuses_an_image_is_found_before_anything_runs(tmp_path: Path) -> None:
    # Qwen2-VL takes no image that is 200 times as wide as high.
    (tmp_path / "model").mkdir()
    images = [png(tmp_path / "a.png"), png(tmp_path / "b.png", (300, 1))]
    asked: dict[str, Any] = {"backbone": str(qwen2_vl(tmp_path / "model")), "out": tmp_path / "out"}
    summary = api.plan("frozen", "mnist", data=digits(tmp_path / "data", images), **asked)
    assert summary.tasks[0]["bad_items"] == 1
    assert any("`mnist/1` is refused by the backbone's processor" in note for note in summary.notes)


def test_a_task_whose_answers_fail_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = execute._evaluate

    def failing(session: Any, job: Any, folder: Any, base: Any, item: Any) -> Record:
        if item.task.name == "mme":
            raise RunFailed("log-probabilities of sample `x` are not finite")
        return evaluate(session, job, folder, base, item)

    monkeypatch.setattr(execute, "_evaluate", failing)
    made = by_task(list(api.run("frozen", "mme,mnist", limit=2, out=tmp_path).made))
    assert made["frozen", "mme"].status == "failed"
    assert made["frozen", "mnist"].status == "ok"
    monkeypatch.undo()
    results = api.run("frozen", "mme,mnist", limit=2, out=tmp_path)
    assert [record.task for record in results.made] == ["mme"]
    assert not results.boards[0].failures


@needs_cases
def test_the_case_of_one_bad_test_image(tmp_path: Path) -> None:
    data = CASES / "14-one-bad-test-picture" / "data"
    made = by_task(list(api.run("frozen", "pope,mnist", data=data, out=tmp_path).made))
    assert [(task, record.status) for (_, task), record in made.items()] == [("pope", "failed"), ("mnist", "ok")]
    assert "p1.jpg" in made["frozen", "pope"].reason


@needs_cases
@pytest.mark.parametrize("name", ["picture_cut_short", "example_too_long"])
def test_the_case_of_one_bad_training_example(name: str, tmp_path: Path) -> None:
    case = CASES / "13-one-bad-training-example"
    asked: dict[str, Any] = {"train_data": str(case / f"{name}.json"), "train_images": case / "img", "limit": 2}
    assert api.plan("lora", "mme", **asked, out=tmp_path).corpus["bad_examples"] == 1
