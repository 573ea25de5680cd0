"""MME: fourteen abilities, two yes-or-no questions a picture (Fu et al. 2023, arXiv:2306.13394)

2,374 questions on 1,187 pictures: one question a picture is answered with yes, one with no. A subtask gives 100 points
for acc (questions right) and 100 for acc+ (pictures with both right): 2,000 for perception, 800 for cognition. No
training split. The pictures are given out by the authors on request, for research.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt_bench.common.hashing import content_key
from mmpt_bench.data.image_folders import PictureFolder
from mmpt_bench.data.rows import one_of, picture, text
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.metrics import MMEMetric
from mmpt_bench.evaluation.parsing import yes_no
from mmpt_bench.evaluation.task import Task

CHOICES = ("Yes", "No")
QUESTIONS = (
    ("existence", 60), ("count", 60), ("position", 60), ("color", 60), ("posters", 294), ("celebrity", 340),
    ("scene", 400), ("landmark", 400), ("artwork", 400), ("OCR", 40), ("commonsense_reasoning", 140),
    ("numerical_calculation", 40), ("text_translation", 40), ("code_reasoning", 40),
)  # fmt: skip


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> Sample:
    """Returns a row's sample; the question ends in the authors' own "Please answer yes or no."."""
    subtask, question, image_name = text(row, "category"), text(row, "question"), text(row, "question_id")
    # File names repeat across subtasks, and some copies write the subtask in front of them while others do not.
    image_name = f"{subtask}/{image_name.removeprefix(subtask + '/')}"
    sample_id = f"{image_name}#{content_key(question, 8)}"
    return Sample(
        id=sample_id,
        image=picture(row["image"], f"mme/{image_name}", sample_id),
        question=question,
        choices=CHOICES,
        answer=one_of(row, "answer", CHOICES),
        group=subtask,
        cluster=image_name,
    )


TASK = Task(
    name="mme",
    title="MME",
    headline="total",
    unit="points",
    dataset="lmms-lab/MME",
    revision="d6c9023f017b564f7b3ccccf5348166bce8fdbcd",
    config=None,
    split="test",
    columns=("question_id", "image", "question", "answer", "category"),
    sample=sample,
    metric=MMEMetric(),
    parse=yes_no("mme_official"),
    decode="generate",
    max_new_tokens=16,
    version=1,
    metric_names=("perception", "cognition"),
    official_rows=2374,
    other_rules={"lmms-eval": yes_no("mme_lmms"), "vlmevalkit": yes_no("yorn_vlmeval")},
    official_groups=QUESTIONS,
    pictures=PictureFolder("mme", "question_id"),
)
