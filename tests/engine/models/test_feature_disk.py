"""Features in a folder: found again by another process's tower and picture alone, never when damaged or another's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from mmpt_bench.cli.main import cli
from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.images import Picture
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.forward.prepared_images import Pictures
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.models.feature_disk import FeatureDisk
from mmpt_bench.methods import method_catalog
from support.tiny import pictures, tiny_backbone

ENTRY = torch.arange(6.0).reshape(1, 2, 3)


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    torch.set_num_threads(1)
    return tiny_backbone(tmp_path / "model")


def samples(first: int = 0) -> list[Sample]:
    shown = pictures(first + 2)[first:]
    return [
        Sample(f"{i}", Picture(f"p{i}", lambda image=image: image), "how many ?", ("one",), "one")  # type: ignore[misc]
        for i, image in enumerate(shown)
    ]


def passes(backbone: Backbone, method: str, of: list[Sample]) -> tuple[int, Any]:
    """Returns (pictures that went through the tower, their projected features) under a method."""
    handle = method_catalog.load_method(method_catalog.method_entries()[method])().attach(backbone, 0)
    rows: list[int] = []
    embeddings = backbone.model.get_submodule(backbone.anatomy.vision).embeddings
    watched = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: rows.append(len(args[0])) if module is embeddings else None
    )
    try:
        with torch.no_grad():
            made = Pictures(backbone).features(of)[0]["image"].pooler_output
    finally:
        watched.remove()
        handle.remove()
    return sum(rows), torch.stack(list(made))


def reloaded(tmp_path: Path) -> Backbone:
    """Returns the backbone as a new process would load it, with the same folder of features."""
    fresh = load_backbone(str(tmp_path / "model"), device="cpu", offline=True)
    fresh.disk = FeatureDisk(tmp_path / "features", 10**6)
    return fresh


def test_a_later_process_finds_the_features_of_an_earlier_one(tmp_path: Path, backbone: Backbone) -> None:
    made = passes(reloaded(tmp_path), "frozen", samples())
    found = passes(reloaded(tmp_path), "lora", samples())
    assert (made[0], found[0]) == (2, 0)
    torch.testing.assert_close(found[1], made[1])


def test_other_pictures_under_the_same_keys_are_encoded(tmp_path: Path, backbone: Backbone) -> None:
    passes(reloaded(tmp_path), "frozen", samples())
    assert passes(reloaded(tmp_path), "frozen", samples(first=2))[0] == 2


def test_features_of_another_tower_or_of_one_with_prompts_are_not_used(tmp_path: Path, backbone: Backbone) -> None:
    passes(reloaded(tmp_path), "frozen", samples())
    assert passes(reloaded(tmp_path), "vpt", samples())[0] == 2
    other = reloaded(tmp_path)
    with torch.no_grad():
        other.model.get_submodule(other.anatomy.vision).embeddings.position_embedding.weight[0, 0] += 1
    assert passes(other, "frozen", samples())[0] == 2


def test_a_damaged_entry_is_made_anew_and_written_again(tmp_path: Path, backbone: Backbone) -> None:
    expected = passes(reloaded(tmp_path), "frozen", samples())[1]
    for path in (tmp_path / "features").rglob("*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    again = passes(reloaded(tmp_path), "frozen", samples())
    assert again[0] == 2
    torch.testing.assert_close(again[1], expected)
    assert passes(reloaded(tmp_path), "frozen", samples())[0] == 0


@pytest.mark.parametrize("data", [b"", b"not a tensor file", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_file_that_is_no_entry_is_not_used(data: bytes, tmp_path: Path) -> None:
    disk = FeatureDisk(tmp_path, 10**6)
    disk.put("tower", "picture", ENTRY, 1.0)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(data)
    assert FeatureDisk(tmp_path, 10**6).get("tower", "picture") is None
    assert not path.exists()


def test_an_entry_under_anothers_name_is_not_used(tmp_path: Path) -> None:
    disk = FeatureDisk(tmp_path, 10**6)
    disk.put("tower", "picture", ENTRY, 1.0)
    shutil.copytree(tmp_path / "tower", tmp_path / "other")
    shutil.copy(tmp_path / "tower" / "picture.safetensors", tmp_path / "tower" / "else.safetensors")
    assert disk.get("other", "picture") is None
    assert disk.get("tower", "else") is None
    states, seconds = disk.get("tower", "picture") or (None, None)
    assert torch.equal(states, ENTRY)
    assert seconds == 1.0


def test_the_folder_stays_below_its_limit_and_only_other_towers_make_room(tmp_path: Path) -> None:
    FeatureDisk(tmp_path, 10**6).put("a", "x", ENTRY, 1.0)
    size = FeatureDisk(tmp_path, 0).bytes
    disk = FeatureDisk(tmp_path, 2 * size + size // 2)
    for name in ("y", "z"):
        disk.put("a", name, ENTRY, 1.0)
    assert [disk.get("a", name) is not None for name in "xyz"] == [True, True, False]
    disk.put("b", "x", ENTRY, 1.0)
    assert disk.get("a", "x") is None
    assert disk.get("b", "x") is not None
    assert disk.bytes == FeatureDisk(tmp_path, 0).bytes == size


def test_a_folder_of_other_things_is_refused_and_nothing_in_it_is_touched(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(b"x" * 1000)
    with pytest.raises(RequestError, match="holds other things"):
        FeatureDisk(tmp_path, 10)
    words = ["run", "--method", "frozen", "--tasks", "mnist", "--plan", "--keep-features", str(tmp_path)]
    done = CliRunner().invoke(cli, words)
    assert isinstance(done.exception, RequestError)
    assert "holds other things" in str(done.exception)
    assert [path.name for path in tmp_path.rglob("*")] == ["photos", "one.png"]


def test_a_command_keeps_its_features_in_the_folder_and_another_changes_no_answer(tmp_path: Path) -> None:
    def answers(out: str, *words: str) -> list[dict[str, Any]]:
        asked = ["run", "--method", "frozen", "--tasks", "mnist", "--limit", "3", "--out", str(tmp_path / out), *words]
        done = CliRunner().invoke(cli, asked, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        (path,) = (tmp_path / out).rglob("mnist.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    kept = tmp_path / "features"
    first = answers("first", "--keep-features", str(kept))
    entries = {path: path.stat().st_mtime_ns for path in kept.rglob("*.safetensors")}
    assert len(entries) == 3
    assert answers("second", "--keep-features", str(kept)) == first == answers("third")
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.safetensors")} == entries
