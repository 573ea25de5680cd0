"""A backbone with its adapter as a model of lmms-eval, so that its tasks run on what was tuned here.

    python -m lmms_eval --model mmpt_bench --model_args backbone=embedded,adapter=results/runs/mmpt-0123 --tasks mme

lmms-eval finds the class by the entry point `lmms_eval.models`. This is the one module that imports lmms-eval, the
extra `mmpt-bench[lmms]`; written against version 0.7.3. How its scores differ from ours: docs/lmms-eval.md.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from loguru import logger
from PIL.Image import Image
from tqdm import tqdm

from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.forward.prepared_images import PreparedImages
from mmpt_bench.engine.forward.tower import unread_blocks_skipped
from mmpt_bench.engine.inference.plain import Question, continued, pad_token
from mmpt_bench.engine.inference.predict import InferenceOptions, answers, distinct
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.methods.method_catalog import load_method
from mmpt_bench.methods.trained_adapter import adapter_entry

MANIFEST = ModelManifest("mmpt_bench", simple_class_path="mmpt_bench.interop.lmms_eval.AdaptedModel")
"""What lmms-eval's registry reads."""
NEW_TOKENS = 1024
"""Longest reply where a task sets none, as in lmms-eval's own models (models/simple/llava_hf.py)."""
SAMPLING = ("temperature", "top_p", "top_k")
SETTINGS = ("max_new_tokens", "do_sample", *SAMPLING, "num_beams", "repetition_penalty")
"""What `generate` is told of a task's `generation_kwargs`."""
PREPROCESSING = ("image_aspect_ratio",)
"""What tasks tell LLaVA's first code about images; here the backbone's own processor decides it."""
AUTO_BATCH = 64
"""Questions a batch under `--batch_size auto`; a batch that does not fit is halved."""
NAMED = 5
"""Most questions that a refusal names."""


@dataclass(frozen=True)
class EvalRequest:
    """One request of lmms-eval."""

    text: str
    """What the user of the model would type."""
    picture: LazyImage
    settings: tuple[tuple[str, Any], ...]
    """For `generate`, sorted."""
    until: tuple[str, ...]
    """Texts that end a reply, and are no part of it."""

    def sample(self, number: int) -> Sample:
        """Returns the question as our evaluation asks it; it has no legal answers."""
        return Sample(str(number), self.picture, self.text, (), "")


