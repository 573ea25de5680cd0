"""Counts in words."""

from __future__ import annotations

from mmpt_bench.common.words import counted


def test_a_count_has_the_word_for_one_or_several() -> None:
    said = [counted(n, "image") for n in (0, 1, 2, 1200)]
    assert said == ["0 images", "1 image", "2 images", "1,200 images"]
    assert counted(1, "reply is", "replies are") == "1 reply is"
