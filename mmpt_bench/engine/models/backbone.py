"""A backbone: a Hugging Face image-text model with its processor, and the way from images and words to its tensors.

Imports without torch, and fast, because every method's file imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from mmpt_bench.common.errors import RequestError, UntrustedRecord, unknown_name
from mmpt_bench.data.examples import PLAIN, Opening
from mmpt_bench.engine.models import chat
from mmpt_bench.engine.models.anatomy import Anatomy, find_anatomy
from mmpt_bench.engine.models.encoding import Encoded, Tokens, collated, encoded, placed
from mmpt_bench.engine.models.families import family
from mmpt_bench.engine.models.feature_cache import PICTURE_BYTES, FeatureCache
from mmpt_bench.sources.weights import DTYPES, backbone_fingerprint, backbone_folder, loading_of, verify_folder

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from mmpt_bench.data.examples import Exchange

IGNORED = -100
"""Label of a token that the loss leaves out (torch.nn.functional.cross_entropy)."""


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
    """Where inputs go; a spread model moves them on."""
    dtype: str
    left_out: tuple[str, ...] = ()
    """Settings of the model's generation_config that would have changed replies, and do not: all decoding is greedy."""
    features: FeatureCache = field(default_factory=FeatureCache, repr=False)
    """What a frozen vision tower made of images, for every method that leaves it frozen."""
    kept_pictures: FeatureCache = field(default_factory=partial(FeatureCache, PICTURE_BYTES), repr=False)
    """Images of evaluation as the processor makes them."""

    @property
    def ends(self) -> tuple[int, ...]:
        """Returns the tokens of which each ends a reply."""
        given = self.model.generation_config.eos_token_id
        return tuple(given) if isinstance(given, list | tuple) else () if given is None else (given,)

    @property
    def decoding(self) -> dict[str, Any]:
        """Returns what of the model's generation_config a reader of its scores must know: for records, empty mostly."""
        words = [str(self.processor.tokenizer.convert_ids_to_tokens(end)) for end in self.ends]
        found = {"left_out": list(self.left_out)} if self.left_out else {}
        return found | ({"replies_end_at": words} if len(words) != 1 else {})

    @property
    def decoding_said(self) -> list[str]:
        """Returns the same as sentences."""
        found = self.decoding
        said = []
        if named := ", ".join(f"`{name}`" for name in found.get("left_out", ())):
            said.append(f"The backbone's generation_config sets {named}: left out, every reply is decoded greedily.")
        if words := found.get("replies_end_at"):
            shown = ", ".join(f"`{word[:40]}`" for word in words[:10]) + (", ..." if len(words) > 10 else "")
            said.append(f"By the backbone's generation_config, replies end at any of {len(words)} tokens: {shown}.")
        elif words is not None:
            said.append("The backbone's generation_config names no token that ends a reply: all have the full length.")
        return said

    @property
    def caches(self) -> tuple[FeatureCache, FeatureCache]:
        """What is kept in memory, each with an account of what it spared."""
        return self.features, self.kept_pictures

    def computing(self) -> AbstractContextManager[Any]:
        """Inside, the model computes in its precision: in half precision under autocast, for all methods alike.

        Values that a method adds are float32 whatever the model is; autocast brings both together.
        """
        if self.dtype == "float32":
            return nullcontext()
        import torch

        return torch.autocast(self.device.partition(":")[0], getattr(torch, self.dtype))

    def prompt_text(self, question: str, earlier: Sequence[Exchange] = (), opening: Opening = PLAIN) -> str:
        """Returns the chat prompt of images, earlier exchanges and a question, up to where the answer begins.

        Raises RequestError where it does not hold an image token for each image, as when the question brings its own;
        where the family has no form for several exchanges, or was not tried with several images.
        """
        if opening.all_images > 1 and not family(self.anatomy.family).several_images:
            raise RequestError(
                f"{family(self.anatomy.family).title} was not tried with several images a question: take another task."
            )
        text = chat.prompt(self.processor, family(self.anatomy.family), question, earlier, opening)
        found, wanted = text.count(self.processor.image_token), opening.all_images
        if found != wanted:
            raise RequestError(
                f"A prompt must hold {'one' if wanted == 1 else wanted} `{self.processor.image_token}`, not {found}: "
                f"{question[:80]!r}."
            )
        return text

    def target(self, exchanges: Sequence[Exchange], opening: Opening = PLAIN) -> chat.Target:
        """Returns what is to be learnt of a conversation after the prompt of its first question.

        Raises RequestError where the family has no form for several exchanges, or hides where a reply stands.
        """
        if len(exchanges) == 1:
            return exchanges[0].reply
        prompts = [self.prompt_text(one.question, exchanges[:i], opening) for i, one in enumerate(exchanges)]
        whole = chat.written(self.processor, chat.turns(exchanges), True, opening)
        return chat.target(prompts, whole, exchanges, self.processor.tokenizer.convert_ids_to_tokens(self._turn_end))

    @cached_property
    def _turn_end(self) -> int:
        """Returns the token that ends a reply of a conversation."""
        return chat.end_of_reply(self.processor, self.ends)

    def encode(self, pictures: Sequence[Image]) -> list[Encoded]:
        """Returns each image by itself, as the model takes it, worth caching."""
        if family(self.anatomy.family).one_size:
            values = self.processor.image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]
            text = self.processor.image_token * self.image_tokens(values)
            return [Encoded({"pixel_values": row[None]}, text) for row in values]
        return [encoded(self.processor, picture) for picture in pictures]

    def image_tokens(self, pixel_values: Tensor | None = None) -> int:
        """Returns how many tokens one image becomes in the decoder, by default at the tower's own size.

        It is one number in families whose images have one size (`Family.one_size`) alone.
        """
        if pixel_values is None:
            size = self.model.config.vision_config.image_size
            height, width = (size, size) if isinstance(size, int) else size
        else:
            height, width = pixel_values.shape[-2:]
        processor = self.processor
        count = (height // processor.patch_size) * (width // processor.patch_size)
        dropped = 1 if processor.vision_feature_select_strategy == "default" else 0
        return count + processor.num_additional_image_tokens - dropped

    def tokens(
        self,
        prompts: Sequence[str],
        targets: Sequence[chat.Target] | None = None,
        n_image_tokens: int | None = None,
        max_length: int | None = None,
        image_texts: Sequence[str] | None = None,
    ) -> list[Tokens]:
        """Returns texts in tokens, not yet padded: prompt, or prompt + target + the end of a reply.

        Args:
            prompts: from `prompt_text`, each with one image token.
            targets: the answers, one a prompt; or from `target`.
            n_image_tokens: what the image token stands for; by default `image_tokens()`.
            max_length: longest text allowed, in tokens; a conversation that is longer ends with an earlier reply.
            image_texts: what each prompt's image token stands for, in place of `n_image_tokens`.

        Raises:
            RequestError: a prompt and its first reply are longer than `max_length`; no text is ever cut.
            ValueError: the tokenizer merges prompt and target into one token, so that no boundary exists.
        """
        image = self.processor.image_token
        if image_texts is None:
            count = self.image_tokens() if n_image_tokens is None else n_image_tokens
            image_texts = [image * count] * len(prompts)
        texts = [placed(prompt, image, own) for prompt, own in zip(prompts, image_texts, strict=True)]
        if targets is None:
            return [Tokens(ids) for ids in self._ids(texts)]
        parts = [chat.parts(text, target) for text, target in zip(texts, targets, strict=True)]
        ids = iter(self._ids([part for one in parts for part in one]))
        rows = []
        for prompt, target, own in zip(prompts, targets, parts, strict=True):
            tokenized = [next(ids) for _ in own]
            end = self.processor.tokenizer.eos_token_id if isinstance(target, str) else self._turn_end
            row = chat.row(tokenized, end, max_length)
            if row is None:
                raise RequestError(
                    f"An example has {len(tokenized[1]) + 1} tokens and {max_length} are allowed: {prompt[:80]!r}. "
                    "Raise `max_length`; a reply is never cut."
                )
            rows.append(row)
        return rows

    def _ids(self, texts: list[str]) -> list[list[int]]:
        """Returns the tokens of texts, with a beginning-of-sequence token where the text brings none of its own.

        Not where the family's processor adds none to any text (LFM2-VL).
        """
        tokenizer = self.processor.tokenizer
        adds = (getattr(self.processor, "text_kwargs", None) or {}).get("add_special_tokens", True)
        bos = tokenizer.bos_token
        own = bos is not None and all(text.startswith(bos) for text in texts)
        rows: list[list[int]] = tokenizer(texts, add_special_tokens=adds and not own, verbose=False)["input_ids"]
        return rows

    def pad(self, rows: Sequence[Tokens], side: Literal["left", "right"]) -> dict[str, Tensor]:
        """Returns `input_ids`, `attention_mask`, `labels` and the family's marks, (rows, longest), on the device.

        Labels are -100 except on the replies' tokens and the end after each.
        """
        import torch

        tokenizer, ids, labels = self.processor.tokenizer, [torch.tensor(row.ids, dtype=torch.long) for row in rows], []
        for row, own in zip(rows, ids, strict=True):
            labels.append(torch.full_like(own, IGNORED))
            for start, end in row.replies:
                labels[-1][start:end] = own[start:end]

        def padded(values: list[Tensor], fill: int) -> Tensor:
            return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill, padding_side=side)

        fill = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        batch = {
            "input_ids": padded(ids, fill),
            "attention_mask": padded([torch.ones_like(own) for own in ids], 0),
            "labels": padded(labels, IGNORED),
        }
        marked = self.anatomy.marks
        if marked is not None:
            name, kind = marked
            answers, images = batch["labels"] != IGNORED, batch["input_ids"] == self.model.config.image_token_id
            batch[name] = (answers if kind == "answer" else images).long()
        return {key: value.to(self.device) for key, value in batch.items()}

    def batch(
        self,
        images: Sequence[Image] | Sequence[Encoded],
        prompts: Sequence[str],
        targets: Sequence[chat.Target] | None = None,
    ) -> dict[str, Tensor]:
        """Returns the model's inputs for images, also from `encode`, and texts as `tokens` makes them.

        Padded on the right, with `labels`, where targets are given; else on the left, for generation.
        """
        encoded: Any = images if isinstance(images[0], Encoded) else self.encode(images)  # type: ignore[arg-type]
        rows = self.tokens(prompts, targets, image_texts=[one.text for one in encoded])
        batch = self.pad(rows, "left" if targets is None else "right")
        if targets is None:
            del batch["labels"]
        return {**batch, **self.inputs(encoded)}

    def inputs(self, pictures: Sequence[Encoded]) -> dict[str, Tensor]:
        """Returns the model's inputs for images, on its device and in its precision."""
        import torch

        kind = getattr(torch, self.dtype)
        joined = {name: value.to(self.device) for name, value in collated([one.tensors for one in pictures]).items()}
        return {name: value.to(kind) if value.is_floating_point() else value for name, value in joined.items()}


