"""One image as a family's own processor makes it: tensors of any shape, and what its token becomes in the text.

Families differ in both: tiles (LLaVA-NeXT, Idefics3, InternVL), a sequence of patches with its grid (Qwen2-VL), one
square (PaliGemma, Gemma 3). What they share is that images join along the first dimension. Imports without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels", "text_replacement_offsets")


@dataclass(frozen=True)
class Encoded:
    """One image, ready for the model."""

    tensors: dict[str, Tensor]
    """Inputs of the model by name, in main memory; the first dimension is that along which images join."""
    text: str
    """What the image token of a prompt is replaced by."""

    @property
    def n_bytes(self) -> int:
        """Returns the size of the tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def to_keep(self) -> Encoded:
        """Returns a copy in main memory: a view of a batch's tensor would keep the whole batch."""
        tensors = {name: value.detach().to("cpu", copy=True) for name, value in self.tensors.items()}
        return Encoded(tensors, self.text)


BETWEEN = "\0"
"""Between the texts of several images, which stand for an image token each."""


def together(images: Sequence[Encoded]) -> Encoded:
    """Returns the images of one question as the model takes them: joined, as those of a batch are."""
    if len(images) == 1:
        return images[0]
    return Encoded(collated([one.tensors for one in images]), BETWEEN.join(one.text for one in images))


def placed(prompt: str, image: str, own: str) -> str:
    """Returns a prompt whose image tokens are replaced by what each stands for; by the same where there is one text."""
    if BETWEEN not in own:
        return prompt.replace(image, own)
    before, *behind = prompt.split(image)
    return before + "".join(text + rest for text, rest in zip(own.split(BETWEEN), behind, strict=True))


@dataclass(frozen=True)
class Tokens:
    """A text in tokens, not yet padded."""

    ids: list[int]
    replies: tuple[tuple[int, int], ...] = ()
    """Where each reply that is to be learnt begins, and where it ends after its own end; none in a bare prompt."""
    left_out: int = 0
    """Exchanges of a conversation for which there was no room."""


def encoded(processor: Any, picture: Image) -> Encoded:
    """Returns an image as the processor makes it of a text that is the image token alone."""
    image: str = processor.image_token
    made = processor(text=[image], images=[[picture]], return_tensors="pt", return_text_replacement_offsets=True)
    tensors = {name: value for name, value in made.items() if name not in _TEXT}
    if "text_replacement_offsets" not in made:
        # Idefics2's processor does not tell; what it makes of the token is special tokens alone.
        words = processor.tokenizer.convert_ids_to_tokens(made["input_ids"][0].tolist())
        return Encoded(tensors, "".join(words).removeprefix(processor.tokenizer.bos_token or ""))
    (found,) = made["text_replacement_offsets"][0]
    return Encoded(tensors, found["replacement"])


def collated(pictures: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Returns images' tensors joined along the first dimension, others filled up with zeros to the largest.

    Zeros are what the processors themselves fill tiles up with, and what the models take for no tile.
    """
    import torch

    joined = {}
    for name in pictures[0]:
        values = [picture[name] for picture in pictures]
        widest = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
        filled = []
        for value in values:
            room = [pad for have, want in zip(reversed(value.shape[1:]), reversed(widest), strict=True)
                    for pad in (0, want - have)]  # fmt: skip
            filled.append(torch.nn.functional.pad(value, room) if any(room) else value)
        joined[name] = torch.cat(filled)
    return joined
