"""Copy this file: one line that says what the task asks (Authors year, arXiv:0000.00000)

Then what is in it, how much of it, what is known to go wrong, and whether models may have seen it. `mmpt-bench ls
tasks` prints the first line. Save it as tasks/<name>.py, or anywhere: `mmpt-bench check ./<name>.py` proves that it is
a task, and `mmpt-bench run --tasks ./<name>.py` runs it. As it stands, it asks for the colour of 24 plain images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mmpt_bench as mb

NAMES = ("red", "green", "blue", "yellow")
RGB = ((214, 40, 40), (40, 160, 60), (40, 80, 210), (235, 215, 50))
QUESTION = "{question} Answer with one of: {choices}."


def rows() -> mb.Rows:
    """Returns rows that need no download.

    Delete this, and `make_rows=rows` below, if your data is on the hub or in a folder: then `hub` and `revision` say
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
    return mb.Rows(made, NAMES, fingerprint="plain images, version 1", origin="24 plain images", suite="embedded")


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample; `read_text` and its like name the column of a value that cannot be used."""
    # Two questions about one image must share its key and its cluster: errors are taken over images.
    image_name, sample_id = mb.read_text(row, "image_name"), str(number)
    return mb.Sample(
        id=sample_id,
        image=mb.read_image(row["image"], f"template/{image_name}", sample_id),
        question=QUESTION.format(question=mb.read_text(row, "question"), choices=", ".join(label_names)),
        choices=tuple(label_names),
        answer=mb.read_label(row, "label", label_names),
        cluster=image_name,
    )


TASK = mb.Task(
    name="template",
    title="Template",
    data=mb.Dataset(
        hub="owner/name on the hub",
        revision="the 40 digits of a commit, so that the data cannot change under a score",
        columns=("image", "image_name", "question", "label"),
        label_column="label",
        make_rows=rows,
    ),
    headline="accuracy",
    sample=sample,
    metric=mb.Accuracy(),
    parse=mb.read_reply,
    decode="rank",
    max_new_tokens=8,
    version=1,
    metric_names=("balanced_accuracy", "macro_f1"),
)
