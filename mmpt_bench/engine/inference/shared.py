"""Answers with each thing done once: an image encoded once, "frame + image" prefilled once for all its questions.

Right where attention is causal and a prompt reads the same up to its image's last token whatever is asked. What can
be seen of that is checked by `unfit` and while prompts are encoded; the rest, as an adapter that looks at the question
when it changes the image's features, by `check`, which compares with the plain way. Replies are those of `generate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmpt_bench.engine.forward.last_layer import rows_read
from mmpt_bench.engine.forward.prepared_images import PreparedImages
from mmpt_bench.engine.forward.tower import called_through, unread_blocks_skipped
from mmpt_bench.engine.inference.plain import Answer, Question, choice_ids
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.encoding import Tokens
from mmpt_bench.engine.models.kv_cache import cache_name, rows_of

CHOICE_ROWS = 256
"""Most continuations that are scored in one call."""
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""How far the first logits may be from those of the plain way, as a share of the largest."""


class NotShared(Exception):
    """These questions need the plain way; the message says why."""


def unfit(backbone: Backbone) -> str:
    """Returns why nothing can be shared with this model, or an empty text."""
    anatomy = backbone.anatomy
    if anatomy.family != "llava" or anatomy.layout != "batched":
        return f"models of type `{anatomy.family}` may not attend causally over their images"
    if called_through(backbone):
        return "the method sees what the model is called with"
    if getattr(getattr(backbone.model, "prompt_bank", None), "reads_question", False):
        return "its prompts, which stand before the image, depend on the question"
    if anatomy.window is not None:
        return "the decoder attends to a window only"
    return ""


