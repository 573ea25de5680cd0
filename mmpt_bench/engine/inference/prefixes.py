"""What prompts begin with alike: a first position, solved examples, and all up to the end of their images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import takewhile

import torch

from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.encoding import Tokens


class NotShared(Exception):
    """These questions need the plain way; the message says why."""


def beginning_key(sample: Sample) -> Hashable:
    """Names what a question's prompt begins with, up to its images: equal where they, and all before them, are."""
    said = tuple((shot.question, shot.reply, len(shot.images)) for shot in sample.shots)
    return sample.system, said, tuple(image.key for image in sample.images)


def up_to_images(backbone: Backbone, rows: Sequence[Tokens], owners: Sequence[int]) -> list[list[int]]:
    """Returns each owner's tokens up to its last image and the marks after it, which all its prompts begin with.

    Args:
        owners: of each prompt; 0, 1, ...

    Raises:
        NotShared: prompts of one owner differ there.
    """
    image = backbone.model.config.image_token_id
    found: dict[int, list[int]] = {}
    added = backbone.processor.tokenizer.added_tokens_decoder
    marks = {i for i, token in added.items() if token.special}
    for row, i in zip(rows, owners, strict=True):
        at = len(row.ids) - row.ids[::-1].index(image)
        # Ovis2 makes the mark after an image out of what the tower sees.
        at += len([*takewhile(marks.__contains__, row.ids[at:-1])])
        if found.setdefault(i, row.ids[:at]) != row.ids[:at] or len(row.ids) == at:
            raise NotShared("the prompts differ before the end of the image")
    return [found[i] for i in range(len(found))]


def up_to_own_image(backbone: Backbone, rows: Sequence[Tokens], image_tokens: int) -> list[int]:
    """Returns the tokens before the first image of the question itself, the same in all prompts.

    Args:
        image_tokens: of solved examples, which stand before it.

    Raises:
        NotShared: prompts differ there.
    """
    image = backbone.model.config.image_token_id
    places = [place for place, token in enumerate(rows[0].ids) if token == image]
    common = rows[0].ids[: places[image_tokens]]
    if any(row.ids[: len(common)] != common for row in rows):
        raise NotShared("the prompts differ before the end of the solved examples")
    return common


def first_position(backbone: Backbone) -> int:
    """Returns what position a text's first token has under `generate`: 1 in PaliGemma."""
    ids = torch.zeros(1, 1, dtype=torch.long, device=backbone.device)
    given = backbone.model.prepare_inputs_for_generation(
        ids, attention_mask=torch.ones_like(ids), position_ids=ids, is_first_iteration=True
    )
    return int(given["position_ids"].min())
