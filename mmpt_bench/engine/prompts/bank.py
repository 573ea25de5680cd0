"""One engine for every prompt method: trained rows inside an unchanged model, put in and taken out by hooks.

Vision side: rows are appended after the patches of each block and cut off after it, so that the tower's width in
tokens never changes; appending equals standing after the class token, because position embeddings are added before
the first block. Text side: textual prompts (or key-value placeholders) stand before the caller's first token, at
positions 0, 1, ...; interaction tokens stand in the image slot, before the first image token, or, where the plan says
so, in front too. All are put in when the cache is empty, lie in the cache from then on, and are cut from the decoder's
output: labels, logits and lengths never see them.

Interaction tokens are the visual prompts' states after the last block that is read, or raw parameters in their place.
They are left in its output, pass through the projector with the patches, and are split off where image and text meet,
so image features cached from `get_image_features` carry them. No hook keeps anything between two calls: where the rows
are travels as a keyword argument, because a recomputed or repeated forward must not depend on what ran before it.

Limits, each refused: a cache of fixed size; several images a sequence with interaction; beam search with interaction
(transformers counts features against image tokens); more tokens than a sliding window holds; `generate` continued from
a returned cache (its own slicing counts the prompts as text: call the model itself).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.hashing import derive
from mmpt_bench.engine.adapters.attachment import normal, xavier
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.kv_cache import cache_in, tokens_in
from mmpt_bench.engine.prompts.masks import PromptRows, extend_mask, extend_mask_right, extend_positions, unmarked
from mmpt_bench.engine.prompts.plan import Init, PromptPlan
from mmpt_bench.engine.prompts.prompt_keys import give, projected

NORMAL_SD = 0.02
"""Of `normal`: the spread that language models of the field are initialised with."""
Rows = Float[Tensor, "batch tokens dim"]


class PromptBank(nn.Module):
    """Owns all prompt parameters of a model, stacked, and the hooks that use them.

    Attributes:
        mmpt_visual: (blocks or 1, visual, vision_dim).
        mmpt_text: (layers or 1, text, text_dim).
        mmpt_key, mmpt_value: (layers, keys, key_dim). A key is what `k_proj` would have written: the model rotates it
            to its row's position, 0 to keys - 1.
        as_keys: sides, of "vision" and "text", whose deep prompts are keys and values for now (prompt_keys.py).
    """

    as_keys: frozenset[str] = frozenset()
    of_item = False
    """Whether each item of a batch has prompts of its own (conditioned.py)."""
    reads_question = False
    """Whether a prompt depends on what is asked, so that questions about an image share nothing after it."""

    def __init__(self, anatomy: Anatomy, plan: PromptPlan, seed: int, words: Float[Tensor, "words dim"]) -> None:
        """Draws the parameters, each tensor from its own stream of `seed`; `words` are the model's embeddings."""
        super().__init__()
        self.plan, self.anatomy = plan, anatomy
        for name, shape in plan.shapes(anatomy).items():
            self.register_parameter(name, nn.Parameter(_drawn(plan.init, name, shape, derive(seed, name), words)))

    def prompts(self, name: str, index: int) -> Float[Tensor, "rows dim"]:
        """Returns one set of a parameter, as it is now: loading may put another tensor in its place."""
        return self.get_parameter(name)[index]

    def spread(self, name: str, index: int, like: Rows) -> Rows:
        """Returns one set of a parameter for every row of a batch, in the batch's dtype."""
        return self.prompts(name, index).to(like).expand(len(like), -1, -1)

    @property
    def left(self) -> int:
        """Rows left after a tile's patches; raw parameters in front bring the class token along."""
        if self.plan.interaction == "none":
            return 0
        brings_class = self.plan.interaction == "parameters" and self.anatomy.drops_first and self.anatomy.merge == 1
        return self.plan.visual + (brings_class and not self.plan.raw_sets)

    @property
    def flowing(self) -> int:
        """Interaction tokens an image: a row's each, or one of every square of rows that the connector merges."""
        return -(-self.left // self.anatomy.merge**2)

    @property
    def rows(self) -> PromptRows:
        """Rows by which the decoder's sequence grows, without their places."""
        inside = self.flowing if self.plan.interaction_place == "image" else 0
        return PromptRows(self.plan.text + self.plan.keys + self.flowing - inside, inside)

    # Vision side

    def append(self, block: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before a vision block: appends the block's prompts to its input, from which what was left behind is cut."""
        if block and self.plan.visual_deep and not self.is_cut_behind(block - 1):
            args, kwargs = self.cut_unread(module, args, kwargs)
        if "vision" in self.as_keys and self.is_cut_behind(block):
            give(module, *projected(module, "layer_norm1", self.prompts("mmpt_visual", block)))
            return args, kwargs
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        if mask is not None:
            # Where prompts flow, only the first block lengthens the sequence, and each one's mask must follow.
            grown = extend_mask_right(mask, self.plan.visual)
            args, kwargs = (args[0], *args[2:]) if len(args) > 1 else args, {**kwargs, "attention_mask": grown}
        if (turns := kwargs.get("freqs_ci")) is not None:
            # Llama 4 rotates patches to their place; a prompt has none, and stays as it is.
            kwargs = {**kwargs, "freqs_ci": torch.cat([turns, turns.new_ones(self.plan.visual, *turns.shape[1:])])}
        if block and not self.plan.visual_deep:
            return args, kwargs
        hidden = hidden_in(args, kwargs)
        return with_hidden(args, kwargs, torch.cat([hidden, self.spread("mmpt_visual", block, hidden)], dim=1))

    def is_cut_behind(self, block: int) -> bool:
        """Returns whether nothing reads what a vision block makes of its prompts."""
        return block not in self.anatomy.vision_read or not self.flowing

    def cut_block(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """After a vision block: cuts the prompts off."""
        if "vision" in self.as_keys:
            return output
        return with_output(output, lambda hidden: hidden[:, : -self.plan.visual])

    def leave_parameters(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """After the last block that is read: puts raw parameters (and the class token) in the prompts' place.

        In the image slot these are the released code's: it overwrites the prompts, which stand before the class token,
        with the next block's set and reads the states there, of which it leaves the first row out as the class token.
        """

        def swap(hidden: Rows) -> Rows:
            kept, raw = hidden[:, : -self.plan.visual], self.spread("mmpt_visual", -1, hidden)
            if not self.anatomy.drops_first or self.anatomy.merge > 1:
                return torch.cat([kept, raw], dim=1)
            return torch.cat([kept, raw[:, 1:] if self.plan.raw_sets else raw, hidden[:, :1]], dim=1)

        return with_output(output, swap)

    def cut_unread(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before a block that does not read them: cuts the rows that were left for the projector."""
        return with_hidden(args, kwargs, hidden_in(args, kwargs)[:, : -self.left])

    # Text side

    def enter_decoder(self, module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before the decoder: puts the rows in front where the cache is empty; mask and positions always follow."""
        if args:
            raise ValueError("with prompts, call the decoder with keyword arguments")
        kwargs = dict(kwargs)
        states, cache, rows = kwargs.pop("prompt_states", None), cache_in(kwargs), self.rows
        places = kwargs.pop("prompt_places", ())
        _refuse(module, cache)
        seen = tokens_in(cache)
        as_keys = "text" in self.as_keys and cache is None and kwargs.get("use_cache") is False
        if 0 < seen < rows.total:
            raise ValueError(
                f"a cache of {seen} tokens cannot hold the {rows.total} prompt rows; it was filled without them"
            )
        embeds = kwargs.get("inputs_embeds")
        if embeds is None:
            embeds = module.get_input_embeddings()(kwargs.pop("input_ids"))
        mask, length = kwargs.get("attention_mask"), embeds.shape[1]
        self._check_window(seen + length + (0 if seen else rows.total))
        if not seen:
            states = self._checked(states, embeds)
            rows = replace(rows, places=places if rows.inside else (), starts=self._starts(mask))
        positions = kwargs.get("position_ids")
        kwargs["position_ids"] = extend_positions(positions, mask, rows, seen, length, has_cache=cache is not None)
        kwargs["attention_mask"] = extend_mask(mask, rows, seen, length, self.anatomy.recurrent)
        if as_keys:
            return args, self._only_keys(module, kwargs, rows, embeds, states)
        if not seen:
            kwargs |= {**unmarked(kwargs, rows, embeds), "prompt_rows": rows}
            embeds = rows.put_in(embeds, self._front(embeds, states), states if rows.inside else None)
        kwargs["inputs_embeds"] = embeds
        return args, kwargs

    def _only_keys(self, module: Any, kwargs: dict, rows: PromptRows, embeds: Rows, states: Rows | None) -> dict:
        """Returns the decoder's arguments with the interaction's rows alone; masks and positions are cut."""
        away = self.plan.text + self.plan.keys
        positions, mask = kwargs["position_ids"], kwargs["attention_mask"]
        if positions is None:
            positions = torch.arange(rows.total + embeds.shape[1], device=embeds.device)[None]
        if mask is not None:
            mask = mask[:, away:] if mask.dim() == 2 else mask[..., away:, away:]
        rotary = module.rotary_emb(embeds, position_ids=torch.arange(away, device=embeds.device)[None])
        front = self._front(embeds, states)[1:]
        rows = replace(rows, front=rows.front - away)
        kwargs |= unmarked(kwargs, rows, embeds)
        embeds = rows.put_in(embeds, front, states if rows.inside else None)
        kwargs |= {"position_ids": positions[..., away:], "attention_mask": mask, "inputs_embeds": embeds}
        return {**kwargs, "prompt_rows": rows, "prompt_rotary": rotary}

    def _starts(self, mask: Any) -> tuple[int, ...]:
        """Returns where the front rows stand in each sequence: after its padding, where a decoder passes states on."""
        if not self.anatomy.recurrent or mask is None or not self.rows.front:
            return ()
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            raise ValueError("with prompts before layers that pass states on, give an attention mask of tokens")
        starts = tuple(mask.bool().int().argmax(dim=1).tolist())
        return starts if any(starts) else ()

    def _check_window(self, tokens: int) -> None:
        """Raises RequestError where the decoder's window would no longer hold the prompts."""
        window = self.anatomy.window
        if window is not None and tokens > window:
            raise RequestError(
                f"{tokens} tokens with {self.rows.total} prompts: some layers of this decoder see the last {window} "
                "tokens, and the prompts would slide out. Shorten the examples, or use a method without prompts."
            )

    def widen_mask(self, module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before a core model that builds masks of pairs: while decoding, it must see the prompts in the cache.

        It would fill a mask of tokens that is shorter than the cache up on the right, and hide the newest tokens.
        """
        cache, mask = cache_in(kwargs), kwargs.get("attention_mask")
        seen = tokens_in(cache)
        rows = self.rows
        if seen < rows.total or not seen or not isinstance(mask, Tensor) or mask.dim() != 2:
            return args, kwargs
        return args, {**kwargs, "attention_mask": extend_mask(mask, rows, seen, mask.shape[1] - seen + rows.total)}

    def _checked(self, states: Rows | None, embeds: Rows) -> Rows | None:
        """Returns the interaction's rows like the sequences that they enter; ValueError where they are of others."""
        if not self.flowing:
            return None
        if states is None or len(states) != len(embeds):
            pictures = 0 if states is None else len(states)
            raise ValueError(f"interaction needs one image a sequence: {pictures} for {len(embeds)} sequences")
        return states.to(embeds)

    def _front(self, embeds: Rows, states: Rows | None) -> list[Rows]:
        """Returns what stands in front of the sequence, in order, each (batch, rows, text_dim)."""
        front = []
        if self.plan.text:
            front.append(self.spread("mmpt_text", 0, embeds))
        if self.plan.keys:
            front.append(embeds.new_zeros(embeds.shape[0], self.plan.keys, embeds.shape[2]))
        if states is not None and not self.rows.inside:
            front.append(states)
        return front if self.plan.text_first else front[::-1]

    def enter_layer(self, layer: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before a decoder layer: overwrites the textual prompts' rows with the layer's own."""
        rotary = kwargs.get("prompt_rotary")
        if rotary is not None:
            if self.plan.keys:
                keys, values = self.prompts("mmpt_key", layer), self.prompts("mmpt_value", layer)
            else:
                keys, values = projected(module, "input_layernorm", self.prompts("mmpt_text", layer))
            give(module, keys, values, rotary)
            return args, {k: v for k, v in kwargs.items() if k not in ("prompt_rows", "prompt_rotary")}
        rows: PromptRows | None = kwargs.get("prompt_rows")
        if rows is None:
            return args, kwargs
        if not self.plan.keys:
            # Attention functions need not accept an argument that they do not know.
            kwargs = {k: v for k, v in kwargs.items() if k != "prompt_rows"}
        if not self.plan.text or not self.plan.text_deep or layer == 0:
            return args, kwargs
        hidden = hidden_in(args, kwargs)
        first = 0 if self.plan.text_first else self.flowing
        new = self.spread("mmpt_text", layer, hidden)
        return with_hidden(args, kwargs, rows.overwritten(hidden, new, first))

    def mark_attention(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before attention: marks the input whose first rows take trained keys and values."""
        if kwargs.get("prompt_rows") is None:
            return args, kwargs
        kwargs = {k: v for k, v in kwargs.items() if k != "prompt_rows"}
        hidden = hidden_in(args, kwargs)
        # `k_proj` and `v_proj` take one tensor and no keywords, so the tensor itself says that its first rows are ours.
        marked = hidden.view_as(hidden)
        marked.prompt_rows = self.plan.keys  # type: ignore[attr-defined]
        return with_hidden(args, kwargs, marked)

    def write(self, name: str, layer: int, module: nn.Module, args: tuple, output: Rows) -> Rows:
        """After `k_proj` or `v_proj`: writes the trained keys or values over the placeholders' own."""
        rows = getattr(args[0], "prompt_rows", 0)
        if not rows:
            return output
        return torch.cat([self.spread(name, layer, output), output[:, rows:]], dim=1)

    def leave_decoder(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        """After the decoder: cuts the rows off everything that it returns."""
        rows: PromptRows | None = kwargs.get("prompt_rows")
        if rows is None:
            return output
        if isinstance(output, tuple):
            raise ValueError("with prompts, the decoder's output must be an object: leave `return_dict` on")
        output.last_hidden_state = rows.cut_out(output.last_hidden_state)
        if output.hidden_states is not None:
            output.hidden_states = tuple(None if one is None else rows.cut_out(one) for one in output.hidden_states)
        if output.attentions is not None:
            by_query = (None if one is None else one.transpose(1, 2) for one in output.attentions)
            output.attentions = tuple(None if one is None else rows.cut_out(one).transpose(1, 2) for one in by_query)
        return output


def _drawn(
    init: Init, name: str, shape: tuple[int, int, int], seed: int, words: Float[Tensor, "words dim"]
) -> Float[Tensor, "sets length dim"]:
    """Returns what a parameter starts as, drawn on the CPU from `seed` alone."""
    if init == "normal":
        return normal(shape, NORMAL_SD, seed)
    if init == "words" and name == "mmpt_text":
        chosen = torch.randint(len(words), shape[:2], generator=torch.Generator().manual_seed(seed))
        return words.detach().float().cpu()[chosen]
    return xavier(*shape, seed)


def _refuse(decoder: Any, cache: Any) -> None:
    """Raises ValueError for a setting under which prompts would be silently wrong."""
    if getattr(cache, "is_compileable", False):
        raise ValueError("prompts do not fit a cache of fixed size: use the default (dynamic) cache")
    checkpoint = getattr(decoder, "_gradient_checkpointing_func", None)
    reentrant = getattr(checkpoint, "keywords", {}).get("use_reentrant", False)
    if decoder.training and getattr(decoder, "gradient_checkpointing", False) and reentrant:
        raise ValueError("prompts get no gradient under reentrant checkpointing: set `use_reentrant=False`")


def hidden_in(args: tuple, kwargs: dict) -> Tensor:
    """Returns the hidden states that a block is called with."""
    return args[0] if args else kwargs["hidden_state" if "hidden_state" in kwargs else "hidden_states"]


def with_hidden(args: tuple, kwargs: dict, hidden: Tensor) -> tuple[tuple, dict]:
    """Returns a block's arguments with other hidden states."""
    name = "hidden_state" if "hidden_state" in kwargs else "hidden_states"
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, name: hidden})


def with_output(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Returns a block's output with its hidden states changed."""
    return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)
