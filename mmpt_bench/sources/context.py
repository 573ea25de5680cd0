"""Whether a method's prompts leave a backbone room for an image, a question and a word, told from its files alone."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.sources.weights import backbone_folder


def check_prompts_fit(method: Any, backbone: str, offline: bool, questions: tuple[str, ...]) -> None:
    """Refuses prompt rows that fill the decoder's context beside image tokens and longest question (RequestError).

    The chat frame around a question is not counted.
    """
    longest = prompt_rows(method)
    if not longest:
        return
    folder = backbone_folder(backbone, offline)
    config = json.loads((folder / "config.json").read_bytes())
    context = config.get("text_config", config).get("max_position_embeddings")
    if context is None:
        return
    vision = config.get("vision_config", {})
    size, patch = vision.get("image_size"), vision.get("patch_size")
    image = (size // patch) ** 2 if isinstance(size, int) and isinstance(patch, int) else 0
    question = _longest(folder / "tokenizer.json", questions)
    most = context - image - question - 1
    if longest > most:
        asked = f" and {question:,} the longest question" if question else ""
        raise RequestError(
            f"`{method.name}` with prompts of {longest:,} rows does not fit `{backbone}`: its context holds "
            f"{context:,} tokens, {image:,} of them the image{asked}. The most is {most:,}."
        )


def prompt_rows(method: Any) -> int:
    """Returns how many rows of the decoder's context a method's prompts take."""
    return max([method.decoder_rows, *(value for name, value in vars(method).items() if name.endswith("length"))])


@functools.cache
def _longest(tokenizer_file: Path, texts: tuple[str, ...]) -> int:
    """Returns how many tokens the longest of some texts has; 0 where a tokenizer is not in this form."""
    if not texts or not tokenizer_file.is_file():
        return 0
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    return max(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
