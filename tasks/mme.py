"""MME: fourteen abilities, two yes-or-no questions an image (Fu et al. 2023, arXiv:2306.13394)

2,374 questions on 1,187 images: one question an image is answered with yes, one with no. A subtask gives 100 points
for acc (questions right) and 100 for acc+ (images with both right): 2,000 for perception, 800 for cognition. No
training split. The images are given out by the authors on request, for research.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import mmpt_bench as mb
from mmpt_bench.common.hashing import content_key

CHOICES = ("Yes", "No")
QUESTIONS = (
    ("existence", 60), ("count", 60), ("position", 60), ("color", 60), ("posters", 294), ("celebrity", 340),
    ("scene", 400), ("landmark", 400), ("artwork", 400), ("OCR", 40), ("commonsense_reasoning", 140),
    ("numerical_calculation", 40), ("text_translation", 40), ("code_reasoning", 40),
)  # fmt: skip


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample; the question ends in the authors' own "Please answer yes or no."."""
    subtask, question = mb.read_text(row, "category"), mb.read_text(row, "question")
    # File names repeat across subtasks, and some copies write the subtask in front of them while others do not.
    image_name = f"{subtask}/{mb.read_text(row, 'question_id').removeprefix(subtask + '/')}"
    sample_id = f"{image_name}#{content_key(question, 8)}"
    return mb.Sample(
        id=sample_id,
        image=mb.read_image(row["image"], f"mme/{image_name}", sample_id),
        question=question,
        choices=CHOICES,
        answer=mb.read_choice(row, "answer", CHOICES),
        group=subtask,
        cluster=image_name,
        wording=mb.read_wording(row),
    )


LABELS, ASKED = ("yes", "no"), " Please answer yes or no."
FORMS = {
    "plain": mb.PromptForm("{question} Please answer {options}.", options=LABELS, without=ASKED),
    "if-then": mb.PromptForm(
        "{each} {question} Please answer {options}.",
        each={"yes": "If the image shows that it is so, answer yes.", "no": "If it shows something else, answer no."},
        options=LABELS,
        without=ASKED,
    ),
    "context": mb.PromptForm(
        "You answer questions about images. Only what can be seen in the image counts. {question} "
        "Please answer {options}.",
        options=LABELS,
        without=ASKED,
    ),
    "steps": mb.PromptForm(
        "So, {question} Please answer {options}.",
        first="{question} Describe step by step what in the image answers this question.",
        options=LABELS,
        without=ASKED,
    ),
}
"""Forms of prompts that `mmpt-bench prompts mme` compares."""
TASK = mb.Task(
    name="mme",
    title="MME",
    data=mb.Dataset(
        hub="lmms-lab/MME",
        revision="d6c9023f017b564f7b3ccccf5348166bce8fdbcd",
        columns=("question_id", "image", "question", "answer", "category"),
        images=mb.ImageFolder("mme", "question_id"),
        official=mb.Official(rows=2374, groups=QUESTIONS),
    ),
    headline="total",
    sample=sample,
    metric=mb.MMEMetric(),
    parse=mb.yes_no("mme_official"),
    decode="generate",
    max_new_tokens=16,
    version=1,
    forms=FORMS,
    metric_names=("perception", "cognition"),
    plain=mb.read_reply,
    other_rules={
        "lmms-eval": mb.yes_no("mme_lmms"),
        "vlmevalkit": mb.yes_no("yorn_vlmeval"),
        "m2pt": mb.yes_no("mme_m2pt"),
    },
)
