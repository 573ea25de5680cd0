"""CIFAR-10: which of ten classes is in a 32 x 32 picture? (Krizhevsky 2009, "Learning Multiple Layers of Features")

10,000 test pictures, 1,000 of each class; the classes are listed in the question. Instruction mixtures built on
Vision-Flan hold CINIC-10, and with it these pictures: "zero-shot" means an unseen task then, not unseen pictures.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt_bench.data.rows import label, picture
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.metrics import Accuracy
from mmpt_bench.evaluation.parsing import first_choice
from mmpt_bench.evaluation.task import Task

QUESTION = "Which of these is in the image: {all_but_last} or {last}?"


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> Sample:
    """Returns a row's sample; the legal answers are the data's own class names, in their order."""
    sample_id, answer = str(number), label(row, "label", label_names)
    return Sample(
        id=sample_id,
        image=picture(row["img"], f"cifar10/{number}", sample_id, "img"),
        question=QUESTION.format(all_but_last=", ".join(label_names[:-1]), last=label_names[-1]),
        choices=tuple(label_names),
        answer=answer,
        cluster=sample_id,
    )


TASK = Task(
    name="cifar10",
    title="CIFAR-10",
    headline="accuracy",
    unit="fraction",
    dataset="uoft-cs/cifar10",
    revision="0b2714987fa478483af9968de7c934580d0bb9a2",
    config="plain_text",
    split="test",
    columns=("img", "label"),
    sample=sample,
    metric=Accuracy(),
    parse=first_choice,
    decode="rank",
    max_new_tokens=8,
    version=1,
    metric_names=("balanced_accuracy", "macro_f1"),
    label_column="label",
    image_column="img",
    official_rows=10000,
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
