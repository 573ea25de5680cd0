"""What the base sees on fresh clean scenes: the share of right answers, skill by skill, in pre-training's wordings.

The answer is the most probable of the legal ones at the first token; for read text, every token has to be right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt_bench.embedded import language, statements, wordings, world
from mmpt_bench.embedded.language import Asked
from mmpt_bench.embedded.world import Scene
from mmpt_bench.engine.pretraining.model import IMAGE, IMAGE_TOKENS
from mmpt_bench.engine.pretraining.packing import Packer, pixels_of

CLAIMS = (*statements.SKILLS, "neutral", "claim_text", "claim_big", "claim_sum")
LEGAL = (("yes", "no"), ("true", "false"), ("entailment", "neutral", "contradiction"))
OPEN = ("color", "count", "location", "relation", "digit", "text", "sum", "big")


def probe(model: Any, tokenizer: Any, n: int = 400, seed: int = 10_000) -> dict[str, float]:
    """Returns accuracy by skill: claims by name, open questions with a leading question mark; `n` scenes a skill.

    Digits are those of the test rows, which pre-training never shows.
    """
    packer = Packer(tokenizer)
    found: dict[str, float] = {}
    model.eval()
    with torch.no_grad():
        for skill in (*CLAIMS, *(f"?{name}" for name in OPEN)):
            rng = np.random.default_rng([seed, len(found)])
            rows = [_row(rng, skill) for _ in range(n)]
            right = [hit for first in range(0, n, 100) for hit in _right(model, packer, rows[first : first + 100])]
            found[skill] = float(np.mean(right))
    return found


def _row(rng: np.random.Generator, skill: str) -> tuple[Scene, Asked]:
    """Returns a fresh clean scene and one question of a skill."""
    is_open, kind = skill.startswith("?"), skill.removeprefix("?").removeprefix("claim_")
    while True:
        if kind in ("text", "sum"):
            scene = world.random_text(rng, sums=kind == "sum")
            asked = language.ask_text(scene, rng, "pretrain")
        elif kind == "big":
            scene = world.random_big(rng)
            asked = language.ask_big(scene, rng, "pretrain")
        elif kind == "digit":
            scene = world.random_digit(rng, "evaluation")
            asked = language.ask_digit(scene, rng, "pretrain")
        else:
            scene = world.random_scene(rng, (1, 2, 3, 4))
            asked = language.ask_things(scene, rng, "pretrain", [skill])
        for one in asked:
            short = one.question.startswith(wordings.SHORT_CUES)
            if one.skill == skill.removeprefix("?") and (short or not is_open):
                return scene, one


def _right(model: Any, packer: Packer, rows: list[tuple[Scene, Asked]]) -> list[bool]:
    """Returns whether each question is answered rightly, one question a row in the chat frame."""
    start = len(packer.prefix)
    texts = [packer.encode(f"{asked.question} assistant :") for _, asked in rows]
    answers = [packer.encode(asked.answer.removesuffix(" .")) for _, asked in rows]
    length = start + max(len(t) + len(a) for t, a in zip(texts, answers, strict=True))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    for i, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        ids[i, : start + len(text) + len(answer)] = torch.tensor([*packer.prefix, *text, *answer])
    assert int((ids == IMAGE).sum(1).max()) == IMAGE_TOKENS
    pixels = pixels_of([scene for scene, _ in rows], np.random.default_rng(0), 0.0)
    logits: Tensor = model(input_ids=ids, pixel_values=pixels).logits
    hits: list[bool] = []
    for i, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        at = start + len(text) - 1
        word = rows[i][1].answer.split()[0]
        legal = next((group for group in LEGAL if word in group), None)
        if legal is not None:
            options = torch.tensor([packer.vocabulary[option] for option in legal])
            hits.append(bool(options[logits[i, at, options].argmax()] == answer[0]))
        else:
            hits.append(logits[i, at : at + len(answer)].argmax(-1).tolist() == answer)
    return hits
