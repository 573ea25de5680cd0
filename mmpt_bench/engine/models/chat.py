"""How examples are written for a model: each family's own chat template, and which of the tokens are learnt.

A conversation is what the template writes of it, with an end after every reply: the template's own where generation
stops at it, else the tokenizer's end-of-sequence token, as LLaVA writes it (`</s>` after every reply; Liu et al. 2023,
arXiv:2304.08485, section 4.2). A single exchange ends with the tokenizer's in every family. Imports without torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.examples import PLAIN, Opening
from mmpt_bench.engine.models.encoding import Tokens
from mmpt_bench.engine.models.families import Family

if TYPE_CHECKING:
    from mmpt_bench.data.examples import Exchange

Target = str | tuple[str, ...]
"""A reply; or the replies of a conversation as they are written, and what is between: (reply, between, reply, ...)."""


def prompt(
    processor: Any,
    family: Family,
    question: str,
    earlier: Sequence[Exchange] = (),
    opening: Opening = PLAIN,
) -> str:
    """Returns the text of one image and a question after earlier exchanges, up to where the answer begins."""
    if getattr(processor, "chat_template", None) is not None:
        return written(processor, [*turns(earlier), question], False, opening)
    if family.prompt is None:
        raise RequestError(f"The processor of this {family.title} has no chat template: add chat_template.jinja to it.")
    if earlier or opening != PLAIN:
        what = "several exchanges" if earlier else "a system's turn, several images, or an image within the question"
        raise RequestError(
            f"{family.title} has no form for {what}. Give training data of one exchange an image, or another backbone."
        )
    bos = processor.tokenizer.bos_token or ""
    return family.prompt.format(image=processor.image_token, bos=bos, question=question)


def turns(exchanges: Sequence[Exchange]) -> list[str]:
    """Returns questions and replies by turns."""
    return [text for one in exchanges for text in (one.question, one.reply)]


def end_of_reply(processor: Any, stops: Sequence[int]) -> int:
    """Returns the token that ends a reply: the template's where it is one of `stops`, else the tokenizer's own."""
    asked, whole = written(processor, ["q"], answered=False), written(processor, ["q", "a"], answered=True)
    gap = _gap(asked, "a", whole)
    if gap is not None:
        behind = whole[len(asked) + len(gap) + 1 :].lstrip()
        for stop in stops:
            if behind.startswith(processor.tokenizer.convert_ids_to_tokens(stop)):
                return stop
    return int(processor.tokenizer.eos_token_id)


def target(prompts: Sequence[str], whole: str, exchanges: Sequence[Exchange], end: str) -> Target:
    """Returns what is to be learnt of a conversation after its first prompt.

    Args:
        prompts: the text before each reply, from the beginning of the conversation on.
        whole: the text of all exchanges, as the template writes it.
        end: the text of the token that `end_of_reply` gives.

    Raises:
        RequestError: the whole does not go on from a prompt with its reply, so that nothing says where a reply stands.
    """
    parts: list[str] = []
    stands = 0
    for before, one in zip(prompts, exchanges, strict=True):
        if parts:
            # White space that a template puts after a reply is that of a text without an end.
            parts.append(end + whole[stands : len(before)].lstrip().removeprefix(end))
        gap = _gap(before, one.reply, whole)
        if gap is None:
            raise RequestError(
                "The chat template writes an earlier exchange otherwise than one that is to be answered, so that "
                f"several exchanges cannot be trained on: {one.reply[:80]!r} is not where it was. "
                "Give training data of one exchange an image."
            )
        parts.append(gap + one.reply)
        stands = len(before) + len(parts[-1])
    return tuple(parts)


def parts(prompt: str, target: Target) -> list[str]:
    """Returns an example's text up to where the first reply begins, up to where it ends, and so on."""
    if isinstance(target, str):
        return [prompt, f"{prompt}{target}" if prompt[-1:].isspace() else f"{prompt} {target}"]
    return list(itertools.accumulate(target, initial=prompt))


def learnt(row: Tokens, exchanges: Sequence[Exchange]) -> Tokens:
    """Returns an example's tokens with those replies that are learnt; RequestError where the length leaves none."""
    if all(one.learnt for one in exchanges):
        return row
    kept = tuple(span for span, one in zip(row.replies, exchanges, strict=False) if one.learnt)
    if not kept:
        raise RequestError("No reply that is learnt stands within `max_length` tokens.")
    return Tokens(row.ids, kept, row.left_out)


def row(tokenized: Sequence[list[int]], end: int, longest: int | None) -> Tokens | None:
    """Returns a conversation's tokens with as many exchanges as there is room for; None where there is for none.

    Args:
        tokenized: tokens of the conversation up to where the first reply begins, up to where it ends, and so on.
        end: the token that ends a reply.
        longest: tokens allowed.
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


def written(processor: Any, said: Sequence[str], answered: bool, opening: Opening = PLAIN) -> str:
    """Returns the template's text of questions and replies by turns, with images where they stand.

    Where the last of them is not a reply (`answered`), the text ends where one begins. Raises RequestError where the
    template writes no turn of the system, and the conversation has one.
    """
    messages: list[dict[str, Any]] = [
        {"role": ("user", "assistant")[i % 2], "content": [{"type": "text", "text": text}]}
        for i, text in enumerate(said)
    ]
    before, behind = said[0][: opening.image_at], said[0][opening.image_at :]
    shown = [*[{"type": "image"}] * opening.images, {"type": "text", "text": behind}]
    messages[0]["content"] = [{"type": "text", "text": before}, *(shown if behind else shown[:-1])] if before else shown
    for message, images in zip(messages[2::2], opening.later_images, strict=False):
        message["content"] = [*[{"type": "image"}] * images, *message["content"]]
    from jinja2 import TemplateError

    if opening.system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": opening.system}]})
    try:
        text: str = processor.apply_chat_template(messages, add_generation_prompt=not answered, tokenize=False)
    except TemplateError as error:
        if opening.system:
            raise RequestError("The chat template writes no turn of the system") from error
        told = (str(error).splitlines() or [type(error).__name__])[0][:150]
        raise RequestError(f"The backbone's chat template (chat_template.jinja) does not run: {told}") from error
    if opening.system not in text:
        raise RequestError("The chat template writes no turn of the system")
    return text


def _gap(before: str, reply: str, whole: str) -> str | None:
    """Returns the white space between a prompt and its reply in a text; None where that does not go on so."""
    if not whole.startswith(before):
        return None
    rest = whole[len(before) :]
    gap = rest[: len(rest) - len(rest.lstrip())]
    return gap if rest.startswith(gap + reply) else None