def check_processor(backbone: Backbone) -> None:
    """Raises RequestError where the model cannot take an image as the processor makes it, or has other tokens for it.

    A forward of one grey image, up to the decoder's first layer. MachineError: memory runs out.
    """
    import torch
    from PIL import Image as images

    from mmpt_bench.engine.training.memory import told_of_memory

    class Reached(Exception):
        """The decoder has begun: tokens and features fit."""

    def reached(module: Any, given: Any) -> None:
        raise Reached

    encoded = backbone.encode([images.new("RGB", (64, 64), (128, 128, 128))])
    (row,) = backbone.tokens([backbone.processor.image_token], image_texts=[encoded[0].text])
    batch = backbone.pad([row], "left") | backbone.inputs(encoded)
    del batch["labels"]
    first = backbone.model.get_submodule(backbone.anatomy.decoder_layers[0])
    hook = first.register_forward_pre_hook(reached)
    try:
        with torch.no_grad(), backbone.computing(), told_of_memory("while its processor was tried"):
            backbone.model(**batch)
    except Reached:
        return
    except (ValueError, IndexError, RuntimeError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0][:150].rstrip(".")
        raise RequestError(
            f"The processor of `{backbone.name}` does not go with its model: {told}. Its size, patch_size, "
            "vision_feature_select_strategy and image token must be those of config.json."
        ) from error
    finally:
        hook.remove()