class Shared:
    """Answers questions about images; one for each adapter and task."""

    def __init__(self, backbone: Backbone, max_new_tokens: int, images: PreparedImages) -> None:
        self.backbone, self.max_new_tokens, self.images = backbone, max_new_tokens, images
        self.margins: list[float] = []
        """Of the latest `answer`, one a question: the least lead, over its decisions, of the best over the second."""
        self._choices: dict[tuple[str, tuple[str, ...]], list[list[int]]] = {}
        self._ends = set(backbone.ends)

    def answer(self, batch: Sequence[Question]) -> list[Answer]:
        """Returns the answer to each question; best with questions about an image together.

        Raises:
            NotShared: the prompts differ before the end of the image.
        """
        logits, cache, mask = self._prefill(batch)
        self.margins = _lead(logits).tolist()
        first = logits.log_softmax(-1)
        encoded = [self._choice_ids(one) for one in batch]
        ranks = [[first[i, ids[0]].item() for ids in row] for i, row in enumerate(encoded)]
        self._add_later_tokens(ranks, encoded, cache, mask)
        for i, row in enumerate(ranks):
            best = sorted(row, reverse=True)
            self.margins[i] = min([self.margins[i], *[best[0] - other for other in best[1:2]]])
        replies = self.backbone.processor.tokenizer.batch_decode(
            self._decode(logits, cache, mask), skip_special_tokens=True
        )
        return [(reply, tuple(row)) for reply, row in zip(replies, ranks, strict=True)]

    def check(self, batch: Sequence[Question]) -> None:
        """Compares the first logits of up to two questions with the plain way's; raises NotShared where they differ."""
        few = list({a.first.question: a for a in batch[:2]}.values())
        # Each of them twice, so that its prefix is shared as it will be.
        with unread_blocks_skipped(self.backbone):
            ours = self._prefill([one for one in few for _ in range(2)])[0][::2]
        for one, logits in zip(few, ours, strict=True):
            inputs = self.backbone.batch(self.images.processed([one.first]), [one.prompt])
            plain = self.backbone.model(**inputs, use_cache=False).logits[0, -1].float()
            apart = ((logits - plain).abs().max() / plain.abs().max().clamp(min=1)).item()
            if not apart <= TOLERANCE[self.backbone.dtype]:
                raise NotShared(
                    f"the adapter or the model makes an answer depend on more (logits differ by {apart:.2g})"
                )

    def _prefill(self, batch: Sequence[Question]) -> tuple[Float[Tensor, "batch words"], Any, Tensor]:
        """Returns (logits of the next token, cache, attention mask) behind the prompts."""
        firsts = {one.first.image.key: one.first for one in batch}
        seen, count = self.images.features(list(firsts.values()))
        rows = self.backbone.tokens([one.prompt for one in batch], n_image_tokens=count)
        at = self._common(rows)
        inputs: dict[str, Any]
        if len(firsts) == len(batch):
            inputs = dict(self.backbone.pad(rows, "left"))
            mask, inputs["mm_encoder_outputs"] = inputs["attention_mask"], seen
        else:
            prefix = torch.tensor([rows[0].ids[:at]], device=self.backbone.device).expand(len(firsts), -1)
            with rows_read(self.backbone, torch.zeros_like(prefix, dtype=torch.bool)):
                out = self.backbone.model(input_ids=prefix, mm_encoder_outputs=seen, use_cache=True, logits_to_keep=1)
            places = {key: i for i, key in enumerate(firsts)}
            inputs = dict(self.backbone.pad([Tokens(row.ids[at:]) for row in rows], "left"))
            mask = torch.cat([inputs["attention_mask"].new_ones(len(batch), at), inputs["attention_mask"]], dim=1)
            inputs[cache_name()] = rows_of(
                out[cache_name()],
                [places[one.first.image.key] for one in batch],
                inputs["input_ids"].shape[1] + self.max_new_tokens,
            )
        del inputs["labels"]
        inputs["attention_mask"] = mask
        return *self._call(inputs, mask), mask

    def _common(self, rows: Sequence[Tokens]) -> int:
        """Returns where the image ends, which is the same in all prompts, as is what stands before."""
        image = self.backbone.processor.image_token_id
        at = len(rows[0].ids) - rows[0].ids[::-1].index(image)
        prefix = rows[0].ids[:at]
        if any(row.ids[:at] != prefix or image in row.ids[at:] or len(row.ids) == at for row in rows):
            raise NotShared("the prompts differ before the end of the image")
        return at

    def _call(self, inputs: dict[str, Any], mask: Tensor) -> tuple[Tensor, Any]:
        """Returns (logits of the last token, cache) of one call of the model; positions are counted from the mask."""
        read = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
        read[:, -1] = True
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -read.shape[1] :]
        with rows_read(self.backbone, read) if read.shape[1] > 1 else nullcontext():
            out = self.backbone.model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].float(), out[cache_name()]

    def _decode(self, logits: Tensor, cache: Any, mask: Tensor) -> list[list[int]]:
        """Returns the greedy replies as tokens; a finished one leaves the batch. The cache is used up."""
        replies: list[list[int]] = [[] for _ in range(len(logits))]
        alive, tokens = list(range(len(logits))), logits.argmax(-1)
        for step in range(self.max_new_tokens):
            if step:
                mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
                inputs = {"input_ids": tokens[:, None], "attention_mask": mask, cache_name(): cache}
                logits, cache = self._call(inputs, mask)
                for i, lead in zip(alive, _lead(logits).tolist(), strict=True):
                    self.margins[i] = min(self.margins[i], lead)
                tokens = logits.argmax(-1)
            chosen = tokens.tolist()
            for i, token in zip(alive, chosen, strict=True):
                replies[i].append(token)
            left = [place for place, token in enumerate(chosen) if token not in self._ends]
            if not left or step + 1 == self.max_new_tokens:
                break
            if len(left) < len(alive):
                alive = [alive[place] for place in left]
                tokens, mask = tokens[left], mask[left]
                cache = rows_of(cache, left, self.max_new_tokens - step)
        return replies

    def _choice_ids(self, one: Question) -> list[list[int]]:
        key = (one.prompt, one.first.choices)
        if key not in self._choices:
            self._choices[key] = choice_ids(self.backbone, one)
        return self._choices[key]

    def _add_later_tokens(
        self, ranks: list[list[float]], encoded: list[list[list[int]]], cache: Any, mask: Tensor
    ) -> None:
        """Adds the log-probabilities of the second and later tokens of legal answers to those of the first."""
        todo = [(i, j, ids) for i, row in enumerate(encoded) for j, ids in enumerate(row) if len(ids) > 1]
        for start in range(0, len(todo), CHOICE_ROWS):
            part = todo[start : start + CHOICE_ROWS]
            owners = [i for i, _, _ in part]
            fed = pad_sequence([torch.tensor(ids[:-1]) for _, _, ids in part], batch_first=True).to(mask.device)
            given = pad_sequence([mask.new_ones(len(ids) - 1) for _, _, ids in part], batch_first=True)
            width, seen = fed.shape[1], torch.cat([mask[owners], given], dim=1)
            positions = (seen.cumsum(-1) - 1)[:, -width:]
            out = self.backbone.model(
                input_ids=fed, attention_mask=seen, position_ids=positions, use_cache=True,
                **{cache_name(): rows_of(cache, owners, width)},
            )  # fmt: skip
            known = out.logits.float().log_softmax(-1)
            for place, (i, j, ids) in enumerate(part):
                later = torch.tensor(ids[1:], device=known.device)
                ranks[i][j] += known[place, : len(later)].gather(-1, later[:, None]).sum().item()


def _lead(logits: Tensor) -> Tensor:
    """Returns by how much the best word leads, (batch,)."""
    best = logits.topk(2, dim=-1).values
    return best[:, 0] - best[:, 1]
