"""Copy this file: one line that says what the task asks (Authors year, arXiv:0000.00000)

Then what is in it, how much of it, what is known to go wrong, and whether models may have seen it. `mmpt-bench ls
tasks` prints the first line. Save it as tasks/<name>.py, or anywhere, and pass `--tasks ./<name>.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt_bench.metrics import Accuracy
from mmpt_bench.parse import first_choice
from mmpt_bench.source import label, picture, text
from mmpt_bench.task import Sample, Task

QUESTION = "{question} Answer with one of: {choices}."


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
)
