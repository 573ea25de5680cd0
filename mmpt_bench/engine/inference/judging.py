"""What a judge says: an image-text model about the images of each question, or a text model about words alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from mmpt_bench.common.errors import RequestError, RunFailed, UntrustedRecord
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.inference.plain import Question, prompt_of
from mmpt_bench.engine.inference.predict import InferenceOptions, answers
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.models.devices import check_device
from mmpt_bench.engine.models.families import FAMILIES
from mmpt_bench.engine.models.loading import decode_plainly, read_config
from mmpt_bench.engine.training.memory import told_of_memory
from mmpt_bench.evaluation.judge import Judge
from mmpt_bench.sources.weights import backbone_folder, verify_folder


class Judging:
    """A loaded judge."""

    def __init__(self, judge: Judge, device: str | None, offline: bool, batch_size: int) -> None:
        """Loads the judge's model; raises as `load_backbone` does."""
        self._judge, self._batch = judge, batch_size
        folder = backbone_folder(judge.model, offline)
        kind = read_config(folder).model_type
        self._backbone: Backbone | None = None
        if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in FAMILIES:
            self._model, self._tokenizer = _text_model(folder, judge, device)
        else:
            self._backbone = load_backbone(judge.model, judge.dtype, device, offline)

    def said(self, asked: Sequence[tuple[str, Sample, str]]) -> Iterator[list[tuple[str, str]]]:
        """Yields (key, what the judge says) of (key, sample, answer), a batch at a time, in an order of its own."""
        if self._backbone is not None:
            yield from self._with_images(self._backbone, asked)
            return
        for first in range(0, len(asked), self._batch):
            some = asked[first : first + self._batch]
            texts = [self._written(self._judge.asked(sample, answer)) for _, sample, answer in some]
            yield [(key, said) for (key, *_), said in zip(some, self._replies(texts), strict=True)]

    def _with_images(
        self, backbone: Backbone, asked: Sequence[tuple[str, Sample, str]]
    ) -> Iterator[list[tuple[str, str]]]:
        questions = []
        for key, sample, answer in asked:
            text = self._judge.asked(sample, answer)
            if (image := backbone.processor.image_token) in text:
                raise RunFailed(f"A reply to `{sample.id}`, or its question, holds the judge's image token `{image}`.")
            shown = Sample(key, sample.image, text, (), "", more_images=sample.more_images)
            questions.append(Question(prompt_of(backbone, shown), [shown]))
        options = InferenceOptions(self._batch)
        for batch in answers(backbone, "the judge", self._judge.max_new_tokens, questions, options):
            yield [(one.first.id, said) for one, (said, _) in batch]

    def _written(self, text: str) -> str:
        """Returns a prompt as the tokenizer's chat template writes it; as it is where there is none."""
        if self._tokenizer.chat_template is None:
            return f"{text}\n"
        turns = [{"role": "user", "content": text}]
        written: str = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return written

    def _replies(self, texts: Sequence[str]) -> list[str]:
        """Returns the greedy reply to each text."""
        bos = self._tokenizer.bos_token
        own = bos is not None and all(text.startswith(bos) for text in texts)
        made = self._tokenizer(list(texts), add_special_tokens=not own, return_tensors="pt", padding=True)
        inputs = {name: made[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            out = self._model.generate(
                **inputs,
                max_new_tokens=self._judge.max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        new = out[:, inputs["input_ids"].shape[1] :]
        replies: list[str] = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return replies


def _text_model(folder: Path, judge: Judge, device: str | None) -> tuple[Any, Any]:
    """Returns a text model, in its judge's precision, and its tokenizer, which pads on the left."""
    verify_folder(folder)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(place)
    given: Any = {"trust_remote_code": False, "local_files_only": True}
    try:
        with told_of_memory(f"while the judge `{judge.model}` was loaded"):
            kind: Any = AutoModelForCausalLM
            model, info = kind.from_pretrained(
                folder, dtype=getattr(torch, judge.dtype), use_safetensors=True, output_loading_info=True, **given
            )
            model = model.to(place).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", **given)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise RequestError(f"The judge `{folder}` does not load: {str(error).splitlines()[0][:150]}") from error
    if lacking := sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"]):
        raise UntrustedRecord(f"The judge's weights in `{folder}` lack {len(lacking)} tensors, first `{lacking[0]}`.")
    decode_plainly(model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer
