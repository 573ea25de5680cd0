"""A backbone: a Hugging Face image-text model with its processor, and the way from pictures and words to its tensors.

Imports without torch, so that a fingerprint costs no second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mmpt_bench.errors import RequestError, UntrustedRecord, unknown_name
from mmpt_bench.vision import PIXEL_BYTES, FeatureCache
from mmpt_bench.weights import DTYPES, backbone_fingerprint, backbone_folder, folder_fingerprint, verify_folder

if TYPE_CHECKING:
    from jaxtyping import Float
    from PIL.Image import Image
    from torch import Tensor

    from mmpt_bench.anatomy import Anatomy

__all__ = ["IGNORED", "Backbone", "Encoded", "backbone_fingerprint", "load_backbone"]

IGNORED = -100
"""Label of a token that the loss leaves out (torch.nn.functional.cross_entropy)."""


@dataclass(frozen=True)
class Encoded:
    """One text in tokens."""

    ids: list[int]
    start: int
    """Where the target begins; the length where there is none."""


@dataclass
class Backbone:
    """A loaded model, and how it is spoken to."""

    name: str
    """What it was loaded by: "embedded", a folder or a hub name."""
    model: Any
    processor: Any
    anatomy: Anatomy
    fingerprint: str
    device: str
    dtype: str
    features: FeatureCache = field(default_factory=FeatureCache, repr=False)
    """What a frozen vision tower made of pictures, for every method that leaves it frozen."""
    kept_pixels: FeatureCache = field(default_factory=partial(FeatureCache, PIXEL_BYTES), repr=False)
    """Pictures of evaluation as the tower reads them."""

    def prompt_text(self, question: str) -> str:
        """Returns the chat prompt of one picture and one question, up to where the answer begins.

        Raises:
            RequestError: the text does not hold exactly one image token, as when the question brings its own.
        """
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        found = text.count(self.processor.image_token)
        if found != 1:
            raise RequestError(
                f"A prompt must hold one `{self.processor.image_token}`, not {found}: {question[:80]!r}."
            )
        return text

    def pixels(self, pictures: Sequence[Image]) -> Float[Tensor, "batch channels height width"]:
        """Returns RGB pictures as the tower reads them: float32, in main memory, worth caching."""
        return self.processor.image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]

    def image_tokens(self, pixel_values: Tensor | None = None) -> int:
        """Returns how many tokens one picture becomes in the decoder, by default at the tower's own size."""
        if pixel_values is None:
            size = self.model.config.vision_config.image_size
            height, width = (size, size) if isinstance(size, int) else size
        else:
            height, width = pixel_values.shape[-2:]
        processor = self.processor
        count = (height // processor.patch_size) * (width // processor.patch_size)
        dropped = 1 if processor.vision_feature_select_strategy == "default" else 0
        return count + processor.num_additional_image_tokens - dropped

    def tokenize(
        self,
        prompts: Sequence[str],
        targets: Sequence[str] | None = None,
        n_image_tokens: int | None = None,
        padding_side: Literal["left", "right"] | None = None,
        max_length: int | None = None,
    ) -> dict[str, Tensor]:
        """Returns `input_ids` and `attention_mask` (batch, tokens), int64, and `labels` where targets are given.

        With targets, a text is prompt + " " + target + end-of-sequence, padded on the right; labels are -100 except on
        the target's tokens and the end-of-sequence token. Without, prompts are padded on the left, for generation.

        Args:
            prompts: from `prompt_text`, each with one image token.
            targets: the answers, one a prompt.
            n_image_tokens: what the image token stands for; by default `image_tokens()`.
            padding_side: another side than the default.
            max_length: longest text allowed, in tokens.

        Raises:
            RequestError: a text is longer than `max_length`; nothing is ever cut.
            ValueError: the tokenizer merges prompt and target into one token, so that no boundary exists.
        """
        rows = self.encode(prompts, targets, n_image_tokens, max_length)
        batch = self.pad(rows, padding_side or ("left" if targets is None else "right"))
        if targets is None:
            del batch["labels"]
        return batch

    def encode(
        self,
        prompts: Sequence[str],
        targets: Sequence[str] | None = None,
        n_image_tokens: int | None = None,
        max_length: int | None = None,
    ) -> list[Encoded]:
        """Returns texts in tokens, not yet padded: see `tokenize`, whose arguments and errors these are."""
        count = self.image_tokens() if n_image_tokens is None else n_image_tokens
        image = self.processor.image_token
        texts = [prompt.replace(image, image * count) for prompt in prompts]
        rows: list[list[int]] = self.processor.tokenizer(texts)["input_ids"]
        starts = [len(row) for row in rows]
        if targets is not None:
            rows = self._with_targets(texts, rows, targets)
        longest = max(len(row) for row in rows)
        if max_length is not None and longest > max_length:
            index = next(i for i, row in enumerate(rows) if len(row) == longest)
            raise RequestError(
                f"An example has {longest} tokens and {max_length} are allowed: {prompts[index][:80]!r}. "
                "Raise `max_length`; examples are never cut."
            )
        return [Encoded(row, start) for row, start in zip(rows, starts, strict=True)]

    def _with_targets(self, texts: list[str], heads: list[list[int]], targets: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of whole examples, each of which must begin with its prompt's own tokens."""
        tokenizer = self.processor.tokenizer
        whole = tokenizer([f"{text} {target}" for text, target in zip(texts, targets, strict=True)])["input_ids"]
        for head, row, target in zip(heads, whole, targets, strict=True):
            if row[: len(head)] != head or len(row) == len(head):
                raise ValueError(f"the tokenizer finds no boundary between the prompt and the target {target[:80]!r}")
        return [[*row, tokenizer.eos_token_id] for row in whole]

    def pad(self, rows: Sequence[Encoded], side: Literal["left", "right"]) -> dict[str, Tensor]:
        """Returns `input_ids`, `attention_mask` and `labels`, (rows, longest), on the backbone's device."""
        import torch

        fill = self.processor.tokenizer.pad_token_id
        if fill is None:
            fill = self.processor.tokenizer.eos_token_id
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), fill, dtype=torch.long)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        for i, row in enumerate(rows):
            first = longest - len(row.ids) if side == "left" else 0
            ids[i, first : first + len(row.ids)] = torch.tensor(row.ids)
            mask[i, first : first + len(row.ids)] = 1
            labels[i, first + row.start : first + len(row.ids)] = torch.tensor(row.ids[row.start :], dtype=torch.long)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {key: value.to(self.device) for key, value in batch.items()}

    def batch(
        self,
        pictures: Sequence[Image] | Tensor,
        prompts: Sequence[str],
        targets: Sequence[str] | None = None,
        padding_side: Literal["left", "right"] | None = None,
        max_length: int | None = None,
    ) -> dict[str, Tensor]:
        """Returns the model's inputs for pictures (or the pixel values of a cache) and prompts: see `tokenize`."""
        import torch

        pixel_values = pictures if isinstance(pictures, torch.Tensor) else self.pixels(pictures)
        text = self.tokenize(prompts, targets, self.image_tokens(pixel_values), padding_side, max_length)
        return {**text, "pixel_values": pixel_values.to(self.device, getattr(torch, self.dtype))}


