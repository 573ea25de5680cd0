"""A made-up training set like LLaVA's mixture: two exchanges an image, replies of one word to a paragraph."""

from __future__ import annotations

from functools import partial

import numpy as np
from layouts import CLASSES, PLACES, THINGS, picture_bytes

from mmpt_bench.data.examples import Corpus, Example
from mmpt_bench.data.images import LazyImage, decoded

REPLY_WORDS = (1, 1, 2, 4, 8, 12, 24, 48, 72)
"""Lengths of replies, taken in turns: short answers and descriptions, as in LLaVA-1.5's mixture."""


def corpus(pictures: int, each: int = 2) -> Corpus:
    """Returns the set; an image's bytes are decoded each time that one is opened."""
    data = [picture_bytes((640, 480), i) for i in range(pictures)]

    def example(index: int) -> Example:
        picture, number = divmod(index, each)
        rng = np.random.default_rng(index)
        thing = THINGS[(picture + 7 * number) % len(THINGS)]
        words = [*THINGS, *CLASSES, *(word for place in PLACES for word in place.split())]
        length = REPLY_WORDS[index % len(REPLY_WORDS)]
        shown = LazyImage(f"{picture}", partial(decoded, data[picture], f"{picture}", f"{index}"))
        return Example(shown, f"Is there a {thing} in the image?", " ".join(rng.choice(words, length)))

    return Corpus("mixture", f"made-up mixture of {pictures} x {each}", pictures * each, example, 0, example)
