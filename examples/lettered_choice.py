"""Multiple choice with lettered options and a hint: how many dots are there? (an example, on generated images)

36 questions on images of one to four dots, in the form of ScienceQA (Lu et al. 2022, arXiv:2209.09513): a hint, a
question, options after letters, and the letter as the answer. The order of the options changes with the question, so
that a model that always says one letter is right in a quarter of them. `mmpt-bench check examples/lettered_choice.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mmpt_bench as mb

LETTERS = ("A", "B", "C", "D")
NUMBERS = ("one", "two", "three", "four")
FORM = "Hint: {hint} {question} {options} Answer with the option's letter from the given choices directly."


def rows() -> mb.Rows:
    """Returns an image of dots, and a question whose options are turned by one from row to row."""
    from PIL import Image, ImageDraw

    made = []
    for number in range(36):
        count, turn = number % 4 + 1, number // 4 % 4
        image = Image.new("RGB", (48, 48), (235, 235, 220 + number // 4))
        for i in range(count):
            ImageDraw.Draw(image).ellipse((4 + 11 * i, 19, 12 + 11 * i, 27), fill=(30, 60, 160))
        options = NUMBERS[turn:] + NUMBERS[:turn]
        row = {"image": image, "hint": "Dots may be small.", "question": "How many dots are there?"}
        made.append(row | {"options": "|".join(options), "answer": options.index(NUMBERS[count - 1])})
    return mb.Rows(made, LETTERS, fingerprint="dots, version 1", origin="36 images of dots", suite="embedded")


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample; its legal answers are the letters."""
    options = zip(LETTERS, mb.read_text(row, "options").split("|"), strict=True)
    return mb.Sample(
        id=str(number),
        image=mb.read_image(row["image"], f"dots/{number}.png", str(number)),
        question=FORM.format(
            hint=mb.read_text(row, "hint"),
            question=mb.read_text(row, "question"),
            options=" ".join(f"{letter}. {option}" for letter, option in options),
        ),
        choices=LETTERS,
        answer=mb.read_label(row, "answer", label_names),
        cluster=str(number),
    )


TASK = mb.Task(
    name="lettered_choice",
    title="Lettered choice",
    data=mb.Dataset(
        hub="owner/name on the hub",
        revision="the 40 digits of a commit",
        columns=("image", "hint", "question", "options", "answer"),
        label_column="answer",
        make_rows=rows,
    ),
    headline="accuracy",
    sample=sample,
    metric=mb.Accuracy(),
    parse=mb.read_reply,
    decode="rank",
    max_new_tokens=8,
    version=1,
)
