"""CIFAR-10: which of ten classes is in a 32 x 32 image? (Krizhevsky 2009, "Learning Multiple Layers of Features")

10,000 test images, 1,000 of each class; the classes are listed in the question. Instruction mixtures built on
Vision-Flan hold CINIC-10, and with it these images: "zero-shot" means an unseen task then, not unseen images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import mmpt_bench as mb

QUESTION = "Which of these is in the image: {all_but_last} or {last}?"
ALSO = {
    "airplane": ("plane", "aeroplane", "aircraft", "jet"),
    "automobile": ("car",),
    "cat": ("kitten",),
    "dog": ("puppy",),
    "ship": ("boat",),
    "truck": ("lorry",),
}
"""Other words for an answer."""


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample; the legal answers are the data's own class names, in their order."""
    sample_id, answer = str(number), mb.read_label(row, "label", label_names)
    return mb.Sample(
        id=sample_id,
        image=mb.read_image(row["img"], f"cifar10/{number}", sample_id, "img"),
        question=mb.read_wording(row, QUESTION).format(all_but_last=", ".join(label_names[:-1]), last=label_names[-1]),
        choices=tuple(label_names),
        answer=answer,
        cluster=sample_id,
        wording=row.get("wording", ""),
    )


CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FORMS = {
    "plain": mb.PromptForm("Which of these is in the image: {options}?"),
    "if-then": mb.PromptForm(
        "{each} Which of these is in the image: {options}?",
        each={name: f"If it is of the class {name}, answer {name}." for name in CLASSES},
    ),
    "context": mb.PromptForm(
        "The image is a photograph of one object, only 32 x 32 points large. Which of these is in the image: {options}?"
    ),
    "steps": mb.PromptForm(
        "So, which of these is in the image: {options}? Answer with one of them.",
        first="Describe step by step the shape, the parts and the colors of the object in the image.",
    ),
}
"""Forms of prompts that `mmpt-bench prompts cifar10` compares."""
TASK = mb.Task(
    name="cifar10",
    title="CIFAR-10",
    data=mb.Dataset(
        hub="uoft-cs/cifar10",
        revision="0b2714987fa478483af9968de7c934580d0bb9a2",
        config="plain_text",
        columns=("img", "label"),
        label_column="label",
        image_column="img",
        classes=CLASSES,
        official=mb.Official(rows=10000),
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
