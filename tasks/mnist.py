"""MNIST: which handwritten digit is this? (LeCun, Bottou, Bengio and Haffner 1998, Proceedings of the IEEE 86)

10,000 test images of 28 x 28 grey pixels, white on black. Instruction mixtures built on Vision-Flan hold MNIST-M, the
same digits on photographs: "zero-shot" means an unseen task then, not unseen digits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import mmpt_bench as mb

QUESTION = "Which digit is in the image?"


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample; the legal answers are the data's own class names, "0" to "9"."""
    sample_id, answer = str(number), mb.read_label(row, "label", label_names)
    return mb.Sample(
        id=sample_id,
        image=mb.read_image(row["image"], f"mnist/{number}", sample_id),
        question=mb.read_wording(row, QUESTION),
        choices=tuple(label_names),
        answer=answer,
        cluster=sample_id,
        wording=row.get("wording", ""),
    )


FORMS = {
    "plain": mb.PromptForm("Which digit is in the image?"),
    "options": mb.PromptForm("Which digit is in the image: {options}?"),
    "context": mb.PromptForm("The image is a handwritten digit, white on black. Which digit is in the image?"),
    "steps": mb.PromptForm(
        "So, which digit is in the image: {options}? Answer with one of them.",
        first="Describe step by step the strokes, loops and corners of the handwritten digit in the image.",
    ),
}
"""Forms of prompts that `mmpt-bench prompts mnist` compares."""
TASK = mb.Task(
    name="mnist",
    title="MNIST",
    data=mb.Dataset(
        hub="ylecun/mnist",
        revision="77f3279092a1c1579b2250db8eafed0ad422088c",
        config="mnist",
        columns=("image", "label"),
        label_column="label",
        classes=tuple("0123456789"),
        official=mb.Official(rows=10000),
    ),
    headline="accuracy",
    sample=sample,
    metric=mb.Accuracy(),
    parse=mb.read_reply,
    rule="plain",
    decode="rank",
    max_new_tokens=8,
    version=1,
    forms=FORMS,
    metric_names=("balanced_accuracy", "macro_f1"),
)
