"""One question made ready to be explained: the decoder is asked again with other image tokens in place of its own.

Image and prompt go through the model once. What the decoder is called with is kept, before prompts of a method are put
in, and its image tokens are replaced at will; the tower is not run again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.inference.plain import Question, choice_ids
from mmpt_bench.engine.models.backbone import Backbone

MOST_TOKENS = 8192
"""That go through the decoder together: of a question several times, each with other image tokens."""
CLOSE = 1e-3
"""Most that logits of the kept call may be off the model's own, relative to the largest."""

Tokens = Float[Tensor, "tokens dim"]
ManyTokens = Float[Tensor, "rows tokens dim"]


@dataclass(frozen=True)
class Asked:
    """A question to one model."""

    backbone: Backbone
    call: dict[str, Any]
    """What the decoder is called with, one question a batch."""
    places: Int[Tensor, " tokens"]
    """Of the image tokens among the prompt's."""
    words: Int[Tensor, " words"]
    """Vocabulary entries that answers begin with."""
    answer: int
    """Index, among `words`, of the model's own answer."""

    @property
    def tokens(self) -> Tokens:
        """Returns the image tokens as they enter the decoder."""
        return self.call["inputs_embeds"][0, self.places]  # type: ignore[no-any-return]

    @property
    def rows(self) -> int:
        """Returns how often the question goes through the decoder together."""
        return max(1, MOST_TOKENS // int(self.call["inputs_embeds"].shape[1]))

    def logits(self, tokens: ManyTokens) -> Float[Tensor, "rows words"]:
        """Returns the logits of the answers' first words with these image tokens in place of the question's own."""
        return torch.cat([self._logits(part) for part in tokens.split(self.rows)])

    def odds(self, tokens: ManyTokens) -> Float[Tensor, " rows"]:
        """Returns the log-odds of the model's own answer against the others."""
        logits = self.logits(tokens)
        is_other = torch.arange(len(self.words), device=logits.device) != self.answer
        return logits[:, self.answer] - logits[:, is_other].logsumexp(dim=1)

    def _logits(self, tokens: ManyTokens) -> Float[Tensor, "rows words"]:
        call = {name: _repeated(value, len(tokens), name) for name, value in self.call.items()}
        embeds = call["inputs_embeds"].index_copy(1, self.places, tokens.to(call["inputs_embeds"]))
        return self._words(_decoder(self.backbone)(**{**call, "inputs_embeds": embeds}))

    def _words(self, output: Any) -> Float[Tensor, "rows words"]:
        model = self.backbone.model
        logits: Tensor = model.get_output_embeddings()(output.last_hidden_state[:, -1])[:, self.words].float()
        cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)


def ask(backbone: Backbone, sample: Sample) -> Asked:
    """Returns a question made ready, under `attention_returned`.

    Raises RequestError where the decoder, called again as it was called, does not say what the model said.
    """
    prompt = backbone.prompt_text(sample.question)
    inputs = backbone.batch([sample.image.open()], [prompt])
    kept: dict[str, Any] = {}
    hook = _decoder(backbone).register_forward_pre_hook(partial(_keep, kept), with_kwargs=True, prepend=True)
    try:
        with torch.no_grad():
            said = backbone.model(**inputs, use_cache=False).logits[:, -1].float()
    finally:
        hook.remove()
    if kept.get("inputs_embeds") is None:
        raise RequestError("`explain` needs a decoder that takes embeddings, and this model's does not.")
    first = sorted(set(_first_words(backbone, prompt, sample)))
    words = torch.tensor(first if len(first) > 1 else range(said.shape[-1]), device=said.device)
    places = (inputs["input_ids"][0] == backbone.model.config.image_token_id).nonzero()[:, 0]
    asked = Asked(backbone, kept, places, words, int(said[0, words].argmax()))
    with torch.no_grad():
        again = asked.logits(asked.tokens[None])
    if not torch.allclose(again, said[:, words], atol=CLOSE * max(1.0, float(said.abs().max()))):
        off = float((again - said[:, words]).abs().max())
        raise RequestError(f"`explain` does not fit this model: its decoder, asked again, is off by {off:.3g}.")
    return asked


def right_word(asked: Asked, sample: Sample) -> bool:
    """Returns whether the model's own answer begins as the right one does."""
    alone = replace(sample, choices=(sample.answer,))
    (right,) = _first_words(asked.backbone, asked.backbone.prompt_text(sample.question), alone)
    return right == int(asked.words[asked.answer])


def _first_words(backbone: Backbone, prompt: str, sample: Sample) -> list[int]:
    """Returns the first token of each legal answer."""
    return [ids[0] for ids in choice_ids(backbone, Question(prompt, [sample]))]


def _decoder(backbone: Backbone) -> Any:
    return backbone.model.get_submodule(backbone.anatomy.decoder)


def _keep(kept: dict[str, Any], module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    """Before the decoder, and before prompts are put in: keeps what it is called with."""
    kept.update(kwargs)


def _repeated(value: Any, rows: int, name: str) -> Any:
    """Returns an argument of one question for several alike."""
    if isinstance(value, dict):
        return {key: _repeated(one, rows, name) for key, one in value.items()}
    if isinstance(value, tuple) and name == "prompt_places":
        return value * rows
    if not isinstance(value, Tensor) or value.dim() < 2:
        return value
    # Positions in several dimensions (M-RoPE) have the batch after theirs.
    axis = 1 if name == "position_ids" and value.dim() == 3 else 0
    return value.repeat_interleave(rows, dim=axis) if value.shape[axis] == 1 else value
