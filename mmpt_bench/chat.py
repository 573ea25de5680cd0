"""How examples are written for a model: each family's own chat template, and which of the tokens are learnt.

A conversation is the prompt of its first question, and behind it replies with what the template puts between them. A
reply ends with the template's own end where generation stops at it, else with the tokenizer's end-of-sequence token, as
LLaVA writes it (`</s>` behind every reply; Liu et al. 2023, arXiv:2304.08485, section 4.2). Imports without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpt_bench.corpus import Exchange
from mmpt_bench.encoded import Tokens
from mmpt_bench.errors import RequestError
from mmpt_bench.families import Family

Target = str | tuple[str, ...]
"""A reply; or replies, and what stands between one and the next: (reply, between, reply, ...)."""


def prompt(processor: Any, family: Family, question: str, earlier: Sequence[Exchange] = ()) -> str:
    """Returns the text of one picture and a question behind earlier exchanges, up to where the answer begins.

    Raises:
        RequestError: the processor has no template, or none for several exchanges.
    """
    if getattr(processor, "chat_template", None) is not None:
        said = [text for one in earlier for text in (one.question, one.reply)]
        return _templated(processor, [*said, question], answered=False)
    if family.prompt is None:
        raise RequestError(f"The processor of this {family.title} has no chat template: add chat_template.jinja to it.")
    if earlier:
        raise RequestError(
            f"{family.title} has no form for several exchanges. Give training data of one exchange a picture, or "
            "another backbone."
        )
    bos = processor.tokenizer.bos_token or ""
    return family.prompt.format(image=processor.image_token, bos=bos, question=question)


def end_of_reply(processor: Any, stops: Sequence[int]) -> int:
    """Returns the token that ends a reply: the template's where it is one of `stops`, else the tokenizer's own."""
    if getattr(processor, "chat_template", None) is not None:
        asked = _templated(processor, ["q"], answered=False)
        tail = _behind(asked, "a", _templated(processor, ["q", "a"], answered=True))
        for stop in stops:
            if tail is not None and tail.lstrip().startswith(processor.tokenizer.convert_ids_to_tokens(stop)):
                return stop
    return int(processor.tokenizer.eos_token_id)


def target(prompts: Sequence[str], exchanges: Sequence[Exchange], end: str) -> Target:
    """Returns what is to be learnt of a conversation behind its first prompt.

    Args:
        prompts: the text before each reply, from the beginning of the conversation on.
        exchanges: the same number.
        end: the text of the token that `end_of_reply` gives.

    Raises:
        RequestError: a prompt does not go on from the one before it, so that nothing says where a reply stands.
    """
    if len(exchanges) == 1:
        return exchanges[0].reply
    parts = []
    for before, after, one in zip(prompts, prompts[1:], exchanges, strict=False):
        between = _behind(before, one.reply, after)
        if between is None:
            raise RequestError(
                "The chat template writes an earlier exchange otherwise than one that is to be answered, so that "
                f"several exchanges cannot be trained on: {one.reply[:80]!r} is not where it was. "
                "Give training data of one exchange a picture."
            )
        # White space that a template puts behind a reply is that of a text without an end.
        parts += [one.reply, end + between.lstrip().removeprefix(end)]
    return (*parts, exchanges[-1].reply)


def parts(prompt: str, target: Target) -> list[str]:
    """Returns a conversation's text up to where the first reply begins, up to where it ends, and so on."""
    texts = [prompt]
    for i, part in enumerate((target,) if isinstance(target, str) else target):
        gap = "" if i % 2 or texts[-1][-1:].isspace() else " "
        texts.append(f"{texts[-1]}{gap}{part}")
    return texts


def row(tokenized: Sequence[list[int]], end: int, longest: int | None) -> Tokens | None:
    """Returns a conversation's tokens with as many exchanges as there is room for; None where there is for none.

    Args:
        tokenized: tokens of the conversation up to where the first reply begins, up to where it ends, and so on.
        end: the token that ends a reply.
        longest: tokens allowed.

    Raises:
        ValueError: the tokenizer merges two parts into one token, so that no boundary exists.
    """
    whole = [*tokenized[-1], end]
    bounds = [len(part) for part in tokenized]
    for part, before in zip(tokenized, (0, *bounds), strict=False):
        if whole[: len(part)] != part or len(part) == before:
            raise ValueError("the tokenizer finds no boundary between a prompt and its reply")
    replies = list(zip(bounds[::2], (bound + 1 for bound in bounds[1::2]), strict=True))
    if any(whole[last - 1] != end for _, last in replies):
        raise ValueError("the tokenizer writes the end of a reply otherwise than as its token")
    kept = [span for span in replies if longest is None or span[1] <= longest]
    if not kept:
        return None
    return Tokens(whole[: kept[-1][1]], tuple(kept), len(replies) - len(kept))


def _templated(processor: Any, said: Sequence[str], answered: bool) -> str:
    """Returns the template's text of what user and assistant say in turns, with the picture in front."""
    messages: list[dict[str, Any]] = [
        {"role": ("user", "assistant")[i % 2], "content": [{"type": "text", "text": text}]}
        for i, text in enumerate(said)
    ]
    messages[0]["content"].insert(0, {"type": "image"})
    text: str = processor.apply_chat_template(messages, add_generation_prompt=not answered, tokenize=False)
    return text


def _behind(before: str, reply: str, after: str) -> str | None:
    """Returns what follows the reply in a text that goes on from another; None where it does not."""
    if not after.startswith(before):
        return None
    rest = after[len(before) :].lstrip()
    return rest[len(reply) :] if rest.startswith(reply) else None
