"""Sequences that grew by prompt rows, and their masks and positions.

Rows stand in front of a sequence, and before its first image token. The caller's tokens keep their order and their own
counting: the first real token has position 0, wherever padding puts it, and every token moves on by the rows before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional

Mask4D = Float[Tensor, "batch heads queries keys"] | Bool[Tensor, "batch heads queries keys"]
OneMask = Float[Tensor, "heads queries keys"] | Bool[Tensor, "heads queries keys"]


@dataclass(frozen=True)
class PromptRows:
    """The rows by which prompts lengthen every sequence of a batch."""

    front: int = 0
    """Before the first token, padding included."""
    inside: int = 0
    """Before the first image token."""
    places: tuple[int, ...] = ()
    """Index of that token among the caller's, a sequence each; only where the cache is empty."""
    starts: tuple[int, ...] = ()
    """Index of the token before which the front rows stand, a sequence each; by default the first, of padding too."""

    @property
    def total(self) -> int:
        """Returns by how much a sequence grows."""
        return self.front + self.inside

    def put_in(self, tokens: Tensor, front: Sequence[Tensor], inside: Tensor | None) -> Float[Tensor, "batch rows dim"]:
        """Returns tokens, (batch, tokens, dim), with the rows in their places."""
        if inside is not None:
            tokens = _inserted(tokens, inside, self.places)
        if self.starts:
            return _inserted(tokens, torch.cat(list(front), dim=1), self.starts)
        return torch.cat([*front, tokens], dim=1)

    def overwritten(self, grown: Tensor, new: Tensor, first: int) -> Tensor:
        """Returns grown sequences, (batch, rows, dim), with `new` in place of the front rows from `first` on."""
        end = first + new.shape[1]
        if not self.starts:
            return torch.cat([grown[:, :first], new, grown[:, end:]], dim=1)
        triples = zip(grown, new, self.starts, strict=True)
        return torch.stack([torch.cat([one[: at + first], own, one[at + end :]]) for one, own, at in triples])

    def added(self, grown: Tensor, shift: Tensor, n: int) -> Tensor:
        """Returns grown sequences, (batch, rows, dim), with `shift`, (batch, n or 1, dim), added to n front rows."""
        starts = self.starts or (0,) * len(grown)
        own = torch.stack([one[at : at + n] for one, at in zip(grown, starts, strict=True)])
        return self.overwritten(grown, own + shift, 0)

    def cut_out(self, grown: Shaped[Tensor, "batch rows ..."]) -> Shaped[Tensor, "batch tokens ..."]:
        """Returns the caller's own tokens of sequences that grew."""
        own = grown[:, self.front :]
        if self.starts:
            pairs = zip(grown, self.starts, strict=True)
            own = torch.stack([torch.cat([one[:at], one[at + self.front :]]) for one, at in pairs])
        if not self.inside:
            return own
        if len(set(self.places)) == 1:
            place = self.places[0]
            return torch.cat([own[:, :place], own[:, place + self.inside :]], dim=1)
        pairs = zip(own, self.places, strict=True)
        return torch.stack([torch.cat([one[:place], one[place + self.inside :]]) for one, place in pairs])


def _inserted(
    values: Shaped[Tensor, "batch tokens ..."], new: Shaped[Tensor, "batch rows ..."], places: Sequence[int]
) -> Shaped[Tensor, "batch grown ..."]:
    """Returns sequences with further rows, each before one of its own."""
    if len(set(places)) == 1:
        return torch.cat([values[:, : places[0]], new, values[:, places[0] :]], dim=1)
    rows = zip(values, new, places, strict=True)
    return torch.stack([torch.cat([one[:place], own, one[place:]]) for one, own, place in rows])


def _image_tokens(core: Any, kwargs: Mapping[str, Any]) -> Bool[Tensor, "batch tokens"]:
    """Returns which of a core model's tokens are an image's."""
    ids, token = kwargs.get("input_ids"), core.config.image_token_id
    if ids is not None:
        return ids == token
    embeds = kwargs["inputs_embeds"]
    known = core.get_input_embeddings()(torch.full((), token, dtype=torch.long, device=embeds.device))
    return (embeds == known).all(dim=-1)


def image_counts(core: Any, kwargs: Mapping[str, Any]) -> list[int]:
    """Returns how many image tokens each sequence has, (batch,), of a core model's arguments."""
    counts: list[int] = _image_tokens(core, kwargs).sum(dim=1).tolist()
    return counts