def load_backbone(name: str, dtype: str = "float32", device: str | None = None, offline: bool = False) -> Backbone:
    """Returns a backbone, its files verified before they are read; no remote code, no pickle.

    Args:
        name: "embedded", a folder, or `owner/model` on the hub.
        dtype: "float32", "bfloat16" or "float16".
        device: as torch names it; by default the accelerator where there is one.
        offline: opens no socket.

    Raises:
        RequestError: no such backbone, or one that is not an image-text model of a known family.
        MachineError: the hub has to be asked and cannot be.
        UntrustedRecord: the files are damaged, or weights are missing from them.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    folder = backbone_folder(name, offline)
    verify_folder(folder)
    import torch

    from mmpt_bench.anatomy import find_anatomy

    model, processor = _read(folder, getattr(torch, dtype))
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(place).eval()
    for weight_name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise UntrustedRecord(f"`{weight_name}` of backbone `{name}` holds values that are not finite.")
    return Backbone(name, model, processor, find_anatomy(model), folder_fingerprint(folder), place, dtype)


def _read(folder: Any, dtype: Any) -> tuple[Any, Any]:
    """Returns model and processor of a folder whose files are known to be whole."""
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    # Its bar for reading weights would stand in the middle of ours.
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except SafetensorError as error:
        raise UntrustedRecord(f"The weights in `{folder}` are damaged ({error}). Fetch or build them again.") from error
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"`{folder}` does not load as an image-text model: {str(error).splitlines()[0]}") from error
    finally:
        if shown:
            logging.enable_progress_bar()
    model, info = loaded
    # Where a weight is missing, transformers draws a random one and warns; such a model answers, and wrongly.
    lacking = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if lacking:
        raise UntrustedRecord(f"The weights in `{folder}` lack or misfit {len(lacking)} tensors, first `{lacking[0]}`.")
    return model, processor