def load_backbone(name: str, dtype: str = "float32", device: str | None = None, offline: bool = False) -> Backbone:
    """Returns a backbone, its files verified before they are read; no remote code, no pickle.

    Args:
        name: "embedded", a folder, or `owner/model` on the hub; with how it is loaded, as `with_loading` writes it.
        dtype: of `DTYPES`.
        device: as torch names it; by default the accelerator where there is one, or as `device_map` says.
        offline: opens no socket.

    Raises:
        RequestError: no such backbone, or one that is not an image-text model of a known family.
        MachineError: the hub has to be asked and cannot be, there is no such device, memory runs out, or a package
            is missing.
        UntrustedRecord: the files are damaged, or weights are missing from them.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    folder, (_, how) = backbone_folder(name, offline), loading_of(name)
    verify_folder(folder)
    import torch

    from mmpt_bench.engine.models.devices import check_device, settled
    from mmpt_bench.engine.models.loading import decode_plainly, empty_model, read_model, read_processor, refuse_unfit
    from mmpt_bench.engine.models.quantized import held
    from mmpt_bench.engine.training.memory import told_of_memory

    config = refuse_unfit(folder)
    processor = read_processor(folder, config.model_type, how)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(place)
    with told_of_memory(f"while the backbone `{name}` was loaded"):
        model = read_model(folder, getattr(torch, dtype), place, how).eval()
        place = settled(model, place, how)
    left_out = decode_plainly(model)
    for weight_name, weight in model.named_parameters():
        if not torch.isfinite(held(weight)).all():
            raise UntrustedRecord(f"`{weight_name}` of backbone `{name}` holds values that are not finite.")
    # Packed weights are of other shapes than what they stand for.
    anatomy = find_anatomy(empty_model(folder) if "quantize" in how else model)
    made = Backbone(name, model, processor, anatomy, backbone_fingerprint(name, offline), place, dtype, left_out)
    check_processor(made)
    return made
