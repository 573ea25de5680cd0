"""Protocols of papers, from items to tables: hand-made items, hand-worked scores, seeds, judges, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mmpt_bench as mb
from mmpt_bench.common.errors import Interrupted, RequestError
from mmpt_bench.data.images import LazyImage
from mmpt_bench.evaluation.protocols import SEVEN, Item
from mmpt_bench.runs.events import Reporter
from mmpt_bench.study.protocols.board import Answered, ProtocolRow, protocol_rows
from mmpt_bench.study.protocols.tables import FOLDER, ProtocolResult, protocol_md
from support.command import bench


def items(n: int, group: str = "", targets: tuple[str, ...] = ("yes", "no")) -> tuple[Item, ...]:
    image = LazyImage("i", lambda: Image.new("RGB", (2, 2)))
    return tuple(Item(f"{group}{i}", image, f"{group}{i // 2}", "?", targets[i % 2], group) for i in range(n))


def answered(file: str, right: str, method: str = "frozen", seed: int | None = None) -> Answered:
    """Returns replies to items of a file: `1` is the target, `0` another word, `+` right to a person alone."""
    asked = items(len(right))
    said = {"1": lambda t: f"{t.capitalize()}.", "0": lambda _: "maybe", "+": lambda t: f"It is {t}"}
    return Answered(method, seed, file, "k", asked, tuple(said[m](i.target) for m, i in zip(right, asked, strict=True)))


RIGHT = {
    "text_vqa": "1100", "visual_spatial_reasoning": "1111", "snli_ve_classification": "1000", "cifar_10": "1110",
    "cifar_100": "0000", "mnist": "1111", "pope_rand": "1111", "pope_pop": "1100", "pope_adv": "0000",
}  # fmt: skip


def by_name(rows: tuple[ProtocolRow, ...]) -> dict[str, ProtocolRow]:
    return {row.name: row for row in rows}


def test_mmavg_of_hand_made_items_is_the_one_worked_out_by_hand() -> None:
    rows = by_name(protocol_rows([answered(file, right) for file, right in RIGHT.items()], None))
    assert rows["POPE"].score == 0.5
    # 0.5 + 1 + 0.25 + 0.75 + 0 + 1 + 0.5 = 4
    assert rows["MMAvg"].score == pytest.approx(4 / 7)
    assert rows["MMAvg"].n == 9 * 4
    low, high = rows["MMAvg"].interval
    assert low < 4 / 7 < high
    assert rows["cifar_100"].interval == (0.0, 0.0)


def test_seeds_are_averaged_and_a_judge_stands_beside_exact_match() -> None:
    said = [answered("mnist", right, "lora", seed) for seed, right in enumerate(("11+0", "1+00"))]
    verdicts = {key: reply != "maybe" for each in said for _, reply, key in each.with_keys()}
    row = by_name(protocol_rows(said, verdicts))["mnist"]
    assert row.seeds == (0, 1)
    assert row.score == pytest.approx((2 + 1) / 8)
    assert row.judged == pytest.approx((3 + 2) / 8)
    assert "MMAvg" not in by_name(protocol_rows(said, verdicts))


def test_mme_is_read_as_in_the_authors_pipeline_and_scored_in_points() -> None:
    asked = (*items(4, "OCR"), *items(2, "code_reasoning"))
    replies = ("Eyes", "I do not know", "yes", "yes", "maybe", "no")
    rows = by_name(protocol_rows([Answered("frozen", None, "mme", "k", asked, replies)], None))
    # OCR: 3 of 4 right, 1 of 2 images: 75 + 50. Code: 1 of 2 right, 0 of 1 images: 50.
    assert rows["MME perception"].score == 125
    assert rows["MME cognition"].score == 50
    assert rows["MME total"].score == 175


@pytest.mark.parametrize("group", ["cooking", "OCR"])
def test_mme_items_that_are_no_pairs_or_of_no_subtask_are_refused(group: str) -> None:
    asked = items(2 if group == "cooking" else 3, group)
    with pytest.raises(RequestError, match="items of MME cannot be scored"):
        protocol_rows([Answered("frozen", None, "mme", "k", asked, ("yes",) * len(asked))], None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of items as the authors write them: six of MNIST, and an image of MME with two questions."""
    top = tmp_path_factory.mktemp("items")
    (top / "images").mkdir()
    rows = []
    for n in range(6):
        Image.new("RGB", (32, 32), (40 * n, 0, 90)).save(top / "images" / f"{n}.png")
        rows.append({"unique_id": f"m{n}", "image_path": f"{n}.png", "prompt": "which digit ?", "target": str(n)})
    (top / "mnist.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = [{"question_id": "0.png", "image": "0.png", "text": text, "category": "color", "target": target}
            for text, target in (("is it red ?", "Yes"), ("is it green ?", "No"))]  # fmt: skip
    (top / "mme.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pair))
    return top


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ProtocolResult:
    return mb.protocol("mrt", "frozen", items=folder, out=tmp_path_factory.mktemp("protocol"))


def test_the_authors_items_are_asked_as_they_are_and_nothing_is_asked_twice(made: ProtocolResult, folder: Path) -> None:
    assert {row.name for row in made.rows} == {"mnist", "MME perception", "MME total"}
    kept = sorted(made.folder.glob("runs/*/protocol-*.jsonl"))
    before = [path.read_bytes() for path in kept]
    assert [len(data.splitlines()) for data in before] == [2, 6]
    again = mb.protocol("mrt", "frozen", items=folder, out=made.folder)
    assert (again.name, again.rows) == (made.name, made.rows)
    assert [path.read_bytes() for path in kept] == before


def test_another_sampling_seed_protocol_or_image_is_another_result(
    made: ProtocolResult, folder: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "items"
    shutil.copytree(folder, changed)
    Image.new("RGB", (32, 32), (255, 255, 255)).save(changed / "images" / "0.png")
    options: dict[str, Any] = {"tasks": "mnist", "out": made.folder}
    names = [
        mb.protocol("mrt", "frozen", items=folder, **options).name,
        mb.protocol("m2pt", "frozen", items=folder, **options).name,
        mb.protocol("mrt", "frozen", items=folder, sample_seed=1, **options).name,
        mb.protocol("mrt", "frozen", items=changed, **options).name,
    ]
    assert len({name.partition("-")[2] for name in names}) == 3  # of MNIST alone, mrt and m2pt ask the same
    assert names[0] != names[2]


def test_tables_say_whose_items_they_are_and_what_mmavg_lacks(made: ProtocolResult) -> None:
    text = protocol_md(made).decode()
    assert "nobody has verified" in text
    assert "No MMAvg: text_vqa" in text
    with (made.folder / FOLDER / f"{made.name}.csv").open() as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    assert (rows["MME total"]["temperature"], rows["MME total"]["new_tokens"]) == ("0.4", "8")
    assert (rows["mnist"]["temperature"], rows["mnist"]["new_tokens"]) == ("0.2", "50")
    assert len(made.table) == 3


def test_verdicts_come_from_a_file_and_each_reply_needs_one(made: ProtocolResult, folder: Path, tmp_path: Path) -> None:
    verdicts = tmp_path / "verdicts.jsonl"
    verdicts.write_text("\n")
    options: dict[str, Any] = {"tasks": "mnist", "items": folder, "out": made.folder}
    with pytest.raises(RequestError, match=r"has no verdict on (\d) of \1 replies"):
        mb.protocol("mrt", "frozen", judge=verdicts, **options)
    replies = [json.loads(line) for path in (made.folder / FOLDER).glob("*-replies.jsonl") for line in path.open()]
    verdicts.write_text("".join(json.dumps({"key": row["key"], "correct": True}) + "\n" for row in replies))
    (row,) = mb.protocol("mrt", "frozen", judge=verdicts, **options).rows
    assert row.judged == 1.0
    verdicts.write_text('{"key": "a", "correct": "yes"}\n')
    with pytest.raises(RequestError, match="is no verdict"):
        mb.protocol("mrt", "frozen", judge=verdicts, **options)
    verdicts.write_text("".join(json.dumps({"key": "a", "correct": right}) + "\n" for right in (True, False)))
    with pytest.raises(RequestError, match=r"Line 2 of `verdicts\.jsonl` contradicts an earlier verdict on `a`"):
        mb.protocol("mrt", "frozen", judge=verdicts, **options)


def test_verdicts_that_nothing_needs_are_refused_or_said(made: ProtocolResult, folder: Path, tmp_path: Path) -> None:
    verdicts, told = tmp_path / "verdicts.jsonl", list[str]()
    options: dict[str, Any] = {"tasks": "mme", "items": folder, "out": made.folder}
    verdicts.write_text("")
    with pytest.raises(RequestError, match=r"`verdicts\.jsonl` is empty, and no reply needs a verdict"):
        mb.protocol("mrt", "frozen", judge=verdicts, **options)
    verdicts.write_text('{"key": "a", "correct": true}\n')
    mb.protocol("mrt", "frozen", judge=verdicts, reporter=Reporter(said=told.append), **options)
    assert told == [
        "1 of 1 verdicts in `verdicts.jsonl` are on no reply that is judged here, first `a`. MME is never judged."
    ]


def test_a_local_model_judges_what_is_not_the_target_and_its_verdicts_are_kept(
    made: ProtocolResult, folder: Path
) -> None:
    options: dict[str, Any] = {"tasks": "mnist", "items": folder, "out": made.folder, "judge": "embedded"}
    (row,) = mb.protocol("mrt", "frozen", **options).rows
    assert row.judged is not None
    assert row.judged >= row.score
    (kept,) = (made.folder / FOLDER / "verdicts").glob("*.jsonl")
    before = kept.read_bytes()
    assert mb.protocol("mrt", "frozen", **options).rows == (row,)
    assert kept.read_bytes() == before


def test_without_the_authors_items_the_table_says_so(tmp_path: Path) -> None:
    made = mb.protocol("mrt", "frozen", "visual_spatial_reasoning", out=tmp_path, limit=4)
    with pytest.raises(RequestError, match="no items of `cifar_100` without `--items`"):
        mb.protocol("mrt", "frozen", "visual_spatial_reasoning,cifar_100", out=tmp_path, limit=4)
    assert [each.file for each in made.files] == ["visual_spatial_reasoning"]
    assert "Not the paper's items" in protocol_md(made).decode()
    assert "cifar_100" in made.missing
    assert set(SEVEN["POPE"]) <= set(made.missing)


def test_a_trained_method_is_asked_with_its_adapter(folder: Path, tmp_path: Path) -> None:
    quick: dict[str, Any] = {"steps": 3, "batch_size": 4, "set": ["lora.r=2", "lora.learning_rate=0.05"]}
    mb.run("lora", "vsr", out=tmp_path, limit=4, **quick)
    made = mb.protocol("mixlora", "frozen,lora", "mnist", items=folder, out=tmp_path, **quick)
    assert [(row.method, row.seeds, row.n) for row in made.rows] == [("frozen", (), 6), ("lora", (0,), 6)]
    with pytest.raises(RequestError, match="`lora`, seed 1, is not trained"):
        mb.protocol("mixlora", "lora", "mnist", items=folder, out=tmp_path, seeds=[0, 1], **quick)


@pytest.mark.slow
def test_the_command_says_whose_items_it_asked(folder: Path, tmp_path: Path) -> None:
    words = ("protocol", "mrt", "--method", "frozen", "--tasks", "mnist", "--out", "o")
    said = bench(*words, "--items", str(folder), cwd=tmp_path)
    assert "nobody has verified" in said.stdout
    assert "No MMAvg: text_vqa" in said.stdout
    assert json.loads(bench(*words, "--limit", "2", "--json", cwd=tmp_path).stdout)["items"].startswith(
        "Not the paper's items"
    )


def test_an_interrupted_run_keeps_its_replies(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="6 of 6 items of mnist"):
        mb.protocol("mrt", "frozen", "mnist", items=folder, out=tmp_path, stopping=lambda: True)
    assert len(next(tmp_path.glob("runs/*/protocol-mnist.jsonl")).read_bytes().splitlines()) == 6


def test_a_reply_depends_on_its_seed_and_item_alone() -> None:
    from mmpt_bench.data.samples import Sample
    from mmpt_bench.engine.inference.plain import Question, answer, sampled
    from mmpt_bench.engine.models.backbone import load_backbone

    backbone = load_backbone("embedded")
    image = LazyImage("i", lambda: Image.new("RGB", (32, 32), (200, 30, 30)))
    asked = [
        Question(backbone.prompt_text(f"say {word} ."), [Sample(word, image, "", (), "")])
        for word in ("red", "cat", "two")
    ]
    hot = {"temperature": 5.0, "top_k": 50, "new_tokens": 6, "seed": 0}
    first = list(sampled(backbone, asked, hot))
    assert list(sampled(backbone, asked[::-1], hot))[::-1] == first
    assert list(sampled(backbone, asked, hot | {"seed": 1})) != first
    greedy = list(sampled(backbone, asked, hot | {"temperature": 0.0}))
    plain = [answer(backbone, 6, [one], backbone.encode([image.open()]))[0][0].strip() for one in asked]
    assert greedy == plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "m2p"}, "no protocol `m2p`. Did you mean `m2pt`"),
        ({"tasks": "mnits"}, "no file of items `mnits`"),
        ({"tasks": " , "}, "name files of items, each once, or `all`"),
        ({"tasks": "mnist,mnist"}, "name files of items, each once, or `all`"),
        ({"tasks": "mnist,text_vqa"}, "no items of `text_vqa` without `--items`: leave it out"),
        ({"method": "lora"}, "`lora`, seed 0, is not trained"),
        ({"items": "nowhere"}, "no folder `nowhere`"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"name": "m2pt", "method": "frozen", "tasks": "mnist", "out": tmp_path} | change
    with pytest.raises(RequestError, match=message):
        mb.protocol(**given)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"unique_id": "a", "image_path": "0.png", "prompt": "?"}, "line 1: it has no `target`"),
        ({"unique_id": "a", "image_path": "9.png", "prompt": "?", "target": "1"}, r"its image `9\.png` is neither"),
        ({"unique_id": "a", "image_path": "../x.png", "prompt": "?", "target": "1"}, "is neither"),
    ],
)
def test_items_that_cannot_be_used_are_named(folder: Path, tmp_path: Path, row: dict[str, Any], message: str) -> None:
    own = tmp_path / "items"
    shutil.copytree(folder, own)
    (own / "mnist.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(RequestError, match=message):
        mb.protocol("m2pt", "frozen", "mnist", items=own, out=tmp_path / "out")
