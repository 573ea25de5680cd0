"""Answers with each thing done once: an image encoded once, "frame + image" prefilled once for all its questions.

Solved examples that stand before all questions are read once for all images, where no prompt depends on the image.

Right where what stands up to an image's last token is the same whatever is asked, and sees nothing after it. Where an
image's tokens see the question too (PaliGemma), only the image's features are shared. What can be seen of that is
checked by `unfit` and while prompts are encoded; the rest, as an adapter that looks at the question when it changes the
image's features, by `check`, which compares with the plain way. Replies are those of `generate`.

Images may become different numbers of tokens: prefixes are padded on the left, questions again after them, so that a
cache has padding in two places, which the mask hides. Positions are counted without it, from where a family's own
positions of an image end (M-RoPE) on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmpt_bench.data.samples import Sample, Shot
from mmpt_bench.engine.forward.last_layer import rows_read
from mmpt_bench.engine.forward.prepared_images import PreparedImages
from mmpt_bench.engine.forward.tower import called_through, unread_blocks_skipped
from mmpt_bench.engine.inference.plain import Answer, Question, choice_ids, generated
from mmpt_bench.engine.inference.prefixes import NotShared, beginning_key, first_position, up_to_images, up_to_own_image
from mmpt_bench.engine.inference.pruning import Kept, Pruner
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.encoding import Tokens
from mmpt_bench.engine.models.families import family
from mmpt_bench.engine.models.kv_cache import cache_name, rows_of

CHOICE_ROWS = 256
"""Most continuations that are scored in one call."""
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""How far the first logits may be from those of the plain way, as a share of the largest."""


@dataclass(frozen=True)
class _Read:
    """Prompts that a model has read."""

    logits: Float[Tensor, "rows words"]
    """Of the next token."""
    cache: Any
    mask: Int[Tensor, "rows columns"]
    """Which columns of the cache hold a token, prompts apart."""
    ahead: Int[Tensor, "rows 1"]
    """By how much a token's position is ahead of the number of tokens before it."""


def unfit(backbone: Backbone) -> str:
    """Returns why nothing can be shared with this model, or an empty text."""
    if backbone.anatomy.recurrent:
        return "some layers of its decoder pass states from token to token, padding too"
    if called_through(backbone):
        return "the method sees what the model is called with"
    if getattr(getattr(backbone.model, "prompt_bank", None), "reads_question", False):
        return "its prompts, which stand before the image, depend on the question"
    return ""


