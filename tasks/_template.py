"""Copy this file: one line that says what the task asks (Authors year, arXiv:0000.00000)

Then what is in it, how much of it, what is known to go wrong, and whether models may have seen it. `mmpt-bench ls
tasks` prints the first line. Save it as tasks/<name>.py, or anywhere: `mmpt-bench check ./<name>.py` proves that it is
a task, and `mmpt-bench run --tasks ./<name>.py` runs it. As it stands, it asks for the colour of 24 plain pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt_bench.data.rows import Rows, label, picture, text
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.metrics import Accuracy
from mmpt_bench.evaluation.parsing import first_choice
from mmpt_bench.evaluation.task import Task

NAMES = ("red", "green", "blue", "yellow")
RGB = ((214, 40, 40), (40, 160, 60), (40, 80, 210), (235, 215, 50))
QUESTION = "{question} Answer with one of: {choices}."


def rows() -> Rows:
    """Returns rows that need no download.

    Delete this, and `rows=rows` below, if your data is on the hub or in a folder: then `dataset` and `revision` say
    where on the hub, and `--data DIR` names a folder in the same form.
    """
    from PIL import Image

    made = [
        {
            "image": Image.new("RGB", (48, 48), tuple(min(255, value + number) for value in RGB[number % 4])),
            "image_name": f"plain_{number:03d}.png",
            "question": "What color is in the image?",
            "label": number % 4,
        }
        for number in range(24)
    ]
    return Rows(made, NAMES, fingerprint="plain pictures, version 1", origin="24 plain pictures", suite="embedded")


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> Sample:
    """Returns a row's sample; `text`, `label` and `picture` name the column of a value that cannot be used."""
    # Two questions about one picture must share its key and its cluster: errors are taken over pictures.
    image_name, sample_id = text(row, "image_name"), str(number)
    return Sample(
        id=sample_id,
        image=picture(row["image"], f"template/{image_name}", sample_id),
        question=QUESTION.format(question=text(row, "question"), choices=", ".join(label_names)),
        choices=tuple(label_names),
        answer=label(row, "label", label_names),
        cluster=image_name,
    )


TASK = Task(
    name="template",
    title="Template",
    headline="accuracy",
    unit="fraction",
    dataset="owner/name on the hub",
    revision="the 40 digits of a commit, so that the data cannot change under a score",
    config=None,
    split="test",
    columns=("image", "image_name", "question", "label"),
    sample=sample,
    metric=Accuracy(),
    parse=first_choice,
    decode="rank",
    max_new_tokens=8,
    version=1,
    metric_names=("balanced_accuracy", "macro_f1"),
    label_column="label",
    rows=rows,
)