class AdaptedModel(lmms):
    """A backbone, with an adapter or untouched, as lmms-eval's `--model mmpt_bench` makes it."""

    is_simple = True

    def __init__(
        self,
        backbone: str = "embedded",
        adapter: str = "",
        dtype: str = "float32",
        offline: bool = False,
        device: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        other_base: bool = False,
    ) -> None:
        """Loads the backbone and puts the adapter on it.

        Args:
            backbone: "embedded", a folder, or `owner/model` on the hub.
            adapter: a run's folder, an adapter's folder or `owner/name[@revision]`; "" for the untouched backbone.
            dtype: "float32", "bfloat16" or "float16".
            offline: opens no socket.
            device, batch_size, max_batch_size: from lmms-eval's own command line.
            other_base: the adapter may have been trained on another base model; a warning says so.

        Raises:
            RequestError: there is no such backbone or adapter, or they do not fit each other.
        """
        super().__init__()
        wanted = AUTO_BATCH if str(batch_size).startswith("auto") else int(batch_size)
        self.batch_size = min(wanted, max_batch_size or wanted)
        entry = adapter_entry(_adapter_folder(str(adapter)), offline, other_base) if adapter else None
        self.backbone: Backbone = load_backbone(str(backbone), dtype, _device(device), offline)
        self.device = torch.device(self.backbone.device)
        self._handle = load_method(entry)().attach(self.backbone, 0) if entry else None
        for note in self._handle.notes if self._handle else ():
            logging.getLogger(__name__).warning("%s: %s.", adapter, note)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Returns the reply to each request: greedy ones as `mmpt-bench run` asks them, others by `generate`.

        Raises:
            RequestError: a question has not exactly one image, or its task has a setting that is not known.
        """
        questions = self._questions([(r.args[0], r.args[1], *r.args[2:]) for r in requests])
        alike = defaultdict(list)
        for number, question in enumerate(questions):
            alike[question.settings].append(question.sample(number))
        replies = [""] * len(questions)
        with tqdm(total=len(questions), desc="mmpt_bench", disable=self.rank != 0) as bar:
            for settings, samples in alike.items():
                asked = distinct(self.backbone, samples)
                for one, reply in self._replies(asked, dict(settings)):
                    for number in (int(sample.id) for sample in one.samples):
                        replies[number] = _cut(reply, questions[number].until)
                    bar.update(len(one.samples))
        return replies

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Returns (loss, whether greedy decoding would say it) of each continuation.

        The loss is the mean negative log-probability, in nats, of the continuation's tokens, without the end of the
        sequence. Whatever the method is called, lmms-eval takes the choice with the least (api/task.py), and its own
        models return losses.

        Raises:
            RequestError: a question has not exactly one image.
        """
        if any(len(r.args) < 6 for r in requests):
            raise RequestError("The metric `acc_mutual_info` asks without an image; take the task's `acc`.")
        questions = self._questions([(r.args[0], {}, *r.args[2:]) for r in requests])
        targets = [self._target(*r.args[1:]) for r in requests]
        pictures, found = PreparedImages(self.backbone), []
        with tqdm(total=len(questions), desc="mmpt_bench", disable=self.rank != 0) as bar:
            for start in range(0, len(questions), self.batch_size):
                part = questions[start : start + self.batch_size]
                made = pictures.processed([question.sample(0) for question in part])
                prompts = [self.backbone.prompt_text(question.text) for question in part]
                with torch.no_grad(), self.backbone.computing(), unread_blocks_skipped(self.backbone):
                    said = continued(self.backbone, made, prompts, targets[start : start + len(part)])
                found += [(-one.logprob / one.n_tokens, one.greedy) for one in said]
                bar.update(len(part))
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuses: nothing here is trained to go on after a round."""
        raise RequestError("mmpt-bench answers tasks of one round, and this one asks in several.")

    def clean(self) -> None:
        """Takes the adapter off and frees the model: lmms-eval asks nothing after this."""
        if self._handle is not None:
            self._handle.remove()
        del self._handle, self.backbone
        super().clean()

    def _questions(self, requests: Sequence[tuple]) -> list[EvalRequest]:
        """Returns (context, settings, doc_to_visual, doc_id, task, split) as questions, all of them or none."""
        made, odd = [], []
        for text, settings, to_visual, doc_id, task, split in requests:
            docs = self.task_dict[task][split]
            shown = to_visual(docs[doc_id]) or []
            if len(shown) != 1 or not isinstance(shown[0], Image):
                odd.append(f"{doc_id} of `{task}`")
                continue
            picture = LazyImage(_key(shown[0]), partial(_opened, to_visual, docs, doc_id))
            made.append(EvalRequest(self._without_marks(text), picture, *_settings(settings)))
        if odd:
            raise RequestError(
                f"{len(odd):,} of {len(requests):,} questions have not exactly one image, as what is tuned here was "
                f"trained with: {', '.join(odd[:NAMED])}{', ...' if len(odd) > NAMED else ''}."
            )
        return made

    def _without_marks(self, text: str) -> str:
        """Returns a context without a mark where its image stands: the chat template sets its own, in front."""
        for mark in ("<image>", self.backbone.processor.image_token):
            text = text.replace(mark, "")
        return text.strip()

    def _target(self, target: Any, to_visual: Any, doc_id: int, task: str, split: str) -> str:
        text: str = target if isinstance(target, str) else target(self.task_dict[task][split][doc_id])
        # The space in front of a choice is put there again by `Backbone.tokens`.
        return text.strip()

    def _replies(self, asked: list[Question], settings: dict[str, Any]) -> Iterator[tuple[Question, str]]:
        """Yields each question with its reply."""
        if settings.keys() == {"max_new_tokens"}:
            n_new, options = settings["max_new_tokens"], InferenceOptions(self.batch_size, say=logger.info)
            for made in answers(self.backbone, "lmms-eval", n_new, asked, options):
                yield from ((one, reply) for one, (reply, _) in made)
            return
        pictures = PreparedImages(self.backbone)
        for start in range(0, len(asked), self.batch_size):
            batch = asked[start : start + self.batch_size]
            inputs = self.backbone.batch(
                pictures.processed([one.first for one in batch]), [one.prompt for one in batch]
            )
            given = {"do_sample": False, "num_beams": 1, "pad_token_id": pad_token(self.backbone)} | settings
            with torch.no_grad(), self.backbone.computing(), unread_blocks_skipped(self.backbone):
                out = self.backbone.model.generate(**inputs, **given)
            new = out[:, inputs["input_ids"].shape[1] :]
            texts = self.backbone.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
            yield from zip(batch, texts, strict=True)


def _settings(given: Mapping[str, Any]) -> tuple[tuple[tuple[str, Any], ...], tuple[str, ...]]:
    """Returns a task's settings as `generate` takes them, without those that greedy decoding ignores, and `until`.

    Raises:
        RequestError: a setting is not known.
    """
    for name in given:
        if name not in (*SETTINGS, *PREPROCESSING, "until"):
            raise unknown_name("setting of generation", name, (*SETTINGS, "until"), "Take it out of the task's YAML.")
    until = given.get("until") or ()
    kept = {name: given[name] for name in SETTINGS if given.get(name) is not None}
    kept.setdefault("max_new_tokens", NEW_TOKENS)
    heat = kept.get("temperature")
    if kept.pop("do_sample", bool(heat)) and heat != 0:
        kept["do_sample"] = True
    else:
        kept = {name: value for name, value in kept.items() if name not in SAMPLING}
    if kept.get("num_beams") == 1:
        del kept["num_beams"]
    return tuple(sorted(kept.items())), (until,) if isinstance(until, str) else tuple(until)


def _cut(reply: str, until: Sequence[str]) -> str:
    """Returns a reply up to the first of the texts that end it."""
    return reply[: min([reply.index(end) for end in until if end and end in reply], default=len(reply))]


def _key(picture: Image) -> str:
    """Returns what equal images share."""
    return hashlib.blake2b(repr((picture.mode, picture.size)).encode() + picture.tobytes(), digest_size=16).hexdigest()


def _opened(to_visual: Any, docs: Any, doc_id: int) -> Image:
    picture: Image = to_visual(docs[doc_id])[0]
    return picture.convert("RGB")


def _adapter_folder(name: str) -> str:
    """Returns the folder of a run's adapter, or the name as it is; raises RequestError for a run that has none."""
    run = Path(name)
    if (run / "recipe.yaml").is_file():
        if not (run / "adapter").is_dir():
            raise RequestError(f"The run `{run.name}` has no adapter: it is not trained, or its method trains nothing.")
        return str(run / "adapter")
    return name


def _device(name: str | None) -> str | None:
    """Returns the accelerator of this process where several share a machine; else what was asked for."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank and name in (None, "cuda") and torch.cuda.is_available() else name
