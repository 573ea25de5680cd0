"""Rows from folders and from the hub, and what happens to rows and images that cannot be used."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmpt_bench.common.errors import MachineError, RequestError
from mmpt_bench.data.dataset import Dataset, Official
from mmpt_bench.data.images import BadImage
from mmpt_bench.data.rows import read_image, read_label, read_text
from mmpt_bench.data.samples import Sample
from mmpt_bench.data.split_files import split_files
from mmpt_bench.evaluation.metrics import Accuracy
from mmpt_bench.evaluation.replies import read_reply
from mmpt_bench.evaluation.task import Task
from mmpt_bench.sources.task_rows import folder_rows, hub_rows, samples
from support.paths import DATA, needs_data
from support.tasks import task as built_in

RED = Image.new("RGB", (4, 2), (255, 0, 0))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def sample(row: Any, number: int, names: Any) -> Sample:
    return Sample(
        read_text(row, "name"),
        read_image(row["image"], f"pet/{number}", str(number)),
        "?",
        tuple(names),
        read_label(row, "label", names),
    )


PET = Task(
    name="pet",
    title="Pet",
    data=Dataset(
        hub="nobody/pet",
        revision="0" * 40,
        columns=("image", "name", "label"),
        label_column="label",
        official=Official(rows=2),
    ),
    headline="accuracy",
    unit="fraction",
    sample=sample,
    metric=Accuracy(),
    parse=read_reply,
    decode="rank",
    max_new_tokens=4,
    version=1,
)


def pet_on(**changes: Any) -> Task:
    return PET.on(dataclasses.replace(PET.data, **changes))


def write(folder: Path, columns: dict[str, Any], file: str = "data/test-00000-of-00001.parquet") -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return folder


def pets(**changes: Any) -> dict[str, Any]:
    pictures = [{"bytes": encoded(RED), "path": None}, {"bytes": encoded(RED), "path": None}]
    return {"image": pictures, "name": ["a", "b"], "label": [0, 1]} | changes


def test_a_folder_in_the_hubs_form_is_read_without_a_readme(tmp_path: Path) -> None:
    rows = folder_rows(PET, write(tmp_path / "pet", pets()))
    assert [s.answer for s in samples(PET, rows)] == ["cat", "dog"]
    assert rows.label_names == ("cat", "dog")
    assert (rows.suite, rows.notes, rows.origin) == ("real", (), "folder `pet` (test)")
    assert samples(PET, rows)[0].image.open().getpixel((0, 0)) == (255, 0, 0)


def test_a_folder_of_tasks_and_the_tasks_own_folder_are_the_same(tmp_path: Path) -> None:
    own = write(tmp_path / "pet", pets())
    assert folder_rows(PET, tmp_path).fingerprint == folder_rows(PET, own).fingerprint


def test_a_config_called_like_the_task_is_not_taken_for_the_tasks_folder(tmp_path: Path) -> None:
    own = write(tmp_path / "pet", pets(), "pet/test-00000-of-00001.parquet")
    head = "---\nconfigs:\n- config_name: pet\n  data_files:\n  - split: test\n    path: pet/test-*\n---\n"
    (own / "README.md").write_text(head)
    (own / "images").mkdir()
    RED.save(own / "images" / "a.png")
    write(own, pets(image=["a.png", "a.png"]), "pet/test-00000-of-00001.parquet")
    task = pet_on(config="pet")
    assert folder_rows(task, own).rows[0]["image"] == own / "images" / "a.png"
    assert folder_rows(task, tmp_path).fingerprint == folder_rows(task, own).fingerprint


def test_the_readme_decides_which_files_are_a_configs_split(tmp_path: Path) -> None:
    write(tmp_path, pets(name=["c", "d"]), "odd/name-1.parquet")
    write(tmp_path, pets())
    head = "---\nconfigs:\n- config_name: small\n  data_files:\n  - split: test\n    path: odd/name-*\n---\n# Pets\n"
    (tmp_path / "README.md").write_text(head)
    task = pet_on(config="small")
    assert [row["name"] for row in folder_rows(task, tmp_path).rows] == ["c", "d"]


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    write(tmp_path, pets(name=["c", "d"]), "data/test-00001-of-00002.parquet")
    write(tmp_path, pets(), "data/test-00000-of-00002.parquet")
    rows = folder_rows(PET, tmp_path)
    assert [row["name"] for row in rows.rows] == ["a", "b", "c", "d"]
    assert [row["name"] for row in rows.rows[1:3]] == ["b", "c"]
    assert rows.notes == ("4 rows; the official split has 2",)


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    for number in (0, 2):
        write(tmp_path / "pet", pets(), f"data/test-0000{number}-of-00003.parquet")
    wanted = r"1 of the 3 files of `data/test` are not in folder `pet`, first `data/test-00001-of-00003`"
    with pytest.raises(RequestError, match=wanted):
        folder_rows(PET, tmp_path)


def test_json_lines_with_file_names_find_their_pictures(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    RED.save(tmp_path / "images" / "a.png")
    RED.save(tmp_path / "b.png")
    lines = [{"image": "a.png", "name": "a", "label": 0}, {"image": "b.png", "name": "b", "label": 1}]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = folder_rows(PET, tmp_path)
    assert rows.rows[1]["image"] == tmp_path / "b.png"
    before = rows.fingerprint
    Image.new("RGB", (4, 2)).save(tmp_path / "b.png")
    assert folder_rows(PET, tmp_path).fingerprint != before


def test_a_changed_file_has_another_fingerprint(tmp_path: Path) -> None:
    before = folder_rows(PET, write(tmp_path, pets())).fingerprint
    assert folder_rows(PET, write(tmp_path, pets(label=[1, 1]))).fingerprint != before


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["x"], "label": [0]}, r"no column `name` in folder `pet`. It has image, label"),
        (pets(label=[0, 7]), r"row 1: `label` is 7"),
        (pets(label=[0.5, 1.0]), r"row 0: `label` is 0.5"),
        (pets(label=[0, None]), r"row 1: `label` is None"),
        (pets(image=[None, None]), r"2 rows have no image: row 0: `image` is empty"),
        (
            pets(image=["../../etc/passwd", "/etc/passwd"]),
            r"2 images are missing, which 2 rows need: row 0: `../../etc/passwd`",
        ),
        (pets(image=[1, 2]), r"The image column holds int64"),
    ],
    ids=["column", "range", "type", "null label", "null image", "outside", "not an image"],
)
def test_data_that_cannot_be_used_is_refused_by_row_and_column(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        folder_rows(PET, write(tmp_path / "pet", columns))


def test_an_error_names_ten_rows_and_counts_the_rest(tmp_path: Path) -> None:
    folder = write(tmp_path, {"image": [None] * 25, "name": ["a"] * 25, "label": [0] * 25})
    with pytest.raises(RequestError, match=r"25 rows have no image.*row 9.*and 15 more") as caught:
        folder_rows(PET, folder)
    assert "row 10" not in str(caught.value)


def test_text_of_another_type_and_ids_that_repeat_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"row 0: column `name` holds `3`, not text"):
        samples(PET, folder_rows(PET, write(tmp_path, pets(name=[3, 4]))))
    with pytest.raises(RequestError, match=r"1 id is there more than once: `a`"):
        samples(PET, folder_rows(PET, write(tmp_path, pets(name=["a", "a"]))))


def test_a_folder_or_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        folder_rows(PET, tmp_path / "none")
    write(tmp_path, pets(), "data/train-00000-of-00001.parquet")
    with pytest.raises(RequestError, match=r"no split `test`.*data/train-00000-of-00001.parquet"):
        folder_rows(PET, tmp_path)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, pets()) / "data" / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RequestError, match=r"`test-00000-of-00001\.parquet` cannot be read"):
        folder_rows(PET, tmp_path)


def test_a_readme_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (write(tmp_path, pets()) / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(RequestError, match="no YAML"):
        folder_rows(PET, tmp_path)


def test_offline_and_not_cached_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a socket was opened"))
    with pytest.raises(MachineError, match=r"`nobody/pet` at 00000000 is not in the local cache.*`--data DIR`"):
        hub_rows(PET, offline=True)


def test_the_hubs_cache_is_read_offline_with_the_fingerprint_of_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    snapshot = cache / "datasets--nobody--pet" / "snapshots" / PET.data.revision
    write(snapshot, pets())
    (snapshot / "README.md").write_text("# Pets\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    rows = hub_rows(PET, offline=True)
    assert [s.answer for s in samples(PET, rows)] == ["cat", "dog"]
    assert rows.origin == "`nobody/pet` at 00000000 (test)"
    assert rows.fingerprint == folder_rows(PET, write(tmp_path / "copy", pets())).fingerprint


def test_a_branch_in_the_cache_is_read_offline_and_called_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "cache" / "datasets--nobody--pet"
    write(tmp_path / "files", pets())
    link = repository / "snapshots" / ("b" * 40) / "data" / "test-00000-of-00001.parquet"
    link.parent.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (tmp_path / "files" / "data" / link.name).rename(repository / "blobs" / "0123")
    link.symlink_to(Path("../../../blobs/0123"))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    rows = hub_rows(pet_on(revision="main"), offline=True)
    assert ([s.answer for s in samples(PET, rows)], rows.origin) == (["cat", "dog"], "`nobody/pet` at bbbbbbbb (test)")
    with pytest.raises(MachineError, match=r"`nobody/pet` at 00000000 is not in the local cache"):
        hub_rows(PET, offline=True)


@pytest.mark.network
def test_mnist_is_on_the_hub_at_the_pinned_commit() -> None:
    assert len(hub_rows(built_in("mnist")).rows) == 10_000


@needs_data
def test_real_folders_load_with_the_official_number_of_rows() -> None:
    task = pet_on(config="mnist", columns=("image", "label"), official=Official(10_000))
    task = dataclasses.replace(task, name="mnist")
    rows = folder_rows(task, DATA)
    assert (len(rows.rows), rows.notes, rows.label_names) == (10_000, (), tuple("0123456789"))


@needs_data
def test_pope_without_pictures_says_so_with_names_and_count() -> None:
    wanted = r"500 images are missing, which 9,000 rows need: row 0: `COCO_val2014_000000310196.jpg`.* coco=DIR"
    with pytest.raises(RequestError, match=wanted):
        folder_rows(built_in("pope"), DATA)


def opened(value: Any) -> Image.Image:
    return read_image(value, "key", "sample 7").open()


@pytest.mark.parametrize("form", ["image", "bytes", "dict", "path"])
def test_picture_opens_every_form_that_rows_come_in(tmp_path: Path, form: str) -> None:
    RED.save(tmp_path / "red.png")
    forms = {
        "image": RED,
        "bytes": encoded(RED),
        "dict": {"bytes": encoded(RED), "path": "red.png"},
        "path": tmp_path / "red.png",
    }
    assert opened(forms[form]).tobytes() == RED.tobytes()


@pytest.mark.parametrize("value", [None, b"", "", {"bytes": None, "path": None}, 3])
def test_what_is_no_picture_is_refused_when_the_row_is_read(value: Any) -> None:
    with pytest.raises(ValueError, match=r"not an image, in sample `sample 7`"):
        read_image(value, "key", "sample 7")


def test_16_bit_grey_keeps_its_high_byte() -> None:
    grey = Image.fromarray(np.array([[0, 255, 256, 65535]], dtype=np.uint16))
    assert np.asarray(opened(encoded(grey)))[0, :, 0].tolist() == [0, 0, 1, 255]


def test_cmyk_palette_grey_and_transparent_pictures_become_rgb() -> None:
    for mode, kind in (("CMYK", "JPEG"), ("P", "PNG"), ("L", "PNG"), ("1", "PNG"), ("LA", "PNG"), ("RGBA", "PNG")):
        picture_here = opened(encoded(RED.convert(mode), kind))
        assert (picture_here.mode, picture_here.size) == ("RGB", (4, 2))
    red = opened(encoded(RED.convert("CMYK"), "JPEG", quality=95)).getpixel((1, 1))
    assert isinstance(red, tuple)
    assert red[0] > 240
    assert red[1] < 20


def test_transparency_is_dropped() -> None:
    assert opened(encoded(Image.new("RGBA", (1, 1), (10, 20, 30, 0)))).getpixel((0, 0)) == (10, 20, 30)


def test_a_picture_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert opened(encoded(RED, "JPEG", exif=exif)).size == (2, 4)


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    assert opened(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((0, 0)) == (255, 0, 0)


def test_a_truncated_picture_names_sample_and_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "images" / "cut.png"
    path.parent.mkdir()
    path.write_bytes(encoded(Image.fromarray(noise))[:2000])
    with pytest.raises(BadImage, match=r"`images/cut.png` of sample `sample 7` cannot be decoded"):
        opened(path)
    with pytest.raises(BadImage, match="cannot be decoded"):
        opened(b"not an image")
    with pytest.raises(BadImage, match="cannot be decoded"):
        opened(tmp_path / "none.png")


@pytest.mark.parametrize("side", [8_001, 30_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    with pytest.raises(BadImage, match="64,000,000"):
        opened(bomb)


def test_a_key_that_stands_for_two_images_is_refused_with_both_rows(tmp_path: Path) -> None:
    # As where a task keys its images by file names, which repeat.
    def by_name(row: Any, number: int, names: Any) -> Sample:
        made = sample(row, number, names)
        return dataclasses.replace(made, image=read_image(row["image"], "img.png", str(number)))

    rows = [
        {"image": {"bytes": encoded(Image.new("RGB", (2, 2), color)), "path": None}, "name": f"{i}", "label": 0}
        for i, color in enumerate(("red", "red", "blue"))
    ]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "test-00000-of-00001.parquet")
    task = dataclasses.replace(PET, sample=by_name, data=dataclasses.replace(PET.data, classes=("cat", "dog")))
    found = folder_rows(task, tmp_path)
    with pytest.raises(RequestError, match=r"`img.png` is one image in row 0 and another in row 2"):
        samples(task, found)


def named_classes(folder: Path, names: list[str], labels: list[int], readme: bool = False) -> Path:
    """Writes rows whose class names stand in the Parquet file, as `datasets` writes them, or in a README."""
    rows = [{"image": {"bytes": encoded(RED), "path": None}, "name": f"{i}", "label": n} for i, n in enumerate(labels)]
    table = pa.Table.from_pylist(rows)
    if readme:
        listed = "".join(f"        '{i}': {name}\n" for i, name in enumerate(names))
        head = f"dataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n       names:\n{listed}"
        (folder / "README.md").write_text(f"---\n{head}---\n")
    else:
        info = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    (folder / "data").mkdir()
    pq.write_table(table, folder / "data" / "test-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("readme", [False, True])
@pytest.mark.parametrize(
    ("names", "answers"),
    [(["cat", "dog"], ["cat", "dog"]), (["Cat ", "DOG"], ["cat", "dog"]), (["dog", "cat"], ["dog", "cat"])],
)
def test_class_names_are_put_into_the_tasks_own(
    names: list[str], answers: list[str], readme: bool, tmp_path: Path
) -> None:
    task = dataclasses.replace(PET, data=dataclasses.replace(PET.data, classes=("cat", "dog")))
    found = folder_rows(task, named_classes(tmp_path, names, [0, 1], readme))
    made = samples(task, found)
    assert [one.answer for one in made] == answers
    assert {one.choices for one in made} == {("cat", "dog")}
    assert bool(found.notes) == (names != ["cat", "dog"])


@pytest.mark.parametrize("readme", [False, True])
def test_other_classes_than_the_tasks_are_refused(readme: bool, tmp_path: Path) -> None:
    task = dataclasses.replace(PET, data=dataclasses.replace(PET.data, classes=("0", "1")))
    with pytest.raises(RequestError, match=r"classes of `label` in .* are zero, one; the task's are 0, 1"):
        folder_rows(task, named_classes(tmp_path, ["zero", "one"], [0, 1], readme))


@pytest.mark.parametrize(
    "names",
    [
        ["data/test-00000-of-00001.parquet", "data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"],
        ["data/test-00000-of-00001.parquet", "data/test-00000-of-00002.parquet"],
        ["data/test-00000-of-00001.parquet", "data/test-00000-of-00001.jsonl"],
        ["data/test-00000-of-00001.parquet", "data/test-00000-of-00001 (1).parquet"],
        ["data/test-00000-of-00001-0123456789abcdef.parquet", "data/test-00000-of-00001-fedcba9876543210.parquet"],
        ["data/test-00000-of-00001.parquet", "data/test-old.parquet"],
        ["a/pet_test.jsonl", "b/pet_test.jsonl"],
    ],
)
@pytest.mark.parametrize(
    "readme", ["", "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: '*test*'\n---\n"]
)
def test_two_generations_of_a_splits_files_are_refused_with_both_names(names: list[str], readme: str) -> None:
    if names[0].endswith("pet_test.jsonl") and readme:
        pytest.skip("a README may name files of several folders")
    with pytest.raises(RequestError, match="two downloads") as refused:
        split_files(names, readme, None, "test", "here")
    assert sum(f"`{name}`" in str(refused.value) for name in names) == 2


@pytest.mark.parametrize("other", ["test.jsonl", "test-00000-of-00001.parquet"])
def test_two_forms_of_a_split_are_refused_with_both_names(other: str) -> None:
    names = ["data/test-00000-of-00001.parquet", other]
    with pytest.raises(RequestError, match=rf"`data/test-00000-of-00001.parquet` and `{other}`"):
        split_files(names, "", None, "test", "here")


def test_data_without_a_row_are_refused(tmp_path: Path) -> None:
    pets_image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    write(
        tmp_path, pets(image=pa.array([], pets_image), name=pa.array([], pa.string()), label=pa.array([], pa.int64()))
    )
    with pytest.raises(RequestError, match="There is no row of"):
        samples(PET, folder_rows(PET, tmp_path))


def test_the_files_of_one_generation_are_read_in_order() -> None:
    names = [f"data/test-0000{i}-of-00003.parquet" for i in (2, 0, 1)]
    assert split_files(names, "", None, "test", "here") == sorted(names)
