"""VSR: is what a sentence says about two objects' places true? (Liu et al. 2023, arXiv:2205.00363)

1,222 sentences with 65 spatial relations on COCO images, the zero-shot split: concepts of its test are not in its
training data. `--dataset vsr=random` takes the random split, of which 56 % of the test sentences use an image seen in
training. The hub holds file names alone: `--images coco=DIR` says where COCO's train2017 and val2017 are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mmpt_bench as mb

CHOICES = ("false", "true")
SPLITS = "`data/splits/{split}/test.jsonl` of github.com/cambridgeltl/visual-spatial-reasoning at commit b27a0af"
QUESTION = "{caption} Is the statement true or false?"


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample; the image is known by the last part of its link, which is its COCO file name."""
    image_name, sample_id = mb.read_text(row, "image_link").rsplit("/", 1)[-1], str(number)
    return mb.Sample(
        id=sample_id,
        image=mb.read_image(row["image"], f"vsr/{image_name}", sample_id),
        question=mb.read_wording(row, QUESTION).format(caption=mb.read_text(row, "caption")),
        choices=CHOICES,
        answer=mb.read_label(row, "label", CHOICES),
        group=mb.read_text(row, "relation"),
        cluster=image_name,
        wording=row.get("wording", ""),
    )


LABELS = ("true", "false")
FORMS = {
    "plain": mb.PromptForm("{caption} Is the statement {options}?", options=LABELS),
    "if-then": mb.PromptForm(
        "{each} Statement: {caption} Answer {options}.",
        each={
            "true": "If the image shows what the statement says, answer true.",
            "false": "If the image shows something else, answer false.",
        },
        options=LABELS,
    ),
    "context": mb.PromptForm(
        "You judge where things are in photographs. "
        "Only what can be seen in the image counts, not what is usual or likely. "
        "{caption} Is the statement {options}?",
        options=LABELS,
    ),
    "steps": mb.PromptForm(
        "So, is the statement {options}? Answer with one of them.",
        first="{caption} Describe step by step where the two objects are in the image.",
        options=LABELS,
    ),
}
"""Forms of prompts that `mmpt-bench prompts vsr` compares."""
ZEROSHOT = mb.Dataset(
    hub="cambridgeltl/vsr_zeroshot",
    revision="148b3777ceef4a1bfe46377614980836db7d12f2",
    columns=("image", "image_link", "caption", "label", "relation"),
    label_column="label",
    classes=CHOICES,
    folder="vsr_zeroshot",
    images=mb.ImageFolder("coco", "image", "", ("train2017", "val2017")),
    official=mb.Official(
        rows=1222,
        repeated=0,
        pin=mb.Pin("71dcc64eca8436eeb489f59ae58bbf2ca83a4948789c02544d3fabe546f152e1", SPLITS.format(split="zeroshot")),
    ),
)
RANDOM = replace(
    ZEROSHOT,
    hub="cambridgeltl/vsr_random",
    # The commit is not known, and a branch may move: the rows are known by what they say.
    revision="main",
    folder="vsr_random",
    official=mb.Official(
        rows=2195,
        repeated=0,
        pin=mb.Pin("84d7abaa5189500a8763916a45abcaf749bc789ef5092435e98d4d9ee4ba0bfe", SPLITS.format(split="random")),
    ),
    note="random split: 56 % of its test questions use an image of its own training split",
)
TASK = mb.Task(
    name="vsr",
    title="VSR",
    data=replace(ZEROSHOT, alternatives={"random": RANDOM}),
    sample=sample,
    metric=mb.Accuracy(),
    headline="accuracy",
    parse=mb.read_reply,
    rule="plain",
    decode="rank",
    max_new_tokens=8,
    version=1,
    forms=FORMS,
    metric_names=("balanced_accuracy", "macro_f1"),
)