class Shared:
    """Answers questions about images; one for each adapter and task."""

    def __init__(
        self, backbone: Backbone, max_new_tokens: int, images: PreparedImages, pruner: Pruner | None = None
    ) -> None:
        self.backbone, self.max_new_tokens, self.images, self.pruner = backbone, max_new_tokens, images, pruner
        self.margins: list[float] = []
        """Of the latest `answer`, one a question: the least lead, over its decisions, of the best over the second."""
        self._choices: dict[tuple[str, tuple[str, ...]], list[list[int]]] = {}
        self._ends = set(backbone.ends)
        self._image: str = backbone.processor.image_token
        self._one_size = family(backbone.anatomy.family).one_size
        core = backbone.model.get_submodule(backbone.anatomy.core)
        self._several_dims = hasattr(core, "get_rope_index")
        """Positions are in three dimensions, and an image's are the model's own to count."""
        self._sees_question = (backbone.anatomy.marks or ("", ""))[1] == "answer" or (
            pruner is not None and pruner.reads_question
        )
        """An image's tokens see the question after them, or are chosen by it."""
        self._first_position = first_position(backbone)
        bank = getattr(backbone.model, "prompt_bank", None)
        self._reads_examples = self._one_size and pruner is None and not (bank and (bank.flowing or bank.of_item))
        self._examples: tuple[tuple[list[str], list[int]], _Read] | None = None
        """Solved examples, known by their images and tokens, as the model has read them."""

    def answer(self, batch: Sequence[Question]) -> list[Answer]:
        """Returns the answer to each question; best with questions about an image together.

        Raises:
            NotShared: the prompts differ before the end of the image, or are longer than the decoder's window.
        """
        read = self._prefill(batch)
        self.margins = _lead(read.logits).tolist()
        first = read.logits.log_softmax(-1)
        encoded = [self._choice_ids(one) for one in batch]
        ranks = [[first[i, ids[0]].item() for ids in row] for i, row in enumerate(encoded)]
        self._add_later_tokens(ranks, encoded, read)
        for i, row in enumerate(ranks):
            best = sorted(row, reverse=True)
            self.margins[i] = min([self.margins[i], *[best[0] - other for other in best[1:2]]])
        replies = self.backbone.processor.tokenizer.batch_decode(self._decode(read), skip_special_tokens=True)
        return [(reply, tuple(row)) for reply, row in zip(replies, ranks, strict=True)]

    def check(self, batch: Sequence[Question]) -> None:
        """Compares the logits of up to two questions' first two tokens with those of `generate`.

        Raises:
            NotShared: they differ.
        """
        if self._one_size:
            few = list({a.first.question: a for a in batch[:2]}.values())
        else:
            # Of the shortest prompts and of the longest: images that become different numbers of tokens.
            few = list({beginning_key(one.first): one for one in (batch[0], batch[-1])}.values())
        # Each of them twice, so that its prefix is shared as it will be.
        with unread_blocks_skipped(self.backbone):
            read = self._prefill([one for one in few for _ in range(2)])
            next_one = self._fed(read, read.logits.argmax(-1)) if self.max_new_tokens > 1 else read
        for one, ours in zip(few, zip(read.logits[::2], next_one.logits[::2], strict=True), strict=True):
            shown, kept = self.images.processed([one.first]), self._kept([one])
            out, _ = generated(self.backbone, min(self.max_new_tokens, 2), shown, [one.prompt], kept)
            for logits, plain in zip(ours, out.logits, strict=False):
                apart = ((logits - plain[0].float()).abs().max() / plain.abs().max().clamp(min=1)).item()
                if not apart <= TOLERANCE[self.backbone.dtype]:
                    raise NotShared(
                        f"the adapter or the model makes an answer depend on more (logits differ by {apart:.2g})"
                    )

    def _prefill(self, batch: Sequence[Question]) -> _Read:
        """Returns prompts as the model has read them, those about the same images after one reading of them."""
        firsts = {beginning_key(one.first): one.first for one in batch}
        places = {key: i for i, key in enumerate(firsts)}
        owners = [places[beginning_key(one.first)] for one in batch]
        shots = self._examples_of_all(batch)
        seen, texts = self._seen(list(firsts.values()), sum(len(shot.images) for shot in shots))
        kept = self._kept(batch if self._sees_question else [batch[owners.index(i)] for i in range(len(firsts))])
        if kept is not None:
            texts = [kept.text] * len(texts)
        rows = self.backbone.tokens([one.prompt for one in batch], image_texts=[texts[i] for i in owners])
        before = self._examples_read(rows, shots, texts[0].count(self._image)) if shots else None
        if self._sees_question and len(firsts) < len(batch):
            seen = self._features_of(seen, owners)
        if self._sees_question or len(firsts) == len(batch):
            self._check_window(max(len(row.ids) for row in rows), batch)
            return self._first(rows, seen, kept, read_last=True, before=before)
        prefixes = up_to_images(self.backbone, rows, owners)
        asked = [Tokens(row.ids[len(prefixes[i]) :]) for row, i in zip(rows, owners, strict=True)]
        width = max(map(len, prefixes)) + max(len(row.ids) for row in asked)
        self._check_window(width, batch)
        prefix = self._first([Tokens(ids) for ids in prefixes], seen, kept, read_last=False, before=before)
        given = self.backbone.pad(asked, "left")
        cache = rows_of(prefix.cache, owners, given["input_ids"].shape[1] + self.max_new_tokens)
        mask = torch.cat([prefix.mask[owners], given["attention_mask"]], dim=1)
        logits, cache = self._call(given["input_ids"], mask, prefix.ahead[owners], cache)
        return _Read(logits, cache, mask, prefix.ahead[owners])

    def _examples_of_all(self, batch: Sequence[Question]) -> tuple[Shot, ...]:
        """Returns the solved examples that stand before all of these questions, where they can be read once."""
        first = batch[0].first
        same = all((one.first.system, one.first.shots) == (first.system, first.shots) for one in batch)
        return first.shots if same and self._reads_examples else ()

    def _examples_read(self, rows: Sequence[Tokens], shots: tuple[Shot, ...], image_tokens: int) -> _Read:
        """Returns solved examples as the model has read them; NotShared where the prompts differ in them."""
        images = [image for shot in shots for image in shot.images]
        common = up_to_own_image(self.backbone, rows, len(images) * image_tokens)
        key = [image.key for image in images], common
        if self._examples is None or self._examples[0] != key:
            seen = {"mm_encoder_outputs": self.images.features(images)[0]} if images else {}
            self._examples = key, self._first([Tokens(common)], seen, None, read_last=False)
        return self._examples[1]

    def _seen(self, firsts: Sequence[Sample], skipped: int) -> tuple[dict[str, Any], list[str]]:
        """Returns (the model's inputs for samples' images, but for the first ones, what their tokens stand for)."""
        if self._one_size:
            features, count = self.images.features([image for one in firsts for image in one.images[skipped:]])
            return {"mm_encoder_outputs": features}, [self._image * count] * len(firsts)
        encoded = self.images.processed(firsts)
        return self.backbone.inputs(encoded), [one.text for one in encoded]

    def _features_of(self, seen: dict[str, Any], owners: Sequence[int]) -> dict[str, Any]:
        """Returns images' features, each encoded once, for every question about them."""
        if "mm_encoder_outputs" in seen:
            own = seen["mm_encoder_outputs"]["image"].pooler_output
            made: Any = [own[i] for i in owners]
        else:
            core = self.backbone.model.get_submodule(self.backbone.anatomy.core)
            made = core.get_image_features(**seen, return_dict=True).pooler_output[owners]
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=made)}}

    def _kept(self, asked: Sequence[Question]) -> Kept | None:
        """Returns which image tokens each prompt keeps; None where all of them stay."""
        if self.pruner is None:
            return None
        return self.pruner.kept([one.first for one in asked], [one.prompt for one in asked])

    def _first(
        self,
        rows: Sequence[Tokens],
        seen: dict[str, Any],
        kept: Kept | None,
        read_last: bool,
        before: _Read | None = None,
    ) -> _Read:
        """Returns texts with images as the model has read them, their beginning in the one row of `before`.

        Logits are right where the last token is read.
        """
        known = 0 if before is None else before.mask.shape[1]
        given: dict[str, Any] = self.backbone.pad([Tokens(row.ids[known:]) for row in rows], "left")
        del given["labels"]
        mask = given["attention_mask"]
        read = torch.zeros_like(mask, dtype=torch.bool)
        read[:, -1] = read_last
        # Some methods of PEFT (GraLoRA) take no sequence of no rows.
        read[:1, -1] = True
        ahead = torch.full_like(mask[:, :1], self._first_position)
        if before is not None:
            room = mask.shape[1] + (self.max_new_tokens if read_last else 0)
            given[cache_name()] = rows_of(before.cache, [0] * len(rows), room)
            mask = given["attention_mask"] = torch.cat([before.mask.expand(len(rows), -1), mask], dim=1)
        if not self._several_dims:
            given["position_ids"] = _positions(mask, read.shape[1], ahead)
        if kept is not None:
            given["position_ids"] = kept.positions(given["input_ids"], mask) + ahead
            ahead = ahead + kept.dropped
            seen = {"mm_encoder_outputs": {"image": kept.features(seen["mm_encoder_outputs"]["image"].pooler_output)}}
        with rows_read(self.backbone, read), self._positions_noted() as noted:
            out = self.backbone.model(**given, **seen, use_cache=True, logits_to_keep=1)
        if self._several_dims:
            latest = noted[0].expand(noted[0].shape[0], *mask.shape).masked_fill(mask == 0, 0).amax(dim=(0, 2))
            ahead = (latest + 1 - mask.sum(-1))[:, None]
        return _Read(out.logits[:, -1].float(), out[cache_name()], mask, ahead)

    @contextmanager
    def _positions_noted(self) -> Iterator[list[Tensor]]:
        """Yields the positions that the decoder is called with inside, before prompts move them."""
        noted: list[Tensor] = []
        decoder = self.backbone.model.get_submodule(self.backbone.anatomy.decoder)
        hook = decoder.register_forward_pre_hook(
            lambda module, args, kwargs: noted.append(kwargs["position_ids"]), with_kwargs=True, prepend=True
        )
        try:
            yield noted
        finally:
            hook.remove()

    def _check_window(self, width: int, batch: Sequence[Question]) -> None:
        """Raises NotShared where prompts, padding and answers would not fit the window that some layers see."""
        window, bank = self.backbone.anatomy.window, getattr(self.backbone.model, "prompt_bank", None)
        if window is None:
            return
        answers = max(len(ids) for one in batch for ids in [*self._choice_ids(one), [0] * self.max_new_tokens])
        longest = width + answers + (bank.rows.total if bank is not None else 0)
        if longest > window:
            raise NotShared(f"a batch of {longest} tokens is longer than the {window} that some layers see")

    def _call(self, ids: Tensor, mask: Tensor, ahead: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Returns (logits of the last token, cache) of further tokens, all of them where several are to be read."""
        read = torch.zeros_like(ids, dtype=torch.bool)
        read[:, -1] = True
        positions = self._in_dims(_positions(mask, ids.shape[1], ahead))
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, cache_name(): cache}
        with rows_read(self.backbone, read) if ids.shape[1] > 1 else nullcontext():
            out = self.backbone.model(**given, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].float(), out[cache_name()]

    def _in_dims(self, positions: Int[Tensor, "rows tokens"]) -> Tensor:
        """Returns a text's positions as the decoder takes them: the same in each of three dimensions, or one."""
        return positions.expand(3, -1, -1) if self._several_dims else positions

    def _fed(self, read: _Read, tokens: Int[Tensor, " rows"]) -> _Read:
        """Returns prompts with one token more each; their cache is used up."""
        mask = torch.cat([read.mask, read.mask.new_ones(len(tokens), 1)], dim=1)
        logits, cache = self._call(tokens[:, None], mask, read.ahead, read.cache)
        return _Read(logits, cache, mask, read.ahead)

    def _decode(self, read: _Read) -> list[list[int]]:
        """Returns the greedy replies as tokens; a finished one leaves the batch. The cache is used up."""
        replies: list[list[int]] = [[] for _ in range(len(read.logits))]
        alive, tokens = list(range(len(replies))), read.logits.argmax(-1)
        for step in range(self.max_new_tokens):
            if step:
                read = self._fed(read, tokens)
                for i, lead in zip(alive, _lead(read.logits).tolist(), strict=True):
                    self.margins[i] = min(self.margins[i], lead)
                tokens = read.logits.argmax(-1)
            chosen = tokens.tolist()
            for i, token in zip(alive, chosen, strict=True):
                replies[i].append(token)
            left = [place for place, token in enumerate(chosen) if token not in self._ends]
            if not left or step + 1 == self.max_new_tokens:
                break
            if len(left) < len(alive):
                alive, tokens = [alive[place] for place in left], tokens[left]
                cache = rows_of(read.cache, left, self.max_new_tokens - step)
                read = _Read(read.logits[left], cache, read.mask[left], read.ahead[left])
        return replies

    def _choice_ids(self, one: Question) -> list[list[int]]:
        key = (one.prompt, one.first.choices)
        if key not in self._choices:
            self._choices[key] = choice_ids(self.backbone, one)
        return self._choices[key]

    def _add_later_tokens(self, ranks: list[list[float]], encoded: list[list[list[int]]], read: _Read) -> None:
        """Adds the log-probabilities of the second and later tokens of legal answers to those of the first."""
        todo = [(i, j, ids) for i, row in enumerate(encoded) for j, ids in enumerate(row) if len(ids) > 1]
        for start in range(0, len(todo), CHOICE_ROWS):
            part = todo[start : start + CHOICE_ROWS]
            owners = [i for i, _, _ in part]
            fed = pad_sequence([torch.tensor(ids[:-1]) for _, _, ids in part], batch_first=True).to(read.mask.device)
            given = pad_sequence([read.mask.new_ones(len(ids) - 1) for _, _, ids in part], batch_first=True)
            width, seen = fed.shape[1], torch.cat([read.mask[owners], given.to(read.mask.device)], dim=1)
            positions = self._in_dims(_positions(seen, width, read.ahead[owners]))
            out = self.backbone.model(
                input_ids=fed, attention_mask=seen, position_ids=positions, use_cache=True,
                **{cache_name(): rows_of(read.cache, owners, width)},
            )  # fmt: skip
            known = out.logits.float().log_softmax(-1)
            for place, (i, j, ids) in enumerate(part):
                later = torch.tensor(ids[1:], device=known.device)
                ranks[i][j] += known[place, : len(later)].gather(-1, later[:, None]).sum().item()


def _positions(mask: Tensor, length: int, ahead: Int[Tensor, "rows 1"]) -> Int[Tensor, "rows tokens"]:
    """Returns the positions of a mask's last tokens, counted without padding."""
    return ((mask.cumsum(-1) - 1).clamp(min=0) + ahead)[:, -length:]


def _lead(logits: Tensor) -> Tensor:
    """Returns by how much the best word leads, (batch,)."""
    best = logits.topk(2, dim=-1).values
    return best[:, 0] - best[:, 1]