def image_places(core: Any, kwargs: Mapping[str, Any], pictures: int, one_size: bool) -> tuple[int, ...]:
    """Returns the index of each sequence's first image token, (batch,), of a core model's arguments.

    Raises ValueError where sequences do not have one image each (`one_size`: all of as many tokens), or a mask hides
    tokens before it, between others.
    """
    found = _image_tokens(core, kwargs)
    first, mask = found.int().argmax(dim=1), kwargs.get("attention_mask")
    gaps = torch.zeros_like(first)
    if isinstance(mask, Tensor) and mask.shape == found.shape:
        visible = mask.bool().int()
        gaps = first + 1 - visible.argmax(dim=1) - visible.cumsum(dim=1).gather(1, first[:, None])[:, 0]
    places, counts, hidden = torch.stack([first, found.sum(dim=1), gaps]).tolist()
    if len(places) != pictures or min(counts) == 0 or (one_size and min(counts) != max(counts)):
        raise ValueError(f"interaction needs one image a sequence: {pictures} for {len(places)} sequences")
    if any(hidden):
        raise ValueError("with interaction, an attention mask hides no token between a sequence's first and its image")
    return tuple(places)


def extend_mask(mask: Any, rows: PromptRows, seen: int, length: int, behind_padding: bool = False) -> Any:
    """Returns an attention mask in which all see the prompts, and at prefill the prompts have rows of their own.

    Rows before the first image token see what that token sees, and are seen by what sees it; among each other they
    are causal where image tokens are. What a caller's mask of tokens hides must not lie between a sequence's first
    token and its image, so that while decoding the first visible column says where they are.

    Args:
        mask: None, (batch, keys), (batch or 1, heads or 1, queries, keys) boolean or additive, or a dict of such masks.
        rows: by which sequences grow.
        seen: columns in the cache, prompts included; 0 at prefill.
        length: the caller's tokens in this call.
        behind_padding: the front rows stand after a sequence's padding, not before it.

    Raises:
        ValueError: the mask covers neither the caller's tokens nor those and the prompts.
    """
    if mask is None:
        return None
    if isinstance(mask, dict):
        return {kind: extend_mask(one, rows, seen, length, behind_padding) for kind, one in mask.items()}
    own = length + max(seen - rows.total, 0)
    keys = mask.shape[-1]
    if seen and keys == seen + length:
        return mask
    if keys != own or mask.dim() not in (2, 4):
        raise ValueError(f"an attention mask of shape {tuple(mask.shape)} does not cover {own} tokens")
    if mask.dim() == 2 and behind_padding:
        return _with_visible(mask, mask.bool(), rows.total, 1, 0)
    if mask.dim() == 2:
        return functional.pad(_with_visible(mask, mask.bool(), rows.inside, 1, 0), (rows.front, 0), value=1)
    return _extend_4d(mask, rows, at_prefill=seen == 0)


def _with_visible(mask: Tensor, seen: Bool[Tensor, "batch keys"], n: int, visible: float, hidden: float) -> Tensor:
    """Returns a mask, (batch, ..., keys), with `n` visible columns before the first that is seen."""
    if not n:
        return mask
    first = seen.int().argmax(-1).view(-1, *[1] * (mask.dim() - 1))
    columns = torch.arange(mask.shape[-1] + n, device=mask.device)
    is_new = (columns >= first) & (columns < first + n)
    return functional.pad(mask, (n, 0), value=hidden).masked_fill(is_new, visible)


def _extend_4d(mask: Mask4D, rows: PromptRows, at_prefill: bool) -> Mask4D:
    """Returns a 4D mask with the prompts visible, and at prefill with rows of theirs, the front ones causal on top."""
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"a 4D attention mask must be boolean or additive, not {mask.dtype}")
    visible, hidden = (1.0, 0.0) if mask.dtype == torch.bool else (0.0, torch.finfo(mask.dtype).min)
    if rows.inside and at_prefill:
        mask = _image_grown(mask, rows, visible, hidden)
    elif rows.inside:
        mask = _with_visible(mask, (mask == visible).any(dim=2).any(dim=1), rows.inside, visible, hidden)
    batch, heads, _, keys = mask.shape
    grown = functional.pad(mask, (rows.front, 0), value=visible)
    if not at_prefill:
        return grown
    later = torch.ones(rows.front, rows.front + keys, dtype=torch.bool, device=mask.device).triu(1)
    own = mask.new_full((rows.front, rows.front + keys), visible).masked_fill(later, hidden)
    return torch.cat([own.expand(batch, heads, -1, -1), grown], dim=-2)


