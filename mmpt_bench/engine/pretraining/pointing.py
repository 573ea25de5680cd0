"""What the words of a question point at: losses that teach the language model to look there, thrown away afterwards.

"is the red ring above the square ?" can be answered only by a model that knows, at `ring`, where the red ring is, and
at `square`, how the two stand. From yes and no alone that was not learnt in 9,000 steps; from these it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from mmpt_bench.embedded import world
from mmpt_bench.embedded.statements import matches, plural
from mmpt_bench.embedded.world import Scene

TARGETS = {"row": 3, "column": 3, "number": 5, "across": 3, "down": 3, "color": 8, "total": 19}
"""Classes of what a word points at: where its one object is, how many fit, how the one before stands to it, its colour;
and of a number beside a sum, what the sum makes."""
LAYER = {"row": 2, "column": 2, "number": 3, "across": 3, "down": 3, "color": 3, "total": 3}
"""After how many blocks of the decoder it should be known."""
WEIGHT = 0.2
"""Of each of them, beside the loss of the answers."""
_NUMBERS = {str(n) for n in range(19)}
_SHAPES = {name: shape for shape in world.SHAPES for name in (shape, plural(shape))}


def points(scene: Scene, words: Sequence[str]) -> np.ndarray:
    """Returns what each word points at, (words, 7) in the order of `TARGETS`; -1 where it points at nothing."""
    found = np.full((len(words), len(TARGETS)), -1)
    before = None
    if "+" in (glyphs := [glyph for _, glyph in scene.glyphs]):
        total = int(glyphs[0]) + int(glyphs[2])
        found[[i for i, word in enumerate(words) if word == "sum" or word in _NUMBERS], 6] = total
    if not scene.things:
        return found
    for i, word in enumerate(words):
        if word not in _SHAPES:
            continue
        color = words[i - 1] if i and words[i - 1] in world.COLOR_NAMES else None
        meant = matches(scene, _SHAPES[word], color)
        found[i, 2] = len(meant)
        if len(meant) != 1:
            continue
        row, column = divmod(meant[0].cell, 3)
        found[i, :2], found[i, 5] = (row, column), world.COLOR_NAMES.index(meant[0].color)
        if before is not None and before is not meant[0]:
            found[i, 3] = 1 + np.sign(before.cell % 3 - column)
            found[i, 4] = 1 + np.sign(before.cell // 3 - row)
        before = meant[0]
    return found


class Pointers(nn.ModuleDict):
    """Linear heads on the decoder's states."""

    def __init__(self, width: int) -> None:
        super().__init__({name: nn.Linear(width, n) for name, n in TARGETS.items()})

    def loss(self, states: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Returns (weighted sum of cross-entropies, accuracies).

        Args:
            states: the decoder's hidden states, of the embeddings first, (rows, length, width) each.
            targets: (rows, length, 7) as from `points`.
        """
        total: Any = states[0].new_zeros(())
        right: dict[str, float] = {}
        for index, (name, head) in enumerate(self.items()):
            known = targets[..., index] >= 0
            if known.any():
                logits, target = head(states[LAYER[name]][known]), targets[..., index][known]
                total = total + WEIGHT * nn.functional.cross_entropy(logits, target)
                right[name] = (logits.argmax(-1) == target).float().mean().item()
        return total, right
