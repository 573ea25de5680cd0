"""Counts in words: "1 image", "2 images"."""

from __future__ import annotations


def plural(n: int, one: str, several: str) -> str:
    """Returns the word for one thing or for several."""
    return one if n == 1 else several


def counted(n: int, one: str, several: str = "") -> str:
    """Returns a count with what is counted.

    >>> counted(1, "image"), counted(1200, "image"), counted(0, "reply is", "replies are")
    ('1 image', '1,200 images', '0 replies are')
    """
    return f"{n:,} {plural(n, one, several or one + 's')}"
