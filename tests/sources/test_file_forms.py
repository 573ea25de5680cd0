"""The same rows in every form that people keep them in are the same samples; what is broken is named, never guessed."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

import mmpt_bench as mb
from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.images import BadImage, decoded, image_bytes
from mmpt_bench.data.text_files import MAX_WORKBOOK, excel_rows
from mmpt_bench.evaluation.task import Task
from mmpt_bench.sources.check_data import check_data
from mmpt_bench.sources.task_rows import Where, folder_rows, rows_of, samples
from support.paths import CASES
from support.tasks import task

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not beside this checkout")
CLASSES = ("red", "green", "blue")
COLOURS = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
LABELS = (2, 0, 1, 1, 0, 2, 0)


def encoded(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), COLOURS[LABELS[number]]).save(stream, "PNG")
    return stream.getvalue()


def as_rows(image: Callable[[int], Any], label: Callable[[int], Any] = lambda label: label) -> list[dict[str, Any]]:
    return [
        {"image": image(i), "question": f"Which colour, {i}?", "label": label(each)} for i, each in enumerate(LABELS)
    ]


def held(number: int) -> dict[str, Any]:
    return {"bytes": encoded(number), "path": None}


def named(number: int) -> str:
    return f"p{number}.png"


def as_base64(number: int) -> str:
    return base64.b64encode(encoded(number)).decode()


def sample(row: Any, number: int, label_names: Any) -> mb.Sample:
    return mb.Sample(
        id=str(number),
        image=mb.read_image(row["image"], f"colours/{number}", str(number)),
        question=mb.read_text(row, "question"),
        choices=tuple(label_names),
        answer=mb.read_label(row, "label", label_names),
        cluster=str(number),
    )


COLOUR = replace(
    task("cifar10"),
    name="colour",
    sample=sample,
    data=mb.Dataset("x/colour", "0" * 40, ("image", "question", "label"), label_column="label", classes=CLASSES),
)


def text_table(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def with_files(folder: Path) -> None:
    (folder / "images").mkdir(exist_ok=True)
    for i in range(len(LABELS)):
        (folder / "images" / named(i)).write_bytes(encoded(i))


def saved(folder: Path, image: str = "Image", split: str | None = None) -> None:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "question": datasets.Value("string"), "label": datasets.ClassLabel(names=CLASSES)}
    )
    made = datasets.Dataset.from_list(as_rows(held), features=features)
    (datasets.DatasetDict({split: made}) if split else made).save_to_disk(folder, num_shards=None if split else 2)


def tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def shards(folder: Path) -> None:
    for shard, part in enumerate((range(4), range(4, 7))):
        members = []
        for i in part:
            members.append((f"a/{i:04}.png", encoded(i)))
            members.append((f"a/{i:04}.json", json.dumps({"question": f"Which colour, {i}?"}).encode()))
            members.append((f"a/{i:04}.cls", str(LABELS[i]).encode()))
        tar(folder / f"test-{shard:06}.tar", members)


def image_folder(folder: Path) -> None:
    (folder / "test").mkdir()
    for i in range(len(LABELS)):
        (folder / "test" / named(i)).write_bytes(encoded(i))
    rows = [{"file_name": named(i), "question": row["question"], "label": CLASSES[row["label"]]}
            for i, row in enumerate(as_rows(named))]  # fmt: skip
    (folder / "test" / "metadata.csv").write_text(text_table(rows))


def table_of(rows: list[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)


NAME = lambda label: CLASSES[label]  # noqa: E731
FORMS: dict[str, Callable[[Path], Any]] = {
    "parquet, bytes": lambda f: table_of(as_rows(encoded), f / "test.parquet"),
    "parquet, base64, class names": lambda f: table_of(as_rows(as_base64, NAME), f / "data" / "test.parquet"),
    "csv": lambda f: (with_files(f), (f / "test.csv").write_text(text_table(as_rows(named)))),
    "tsv, gzip, base64, class names": lambda f: (f / "test.tsv.gz").write_bytes(
        gzip.compress(text_table(as_rows(as_base64, lambda label: CLASSES[label].upper()), "\t").encode())
    ),
    "json array, data addresses": lambda f: (f / "test.json").write_text(
        json.dumps(as_rows(lambda i: f"data:image/png;base64,{as_base64(i)}"), indent=1)
    ),
    "json object": lambda f: (with_files(f), (f / "colour_test.json").write_text(json.dumps({"data": as_rows(named)}))),
    "json lines, base64 in bytes": lambda f: (f / "test.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in as_rows(lambda i: {"bytes": as_base64(i)}))
    ),
    "one file of no split": lambda f: (with_files(f), (f / "mine.csv").write_text(text_table(as_rows(named, NAME)))),
    "save_to_disk": saved,
    "save_to_disk, DatasetDict": lambda f: saved(f, split="test"),
    "image folder with metadata": image_folder,
    "webdataset": shards,
}


def expect_colours(made: list[mb.Sample]) -> None:
    assert [each.answer for each in made] == [CLASSES[label] for label in LABELS]
    assert [each.question for each in made] == [f"Which colour, {i}?" for i in range(len(LABELS))]
    assert [each.image.open().getpixel((0, 0)) for each in made] == [COLOURS[label] for label in LABELS]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_in_every_form_are_the_same_samples(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "colour"
    folder.mkdir()
    FORMS[form](folder)
    rows = folder_rows(COLOUR, tmp_path)
    expect_colours(samples(COLOUR, rows))
    unsaid = form in ("one file of no split", "save_to_disk")
    assert any("does not say which split it is" in note for note in rows.notes) == unsaid
    assert rows.fingerprint == folder_rows(COLOUR, tmp_path).fingerprint


def test_one_file_may_be_named_instead_of_a_folder(tmp_path: Path) -> None:
    with_files(tmp_path)
    (tmp_path / "mine.csv").write_text(text_table(as_rows(named)))
    expect_colours(samples(COLOUR, rows_of(COLOUR, Where(tmp_path / "mine.csv"))))


def test_what_does_not_say_its_split_is_never_trained_on(tmp_path: Path) -> None:
    with_files(tmp_path)
    (tmp_path / "mine.csv").write_text(text_table(as_rows(named)))
    train = COLOUR.on(COLOUR.data.training_split())
    for where in (tmp_path, tmp_path / "mine.csv"):
        with pytest.raises(RequestError, match=r"no split `train`|does not say that it is a training split"):
            folder_rows(train, where)


def test_folders_of_classes_are_images_and_labels(tmp_path: Path) -> None:
    for i, label in enumerate(LABELS):
        path = tmp_path / "test" / CLASSES[label] / named(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(i))
    wanted = replace(COLOUR, sample=lambda row, n, names: sample(row | {"question": "Which?"}, n, names))
    wanted = wanted.on(replace(COLOUR.data, columns=("image", "label")))
    made = samples(wanted, folder_rows(wanted, tmp_path))
    assert sorted(each.answer for each in made) == sorted(CLASSES[label] for label in LABELS)
    assert all(each.image.open().getpixel((0, 0)) == COLOURS[CLASSES.index(each.answer)] for each in made)
    before = folder_rows(wanted, tmp_path).fingerprint
    (tmp_path / "test" / "red" / named(1)).write_bytes(encoded(0))
    assert folder_rows(wanted, tmp_path).fingerprint != before
    (tmp_path / "test" / "red").rename(tmp_path / "test" / "rouge")
    with pytest.raises(RequestError, match=r"no class of red, green, blue: row \d: `label` is 'rouge'"):
        folder_rows(wanted, tmp_path)


def renamed(columns: dict[str, str], rows: list[dict[str, Any]], folder: Path) -> Any:
    (folder / "test.json").write_text(json.dumps(rows))
    where = Where(folder, columns=tuple(("", wanted, own) for wanted, own in columns.items()))
    return rows_of(COLOUR, where)


def test_other_column_names_are_told_by_columns(tmp_path: Path) -> None:
    rows = [
        {"img": row["image"], "q": row["question"], "class": row["label"], "label": 9} for row in as_rows(as_base64)
    ]
    columns = {"image": "img", "question": "q", "label": "class"}
    found = renamed(columns, rows, tmp_path)
    expect_colours(samples(COLOUR, found))
    assert "columns are named img for image, q for question, class for label" in found.notes
    other = renamed({"image": "img", "question": "q"}, [row | {"label": 0} for row in rows], tmp_path)
    assert other.fingerprint != found.fingerprint
    with pytest.raises(RequestError, match=r"no column `imgs`. Did you mean `img`\?.*has img, q, class, label"):
        renamed(columns | {"image": "imgs"}, rows, tmp_path)
    with pytest.raises(RequestError, match=r"no column `lable`. Did you mean `label`\?"):
        renamed({"lable": "class"}, rows, tmp_path)


def test_columns_of_rows_that_are_made_are_refused() -> None:
    with pytest.raises(RequestError, match=r"`--columns` is for rows from files, and those of `mme` are made"):
        rows_of(task("mme"), Where(embedded=True, columns=(("", "image", "img"),)))


def test_popes_own_files_are_read_with_their_columns_told(tmp_path: Path) -> None:
    rows = [
        {
            "question_id": i,
            "image": f"COCO_{i // 2}.jpg",
            "text": f"Is there a thing {i}?",
            "label": ("yes", "no")[i % 2],
        }
        for i in range(1, 5)
    ]
    for row in rows:
        (tmp_path / row["image"]).write_bytes(encoded(0))
    (tmp_path / "pope.json").write_text("".join(json.dumps(row | {"category": "random"}) + "\n" for row in rows))
    columns = (("", "question", "text"), ("", "answer", "label"), ("pope", "image_source", "image"), ("vsr", "x", "y"))
    pope = task("pope")
    made = samples(pope, rows_of(pope, Where(tmp_path / "pope.json", {"coco": tmp_path}, columns=columns)))
    assert [each.id for each in made] == [f"random/{i}" for i in range(1, 5)]
    assert [each.answer for each in made] == ["no", "yes", "no", "yes"]


def parts(folder: Path, *tables: pa.Table) -> Path:
    folder.mkdir(exist_ok=True)
    for i, table in enumerate(tables):
        parquet.write_table(table, folder / f"test-{i:05}-of-{len(tables):05}.parquet")
    return folder


def test_shards_whose_order_and_types_differ_are_put_together(tmp_path: Path) -> None:
    rows = as_rows(encoded)
    one = pa.Table.from_pylist(rows[:4])
    other = pa.Table.from_pylist([dict(reversed(row.items())) for row in rows[4:]])
    place = other.column_names.index("label")
    other = other.set_column(place, "label", other.column("label").cast(pa.int8()))
    expect_colours(samples(COLOUR, folder_rows(COLOUR, parts(tmp_path, one, other))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.drop_columns(["question"]),
            "test-00001-of-00002.parquet` has no column `question`, which `test-0",
        ),
        (lambda t: t.append_column("more", t.column("label")), "test-00000-of-00002.parquet` has no column `more`"),
        (
            lambda t: t.set_column(2, "label", pa.array([[1]] * len(t))),
            r"Column `label` is int64 in `test-00000.*and list<.*in `test-00001.*write one type",
        ),
    ],
    ids=["lacks", "has more", "another type"],
)
def test_shards_that_do_not_go_together_are_named(tmp_path: Path, change: Any, message: str) -> None:
    rows = as_rows(encoded)
    one, other = (pa.Table.from_pylist(part) for part in (rows[:4], rows[4:]))
    with pytest.raises(RequestError, match=message):
        folder_rows(COLOUR, parts(tmp_path, one, change(other)))


def test_shards_that_number_classes_in_other_orders_are_refused(tmp_path: Path) -> None:
    def numbered(names: tuple[str, ...]) -> pa.Table:
        said = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        table = pa.Table.from_pylist(as_rows(encoded))
        return table.replace_schema_metadata({"huggingface": json.dumps(said)})

    with pytest.raises(RequestError, match=r"classes of `label` in `test-00001.*numbers do not go together"):
        folder_rows(COLOUR, parts(tmp_path, numbered(CLASSES), numbered(CLASSES[::-1])))
    # One names its classes and the other does not, in either order.
    plain = numbered(CLASSES).replace_schema_metadata(None)
    for number, pair in enumerate(((numbered(CLASSES), plain), (plain, numbered(CLASSES)))):
        with pytest.raises(RequestError, match=r"names the classes of `label` and .* does not"):
            folder_rows(COLOUR, parts(tmp_path / str(number), *pair))


@pytest.mark.parametrize("columns", [{"image": "photo"}, {"label": "kind"}])
def test_classes_keep_their_names_when_columns_are_renamed(tmp_path: Path, columns: dict[str, str]) -> None:
    own = {column: columns.get(column, column) for column in ("image", "question", "label")}
    said = {"info": {"features": {own["label"]: {"names": list(CLASSES[::-1]), "_type": "ClassLabel"}}}}
    table = pa.Table.from_pylist(as_rows(encoded))
    table = table.rename_columns([own.get(name, name) for name in table.column_names])
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(said)}), tmp_path / "test.parquet")
    found = folder_rows(COLOUR, tmp_path, columns=columns)
    reversed_numbers = [len(CLASSES) - 1 - row["label"] for row in as_rows(encoded)]
    assert [row["label"] for row in found.rows] == reversed_numbers


def test_whole_numbers_with_a_point_are_classes_and_others_are_named(tmp_path: Path) -> None:
    rows = as_rows(encoded)
    parquet.write_table(
        pa.Table.from_pylist([{**row, "label": float(row["label"])} for row in rows]), tmp_path / "test.parquet"
    )
    assert [row["label"] for row in folder_rows(COLOUR, tmp_path).rows] == [row["label"] for row in rows]
    for value, told in ((0.5, "0.5"), (None, "None"), (float("nan"), "nan")):
        changed = [{**row, "label": float(row["label"]) if number else value} for number, row in enumerate(rows)]
        parquet.write_table(pa.Table.from_pylist(changed), tmp_path / "test.parquet")
        with pytest.raises(RequestError, match=f"1 row has no class .*row 0: `label` is {told}"):
            folder_rows(COLOUR, tmp_path)


def test_text_that_no_file_can_be_called_is_a_missing_image(tmp_path: Path) -> None:
    rows = [{**row, "image": b"no image".hex() * 40} for row in as_rows(encoded)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    with pytest.raises(RequestError, match="1 image is missing") as caught:
        folder_rows(COLOUR, tmp_path)
    assert len(str(caught.value)) < 500


def test_two_forms_of_one_split_are_refused(tmp_path: Path) -> None:
    with_files(tmp_path)
    (tmp_path / "test.csv").write_text(text_table(as_rows(named)))
    (tmp_path / "test.json").write_text(json.dumps(as_rows(named)))
    with pytest.raises(RequestError, match=r"rows would count twice"):
        folder_rows(COLOUR, tmp_path)


@pytest.mark.parametrize("name", ["test.parquet", "test.csv", "test.json", "test.jsonl", "test-0.tar", "test/a.arrow"])
def test_pointers_of_git_lfs_and_torn_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(RequestError, match=f"{path.name}` is a pointer of git-LFS.*`git lfs pull`"):
        folder_rows(COLOUR, tmp_path)
    path.write_bytes(b'[{"image": \x00\x01')
    with pytest.raises(RequestError, match=path.name):
        folder_rows(COLOUR, tmp_path)


def test_a_pointer_in_place_of_an_image_is_named(tmp_path: Path) -> None:
    with_files(tmp_path)
    (tmp_path / "notes.csv").write_text(text_table(as_rows(named)))
    (tmp_path / "images" / named(2)).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    report = check_data(COLOUR, Where(tmp_path / "notes.csv"))
    assert (report.rows, report.images_unreadable) == (7, 1)
    assert "`p2.png` of sample `2` is a pointer of git-LFS" in report.fault.replace("images/", "")
    assert any("notes.csv does not say which split" in note for note in report.notes)


def test_a_missing_shard_of_webdataset_is_named(tmp_path: Path) -> None:
    shards(tmp_path)
    (tmp_path / "test-000001.tar").rename(tmp_path / "test-000002.tar")
    with pytest.raises(RequestError, match=r"`test-000001.tar` is not in .*, where there is `test-000002.tar`"):
        folder_rows(COLOUR, tmp_path)
    (tmp_path / "test-000000.tar").unlink()
    with pytest.raises(RequestError, match=r"`test-000001.tar` is not in"):
        folder_rows(COLOUR, tmp_path)


def test_a_torn_shard_of_webdataset_is_named_and_nothing_leaves_it(tmp_path: Path) -> None:
    shards(tmp_path)
    whole = (tmp_path / "test-000000.tar").read_bytes()
    for cut in (100, 700, 1600):
        (tmp_path / "test-000000.tar").write_bytes(whole[:cut])
        with pytest.raises(RequestError, match=r"test-000000.tar`? "):
            folder_rows(COLOUR, tmp_path)
    for name in ("../0.png", "/etc/0.png"):
        tar(tmp_path / "test-000000.tar", [(name, encoded(0))])
        with pytest.raises(RequestError, match="outside the archive"):
            folder_rows(COLOUR, tmp_path)
    with tarfile.open(tmp_path / "test-000000.tar", "w") as archive:
        link = tarfile.TarInfo("0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(RequestError, match="is a link"):
        folder_rows(COLOUR, tmp_path)
    tar(tmp_path / "test-000000.tar", [("0.json", b"x" * (2**20 + 1))])
    with pytest.raises(RequestError, match="1,048,577 bytes"):
        folder_rows(COLOUR, tmp_path)


@needs_cases
@pytest.mark.parametrize("form", ["bytes", "base64"])
def test_images_in_the_rows_are_read_as_bytes_and_as_base64(form: str) -> None:
    report = check_data(task("pope"), Where(CASES / "10-pictures-as-plain-bytes-or-base64" / form))
    assert (report.fault, report.rows, report.pictures, report.pictures_missing) == ("", 12, 2, 0)


@pytest.mark.parametrize("text", ["x" * 5000, "data:image/png,abc", "data:text/plain;base64,aGVsbG8=", "A" * 70_000])
def test_text_that_is_no_image_is_refused_in_one_short_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "test.json").write_text(json.dumps(as_rows(lambda i: text)))
    with pytest.raises(RequestError, match="7 rows hold no image: row 0: it holds") as caught:
        folder_rows(COLOUR, tmp_path)
    assert text[:60] not in str(caught.value)
    assert len(str(caught.value)) < 1000


@settings(max_examples=60, deadline=None)
@given(
    st.binary(min_size=1, max_size=300),
    st.booleans(),
    st.sampled_from(["", "data:image/png;base64,"]),
    st.integers(0, 90),
)
def test_base64_is_read_whole_or_refused(tail: bytes, url_safe: bool, head: str, width: int) -> None:
    content = b"\x89PNG\r\n\x1a\n" + b"0123456789" * 6 + tail
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(content).decode()
    if width > 20:
        text = "\n".join(text[i : i + width] for i in range(0, len(text), width))
    assert image_bytes(head + text) == content
    cut = text[: len(text) // 2 + 20]
    try:
        found = image_bytes(head + cut)
    except ValueError:
        return
    assert found is None or content.startswith(found[:-2])


@settings(max_examples=40, deadline=None)
@given(st.from_regex(r"[A-Za-z0-9_/-]{1,200}\.(jpg|png)", fullmatch=True))
def test_names_of_files_are_never_taken_for_base64(name: str) -> None:
    assert image_bytes(name) is None


def test_a_task_of_no_known_classes_numbers_them_as_datasets_does(tmp_path: Path) -> None:
    unknown: Task = COLOUR.on(replace(COLOUR.data, classes=()))
    (tmp_path / "test.json").write_text(json.dumps(as_rows(as_base64, NAME)))
    rows = folder_rows(unknown, tmp_path)
    assert rows.label_names == ("blue", "green", "red")
    expect_colours(samples(unknown, rows))


@pytest.mark.parametrize(("false", "true"), [("no", "yes"), ("False", "True"), (False, True), ("0", "1")])
def test_words_for_true_and_false_are_vsrs_classes(tmp_path: Path, false: Any, true: Any) -> None:
    rows = [
        {
            "image": as_base64(i),
            "image_link": f"x/{i}.png",
            "caption": "A.",
            "relation": "on",
            "label": (false, true)[i % 2],
        }
        for i in range(4)
    ]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    made = samples(task("vsr"), folder_rows(task("vsr"), tmp_path))
    assert [each.answer for each in made] == ["false", "true"] * 2


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("a.png", encoded(0)), ("a.cls", b"3"), ("a.cls", b"5")], "another `label`"),
        ([("a.png", encoded(0)), ("a.cls", b"3"), ("a.json", b'{"label": 7}')], "another `label`"),
        ([("a.png", encoded(0)), ("a.jpg", encoded(1)), ("a.cls", b"3")], "another `image`"),
    ],
)
def test_a_key_of_a_shard_is_one_row_or_refused(members: list[tuple[str, bytes]], said: str, tmp_path: Path) -> None:
    tar(tmp_path / "test.tar", members)
    with pytest.raises(RequestError, match=said):
        folder_rows(COLOUR, tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [("stray.png", "does not lie in a folder of its class"), ("red/deep/a.png", "does not lie in a folder"),
     ("red/a.heic", "of a form that is not read")],
)  # fmt: skip
def test_no_image_of_a_folder_is_left_out_in_silence(name: str, said: str, tmp_path: Path) -> None:
    for each in ("red/0.png", "blue/1.png", name):
        path = tmp_path / "test" / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(0))
    with pytest.raises(RequestError, match=said):
        folder_rows(COLOUR, tmp_path)


def test_hidden_files_and_those_of_archivers_are_no_classes(tmp_path: Path) -> None:
    wanted = replace(COLOUR, sample=lambda row, n, names: sample(row | {"question": "Which?"}, n, names))
    wanted = wanted.on(replace(COLOUR.data, columns=("image", "label")))
    for each in ("red/0.png", "blue/1.png", "__MACOSX/._0.png", ".cache/a.png", "red/.0.png"):
        path = tmp_path / "test" / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(0))
    assert sorted(each.answer for each in samples(wanted, folder_rows(wanted, tmp_path))) == ["blue", "red"]


def test_images_without_their_rows_are_no_class_of_their_own(tmp_path: Path) -> None:
    with_files(tmp_path)
    (tmp_path / "test.xlsx").write_bytes(b"PK")
    with pytest.raises(RequestError, match=r"no split `test`.*no file of rows"):
        folder_rows(COLOUR, tmp_path)


def test_images_are_found_by_paths_into_the_folder_and_by_none_out_of_it(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "colour"
    folder.mkdir()
    with_files(folder)
    table_of(as_rows(lambda i: str(folder / "images" / named(i))), folder / "test.parquet")
    monkeypatch.chdir(tmp_path)
    expect_colours(samples(COLOUR, folder_rows(COLOUR, Path("colour"))))
    (folder / "images").rename(tmp_path / "images")
    table_of(as_rows(lambda i: str(tmp_path / "images" / named(i))), folder / "test.parquet")
    with pytest.raises(RequestError, match="7 images are missing"):
        folder_rows(COLOUR, Path("colour"))


@pytest.mark.parametrize("image", [[1, 2, 3], [[[0, 0, 0]]], 7])
def test_numbers_in_place_of_images_are_named(tmp_path: Path, image: Any) -> None:
    table_of(as_rows(lambda i: image), tmp_path / "test.parquet")
    with pytest.raises(RequestError, match=r"The image column holds (list<|int64).*write the bytes"):
        folder_rows(COLOUR, tmp_path)


def test_a_column_that_stands_twice_in_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("image,label,label\na.png,3,4\n")
    with pytest.raises(RequestError, match="has the column `label` twice"):
        folder_rows(COLOUR, tmp_path)


def test_eps_is_not_decoded() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    with pytest.raises(BadImage, match="is EPS, a program that another one would run"):
        decoded(eps, "a.eps", "0")


def test_a_workbook_that_unpacks_to_too_much_is_not_read(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("xl/worksheets/sheet1.xml", bytes(MAX_WORKBOOK + 1))
    assert (tmp_path / "a.xlsx").stat().st_size < 2**20
    with pytest.raises(RequestError, match="unpacks to more than 64 MiB"):
        excel_rows(tmp_path / "a.xlsx")
