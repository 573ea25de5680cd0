"""A judge: a local model that grades open answers, as one score of a task beside its literal ones.

    metric = mb.FunctionMetric({"judged": mb.Judge("owner/model"), "exact_match": mb.MeanOf(mb.exact_match)})

A verdict is a number from 0 to `most`. One that cannot be read is no score: it is left out of the mean and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from mmpt_bench.common.hashing import content_key
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.metrics import Declared
from mmpt_bench.evaluation.replies import read_reply

FIELDS = ("question", "references", "reply")
_BEFORE = "Question: {question}\nAccepted answers: {references}\nAnswer of a model: {reply}\n"
YES_NO = _BEFORE + "By the accepted answers, is the model's answer right? Answer yes or no."
GRADED = _BEFORE + (
    "By the accepted answers, how good is the model's answer, from 0 (wrong) to {most} (right)? Answer with a number."
)
MOST = 10


@dataclass(frozen=True)
class Judge:
    """The mean grade that a local model gives to answers; a score of a `FunctionMetric`."""

    model: str
    """Text or image-text: a folder, `owner/model` of the hub, or "embedded". An image-text model sees the images."""
    most: int = 1
    """1: asked for yes or no. k up to 10: asked for a grade from 0 to k."""
    prompt: str = ""
    """With {question}, {references} and {reply}; empty for the usual one, `YES_NO` or `GRADED`."""
    max_new_tokens: int = 16
    dtype: str = "float32"
    chance: float = 0.0
    """What guessing gives: 0 for open answers."""

    def __post_init__(self) -> None:
        """Raises ValueError for a scale or a prompt that can be none."""
        whole = type(self.most) is int and type(self.max_new_tokens) is int
        if not self.model or not whole or not 1 <= self.most <= MOST or self.max_new_tokens < 1:
            raise ValueError(
                f"`mb.Judge` needs a model, `most` from 1 to {MOST} and 1 new token or more, in whole numbers"
            )
        try:
            named = [name for _, name, *_ in Formatter().parse(self.wording) if name is not None]
        except ValueError as error:
            raise ValueError(f"the prompt of `mb.Judge` is no form: {error}") from error
        if sorted(named) != sorted(FIELDS):
            wanted = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise ValueError(f"the prompt of `mb.Judge` must hold {wanted}, each once, and nothing else in braces")

    @property
    def declared(self) -> Declared:
        """Returns a share for yes or no, else points up to `most`."""
        return Declared() if self.most == 1 else Declared("points", high=float(self.most))

    @property
    def wording(self) -> str:
        """Returns the prompt as it is used."""
        return self.prompt or (YES_NO if self.most == 1 else GRADED.replace("{most}", str(self.most)))

    @property
    def grades(self) -> dict[str, float]:
        """Returns the legal verdicts, as they are read, with what each is worth."""
        return {"no": 0.0, "yes": 1.0} if self.most == 1 else {str(n): float(n) for n in range(self.most + 1)}

    def asked(self, sample: Sample, answer: str) -> str:
        """Returns what the judge is asked of an answer."""
        return self.wording.format(question=sample.question, references="; ".join(sample.accepted), reply=answer)

    def read(self, said: str) -> float | None:
        """Returns the grade that is read in what the judge said, by `mb.read_reply`; None where none is."""
        verdict = read_reply(said, tuple(self.grades))
        return None if verdict is None else self.grades[verdict]

    def setting(self, fingerprint: str) -> dict[str, Any]:
        """Returns what of it is part of a result's setting; `fingerprint` is that of its weights."""
        return {
            "model": Path(self.model.partition("?")[0].partition("@")[0]).name,
            "fingerprint": fingerprint,
            "prompt": self.wording,
            "most": self.most,
            "max_new_tokens": self.max_new_tokens,
            "dtype": self.dtype,
        }


def verdict_key(sample: Sample, answer: str) -> str:
    """Names an answer to a question about images, for verdicts: the same for every model that gave it."""
    shown = [image.key for image in (sample.image, *sample.more_images)]
    return content_key([shown, sample.question, sample.accepted, answer], 16)
