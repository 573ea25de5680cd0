"""Which images open, and what of it is kept for the next time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmpt_bench.data.images import LazyImage, key_clashes
from mmpt_bench.data.rows import read_image
from mmpt_bench.sources import opened_images
from mmpt_bench.sources.opened_images import open_images


def files(folder: Path, n: int) -> list[LazyImage]:
    for i in range(n):
        Image.new("RGB", (3 + i, 2), (i, 0, 0)).save(folder / f"{i}.png")
    return [read_image(str(folder / f"{i}.png"), f"k{i}", f"s{i}") for i in range(n)]


def test_sizes_and_faults_are_by_key(tmp_path: Path) -> None:
    images = files(tmp_path, 3)
    (tmp_path / "1.png").write_bytes(b"no image")
    found = open_images(images)
    assert found.sizes == {"k0": (3, 2), "k2": (5, 2)}
    assert list(found.faults) == ["k1"]
    assert "sample `s1` cannot be decoded" in found.faults["k1"]


def test_what_a_user_opens_himself_is_a_fault_too() -> None:
    def failing() -> Any:
        raise FileNotFoundError("gone.png")

    found = open_images([LazyImage("a", failing)])
    assert "`a` does not open (FileNotFoundError: gone.png)" in found.faults["a"]
    assert not found.stamp


def test_what_took_long_is_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(opened_images, "KEEP_SECONDS", 0.0)
    images = files(tmp_path, 2)
    first = open_images(images)
    looked: list[str] = []
    look = opened_images._look
    monkeypatch.setattr(opened_images, "_look", lambda image: (looked.append(image.key), look(image))[1])
    assert open_images(images) == first
    assert not looked
    assert open_images(images, anew=True) == first
    assert sorted(looked) == ["k0", "k1"]
    status = (tmp_path / "1.png").stat()
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    os.utime(tmp_path / "1.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert list(open_images(images).faults) == ["k1"]


def test_what_took_a_moment_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    open_images(files(tmp_path, 1))
    assert not (tmp_path / "cache").exists()


def test_a_key_is_one_image_whatever_it_is_read_from(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), "blue")
    red.save(tmp_path / "red.png")
    red.save(tmp_path / "copy.png")
    red.save(tmp_path / "red.bmp")
    blue.save(tmp_path / "blue.png")
    same = [red, str(tmp_path / "red.png"), str(tmp_path / "copy.png"), {"bytes": (tmp_path / "red.bmp").read_bytes()}]
    named = [(f"row {i}", read_image(value, "x.png", str(i))) for i, value in enumerate(same)]
    assert not key_clashes(named)
    other = ("row 4", read_image(str(tmp_path / "blue.png"), "x.png", "4"))
    assert key_clashes([*named, other]) == ["`x.png` is one image in row 0 and another in row 4"]
    own = [("a", LazyImage("k", lambda: red)), ("b", LazyImage("k", lambda: blue))]
    assert key_clashes(own) == ["`k` is one image in a and another in b"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"3", b"\xff"], ids=repr)
def test_a_damaged_file_of_the_cache_is_found_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(opened_images, "KEEP_SECONDS", 0.0)
    images = files(tmp_path, 2)
    first = open_images(images)
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_bytes(damage)
    assert open_images(images) == first
