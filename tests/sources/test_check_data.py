"""Data in every form that the hub or a user has it in: joined images, raw JSON lines, other data sets, the check."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from mmpt_bench import api
from mmpt_bench.cli.main import cli
from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.image_folders import image_folders
from mmpt_bench.evaluation.task import Task
from mmpt_bench.interop.answers.forms import GivenAnswer, GivenAnswers, read_answers
from mmpt_bench.interop.answers.score import score_answers
from mmpt_bench.runs.option_texts import dataset_names
from mmpt_bench.sources.check_data import check_data, report_lines
from mmpt_bench.sources.task_rows import Where, folder_rows, rows_of, samples
from support.paths import DATA, ROOT, needs_data
from support.tasks import task


def on(chosen: Task, name: str) -> Task:
    return chosen.on(chosen.data.named(name))


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.parent


def vsr(n: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "image": f"{i:012}.jpg",
            "image_link": f"http://images.cocodataset.org/train2017/{i:012}.jpg",
            "caption": f"The cat is under the table {i}.",
            "label": i % 2,
            "relation": "under",
        }
        for i in range(first, first + n)
    ]


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2), "red").save(path)


@pytest.mark.parametrize("place", ["", "train2017", "val2017", "images"])
def test_vsrs_names_are_joined_with_a_coco_folder_however_it_is_laid_out(tmp_path: Path, place: str) -> None:
    data = lines(tmp_path / "vsr" / "test.jsonl", vsr(2))
    coco = tmp_path / "work" / ".." / "coco"
    (tmp_path / "work").mkdir()
    for i in range(2):
        put(tmp_path / "coco" / place / f"{i:012}.jpg")
    rows = folder_rows(task("vsr"), data, {"coco": coco})
    assert [sample.image.open().size for sample in samples(task("vsr"), rows)] == [(3, 2), (3, 2)]


def test_missing_pictures_are_counted_once_each_with_the_rows_that_need_them(tmp_path: Path) -> None:
    data = lines(tmp_path / "vsr" / "test.jsonl", [*vsr(3), *vsr(3)])
    put(tmp_path / "coco" / f"{0:012}.jpg")
    wanted = r"2 images are missing, which 4 rows need: row 1: `000000000001.jpg`; row 2: .*--images coco=DIR"
    with pytest.raises(RequestError, match=wanted):
        folder_rows(task("vsr"), data, {"coco": tmp_path / "coco"})


def test_snli_ve_is_read_from_the_authors_json_lines(tmp_path: Path) -> None:
    rows = [
        {
            "Flickr30K_ID": "12",
            "gold_label": "neutral",
            "sentence1": "A dog.",
            "sentence2": "It is wet.",
            "pairID": "x",
        },
        {"Flikr30kID": "13.jpg", "gold_label": "entailment", "sentence1": "A man.", "sentence2": "He runs."},
    ]
    data = lines(tmp_path / "snli_ve" / "snli_ve_test.jsonl", rows)
    for name in ("12", "13"):
        put(tmp_path / "flickr" / "flickr30k-images" / f"{name}.jpg")
    found = samples(task("snli_ve"), folder_rows(task("snli_ve"), data, {"flickr30k": tmp_path / "flickr"}))
    assert [(s.answer, s.cluster) for s in found] == [("neutral", "12.jpg"), ("entailment", "13.jpg")]
    assert found[0].question.startswith("It is wet. Is the statement")
    lines(tmp_path / "snli_ve" / "snli_ve_test.jsonl", [rows[0], rows[1] | {"gold_label": "-"}])
    with pytest.raises(RequestError, match=r"row 1: column `gold_label` holds `-`"):
        folder_rows(task("snli_ve"), data)


@needs_data
def test_the_genuine_rows_of_snli_ve_load_as_they_are(tmp_path: Path) -> None:
    raw = DATA / "snli_ve" / "raw" / "snli_ve_test.genuine_rows.jsonl"
    (tmp_path / "snli_ve_test.jsonl").write_bytes(raw.read_bytes())
    assert len(samples(task("snli_ve"), folder_rows(task("snli_ve"), tmp_path, need_images=False))) == 66


@needs_data
@pytest.mark.parametrize(("name", "rows"), [("vsr_zeroshot", 1222), ("vsr_random", 2195)])
def test_vsr_is_read_from_the_hubs_own_json_lines(name: str, rows: int) -> None:
    found = folder_rows(task("vsr"), DATA / name / "raw", need_images=False)
    assert len(samples(task("vsr"), found)) == rows


@needs_data
def test_mmes_picture_is_found_in_the_authors_folder_and_the_rest_is_counted() -> None:
    report = check_data(task("mme"), Where(DATA, {"mme": DATA / "images" / "mme"}))
    assert (report.rows, report.pictures, report.pictures_missing) == (2374, 1187, 1186)
    assert report.labels == {"Yes": 1187, "No": 1187}


def test_a_subtasks_folder_of_pictures_may_stand_in_the_name_or_not(tmp_path: Path) -> None:
    put(tmp_path / "release" / "artwork" / "images" / "1.jpg")
    put(tmp_path / "release" / "count" / "2.png")
    rows = [
        {"question_id": name, "category": name.split("/")[0], "question": f"{i}?", "answer": ("Yes", "No")[i % 2]}
        for i, name in enumerate(["artwork/1.jpg", "artwork/images/1.jpg", "count/images/2.png", "count/2.png"])
    ]
    data = lines(tmp_path / "mme" / "test.jsonl", rows)
    found = folder_rows(task("mme"), data, {"mme": tmp_path / "release"})
    assert found.found is not None
    assert found.found.missing == ()


@needs_data
@pytest.mark.parametrize(("name", "share"), [("zeroshot", 3 / 1222), ("random", 0.559)])
def test_vsrs_overlap_with_its_training_split_is_shown(name: str, share: float) -> None:
    chosen = task("vsr") if name == "zeroshot" else on(task("vsr"), name)
    report = check_data(chosen, Where(DATA))
    assert report.seen_in_training == pytest.approx(share, abs=5e-4)
    assert any("overlap" in line for line in report_lines(report))
    assert (report.notes != ()) == (name == "random")


@needs_data
def test_popes_repeated_questions_are_counted() -> None:
    report = check_data(task("pope"), Where(DATA))
    assert report.rows - report.repeated == 5127
    assert (report.contradictory, report.groups["random"]) == (0, 3000)
    assert "--images coco=DIR" in report.fault


@needs_data
def test_complete_data_is_ready_and_has_the_fingerprint_of_a_run() -> None:
    report = check_data(task("mnist"), Where(DATA))
    assert (report.fault, report.rows, report.official_rows) == ("", 10_000, 10_000)
    assert report.fingerprint == folder_rows(task("mnist"), DATA).fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("coco", "write COLLECTION=DIR"),
        ("cocoo=.", "Did you mean `coco`"),
        ("coco=/nowhere", "no folder `/nowhere`"),
    ],
)
def test_a_wrong_collection_of_pictures_is_named(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        image_folders([text])


@needs_data
@pytest.mark.parametrize("form", ["raw", ""])
@pytest.mark.parametrize("name", ["zeroshot", "random"])
def test_vsrs_official_rows_are_known_by_what_they_say_in_either_form(name: str, form: str) -> None:
    chosen = task("vsr") if name == "zeroshot" else on(task("vsr"), name)
    report = check_data(chosen, Where(DATA / f"vsr_{name}" / form))
    assert report.official is True
    assert "  content: that of the official rows, word for word" in report_lines(report)


@needs_data
def test_the_pin_is_the_sha256_of_the_rows_canonical_json() -> None:
    rows = map(json.loads, (DATA / "vsr_random" / "raw" / "test.jsonl").read_text().splitlines())
    wanted = [[row[name] for name in ("image_link", "caption", "label", "relation")] for row in rows]
    text = json.dumps(wanted, separators=(",", ":"), ensure_ascii=False)
    pin = task("vsr").data.named("random").official.pin
    assert pin is not None
    assert pin.sha256 == hashlib.sha256(text.encode()).hexdigest()


def changed_label(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0] | {"label": 1 - rows[0]["label"]}, *rows[1:]]


@needs_data
@pytest.mark.parametrize("change", [changed_label, lambda rows: rows[::-1], lambda rows: rows[1:]])
def test_rows_that_say_something_else_are_said_to_differ_with_what_to_do(tmp_path: Path, change: Any) -> None:
    rows = [json.loads(line) for line in (DATA / "vsr_random" / "raw" / "test.jsonl").read_text().splitlines()]
    data = lines(tmp_path / "vsr_random" / "test.jsonl", change(rows))
    chosen = on(task("vsr"), "random")
    report = check_data(chosen, Where(data))
    assert report.official is False
    assert report_lines(report)[0].endswith("NOT the official rows")
    assert "the official ones 84d7abaa5189" in report.notes[-1]
    assert "data/splits/random/test.jsonl" in report.notes[-1]
    assert "--data" in report.notes[-1]


@needs_data
def test_another_data_set_of_the_hub_is_held_to_the_tasks_own_pin() -> None:
    other = on(task("vsr"), "somebody/vsr_copy")
    assert folder_rows(other, DATA / "vsr_random" / "raw", need_images=False).official is False
    assert folder_rows(other.on(other.data.training_split()), DATA / "vsr_zeroshot", need_images=False).official is None


def test_notes_on_rows_are_said_before_a_run_and_in_its_plan(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / "vsr_zeroshot" / "images" / f"{i:012}.jpg")
    lines(tmp_path / "vsr_zeroshot" / "test.jsonl", vsr(2))
    words = ["run", "--method", "frozen", "--tasks", "vsr", "--data", str(tmp_path), "--out", str(tmp_path), "--plan"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0
    assert "VSR: 2 rows; the official split has 1,222" in done.stderr
    assert "VSR: NOT the official rows" in done.stderr


def test_data_sets_are_names_of_the_task_or_of_the_hub() -> None:
    assert task("vsr").data.named("random").hub == "cambridgeltl/vsr_random"
    other = on(task("mme"), "lmms-lab-encoder/MME@abc")
    assert (other.data.hub, other.data.revision, other.data.official.rows) == ("lmms-lab-encoder/MME", "abc", 2374)
    assert task("mme").data.named("lmms-lab-encoder/MME").revision == "main"
    with pytest.raises(RequestError, match="Did you mean `random`"):
        task("vsr").data.named("randm")
    with pytest.raises(RequestError, match="one that `--tasks` does not name"):
        dataset_names(["vrs=random"], ["mme"])


@needs_data
def test_answers_are_matched_to_the_official_rows_and_what_is_missing_is_named() -> None:
    official = samples(task("pope"), folder_rows(task("pope"), DATA, need_images=False))
    given = read_answers([DATA / "published" / "pope_llava_v1.6_vicuna_7b_current.jsonl.gz"])
    assert score_answers(task("pope"), given, official).comparable
    some = GivenAnswers(given.form, tuple(a for a in given.answers if a.row["question_id"] not in ("7", "8")))
    missing = score_answers(task("pope"), some, official).missing
    assert missing[0] == "adversarial: 2 of 3,000 missing"
    assert missing[-1].startswith("first 6 of 6: `adversarial/7`")


@needs_data
def test_lmms_evals_row_numbers_are_matched_and_a_wrong_label_is_refused() -> None:
    official = samples(task("pope"), folder_rows(task("pope"), DATA, need_images=False))
    answers = [GivenAnswer(f"line {i}", {"answer": s.answer}, "Yes", i) for i, s in enumerate(official)]
    card = score_answers(task("pope"), GivenAnswers("lmms-eval", tuple(answers)), official)
    assert (card.n, card.n_pictures, card.values["yes_ratio"], card.comparable) == (9000, 500, 1.0, True)
    wrong = {"yes": "no", "no": "yes"}[official[5].answer]
    answers[5] = GivenAnswer("line 5", {"answer": wrong}, "Yes", 5)
    with pytest.raises(RequestError, match=rf"label is not the official one: line 5 says `{wrong}`"):
        score_answers(task("pope"), GivenAnswers("lmms-eval", tuple(answers)), official)
    for number in (-1, 9000):
        with pytest.raises(RequestError, match="belongs to no row"):
            score_answers(
                task("pope"), GivenAnswers("lmms-eval", (GivenAnswer("line 1", {}, "Yes", number),)), official
            )


def test_the_overlap_is_told_where_the_training_split_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = task("vsr")
    commit = tmp_path / "datasets--cambridgeltl--vsr_zeroshot" / "snapshots" / chosen.data.revision
    lines(commit / "test.jsonl", vsr(2))
    lines(commit / "train.jsonl", vsr(1))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a socket was opened"))
    assert check_data(chosen, Where(offline=True)).seen_in_training == 0.5
    (commit / "train.jsonl").unlink()
    assert check_data(chosen, Where(offline=True)).seen_in_training is None


def test_an_mme_image_with_one_question_is_found_before_anything_runs(tmp_path: Path) -> None:
    asked = [("a.png", "Yes"), ("a.png", "No"), ("b.png", "Yes")]
    rows = [
        {"question_id": name, "question": f"Is it {i}?", "answer": answer, "category": "color", "image": name}
        for i, (name, answer) in enumerate(asked)
    ]
    data = lines(tmp_path / "mme" / "test.jsonl", rows)
    for name in ("a.png", "b.png"):
        put(data / name)
    report = check_data(task("mme"), Where(data))
    assert "MME cannot be scored" in report.fault
    assert "`color/b.png` has 1" in report.fault
    with pytest.raises(RequestError, match=r"`color/b.png` has 1.*--on-bad-item skip"):
        api.plan("frozen", "mme", data=data, out=tmp_path / "out")
    planned = api.plan("frozen", "mme", data=data, out=tmp_path / "out", on_bad_item="skip")
    assert [(row["questions"], row["pictures"]) for row in planned.tasks] == [(2, 1)]
    assert any("1 of 3 questions left out" in note and "`color/b.png` has 1" in note for note in planned.notes)


@pytest.mark.parametrize("words", [[], ["--images"]])
def test_the_check_opens_every_image_and_names_those_that_do_not(words: list[str], tmp_path: Path) -> None:
    data = lines(tmp_path / "vsr" / "test.jsonl", vsr(3))
    for i in range(3):
        put(data / f"{i:012}.jpg")
    (data / f"{1:012}.jpg").write_bytes(b"torn")
    done = CliRunner().invoke(cli, ["data", "check", *words, "--tasks", "vsr", "--data", str(data)])
    assert done.exit_code == 3
    assert "VSR: NOT ready" in done.output
    assert "images: 1 do not open" in done.output
    assert "000000000001.jpg" in done.output


HEAD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: rows/test-*\n---\n"


def test_files_that_a_readme_passes_over_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "vsr_zeroshot"
    lines(folder / "rows" / "test-0.jsonl", vsr(2))
    lines(folder / "test.jsonl", vsr(3))
    lines(folder / "old" / "my_test.jsonl", vsr(1))
    lines(folder / "train.jsonl", vsr(1))
    (folder / "README.md").write_text(HEAD)
    report = check_data(task("vsr"), Where(tmp_path))
    assert (report.rows, report.files) == (2, ("rows/test-0.jsonl",))
    assert report.not_read == ("old/my_test.jsonl", "test.jsonl")
    assert "  files: rows/test-0.jsonl; not read: old/my_test.jsonl, test.jsonl" in report_lines(report)
    assert "rows are read from rows/test-0.jsonl; not read: test.jsonl" in report.notes
    (folder / "test.jsonl").unlink()
    assert not any("not read" in note for note in check_data(task("vsr"), Where(tmp_path)).notes)


def digits(folder: Path) -> Path:
    """Returns a folder of rows of MNIST whose columns are called otherwise."""
    for i in range(10):
        put(folder / f"{i}.png")
    return lines(folder / "test.jsonl", [{"picture": f"{i}.png", "digit": i} for i in range(10)])


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--method", "frozen", "--tasks", "mnist", "--plan"],
        ["ablate", "--method", "mmpt", "--prompt-len", "5", "--tasks", "mnist", "--plan"],
        ["tune", "--method", "lora", "--plan"],
        ["data", "check", "--tasks", "mnist"],
        ["check", str(ROOT / "tasks" / "mnist.py")],
        ["score", "mnist", "answers.jsonl"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_every_command_that_reads_rows_is_told_columns(words: list[str], tmp_path: Path) -> None:
    wrong = [*words, "--data", str(digits(tmp_path)), "--columns", "pictures=x"]
    if words[0] in ("run", "ablate", "tune", "score"):
        (tmp_path / "answers.jsonl").write_text('{"index": 0, "reply": "7"}\n')
        wrong = [str(tmp_path / word) if word == "answers.jsonl" else word for word in wrong]
    wrong += ["--dev-tasks", "mnist"] if words[0] == "tune" else []
    if words[0] == "tune":
        lines(tmp_path / "validation.jsonl", [{"picture": f"{i}.png", "digit": i} for i in range(10)])
    told = CliRunner().invoke(cli, wrong)
    said = f"{told.output} {told.exception}"
    assert "no column `pictures`" in said, said


def test_a_task_is_checked_on_rows_whose_columns_are_told(tmp_path: Path) -> None:
    results = api.check(ROOT / "tasks" / "mnist.py", data=digits(tmp_path), columns=["image=picture,label=digit"])
    assert [result.name for result in results if not result.ok] == []


def test_columns_stand_in_the_name_of_the_data(tmp_path: Path) -> None:
    columns = (("", "image", "picture"), ("mnist", "label", "digit"))
    rows = rows_of(task("mnist"), Where(digits(tmp_path), columns=columns))
    assert ", column image=picture, column label=digit" in rows.origin