def _image_grown(mask: Mask4D, rows: PromptRows, visible: float, hidden: float) -> Mask4D:
    """Returns a mask for sequences with `rows.inside` more image tokens before the first one."""
    places = rows.places[:1] if len(set(rows.places)) == 1 else rows.places

    def grown(one: OneMask, place: int) -> OneMask:
        order = [*range(place), *[place] * rows.inside, *range(place, one.shape[-1])]
        made = one[:, order][:, :, order]
        block = slice(place, place + rows.inside + 1)
        if place + 1 == one.shape[-1] or bool((one[:, place, place + 1] != visible).any()):
            later = torch.ones(rows.inside + 1, rows.inside + 1, dtype=torch.bool, device=one.device).triu(1)
            made[:, block, block] = made[:, block, block].masked_fill(later, hidden)
        return made

    if len(places) == 1:
        return torch.stack([grown(one, places[0]) for one in mask])
    pairs = zip(mask.expand(len(places), -1, -1, -1), places, strict=True)
    return torch.stack([grown(one, place) for one, place in pairs])


def extend_mask_right(mask: Mask4D, rows: int) -> Mask4D:
    """Returns a 4D mask without order for `rows` more at the end: they see what the first row sees, all see them."""
    visible = True if mask.dtype == torch.bool else 0.0
    own = mask[:, :, :1].expand(-1, -1, rows, -1)
    grown = torch.cat([mask, own], dim=-2)
    return torch.cat([grown, grown.new_full((*grown.shape[:-1], rows), visible)], dim=-1)


def extend_positions(
    positions: Any, mask: Any, rows: PromptRows, seen: int, length: int, has_cache: bool = False
) -> Any:
    """Returns position ids of sequences that grew; at prefill those of the prompts too, the front ones from 0 on.

    Without position ids, a 2D mask counts them: the distance between prompts and text must not depend on padding.
    With neither, None comes back, and the decoder counts from the cache, in which the prompts already are.

    Raises:
        ValueError: positions restart without mask and cache, which transformers reads as several packed sequences of
            which only the first would see the prompts.
    """
    if positions is None:
        if mask is None or isinstance(mask, dict) or mask.dim() != 2:
            return None
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
        if seen and mask.shape[-1] == seen + length:
            return positions
    else:
        # Positions in several dimensions (M-RoPE) stand still within an image; transformers looks at the text's alone.
        text = positions[0] if positions.dim() == 3 else positions
        plain = positions.dim() == 2 or len(positions) == 4
        if not seen and mask is None and not has_cache and plain and bool((text.diff(dim=-1) != 1).any()):
            raise ValueError("positions restart inside a row: packed sequences need a 4D attention mask with prompts")
    if seen:
        return positions + rows.total
    moved = positions + rows.front
    if rows.inside:
        moved = _image_counted(moved, rows)
    first = torch.arange(rows.front, dtype=moved.dtype, device=moved.device)
    if rows.starts:
        moved = moved.expand(*moved.shape[:-2], len(rows.starts), -1)
        pairs = zip(moved.unbind(-2), rows.starts, strict=True)
        own = [torch.cat([one[..., :at], first.expand(*one.shape[:-1], -1), one[..., at:]], -1) for one, at in pairs]
        return torch.stack(own, dim=-2)
    return torch.cat([first.expand(*moved.shape[:-1], rows.front), moved], dim=-1)


def _image_counted(positions: Tensor, rows: PromptRows) -> Tensor:
    """Returns positions, (..., batch or 1, tokens), with those of rows before the first image token.

    Where the image's first tokens are left out, its rows go on after the text before it all the same.
    """
    if len(set(rows.places)) > 1:
        positions = positions.expand(*positions.shape[:-2], len(rows.places), -1)
    places = rows.places if positions.shape[-2] > 1 else rows.places[:1]
    new = torch.arange(rows.inside, dtype=positions.dtype, device=positions.device)
    counted = [
        torch.cat([one[..., :place], _start(one, place)[..., None] + new, one[..., place:] + rows.inside], dim=-1)
        for one, place in zip(positions.unbind(-2), places, strict=True)
    ]
    return torch.stack(counted, dim=-2)


def _start(positions: Tensor, place: int) -> Tensor:
    """Returns the position of an image's beginning, (...), whose first token that is there stands at `place`."""
    first = positions[..., place]
    # Padding before it has position 0 too, or none of the sequence's own.
    return torch.minimum(first, positions[..., place - 1] + 1) if place else first


def unmarked(kwargs: dict, rows: PromptRows, embeds: Tensor) -> dict[str, Tensor]:
    """Returns the arguments that mark tokens (DeepStack's `visual_pos_masks`), grown by rows without a mark."""
    marks = {
        name: value
        for name, value in kwargs.items()
        if name != "attention_mask" and isinstance(value, Tensor) and value.dtype == torch.bool
        if value.shape == embeds.shape[:2]
    }
    front, inside = ([value.new_zeros(len(value), n) for value in marks.values()] for n in (rows.front, rows.inside))
    grown = zip(marks.items(), front, inside, strict=True)
    return {name: rows.put_in(one, [before], new if rows.inside else None) for (name, one), before, new in grown}
