"""Pre-training rows: one image and as many questions as fit, each seeing the image and itself alone.

A block mask and restarted positions make the packed row exactly the chat prompts it stands for, at a fraction of the
cost: the image and the frame before it are computed once for all of its questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt_bench.embedded import world
from mmpt_bench.embedded.language import Asked
from mmpt_bench.embedded.world import Scene
from mmpt_bench.engine.models.backbone import IGNORED
from mmpt_bench.engine.pretraining.model import BEGIN, END, IMAGE, IMAGE_TOKENS, INSTRUCTIONS
from mmpt_bench.engine.pretraining.pointing import TARGETS, points


@dataclass
class Packed:
    """A batch of packed rows; (rows, length) each unless said otherwise."""

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    """0 for the prefix, 1.. for the questions, -1 for padding."""
    labels: Tensor
    """The next token where it belongs to an answer, else `IGNORED`."""
    points: Tensor
    """What each word of a question points at, (rows, length, 7), see pointing.py."""
    pixels: Tensor
    """(rows, 3, 48, 48), normalised."""

    def mask(self) -> Tensor:
        """Returns who sees whom, bool, (rows, 1, length, length)."""
        s = self.segments
        same = (s[:, None, :] == s[:, :, None]) | (s[:, None, :] == 0)
        return (same & torch.ones(s.shape[1], s.shape[1], dtype=torch.bool).tril())[:, None]


class Packer:
    """Draws scenes and packs their questions into rows."""

    def __init__(self, tokenizer: Any, length: int = 192) -> None:
        self.vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.length = length
        self.prefix = [BEGIN, *self.encode("user :"), *[IMAGE] * IMAGE_TOKENS]

    def encode(self, text: str) -> list[int]:
        """Returns token ids of text whose words stand apart; raises KeyError on a word outside the vocabulary."""
        return [self.vocabulary[word] for word in text.split()]

    def segment(self, asked: Asked, rng: np.random.Generator) -> tuple[str, list[int]]:
        """Returns (question, token ids of question and answer); in the chat frame, or now and then without it."""
        question = asked.question
        if rng.random() < 0.15:
            question = f"{rng.choice(INSTRUCTIONS)} {question}"
        framed = f"{question} assistant :" if rng.random() < 0.75 else f"question : {question} answer :"
        return framed, [*self.encode(framed), *self.encode(asked.answer), END]

    def pack(self, rows: list[tuple[Scene, list[Asked]]], rng: np.random.Generator, noise: float) -> Packed:
        """Returns a batch; a question that does not fit into its row any more is left out.

        Args:
            noise: standard deviation of the grain on the images, in 0..1 of full brightness.
        """
        shape = (len(rows), self.length)
        ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
        positions, segments = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
        pointed = np.full((*shape, len(TARGETS)), -1)
        start = len(self.prefix)
        for row, (scene, questions) in enumerate(rows):
            ids[row, :start], positions[row, :start], segments[row, :start] = self.prefix, range(start), 0
            at, number = start, 0
            for asked in questions:
                framed, tokens = self.segment(asked, rng)
                words = framed.split()
                head, end = len(words), at + len(tokens)
                if end > self.length:
                    continue
                number += 1
                ids[row, at:end], segments[row, at:end] = tokens, number
                positions[row, at:end] = range(start, start + len(tokens))
                labels[row, at + head - 1 : end - 1] = tokens[head:]
                pointed[row, at : at + head] = points(scene, words)
                at = end
        pixels = pixels_of([scene for scene, _ in rows], rng, noise)
        tensor = torch.from_numpy
        return Packed(tensor(ids), tensor(positions), tensor(segments), tensor(labels), tensor(pointed), pixels)


def pixels_of(scenes: list[Scene], rng: np.random.Generator, noise: float) -> Tensor:
    """Returns scenes as the image processor would, with grain added, float32, (scenes, 3, 48, 48)."""
    x = np.stack([world.draw(scene) for scene in scenes]).astype(np.float32) / 255
    if noise:
        x = (x + rng.normal(0, noise, x.shape).astype(np.float32) + rng.normal(0, noise, (len(x), 1, 1, 3))).clip(0, 1)
    return torch.from_numpy(np.ascontiguousarray(((x - 0.5) / 0.25).transpose(0, 3, 1, 2), dtype=np.float32))
