"""SNLI-VE: does the image prove a sentence, refute it, or neither? (Xie et al. 2019, arXiv:1901.06706)

17,901 sentences on 1,000 Flickr30k images in three classes: entailment, neutral, contradiction. The caption (premise)
is not shown. The hub's copy is a script, which is never run, over JSON lines without images; those are read, and
`--images flickr30k=DIR` says where the images are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import mmpt_bench as mb

CHOICES = ("entailment", "neutral", "contradiction")
QUESTION = "{hypothesis} Is the statement entailment, neutral or contradiction, given the image?"
ALSO = {
    "entailment": ("entail", "entails", "entailed", "entailing"),
    "contradiction": ("contradict", "contradicts", "contradicted", "contradicting", "contradictory"),
}
"""Other words for an answer."""
REPEATED = 23
"""Rows that say of an image what another says, counted in the 14,740 that e-SNLI-VE keeps of the split."""


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample; the same sentence can be said of one image twice, so its row number names it."""
    image_name, sample_id = mb.read_text(row, "filename"), str(number)
    if set(label_names) != set(CHOICES):
        raise ValueError(f"column `label` has the classes {', '.join(label_names)}, not {', '.join(CHOICES)}")
    return mb.Sample(
        id=sample_id,
        image=mb.read_image(row["image"], f"snli_ve/{image_name}", sample_id),
        question=mb.read_wording(row, QUESTION).format(hypothesis=mb.read_text(row, "hypothesis")),
        choices=CHOICES,
        answer=mb.read_label(row, "label", label_names),
        cluster=image_name,
        wording=row.get("wording", ""),
    )


def from_raw(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row of the authors' JSON lines in the columns below; ValueError naming the column of a bad value."""
    # The first release spelt the key wrong.
    name = row.get("Flickr30K_ID") or row.get("Flikr30kID")
    gold = row.get("gold_label")
    if name is None:
        raise ValueError("column `Flickr30K_ID` is empty")
    if gold not in CHOICES:
        raise ValueError(f"column `gold_label` holds `{gold}`, not one of {', '.join(CHOICES)}")
    file = str(name) if str(name).endswith(".jpg") else f"{name}.jpg"
    return {"filename": file, "hypothesis": row["sentence2"], "label": CHOICES.index(gold)}


FORMS = {
    "plain": mb.PromptForm("{hypothesis} Is the statement {options}, given the image?"),
    "if-then": mb.PromptForm(
        "{each} Statement: {hypothesis} Answer {options}.",
        each={
            "entailment": "If the image proves the statement, answer entailment.",
            "neutral": "If the image neither proves nor refutes the statement, answer neutral.",
            "contradiction": "If the image refutes the statement, answer contradiction.",
        },
    ),
    "context": mb.PromptForm(
        "You judge statements about photographs. "
        "Only what can be seen in the image counts, not what is usual or likely. "
        "{hypothesis} Is the statement {options}, given the image?"
    ),
    "steps": mb.PromptForm(
        "So, is the statement {options}, given the image? Answer with one of them.",
        first="{hypothesis} Describe step by step what in the image speaks for or against this statement.",
    ),
}
"""Forms of prompts that `mmpt-bench prompts snli_ve` compares."""
TASK = mb.Task(
    name="snli_ve",
    title="SNLI-VE",
    data=mb.Dataset(
        hub="HuggingFaceM4/SNLI-VE",
        revision="f0d60584d7b71b3c891aa24b69bc609b3c90be43",
        columns=("image", "filename", "hypothesis", "label"),
        label_column="label",
        classes=CHOICES,
        raw=mb.RawForm(("gold_label", "sentence2"), ("Flickr30K_ID", "Flikr30kID"), from_raw),
        images=mb.ImageFolder("flickr30k", "filename", "", ("flickr30k-images", "flickr30k_images")),
        official=mb.Official(rows=17901, repeated=REPEATED),
    ),
    headline="accuracy",
    sample=sample,
    metric=mb.Accuracy(),
    parse=mb.reply_reader(ALSO),
    rule="plain",
    decode="rank",
    max_new_tokens=8,
    version=1,
    forms=FORMS,
    metric_names=("balanced_accuracy", "macro_f1"),
)
